"""The learner's host in a distributed run: decodes broadcasts, calls the learner's pure functions, encodes replies, and keeps the session.

`lapg.runtimes.distributed.controller` is its counterpart.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.consistency import (
    FIRST,
    OUT_OF_SYNC,
    RENEW,
    STALE,
    LearnerSession,
    commit,
    hear,
    sequence_of,
)
from lapg.runtimes.distributed.replica import follow
from lapg.runtimes.wire import Header
from lapg.types import Broadcast, Buffer

MOST_ROUNDS = 2**31 - 2
"""States count rounds in 32-bit integers."""
MOST_SILENT = 10_000
"""Rounds without uploads that a replica steps through by itself; a learner that was away for longer requests the state."""


class Answer(NamedTuple):
    """A learner's reply, and its diagnostics for the record, which the controller does not use and the ledger does not count."""

    reply: bytes
    record: bytes = b""


class LearnerHost:
    """Hosts learner m. ``malformed`` counts the messages that were refused because they are not broadcasts of this run.

    Args:
      compiled: shared by all hosts of a process.
      hyper, seed: of the lane.
    """

    def __init__(
        self,
        compiled: Compiled,
        hyper: dict[str, Any],
        seed: int,
        index: int,
        session: LearnerSession = LearnerSession(),  # noqa: B008  (immutable)
    ) -> None:
        self.index, self.session, self.malformed = index, session, 0
        self._compiled, self._lane = compiled, (hyper, np.uint32(seed), np.int32(index))

    def hear(self, header: Header, payload: Buffer) -> Answer | None:
        """Plays the round of a broadcast; None if a newer one was received before.

        Raises:
          MalformedError: it is not for this learner, or not a broadcast of this run; the session stays as it was.
          RuntimeError: an encoded upload is not as long as the learner says.
        """
        try:
            return self._hear(header, payload)
        except wire.MalformedError:
            self.malformed += 1
            raise

    def _hear(self, header: Header, payload: Buffer) -> Answer | None:
        if header.learner != self.index:
            raise wire.MalformedError(
                f"learner {self.index} must be given its own broadcasts, got one for {header.learner}."
            )
        if header.round > MOST_ROUNDS:
            raise wire.MalformedError(f"a round's number must be at most {MOST_ROUNDS}, got {header.round}.")
        session, action = hear(self.session, header)
        if action == STALE:
            return None
        understood = None if action == OUT_OF_SYNC else self._understand(session, header.round, payload)
        if understood is None:
            return Answer(wire.frame(b"", round=header.round, learner=self.index, generation=0))
        broadcast, replica = understood
        if action == RENEW:
            fresh = self._compiled.renew(*self._lane, broadcast.params, session.state)
            session = session._replace(state=fresh)
        pending, *said = self._compiled.play(*self._lane, session.state, broadcast)
        self.session = session._replace(proposed=sequence_of(header.round), pending=pending, replica=replica)
        upload, record = self._compiled.unpack(*said)
        encoded = wire.encode_upload(self._compiled.compressor, upload)
        sender = {"learner": self.index, "generation": session.generation, "base": session.accepted}
        raw = wire.frame(*encoded, round=header.round, **sender)
        if 8 * (len(raw) - wire.HEADER.size) != upload.bits:
            raise RuntimeError(
                f"learner {self.index} announced {upload.bits} bits and encoded {8 * (len(raw) - wire.HEADER.size)}."
            )
        return Answer(raw, record)

    def _understand(self, session: LearnerSession, round: int, payload: Buffer) -> tuple[Broadcast, Any] | None:
        """Decodes a broadcast: θ and signal, and the replica after it; None for frames that the replica does not fit."""
        parts, (hyper, seed, _) = self._compiled, self._lane
        if parts.downlink.compressor is None:
            return wire.decode_broadcast(payload, round, parts.broadcast), None
        replica = session.replica
        if replica is None and session.generation == FIRST:
            replica = parts.begin(hyper, seed)
        if replica is not None and round - int(replica.round) > MOST_SILENT:
            return None
        like = parts.state.controller, parts.relayed
        replica = follow(
            replica, payload, round, parts.downlink.compressor, lambda *given: parts.step(hyper, *given)[0], like=like
        )
        return None if replica is None else (parts.announce(hyper, seed, replica), replica)

    def save(self, generation: int, base: int) -> bytes | None:
        """Encodes the state that reply ``base`` of a generation led to; None if the session has no such state."""
        session = commit(self.session, base) if generation == self.session.generation else None
        return None if session is None else wire.encode_tree(session.state)

    def load(self, raw: bytes, generation: int, accepted: int) -> None:
        """Starts a session from a saved state; the inverse of `save`.

        Raises:
          ValueError: the length does not fit.
        """
        state = jax.tree.map(np.array, wire.decode_tree(raw, self._compiled.learner))
        self.session = LearnerSession(generation, accepted, state)
