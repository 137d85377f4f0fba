"""The two ends of a replicated downlink as bytes: what the controller has still to tell a learner, and how the learner's host follows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from lapg.runtimes import wire
from lapg.types import NOBODY, Buffer, Compressor, ControllerState, Relay

StepFunction = Callable[[ControllerState, Relay], ControllerState]


class Outbox:
    """The controller's end: one frame for each round in which somebody uploaded, for as long as all of them are no longer than the state.

    It knows nothing of learners: what one has to hear follows from the round that its replica is known to have reached.

    Args:
      compressor: of the relays.
      state: the controller's; what was before has to be told by the state itself.
    """

    def __init__(self, compressor: Compressor, state: ControllerState) -> None:
        self._compressor = compressor
        self._limit = wire.HEADER.size + wire.tree_size(state)
        self.restart(int(state.round))

    def restart(self, round: int) -> None:
        """The controller has come to this round by more than its own step, which frames cannot tell: everybody needs the state."""
        self._first, self._frames = round, dict[int, bytes]()

    def add(self, state: ControllerState, relay: Relay) -> None:
        """What the controller stepped with from this state; nothing if nobody uploaded."""
        if bool(jnp.any(relay.sent)):
            round, message = int(state.round), wire.encode_relay(self._compressor, relay)
            self._frames[round] = wire.frame(message, round=round, learner=NOBODY, base=wire.checksum(state))
        while sum(map(len, self._frames.values())) > self._limit:
            oldest = min(self._frames)
            del self._frames[oldest]
            self._first = oldest + 1

    def catch_up(self, last_broadcast: int, state: ControllerState) -> bytes:
        """What takes a replica from the round ``last_broadcast`` to ``state``: frames, or the state if those would be longer or do not go back so far.

        Args:
          heard: round of the last broadcast that the learner is known to have heard; −1 if there is none.
        """
        if last_broadcast < self._first:
            return wire.frame(wire.encode_tree(state), round=int(state.round), learner=NOBODY)
        return b"".join(frame for round, frame in self._frames.items() if round >= last_broadcast)


def follow(
    replica: ControllerState | None,
    raw: Buffer,
    round: int,
    compressor: Compressor,
    step: StepFunction,
    *,
    like: tuple[ControllerState, PyTree],
) -> ControllerState | None:
    """The learner's end: the controller's state at the beginning of ``round``, from an older one and what the `Outbox` had for it.

    A frame says which round it is of, so that one which was heard before is not stepped with again, and what the controller's state was, so that a
    replica which another processor or program has led elsewhere, if only by a rounding error, is found out the next time that somebody uploads.

    Args:
      replica: where it was when the learner heard something last; None if there is none.
      step: the controller's own, without its log.
      like: shapes and dtypes of a state and of a relay; None for the latter where only the state can come.
    Returns:
      None if there is no replica that the frames fit, and the state has not come.
    Raises:
      MalformedError: a frame is not complete, or its length does not fit.
    """
    frames = {header.round: (header.base, payload) for header, payload in wire.split(raw)}
    if round in frames:
        return wire.decode_tree(frames[round][1], like[0])
    if replica is None:
        return None
    silence = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like[1])
    for number in range(int(replica.round), round):
        if number not in frames:
            replica = step(replica, silence)
            continue
        expected, payload = frames[number]
        if wire.checksum(replica) != expected:
            return None
        replica = step(replica, wire.decode_relay(compressor, payload, like[1]))
    return replica
