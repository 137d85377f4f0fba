"""Runtimes move messages and loop over rounds; they never compute. All of them run the same learner and controller functions."""

from lapg.runtimes.sequential import sequential
from lapg.runtimes.vectorised import Vectorised, use_all_cores

__all__ = ["Vectorised", "sequential", "use_all_cores"]
