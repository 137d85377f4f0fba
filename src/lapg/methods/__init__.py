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
from lapg.methods.compressed import dasha, ef14, ef21, ef21_sgdm, ef_sign, qsgd
from lapg.methods.controls import never, periodic, random
from lapg.methods.lazy import clag, lag_ps, lag_wk, laq, lasg_wk1, lasg_wk2, lena
from lapg.methods.paper import lapg, pg
from lapg.methods.reduced import fedavg, fedsvrpg_m, storm_pg, svrpg

__all__ = [
    "METHODS",
    "REDUCTIONS",
    "CompressorName",
    "MemoryName",
    "Optimiser",
    "Setting",
    "assemble",
    "awapg",
    "clag",
    "dasha",
    "ef14",
    "ef21",
    "ef21_sgdm",
    "ef_sign",
    "fedavg",
    "fedsvrpg_m",
    "lag_ps",
    "lag_wk",
    "lapg",
    "laq",
    "lasg_wk1",
    "lasg_wk2",
    "lena",
    "make_compressor",
    "make_memory",
    "never",
    "periodic",
    "pg",
    "qsgd",
    "random",
    "scout",
    "storm_pg",
    "svrpg",
]

METHODS: dict[str, Callable[..., Any]] = {
    "pg": pg,
    "lapg": lapg,
    "scout": scout,
    "awapg": awapg,
    "periodic": periodic,
    "random": random,
    "never": never,
    "lag_wk": lag_wk,
    "lag_ps": lag_ps,
    "laq": laq,
    "lasg_wk1": lasg_wk1,
    "lasg_wk2": lasg_wk2,
    "clag": clag,
    "lena": lena,
    "qsgd": qsgd,
    "ef14": ef14,
    "ef_sign": ef_sign,
    "ef21": ef21,
    "ef21_sgdm": ef21_sgdm,
    "dasha": dasha,
    "fedavg": fedavg,
    "fedsvrpg_m": fedsvrpg_m,
    "svrpg": svrpg,
    "storm_pg": storm_pg,
}
