"""What communication costs: uploads, bits in both directions; and sampling: steps of the environment; per learner and as running totals.

Payloads are the encoded lengths that the compressor and the wire codec report; every message that travels also carries a header. Which messages travel
where there is nothing to say is a property of the transport (`messages`).
"""

from typing import Any

import numpy as np

HEADER_BITS = 160
"""Round, learner, generation, base and payload length, 32 bits each (`lapg.runtimes.wire`)."""


def messages(
    participated: Any,
    downlink_bits: Any,
    sent: Any,
    *,
    heartbeat: bool = True,
    missing: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a message went to each learner, and whether one came from it, [..., K, M] each.

    An answer without payload is no upload: it says that the learner is there, and that the round may end, which has nothing to do with what it has seen.

    Args:
      heartbeat: whether every learner that takes part is sent a header at least, and answers with one at least. Otherwise whoever has nothing to say is
        silent, which a common clock makes possible.
      missing: 1 where no answer came.
    """
    there, uploaded = np.asarray(participated, bool), np.asarray(sent, bool)
    if not heartbeat:
        return there & (np.asarray(downlink_bits) > 0), uploaded
    return there, uploaded | (there & (np.asarray(missing) == 0))


def num_uploads(sent: np.ndarray) -> np.ndarray:
    """Uploads so far, after each round: ``sent[..., K, M] → [..., K]``. Round 0 counts."""
    return np.cumsum(np.sum(sent, -1, dtype=np.int64), -1)


def num_steps(steps: np.ndarray) -> np.ndarray:
    """Steps of the environment so far, all learners together, ``[..., K, M] → [..., K]``, in int64."""
    return np.cumsum(np.sum(steps, -1, dtype=np.int64), -1)


def uplink_bits(payload: np.ndarray, answered: np.ndarray, *, header: bool = True) -> np.ndarray:
    """Bits from learners to controller so far, ``[..., K, M] → [..., K]``, in int64; ``answered`` is who sent a message, the record's variable."""
    return _running_total(payload, answered, header)


def downlink_bits(payload: np.ndarray, contacted: np.ndarray, *, header: bool = True) -> np.ndarray:
    """Bits from controller to learners so far, ``[..., K, M] → [..., K]``, in int64; ``contacted`` is who was sent a message, the record's variable."""
    return _running_total(payload, contacted, header)


def _running_total(payload: np.ndarray, present: np.ndarray, header: bool) -> np.ndarray:
    total = np.asarray(payload, np.int64) + (HEADER_BITS * np.asarray(present, np.int64) if header else 0)
    return np.cumsum(np.sum(total, -1), -1)


def upload_fraction(sent: np.ndarray) -> np.ndarray:
    """Fraction of the rounds in which each learner uploaded, ``[..., K, M] → [..., M]``."""
    return np.mean(sent, -2)
