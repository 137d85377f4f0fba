"""Commands about the theory: whether it holds, and what it says about a run."""

import json as formats
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lapg.cli.terminal import Positional, console
from lapg.experiments.config import read_toml
from lapg.experiments.predict import predict as predict_run
from lapg.experiments.run import load
from lapg.runtimes import use_all_cores
from lapg.verification import Verification
from lapg.verification import verify as run_checks

GROUPS = {
    "statement": "Corrected statements: must hold",
    "printed": "As printed: must be violated",
    "repaired": "The same cases, corrected: must hold",
    "outside": "Outside the premises: must be violated",
    "shown": "Not promised, only shown",
}


def verify(problems: int = 200, seed: int = 0, json: bool = False, out: Path | None = None) -> None:
    """Check every statement of the paper's section 4 by running the code, and refute its misprints.

    Exit status 2 if a corrected statement is violated, or if a misprint or a case outside the premises is not.

    For example:
      lapg verify --problems 50 --out runs/verify           (tables, and verify.json with pictures)

    Args:
      problems: random problems of each family.
      seed: of the problems.
      json: print all rows for machines instead of tables.
      out: directory for verify.json and the figures.
    """
    use_all_cores()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=json or not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        found = run_checks(problems, seed, lambda part, name: bar.update(task, completed=part, description=name))
    if json:
        _write(found, None)
    else:
        _print(found)
    if out is not None:
        from lapg.verification.plots import draw

        for path in draw(found, out):
            if not json:
                console.print(f"drawn: {path}", soft_wrap=True)
        _write(found, out / "verify.json")
    wrong = [row for row in found.rows if not row.as_expected]
    if wrong:
        listed = "; ".join(f"{row.statement} ({row.where}): {row.status}" for row in wrong)
        raise ValueError(f"verify: {len(wrong)} of {len(found.rows)} rows did not come out as they must: {listed}.")


def _write(found: Verification, path: Path | None) -> None:
    text = formats.dumps(found.as_dict(), indent=2, ensure_ascii=False)
    if path is None:
        sys.stdout.write(text + "\n")
    else:
        path.write_text(text + "\n", encoding="utf-8")


def _print(found: Verification) -> None:
    for kind, title in GROUPS.items():
        table = Table("statement", "checks", "left", "right", "margin", "", title=title)
        notes = []
        for row in found.rows:
            if row.kind != kind:
                continue
            mark = ""
            if row.note:
                notes.append(row.note)
                mark = f" [{len(notes)}]"
            numbers = (f"{value:.3g}" for value in (row.left, row.right, row.margin))
            checks = f"{row.checks:,}" + (f"\n+ {row.vacuous:,} vacuous" if row.vacuous else "")
            status = row.status if row.as_expected else f"{row.status} (!)"
            table.add_row(f"{row.statement}{mark}\n  {row.where}", checks, *numbers, status)
        console.print(table)
        for number, note in enumerate(notes, 1):
            console.print(f"[{number}] {note}", markup=False, highlight=False, soft_wrap=True)
    console.print("Uploads of LAPG over PG's against M, L_m ∝ (1, …, 1, M²), window ∝ M:", highlight=False)
    for name, fit in found.fits.items():
        text = (
            f"  {name}: exponent {fit.slope:.3f} [{fit.low:.3f}, {fit.high:.3f}], M = {fit.sizes[0]} to {fit.sizes[-1]}"
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{found.problems} random problems of each family, {found.seconds:.0f} s. Left, right and margin (relative) at the tightest case.",
        highlight=False,
    )


def predict(
    source: Positional[Path], json: bool = False, batches: int = 16, seed: int = 0, trust: bool = False
) -> None:
    """Say what the theory and a few measured batches predict for an experiment.

    For example:
      lapg predict experiment.toml --batches 32

    Args:
      source: TOML file with settings, or the directory of a run.
      json: print for machines instead of a table.
      batches: per learner, to measure the noise.
      seed: of θ⁰ and of the batches.
      trust: run code from outside lapg that a run names; a file's is your own.
    """
    use_all_cores()
    run = load(source, trust=trust) if source.is_dir() else None
    found = predict_run(read_toml(source) if run is None else run.config, run, seed=seed, num_batches=batches)
    if json:
        plain = [vars(line) | {"value": _plain(line.value)} for line in found]
        sys.stdout.write(formats.dumps(plain, indent=2, ensure_ascii=False) + "\n")
        return
    table = Table("topic", "quantity", "value", "", "meaning", title=str(source))
    for line in found:
        table.add_row(line.topic, line.name, _words(line.value), line.certainty, line.meaning)
    console.print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    numbers = [each if np.isfinite(each) else None for each in np.ravel(value).tolist()]
    return numbers if np.ndim(value) else numbers[0]


def _words(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(f"{each:.4g}" for each in np.ravel(value))
