"""What the controller's end of a distributed run remembers between rounds: enough to go on from, whatever became of the processes."""

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
    """What the controller's end remembers of every learner.

    Attributes:
      generation: which life.
      accepted: sequence number of the last accepted reply; 0 if there is none in this generation.
      silent: rounds since that reply.
      shares: what the aggregate holds of each; without entries where the method keeps no sum of uploads.
    """

    generation: Int[np.ndarray, " M"]
    accepted: Int[np.ndarray, " M"]
    silent: Int[np.ndarray, " M"]
    shares: Float[Array, "M d"]


class DistributedState(eqx.Module):
    """What a `lapg.rounds.RunState` is where learners live elsewhere: everything to go on from, between rounds.

    Learners' replicas of the controller, where its downlink is replicated, are not in it: who goes on from here hears the controller's state first.
    """

    controller: ControllerState
    learners: LearnerState
    table: LearnerTable
    downlink: PyTree = ()

    def saved(self, learners: Sequence[int]) -> dict[int, tuple[bytes, int, int]]:
        """What those learners go on from, for `LearnerHost.load`: state, generation, sequence number. Who has nothing accepted yet starts by itself."""
        known = [m for m in learners if self.table.accepted[m]]
        states = {m: wire.encode_tree(jax.tree.map(lambda leaf, m=m: leaf[m], self.learners)) for m in known}
        return {m: (states[m], int(self.table.generation[m]), int(self.table.accepted[m])) for m in known}


def begin(compiled: Compiled, hyper: dict[str, Any], seed: Any, params: Any = None) -> DistributedState:
    """Before round 0, at θ⁰ or the given parameters: everybody in the first life, nothing accepted yet."""
    state = compiled.start(hyper, np.uint32(seed), params)
    nothing = np.zeros(compiled.num_learners, np.int32)
    table = LearnerTable(nothing + 1, nothing, nothing, compiled.empty_shares())
    return DistributedState(state.controller, state.learners, table, state.downlink)
