"""The protocol that keeps controller and learners consistent when messages are lost, delayed, doubled or reordered. Whole numbers only; no arrays.

Every reply to a broadcast, a skip included, changes its learner's state, but the learner cannot know whether the reply arrives. So the new state is
*pending* until the next broadcast, which carries ``base``, the sequence number of the last reply that the controller accepted from this learner (0:
none): the learner commits the pending state if that is its number, and discards it otherwise. The sequence number of a reply is its round + 1, unique
within a ``generation``, which the controller counts from 1. The controller accepts a reply only in its own round, only once, and only if it builds on the
last accepted one; all others are dropped and counted. Applying a late reply *and* rolling its state back would count it twice.

A broadcast of a new generation tells the learner to start again (*resync*): its share has left the controller's aggregate, so it forgets what it has
uploaded and uploads in the next round in any case. A learner that does not know ``base``, because its process is new or its state is old, requests a new
generation with a reply of generation 0.

Where the downlink is replicated, ``base`` also tells which round the learner's replica of the controller has reached at least: the one that it answered.
The controller sends the steps since then; a replica that is ahead of it, because a reply was lost, skips those that it has taken. Where there is no
``base``, a learner of the first generation begins with what the run's seed says of round 0. One of a later generation is sent the controller's whole state,
and so is everybody where θ⁰ was given, or the controller does not keep the steps since then any more.
"""

from typing import Any, NamedTuple

from lapg.runtimes.wire import Header

FIRST = 1
"""The generation that a run begins with."""


class LearnerSession(NamedTuple):
    """What a learner's host remembers between rounds.

    Attributes:
      generation: 0 until the first broadcast.
      accepted: sequence number that led to ``state``; 0 for the start of a generation.
      state: the committed state, after the last reply that the controller is known to have accepted.
      proposed: sequence number that leads to ``pending``; 0 if there is none.
      pending: the state after the last reply.
      last_broadcast: round of the newest broadcast.
      replica: the controller's state at the beginning of that round, where the downlink is replicated.
    """

    generation: int = 0
    accepted: int = 0
    state: Any = None
    proposed: int = 0
    pending: Any = None
    last_broadcast: int = -1
    replica: Any = None


STALE, PLAY, RENEW, OUT_OF_SYNC = "stale", "play", "renew", "out of sync"
"""What a learner does with a broadcast: ignore it, as it is older than the newest; play the round; start again, then play; request a new generation."""


def hear(session: LearnerSession, header: Header) -> tuple[LearnerSession, str]:
    """Commits or discards the pending state as a broadcast's header says, and tells what to do next. A repeated broadcast is played again."""
    if (header.generation, header.round) < (session.generation, session.last_broadcast):
        return session, STALE
    if header.generation > session.generation:
        if header.base:
            return session, OUT_OF_SYNC
        return LearnerSession(header.generation, 0, session.state, last_broadcast=header.round), RENEW
    committed = commit(session, header.base)
    if committed is None:
        return session, OUT_OF_SYNC
    return committed._replace(last_broadcast=header.round), PLAY


def commit(session: LearnerSession, base: int) -> LearnerSession | None:
    """Commits or discards the pending state; None if ``base`` is neither its number nor the committed state's."""
    if session.proposed and base == session.proposed:
        return session._replace(accepted=base, state=session.pending, proposed=0, pending=None)
    if base == session.accepted:
        return session._replace(proposed=0, pending=None)
    return None


def sequence_of(round: int) -> int:
    """Gives the sequence number of a reply to the broadcast of a round."""
    return round + 1


def round_of(sequence: int) -> int:
    """Inverse of `sequence_of`: the last broadcast that a learner is known to have received; −1 for none in this generation."""
    return sequence - 1


LATE, DUPLICATE, OUTDATED = "late", "duplicate", "outdated"
"""Why a reply is dropped: it belongs to another round; is the second one of this round; is of another generation or not built on the last accepted reply."""


def validate_reply(header: Header, *, round: int, generation: int, accepted: int, answered: bool) -> str | None:
    """Tells why the controller drops a reply, or None if it accepts it; ``answered``: whether it has accepted one from this learner in this round."""
    if header.round != round:
        return LATE
    if header.generation != generation or header.base != accepted:
        return OUTDATED
    return DUPLICATE if answered else None
