"""The command line: parses, calls the experiments, prints; nothing else."""

import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from lapg.experiments import figures
from lapg.experiments import tune as tuning
from lapg.experiments.config import ESTIMATORS, PROBLEMS, Config, ProblemConfig, build_problem, read_toml
from lapg.experiments.evaluate import evaluate as evaluate_run
from lapg.experiments.evaluate import render as render_run
from lapg.experiments.reproduce import CONTENTS, summarise, summarise_runs
from lapg.experiments.reproduce import reproduce as reproduce_figures
from lapg.experiments.run import Interrupted, Watcher, default_out, load
from lapg.experiments.run import resume as resume_run
from lapg.experiments.run import train as train_run
from lapg.methods import METHODS
from lapg.problems.check import check_problem
from lapg.runtimes import use_all_cores

FigureName = Literal[
    "fig3", "fig4", "fig5", "fig6", "fig7", "all", "parallel-cartpole", "parallel-pendulum", "parallel-lqr"
]
Positional = tyro.conf.Positional
console = Console()


def _chosen(figure: FigureName) -> tuple[str, ...]:
    return figures.GROUPS.get(figure, (figure,))


def reproduce(
    figure: Positional[FigureName],
    preset: tuple[figures.Preset, ...] = ("recommended",),
    seeds: int | None = None,
    rounds: int | None = None,
    out: Path = Path("runs/reproduce"),
) -> None:
    """Reproduce a figure of the paper, or an experiment like it: train its line-up, draw the picture, print the table and the verdicts.

    Results go to OUT/FIGURE-PRESET. Calling again continues where an earlier call stopped; finished runs are kept and only reported.

    Args:
      figure: fig3 to fig7, or all; or a problem of parallel RL, with learners that are alike and with ones that differ.
      preset: literal (the equations word by word), paper (what the paper most plausibly ran) or recommended; several may be given.
      seeds: Monte Carlo runs; 10 unless told.
      rounds: K; enough by the protocol unless told.
      out: directory for the results.
    """
    use_all_cores()
    reproduce_figures(_chosen(figure), preset, out, seeds=seeds, rounds=rounds, console=console)


def tune(figure: Positional[FigureName], preset: figures.Preset = "recommended", rounds: int | None = None) -> None:
    """Print the tuning sweeps behind a preset: every method, equal budgets, seeds 1000-1004.

    Args:
      figure: fig3 to fig7, or all.
      preset: whose estimator and methods are tuned.
      rounds: K; as reported unless told.
    """
    use_all_cores()
    for name in _chosen(figure):
        tuning.tune(figures.FIGURES[name], preset, rounds=rounds, console=console)


def _train(default: Config) -> Callable[..., None]:
    def train(
        settings: Annotated[Config, tyro.conf.arg(name="")] = default,
        config: Path | None = None,
        out: Path | None = None,
        resume: Path | None = None,
        init_from: Path | None = None,
        tensorboard: bool = False,
    ) -> None:
        """Train one method on one problem over several seeds.

        For example:
          lapg train --method.name lapg --method.noise-weight 1 --problem.scales 1 0.5 --rounds 2000
          lapg train --config experiment.toml --seeds 20        (what the file says, with more seeds)
          lapg train --resume runs/lapg-20260101-120000

        Args:
          settings: the experiment.
          config: TOML file with settings; flags override it.
          out: new directory for the run; runs/METHOD-DATE-TIME unless told.
          resume: directory of an interrupted run to finish; everything else is taken from there.
          init_from: run whose final parameters this one starts from.
          tensorboard: also write scalars to OUT/tensorboard (extra `tensorboard`).
        """
        target = resume or out or default_out(settings)
        watchers: tuple[Watcher, ...] = ()
        if tensorboard:
            from lapg.experiments.tensorboard import tensorboard as board

            watchers = (board(target / "tensorboard"),)
        if resume is not None:
            if settings != default or out or init_from or config:
                raise ValueError("--resume takes all settings from the run; leave the other options out.")
            run = resume_run(resume, watchers=watchers)
        else:
            source = None if init_from is None else load(init_from)
            run = train_run(settings, target, init_from=source, watchers=watchers)
        last = run.record.isel(round=slice(-max(1, run.config.rounds // 20), None))
        console.print(
            f"score {float(last['score_scaled'].mean()):.4f} (last 5 % of the rounds)   "
            f"uploads {int(run.record['sent'].sum(('round', 'learner')).mean())} of {run.config.rounds * run.record.sizes['learner']} a seed   "
            f"run: {run.path}",
            soft_wrap=True,
        )

    return train


def evaluate(run: Positional[Path], episodes: int = 100, seed: int = 0) -> None:
    """Measure a trained policy on fresh episodes, stochastic and greedy.

    Args:
      run: directory of a run.
      episodes: per learner and trained seed.
      seed: of the fresh episodes.
    """
    returns = evaluate_run(load(run), episodes, seed)
    table = Table("policy", "scaled return", "raw return", "raw discounted return", title=f"{run}, {episodes} episodes")
    for mode in returns["mode"].values:
        cells = []
        for name in ("return_scaled", "return_raw", "discounted_return_raw"):
            by_seed = returns[name].sel(mode=mode).mean("learner").values
            error = by_seed.std(ddof=1) / np.sqrt(len(by_seed)) if len(by_seed) > 1 else float("nan")
            cells.append(f"{by_seed.mean():.3f} ± {error:.3f}")
        table.add_row(str(mode), *cells)
    console.print(table)
    console.print("mean over learners and trained seeds ± standard error over seeds")


def report(runs: Positional[tuple[Path, ...]], reference: str | None = None, out: Path = Path("runs/report")) -> None:
    """Draw figures and tables again from records alone.

    Args:
      runs: directories of reproduced figures (each reported in place), or directories of runs to compare with each other.
      reference: which run is the reference of a comparison, by directory name; the one whose method is pg unless told.
      out: new directory for the report of a comparison of runs.
    """
    together = [path for path in runs if not (path / CONTENTS).is_file()]
    for path in runs:
        if path not in together:
            summarise(path, console)
    if not together:
        return
    loaded = {path.name: load(path) for path in together}
    if len(loaded) < len(together):
        raise ValueError("runs must have directories of different names, so that the report can tell them apart.")
    reference = reference or next((name for name, run in loaded.items() if run.config.method.name == "pg"), None)
    if reference not in loaded:
        raise ValueError(
            "a comparison needs a run of pg among RUNS, or --reference NAME, one of " + ", ".join(loaded) + "."
        )
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"out={out} must be a new directory, but there is something in it; choose another name.")
    out.mkdir(parents=True, exist_ok=True)
    summarise_runs(loaded, out, console, title="Comparison", claims={}, reference=reference)


def render(
    run: Positional[Path], out: Path | None = None, seed: int | None = None, episode: int = 0, stochastic: bool = False
) -> None:
    """Draw an episode under the learned policy as an animated GIF.

    Args:
      run: directory of a run.
      out: new GIF file; RUN/episode-EPISODE.gif unless told.
      seed: which trained seed; the first unless told.
      episode: which fresh episode.
      stochastic: sample actions instead of taking the most probable ones.
    """
    target = out or run / f"episode-{episode}.gif"
    console.print(
        f"drawn: {render_run(load(run), target, seed=seed, episode=episode, stochastic=stochastic)}", soft_wrap=True
    )


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


def _config_file(arguments: Sequence[str]) -> Config:
    """The settings of `train`'s TOML file, so that flags override them."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    try:
        found = parser.parse_known_args(arguments)[0].config
    except ArgumentError:  # --config without a file; the real parser says so
        return Config()
    return read_toml(found) if found is not None else Config()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit status: 0 done, 1 the disk failed, 2 bad input, 130 interrupted with everything saved."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        default = _config_file(arguments) if arguments[:1] == ["train"] else Config()
        commands: dict[str, Callable[..., Any]] = {
            "reproduce": reproduce,
            "train": _train(default),
            "evaluate": evaluate,
            "report": report,
            "render": render,
            "tune": tune,
            "check-env": check_env,
            "list": list_parts,
        }
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="lapg",
            description="Communication-efficient distributed reinforcement learning.",
            args=arguments,
        )
    except Interrupted as stop:
        again = "the same command" if arguments[0] == "reproduce" else f"lapg train --resume {stop.path}"
        _fail(f"{stop}; continue with {again}", 130)
    except KeyboardInterrupt:
        _fail("stopped; everything up to the last checkpoint is saved", 130)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror or error}; free some space or choose another --out.", 1)
    except ValueError as error:
        _fail(str(error), 2)


def _fail(message: str, status: int) -> None:
    print(f"lapg: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
