"""Closed rounds of a controller's host, and the log that is made of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lapg.rounds import Log
from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.evaluation import Scores, with_scores
from lapg.runtimes.per_lane import stack
from lapg.types import RoundLog

FAULTS = ("missing", "late", "duplicate", "outdated", "malformed", "oversized", "unsound", "renewed", "wasted_bits")
"""What is counted for every learner and round: no reply accepted; replies dropped, by reason; replies refused, by reason (not a message, longer than the
limit, not finite); new generations; bits received and not used. A refused reply starts a new generation: the next upload is a full gradient."""


class ClosedRound(NamedTuple):
    """What a closed round leaves: who was lost (``gone``), the learners' diagnostics as bytes (``records``), and fields of the `Log`."""

    gone: np.ndarray
    records: dict[int, bytes]
    present: np.ndarray
    told: np.ndarray
    sent: np.ndarray
    bits: np.ndarray
    controller: RoundLog
    faults: dict[str, np.ndarray]


def to_log(compiled: Compiled, rounds: Sequence[ClosedRound], found: Sequence[Scores | None] | None) -> Log:
    """Makes the log of closed rounds, with a leading axis (round).

    Args:
      found: scores of every round's θ^k, None where it was not scored; None where no episodes are played for scores.
    """
    num_learners = compiled.num_learners
    blank = wire.encode_tree(jax.tree.map(_unknown, compiled.record))
    rows = [past.records.get(m, b"") for past in rounds for m in range(num_learners)]
    raw = b"".join(row if len(row) == len(blank) else blank for row in rows)
    notes = wire.decode_rows(raw, compiled.record, len(rows))
    log, scores, steps = jax.tree.map(lambda leaf: leaf.reshape(len(rounds), num_learners, *leaf.shape[1:]), notes)
    *noted, controller, faults = stack([past[2:] for past in rounds])
    fields: Any = (*noted, log, controller, scores, steps)
    one: Any = jax.tree.map(lambda leaf: leaf[0], (fields, faults))
    whole = wire.on_host(Log(*one[0], faults=one[1]), *fields, faults)
    if found is None:
        return whole
    unscored = jax.tree.map(lambda leaf: np.zeros_like(leaf[0]), (scores, steps))
    return with_scores(whole, stack([unscored if each is None else each for each in found]))


def _unknown(leaf: Any) -> np.ndarray:
    """Fills an array with what the record holds for a learner that did not answer: nan, −1, or False."""
    value = np.nan if np.issubdtype(leaf.dtype, np.floating) else -1 if np.issubdtype(leaf.dtype, np.integer) else False
    return np.full(leaf.shape, value, leaf.dtype)
