"""Rounds by post: what a federation engine carries, and the loop that plays a round with it. Records of whole numbers and bytes; no engine.

A learner of a federation has no process of its own: its end is built from what it remembers whenever a letter comes, and taken apart again. A letter
holds a record for each lane that it concerns. The answer to a broadcast that is a skip is no record. Nothing is lost by that: an answer says which
letter it belongs to, and whoever plays a round builds on the very ``generation`` and ``base`` that the broadcast named (`lapg.runtimes.distributed.consistency`).
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
Letter = dict[int, Record]
"""A record for each lane that is spoken of."""
MAX_TRIES = 3
"""How often a learner is asked in a round."""
PLAY, SAVE, LOAD = "play", "save", "load"
"""What a letter asks for: to play a round; what the learner knows as the controller does, and what it has noted; to go on from a saved state.

In records: ``frame`` → ``frame``, or no record for a skip · ``number`` (generation, sequence number) → ``state``, ``notes`` · ``number``, ``state`` → none.
Generation 0 is nobody's: it asks for the notes alone.
"""


class Terms(NamedTuple):
    """What both ends of a federation must know; ``settings`` is what they must agree on (`lapg.runtimes.distributed.handshake`). A lane for each seed."""

    compiled: Compiled
    hyper: dict[str, Any]
    seeds: list[int]
    settings: Mapping[str, Any]


def remember(session: LearnerSession) -> Record:
    """What a learner remembers, as a record. A state that there is not yet is left out."""
    states = {"state": session.state, "pending": session.pending, "replica": session.replica}
    counts: Record = {"counts": [session.generation, session.accepted, session.proposed, session.last_broadcast]}
    return counts | {name: wire.encode_tree(state) for name, state in states.items() if state is not None}


def recall(record: Mapping[str, Any], compiled: Compiled) -> LearnerSession:
    """Inverse of `remember`; an empty record is a learner that remembers nothing.

    Raises:
      ValueError: a state is of another length, as one of another problem or method would be.
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
    terms: Terms, learner: int, memories: Mapping[int, Record], what: str, letter: Letter
) -> tuple[Letter, Letter]:
    """A learner's end.

    Returns:
      What it remembers next, by lane, and its reply.
    Raises:
      MalformedError: a broadcast is none, or not for this learner.
    """
    after, reply = dict(memories), {}
    for lane, record in letter.items():
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
    """The frame of the reply that says nothing, to the broadcast with this header."""
    header = wire.Header(*wire.HEADER.unpack_from(broadcast))
    return wire.HEADER.pack(*header._replace(length=0))


@runtime_checkable
class Post(Protocol):
    """What an engine must do.

    ``send: learner, what is asked for, letter, seconds that it is worth → ticket`` · ``fetch: tickets → what has come, by ticket``, at once; None in
    place of a letter that will not come.
    """

    def send(self, learner: int, what: str, letter: Letter, seconds: float) -> Hashable: ...

    def fetch(self, tickets: set[Hashable]) -> dict[Hashable, Letter | None]: ...


def play_round(
    hosts: Sequence[ControllerHost], post: Post, *, deadline: float, quorum: int = 1, pause: float = 0.2
) -> None:
    """A round of all lanes: ends when everybody has answered, or at the deadline. What comes later is not fetched: a learner that is late has skipped.

    Args:
      hosts: of the lanes, all in the same round.
      deadline: seconds.
      quorum: learners that must have answered by then, in each lane.
      pause: seconds between two looks into the post.
    Raises:
      RuntimeError: fewer than the quorum have answered.
    """
    ends = time.monotonic() + deadline
    present = {learner for host in hosts for learner in host.open()}
    tries, sent = Counter[int](), dict[Hashable, tuple[int, Letter]]()

    def ask(learner: int) -> None:
        left = ends - time.monotonic()
        lanes = [lane for lane, host in enumerate(hosts) if learner in host.awaited]
        if lanes and tries[learner] < MAX_TRIES and left > 0:
            tries[learner] += 1
            letter = {lane: {"frame": b"".join(hosts[lane].letter(learner))} for lane in lanes}
            sent[post.send(learner, PLAY, letter, left)] = learner, letter

    for learner in sorted(present):
        ask(learner)
    for host in hosts:
        host.flush()
    over = False
    while sent and not over:
        over = time.monotonic() >= ends  # what had come by then is still fetched: scoring θ^k may have taken until now
        come = post.fetch(set(sent))
        for ticket, reply in come.items():
            learner, letter = sent.pop(ticket)
            if reply is not None:
                for lane, record in letter.items():
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
    post: Post, what: str, letters: Mapping[int, Letter], *, deadline: float, pause: float = 0.2
) -> dict[int, Letter]:
    """Sends a letter to each of some learners, once.

    Returns:
      What they have answered by the deadline, in seconds; who has not is missing.
    """
    ends = time.monotonic() + deadline
    sent = {post.send(learner, what, letter, deadline): learner for learner, letter in letters.items()}
    answers: dict[int, Letter] = {}
    while sent and time.monotonic() < ends:
        come = post.fetch(set(sent))
        answers |= {sent[ticket]: letter for ticket, letter in come.items() if letter is not None}
        for ticket in come:
            del sent[ticket]
        if not come:
            time.sleep(pause)
    return answers


def _frame(record: Mapping[str, Any]) -> bytes:
    """A stranger's record: whatever is no frame becomes one that the controller refuses."""
    frame = record.get("frame")
    return frame if isinstance(frame, bytes) else b""
