"""The two ends of a distributed run, between an engine that moves bytes and the pure functions: codec, bookkeeping, nothing else.

An engine hands a `LearnerHost` every broadcast that reaches it and carries what comes back to the `ControllerHost`; it may lose, delay, repeat and
reorder anything (see `lapg.runtimes.consistency`). The engine alone knows processes, deadlines and quorums. A learner whose reply is missing when the
round is closed counts as one that skipped.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.compiled import Compiled, zeros
from lapg.runtimes.consistency import ASTRAY, OUTDATED, RENEW, STALE, Held, hear, judge, round_of, sequence_of, settle
from lapg.runtimes.deployed import Deployed, Roster
from lapg.runtimes.in_turn import stack
from lapg.runtimes.protocol import Log
from lapg.runtimes.replicas import Outbox, follow
from lapg.types import Broadcast, Upload

FAULTS = ("missing", "late", "duplicate", "outdated", "malformed", "oversized", "unsound", "renewed", "wasted_bits")
"""What a round counts for every learner: no reply was taken; replies dropped, by reason; replies refused, by reason (not a message, longer than the
limit, not finite); new generations; bits that came and were not used. A refused reply starts a new generation: the next upload is a full gradient."""


class Answer(NamedTuple):
    """A learner's reply, and what it leaves for the record: diagnostics, which no controller may use and no ledger counts."""

    reply: bytes
    record: bytes = b""


class LearnerHost:
    """Learner m's end.

    Args:
      compiled: shared by all hosts of a process.
      hyper, seed: of the lane.
    """

    def __init__(self, compiled: Compiled, hyper: dict[str, Any], seed: int, index: int, held: Held = Held()) -> None:  # noqa: B008  (immutable)
        self.index, self.held = index, held
        self._compiled, self._lane = compiled, (hyper, np.uint32(seed), np.int32(index))

    def hear(self, raw: bytes) -> Answer | None:
        """Plays the round of a broadcast; None if the broadcast is an old one.

        Raises:
          ValueError: it is no broadcast, or not for this learner.
          RuntimeError: an encoded upload is not as long as the learner says.
        """
        header, payload = wire.unframe(raw)
        if header.learner != self.index:
            raise ValueError(f"learner {self.index} must be given its own broadcasts, got one for {header.learner}.")
        held, action = hear(self.held, header)
        if action == STALE:
            return None
        understood = None if action == ASTRAY else self._understand(held.replica, header.round, payload)
        if understood is None:
            return Answer(wire.frame(b"", round=header.round, learner=self.index, generation=0))
        broadcast, replica = understood
        if action == RENEW:
            fresh = self._compiled.renew(*self._lane, broadcast.params, held.state)
            held = held._replace(state=fresh)
        pending, reply = self._compiled.play(*self._lane, held.state, broadcast)
        self.held = held._replace(proposed=sequence_of(header.round), pending=pending, replica=replica)
        encoded = wire.encode_upload(self._compiled.compressor, reply.upload) or b""
        if 8 * len(encoded) != int(reply.upload.bits):
            raise RuntimeError(
                f"learner {self.index} announced {int(reply.upload.bits)} bits and encoded {8 * len(encoded)}."
            )
        raw = wire.frame(
            encoded, round=header.round, learner=self.index, generation=held.generation, base=held.accepted
        )
        return Answer(raw, wire.encode_tree((reply.log, reply.scores)))

    def _understand(self, replica: Any, round: int, payload: bytes) -> tuple[Broadcast, Any] | None:
        """A broadcast, and where the replica then is; None for frames without a replica that they fit."""
        parts, (hyper, seed, _) = self._compiled, self._lane
        if parts.downlink.compressor is None:
            return wire.decode_broadcast(payload, round, parts.broadcast), None
        like = parts.state.controller, parts.relay
        replica = follow(
            replica, payload, round, parts.downlink.compressor, lambda *given: parts.step(hyper, *given)[0], like=like
        )
        return None if replica is None else (parts.announce(hyper, seed, replica), replica)

    def save(self, generation: int, base: int) -> bytes | None:
        """The state that the controller knows of as number ``base`` of a generation; None if this learner knows nothing of it."""
        held = settle(self.held, base) if generation == self.held.generation else None
        return None if held is None else wire.encode_tree(held.state)

    def load(self, raw: bytes, generation: int, accepted: int) -> None:
        """Goes on from a saved state; the opposite of `save`.

        Raises:
          ValueError: the length does not fit.
        """
        state = jax.tree.map(np.array, wire.decode_tree(raw, self._compiled.learner))
        self.held = Held(generation, accepted, state)


class ControllerHost:
    """The controller's end: `open` a round, `receive` replies, `close` it.

    Args:
      compiled, hyper, seed: as at the learners.
      lane: where to go on from.
      patience: rounds without a reply after which a learner counts as lost; None never gives up.
      limit_bytes: longest message that is looked at; None is twice the size of a message's arrays.
    """

    def __init__(
        self,
        compiled: Compiled,
        hyper: dict[str, Any],
        seed: int,
        lane: Deployed,
        *,
        patience: int | None = 100,
        limit_bytes: int | None = None,
    ) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience must be >= 1 or none, got {patience}; 1 gives up after one silent round.")
        self._compiled, self._hyper, self._seed = compiled, hyper, np.uint32(seed)
        self.state, self._patience = lane.controller, patience
        counts = (lane.roster.generation, lane.roster.accepted, lane.roster.silent)
        generation, accepted, silent = (np.array(count) for count in counts)
        self.roster = Roster(generation, accepted, silent, jnp.asarray(lane.roster.shares))
        upload = compiled.upload
        self.downlink, compressor = lane.downlink, compiled.downlink.compressor
        self._outbox = None if compressor is None else Outbox(compressor, self.state)
        self._limit = 64 + 2 * wire.tree_size((upload.message, upload.report)) if limit_bytes is None else limit_bytes
        self._blank = wire.encode_tree(jax.tree.map(_unknown, compiled.record))
        self._prepare()

    def _prepare(self) -> None:
        self._round = int(self.state.round)
        self._generation, self._accepted = self.roster.generation.copy(), self.roster.accepted.copy()
        self._taken: dict[int, tuple[Upload | None, bytes]] = {}
        self._payloads: dict[int, bytes] = {}
        self._told = np.zeros(self._compiled.num_learners, np.int32)
        self._present, self._gone = np.zeros((2, self._compiled.num_learners), bool)
        self._faults = {name: np.zeros(self._compiled.num_learners, np.int32) for name in FAULTS}

    def open(self) -> list[int]:
        """Begins a round: who takes part in it."""
        self._present = np.asarray(self._compiled.present(self._hyper, self._seed, self.state.round))
        return np.flatnonzero(self._present).tolist()

    def letter(self, learner: int) -> tuple[bytes, bytes]:
        """The open round's broadcast to one learner, as things are now: header and payload, the same object for all who are to hear the same."""
        generation, base = int(self._generation[learner]), int(self._accepted[learner])
        payload = self._payload(0 if self._outbox is None else round_of(base))
        self._told[learner] = 8 * len(payload)
        return wire.HEADER.pack(self._round, learner, generation, base, len(payload)), payload

    def _payload(self, heard: int) -> bytes:
        """What a learner hears that has heard everything up to the broadcast of a round; all the same where θ^k itself is sent."""
        if heard not in self._payloads:
            if self._outbox is None:
                broadcast = self._compiled.announce(self._hyper, self._seed, self.state)
                self._payloads[heard] = wire.encode_broadcast(broadcast)
            else:
                self._payloads[heard] = self._outbox.take(heard, self.state)
        return self._payloads[heard]

    def receive(self, learner: int, raw: bytes, record: bytes = b"") -> str | None:
        """Takes a reply that came from ``learner``, at whatever time, or says why not: a name of `FAULTS`, counted."""
        reason, upload = self._read(learner, raw)
        if reason is not None:
            self._faults[reason][learner] += 1
            self._faults["wasted_bits"][learner] += 8 * len(raw)
            return reason
        self._taken[learner] = upload, record
        return None

    def _read(self, learner: int, raw: bytes) -> tuple[str | None, Upload | None]:
        if len(raw) > self._limit:
            self.lose(learner)
            return "oversized", None
        try:
            header, payload = wire.unframe(raw)
            if header.learner != learner:
                raise ValueError(f"learner {learner} must speak for itself, not for {header.learner}.")
        except ValueError:
            self.lose(learner)
            return "malformed", None
        if header.generation == 0 and header.round == self._round and not self._gone[learner]:
            self.lose(learner)
        reason = judge(
            header,
            round=self._round,
            generation=int(self._generation[learner]),
            accepted=int(self._accepted[learner]),
            answered=learner in self._taken,
        )
        if reason is None and not self._present[learner]:
            reason = OUTDATED
        if reason is not None or not payload:
            return reason, None
        try:
            return None, self._decode(payload)
        except Exception:  # whatever a codec makes of a stranger's bytes
            self.lose(learner)
            return "malformed", None

    def _decode(self, payload: bytes) -> Upload:
        like = self._compiled.upload
        upload = wire.decode_upload(self._compiled.compressor, payload, like)
        for got, wanted in zip(jax.tree.leaves(upload.message), jax.tree.leaves(like.message), strict=True):
            if got.shape != wanted.shape or got.dtype != wanted.dtype:
                raise ValueError(f"a message of {wanted.dtype}{wanted.shape} was expected, got {got.dtype}{got.shape}.")
        return upload

    def lose(self, learner: int) -> None:
        """Ends a learner's life: its share leaves the aggregate, and its next broadcast asks it to start anew."""
        self._taken.pop(learner, None)
        self._gone[learner] = True
        self._generation[learner] += 1
        self._accepted[learner] = 0
        self._faults["renewed"][learner] += 1

    @property
    def answered(self) -> set[int]:
        """Learners whose replies were taken in this round."""
        return set(self._taken)

    @property
    def awaited(self) -> set[int]:
        """Learners that take part in this round and whose replies were not taken yet."""
        return set(np.flatnonzero(self._present).tolist()) - set(self._taken)

    def close(self) -> Log:
        """Steps with what was taken, and goes on to the next round."""
        learners = range(self._compiled.num_learners)
        silent = np.where([m in self._taken for m in learners], 0, self.roster.silent + self._present)
        if self._patience is not None:
            for m in np.flatnonzero(silent >= self._patience):
                self.lose(int(m))
        nothing = zeros(self._compiled.upload)
        uploads = stack([self._taken.get(m, (None, b""))[0] or nothing for m in learners])
        answered = np.array([m in self._taken for m in learners])
        controller, shares, self.downlink, relayed, unsound = self._compiled.collect(
            self._hyper, self._seed, self.state, self.roster.shares, self.downlink, uploads, answered, self._gone
        )
        self.state, round_log = self._compiled.step(self._hyper, controller, relayed)
        if self._outbox is not None:
            if self._compiled.reuses and np.any(self._gone | unsound):
                self._outbox.restart(self._round + 1)  # shares have left the aggregate, which no frame says
            else:
                self._outbox.add(controller, relayed)
        for m in np.flatnonzero(unsound):
            self._faults["unsound"][m] += 1
            self.lose(int(m))
        taken = np.array([m in self._taken for m in learners])
        self._faults["missing"] += self._present & ~taken
        self._accepted[taken] = sequence_of(self._round)
        records = [self._taken[m][1] if m in self._taken else b"" for m in learners]
        records = b"".join(raw if len(raw) == len(self._blank) else self._blank for raw in records)
        learner_log, scores = wire.decode_rows(records, self._compiled.record, len(learners))
        sent = uploads.sent & taken
        up = np.where(sent, uploads.bits, 0)
        round_log = jax.tree.map(np.asarray, round_log)
        log = Log(self._present, self._told, sent, up, learner_log, round_log, scores, self._faults)
        silent = np.where(self._gone, 0, silent).astype(np.int32)
        self.roster = Roster(self._generation, self._accepted, silent, shares)
        self._prepare()
        return log

    def snapshot(self, states: list[bytes | None]) -> Deployed:
        """Where to go on from, given what each learner saved; one that could not be asked starts anew from there, and its share is not in it."""
        controller, roster, downlink = self.state, self.roster, self.downlink
        unknown = np.array([raw is None for raw in states])
        if unknown.any():
            shares = jnp.where(unknown[:, None], 0, roster.shares)
            accepted = np.where(unknown, 0, roster.accepted).astype(np.int32)
            roster = Roster(roster.generation + unknown.astype(np.int32), accepted, roster.silent, shares)
            if self._compiled.reuses:
                controller = eqx.tree_at(lambda c: c.aggregate, controller, shares.sum(0))
                downlink = self._compiled.downlink.init(controller, len(states))
        nobody = zeros(self._compiled.learner)
        learners = [nobody if raw is None else wire.decode_tree(raw, self._compiled.learner) for raw in states]
        return Deployed(controller, stack(learners), roster, downlink)


def _unknown(leaf: Any) -> np.ndarray:
    """What the record says of a learner that did not answer: not a number, −1, or False."""
    value = np.nan if np.issubdtype(leaf.dtype, np.floating) else -1 if np.issubdtype(leaf.dtype, np.integer) else False
    return np.full(leaf.shape, value, leaf.dtype)
