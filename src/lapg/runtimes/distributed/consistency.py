"""Who has what, when messages get lost: the rules that keep both ends of a distributed run in agreement. Whole numbers only; no engine, no arrays.

Every reply to a broadcast, a skip included, moves its learner on, but the learner cannot know whether the reply arrives. So the new state is *pending*,
and the next broadcast says what became of it: it carries ``base``, the sequence number of the last reply that the controller accepted from this
learner (0: none), and the learner commits the pending state if that is its number and forgets it otherwise. The sequence number of a reply is its
round + 1, which makes it unique within a ``generation``, a life of the learner as the controller counts them, from 1. The controller accepts a reply
only in its own round, only once, and only if it builds on the last accepted one; whatever else comes is dropped and counted. Applying a late reply
*and* rolling its state back would count it twice.

A new generation is the request to start anew (*resync*): the learner's share has left the controller's aggregate, so the learner forgets what it has
uploaded and uploads next in any case. A learner that cannot make sense of ``base``, because its process is a new one or its state an old one, asks for
that with a reply of generation 0.

Where the downlink is replicated, ``base`` also says how far the learner's replica of the controller is known to have come: it was there when it answered
that round. The controller tells what has happened since; a learner that has followed further, because its reply was lost, passes over what it has heard
before. Without a ``base``, or where that lies before what the controller can still tell step by step, the whole state travels.
"""

from typing import Any, NamedTuple

from lapg.runtimes.wire import Header


class LearnerSession(NamedTuple):
    """What the learner's end remembers.

    Attributes:
      generation: 0 until the first broadcast.
      accepted: sequence number that led to ``state``; 0 for the start of a generation.
      state: the learner's state as far as the controller is known to share it.
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
"""What a learner does with a broadcast: nothing, for it is older than one heard before; play the round; start anew, then play; ask to start anew."""


def hear(session: LearnerSession, header: Header) -> tuple[LearnerSession, str]:
    """What a broadcast's header says about the past, and what to do next. A repeated broadcast is simply played again: learners are pure functions."""
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
    """Commits or forgets the pending state; None if ``base`` is a number that this learner knows nothing of."""
    if session.proposed and base == session.proposed:
        return session._replace(accepted=base, state=session.pending, proposed=0, pending=None)
    if base == session.accepted:
        return session._replace(proposed=0, pending=None)
    return None


def sequence_of(round: int) -> int:
    """The sequence number of a reply to the broadcast of a round."""
    return round + 1


def round_of(sequence: int) -> int:
    """Inverse of `sequence_of`: the last broadcast that a learner is known to have heard; −1 for none in this generation."""
    return sequence - 1


LATE, DUPLICATE, OUTDATED = "late", "duplicate", "outdated"
"""Why a reply is dropped: another round's; the second one of this round; of another generation or not built on the last accepted reply."""


def validate_reply(header: Header, *, round: int, generation: int, accepted: int, answered: bool) -> str | None:
    """Why the controller drops a reply, or None if it takes it; ``answered`` is whether it has taken one from this learner in this round."""
    if header.round != round:
        return LATE
    if header.generation != generation or header.base != accepted:
        return OUTDATED
    return DUPLICATE if answered else None
