"""The protocol of runtimes: lanes that advance together, and states that can be saved."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from lapg.rounds import Log

Pause = Callable[[int], bool]
"""Called after rounds of all lanes with the number of rounds played; whether `Runtime.advance` is to return now, before its chunk is full."""


def never(round: int) -> bool:
    """Never pauses: whole chunks are played."""
    return False


@runtime_checkable
class Runtime(Protocol):
    """Plays L lanes, each a seed with its hyperparameters.

    A state is a `lapg.rounds.RunState`, or has what that has and more; leaves have a leading axis L.

    Attributes:
      num_lanes: L.
      chunk_rounds: the most rounds that `advance` plays at once.
      fetches: whether `advance` fetches the state that it returns from other processes, so that it should not return too often.
    """

    num_lanes: int
    chunk_rounds: int
    fetches: bool

    def start(self) -> Any:
        """The state of all lanes before round 0."""
        ...

    def advance(self, state: Any, first: int, until: int, pause: Pause = never) -> tuple[Any, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1 of all lanes; fewer where ``pause`` says so.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        """
        ...

    def export(self, state: Any) -> Any:
        """The state as it is saved, shaped as `state_shape` says."""
        ...

    def state_shape(self) -> Any:
        """Shapes and dtypes of the state, without computing it."""
        ...

    def lane_shape(self) -> Any:
        """Shapes and dtypes of one lane's state."""
        ...

    def lane(self, state: Any, index: int) -> Any:
        """The state of one lane."""
        ...

    def close(self) -> None:
        """Ends what the runtime has started."""
        ...
