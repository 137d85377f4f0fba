"""A study: methods × problems × participation × seeds; every method is tuned by the protocol, then run, beside PG and the baselines."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from lapg import record
from lapg.comparison import export, presets, report
from lapg.comparison.curves import Curve
from lapg.comparison.grids import NUM_ROUNDS, SHARED, Contender, Grid, check_budgets, contender, follow, is_baseline
from lapg.comparison.presets import FIGURES, GROUPS, Entry
from lapg.comparison.reproduce import TUNING, check_names, play, summarise
from lapg.comparison.statistics import Comparison
from lapg.comparison.tune import FIRST_SEED, NUM_SEEDS, show, tune
from lapg.costs.links import LinkModel
from lapg.experiments.config import Config, from_dict
from lapg.experiments.fitting import fit

Options = Annotated[dict[str, Any], tyro.conf.Suppress]

CONTENTS = "study.json"
REFERENCE = "pg"
BASELINES = (REFERENCE, "periodic", "random")
"""Always there: dense PG, and schedules that look at nothing. The periodic one accumulates, so that it is also PG with larger batches."""


@dataclass(frozen=True)
class Study:
    """What is compared."""

    methods: tuple[str, ...] = ("scout",)
    """Methods (see `lapg list`), variants that have grids of their own (lapg-average), or MODULE:NAME; PG and the baselines are always there."""
    problem: tuple[str, ...] = ("fig4",)
    """Ready-made experiments (fig3 to fig7, all, parallel-cartpole-heterogeneous, ...), or tables [own_problem.NAME] of the file."""
    seeds: int = 10
    """Reported seeds, from 0."""
    rounds: int | None = None
    """K; default: the experiments' own."""
    tuning_seeds: int = NUM_SEEDS
    """Tuning seeds, from 1000, which are never reported."""
    participation: tuple[float, ...] = (1.0,)
    """Fractions of the learners that take part in a round; each makes a problem of its own."""
    own_method: Options = field(default_factory=dict)
    """Methods by labels of your own: TOML tables of a method and its parts as in a file of `lapg train`, and `grid` where the method's usual one does not fit."""
    own_problem: Options = field(default_factory=dict)
    """Problems by names of your own: TOML tables as the file of `lapg train`, without a method, and `step`: the step size about which PG's is sought."""

    def __post_init__(self) -> None:
        fit(self)
        for name in ("seeds", "tuning_seeds", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        for name in ("methods", "problem", "participation"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or not (values or self.own_method):
                raise ValueError(f"{name} must be different ones, at least one, got {', '.join(map(str, values))}.")


@dataclass(frozen=True)
class Case:
    """One problem of a study: the setting, the unit of PG's steps, and who competes."""

    name: str
    config: Config
    step: float
    contenders: tuple[Contender, ...]


def cases(study: Study) -> list[Case]:
    """The problems of a study, checked.

    Raises:
      ValueError: there is no such problem or method, or budgets are not equal.
    """
    found = []
    for name, config, step, momentum, make in _problems(study):
        contenders = tuple(one.under(momentum) for one in _contenders(study, make))
        check_budgets(contenders)
        for fraction in study.participation:
            full = name if fraction == 1 else f"{name}-{fraction:g}"
            found.append(Case(full, dataclasses.replace(config, participation=fraction), step, contenders))
    return found


def _problems(study: Study) -> Iterator[tuple[str, Config, float, float | None, Callable[[str], Contender]]]:
    """Name, setting, unit of PG's steps, momentum, and how a method becomes a contender: with grids that follow K."""
    for asked in study.problem:
        if asked in study.own_problem:
            table = dict(study.own_problem[asked])
            where = f"own_problem.{asked}"
            if not isinstance(table.get("step"), float) or "method" in table:
                raise ValueError(f"{where} must have step, a number with a decimal point, and no method; got {table}.")
            step, momentum, shared = table.pop("step"), table.pop("momentum", None), table.pop("shared", None)
            config = _long(from_dict(table, Config(), where), study.rounds)
            pace = config.rounds / NUM_ROUNDS
            shared = follow(SHARED, pace) if shared is None else _grid(shared)
            yield asked, config, step, momentum, functools.partial(contender, shared=shared, pace=pace)
            continue
        for name in GROUPS.get(asked, (asked,)):
            if name not in FIGURES:
                known = ", ".join([*FIGURES, *GROUPS, *study.own_problem])
                raise ValueError(f"problem must be one of {known}, or a table [own_problem.{name}], got {name!r}.")
            figure = FIGURES[name]
            _, step = presets.contenders(figure, [REFERENCE])
            config = _long(presets.setting(figure), study.rounds)
            pace = config.rounds / figure.rounds
            make = functools.partial(contender, shared=follow(figure.shared, pace), own=figure.grids, pace=pace)
            yield name, config, step, figure.momentum, make


def _long(config: Config, rounds: int | None) -> Config:
    return config if rounds is None else dataclasses.replace(config, rounds=rounds)


def _contenders(study: Study, make: Callable[[str], Contender]) -> list[Contender]:
    labels = dict.fromkeys([REFERENCE, *study.methods, *study.own_method, *BASELINES])
    found = [
        _own(label, study.own_method[label], make) if label in study.own_method else make(label) for label in labels
    ]
    return found + [make(label) for label in _more_controls(found) if label not in labels]


def _more_controls(found: list[Contender]) -> list[str]:
    """A baseline uses the memory of the method it accompanies: a running average, or steps of the learners' own."""
    rivals = [one.method.parts for one in found if not is_baseline(one.method)]
    averages = any(parts["memory"].name == "running_average" for parts in rivals)
    local = any(parts["local"].name == "sgd" for parts in rivals)
    return ["periodic-average"] * averages + ["periodic-local", "random-local"] * local


def _own(label: str, table: dict[str, Any], make: Callable[[str], Contender]) -> Contender:
    where = f"own_method.{label}"
    if not isinstance(table, dict) or "method" not in table:
        raise ValueError(f"{where} must be a table with method, a method's name, got {table}.")
    usual = make(table["method"])
    method = from_dict({name: value for name, value in table.items() if name != "grid"}, usual.method, where)
    grid = _grid(table["grid"]) if "grid" in table else usual.grid
    tuned = grid.keys() | {"optimiser.step_size"}
    if fixed := tuned & _names(table):
        raise ValueError(
            f"{where} fixes {', '.join(sorted(fixed))}, which is tuned; leave it out, or give a grid without it."
        )
    return Contender(label, method, grid)


def _names(table: Mapping[str, Any], where: str = "") -> set[str]:
    """The full names of all settings in a table."""
    found = set[str]()
    for name, value in table.items():
        found |= _names(value, f"{where}{name}.") if isinstance(value, Mapping) else {f"{where}{name}"}
    return found


def _grid(table: Mapping[str, Any], where: str = "") -> Grid:
    """A grid by full names, of a table in which these may be tables in tables."""
    grid: Grid = {}
    for name, value in table.items():
        grid |= _grid(value, f"{where}{name}.") if isinstance(value, Mapping) else {f"{where}{name}": tuple(value)}
    return grid


def run(study: Study, out: Path, *, console: Console, show_progress: bool = True) -> None:
    """Tunes, runs and reports a study below ``out``; finished sweeps and runs that are there already are kept, and methods may be added.

    Raises:
      ValueError: something in the study does not fit.
      RunError: ``out`` holds something else.
    """
    found = cases(study)
    for case in found:
        place = out / case.name
        labels = ", ".join(one.label for one in case.contenders)
        report.heading(f"{case.name}: {labels}", console)
        tuning = dataclasses.replace(case.config, seeds=study.tuning_seeds, first_seed=FIRST_SEED)
        tuned = tune(case.contenders, tuning, place / TUNING, step=case.step, console=console)
        show(f"{case.name}: tuning, {tuning.rounds} rounds, PG's steps in units of {case.step:g}", tuned, console)
        config = dataclasses.replace(case.config, seeds=study.seeds)
        entries = [Entry(label, config.playing(one.best.method)) for label, one in tuned.items()]
        play(entries, place, {"title": case.name, "reference": REFERENCE}, show_progress=show_progress)
    record.write_text(out / CONTENTS, json.dumps({"cases": [case.name for case in found]}, indent=2))
    report_study(out, console)


def report_study(
    out: Path,
    console: Console,
    network: LinkModel | None = None,
    compute_seconds: float = 0.0,
    against: str = "uploads",
) -> None:
    """Tables, pictures and exports of a finished study, from its records alone.

    Raises:
      RunError: it is not one, or damaged.
    """
    comparisons: dict[str, Comparison] = {}
    curves: dict[str, dict[str, Curve]] = {}
    for name in read_cases(out):
        comparisons[name], curves[name] = summarise(
            out / name, console, network=network, compute_seconds=compute_seconds, against=against
        )
    text = report.summary(comparisons)
    record.write_text(out / "summary.md", text)
    export.rliable(out / "rliable", comparisons, curves, REFERENCE)
    export.marl_eval(out / "marl_eval.json", curves)
    console.print(
        f"all problems: {out / 'summary.md'}   exports: {out / 'rliable'}, {out / 'marl_eval.json'}", soft_wrap=True
    )


def read_cases(out: Path) -> list[str]:
    """The problems of a study's directory.

    Raises:
      RunError: it is not one, or damaged.
    """
    try:
        cases = list(json.loads((out / CONTENTS).read_text(encoding="utf-8"))["cases"])
        check_names(cases)
        return cases
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise record.RunError(
            f"{out} must be the directory of a study, but its {CONTENTS} cannot be read ({error})."
        ) from error
