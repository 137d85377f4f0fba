"""The comparison protocol: what it costs to reach a target, with intervals. Pure functions of arrays.

Score: mean over learners of the scaled reward per step. J₀ is the mean of the first 10 rounds, J_F that of the last 5 %. The target of level p is
J₀ + p (J_F − J₀) of the reference's seed mean. A method hits it in the first round whose trailing 50-round mean of the seed mean is at least the
target. Both averages cover at most 5 % of the rounds; where θ^k was not scored in all of them, rounds of averages are those in which it was. Intervals are 95 % percentile bootstraps over seeds, the same resamples for every method, so
that ratios are paired; with fewer than `MIN_SEEDS` they are unknown. Misses are censored at K and shown as such, never dropped; a run that diverged
ends at −∞.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lapg.comparison.curves import Curve, final, start, trailing_mean

LEVELS = (0.90, 0.95)
MARGIN = 0.05
RESAMPLES = 2000
MIN_SEEDS = 5
"""With fewer, resamples say next to nothing of the spread (four seeds: 35 different ones), and no claim is decided."""


@dataclass(frozen=True)
class Interval:
    """A point estimate and its 95 % interval; inf where the target was missed, −inf where a run diverged, nan where it is unknown."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Cost:
    """What it took a method to reach one target.

    Attributes:
      rounds, rounds_ratio: and over the reference's, unknown where that misses the target; smaller is better.
      spent, savings: by name of the cost (`lapg.comparison.curves.COSTS`), and the reference's over it; larger is better.
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
        """The reference's uploads to the target over the method's."""
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
    """Final score minus the reference's, in units of the reference's improvement."""
    costs: dict[float, Cost]

    @property
    def not_inferior(self) -> bool:
        """Whether the paired lower bound lies above −5 % of the reference's improvement; never with fewer than `MIN_SEEDS`."""
        return self.difference.low > -MARGIN


def _means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means over seeds, nan where a seed that has weight is not finite: [B, S], [S, ...] → [B, ...]."""
    finite = np.isfinite(values)
    means = weights @ np.where(finite, values, 0.0)
    return means if finite.all() else np.where(weights @ (~finite).astype(float) > 0, np.nan, means)


def _hits(smooth: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Index into the trailing means of the first value at or above the target, −1 if none: [B, K'], [B] → [B]."""
    reached = np.isfinite(smooth) & (smooth >= target[:, None])
    return np.where(reached.any(1), reached.argmax(1), -1)


def _interval(values: np.ndarray, num_seeds: int) -> Interval:
    """The first entry is the point estimate, the others are resamples; infinities take part."""
    if num_seeds < MIN_SEEDS or np.isnan(values[0]):
        return Interval(float(values[0]), np.nan, np.nan)
    low, high = np.quantile(values[1:], [0.025, 0.975], method="nearest")
    return Interval(float(values[0]), float(low), float(high))


def _over(own: np.ndarray, rival: np.ndarray) -> np.ndarray:
    """own/rival; own misses are infinite, whatever the rival does, and what only the rival misses is 0."""
    with np.errstate(divide="ignore"):
        return np.where(np.isfinite(own), own, np.inf) / np.where(np.isfinite(own), rival, 1.0)


def _saving(rival: np.ndarray, own: np.ndarray) -> np.ndarray:
    """rival/own; own misses save nothing, whatever the rival does, and where only the rival misses it is infinite."""
    with np.errstate(divide="ignore"):  # nothing spent saves all
        return np.where(np.isfinite(own), rival / np.where(np.isfinite(own), own, 1.0), 0.0)


@dataclass(frozen=True)
class Comparison:
    """Rows by label, and the resamples behind them."""

    rows: dict[str, Row]
    spent: dict[tuple[str, float, str], np.ndarray]
    """Spent to target by label, level and cost: the point estimate first, then the resamples."""
    weights: np.ndarray
    """Of the seeds in each resample, [1 + resamples, seeds]."""
    reference: str = "PG"
    baselines: tuple[str, ...] = ()
    """Labels of the methods that upload by a schedule, whatever they have measured."""

    @property
    def num_seeds(self) -> int:
        """Runs of each method."""
        return self.weights.shape[1]

    def best_baseline(self, level: float = 0.90, cost: str = "uploads") -> str | None:
        """The baseline that reaches the target at the least cost: of those whose final score is not inferior, if any, else of all that reach it.

        It is chosen on the seeds that are reported, which favours it. None if no baseline reaches the target.
        """
        spent = {label: self.spent[label, level, cost][0] for label in self.baselines}
        reach = [label for label in self.baselines if np.isfinite(spent[label])]
        admitted = [label for label in reach if self.rows[label].not_inferior] or reach
        return min(admitted, key=lambda label: spent[label], default=None)

    def over_best_baseline(self, label: str, level: float = 0.90, cost: str = "uploads") -> Interval:
        """What the best baseline spent to the target over what ``label`` spent, paired over seeds; unknown if no baseline reaches it."""
        best = self.best_baseline(level, cost)
        return UNKNOWN if best is None else self.saving(label, best, level, cost)

    def saving(self, label: str, rival: str, level: float = 0.90, cost: str = "uploads") -> Interval:
        """What ``rival`` spent to the target over what ``label`` spent, paired over seeds; above 1 favours ``label``."""
        return _interval(_saving(self.spent[rival, level, cost], self.spent[label, level, cost]), self.num_seeds)

    def improvement(self, label: str, rival: str, cost: str | None = None, level: float = 0.90) -> Interval:
        """Probability that a run of ``label`` is better than one of ``rival``; ties, two misses included, count half.

        Better is a higher final score, or less of a cost to the target. Runs are paired with all of the rival's, as if seeds had nothing in common,
        and resampled independently.

        Source: Agarwal et al., arXiv 2108.13264, section 4.3.
        """
        own, others = (self._measured(name, cost, level) for name in (label, rival))
        wins = (own[:, None] > others) + 0.5 * (own[:, None] == others)
        shuffled = np.concatenate([self.weights[:1], np.roll(self.weights[1:], 1, 0)])
        return _interval(np.einsum("bi,ij,bj->b", self.weights, wins, shuffled), self.num_seeds)

    def _measured(self, label: str, cost: str | None, level: float) -> np.ndarray:
        row = self.rows[label]
        values = np.array(row.seed_finals) if cost is None else -np.array(row.costs[level].seed_spent[cost])
        return np.where(
            np.isnan(values) | (values == np.inf), -np.inf, values
        )  # a run that diverged is worse than any other


def compare(
    curves: Mapping[str, Curve], reference: str = "PG", baselines: Sequence[str] = (), seed: int = 0
) -> Comparison:
    """Every method against the reference, by the protocol.

    Args:
      curves: by label; same seeds, rounds and costs for all.
      reference: the label of PG, or of what takes its place.
      baselines: labels of the methods that upload by a schedule.
      seed: of the bootstrap.
    Raises:
      ValueError: the reference or a baseline is missing, or the methods do not share seeds and rounds.
    """
    for label in (reference, *baselines):
        if label not in curves:
            raise ValueError(f"a comparison needs {label!r} among its methods, got {', '.join(curves)}.")
    shapes = {(len(curve.score), curve.num_rounds, len(curve.rounds)) for curve in curves.values()}
    if len(shapes) != 1:
        raise ValueError(f"methods must share seeds and rounds, got (seeds, rounds, evaluated) {sorted(shapes)}.")
    num_seeds = shapes.pop()[0]
    draws = np.random.default_rng(seed).multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), RESAMPLES)
    weights = np.concatenate([np.full((1, num_seeds), 1 / num_seeds), draws / num_seeds])

    base = curves[reference].score
    begin, end = _means(weights, start(base)), _means(weights, final(base))
    improvement = end - begin
    # a reference that does not improve sets no target, and there is nothing to compare
    learns = bool(improvement[0] > 0)
    targets = {level: np.where(improvement > 0, begin + level * improvement, np.inf) for level in LEVELS}

    def interval(values: np.ndarray) -> Interval:
        return _interval(values, num_seeds)

    rounds: dict[tuple[str, float], np.ndarray] = {}
    spent: dict[tuple[str, float, str], np.ndarray] = {}
    rows = {}
    for label in [reference, *(label for label in curves if label != reference)]:
        curve, costs = curves[label], {}
        smooth = trailing_mean(curve.score)
        ends = curve.rounds[-smooth.shape[1] :]  # numbers of the rounds in which trailing means end
        for level, target in targets.items():
            hits = _hits(_means(weights, smooth), target)
            missed, at = hits < 0, ends[np.maximum(hits, 0)]
            rounds[label, level] = np.where(missed, np.inf, at + 1)
            for name, total in curve.costs.items():
                spent[label, level, name] = np.where(missed, np.inf, (weights * total[:, at].T).sum(1))
            own = _hits(smooth, np.full(num_seeds, target[0]))
            own_at = ends[np.maximum(own, 0)]
            reached = learns and np.isfinite(rounds[reference, level][0])
            costs[level] = Cost(
                rounds=interval(rounds[label, level]),
                rounds_ratio=interval(_over(rounds[label, level], rounds[reference, level])) if reached else UNKNOWN,
                spent={name: interval(spent[label, level, name]) for name in curve.costs},
                savings={
                    name: interval(_saving(spent[reference, level, name], spent[label, level, name]))
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
        last = _means(weights, finals)
        last = np.where(np.isnan(last), -np.inf, last)
        rows[label] = Row(
            label=label,
            final=interval(last),
            raw_final=float(final(curve.raw_score).mean()),
            totals={name: float(total[:, -1].mean()) for name, total in curve.costs.items()},
            seed_finals=tuple(finals.tolist()),
            difference=interval((last - end) / np.where(improvement > 0, improvement, np.nan)),
            costs=costs,
        )
    return Comparison({label: rows[label] for label in curves}, spent, weights, reference, tuple(baselines))


def late_improvement(curve: Curve) -> float:
    """Share of a method's improvement that falls into its last fifth of the rounds, nan without any; the protocol wants PG's below 2 %."""
    mean = curve.score.mean(0)
    end, before = final(mean), final(np.roll(mean, len(mean) // 5))  # as many rounds, a fifth earlier
    improvement = end - start(mean)
    return float((end - before) / improvement) if improvement > 0 else float("nan")
