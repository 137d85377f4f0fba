"""The state of a distributed run between rounds: enough to resume it, whatever has become of the processes."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.types import ControllerState, LearnerState


class LearnerTable(eqx.Module):
    """What the controller's host remembers of every learner.

    Attributes:
      generation: counts from 1; every resync starts a new one.
      accepted: sequence number of the last accepted reply; 0 if there is none in this generation.
      silent: rounds since that reply.
      shares: what the aggregate holds of each; without entries where the method keeps no sum of uploads.
    """

    generation: Int[np.ndarray, " M"]
    accepted: Int[np.ndarray, " M"]
    silent: Int[np.ndarray, " M"]
    shares: Float[Array, "M d"]


class DistributedState(eqx.Module):
    """The state of a run whose learners live in other processes, between rounds; the counterpart of `lapg.rounds.RunState`.

    Replicas of the controller, where its downlink is replicated, are not part of it: a run that resumes sends the controller's state first.
    """

    controller: ControllerState
    learners: LearnerState
    table: LearnerTable
    downlink: PyTree = ()

    def saved(self, learners: Sequence[int]) -> dict[int, tuple[bytes, int, int]]:
        """Returns what `LearnerHost.load` takes, by learner: state, generation, sequence number. Learners without an accepted reply need nothing loaded."""
        known = [m for m in learners if self.table.accepted[m]]
        states = {m: wire.encode_tree(jax.tree.map(lambda leaf, m=m: leaf[m], self.learners)) for m in known}
        return {m: (states[m], int(self.table.generation[m]), int(self.table.accepted[m])) for m in known}


def begin(compiled: Compiled, hyper: dict[str, Any], seed: Any, params: Any = None) -> DistributedState:
    """Makes the state before round 0, at θ⁰ or the given parameters: all learners in generation 1, no reply accepted yet."""
    state = compiled.start(hyper, np.uint32(seed), params)
    controller = compiled.begin(hyper, np.uint32(seed)) if params is None else state.controller
    nothing = np.zeros(compiled.num_learners, np.int32)
    table = LearnerTable(nothing + 1, nothing, nothing, compiled.empty_shares())
    return DistributedState(controller, state.learners, table, state.downlink)
