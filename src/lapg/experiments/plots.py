"""Pictures of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

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
    "PG": "#222222",
    "LAPG": "#1f77b4",
    "LAPG average": "#17a2b8",
    "SCOUT": "#d62728",
    "AWAPG": "#ff9896",
    "periodic": "#2ca02c",
    "periodic local": "#2ca02c",
    "random": "#9467bd",
}
OTHER_COLOURS = ("#ff7f0e", "#8c564b", "#e377c2", "#bcbd22", "#7f7f7f")


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
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.5), layout="constrained")
        (by_round, by_upload), (noise, rates) = figure.subplots(2, 2)
        num_learners = len(next(iter(curves.values())).upload_rates)
        width = 0.8 / len(curves)
        for index, (label, curve) in enumerate(curves.items()):
            style = {"color": COLOURS.get(label, OTHER_COLOURS[index % len(OTHER_COLOURS)]), "label": label}
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
        by_round.annotate(
            "90 % of PG's improvement",
            (0.01, target),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize=8,
            color="grey",
        )
        by_round.set(xlabel="rounds", title="Return against rounds")
        by_upload.set(xlabel="uploads so far, all learners together", title="Return against uploads", xscale="log")
        noise.set(xlabel="rounds", ylabel="σ̂² / ‖∇L_m‖²", title="Noise to signal of one gradient", yscale="log")
        noise.set_ylim(top=min(noise.get_ylim()[1], NOISE_SHOWN))
        rates.set(xlabel="learner", ylabel="fraction of rounds", title="Upload rate per learner", yscale="log")
        rates.set_xticks(range(num_learners), [f"{m + 1}" for m in range(num_learners)])
        by_round.legend(loc="lower right")
        figure.suptitle(title)
        figure.savefig(path)
