"""Messages of a federation as records of whole numbers and bytes, both ends of them, and the round that is played with them; no engine.

A learner of a federation has no process of its own: its host is rebuilt from its stored session for every message, and stored again afterwards. A message
holds a record for each lane that it concerns. An answer that skips has no record: the engine says which message it answers, and a learner that plays a
round builds on the ``generation`` and ``base`` of the broadcast (`lapg.runtimes.distributed.consistency`), so that the header of the skip is known.
"""

import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.consistency import LearnerSession
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.learner import LearnerHost

Record = dict[str, Any]
"""Names to bytes or lists of whole numbers."""
Message = dict[int, Record]
"""A record for each lane that it concerns."""
MAX_TRIES = 3
"""How often a learner is asked in a round, at most."""
PLAY, SAVE, LOAD = "play", "save", "load"
"""What a message asks for: to play a round; to return the committed state and the diagnostics of the rounds since (``notes``); to load a saved state.

In records: ``frame`` → ``frame``, or no record for a skip · ``number`` (generation, sequence number) → ``state``, ``notes`` · ``number``, ``state`` → none.
No learner is in generation 0, which therefore asks for the notes alone.
"""


class Terms(NamedTuple):
    """What both ends of a federation know, one lane for each seed; ``settings`` is what they must agree on (`lapg.runtimes.distributed.handshake`)."""

    compiled: Compiled
    hyper: dict[str, Any]
    seeds: list[int]
    settings: Mapping[str, Any]


def remember(session: LearnerSession) -> Record:
    """Stores a session in a record; states that do not exist yet are left out."""
    states = {"state": session.state, "pending": session.pending, "replica": session.replica}
    counts: Record = {"counts": [session.generation, session.accepted, session.proposed, session.last_broadcast]}
    return counts | {name: wire.encode_tree(state) for name, state in states.items() if state is not None}


def recall(record: Mapping[str, Any], compiled: Compiled) -> LearnerSession:
    """Inverse of `remember`; an empty record is a new session.

    Raises:
      ValueError: a state has another length, as one of another problem or method has.
    """
    if not record:
        return LearnerSession()
    generation, accepted, proposed, last_broadcast = record["counts"]

    def state(name: str, like: Any) -> Any:
        return jax.tree.map(np.array, wire.decode_tree(record[name], like)) if name in record else None

    mine, controller = compiled.learner, compiled.state.controller
    states = {"state": state("state", mine), "pending": state("pending", mine), "replica": state("replica", controller)}
    return LearnerSession(generation, accepted, proposed=proposed, last_broadcast=last_broadcast, **states)


def answer(
    terms: Terms, learner: int, memories: Mapping[int, Record], what: str, message: Message
) -> tuple[Message, Message]:
    """Runs the learner's side of a message.

    Args:
      memories: the learner's records by lane, a session and notes each.
      what: `PLAY`, `SAVE` or `LOAD`.
    Returns:
      The records that replace ``memories``, and the reply.
    Raises:
      MalformedError: a frame is not a broadcast, or not for this learner.
    """
    after, reply = dict(memories), {}
    for lane, record in message.items():
        memory = memories.get(lane, {})
        host = LearnerHost(terms.compiled, terms.hyper, terms.seeds[lane], learner, recall(memory, terms.compiled))
        notes = memory.get("notes", b"")
        if what == PLAY:
            said = host.hear(*wire.unframe(_frame(record)))
            if said is not None:
                if said.record:
                    notes += wire.frame(said.record, round=host.session.last_broadcast, learner=learner)
                if said.reply != as_skip(record["frame"]):
                    reply[lane] = {"frame": said.reply}
        elif what == SAVE:
            state = host.save(*record["number"])
            reply[lane] = {"notes": notes} | ({} if state is None else {"state": state})
            notes = b""
        else:
            host.load(record["state"], *record["number"])
            notes = b""
        after[lane] = remember(host.session) | ({"notes": notes} if notes else {})
    return after, reply


def as_skip(broadcast: bytes) -> bytes:
    """Makes the frame of a skip in reply to a broadcast."""
    header = wire.Header(*wire.HEADER.unpack_from(broadcast))
    return wire.HEADER.pack(*header._replace(length=0))


@runtime_checkable
class Transport(Protocol):
    """Carries messages to learners and their answers back; what an engine provides."""

    def send(self, learner: int, what: str, message: Message, seconds: float) -> Hashable:
        """Sends a message that asks for ``what`` and expires after ``seconds``; the ticket of its answer."""
        ...

    def fetch(self, tickets: set[Hashable]) -> dict[Hashable, Message | None]:
        """Returns, without waiting, the answers that have arrived, by ticket; None for an answer that will never arrive."""
        ...


def play_round(
    hosts: Sequence[ControllerHost], transport: Transport, *, deadline: float, quorum: int = 1, pause: float = 0.2
) -> None:
    """Plays a round of all lanes, which ends when all participants have answered, or at the deadline. Later answers are not fetched: their learners skip.

    Args:
      hosts: the lanes' controllers, all in the same round.
      deadline: seconds.
      quorum: learners that must have answered by then, in each lane.
      pause: seconds between two calls of `Transport.fetch`.
    Raises:
      RuntimeError: fewer than the quorum have answered.
    """
    ends = time.monotonic() + deadline
    present = {learner for host in hosts for learner in host.open()}
    tries, sent = Counter[int](), dict[Hashable, tuple[int, Message]]()

    def ask(learner: int) -> None:
        left = ends - time.monotonic()
        lanes = [lane for lane, host in enumerate(hosts) if learner in host.awaited]
        if lanes and tries[learner] < MAX_TRIES and left > 0:
            tries[learner] += 1
            message = {lane: {"frame": b"".join(hosts[lane].message(learner))} for lane in lanes}
            sent[transport.send(learner, PLAY, message, left)] = learner, message

    for learner in sorted(present):
        ask(learner)
    for host in hosts:
        host.flush()
    over = False
    while sent and not over:
        over = (
            time.monotonic() >= ends
        )  # answers that arrived in time are still fetched: scoring θ^k may have taken until now
        come = transport.fetch(set(sent))
        for ticket, reply in come.items():
            learner, message = sent.pop(ticket)
            if reply is not None:
                for lane, record in message.items():
                    frame = _frame(reply[lane]) if lane in reply else as_skip(record["frame"])
                    hosts[lane].receive(learner, frame)
            ask(learner)
        if not come and not over:
            time.sleep(pause)
    for host in hosts:
        wanted = min(quorum, len(host.answered | host.awaited))
        if len(host.answered) < wanted:
            raise RuntimeError(
                f"round {int(host.state.round)} must have {wanted} answers within {deadline} s, got {len(host.answered)}; "
                "are the nodes up? Otherwise give a longer deadline."
            )
    for host in hosts:
        host.close()


def ask_all(
    transport: Transport, what: str, messages: Mapping[int, Message], *, deadline: float, pause: float = 0.2
) -> dict[int, Message]:
    """Sends a message to each of some learners, once.

    Returns:
      The answers that arrive before the deadline, in seconds, by learner.
    """
    ends = time.monotonic() + deadline
    sent = {transport.send(learner, what, message, deadline): learner for learner, message in messages.items()}
    answers: dict[int, Message] = {}
    while sent and time.monotonic() < ends:
        come = transport.fetch(set(sent))
        answers |= {sent[ticket]: message for ticket, message in come.items() if message is not None}
        for ticket in come:
            del sent[ticket]
        if not come:
            time.sleep(pause)
    return answers


def _frame(record: Mapping[str, Any]) -> bytes:
    """The frame of an untrusted record; an empty one, which the controller refuses, where it has none."""
    frame = record.get("frame")
    return frame if isinstance(frame, bytes) else b""
