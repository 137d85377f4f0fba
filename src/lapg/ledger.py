"""What communication costs: uploads, bits in both directions, staleness; per learner and as running totals.

Payloads are the encoded lengths that the compressor and the wire codec report; every message that travels also carries a header. A learner that
skips sends nothing at all.
"""

import numpy as np

HEADER_BITS = 160
"""Round, learner, generation, base and payload length, 32 bits each (`lapg.runtimes.wire`)."""


def num_uploads(sent: np.ndarray) -> np.ndarray:
    """Uploads so far, after each round: ``sent[..., K, M] → [..., K]``. Round 0 counts."""
    return np.cumsum(np.sum(sent, -1, dtype=np.int64), -1)


def uplink_bits(payload: np.ndarray, sent: np.ndarray, *, header: bool = True) -> np.ndarray:
    """Bits from learners to controller so far, ``[..., K, M] → [..., K]``, in int64."""
    return _running_total(payload, sent, header)


def downlink_bits(payload: np.ndarray, participated: np.ndarray, *, header: bool = True) -> np.ndarray:
    """Bits from controller to learners so far, ``[..., K, M] → [..., K]``, in int64. Whoever takes part hears at least a header, the heartbeat."""
    return _running_total(payload, participated, header)


def _running_total(payload: np.ndarray, messages: np.ndarray, header: bool) -> np.ndarray:
    total = np.asarray(payload, np.int64) + (HEADER_BITS * np.asarray(messages, np.int64) if header else 0)
    return np.cumsum(np.sum(total, -1), -1)


def upload_fraction(sent: np.ndarray) -> np.ndarray:
    """Fraction of the rounds in which each learner uploaded, ``[..., K, M] → [..., M]``."""
    return np.mean(sent, -2)
