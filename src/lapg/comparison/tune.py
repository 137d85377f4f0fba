"""Tuning by the protocol: equal budgets (a step size and at most two numbers), seeds that are never reported."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lapg import record
from lapg.comparison import presets
from lapg.comparison.curves import Curve, final
from lapg.comparison.grids import Contender, at, check_budgets, follow, slug
from lapg.comparison.report import ROUNDS_TOLERANCE
from lapg.comparison.statistics import MARGIN, Comparison, compare
from lapg.comparison.sweeps import sweep_curves
from lapg.comparison.tables import interval, number
from lapg.experiments.config import Choice, Config, to_dict

FIRST_SEED = 1000
NUM_SEEDS = 5
TIE = 1.15
RESULT = "tuned.json"


@dataclass(frozen=True)
class Trial:
    """One point of a grid, and its curve on the tuning seeds."""

    values: dict[str, float]
    method: Choice
    curve: Curve

    @property
    def step_size(self) -> float:
        """Of the controller."""
        return self.method.optimiser.options["step_size"]


def at_point(method: Choice, point: Mapping[str, float], unit: float) -> Choice:
    """A method at a point of its grid, with its steps in this unit."""
    numbers = {name: value for name, value in point.items() if name != "step"}
    return at(method, {"optimiser.step_size": unit * point["step"]} | numbers)


@dataclass(frozen=True)
class Tuned:
    """All trials of a method, the chosen one, and what the comparison with PG says of each, by its name."""

    trials: dict[str, Trial]
    chosen: str
    comparison: Comparison

    @property
    def best(self) -> Trial:
        """The chosen trial."""
        return self.trials[self.chosen]


def choose(comparison: Comparison, labels: Sequence[str]) -> str:
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
    return max(labels, key=lambda label: _worth(rows[label].final.value))


def _worth(final_score: float) -> float:
    return final_score if math.isfinite(final_score) else -math.inf


def tune(
    contenders: Sequence[Contender], config: Config, out: Path, *, step: float, console: Console
) -> dict[str, Tuned]:
    """Tunes every method; sweeps that ``out`` holds already are read from there.

    PG comes first, about ``step``: its trials are measured against that of the best final score and chosen among by the rule for all, so that it is
    neither slow nor weak. All others are measured against PG at its chosen point, with steps in units of PG's.

    Args:
      contenders: PG first.
      config: problem, estimator, N, K and seeds.
      out: gets a record for every method, and `RESULT` with all trials and the chosen methods.
      step: the unit of PG's steps.
    Raises:
      ValueError: the budgets are not equal.
      RunError: ``out`` holds other sweeps.
    """
    check_budgets(contenders)
    reference = contenders[0].label
    found: dict[str, Tuned] = {}
    for contender in contenders:
        unit = found[reference].best.step_size if found else step
        methods = [at_point(contender.method, point, unit) for point in contender.points]
        file = out / f"{slug(contender.label)}.nc"
        played = sweep_curves(config, methods, file, console=console, label=contender.label)
        names = [
            f"{contender.label} {' '.join(f'{value:g}' for value in point.values())}" for point in contender.points
        ]
        trials = {
            name: Trial(point, method, curve)
            for name, point, method, curve in zip(names, contender.points, methods, played, strict=True)
        }
        curves = {name: trial.curve for name, trial in trials.items()}
        if found:
            base, own = reference, {reference: found[reference].best.curve}
        else:
            base, own = max(curves, key=lambda name: _worth(final(curves[name].score).mean())), {}
        comparison = compare(own | curves, base)
        found[contender.label] = Tuned(trials, choose(comparison, names), comparison)
    content = {label: {"seeds": config.seed_list} | _plain(tuned) for label, tuned in found.items()}
    record.write_text(out / RESULT, json.dumps(content, indent=2))
    return found


def _plain(tuned: Tuned) -> dict[str, Any]:
    """All trials of a method and the chosen one as plain data; misses are null."""

    def finite(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    trials = []
    for name, trial in tuned.trials.items():
        row = tuned.comparison.rows[name]
        cost = row.costs[0.90]
        to_90 = {"rounds": cost.rounds.value, "rounds_ratio": cost.rounds_ratio.value}
        to_90 |= {what: interval.value for what, interval in cost.spent.items()}
        trials.append(
            {
                "values": trial.values,
                "chosen": name == tuned.chosen,
                **finite({"final": row.final.value, "difference": row.difference.value}),
                "totals": row.totals,
                "to_90": finite(to_90),
            }
        )
    return {"chosen": to_dict(tuned.best.method), "trials": trials}


def read_trials(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every method's trials from the result of a tuning.

    Raises:
      RunError: it is damaged.
    """
    return {label: tuned["trials"] for label, tuned in _read(out).items()}


def read_budgets(out: Path) -> dict[str, dict[str, Any]]:
    """How every method was tuned, in the words of `lapg.comparison.report.budget_table`; the seeds are not known of results of older versions.

    Raises:
      RunError: it is damaged.
    """
    budgets: dict[str, dict[str, Any]] = {}
    for label, tuned in _read(out).items():
        trials = tuned["trials"]
        chosen = next(trial["values"] for trial in trials if trial["chosen"])
        budgets[label] = {"points": len(trials)}
        budgets[label] |= {"seeds": len(tuned["seeds"])} if "seeds" in tuned else {}
        budgets[label]["chosen"] = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
        if ends := at_an_end([trial["values"] for trial in trials], chosen):
            budgets[label]["note"] = f"chosen at an end: {', '.join(ends)}"
    return budgets


def _read(out: Path) -> dict[str, Any]:
    try:
        content = json.loads((out / RESULT).read_text(encoding="utf-8"))
        for tuned in content.values():
            if sum(trial["chosen"] for trial in tuned["trials"]) != 1:
                raise ValueError("one trial must be chosen")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise record.RunError(
            f"{out / RESULT} must be the result of a tuning, but cannot be read ({error})."
        ) from error
    return content


def at_an_end(points: Sequence[Mapping[str, float]], chosen: Mapping[str, float]) -> list[str]:
    """Numbers whose chosen value is the smallest or the largest of three or more, beyond which a better one may lie: 'period = 100 of (25, 50, 100)'."""
    found = []
    for name, value in chosen.items():
        values = sorted({point[name] for point in points})
        if len(values) > 2 and value in (values[0] or None, values[-1]):  # nothing lies below 0
            found.append(f"{name} = {value:g} of ({', '.join(f'{one:g}' for one in values)})")
    return found


def show(title: str, found: Mapping[str, Tuned], console: Console) -> None:
    """All trials on a terminal, the chosen ones marked."""
    columns = ["method and point", "final score [95 %]", "rounds to 90 %", "uploads to 90 %", "rounds / PG", "chosen"]
    table = Table(*columns, title=title)
    for tuned in found.values():
        for name in tuned.trials:
            row = tuned.comparison.rows[name]
            cost = row.costs[0.90]
            spent = [number(cost.rounds.value, 4), number(cost.uploads.value, 4), number(cost.rounds_ratio.value)]
            table.add_row(name, escape(interval(row.final)), *spent, "*" if name == tuned.chosen else "")
    console.print(table)
    for label, tuned in found.items():
        ends = at_an_end([trial.values for trial in tuned.trials.values()], tuned.best.values)
        note = f"; chosen at an end: {', '.join(ends)}" if ends else ""
        words = f"{label}: {', '.join(tuned.best.values)}; chosen step size {tuned.best.step_size:.3g}{note}"
        console.print(words, highlight=False, soft_wrap=True)


def tune_figure(
    figure: presets.Figure,
    out: Path,
    *,
    methods: Sequence[str] = (),
    seeds: int = NUM_SEEDS,
    rounds: int | None = None,
    console: Console,
) -> dict[str, Tuned]:
    """Tunes a ready-made experiment's methods, or PG and those named, into ``out``, and prints all trials."""
    labels = ["PG", *(label for label in methods or figure.tuned if label.lower() != "pg")]
    config = dataclasses.replace(
        presets.setting(figure), rounds=rounds or figure.rounds, seeds=seeds, first_seed=FIRST_SEED
    )
    contenders, step = presets.contenders(figure, labels)
    pace = config.rounds / figure.rounds
    contenders = [dataclasses.replace(one, grid=follow(one.grid, pace)) for one in contenders]
    found = tune(contenders, config, out, step=step, console=console)
    seed_list = config.seed_list
    show(
        f"{figure.name}, {config.rounds} rounds, seeds {seed_list[0]}-{seed_list[-1]}, PG's steps in units of {step:g}",
        found,
        console,
    )
    return found
