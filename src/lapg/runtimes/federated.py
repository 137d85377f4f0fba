"""Rounds by post: what a federation engine carries, and the loop that plays a round with it. Records of whole numbers and bytes; no engine.

A learner of a federation has no process of its own: its end is built from what it remembers whenever a broadcast comes, and taken apart again. The
answer to a broadcast that is a skip is an empty record. Nothing is lost by that: such an answer says which broadcast it belongs to, and whoever plays a
round builds on the very ``generation`` and ``base`` that the broadcast named (`lapg.runtimes.consistency`).
"""

import time
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.compiled import Compiled
from lapg.runtimes.consistency import Held
from lapg.runtimes.hosts import ControllerHost, LearnerHost
from lapg.runtimes.protocol import Log

Record = dict[str, Any]
"""Names to bytes or lists of whole numbers."""
MAX_TRIES = 3
"""How often a learner is asked in a round."""


class Lane(NamedTuple):
    """One run of a federation, as both ends must know it; ``settings`` is what they must agree on (`lapg.runtimes.join`)."""

    compiled: Compiled
    hyper: dict[str, Any]
    seed: int
    rounds: int
    settings: Mapping[str, Any]


def remember(held: Held) -> Record:
    """What a learner remembers, as a record. A state that there is not yet is left out."""
    states = {"state": held.state, "pending": held.pending, "replica": held.replica}
    counts: Record = {"counts": [held.generation, held.accepted, held.proposed, held.heard]}
    return counts | {name: wire.encode_tree(state) for name, state in states.items() if state is not None}


def recall(record: Mapping[str, Any], compiled: Compiled) -> Held:
    """Inverse of `remember`; an empty record is a learner that remembers nothing.

    Raises:
      ValueError: a state is of another length, as one of another problem or method would be.
    """
    if not record:
        return Held()
    generation, accepted, proposed, heard = record["counts"]

    def state(name: str, like: Any) -> Any:
        return jax.tree.map(np.array, wire.decode_tree(record[name], like)) if name in record else None

    mine, controller = compiled.learner, compiled.state.controller
    states = {"state": state("state", mine), "pending": state("pending", mine), "replica": state("replica", controller)}
    return Held(generation, accepted, proposed=proposed, heard=heard, **states)


def answer(lane: Lane, learner: int, memory: Mapping[str, Any], raw: bytes) -> tuple[Record, Record]:
    """A learner's round.

    Returns:
      What it remembers next, and its reply: the frame, or nothing for a skip.
    Raises:
      ValueError: the broadcast is none, or not for this learner.
    """
    host = LearnerHost(lane.compiled, lane.hyper, lane.seed, learner, recall(memory, lane.compiled))
    said = host.hear(raw)
    reply: Record = {} if said is None or said.reply == as_skip(raw) else {"frame": said.reply}
    return remember(host.held), reply


def as_skip(broadcast: bytes) -> bytes:
    """The frame of the reply that says nothing, to the broadcast with this header."""
    header = wire.Header(*wire.HEADER.unpack_from(broadcast))
    return wire.HEADER.pack(*header._replace(length=0))


@runtime_checkable
class Post(Protocol):
    """What an engine must do.

    ``send: learner, frame, seconds that it is worth → ticket`` · ``fetch: tickets → what has come, by ticket``, at once; None in place of a record
    that will not come.
    """

    def send(self, learner: int, frame: bytes, seconds: float) -> Hashable: ...

    def fetch(self, tickets: set[Hashable]) -> dict[Hashable, Record | None]: ...


def play_round(host: ControllerHost, post: Post, *, deadline: float, quorum: int = 1, pause: float = 0.05) -> Log:
    """A round: ends when everybody has answered, or at the deadline. What comes later is not fetched: a learner that is late has skipped.

    Args:
      deadline: seconds.
      quorum: learners that must have answered by then.
      pause: seconds between two looks into the post.
    Raises:
      RuntimeError: fewer than the quorum have answered.
    """
    ends = time.monotonic() + deadline
    present = host.open()
    tries, open_letters = dict.fromkeys(present, 0), {}

    def ask(learner: int) -> None:
        left = ends - time.monotonic()
        if tries[learner] < MAX_TRIES and left > 0:
            tries[learner] += 1
            head, payload = host.letter(learner)
            open_letters[post.send(learner, head + payload, left)] = learner, head

    for learner in present:
        ask(learner)
    while open_letters and time.monotonic() < ends:
        come = post.fetch(set(open_letters))
        for ticket, record in come.items():
            learner, head = open_letters.pop(ticket)
            if record is not None:
                host.receive(learner, _frame(record) if record else as_skip(head))
            if learner in host.awaited:
                ask(learner)
        if not come:
            time.sleep(pause)
    if len(host.answered) < min(quorum, len(present)):
        raise RuntimeError(
            f"round {int(host.state.round)} must have {min(quorum, len(present))} answers within {deadline} s, got {len(host.answered)}; "
            "are the nodes up? Otherwise give a longer deadline."
        )
    return host.close()


def _frame(record: Mapping[str, Any]) -> bytes:
    """A stranger's record: whatever is no frame becomes one that the controller refuses."""
    frame = record.get("frame")
    return frame if isinstance(frame, bytes) else b""
