"""Tuning by the protocol: equal budgets (a step size and at most two numbers), seeds that are never reported."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from lapg import record
from lapg.comparison import presets
from lapg.comparison.curves import COSTS, Curve, final, running_costs
from lapg.comparison.grids import Contender, at, check_budgets, follow, slug
from lapg.comparison.report import ROUNDS_TOLERANCE
from lapg.comparison.statistics import MARGIN, Comparison, compare
from lapg.comparison.tables import interval, number
from lapg.costs import ledger
from lapg.costs.links import Traffic
from lapg.experiments.build import build
from lapg.experiments.config import Choice, Config, to_dict
from lapg.experiments.size import check_size
from lapg.runtimes import runtime_of
from lapg.runtimes.evaluation import Evaluation

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


def sweep(config: Config, methods: Sequence[Choice], *, console: Console, label: str) -> xr.Dataset:
    """Plays methods that differ in numbers alone side by side: lanes are (point, seed), compiled once.

    Returns:
      Score (mean over learners), uploads, bits and steps so far with dims (point, seed, round); upload rates by learner.
    Raises:
      ValueError: θ^k is not to be scored.
    """
    if not config.evaluation.every:
        raise ValueError("evaluation.every must be >= 1 to tune methods, which are chosen by their scores, got 0.")
    built = [build(config.playing(method)) for method in methods]
    check_size(config, built[0], len(methods) * config.seeds)
    num_points, seeds, dtype = len(methods), config.seed_list, np.asarray(jnp.zeros(())).dtype
    hypers = {name: np.repeat(np.array([b.hyper[name] for b in built], dtype), len(seeds)) for name in built[0].hyper}
    runtime = runtime_of(built[0].problem)
    options = {"chunk_rounds": config.chunk_rounds, "evaluation": Evaluation(**vars(config.evaluation))}
    lanes = runtime(built[0].recipe, built[0].problem, hypers, seeds * num_points, **options)
    state, logs = lanes.start(), []
    for first in track(range(0, config.rounds, config.chunk_rounds), f"{label}: {num_points} points", console=console):
        state, log = lanes.advance(state, first, config.rounds)
        scores = (log.scores["score_scaled"].mean(-1), log.scores["score_raw"].mean(-1), log.training_steps)
        went = log.participated, log.downlink_bits, log.sent
        contacted, answered = ledger.messages(*went, heartbeat=config.heartbeat)
        logs.append((*scores, log.uplink_bits, log.sent, log.downlink_bits, contacted, answered, log.participated))
    score, raw_score, steps, *messages = (np.concatenate(parts, 1) for parts in zip(*logs, strict=True))
    fields = {"score": score, "raw_score": raw_score} | running_costs(Traffic(*messages), steps=steps)
    dims, shape = ("point", "seed", "round"), (num_points, len(seeds))
    variables: dict[str, Any] = {name: (dims, value.reshape(*shape, -1)) for name, value in fields.items()}
    rates = ledger.upload_fraction(messages[1])
    variables["evaluated"] = "round", Evaluation(**vars(config.evaluation)).is_due(np.arange(config.rounds))
    variables["upload_rate"] = ("point", "seed", "learner"), rates.reshape(*shape, -1)
    return xr.Dataset(variables, {"seed": seeds})


def _curve(point: xr.Dataset) -> Curve:
    evaluated = np.flatnonzero(point["evaluated"].values)
    return Curve(
        score=point["score"].values[:, evaluated].astype(float),
        raw_score=point["raw_score"].values[:, evaluated].astype(float),
        costs={str(name): point[name].values for name in point if name in COSTS},
        upload_rates=point["upload_rate"].values.mean(0),
        noise_to_signal=np.full(point.sizes["round"], np.nan),
        evaluated=evaluated,
    )


def sweep_curves(config: Config, methods: Sequence[Choice], file: Path, *, console: Console, label: str) -> list[Curve]:
    """A sweep's curves, one for each method: from its file, or played and saved there.

    Raises:
      RunError: the file holds another sweep.
    """
    asked = json.dumps([to_dict(config.playing(method)) for method in methods])
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        played = sweep(config, methods, console=console, label=label)
        record.write_dataset(file, played.assign_attrs(asked=asked))
    data = record.read_dataset(file)
    if data.attrs.get("asked") != asked:
        raise record.RunError(
            f"{file} holds another sweep than the one asked for; choose a new directory, or ask for the same one."
        )
    return [_curve(data.isel(point=index)) for index in range(len(methods))]


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
