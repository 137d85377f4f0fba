"""Pictures of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from lapg.comparison.curves import Curve, smoothed, window
from lapg.comparison.grids import slug
from lapg.drawing import STYLE, matplotlib

NOISE_SHOWN = 2000.0
"""Beyond it the signal cannot be distinguished from zero and the ratio means nothing."""
COLOURS = {
    "pg": "#000000",
    "ppo": "#000000",
    "lapg": "#0072B2",
    "scout": "#D55E00",
    "awapg": "#E69F00",
    "periodic": "#009E73",
    "random": "#CC79A7",
    "staggered": "#56B4E9",
}
"""By the first word of a label, whose variants share it: the colours of Okabe and Ito, which colour-blind readers distinguish too."""
OTHER_COLOURS = ("#8C510A", "#7F7F7F", "#762A83")
DASHES = {"": "-", "local": "--", "average": ":", "staggered": "-.", "ppo": "-", "ppo-3": "--"}
"""By the rest of a label: what distinguishes the variants of a method."""
OTHER_DASHES = ("--", "-.", ":", (0, (1, 3)), (0, (6, 1, 1, 1, 1, 1)))
HATCHES = {"-": "", "--": "//", ":": "..", "-.": "xx"}
AXES = {
    "uploads": "uploads so far, all learners together",
    "bits": "bits so far, both directions, headers included",
    "uplink_bits": "bits so far from learners to controller, headers included",
    "downlink_bits": "bits so far from controller to learners, headers included",
    "steps": "environment steps so far, all learners together",
    "seconds": "seconds so far",
    "joules": "joules so far, all learners together",
}
"""What a score may be drawn against, beside rounds."""
OTHER_COST = ("bits", "uploads")
"""The second cost, where the first is not bits, and where it is."""
BAND = "band: ± ½ standard deviation over seeds"


def styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each label, by its words alone, so that a method looks alike in all pictures; only if two collide, the later one moves on."""
    found: dict[str, dict[str, Any]] = {}
    for label in labels:
        family, _, variant = slug(label).partition("-")
        number = crc32(slug(label).encode())
        colour = COLOURS.get(family, OTHER_COLOURS[number % len(OTHER_COLOURS)])
        own = DASHES.get(variant, OTHER_DASHES[number % len(OTHER_DASHES)])
        options = ({"color": colour, "linestyle": dashes} for dashes in (own, *OTHER_DASHES, "-"))
        found[label] = next(
            (style for style in options if style not in found.values()), {"color": colour, "linestyle": own}
        )
    return found


def check_axis(against: str, curves: Mapping[str, Curve]) -> None:
    """Refuses a cost that is not known of all curves.

    Raises:
      ValueError: it is not.
    """
    known = [name for name in AXES if all(name in curve.costs for curve in curves.values())]
    if against not in known:
        raise ValueError(
            f"against must be one of {', '.join(known)}, got {against!r}; seconds and joules need a network, steps runs that have counted them."
        )


def _line(axes: Any, x: np.ndarray, curve: Curve, **style: Any) -> None:
    """Seed mean and the paper's band of half a standard deviation."""
    smooth = smoothed(curve.score)
    mean, half = smooth.mean(0), smooth.std(0) / 2
    axes.plot(x, mean, linewidth=1.6, **style)
    axes.fill_between(x, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0)


def _score_label(curves: Mapping[str, Curve]) -> str:
    width = window(next(iter(curves.values())).score.shape[1])
    return "globally averaged reward per step" + (f"\n(mean of the last {width} rounds)" if width > 1 else "")


def _legend(figure: Any, axes: Any, labels: Sequence[str], *, band: bool = False) -> None:
    """Below all panels, where it covers nothing."""
    handles = list(axes.get_legend_handles_labels()[0])
    words = list(labels)
    if band:
        handles.append(matplotlib().patches.Patch(facecolor="grey", alpha=0.3))
        words.append(BAND)
    figure.legend(handles, words, loc="outside lower center", ncols=min(5, len(words)), handlelength=3)


def draw(
    title: str,
    curves: Mapping[str, Curve],
    target: float,
    path: Path,
    reference: str = "PG",
    against: str = "uploads",
) -> None:
    """Four panels: score against rounds and against a cost, noise-to-signal against rounds, upload rate per learner.

    Where the noise is not known of any curve, the score against a second cost takes its place: bits both ways, or uploads.

    Args:
      curves: by label, in the order of the legend.
      target: the score of 90 % of the reference's improvement, drawn as a line.
      path: where the PNG goes.
      reference: whose improvement that is.
      against: the cost, by its name (`AXES`).
    Raises:
      ValueError: that cost is not known.
    """
    check_axis(against, curves)
    looks = styles(list(curves))
    mpl = matplotlib()
    with mpl.rc_context(STYLE):
        figure = mpl.figure.Figure(figsize=(11, 8), layout="constrained")
        (by_round, by_cost), (third, rates) = figure.subplots(2, 2)
        noise_known = any(np.isfinite(curve.noise_to_signal).any() for curve in curves.values())
        costs = {against: by_cost} if noise_known else {against: by_cost, OTHER_COST[against == "bits"]: third}
        num_learners = len(next(iter(curves.values())).upload_rates)
        width = 0.8 / len(curves)
        for index, (label, curve) in enumerate(curves.items()):
            style = looks[label]
            _line(by_round, curve.rounds + 1, curve, label=label, **style)
            for cost, axes in costs.items():
                _line(axes, curve.spent(cost), curve, **style)
            if noise_known:
                ratio = curve.noise_to_signal
                third.plot(np.arange(-len(ratio), 0) + curve.num_rounds + 1, ratio, linewidth=1.2, **style)
            place = np.arange(num_learners) + (index - (len(curves) - 1) / 2) * width
            hatch = HATCHES.get(style["linestyle"], "++") if isinstance(style["linestyle"], str) else "++"
            rates.bar(
                place, curve.upload_rates, width, color=style["color"], hatch=hatch, edgecolor="white", linewidth=0
            )
        for axes in (by_round, *costs.values()):
            axes.axhline(target, color="grey", linestyle=":", linewidth=1)
            axes.set_ylabel(_score_label(curves))
        # outside, at the right edge: inside there is a curve wherever one might put it
        where = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
        words = f"90 %\nof {reference}'s\ngain"
        by_round.annotate(words, (1, target), **where, va="center", fontsize=7, color="grey")
        by_round.set(xlabel="rounds", title="Return against rounds")
        for cost, axes in costs.items():
            axes.set(xlabel=AXES[cost], title=f"Return against {cost.replace('_', ' ')}", xscale="log")
            axes.set_xlim(left=1 if cost == "uploads" else None)  # a mean over seeds begins below one upload
        if noise_known:
            third.set(xlabel="rounds", ylabel="σ̂² / ‖∇L_m‖²", title="Noise to signal of one gradient", yscale="log")
            third.set_xlim(by_round.get_xlim())
            third.set_ylim(top=min(third.get_ylim()[1], NOISE_SHOWN))
        rates.set(xlabel="learner", ylabel="fraction of rounds", title="Upload rate per learner", yscale="log")
        shown = range(0, num_learners, 1 + (num_learners - 1) // 16)
        rates.set_xticks(shown, [f"{m + 1}" for m in shown])
        _legend(figure, by_round, list(curves), band=True)
        figure.suptitle(title)
        figure.savefig(path)


def frontier(
    title: str,
    curves: Mapping[str, Curve],
    trials: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
    costs: Sequence[str] = ("uploads", "bits"),
) -> None:
    """Return against what it cost, a panel for each cost.

    A line is the tuned method on the reported seeds, from its first rounds to its end, the large dot; small faint dots are where its other trials
    ended on the tuning seeds. Further up and to the left is better.

    Args:
      curves: by label, in the order of the legend.
      trials: by label: final score and total costs of every point that was tuned (`lapg.comparison.tune.read_trials`).
      path: where the PNG goes.
    """
    looks = styles(list(curves))
    mpl = matplotlib()
    with mpl.rc_context(STYLE):
        figure = mpl.figure.Figure(figsize=(5.5 * len(costs), 5), layout="constrained")
        (panels,) = figure.subplots(1, len(costs), sharey=True, squeeze=False)
        for axes, cost in zip(panels, costs, strict=True):
            for method, curve in curves.items():
                spent, mean = curve.spent(cost), smoothed(curve.score).mean(0)
                colour = looks[method]["color"]
                axes.plot(spent, mean, linewidth=1.4, label=method, **looks[method])
                axes.plot(spent[-1], mean[-1], "o", markersize=6, color=colour)
                ended = [(trial["totals"][cost], trial["final"]) for trial in trials.get(method, ()) if trial["final"]]
                if ended:
                    axes.plot(*zip(*ended, strict=True), "o", markersize=3, alpha=0.35, color=colour)
            axes.set(xlabel=AXES[cost], xscale="log", title=f"Return against {cost.replace('_', ' ')}")
        panels[0].set_xlim(left=1)
        finals = np.concatenate([smoothed(curve.score).mean(0) for curve in curves.values()])
        low, high = np.nanmin(finals), np.nanmax(finals)
        panels[0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))  # trials that diverged stay outside
        panels[0].set_ylabel(_score_label(curves))
        _legend(figure, panels[0], list(curves))
        figure.suptitle(title)
        figure.savefig(path)
