"""The two ends of a replicated downlink as bytes: what the controller has still to tell a learner, and how the learner's host follows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from lapg.runtimes import wire
from lapg.types import NOBODY, Compressor, ControllerState, Relay

Step = Callable[[ControllerState, Relay], ControllerState]


class Outbox:
    """The controller's end: for each learner the frames that it has not heard, or nothing to build on, and then it needs the state."""

    def __init__(self, compressor: Compressor, num_learners: int) -> None:
        self._compressor = compressor
        self._frames: list[bytes | None] = [None] * num_learners

    def resync(self, learner: int) -> None:
        """This learner has lost its replica."""
        self._frames[learner] = None

    def add(self, round: int, relay: Relay) -> None:
        """What the controller stepped with in this round; nothing if nobody uploaded."""
        if bool(jnp.any(relay.sent)):
            frame = wire.frame(wire.encode_relay(self._compressor, relay), round=round, learner=NOBODY)
            self._frames = [None if frames is None else frames + frame for frames in self._frames]

    def take(self, learner: int, state: ControllerState) -> bytes:
        """What this learner is to hear to be where ``state`` is; it then has no more to hear."""
        frames, self._frames[learner] = self._frames[learner], b""
        if frames is not None and 8 * len(frames) <= wire.HEADER_BITS + 8 * wire.tree_size(state):
            return frames
        return wire.frame(wire.encode_tree(state), round=int(state.round), learner=NOBODY)


def follow(
    replica: ControllerState, raw: bytes, round: int, compressor: Compressor, step: Step, *, like: PyTree
) -> ControllerState:
    """The learner's end: the controller's state at the beginning of ``round``, from an older one and what the `Outbox` had for it.

    Args:
      replica: where it was when the learner took part last; only its shapes matter where the whole state comes.
      step: the controller's own, without its log.
      like: a relay's shapes and dtypes; None where only the state can come.
    Raises:
      ValueError: a frame is not complete, or its length does not fit.
    """
    silence = jax.tree.map(jnp.zeros_like, like)
    for number, payload in wire.unframe_all(raw):
        if number == round:
            return wire.decode_tree(payload, replica)
        while int(replica.round) < number:
            replica = step(replica, silence)
        replica = step(replica, wire.decode_relay(compressor, payload, like))
    while int(replica.round) < round:
        replica = step(replica, silence)
    return replica
