"""Pictures of a comparison."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lapg.experiments.curves import WINDOW, Curve, trailing_mean

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 130,
}
NOISE_SHOWN = 2000.0
"""Beyond it the signal cannot be told from zero and the ratio means nothing."""
COLOURS = {
    "pg": "#222222",
    "lapg": "#1f77b4",
    "lapg-average": "#17a2b8",
    "scout": "#d62728",
    "awapg": "#ff9896",
    "periodic": "#2ca02c",
    "periodic-local": "#006400",
    "periodic-average": "#98df8a",
    "random": "#9467bd",
}
OTHER_COLOURS = ("#ff7f0e", "#8c564b", "#e377c2", "#bcbd22", "#7f7f7f", "#aec7e8", "#c5b0d5", "#c49c94")


def matplotlib() -> Any:
    """Imports matplotlib, which nothing but a drawing needs, with its figures; these go to files without a backend.

    MPLBACKEND is about windows and notebooks. Where it names a backend that is not installed here (a notebook's, handed down to its shell), the import
    itself would fail; it keeps its say otherwise.
    """
    first, backend = "matplotlib" not in sys.modules, os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.animation
        import matplotlib.figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if first and backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


def _colours(labels: Sequence[str]) -> dict[str, str]:
    """One colour for each label; known methods keep theirs in every picture."""
    names = {label: label.lower().replace(" ", "-") for label in labels}
    others = iter(OTHER_COLOURS * (1 + len(labels) // len(OTHER_COLOURS)))
    return {label: COLOURS[name] if name in COLOURS else next(others) for label, name in names.items()}


def _line(axes: Any, x: np.ndarray, curve: Curve, **style: Any) -> None:
    """Seed mean and the paper's band of half a standard deviation."""
    smooth = trailing_mean(curve.score)
    mean, half = smooth.mean(0), smooth.std(0) / 2
    axes.plot(x, mean, linewidth=1.6, **style)
    axes.fill_between(x, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0)


def draw(title: str, curves: Mapping[str, Curve], target: float, path: Path) -> None:
    """Four panels: score against rounds and against uploads, noise-to-signal against rounds, upload rate per learner.

    Args:
      curves: by label, in the order of the legend.
      target: the score of 90 % of PG's improvement, drawn as a line.
      path: where the PNG goes.
    """
    colours = _colours(list(curves))
    mpl = matplotlib()
    with mpl.rc_context(STYLE):
        figure = mpl.figure.Figure(figsize=(11, 7.5), layout="constrained")
        (by_round, by_upload), (noise, rates) = figure.subplots(2, 2)
        num_learners = len(next(iter(curves.values())).upload_rates)
        width = 0.8 / len(curves)
        for index, (label, curve) in enumerate(curves.items()):
            style = {"color": colours[label], "label": label}
            offset = min(WINDOW, curve.score.shape[1]) - 1
            rounds = np.arange(offset, curve.score.shape[1]) + 1
            _line(by_round, rounds, curve, **style)
            _line(by_upload, curve.uploads.mean(0)[offset:], curve, **style)
            ratio = curve.noise_to_signal
            noise.plot(np.arange(-len(ratio), 0) + curve.score.shape[1] + 1, ratio, linewidth=1.2, **style)
            place = np.arange(num_learners) + (index - (len(curves) - 1) / 2) * width
            rates.bar(place, curve.upload_rates, width, color=style["color"])
        for axes in (by_round, by_upload):
            axes.axhline(target, color="grey", linestyle=":", linewidth=1)
            axes.set_ylabel(f"globally averaged reward per step\n(mean of {WINDOW} rounds)")
        # outside, at the right edge: inside there is a curve wherever one might put it
        where = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
        by_round.annotate("90 %\nof PG's\ngain", (1, target), **where, va="center", fontsize=7, color="grey")
        by_round.set(xlabel="rounds", title="Return against rounds")
        by_upload.set(xlabel="uploads so far, all learners together", title="Return against uploads", xscale="log")
        by_upload.set_xlim(left=1)  # a mean over seeds begins below one upload
        noise.set(xlabel="rounds", ylabel="σ̂² / ‖∇L_m‖²", title="Noise to signal of one gradient", yscale="log")
        noise.set_ylim(top=min(noise.get_ylim()[1], NOISE_SHOWN))
        rates.set(xlabel="learner", ylabel="fraction of rounds", title="Upload rate per learner", yscale="log")
        shown = range(0, num_learners, 1 + (num_learners - 1) // 16)
        rates.set_xticks(shown, [f"{m + 1}" for m in shown])
        by_round.legend(loc="lower right")
        figure.suptitle(title)
        figure.savefig(path)


def frontier(
    title: str, curves: Mapping[str, Curve], trials: Mapping[str, Sequence[Mapping[str, Any]]], path: Path
) -> None:
    """Return against what it cost, two panels: uploads, and bits in both directions.

    A line is the tuned method on the reported seeds, from its first rounds to its end, the large dot; small faint dots are where its other trials
    ended on the tuning seeds. Further up and to the left is better.

    Args:
      curves: by label, in the order of the legend.
      trials: by label: final score and total costs of every point that was tuned (`lapg.experiments.tune.read_trials`).
      path: where the PNG goes.
    """
    colours = _colours(list(curves))
    words = {"uploads": "uploads, all learners together", "bits": "bits, both directions, headers included"}
    mpl = matplotlib()
    with mpl.rc_context(STYLE):
        figure = mpl.figure.Figure(figsize=(11, 4.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (cost, label) in zip(panels, words.items(), strict=True):
            for method, curve in curves.items():
                offset = min(WINDOW, curve.score.shape[1]) - 1
                spent, mean = curve.costs[cost].mean(0)[offset:], trailing_mean(curve.score).mean(0)
                axes.plot(spent, mean, linewidth=1.4, color=colours[method], label=method)
                axes.plot(spent[-1], mean[-1], "o", markersize=6, color=colours[method])
                ended = [(trial["totals"][cost], trial["final"]) for trial in trials.get(method, ()) if trial["final"]]
                axes.plot(
                    *zip(*ended, strict=True), "o", markersize=3, alpha=0.35, color=colours[method]
                ) if ended else None
            axes.set(xlabel=label, xscale="log", title=f"Return against {cost}")
        panels[0].set_xlim(left=1)
        finals = np.concatenate([trailing_mean(curve.score).mean(0) for curve in curves.values()])
        low, high = np.nanmin(finals), np.nanmax(finals)
        panels[0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))  # trials that diverged stay outside
        panels[0].set_ylabel(f"globally averaged reward per step\n(mean of {WINDOW} rounds)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
        figure.suptitle(title)
        figure.savefig(path)
