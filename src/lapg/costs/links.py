"""What messages cost on a real network: time and energy, from what a record says was sent.

Rounds are synchronous: a round lasts as long as its slowest learner, which hears the broadcast, computes, and answers. Where the record says that
nothing was sent, not even a header, silence is free, and both ends are taken to know when to go on; a deadline that they wait for belongs into the
compute time. Learners have links of their own; the controller's end is never the bottleneck.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from lapg.costs.ledger import HEADER_BITS

PerLearner = float | Sequence[float]


@dataclass(frozen=True)
class Link:
    """One direction between a learner and the controller; every field is one number for all learners, or M numbers.

    Attributes:
      bits_per_second: throughput of payload, headers and overhead together.
      latency_seconds: from the last bit sent to the last bit there.
      overhead_bytes: what the protocols below add to every message, beside lapg's own header.
      joules_per_byte: at the learner, or of the whole way; the profile says which.
      joules_per_message: what a message costs whatever its length, such as waking the radio.
    """

    bits_per_second: PerLearner
    latency_seconds: PerLearner = 0.0
    overhead_bytes: PerLearner = 0.0
    joules_per_byte: PerLearner = 0.0
    joules_per_message: PerLearner = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            values = np.asarray(getattr(self, field.name), float)
            lowest = "> 0" if field.name == "bits_per_second" else ">= 0"
            fits = np.isfinite(values) & ((values > 0) if lowest == "> 0" else (values >= 0))
            if values.ndim > 1 or not fits.all():
                raise ValueError(
                    f"Link({field.name}=...) must be a number {lowest}, or one for each learner, got {getattr(self, field.name)}."
                )

    def seconds(self, payload_bits: np.ndarray, messages: np.ndarray) -> np.ndarray:
        """How long each learner's message takes, 0 where there is none: [..., M] → [..., M]."""
        bits = payload_bits + HEADER_BITS + 8 * np.asarray(self.overhead_bytes, float)
        return np.where(messages, np.asarray(self.latency_seconds) + bits / np.asarray(self.bits_per_second), 0.0)

    def joules(self, payload_bits: np.ndarray, messages: np.ndarray) -> np.ndarray:
        """What each learner's message costs, 0 where there is none: [..., M] → [..., M]."""
        size = (payload_bits + HEADER_BITS) / 8 + np.asarray(self.overhead_bytes, float)
        spent = np.asarray(self.joules_per_message) + size * np.asarray(self.joules_per_byte)
        return np.where(messages, spent, 0.0)


@dataclass(frozen=True)
class LinkModel:
    """Learners' links to the controller (``uplink``) and back (``downlink``)."""

    uplink: Link
    downlink: Link


@dataclass(frozen=True)
class Traffic:
    """What a record says was sent, [..., K, M] each: payload bits without headers, who uploaded, and whether there was a message at all.

    Attributes:
      contacted, answered: which learners were sent a message, and which sent one, be it a header alone. ``answered`` defaults to ``sent``.
      participated: which learners computed; defaults to ``contacted``.
    """

    uplink_bits: np.ndarray
    sent: np.ndarray
    downlink_bits: np.ndarray
    contacted: np.ndarray
    answered: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    participated: np.ndarray = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        if self.answered is None:
            object.__setattr__(self, "answered", self.sent)
        if self.participated is None:
            object.__setattr__(self, "participated", self.contacted)


def seconds(network: LinkModel, traffic: Traffic, compute_seconds: float = 0.0) -> np.ndarray:
    """Wall-clock time so far, [..., K]: of every round that of its slowest learner.

    Args:
      compute_seconds: sampling and estimating, of every learner in every round that it takes part in.
    Raises:
      ValueError: compute_seconds < 0.
    """
    if not (np.isfinite(compute_seconds) and compute_seconds >= 0):
        raise ValueError(f"compute_seconds must be >= 0, got {compute_seconds}; 0 counts the network alone.")
    down = network.downlink.seconds(np.asarray(traffic.downlink_bits, float), np.asarray(traffic.contacted, bool))
    up = network.uplink.seconds(np.asarray(traffic.uplink_bits, float), np.asarray(traffic.answered, bool))
    return np.cumsum(np.max(down + compute_seconds * np.asarray(traffic.participated, bool) + up, -1), -1)


def joules(network: LinkModel, traffic: Traffic) -> np.ndarray:
    """Energy of all messages so far, all learners together, [..., K]. Computing is not in it."""
    down = network.downlink.joules(np.asarray(traffic.downlink_bits, float), np.asarray(traffic.contacted, bool))
    up = network.uplink.joules(np.asarray(traffic.uplink_bits, float), np.asarray(traffic.answered, bool))
    return np.cumsum(np.sum(down + up, -1), -1)


TCP_TLS_BYTES = 69.0
"""IPv4 20, TCP 20, one TLS 1.3 record 22 and a share of acknowledgements."""
PROFILES: Mapping[str, LinkModel] = {
    "lte-m": LinkModel(
        uplink=Link(375e3, 0.1, TCP_TLS_BYTES, 20e-6, 0.1),
        downlink=Link(300e3, 0.1, TCP_TLS_BYTES, 7e-6, 0.02),
    ),
    "wifi-robot": LinkModel(
        uplink=Link(20e6, 3e-3, TCP_TLS_BYTES + 36, 0.6e-6),
        downlink=Link(20e6, 3e-3, TCP_TLS_BYTES + 36, 0.4e-6),
    ),
    "wan": LinkModel(
        uplink=Link(1e9, 0.04, TCP_TLS_BYTES, 7e-6),
        downlink=Link(1e9, 0.04, TCP_TLS_BYTES, 7e-6),
    ),
    "cluster": LinkModel(
        uplink=Link(10e9, 50e-6, 78.0, 8e-9),
        downlink=Link(10e9, 50e-6, 78.0, 8e-9),
    ),
}
"""Documented in docs/network.md, with where each number comes from; orders of magnitude, to be replaced by one's own."""
