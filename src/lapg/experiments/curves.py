"""What a comparison needs of a run: its score, and what it has cost so far."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from lapg import ledger
from lapg.experiments.soundness import mean_score
from lapg.network import Network, Traffic, joules, seconds

WINDOW = 50
START_ROUNDS = 10
FINAL_FRACTION = 0.05
COSTS = {
    "uploads": "uploads",
    "uplink_bits": "Mbit up",
    "downlink_bits": "Mbit down",
    "bits": "Mbit both",
    "seconds": "seconds",
    "joules": "joules",
}
"""What is counted, in the words and units of tables."""


@dataclass(frozen=True)
class Curve:
    """One method.

    Attributes:
      score, raw_score: mean over learners, [seeds, K].
      costs: running totals by name (see `COSTS`), all learners together, [seeds, K] each.
      upload_rates: fraction of rounds, [M].
      noise_to_signal: [up to K], nan where noise hides the signal.
    """

    score: np.ndarray
    raw_score: np.ndarray
    costs: Mapping[str, np.ndarray]
    upload_rates: np.ndarray
    noise_to_signal: np.ndarray

    @property
    def uploads(self) -> np.ndarray:
        """Uploads so far."""
        return self.costs["uploads"]


def trailing_mean(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean of the last ``window`` entries along the last axis, starting where there are so many: [..., K] → [..., K − window + 1]."""
    window = min(window, values.shape[-1])
    sums = np.cumsum(np.concatenate([np.zeros((*values.shape[:-1], 1)), values], -1), -1)
    with np.errstate(invalid="ignore"):  # of a run that has diverged
        return (sums[..., window:] - sums[..., :-window]) / window


def final(score: np.ndarray) -> np.ndarray:
    """J_F: [..., K] → [...]."""
    return score[..., -max(1, round(FINAL_FRACTION * score.shape[-1])) :].mean(-1)


def running_costs(
    traffic: Traffic, network: Network | None = None, compute_seconds: float = 0.0
) -> dict[str, np.ndarray]:
    """What the traffic has cost so far, [..., K] each; bits with headers; time and energy where there is a network."""
    up = ledger.uplink_bits(traffic.uplink_bits, traffic.sent)
    down = ledger.downlink_bits(traffic.downlink_bits, traffic.heard)
    found = {
        "uploads": ledger.num_uploads(traffic.sent),
        "uplink_bits": up,
        "downlink_bits": down,
        "bits": up + down,
    }
    if network is not None:
        found |= {"seconds": seconds(network, traffic, compute_seconds), "joules": joules(network, traffic)}
    return found


def to_curve(record: xr.Dataset, network: Network | None = None, compute_seconds: float = 0.0) -> Curve:
    """What the protocol needs of a record; with time and energy on a network where one is given."""
    names = ("uplink_bits", "sent", "downlink_bits", "participated")
    messages = [record[name].transpose("seed", "round", "learner").values for name in names]
    sent = messages[1]
    noise = record["noise"].mean(("seed", "learner")).values if "noise" in record else np.zeros(sent.shape[1])
    squares = (record["gradient_norm"] ** 2).mean(("seed", "learner")).values
    window = max(WINDOW, sent.shape[1] // 10)  # the signal is a small difference of large numbers
    smooth_noise = trailing_mean(noise.astype(float), window)
    with np.errstate(invalid="ignore"):
        signal = trailing_mean(squares.astype(float), window) - smooth_noise
    return Curve(
        score=mean_score(record, "learner").transpose("seed", "round").values.astype(float),
        raw_score=mean_score(record, "learner", name="score_raw").transpose("seed", "round").values.astype(float),
        costs=running_costs(Traffic(*messages), network, compute_seconds),
        upload_rates=ledger.upload_fraction(sent).mean(0),
        noise_to_signal=np.divide(smooth_noise, signal, out=np.full_like(signal, np.nan), where=signal > 0),
    )
