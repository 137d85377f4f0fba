"""The comparison protocol: what it costs to reach a target, with intervals. Pure functions of arrays.

Score: mean over learners of the scaled reward per step. J₀ is the mean of the first 10 rounds, J_F that of the last 5 %. The target of level p is
J₀ + p (J_F − J₀) of PG's seed mean. A method hits it in the first round whose trailing 50-round mean of the seed mean is at least the target.
Intervals are 95 % percentile bootstraps over seeds, the same resamples for every method, so that ratios are paired. Misses are censored at K and
shown as such, never dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from lapg import ledger

LEVELS = (0.90, 0.95)
WINDOW = 50
START_ROUNDS = 10
FINAL_FRACTION = 0.05
MARGIN = 0.05
RESAMPLES = 2000


@dataclass(frozen=True)
class Curve:
    """One method: score and cost so far, [seeds, K] each; upload rates, [M]; noise-to-signal, [up to K], nan where noise hides the signal."""

    score: np.ndarray
    raw_score: np.ndarray
    uploads: np.ndarray
    uplink_bits: np.ndarray
    upload_rates: np.ndarray
    noise_to_signal: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A point estimate and its 95 % interval; inf where the target was missed."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Cost:
    """What it took a method to reach one target; ratios are to PG (rounds: smaller is better; savings: larger is better)."""

    rounds: Interval
    uploads: Interval
    uplink_bits: Interval
    rounds_ratio: Interval
    uploads_saving: Interval
    seed_rounds: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One method of a comparison."""

    label: str
    final: Interval
    raw_final: float
    total_uploads: float
    difference: Interval
    """Final score minus PG's, in units of PG's improvement."""
    costs: dict[float, Cost]

    @property
    def not_inferior(self) -> bool:
        """Whether the paired lower bound lies above −5 % of PG's improvement."""
        return self.difference.low > -MARGIN


def trailing_mean(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean of the last ``window`` entries along the last axis, starting where there are so many: [..., K] → [..., K − window + 1]."""
    window = min(window, values.shape[-1])
    sums = np.cumsum(np.concatenate([np.zeros((*values.shape[:-1], 1)), values], -1), -1)
    return (sums[..., window:] - sums[..., :-window]) / window


def to_curve(record: xr.Dataset) -> Curve:
    """What the protocol needs of a record."""
    sent = record["sent"].transpose("seed", "round", "learner").values
    bits = record["uplink_bits"].transpose("seed", "round", "learner").values
    noise = record["noise"].mean(("seed", "learner")).values if "noise" in record else np.zeros(sent.shape[1])
    squares = (record["gradient_norm"] ** 2).mean(("seed", "learner")).values
    window = max(WINDOW, sent.shape[1] // 10)  # the signal is a small difference of large numbers
    smooth_noise = trailing_mean(noise.astype(float), window)
    signal = trailing_mean(squares.astype(float), window) - smooth_noise
    return Curve(
        score=record["score_scaled"].mean("learner").transpose("seed", "round").values.astype(float),
        raw_score=record["score_raw"].mean("learner").transpose("seed", "round").values.astype(float),
        uploads=ledger.num_uploads(sent),
        uplink_bits=ledger.uplink_bits(bits, sent),
        upload_rates=ledger.upload_fraction(sent).mean(0),
        noise_to_signal=np.divide(smooth_noise, signal, out=np.full_like(signal, np.nan), where=signal > 0),
    )


def final(score: np.ndarray) -> np.ndarray:
    """J_F of every seed: [..., K] → [...]."""
    return score[..., -max(1, round(FINAL_FRACTION * score.shape[-1])) :].mean(-1)


def _hits(smooth: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Index into the trailing means of the first value at or above the target, −1 if none: [B, K'], [B] → [B]."""
    reached = smooth >= target[:, None]
    return np.where(reached.any(1), reached.argmax(1), -1)


def _interval(values: np.ndarray) -> Interval:
    """The first entry is the point estimate, the others are resamples; infinities take part."""
    low, high = np.quantile(values[1:], [0.025, 0.975], method="nearest") if len(values) > 1 else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def _ratio(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """upper/lower; a miss above counts as infinite, whatever is below."""
    return np.where(np.isfinite(upper), upper, np.inf) / np.where(np.isfinite(lower), lower, 1.0)


def _saving(rival: np.ndarray, own: np.ndarray) -> np.ndarray:
    """rival/own; own misses save nothing."""
    return np.where(np.isfinite(own), _ratio(rival, own), 0.0)


@dataclass(frozen=True)
class Comparison:
    """Rows by label, and the resamples behind them."""

    rows: dict[str, Row]
    uploads: dict[tuple[str, float], np.ndarray]
    """Uploads to target by label and level: the point estimate first, then the resamples."""

    def saving(self, label: str, rival: str, level: float = 0.90) -> Interval:
        """Uploads to target of ``rival`` divided by those of ``label``, paired over seeds; above 1 favours ``label``."""
        return _interval(_saving(self.uploads[rival, level], self.uploads[label, level]))


def compare(curves: Mapping[str, Curve], reference: str = "PG", seed: int = 0) -> Comparison:
    """Every method against the reference, by the protocol.

    Args:
      curves: by label; same seeds and rounds for all.
      reference: the label of PG.
      seed: of the bootstrap.
    Raises:
      ValueError: the reference is missing, or the methods do not share seeds and rounds.
    """
    if reference not in curves:
        raise ValueError(f"a comparison needs {reference!r} among its methods, got {', '.join(curves)}.")
    shapes = {curve.score.shape for curve in curves.values()}
    if len(shapes) != 1:
        raise ValueError(f"methods must share seeds and rounds, got (seeds, rounds) {sorted(shapes)}.")
    num_seeds, num_rounds = shapes.pop()
    draws = np.random.default_rng(seed).multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), RESAMPLES)
    weights = np.concatenate([np.full((1, num_seeds), 1 / num_seeds), draws / num_seeds])
    offset = min(WINDOW, num_rounds)  # the first trailing mean ends in this round, counted from 1

    base = curves[reference].score
    start, end = weights @ base[:, :START_ROUNDS].mean(1), weights @ final(base)
    improvement = end - start
    learns = bool(
        improvement[0] > 0
    )  # a reference that does not improve sets no target, and there is nothing to compare
    targets = {level: np.where(improvement > 0, start + level * improvement, np.inf) for level in LEVELS}

    rounds: dict[tuple[str, float], np.ndarray] = {}
    uploads: dict[tuple[str, float], np.ndarray] = {}
    rows = {}
    for label in [reference, *(label for label in curves if label != reference)]:
        curve, costs = curves[label], {}
        smooth = trailing_mean(curve.score)
        for level, target in targets.items():
            hits = _hits(weights @ smooth, target)
            missed, at = hits < 0, np.maximum(hits, 0) + offset - 1
            spent, bits = (
                np.where(missed, np.inf, (weights * total[:, at].T).sum(1))
                for total in (curve.uploads, curve.uplink_bits)
            )
            key = label, level
            rounds[key], uploads[key] = np.where(missed, np.inf, at + 1), spent
            own = _hits(smooth, np.full(num_seeds, target[0]))
            costs[level] = Cost(
                rounds=_interval(rounds[key]),
                uploads=_interval(spent),
                uplink_bits=_interval(bits),
                rounds_ratio=_interval(_ratio(rounds[key], rounds[reference, level])) if learns else UNKNOWN,
                uploads_saving=_interval(_saving(uploads[reference, level], spent)) if learns else UNKNOWN,
                seed_rounds=tuple(np.where(own < 0, np.inf, own + offset).tolist()),
            )
        last = weights @ final(curve.score)
        rows[label] = Row(
            label=label,
            final=_interval(last),
            raw_final=float(final(curve.raw_score).mean()),
            total_uploads=float(curve.uploads[:, -1].mean()),
            difference=_interval((last - end) / np.where(improvement > 0, improvement, np.nan)),
            costs=costs,
        )
    return Comparison({label: rows[label] for label in curves}, uploads)


def late_improvement(curve: Curve) -> float:
    """Share of a method's improvement that falls into its last fifth of the rounds, nan without any; the protocol wants PG's below 2 %."""
    mean = curve.score.mean(0)
    num_rounds = len(mean)
    width = max(1, round(FINAL_FRACTION * num_rounds))
    before = mean[: num_rounds - num_rounds // 5][-width:].mean()
    improvement = mean[-width:].mean() - mean[:START_ROUNDS].mean()
    return float((mean[-width:].mean() - before) / improvement) if improvement > 0 else float("nan")
