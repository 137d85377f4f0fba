"""Commands about the parts: what there is, and whether one's own fits."""

from rich.table import Table

from lapg.cli.terminal import Positional, console
from lapg.experiments import figures
from lapg.experiments.build import ESTIMATORS, PROBLEMS, build_problem
from lapg.experiments.config import ProblemConfig
from lapg.methods import METHODS
from lapg.problems.check import check_problem


def check_env(
    factory: Positional[str],
    episodes: int = 3,
    seed: int = 0,
    loss_bounds: tuple[float, float] | None = None,
) -> None:
    """Check your own problem: shapes, types, finiteness, repeatability, compilation, what happens after the end of an episode.

    Every check that fails is one line that says what to mend; exit status 2 then.

    Args:
      factory: MODULE:FACTORY of a function that needs no arguments and returns a `lapg.types.Problem`, or a built-in problem by name.
      episodes: per learner; they are played twice.
      seed: of the parameters and of the episodes.
      loss_bounds: two numbers between which raw losses are meant to lie; only finite ones unless told.
    """
    problem = build_problem(ProblemConfig(factory))
    findings = check_problem(problem, num=episodes, seed=seed, loss_bounds=loss_bounds)
    for finding in findings:
        console.print(str(finding), soft_wrap=True, highlight=False, markup=False)
    failed = sum(not finding.passed for finding in findings)
    if failed:
        raise ValueError(
            f"{factory} failed {failed} of {len(findings)} checks; what rests on a failed one was not checked."
        )


def list_parts() -> None:
    """List the built-in problems, estimators, methods, figures and presets."""
    groups = {"problem": PROBLEMS, "estimator": ESTIMATORS, "method": METHODS}
    table = Table("part", "name", "what it is")
    for kind, parts in groups.items():
        for name, factory in parts.items():
            table.add_row(kind, name, (factory.__doc__ or "").strip().splitlines()[0])
    for name, figure in figures.FIGURES.items():
        table.add_row("figure", name, figure.title)
    for name, text in figures.PRESET_TEXTS.items():
        table.add_row("preset", name, text)
    console.print(table)
    console.print(
        "Your own problem, estimator, method or optimiser goes by MODULE:NAME wherever a built-in name can stand."
    )
