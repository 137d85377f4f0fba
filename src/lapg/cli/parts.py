"""Commands about the parts: what there is, and whether one's own fits."""

import inspect
import re
from collections.abc import Mapping
from typing import Any, Literal

from rich.table import Table

from lapg.cli.check import print_checks
from lapg.cli.terminal import Positional, console
from lapg.experiments import figures
from lapg.experiments.build import build_problem
from lapg.experiments.config import ProblemConfig
from lapg.experiments.names import ESTIMATORS, OPTIMISERS, POLICIES, PROBLEMS, ROLLOUTS
from lapg.methods import METHODS
from lapg.problems.check import check_problem
from lapg.runtimes import use_all_cores
from lapg.uplink import compressors, memories, triggers

EnvKind = Literal["gymnasium", "pettingzoo", "gymnax", "jaxmarl"]
MEMORIES = {
    "fresh": memories.fresh,
    "lagged": memories.lagged,
    "average": memories.running_average,
    "accumulate": memories.accumulator,
}
COMPRESSORS = {
    "none": compressors.identity,
    "top_k": compressors.top_k,
    "quantise": compressors.quantise,
    "qsgd": compressors.qsgd,
    "sign": compressors.sign,
}
"""As `lapg.methods.make_memory` and `lapg.methods.make_compressor` name them."""


def check_env(
    factory: Positional[str],
    episodes: int = 3,
    seed: int = 0,
    loss_bounds: tuple[float, float] | None = None,
    env_kind: EnvKind | None = None,
) -> None:
    """Check your own problem: shapes, types, finiteness, repeatability, compilation, what happens after the end of an episode.

    Every check that fails is one line that says what to mend; exit status 2 then.

    Args:
      factory: MODULE:FACTORY of a function that needs no arguments and returns a `lapg.types.Problem`; a built-in problem by name; or an environment:
        an id of Gymnasium (CartPole-v1, package:Env-v0), a module of PettingZoo (mpe2.simple_spread_v3), or with env-kind any that its adapter takes.
      episodes: per learner; they are played twice.
      seed: of the parameters and of the episodes.
      loss_bounds: two numbers between which raw losses are meant to lie; only finite ones unless told.
      env-kind: whose environment it is.
    """
    use_all_cores()
    problem = build_problem(_problem(factory, env_kind))
    print_checks(factory, check_problem(problem, num=episodes, seed=seed, loss_bounds=loss_bounds))


def _problem(name: str, kind: EnvKind | None) -> ProblemConfig:
    """The problem that a name stands for."""
    if kind is None and name not in PROBLEMS:
        if re.search(r"-v\d+$", name):
            kind = "gymnasium"
        elif ":" not in name and re.search(r"\._*\w*_v\d+$", name):
            kind = "pettingzoo"
    return ProblemConfig(name) if kind is None else ProblemConfig(kind, env=name)


def list_parts() -> None:
    """List the built-in problems, policies, rollouts, estimators, methods and what they are made of, figures and presets."""
    groups: dict[str, Mapping[str, Any]] = {
        "problem": PROBLEMS,
        "policy": POLICIES,
        "rollout": ROLLOUTS,
        "estimator": ESTIMATORS,
        "method": METHODS,
        "memory": MEMORIES,
        "trigger": {name: part for name in triggers.__all__ if inspect.isfunction(part := getattr(triggers, name))},
        "compressor": COMPRESSORS,
    }
    table = Table("part", "name", "what it is")
    for kind, parts in groups.items():
        for name, factory in parts.items():
            table.add_row(kind, name, (factory.__doc__ or "").strip().partition("\n")[0])
    for name, figure in figures.FIGURES.items():
        table.add_row("figure", name, figure.title)
    for name, text in figures.PRESET_TEXTS.items():
        table.add_row("preset", name, text)
    console.print(table)
    console.print(f"optimisers: {', '.join(OPTIMISERS)}", highlight=False)
    console.print(
        "Your own problem, policy, estimator, method or optimiser goes by MODULE:NAME wherever a built-in name can stand."
    )
