"""Commands about the parts: what there is, and whether one's own fits."""

import re
from typing import Literal

from rich.table import Column, Table

from lapg.cli.check import print_checks
from lapg.cli.terminal import Positional, console
from lapg.comparison import presets
from lapg.experiments.build import build_problem
from lapg.experiments.config import Config
from lapg.methods import REGISTRY, Part, Preset
from lapg.methods.parts import merged
from lapg.methods.signatures import summary
from lapg.problems.check import check_problem
from lapg.runtimes import use_all_cores

EnvKind = Literal["gymnasium", "pettingzoo", "gymnax", "jaxmarl"]


def check_env(
    factory: Positional[str],
    episodes: int = 3,
    seed: int = 0,
    loss_bounds: tuple[float, float] | None = None,
    env_kind: EnvKind | None = None,
    num_steps: int | None = None,
) -> None:
    """Check your own problem: shapes, types, finiteness, repeatability, compilation, what happens after the end of an episode.

    Every check that fails is one line that says what to mend; exit status 2 then.

    For example:
      lapg check-env thermostat:rooms
      lapg check-env CartPole-v1 --episodes 5
      lapg check-env Pendulum-v1 --env-kind gymnax
      lapg check-env mine:Env --env-kind gymnasium --num-steps 200

    Args:
      factory: MODULE:FACTORY of a function that needs no arguments and returns a `lapg.types.Problem`; a built-in problem by name; or an environment:
        an id of Gymnasium (CartPole-v1, package:Env-v0), a module of PettingZoo (mpe2.simple_spread_v3), or with env-kind any that its adapter takes.
      episodes: per learner; they are played twice.
      seed: of the parameters and of the episodes.
      loss_bounds: two numbers between which raw losses are meant to lie; by default only that they are finite.
      env-kind: whose environment it is.
      num-steps: T, the most steps of an episode; by default the environment's own limit.
    """
    use_all_cores()
    length = {} if num_steps is None else {"num_steps": num_steps}
    try:
        problem = build_problem(Config(problem=merged(_problem(factory, env_kind), Part(**length))))
    except ValueError as error:
        if length or "num_steps must be given" not in str(error):
            raise
        raise ValueError(
            f"--num-steps must be given for {factory!r}, which sets no limit of its own: the most steps of an episode."
        ) from error
    print_checks(factory, check_problem(problem, num=episodes, seed=seed, loss_bounds=loss_bounds))


def _problem(name: str, kind: EnvKind | None) -> Part:
    """The problem that a name stands for."""
    if kind is None and name not in REGISTRY["problem"]:
        if re.search(r"-v\d+$", name):
            kind = "gymnasium"
        elif ":" not in name and re.search(r"\._*\w*_v\d+$", name):
            kind = "pettingzoo"
    return Part(name) if kind is None else Part(kind, env=name)


def list_parts() -> None:
    """List the built-in parts by kind, methods among them, and figures and presets.

    For example:
      lapg list
      lapg list | grep trigger
    """
    table = Table(Column("part", no_wrap=True), Column("name", no_wrap=True), "what it is")
    for kind, parts in REGISTRY.items():
        for name, part in parts.items():
            table.add_row(kind, name, part.about if isinstance(part, Preset) else summary(part))
    for name, figure in presets.reproducible().items():
        table.add_row("figure", name, figure.title)
    for name, text in presets.PRESET_TEXTS.items():
        table.add_row("preset", name, text)
    console.print(table)
    console.print(
        "A part of your own goes by MODULE:NAME wherever a built-in name can stand; lapg train --trigger.name periodic --help shows a part's options."
    )
