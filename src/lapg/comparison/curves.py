"""What a comparison needs of a run: its score, and what it has cost so far. Averages are over rounds in which θ^k was scored."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from lapg.costs import ledger
from lapg.costs.links import LinkModel, Traffic, joules, seconds
from lapg.experiments.soundness import mean_score
from lapg.record import upgrade

FRACTION = 0.05
"""Of the rounds: no average of the protocol covers more, so that short runs are judged like long ones."""
WINDOW = 50
START_ROUNDS = 10
"""Most rounds of a trailing mean, and of the start; shorter runs have fewer (`window`, `start`)."""
COSTS = {
    "uploads": "uploads",
    "bits": "Mbit both",
    "uplink_bits": "Mbit up",
    "downlink_bits": "Mbit down",
    "steps": "steps",
    "seconds": "seconds",
    "joules": "joules",
}
"""What is counted, in the words and units of tables. Steps are the environment's that learners learned from; those of evaluation cost nothing."""


@dataclass(frozen=True)
class Curve:
    """One method. E of its K rounds were evaluated, in which θ^k was scored.

    Attributes:
      score, raw_score: mean over learners, [seeds, E].
      costs: running totals by name (see `COSTS`), all learners together, [seeds, K] each.
      upload_rates: fraction of rounds, [M].
      noise_to_signal: [up to K], nan where noise hides the signal.
      evaluated: numbers of the evaluated rounds, [E]; None is all.
    """

    score: np.ndarray
    raw_score: np.ndarray
    costs: Mapping[str, np.ndarray]
    upload_rates: np.ndarray
    noise_to_signal: np.ndarray
    evaluated: np.ndarray | None = None

    @property
    def rounds(self) -> np.ndarray:
        """Numbers of the evaluated rounds."""
        return np.arange(self.score.shape[1]) if self.evaluated is None else self.evaluated

    @property
    def num_rounds(self) -> int:
        """K."""
        return self.uploads.shape[1]

    def spent(self, cost: str) -> np.ndarray:
        """What it has cost by each of the evaluated rounds, mean over seeds."""
        return self.costs[cost].mean(0)[self.rounds]

    @property
    def uploads(self) -> np.ndarray:
        """Uploads so far."""
        return self.costs["uploads"]


def _share(num_rounds: int) -> int:
    return max(1, round(FRACTION * num_rounds))


def window(num_rounds: int) -> int:
    """Rounds of a trailing mean: 50, or 5 % of them where that is less."""
    return min(WINDOW, _share(num_rounds))


def trailing_mean(values: np.ndarray, width: int | None = None) -> np.ndarray:
    """Mean of the last ``width`` entries along the last axis, starting where there are so many: [..., K] → [..., K − width + 1].

    Every window is summed by itself, so that what has left it has no influence; one that holds a value that is not finite is nan or infinite.

    Args:
      width: None is that of the protocol for K rounds (`window`).
    """
    num_rounds = values.shape[-1]
    width = window(num_rounds) if width is None else min(width, num_rounds)
    with np.errstate(invalid="ignore", over="ignore"):  # of a run that has diverged
        return np.lib.stride_tricks.sliding_window_view(values, width, -1).mean(-1)


def smoothed(values: np.ndarray) -> np.ndarray:
    """As `trailing_mean`, from the first entry on: of as many as there are yet, [..., K] → [..., K]; for pictures."""
    width = window(values.shape[-1])
    with np.errstate(invalid="ignore", over="ignore"):
        first = np.cumsum(values[..., : width - 1], -1) / np.arange(1, width)
    return np.concatenate([first, trailing_mean(values, width)], -1)


def start(score: np.ndarray) -> np.ndarray:
    """J₀, the mean of the first 10 rounds, or of 5 % of them where that is less: [..., K] → [...]."""
    return np.asarray(score[..., : min(START_ROUNDS, _share(score.shape[-1]))].mean(-1))


def final(score: np.ndarray) -> np.ndarray:
    """J_F, the mean of the last 5 % of the rounds: [..., K] → [...]."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(score[..., -_share(score.shape[-1]) :].mean(-1))


def running_costs(
    traffic: Traffic, network: LinkModel | None = None, compute_seconds: float = 0.0, steps: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What the traffic has cost so far, [..., K] each; bits with headers; time and energy where there is a network.

    Args:
      steps: of the environment, that each learner learned from, [..., K, M]; left out where there are none.
    """
    up = ledger.uplink_bits(traffic.uplink_bits, traffic.answered)
    down = ledger.downlink_bits(traffic.downlink_bits, traffic.contacted)
    found = {
        "uploads": ledger.num_uploads(traffic.sent),
        "bits": up + down,
        "uplink_bits": up,
        "downlink_bits": down,
    }
    if steps is not None and np.any(steps):
        found["steps"] = ledger.num_steps(steps)
    if network is not None:
        found |= {"seconds": seconds(network, traffic, compute_seconds), "joules": joules(network, traffic)}
    return found


def to_curve(record: xr.Dataset, network: LinkModel | None = None, compute_seconds: float = 0.0) -> Curve:
    """What the protocol needs of a record; with time and energy where a network is given, and with steps where they were counted.

    Raises:
      ValueError: θ^k was never scored.
    """
    record = upgrade(record)
    if "score_scaled" not in record:
        raise ValueError(
            "runs must have been evaluated to be compared, got a record without scores of θ^k (evaluation.every = 0); play with --evaluation.every 1 or more."
        )
    record = record.transpose("seed", "round", "learner", ...)
    names = ("uplink_bits", "sent", "downlink_bits", "contacted", "answered", "participated")
    messages = [record[name].values for name in names]
    steps = record["training_steps"].values if "training_steps" in record else None
    sent = messages[1]
    noise = record["noise"].mean(("seed", "learner")).values if "noise" in record else np.zeros(sent.shape[1])
    squares = (record["gradient_norm"] ** 2).mean(("seed", "learner")).values
    width = max(1, sent.shape[1] // 10)  # the signal is a small difference of large numbers
    smooth_noise = trailing_mean(noise.astype(float), width)
    with np.errstate(invalid="ignore"):
        signal = trailing_mean(squares.astype(float), width) - smooth_noise
    evaluated = np.flatnonzero(record["evaluated"].any(("seed", "learner")).values)
    scored = record.isel(round=evaluated)
    return Curve(
        score=mean_score(scored, "learner").values.astype(float),
        raw_score=mean_score(scored, "learner", name="score_raw").values.astype(float),
        costs=running_costs(Traffic(*messages), network, compute_seconds, steps),
        upload_rates=ledger.upload_fraction(sent).mean(0),
        noise_to_signal=np.divide(smooth_noise, signal, out=np.full_like(signal, np.nan), where=signal > 0),
        evaluated=evaluated,
    )
