"""The controller's host in a distributed run: encodes broadcasts, validates and decodes replies, calls the controller's functions, keeps the books.

An engine passes broadcasts to `lapg.runtimes.distributed.learner.LearnerHost`s and their replies to the `ControllerHost`; it may lose, delay, repeat and
reorder them (`lapg.runtimes.distributed.consistency`). Processes, deadlines and quorums are the engine's. A learner whose reply is missing when the round
is closed skips.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from lapg.rounds import Log
from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled, beside, zeros
from lapg.runtimes.distributed.consistency import FIRST, OUTDATED, round_of, sequence_of, validate_reply
from lapg.runtimes.distributed.history import FAULTS, ClosedRound, to_log
from lapg.runtimes.distributed.replica import Outbox
from lapg.runtimes.distributed.state import DistributedState, LearnerTable
from lapg.runtimes.evaluation import Scores
from lapg.runtimes.per_lane import stack
from lapg.types import Buffer


class ControllerHost:
    """Hosts the controller of one lane: `open` a round, send each `message`, `receive` replies, `close` the round; at the end read the `logs`.

    Work that no learner waits for is done by `flush`, when the next round has begun. Replies are written into buffers that are reused, which compiled
    functions read in place: those have finished before the next reply is written.

    Args:
      compiled, hyper, seed: as at the learners.
      lane: the state to start or resume from.
      max_silent_rounds: rounds without a reply after which a learner counts as lost; None never gives up.
      limit_bytes: longest message that is decoded; None is twice the size of a message's arrays.
      evaluator: a `lapg.runtimes.evaluation.Evaluator`, where episodes are played to score θ^k, in this process.
    """

    def __init__(
        self,
        compiled: Compiled,
        hyper: dict[str, Any],
        seed: int,
        lane: DistributedState,
        *,
        max_silent_rounds: int | None = 100,
        limit_bytes: int | None = None,
        evaluator: Callable[[Any, Any, int], Scores | None] | None = None,
    ) -> None:
        if max_silent_rounds is not None and max_silent_rounds < 1:
            raise ValueError(
                f"max_silent_rounds must be >= 1 or none, got {max_silent_rounds}; 1 gives up after one silent round."
            )
        self._compiled, self._hyper, self._seed = compiled, hyper, np.uint32(seed)
        self.state, self._max_silent_rounds = lane.controller, max_silent_rounds
        counts = lane.table.generation, lane.table.accepted, lane.table.silent
        self._counts, self._shares = jax.tree.map(np.array, counts), jnp.asarray(lane.table.shares)
        self._uploads = jax.tree.map(lambda leaf: _rows(compiled.num_learners, leaf), compiled.upload)
        self._rounds, self._flushed = list[ClosedRound](), True
        self._evaluator, self._found, self._began = evaluator, list[Scores | None](), self.state
        upload = compiled.upload
        self.downlink, compressor = lane.downlink, compiled.downlink.compressor
        self._outbox = None if compressor is None else Outbox(compressor, self.state)
        first = None if compressor is None else compiled.begin(hyper, self._seed)
        self._drawn = first is not None and wire.encode_tree(first) == wire.encode_tree(self.state)
        self._limit = (
            64 + 2 * wire.tree_size((upload.message, upload.report, upload.length))
            if limit_bytes is None
            else limit_bytes
        )
        self._prepare(int(self.state.round))

    def _prepare(self, round: int) -> None:
        self._round = round
        self._generation, self._accepted, self._silent = (count.copy() for count in self._counts)
        self._taken: dict[int, bytes] = {}
        for leaf in jax.tree.leaves(beside(self._uploads)):
            leaf[:] = 0  # not the messages, which are long: where ``sent`` is False they do not count
        self._payloads: dict[int, bytes] = {}
        self._told = np.zeros(self._compiled.num_learners, np.int32)
        self._present, self._gone = np.zeros((2, self._compiled.num_learners), bool)
        self._faults = {name: np.zeros(self._compiled.num_learners, np.int32) for name in FAULTS}

    def open(self) -> list[int]:
        """Opens a round; the learners that take part in it."""
        self._present = np.asarray(self._compiled.present(self._hyper, self._seed, self.state.round))
        return np.flatnonzero(self._present).tolist()

    def message(self, learner: int) -> tuple[bytes, bytes]:
        """Encodes the open round's broadcast to one learner: header and payload, the same object for all learners that are sent the same."""
        generation, base = int(self._generation[learner]), int(self._accepted[learner])
        # a learner's first replica is that of round 0, if the run began with what its seed says
        known = 0 if self._outbox is None or (self._drawn and generation == FIRST and not base) else round_of(base)
        payload = self._payload(known)
        self._told[learner] = 8 * len(payload)
        return wire.HEADER.pack(self._round, learner, generation, base, len(payload)), payload

    def _payload(self, last_broadcast: int) -> bytes:
        """Encodes the broadcast for learners whose last broadcast was that of a given round; the same for all where θ^k itself is sent."""
        if last_broadcast not in self._payloads:
            if self._outbox is None:
                broadcast = self._compiled.announce(self._hyper, self._seed, self.state)
                self._payloads[last_broadcast] = wire.encode_broadcast(broadcast)
            else:
                self._payloads[last_broadcast] = self._outbox.catch_up(last_broadcast, self.state)
        return self._payloads[last_broadcast]

    def receive(self, learner: int, raw: Buffer, record: Buffer = b"") -> str | None:
        """Accepts a reply from ``learner``, and returns None, or counts and returns why not: a name of `FAULTS`."""
        self.flush()
        reason = self._read(learner, raw)
        if reason is not None:
            self._faults[reason][learner] += 1
            self._faults["wasted_bits"][learner] += 8 * len(raw)
            return reason
        self._taken[learner] = bytes(record)
        return None

    def _read(self, learner: int, raw: Buffer) -> str | None:
        if len(raw) > self._limit:
            self.lose(learner)
            return "oversized"
        try:
            header, payload = wire.unframe(raw)
            if header.learner != learner:
                raise wire.MalformedError(f"learner {learner} must speak for itself, not for {header.learner}.")
        except wire.MalformedError:
            self.lose(learner)
            return "malformed"
        if header.generation == 0 and header.round == self._round and not self._gone[learner]:
            self.lose(learner)
        reason = validate_reply(
            header,
            round=self._round,
            generation=int(self._generation[learner]),
            accepted=int(self._accepted[learner]),
            answered=learner in self._taken,
        )
        if reason is None and not self._present[learner]:
            reason = OUTDATED
        if reason is not None or not payload:
            return reason
        try:
            self._decode(learner, payload)
        except wire.MalformedError:
            self.lose(learner)
            return "malformed"
        return None

    def _decode(self, learner: int, payload: Buffer) -> None:
        upload = wire.decode_upload(self._compiled.compressor, payload, self._compiled.upload)
        for row, got in zip(jax.tree.leaves(self._uploads), jax.tree.leaves(upload), strict=True):
            row[learner] = got

    def lose(self, learner: int) -> None:
        """Starts a new generation of a learner: its share leaves the aggregate, and its next broadcast tells it to start again."""
        self.flush()
        self._taken.pop(learner, None)
        for leaf in jax.tree.leaves(self._uploads):
            leaf[learner] = 0  # or values that are not finite would stay there in later rounds
        self._gone[learner] = True
        self._generation[learner] += 1
        self._accepted[learner] = 0
        self._faults["renewed"][learner] += 1

    @property
    def answered(self) -> set[int]:
        """Learners whose replies were accepted in this round."""
        return set(self._taken)

    @property
    def awaited(self) -> set[int]:
        """Learners that take part in this round and whose replies were not accepted yet."""
        return set(np.flatnonzero(self._present).tolist()) - set(self._taken)

    def close(self) -> None:
        """Steps with the accepted replies, and prepares the next round."""
        self.flush()
        self._silent = np.where(self._replied(), 0, self._silent + self._present)
        if self._max_silent_rounds is not None:
            for m in np.flatnonzero(self._silent >= self._max_silent_rounds):
                self.lose(int(m))
        self._began = before = self.state
        lane, replied = (self._hyper, self._seed), self._replied()
        downlink, relayed, unsound = self._compiled.relay(*lane, before, self.downlink, self._uploads, replied)
        for m in np.flatnonzero(unsound):
            self._faults["unsound"][m] += 1
            self.lose(int(m))
        if np.any(self._gone):
            before, downlink = self._compiled.remove_lost(
                *lane, before, self._shares, self.downlink, replied, self._gone
            )
            nobody = np.zeros_like(replied)
            downlink, relayed, unsound = self._compiled.relay(*lane, before, downlink, self._uploads, nobody)
            assert not np.any(unsound)
        self.downlink = downlink
        self.state, round_log = self._compiled.step(self._hyper, before, relayed)
        if self._outbox is not None:
            if self._compiled.keeps_shares and np.any(self._gone):
                self._outbox.restart(self._round + 1)  # shares have left the aggregate, which frames do not tell
            else:
                self._outbox.add(before, relayed)
        taken = self._replied()
        self._faults["missing"] += self._present & ~taken
        self._accepted[taken] = sequence_of(self._round)
        self._counts = self._generation, self._accepted, np.where(self._gone, 0, self._silent).astype(np.int32)
        up = self._uploads.sent.copy(), self._uploads.bits.copy()
        past = ClosedRound(self._gone, self._taken, self._present, self._told, *up, round_log, self._faults)
        self._rounds.append(past)
        self._flushed = False
        self._prepare(self._round + 1)

    def _replied(self) -> np.ndarray:
        replied = np.zeros(self._compiled.num_learners, bool)
        replied[list(self._taken)] = True
        return replied

    def flush(self) -> None:
        """Does the work of the last round that no learner waited for, unless it is done: updates the shares, and scores its θ."""
        if self._flushed:
            return
        self._flushed, last = True, self._rounds[-1]
        if self._compiled.keeps_shares and np.any(last.gone | last.sent):
            given = self._shares, last.sent, self._uploads.message, last.gone
            self._shares = jax.block_until_ready(self._compiled.share(self._hyper, *given))
        if self._evaluator is not None:
            self._found.append(self._evaluator(self._seed, self._began.params, int(self._began.round)))

    def logs(self) -> Log:
        """Returns the log of the rounds since the last call, with a leading axis (round)."""
        self.flush()
        rounds, found = self._rounds, self._found
        self._rounds, self._found = [], []
        return to_log(self._compiled, rounds, None if self._evaluator is None else found)

    @property
    def table(self) -> LearnerTable:
        """The table of learners after the last closed round."""
        self.flush()
        generation, accepted, silent = self._counts
        return LearnerTable(generation, accepted, silent, self._shares)

    def snapshot(self, states: list[bytes | None]) -> DistributedState:
        """Makes the state to resume from, given what each learner saved; a learner without a saved state (None) starts again, and its share leaves."""
        controller, table, downlink = self.state, self.table, self.downlink
        unknown = np.array([raw is None for raw in states])
        if unknown.any():
            shares = jnp.where(unknown[:, None], 0, table.shares)
            accepted = np.where(unknown, 0, table.accepted).astype(np.int32)
            table = LearnerTable(table.generation + unknown.astype(np.int32), accepted, table.silent, shares)
            if self._compiled.keeps_shares:
                controller = eqx.tree_at(lambda c: c.aggregate, controller, shares.sum(0))
                downlink = self._compiled.restart(controller)
        nobody = zeros(self._compiled.learner)
        learners = [nobody if raw is None else wire.decode_tree(raw, self._compiled.learner) for raw in states]
        return DistributedState(controller, stack(learners), table, downlink)


def _rows(num: int, like: np.ndarray) -> np.ndarray:
    """Allocates zeros for ``num`` such arrays."""
    return wire.aligned_zeros(num * like.nbytes).view(like.dtype).reshape(num, *like.shape)
