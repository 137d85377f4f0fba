"""Strict by default: float64, no silent rank promotion, shapes and types checked at every call."""

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)

install_import_hook("lapg", "beartype.beartype")
