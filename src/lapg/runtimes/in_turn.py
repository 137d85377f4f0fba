"""What runtimes share that play their lanes one after the other, a round at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lapg.runtimes.protocol import Log


class Lanes(ABC):
    """The lanes of a run: their numbers, and how they begin.

    A state is a `RunState`, or has what that has and more.
    """

    def __init__(
        self, hypers: dict[str, Any], seeds: Sequence[int], chunk_rounds: int, initial_params: np.ndarray | None
    ) -> None:
        self.num_lanes, self.chunk_rounds = len(seeds), chunk_rounds
        self._hypers = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], hypers) for i in range(self.num_lanes)]
        self._seeds = np.asarray(seeds, np.uint32)
        self._initial = [None if initial_params is None else initial_params[i] for i in range(self.num_lanes)]
        self._state: Any = None

    @abstractmethod
    def _initialise(self, index: int) -> Any:
        """The state of a lane before round 0."""

    @abstractmethod
    def advance(self, state: Any, first: int, until: int) -> tuple[Any, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        """

    def start(self) -> Any:
        """The state of all lanes before round 0."""
        return stack([self._initialise(index) for index in range(self.num_lanes)])

    def state_shape(self) -> Any:
        """Shapes and dtypes of the state, without computing it."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.num_lanes, *leaf.shape), leaf.dtype), self.lane_shape()
        )

    def lane_shape(self) -> Any:
        """Shapes and dtypes of one lane's state."""
        return jax.eval_shape(lambda: self._initialise(0))

    def lane(self, state: Any, index: int) -> Any:
        """The state of one lane."""
        return jax.tree.map(lambda leaf: leaf[index], state)

    def close(self) -> None:  # noqa: B027  (most have nothing to end)
        """Ends what the runtime has started."""


class InTurn(Lanes):
    """Plays lanes one after the other, in this process. Used like `lapg.runtimes.Vectorised`; a runtime says how it plays a round."""

    @abstractmethod
    def _play_round(self, index: int, state: Any) -> tuple[Any, Log]:
        """A round of a lane, given the state before it: the state after it, and what it leaves for the record."""

    def advance(self, state: Any, first: int, until: int) -> tuple[Any, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        Raises:
          ValueError: an environment returns what is not finite.
        """
        if state is not self._state:
            state = self._enter(state)
        lanes, logs = [], []
        for index in range(self.num_lanes):
            lane, log = self.lane(state, index), []
            for _ in range(first, min(first + self.chunk_rounds, until)):
                lane, entry = self._play_round(index, lane)
                log.append(entry)
            lanes.append(lane)
            logs.append(stack(log))
        self._state = stack(lanes)
        return self._state, jax.tree.map(np.asarray, stack(logs))

    def _enter(self, state: Any) -> Any:
        """Gets ready for a state that `advance` did not return itself the last time; the state to go on from."""
        return state


def stack(trees: list[Any]) -> Any:
    """Equal trees with a new leading axis, in NumPy."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
