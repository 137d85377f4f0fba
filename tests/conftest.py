"""Strict by default: float64, no silent rank promotion, shapes and types checked at every call."""

import jax
import jaxtyping
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update(
    "jax_disable_most_optimizations", True
)  # compiles four times faster, and compiling is most of the time

install_import_hook("lapg", "beartype.beartype")


@pytest.fixture
def unchecked():
    """Type checks off, as for users, so that the library's own checks of names are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
