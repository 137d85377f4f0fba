"""Strict by default: float64, no silent rank promotion, shapes and types checked at every call."""

import atexit
import os
import shutil
import tempfile

import jax
import jaxtyping
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)

COMPILED = tempfile.mkdtemp(prefix="lapg-compiled-")  # of one worker and what its tests start; gone afterwards
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
QUICK = {  # compiling is most of the tests' time: without optimisation it is short, and nothing that takes long is compiled twice
    "jax_disable_most_optimizations": True,
    "jax_compilation_cache_dir": COMPILED,
    "jax_persistent_cache_min_compile_time_secs": 0.1,
}
for name, value in QUICK.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
os.environ["XLA_FLAGS"] = (  # read when JAX starts: the older emitters compile a third faster
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)

install_import_hook("lapg", "beartype.beartype")


@pytest.fixture
def unchecked():
    """Type checks off, as for users, so that the library's own checks of names are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
