"""Commands that reproduce and tune ready-made experiments."""

from pathlib import Path
from typing import Literal

from lapg.cli.terminal import Positional, console
from lapg.comparison import presets
from lapg.comparison import tune as tuning
from lapg.comparison.reproduce import reproduce as reproduce_figures
from lapg.runtimes import use_all_cores

FigureName = Literal[
    "fig3",
    "fig4",
    "fig5",
    "fig6",
    "fig7",
    "all",
    "parallel-cartpole",
    "parallel-pendulum",
    "parallel-lqr",
    "scales-apart",
]
"""Experiments with grids of their own, which can be tuned."""

Reproducible = Literal[
    FigureName, "ppo-cartpole", "ppo-acrobot", "ppo-minatar", "ppo-spread", "ppo-hopper", "ppo-halfcheetah"
]
"""Experiments with a ready-made line-up."""


def reproduce(
    figure: Positional[Reproducible],
    preset: tuple[presets.Preset, ...] = ("recommended",),
    seeds: int | None = None,
    first_seed: int | None = None,
    rounds: int | None = None,
    out: Path = Path("runs/reproduce"),
) -> None:
    """Reproduce a figure of the paper, or an experiment like it: train its line-up, draw the picture, print the table and the verdicts.

    Results go to OUT/FIGURE-PRESET. Calling again continues where an earlier call stopped; finished runs are kept and only reported.

    For example:
      lapg reproduce fig4
      lapg reproduce fig4 --preset literal paper --seeds 3 --rounds 500

    Args:
      figure: fig3 to fig7, or all; or a problem of parallel RL, with learners that are alike and with ones that differ; ppo-... with PPO.
      preset: literal (the equations word by word), paper (what the paper most plausibly ran) or recommended; several may be given.
      seeds: Monte Carlo runs; 10 by default.
      first_seed: the first of them; by default 30, or 40 where 30 to 39 have been looked at: those below were, while settings were chosen.
      rounds: K; by default enough by the protocol.
      out: directory for the results.
    """
    use_all_cores()
    reproduce_figures(
        presets.names_of(figure), preset, out, seeds=seeds, first_seed=first_seed, rounds=rounds, console=console
    )


def tune(
    figure: Positional[FigureName],
    methods: tuple[str, ...] = (),
    seeds: int = tuning.NUM_SEEDS,
    rounds: int | None = None,
    out: Path = Path("runs/tune"),
) -> None:
    """Tune the methods of a ready-made experiment: equal budgets, seeds 1000-1004, which are never reported.

    All trials, and the methods chosen among them, go to OUT/FIGURE and onto the terminal. Calling again continues where an earlier call stopped.

    For example:
      lapg tune fig4 --methods scout lapg

    Args:
      figure: fig3 to fig7, or all; or a problem of parallel RL, with learners that are alike and with ones that differ.
      methods: those to tune beside PG; the experiment's own by default.
      seeds: how many, from 1000.
      rounds: K; as reported by default.
      out: directory for the results.
    """
    use_all_cores()
    for name in presets.names_of(figure):
        tuning.tune_figure(
            presets.FIGURES[name], out / name, methods=methods, seeds=seeds, rounds=rounds, console=console
        )
