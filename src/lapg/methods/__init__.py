"""Methods: choices of parts, a few lines each. A recipe is called inside the compiled function, so that its hyperparameters can be traced."""

from collections.abc import Callable
from typing import Any

from lapg.methods.adaptive import awapg, scout
from lapg.methods.assembly import (
    REDUCTIONS,
    CompressorName,
    MemoryName,
    Optimiser,
    Setting,
    assemble,
    make_compressor,
    make_memory,
)
from lapg.methods.controls import never, periodic, random
from lapg.methods.paper import lapg, pg

__all__ = [
    "METHODS",
    "REDUCTIONS",
    "CompressorName",
    "MemoryName",
    "Optimiser",
    "Setting",
    "assemble",
    "awapg",
    "lapg",
    "make_compressor",
    "make_memory",
    "never",
    "periodic",
    "pg",
    "random",
    "scout",
]

METHODS: dict[str, Callable[..., Any]] = {
    "pg": pg,
    "lapg": lapg,
    "scout": scout,
    "awapg": awapg,
    "periodic": periodic,
    "random": random,
    "never": never,
}
