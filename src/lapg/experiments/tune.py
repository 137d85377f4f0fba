"""Tuning by the protocol: equal budgets (a step size and at most two numbers), seeds that are never reported."""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lapg import ledger
from lapg.experiments import figures
from lapg.experiments.build import build
from lapg.experiments.compare import MARGIN, Comparison, Curve, compare
from lapg.experiments.config import Config, MethodConfig
from lapg.experiments.report import ROUNDS_TOLERANCE, interval, number
from lapg.runtimes import runtime_of

SEEDS = tuple(range(1000, 1005))
TIE = 1.15
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "PG": {"step": (0.6, 0.8, 1.0, 1.25), "decay": (0.0, 4e-4)},
    "LAPG": {"step": (0.75, 1.0), "noise_weight": (0.0, 0.5, 0.75, 1.0)},
    "LAPG average": {"noise_weight": (0.75, 1.0, 1.25, 1.5), "average_weight": (0.03, 0.05)},
    "AWAPG": {"step": (1.0, 1.6), "threshold": (80.0, 160.0), "decay": (0.0, 4e-4)},
    "periodic": {"step": (1.25, 1.6), "period": (20.0, 40.0), "decay": (0.0, 4e-4)},
}
"""Eight points for every method; ``step`` multiplies PG's step size."""


@dataclass(frozen=True)
class Trial:
    """One point of a grid and its curve on the tuning seeds."""

    label: str
    values: dict[str, float]
    curve: Curve


def sweep(label: str, config: Config, grid: dict[str, tuple[float, ...]]) -> list[Trial]:
    """All points of a grid side by side: lanes are (point, seed), compiled once."""
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    methods = [_at(config.method, point) for point in points]
    built = [build(dataclasses.replace(config, method=method)) for method in methods]
    hypers = {
        name: np.repeat(np.array([b.hyper[name] for b in built], np.float32), len(SEEDS)) for name in built[0].hyper
    }
    runtime = runtime_of(built[0].problem)
    lanes = runtime(built[0].recipe, built[0].problem, hypers, SEEDS * len(points), chunk_rounds=config.chunk_rounds)
    state, logs = lanes.start(), []
    for first in track(range(0, config.rounds, config.chunk_rounds), description=f"{label}: {len(points)} points"):
        state, log = lanes.advance(state, first, config.rounds)
        logs.append((log.scores["score_scaled"].mean(-1), log.scores["score_raw"].mean(-1), log.sent, log.uplink_bits))
    score, raw, sent, bits = (np.concatenate(parts, 1) for parts in zip(*logs, strict=True))
    trials = []
    for index, point in enumerate(points):
        own = slice(index * len(SEEDS), (index + 1) * len(SEEDS))
        curve = Curve(
            score=score[own].astype(float),
            raw_score=raw[own].astype(float),
            uploads=ledger.num_uploads(sent[own]),
            uplink_bits=ledger.uplink_bits(bits[own], sent[own]),
            upload_rates=ledger.upload_fraction(sent[own]).mean(0),
            noise_to_signal=np.zeros(score.shape[1]),
        )
        trials.append(Trial(label, point, curve))
    return trials


def _at(method: MethodConfig, point: dict[str, float]) -> MethodConfig:
    rest = {name: value for name, value in point.items() if name != "step"}
    return dataclasses.replace(method, step_size=method.step_size * point.get("step", 1.0), **rest)


def choose(comparison: Comparison, labels: list[str]) -> str:
    """The point with the fewest uploads to 90 % among those that the protocol admits: rounds ratio at most 1.1, final score within 5 %.

    Upload counts within 15 % are a tie on five seeds, and the better final score wins. Where no point is admitted, the best final score wins.
    """
    rows = comparison.rows
    admitted = [
        label
        for label in labels
        if rows[label].costs[0.90].rounds_ratio.value <= ROUNDS_TOLERANCE and rows[label].difference.value > -MARGIN
    ]
    if admitted:
        fewest = min(rows[label].costs[0.90].uploads.value for label in admitted)
        labels = [label for label in admitted if rows[label].costs[0.90].uploads.value <= TIE * fewest]
    return max(labels, key=lambda label: rows[label].final.value)


def tune(figure: figures.Figure, preset: figures.Preset, *, rounds: int | None, console: Console) -> None:
    """Sweeps every method of a figure's line-up and prints all points, the chosen one marked.

    PG's step size is chosen first, by final score; everything else is measured against PG at that step.
    """
    base = figures.lineup(figure, preset, rounds=rounds)[0].config
    _, methods = figures.methods(figure, preset)
    step = methods["PG"].step_size
    trials = sweep("PG", dataclasses.replace(base, method=methods["PG"]), GRIDS["PG"])
    best = max(trials, key=lambda trial: trial.curve.score[:, -len(trial.curve.score[0]) // 20 :].mean())
    curves, groups = {"PG": best.curve}, {}
    for label, method in methods.items():
        if label not in GRIDS:
            continue
        if label != "PG":
            start = dataclasses.replace(method, step_size=best.values["step"] * step)
            trials = sweep(label, dataclasses.replace(base, method=start), GRIDS[label])
        named = {f"{label} {_words(trial.values)}": trial for trial in trials}
        groups[label] = list(named)
        curves |= {name: trial.curve for name, trial in named.items()}
    comparison = compare(curves)
    table = Table(
        "method and point", "final score [95 %]", "rounds to 90 %", "uploads to 90 %", "rounds / PG", "fewer uploads", "chosen",
        title=f"{figure.name}, preset {preset}, seeds {SEEDS[0]}-{SEEDS[-1]}, step in units of {best.values['step'] * step:g} (PG: {step:g})",
    )  # fmt: skip
    for label, names in groups.items():
        chosen = f"PG {_words(best.values)}" if label == "PG" else choose(comparison, names)
        for name in names:
            row = comparison.rows[name]
            cost = row.costs[0.90]
            table.add_row(
                name,
                interval(row.final),
                number(cost.rounds.value, 4),
                number(cost.uploads.value, 4),
                number(cost.rounds_ratio.value),
                number(cost.uploads_saving.value),
                "*" if name == chosen else "",
            )
    console.print(table)
    for label in groups:
        console.print(f"{label}: {', '.join(GRIDS[label])}")


def _words(values: dict[str, float]) -> str:
    return " ".join(f"{value:g}" for value in values.values())
