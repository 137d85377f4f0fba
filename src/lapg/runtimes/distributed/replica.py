"""Both ends of a replicated downlink as bytes: the steps that the controller sends to a learner's replica, and how the replica follows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from lapg.runtimes import wire
from lapg.types import NOBODY, Buffer, Compressor, ControllerState, Relay

StepFunction = Callable[[ControllerState, Relay], ControllerState]


class Outbox:
    """Keeps the controller's steps for the learners' replicas: one frame for each round with an upload, as long as all frames are no longer than the state.

    It keeps nothing about learners: what is sent to one follows from the round that its replica has reached.

    Args:
      compressor: of the relays.
      state: the controller's, at which the frames begin; a replica that is further behind is sent the state.
    """

    def __init__(self, compressor: Compressor, state: ControllerState) -> None:
        self._compressor = compressor
        self._limit = wire.HEADER.size + wire.tree_size(state)
        self.restart(int(state.round))

    def restart(self, round: int) -> None:
        """Drops all frames: the controller's state at this round is not the result of its steps alone, so every replica needs the state."""
        self._first, self._frames = round, dict[int, bytes]()

    def add(self, state: ControllerState, relay: Relay) -> None:
        """Adds the relay with which the controller stepped from this state; rounds without an upload need no frame."""
        if bool(jnp.any(relay.sent)):
            round, message = int(state.round), wire.encode_relay(self._compressor, relay)
            self._frames[round] = wire.frame(message, round=round, learner=NOBODY, base=wire.checksum(state))
        while sum(map(len, self._frames.values())) > self._limit:
            oldest = min(self._frames)
            del self._frames[oldest]
            self._first = oldest + 1

    def catch_up(self, last_broadcast: int, state: ControllerState) -> bytes:
        """Returns what takes a replica from the round ``last_broadcast`` to ``state``: frames, or the state where frames do not go back so far.

        Args:
          last_broadcast: round of the last broadcast that the learner is known to have received; −1 if there is none.
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
    """Advances a learner's replica to the controller's state at the beginning of ``round`` with what `Outbox.catch_up` returned.

    A frame carries its round, so that no step is taken twice, and a checksum of the controller's state before the step, so that a replica that differs,
    if only by a rounding error of another processor, is detected at the next upload.

    Args:
      replica: the learner's, at the last broadcast that it received; None if there is none.
      step: the controller's step without its log.
      like: shapes and dtypes of a state and of a relay; None for the latter where only states are sent.
    Returns:
      None if the frames do not fit the replica and do not hold the state.
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
