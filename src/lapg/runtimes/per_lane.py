"""Base classes of runtimes that play their lanes one after the other, a round at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lapg.rounds import Log
from lapg.runtimes.base import Pause, never
from lapg.runtimes.evaluation import Evaluation, Evaluator, finish_log, with_scores


class BaseRuntime(ABC):
    """Holds the lanes of a run, their hyperparameters, seeds and initial states; implements all of `lapg.runtimes.base.Runtime` but `advance`."""

    fetches = False
    """Whether `advance` fetches the state that it returns from other processes, so that it should not return too often."""

    def __init__(
        self,
        hypers: dict[str, Any],
        seeds: Sequence[int],
        chunk_rounds: int,
        initial_params: np.ndarray | None,
        evaluation: Evaluation,
    ) -> None:
        self.num_lanes, self.chunk_rounds, self._evaluation = len(seeds), chunk_rounds, evaluation
        self._hypers = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], hypers) for i in range(self.num_lanes)]
        self._seeds = np.asarray(seeds, np.uint32)
        self._initial = [None if initial_params is None else initial_params[i] for i in range(self.num_lanes)]
        self._state: Any = None

    @abstractmethod
    def _initialise(self, index: int) -> Any:
        """The state of a lane before round 0."""

    @abstractmethod
    def advance(self, state: Any, first: int, until: int, pause: Pause = never) -> tuple[Any, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1, of all lanes round by round; fewer where ``pause`` says so.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        """

    def export(self, state: Any) -> Any:
        """The state as it is saved, shaped as `state_shape` says."""
        return state

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


class PerLaneRuntime(BaseRuntime):
    """Plays lanes one after the other, in this process; used like `lapg.runtimes.Vectorised`. A subclass defines how it plays a round."""

    _evaluator: Evaluator | None = None
    _failure: Exception | None = None
    """What has ended the rounds that `advance` returned last."""

    @abstractmethod
    def _play_round(self, index: int, state: Any) -> tuple[Any, Log]:
        """Plays a round of a lane, given the state before it: the state after it, and its log."""

    def advance(self, state: Any, first: int, until: int, pause: Pause = never) -> tuple[Any, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1, of all lanes round by round; fewer where ``pause`` says so, or a round fails.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        Raises:
          Exception: what the first of the rounds has raised, or the one after those that were returned last; nothing played before it is lost.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if state is not self._state:
            state = self._enter(state)
        lanes, logs = [self.lane(state, index) for index in range(self.num_lanes)], []
        for round in range(first, min(first + self.chunk_rounds, until)):
            try:
                lanes, entries = zip(
                    *(self._play_and_score(index, lane, round) for index, lane in enumerate(lanes)), strict=True
                )
            except Exception as error:
                if not logs:
                    raise
                self._failure = error
                break
            logs.append(stack(entries))
            if pause(round + 1):
                break
        self._state = stack(lanes)
        return self._state, finish_log(stack(logs, axis=1), first, self._evaluation)

    def _play_and_score(self, index: int, state: Any, round: int) -> tuple[Any, Log]:
        if self._evaluator is None:
            return self._play_round(index, state)
        found = self._evaluator(self._seeds[index], state.controller.params, round)
        after, log = self._play_round(index, state)
        return after, with_scores(log, found)

    def _enter(self, state: Any) -> Any:
        """Prepares for a state that `advance` did not return last; the state to play from."""
        return state


def stack(trees: Sequence[Any], axis: int = 0) -> Any:
    """Stacks equal trees along a new axis, in NumPy."""
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis), *trees)
