"""Reproducing a figure: run its line-up, entry by entry, then report from the records alone."""

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lapg import record
from lapg.comparison import plots, report, tune
from lapg.comparison.curves import Curve, start, to_curve
from lapg.comparison.grids import is_baseline, slug
from lapg.comparison.presets import RECOMMENDED, Entry, Preset, lineup, reproducible
from lapg.comparison.statistics import Comparison, compare
from lapg.costs.ledger import upload_fraction
from lapg.costs.links import LinkModel
from lapg.experiments.config import Config
from lapg.experiments.run import Run, load, read_config
from lapg.experiments.train import resume, train
from lapg.methods import Part
from lapg.record import RunError

CONTENTS = "comparison.json"
TUNING = "tuning"
"""Directory of the sweeps, beside those of the runs."""


def play(entries: Sequence[Entry], path: Path, about: dict[str, Any], *, show_progress: bool = True) -> None:
    """Runs the entries in order, each in its own directory below ``path``; finished ones are kept, unfinished ones go on, more may be added.

    Raises:
      RunError: ``path`` holds another line-up, or a run with other settings.
    """
    wanted = {"format": record.FORMAT, **about, "runs": {entry.label: slug(entry.label) for entry in entries}}
    file, found = path / CONTENTS, None
    if file.is_file():
        found = read_contents(path)
        taken = {name: wanted[name] for name in ("runs", "budgets") if name in wanted}  # may be added to
        if not found["runs"].items() <= wanted["runs"].items() or found | taken != wanted:
            raise RunError(
                f"out={path} holds another comparison than the one asked for; choose a new directory, or ask for the same one."
            )
    elif path.exists() and any(item.name != TUNING for item in record.contents(path)):
        raise RunError(
            f"out={path} must be a new directory or an unfinished comparison, but there is something else in it."
        )
    else:
        path.mkdir(parents=True, exist_ok=True)
    if found != wanted:
        record.write_text(file, json.dumps(wanted, indent=2))
    done: dict[str, Run] = {}
    for entry in entries:
        place, config = path / slug(entry.label), entry.config
        if entry.rate_of is not None:
            rate = float(upload_fraction(done[entry.rate_of].record["sent"].values).mean())
            config = config.but(trigger=Part(rate=rate))
        started = (place / "config.json").is_file()
        if started and (other := read_config(place)) != config:
            names = [name for name, value in vars(config).items() if getattr(other, name) != value]
            words = ", ".join(f"{name} = {getattr(other, name)}, not {getattr(config, name)}" for name in names)
            raise RunError(
                f"run={place} has other settings than those asked for: {words}; choose a new directory, or ask for the same ones."
            )
        done[entry.label] = (
            resume(place, show_progress=show_progress, trust=True)  # its settings are those asked for
            if started
            else train(config, place, show_progress=show_progress)
        )


def check_names(names: Iterable[Any]) -> None:
    """Refuses names from a file that are not those of entries of its own directory, so that nothing is read or written elsewhere.

    Raises:
      ValueError: one is not.
    """
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\]", name):
            raise ValueError(f"{name!r} is not the name of a directory in it")


def read_contents(path: Path) -> dict[str, Any]:
    """What a comparison's directory holds.

    Raises:
      RunError: it is not one, or damaged.
    """
    try:
        content = json.loads((path / CONTENTS).read_text(encoding="utf-8"))
        if not isinstance(content["runs"], dict):
            raise TypeError("runs must be a table")
        check_names(content["runs"].values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} must be the directory of a comparison, but its {CONTENTS} cannot be read ({error})."
        ) from error
    return content


def curves_of(
    runs: Mapping[str, Run], network: LinkModel | None = None, compute_seconds: float = 0.0
) -> dict[str, Curve]:
    """What the protocol needs of runs of one problem, with the costs that are known of all of them.

    Raises:
      ValueError: a run was never evaluated.
    """
    found = {label: to_curve(run.record, network, compute_seconds) for label, run in runs.items()}
    known = set.intersection(*(set(curve.costs) for curve in found.values()))
    return {
        label: dataclasses.replace(curve, costs={name: curve.costs[name] for name in curve.costs if name in known})
        for label, curve in found.items()
    }


COMPARABLE = (
    "problem",
    "smoothing",
    "policy",
    "rollout",
    "estimator",
    "batch_size",
    "participation",
    "rounds",
    "seeds",
    "first_seed",
    "evaluation",
)
"""Settings in which runs must agree to be compared."""


def check_comparable(runs: Mapping[str, Run], may_differ: Collection[str] = ()) -> list[str]:
    """Refuses to compare runs that differ in more than their methods.

    Args:
      may_differ: of `COMPARABLE`, what may differ nevertheless.
    Returns:
      What does, with the values: 'batch_size (10 in a, 20 in b)'.
    Raises:
      ValueError: two runs differ in something else, or do not start at the same parameters.
    """
    (first, base), *others = runs.items()
    found: dict[str, list[str]] = {name: [] for name in COMPARABLE}
    started = record.read_initial(base.path)
    for label, run in others:
        for name, words in found.items():
            words += _differences(name, first, _setting(base.config, name), label, _setting(run.config, name))
        initial = record.read_initial(run.path)
        if initial is not started and (initial is None or started is None or not np.array_equal(initial, started)):
            found.setdefault("init_from", []).append(f"init_from (the initial parameters of {first} and {label})")
    wrong = [words for name, each in found.items() if name not in may_differ for words in each]
    if wrong:
        raise ValueError(
            f"runs must differ in their methods alone to be compared, got other differences: {'; '.join(wrong)}; "
            "compare runs of one setting, or name what may differ with --may-differ (batch_size, estimator, participation)."
        )
    return [words for each in found.values() for words in each]


def _setting(config: Config, name: str) -> Any:
    """A setting; that of evaluation as it works out, whether it was given or left out."""
    if name != "evaluation":
        return getattr(config, name)
    return dataclasses.replace(config.evaluation, every=config.scoring.every)


def _differences(name: str, first: str, one: Any, second: str, other: Any) -> list[str]:
    """Settings that are not equal, with both values; those of parts one by one."""
    if one == other:
        return []
    if isinstance(one, Part) and isinstance(other, Part) and one.name == other.name:
        return [
            words
            for option in dict.fromkeys([*one.options, *other.options])
            for words in _differences(
                f"{name}.{option}", first, one.options.get(option), second, other.options.get(option)
            )
        ]
    if dataclasses.is_dataclass(one) and not isinstance(one, Part) and type(one) is type(other):
        return [
            words
            for item in dataclasses.fields(one)
            for words in _differences(
                f"{name}.{item.name}", first, getattr(one, item.name), second, getattr(other, item.name)
            )
        ]
    return [f"{name} ({one!r} in {first}, {other!r} in {second})"]


def baselines_of(runs: Mapping[str, Run]) -> list[str]:
    """Labels of the runs whose methods upload by a schedule."""
    return [label for label, run in runs.items() if is_baseline(run.config)]


def summarise(
    path: Path,
    console: Console,
    *,
    network: LinkModel | None = None,
    compute_seconds: float = 0.0,
    against: str = "uploads",
) -> tuple[Comparison, dict[str, Curve]]:
    """Draws pictures and tables of a comparison from its records, into its directory and onto the terminal; a network adds time and energy."""
    content = read_contents(path)
    runs = {label: load(path / place) for label, place in content["runs"].items()}
    curves = curves_of(runs, network, compute_seconds)
    title, reference = content.get("title", path.name), content.get("reference", "PG")
    swept = (path / TUNING / tune.RESULT).is_file()
    comparison = summarise_curves(
        curves,
        path,
        console,
        title=title,
        claims=content.get("claims", {}),
        reference=reference,
        baselines=baselines_of(runs),
        budgets=tune.read_budgets(path / TUNING) if swept else content.get("budgets"),
        against=against,
    )
    if swept:
        plots.frontier(title, curves, tune.read_trials(path / TUNING), path / "frontier.png")
        console.print(f"all trials: {path / 'frontier.png'}", soft_wrap=True)
    return comparison, curves


def summarise_curves(
    curves: dict[str, Curve],
    path: Path,
    console: Console,
    *,
    title: str,
    claims: Mapping[str, str | None],
    reference: str = "PG",
    baselines: Sequence[str] = (),
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
    against: str = "uploads",
) -> Comparison:
    """The same for any curves that share seeds and rounds; ``against`` is the cost on the picture's axis (`lapg.comparison.plots.AXES`)."""
    plots.check_axis(against, curves)
    comparison = compare(curves, reference, baselines)
    found = report.verdicts(comparison, claims)
    begin = float(start(curves[reference].score.mean(0)))
    target = begin + 0.9 * (comparison.rows[reference].final.value - begin)
    plots.draw(title, curves, target, path / "figure.png", reference, against)
    record.write_text(path / "report.md", report.markdown(title, comparison, found, curves, budgets))
    report.write_json(path / "report.json", comparison, found, budgets)
    report.show(title, comparison, found, console, budgets)
    console.print(f"picture: {path / 'figure.png'}   report: {path / 'report.md'}", soft_wrap=True)
    return comparison


def reproduce(
    names: Sequence[str],
    presets: Sequence[Preset],
    out: Path,
    *,
    seeds: int | None = None,
    first_seed: int | None = None,
    rounds: int | None = None,
    console: Console,
    show_progress: bool = True,
) -> None:
    """Reproduces figures with presets into ``out``/FIGURE-PRESET; resumes where an earlier call was interrupted."""
    comparisons = {}
    for name in names:
        for preset in presets:
            figure, place = reproducible()[name], out / f"{name}-{preset}"
            entries = lineup(figure, preset, seeds=seeds, first_seed=first_seed, rounds=rounds)
            claims = {
                entry.label: figure.claim for entry in entries if "LAPG" in entry.label or entry.label == RECOMMENDED
            }
            title = f"{figure.title}, preset {preset}"
            report.heading(title, console)
            about: dict[str, Any] = {"title": title, "claims": claims}
            if figure.reference != "PG":
                about["reference"] = figure.reference
            play(entries, place, about, show_progress=show_progress)
            comparisons[name, preset], _ = summarise(place, console)
    for preset in presets:
        if ("fig3", preset) in comparisons and ("fig4", preset) in comparisons:
            plain, momentum = (comparisons[name, preset].rows for name in ("fig3", "fig4"))
            found = [
                report.momentum_verdict(
                    plain[label].costs[0.90].uploads_saving, momentum[label].costs[0.90].uploads_saving, label
                )
                for label in ("LAPG", RECOMMENDED)
                if label in plain and label in momentum
            ]
            report.show_verdicts(found, console)
