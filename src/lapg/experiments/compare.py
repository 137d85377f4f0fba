"""The comparison protocol: what it costs to reach a target, with intervals. Pure functions of arrays.

Score: mean over learners of the scaled reward per step. J₀ is the mean of the first 10 rounds, J_F that of the last 5 %. The target of level p is
J₀ + p (J_F − J₀) of PG's seed mean. A method hits it in the first round whose trailing 50-round mean of the seed mean is at least the target.
Intervals are 95 % percentile bootstraps over seeds, the same resamples for every method, so that ratios are paired. Misses are censored at K and
shown as such, never dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lapg.experiments.curves import FINAL_FRACTION, START_ROUNDS, WINDOW, Curve, final, trailing_mean

LEVELS = (0.90, 0.95)
MARGIN = 0.05
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A point estimate and its 95 % interval; inf where the target was missed."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Cost:
    """What it took a method to reach one target.

    Attributes:
      rounds, rounds_ratio: and over PG's; smaller is better.
      spent, savings: by name of the cost (`lapg.experiments.curves.COSTS`), and PG's over it; larger is better.
      seed_rounds, seed_spent: of every seed by itself, inf where it missed the target.
    """

    rounds: Interval
    rounds_ratio: Interval
    spent: dict[str, Interval]
    savings: dict[str, Interval]
    seed_rounds: tuple[float, ...]
    seed_spent: dict[str, tuple[float, ...]]

    @property
    def uploads(self) -> Interval:
        """Uploads to the target."""
        return self.spent["uploads"]

    @property
    def uploads_saving(self) -> Interval:
        """PG's uploads to the target over the method's."""
        return self.savings["uploads"]


@dataclass(frozen=True)
class Row:
    """One method of a comparison."""

    label: str
    final: Interval
    raw_final: float
    totals: dict[str, float]
    """What all rounds together cost, mean over seeds."""
    seed_finals: tuple[float, ...]
    difference: Interval
    """Final score minus PG's, in units of PG's improvement."""
    costs: dict[float, Cost]

    @property
    def not_inferior(self) -> bool:
        """Whether the paired lower bound lies above −5 % of PG's improvement."""
        return self.difference.low > -MARGIN


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
    spent: dict[tuple[str, float, str], np.ndarray]
    """Spent to target by label, level and cost: the point estimate first, then the resamples."""
    weights: np.ndarray
    """Of the seeds in each resample, [1 + resamples, seeds]."""

    def saving(self, label: str, rival: str, level: float = 0.90, cost: str = "uploads") -> Interval:
        """What ``rival`` spent to the target over what ``label`` spent, paired over seeds; above 1 favours ``label``."""
        return _interval(_saving(self.spent[rival, level, cost], self.spent[label, level, cost]))

    def improvement(self, label: str, rival: str, cost: str | None = None, level: float = 0.90) -> Interval:
        """Probability that a run of ``label`` is better than one of ``rival``; ties, two misses included, count half.

        Better is a higher final score, or less of a cost to the target. Runs are paired with all of the rival's, as if seeds had nothing in common,
        and resampled independently.

        Source: Agarwal et al., arXiv 2108.13264, section 4.3.
        """
        own, others = (self._measured(name, cost, level) for name in (label, rival))
        wins = (own[:, None] > others) + 0.5 * (own[:, None] == others)
        shuffled = np.concatenate([self.weights[:1], np.roll(self.weights[1:], 1, 0)])
        return _interval(np.einsum("bi,ij,bj->b", self.weights, wins, shuffled))

    def _measured(self, label: str, cost: str | None, level: float) -> np.ndarray:
        row = self.rows[label]
        values = np.array(row.seed_finals) if cost is None else -np.array(row.costs[level].seed_spent[cost])
        return np.where(np.isnan(values), -np.inf, values)  # a run that diverged is worse than any other


def compare(curves: Mapping[str, Curve], reference: str = "PG", seed: int = 0) -> Comparison:
    """Every method against the reference, by the protocol.

    Args:
      curves: by label; same seeds, rounds and costs for all.
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
    # a reference that does not improve sets no target, and there is nothing to compare
    learns = bool(improvement[0] > 0)
    targets = {level: np.where(improvement > 0, start + level * improvement, np.inf) for level in LEVELS}

    rounds: dict[tuple[str, float], np.ndarray] = {}
    spent: dict[tuple[str, float, str], np.ndarray] = {}
    rows = {}
    for label in [reference, *(label for label in curves if label != reference)]:
        curve, costs = curves[label], {}
        smooth = trailing_mean(curve.score)
        for level, target in targets.items():
            hits = _hits(weights @ smooth, target)
            missed, at = hits < 0, np.maximum(hits, 0) + offset - 1
            rounds[label, level] = np.where(missed, np.inf, at + 1)
            for name, total in curve.costs.items():
                spent[label, level, name] = np.where(missed, np.inf, (weights * total[:, at].T).sum(1))
            own = _hits(smooth, np.full(num_seeds, target[0]))
            own_at = np.maximum(own, 0) + offset - 1
            costs[level] = Cost(
                rounds=_interval(rounds[label, level]),
                rounds_ratio=_interval(_ratio(rounds[label, level], rounds[reference, level])) if learns else UNKNOWN,
                spent={name: _interval(spent[label, level, name]) for name in curve.costs},
                savings={
                    name: _interval(_saving(spent[reference, level, name], spent[label, level, name]))
                    if learns
                    else UNKNOWN
                    for name in curve.costs
                },
                seed_rounds=tuple(np.where(own < 0, np.inf, own_at + 1).tolist()),
                seed_spent={
                    name: tuple(np.where(own < 0, np.inf, total[np.arange(num_seeds), own_at]).tolist())
                    for name, total in curve.costs.items()
                },
            )
        finals = final(curve.score)
        last = weights @ finals
        rows[label] = Row(
            label=label,
            final=_interval(last),
            raw_final=float(final(curve.raw_score).mean()),
            totals={name: float(total[:, -1].mean()) for name, total in curve.costs.items()},
            seed_finals=tuple(finals.tolist()),
            difference=_interval((last - end) / np.where(improvement > 0, improvement, np.nan)),
            costs=costs,
        )
    return Comparison({label: rows[label] for label in curves}, spent, weights)


def late_improvement(curve: Curve) -> float:
    """Share of a method's improvement that falls into its last fifth of the rounds, nan without any; the protocol wants PG's below 2 %."""
    mean = curve.score.mean(0)
    num_rounds = len(mean)
    width = max(1, round(FINAL_FRACTION * num_rounds))
    before = mean[: num_rounds - num_rounds // 5][-width:].mean()
    improvement = mean[-width:].mean() - mean[:START_ROUNDS].mean()
    return float((mean[-width:].mean() - before) / improvement) if improvement > 0 else float("nan")
