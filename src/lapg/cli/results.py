"""Commands that look at finished runs."""

from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from lapg.cli.terminal import Positional, console
from lapg.comparison.guide import guide as make_guide
from lapg.comparison.reproduce import CONTENTS, baselines_of, check_comparable, curves_of, summarise, summarise_curves
from lapg.comparison.study import CONTENTS as STUDY
from lapg.comparison.study import report_study
from lapg.costs.links import PROFILES
from lapg.experiments.evaluate import evaluate as evaluate_run
from lapg.experiments.evaluate import render as render_run
from lapg.experiments.run import load
from lapg.methods.registry import pick
from lapg.record import write_text
from lapg.runtimes import use_all_cores


def evaluate(run: Positional[Path], episodes: int = 100, seed: int = 0, trust: bool = False) -> None:
    """Measure a trained policy on fresh episodes, stochastic and greedy.

    For example:
      lapg evaluate runs/scout-20260101-120000 --episodes 500

    Args:
      run: directory of a run.
      episodes: per learner and trained seed.
      seed: of the fresh episodes.
      trust: run code from outside lapg that the run names.
    """
    use_all_cores()
    returns = evaluate_run(load(run, trust=trust), episodes, seed)
    table = Table("policy", "scaled return", "raw return", "raw discounted return", title=f"{run}, {episodes} episodes")
    for mode in returns["mode"].values:
        cells = []
        for name in ("return_scaled", "return_raw", "discounted_return_raw"):
            by_seed = returns[name].sel(mode=mode).mean("learner").values
            error = f" ± {by_seed.std(ddof=1) / np.sqrt(len(by_seed)):.3f}" if len(by_seed) > 1 else ""
            cells.append(f"{by_seed.mean():.3f}{error}")
        table.add_row(str(mode), *cells)
    console.print(table)
    several = returns.sizes["seed"] > 1
    console.print(
        "mean over learners" + (" and trained seeds ± standard error over seeds" if several else "; one trained seed")
    )


def report(
    runs: Positional[tuple[Path, ...]],
    reference: str | None = None,
    network: str | None = None,
    compute_seconds: float = 0.0,
    may_differ: tuple[Literal["batch_size", "estimator", "participation"], ...] = (),
    against: Literal["uploads", "bits", "uplink_bits", "downlink_bits", "steps", "seconds", "joules"] = "uploads",
    out: Path = Path("runs/report"),
) -> None:
    """Draw figures and tables again from records alone.

    For example:
      lapg report runs/compare/fig4                         (a study, again)
      lapg report runs/pg runs/scout --network lte-m --out runs/report

    Args:
      runs: directories of studies (`lapg compare`) or reproduced figures, each reported in place, or directories of runs to compare with each other,
        which may differ in their methods alone. A run by itself is measured against its own start and end.
      reference: which run is the reference of a comparison, by directory name; by default the one whose method is pg.
      network: adds time and energy on a network: lte-m, wifi-robot, wan, cluster, or a `lapg.costs.links.LinkModel` of your own as MODULE:NAME.
      compute_seconds: with a network: what a learner computes in each round before it uploads.
      may_differ: settings in which runs may differ nevertheless; the report names them.
      against: the cost that the picture shows the score against; steps are those of the environment.
      out: new directory for the report of a comparison of runs.
    """
    if not runs:
        raise ValueError("RUNS must name at least one directory: of a run, a study or a reproduced figure.")
    model = None if network is None else pick(network, PROFILES, "network")
    together = []
    for path in runs:
        if (path / STUDY).is_file():
            report_study(path, console, model, compute_seconds, against)
        elif (path / CONTENTS).is_file():
            summarise(path, console, network=model, compute_seconds=compute_seconds, against=against)
        else:
            together.append(path)
    if not together:
        return
    loaded = {path.name: load(path) for path in together}
    if len(loaded) < len(together):
        raise ValueError("runs must have directories of different names, by which the report distinguishes them.")
    differing = check_comparable(loaded, may_differ)
    alone = next(iter(loaded)) if len(loaded) == 1 else None
    dense = (name for name, run in loaded.items() if run.config.method == "pg")
    if reference is not None and reference not in loaded:
        having = [name for name, run in loaded.items() if run.config.method == reference]
        of = f", a method: of {' and '.join(having)}" if having else ""
        raise ValueError(f"--reference must name a run by its directory, {' or '.join(loaded)}, got {reference!r}{of}.")
    reference = reference or next(dense, alone)
    if reference is None:
        raise ValueError(
            "a comparison needs a run of pg among RUNS, or --reference NAME for what takes its place: "
            + ", ".join(loaded)
            + "."
        )
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"out={out} must be a new directory, but there is something in it; choose another name.")
    out.mkdir(parents=True, exist_ok=True)
    title = f"Comparison of runs that differ in {', '.join(differing)}" if differing else "Comparison"
    curves, baselines = curves_of(loaded, model, compute_seconds), baselines_of(loaded)
    summarise_curves(
        curves,
        out,
        console,
        title=title if alone is None else alone,
        claims={},
        reference=reference,
        baselines=[] if alone else baselines,
        against=against,
    )


def guide(
    studies: Positional[tuple[Path, ...]],
    network: tuple[str, ...] = tuple(PROFILES),
    compute_seconds: float = 0.0,
    out: Path | None = None,
) -> None:
    """Answer from finished studies which upload rule to deploy: the cheapest by uploads, bits, and time and energy on networks.

    For example:
      lapg guide runs/compare/fig4 --network lte-m wan --compute-seconds 0.05

    Args:
      studies: directories of `lapg compare`.
      network: lte-m, wifi-robot, wan, cluster, or `lapg.costs.links.LinkModel`s of your own as MODULE:NAME.
      compute_seconds: what a learner computes in each round before it uploads.
      out: also write the table to this file.
    """
    if not studies:
        raise ValueError("STUDIES must name at least one directory of `lapg compare`.")
    networks = {name: pick(name, PROFILES, "network") for name in network}
    text = make_guide(studies, networks, compute_seconds)
    if out is not None:
        write_text(out, text)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def render(
    run: Positional[Path],
    out: Path | None = None,
    seed: int | None = None,
    episode: int = 0,
    stochastic: bool = False,
    trust: bool = False,
) -> None:
    """Draw an episode under the learned policy as an animated GIF.

    For example:
      lapg render runs/scout-20260101-120000 --episode 3 --out episode.gif

    Args:
      run: directory of a run.
      out: new GIF file; RUN/episode-EPISODE.gif by default.
      seed: which trained seed; the first by default.
      episode: which fresh episode.
      stochastic: sample actions instead of taking the most probable ones.
      trust: run code from outside lapg that the run names.
    """
    use_all_cores()
    target = out or run / f"episode-{episode}.gif"
    drawn = render_run(load(run, trust=trust), target, seed=seed, episode=episode, stochastic=stochastic)
    console.print(f"drawn: {drawn}", soft_wrap=True)
