"""Runtimes move messages and loop over rounds; they never compute. All of them run the same learner and controller functions."""

import importlib
from collections.abc import Callable
from typing import Any, Literal

from lapg.runtimes.base import Runtime
from lapg.runtimes.hosted import Hosted
from lapg.runtimes.sequential import Sequential, sequential
from lapg.runtimes.vectorised import Vectorised, use_all_cores
from lapg.types import Problem

__all__ = [
    "DISTRIBUTED",
    "REMOTE",
    "Hosted",
    "Runtime",
    "RuntimeName",
    "Sequential",
    "Vectorised",
    "distributed",
    "runtime_of",
    "sequential",
    "use_all_cores",
]

RuntimeName = Literal["vectorised", "sequential", "ray", "flower"]
DISTRIBUTED = {"ray": "Ray"}
"""Runtimes whose learners live in other processes: module under `lapg.runtimes`, which is also the extra that it needs, and class."""
REMOTE = (*DISTRIBUTED, "flower")
"""All runtimes whose learners live elsewhere. Under Flower the controller does, too: `lapg.experiments.flower_launch` starts such a run."""


def runtime_of(
    problem: Problem, name: RuntimeName = "vectorised"
) -> type[Vectorised] | type[Hosted] | type[Sequential]:
    """Chooses the runtime of this process that plays a problem: for ``vectorised`` `Hosted` where the problem's environment is outside JAX.

    Raises:
      ValueError: it cannot play this problem.
    """
    if name == "sequential":
        if problem.collect is not None:
            raise ValueError(
                "runtime must be vectorised for a problem outside JAX, whose learners are then played one by one; got 'sequential'."
            )
        return Sequential
    return Vectorised if problem.collect is None else Hosted


def distributed(name: str) -> Callable[..., Any]:
    """Imports a runtime of `DISTRIBUTED`.

    Raises:
      ValueError: its engine is not installed.
    """
    try:
        return getattr(importlib.import_module(f"lapg.runtimes.{name}.runtime"), DISTRIBUTED[name])
    except ImportError as error:
        raise ValueError(f"runtime {name!r} needs the package {error.name}; pip install 'lapg[{name}]'.") from error
