"""Pictures of a verification."""

from pathlib import Path
from typing import Any

import numpy as np

from lapg import theory
from lapg.drawing import STYLE, matplotlib
from lapg.verification import Verification, ratios
from lapg.verification.scaling import SLOW

STATUS_COLOURS = {"holds": "#1f77b4", "violated": "#d62728", "vacuous": "#7f7f7f"}


def draw(found: Verification, out: Path) -> list[Path]:
    """Writes scaling.png, tightness.png and iterations.png into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    with matplotlib().rc_context(STYLE):
        figures = {"scaling": _scaling(found), "tightness": _tightness(found), "iterations": _iterations(found)}
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png")
    return [out / f"{name}.png" for name in figures]


def _scaling(found: Verification) -> Any:
    """Uploads of LAPG over PG's at the same step, against M."""
    figure = matplotlib().figure.Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    colours = ("#1f77b4", "#ff7f0e", "#2ca02c")
    for (name, fit), colour in zip(found.fits.items(), colours, strict=True):
        sizes, ratio = np.asarray(fit.sizes), fit.ratios
        label = f"{name}: M^{fit.slope:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
        axes.plot(sizes, ratio.mean(0), "o-", color=colour, label=label)
        axes.fill_between(sizes, ratio.min(0), ratio.max(0), color=colour, alpha=0.2, linewidth=0)
    sizes = found.fits["quadratics, slow step"].sizes
    promised = [theory.extreme_example(size, *SLOW).ratio * SLOW.step for size in sizes]
    axes.plot(sizes, promised, "k--", linewidth=1, label="slow step: (1/M)(1 + (M−1)/(D+1))")
    axes.plot(sizes, 1 / np.asarray(sizes), ":", color="grey", label="1/M")
    axes.set(xscale="log", yscale="log", xlabel="learners M", ylabel="uploads, LAPG over PG at the same step")
    axes.set_title("The 1/M example: L_m ∝ (1, …, 1, M²), window D ∝ M")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def _tightness(found: Verification) -> Any:
    """How much of each bound the tightest case uses up."""
    rows = [row for row in found.rows if row.kind == "statement" and row.left > 0 and np.isfinite(row.right)]
    figure = matplotlib().figure.Figure(figsize=(10, 0.27 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [f"{row.statement}  ({row.where})" for row in rows],
        [row.left / row.right for row in rows],
        color=[STATUS_COLOURS[row.status] for row in rows],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="y", visible=False)
    axes.set(xscale="log", xlim=(1e-4, 3), ylim=(len(rows) - 0.4, -0.6))
    axes.set_xlabel("left side over right side at the tightest case; 1 is the bound", loc="right")
    return figure


def _iterations(found: Verification) -> Any:
    """LAPG's rounds over PG's, against the predicted factor."""
    figure = matplotlib().figure.Figure(figsize=(10, 4.2), layout="constrained")
    for axes, reference, title in zip(
        figure.subplots(1, 2, sharey=True), (1, 2), ("PG at its own step 1/L", "PG at the same step"), strict=True
    ):
        for (name, facts), colour in zip(found.facts.items(), ("#1f77b4", "#2ca02c", "#9467bd"), strict=False):
            ratio, factor = ratios(facts, reference)
            label = f"{name}: {np.mean(ratio > factor):.0%} above"
            axes.scatter(factor, ratio, s=7, alpha=0.5, color=colour, label=label, linewidths=0)
        line = np.array([1.0, 30.0])
        axes.plot(line, line, "k--", linewidth=1, label="predicted factor")
        axes.set(xscale="log", yscale="log", xlabel="1/(1 − 3Σξ)", title=title)
        axes.legend(fontsize=7)
        if reference == 1:
            axes.set_ylabel("rounds to ε, LAPG over PG")
    return figure
