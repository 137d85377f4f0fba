"""Runtimes move messages and loop over rounds; they never compute. All of them run the same learner and controller functions."""

from lapg.runtimes.hosted import Hosted
from lapg.runtimes.sequential import sequential
from lapg.runtimes.vectorised import Vectorised, use_all_cores
from lapg.types import Problem

__all__ = ["Hosted", "Vectorised", "runtime_of", "sequential", "use_all_cores"]


def runtime_of(problem: Problem) -> type[Vectorised] | type[Hosted]:
    """The runtime that plays a problem: `Vectorised`, or `Hosted` where its environment is outside JAX."""
    return Vectorised if problem.collect is None else Hosted
