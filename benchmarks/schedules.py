"""SCOUT against the best schedule that looks at nothing, on SCOUT's own memory: chosen on tuning seeds, shown on fresh ones.

    python benchmarks/schedules.py scales-apart                 # plays the grids, then the fresh seeds (one minute; Figure 4 takes half an hour)
    python benchmarks/schedules.py scales-apart --fresh         # the fresh seeds alone, with the schedule that docs/results has
    python benchmarks/schedules.py --table                      # the table of README.md, from docs/results/*.json

Settings and grids are below. SCOUT stands at the setting that `lapg.comparison.tuned` has for it, which earlier searches chose on tuning seeds.
A schedule is chosen by the fewest uploads to 90 % of PG's improvement, of the points that end no lower than 5 % below PG, lose no seed, and take no more
rounds than SCOUT or PG, whichever takes more, and a tenth. SCOUT itself is not held to that rule. Tuning seeds begin at 1000, fresh ones at 30.
"""

import argparse
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lapg.methods import Part
from lapg.runtimes import use_all_cores

RESULTS = Path(__file__).parents[1] / "docs" / "results"
LOCAL, SCOUT = "periodic local", "SCOUT"  # whose settings a sweep takes: the tuned period's, or SCOUT's own
TOGETHER, STAGGERED = Part("periodic"), Part("periodic", phase="staggered")
SEARCHES: dict[
    str, dict[str, Any]
] = {  # name → seeds from 1000; label → whose settings, trigger, grid; steps are multiples
    "fig4": {
        "words": "Figure 4: 2 agents",
        "seeds": 8,
        "fresh": 60,
        "sweeps": {
            "together": (LOCAL, TOGETHER, {"period": (70.0, 140.0)}),
            "staggered": (LOCAL, STAGGERED, {"period": (60.0, 120.0, 240.0), "step": (1.0, 1.4)}),
        },
    },
    "fig6": {
        "words": "Figure 6: 5 agents, scales 1 to 0.06",
        "seeds": 3,
        "fresh": 10,
        "sweeps": {
            "together": (LOCAL, TOGETHER, {"period": (100.0, 200.0)}),
            "staggered": (LOCAL, STAGGERED, {"period": (150.0, 300.0, 600.0)}),
        },
    },
    "parallel-cartpole-heterogeneous": {
        "words": "Cart pole, 16 different learners",
        "seeds": 6,
        "fresh": 20,
        "sweeps": {
            "together": (LOCAL, TOGETHER, {"period": (15.0, 25.0, 40.0), "step": (1.0, 2.0, 4.0)}),
            "staggered": (LOCAL, STAGGERED, {"period": (20.0, 40.0, 80.0), "step": (1.0, 2.0)}),
            "staggered, b = 2": (SCOUT, STAGGERED, {"period": (60.0, 80.0, 120.0)}),
        },
    },
    "parallel-lqr-heterogeneous": {
        "words": "Linear-quadratic control, 16 different systems",
        "seeds": 10,
        "fresh": 20,
        "sweeps": {
            "together": (LOCAL, TOGETHER, {"period": (15.0, 30.0, 60.0), "step": (1.0, 2.0)}),
            "staggered": (LOCAL, STAGGERED, {"period": (20.0, 40.0, 80.0), "step": (1.0, 2.0)}),
        },
    },
    "parallel-pendulum-heterogeneous": {
        "words": "Pendulum, 16 different learners",
        "seeds": 4,
        "fresh": 20,
        "sweeps": {
            "together": (SCOUT, TOGETHER, {"period": (6.0, 12.0, 25.0)}),
            "staggered": (SCOUT, STAGGERED, {"period": (25.0, 50.0, 100.0)}),
        },
    },
    "scales-apart": {
        "words": "Quadratics, 32 learners, scales over three decades",
        "seeds": 10,
        "fresh": 20,
        "sweeps": {
            "together": (LOCAL, TOGETHER, {"period": (50.0, 60.0, 70.0), "step": (0.35, 0.5, 0.7)}),
            "staggered": (LOCAL, STAGGERED, {"period": (90.0, 110.0, 130.0), "step": (0.7, 1.0, 1.4)}),
        },
    },
}
HEADER = [
    "setting",
    "rule",
    "SCOUT over the best schedule: bits both ways",
    "uploads",
    "rounds / PG",
    "uploads in all",
    "fewer bits both ways than PG",
    "fewer uploads than PG",
    "final − PG's",
]


def play(
    name: str,
    out: Path,
    console: Console,
    *,
    seeds: int,
    first_seed: int,
    only: str | None = None,
    rounds: int | None = None,
) -> dict[str, Any]:
    """Costs to 90 % of PG, SCOUT and every schedule of the grids, or of the one named: see `points_of`."""
    from lapg.comparison import presets
    from lapg.comparison.sweeps import sweep_curves

    figure = presets.FIGURES[name]
    config = replace(presets.setting(figure), seeds=seeds, first_seed=first_seed, rounds=rounds or figure.rounds)
    _, methods = presets.methods(figure, "recommended")
    sweeps = {"PG": ("PG", Part(), {}), "SCOUT": (SCOUT, Part(), {})} | SEARCHES[name]["sweeps"]
    curves = {}
    for label, (source, trigger, grid) in sweeps.items():
        base = methods[source].but(trigger=trigger)
        points = {}
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            full = " ".join([label, *(f"{key} {value:g}" for key, value in point.items())])
            if only in (None, full) or not grid:
                step = base.optimiser.options["step_size"] * point.get("step", 1.0)
                period = Part(period=point["period"]) if "period" in point else Part()
                points[full] = base.but(optimiser=Part(step_size=step), trigger=period)
        if points:
            found = sweep_curves(config, list(points.values()), out / f"{label}.nc", console=console, label=label)
            curves |= dict(zip(points, found, strict=True))
    return points_of(curves)


def plain(value: Any) -> list[float | None]:
    """A value and its bounds; None where the target was missed or a run diverged."""
    return [bound if math.isfinite(bound) else None for bound in (value.value, value.low, value.high)]


def points_of(curves: dict[str, Any]) -> dict[str, Any]:
    """What a comparison of the curves says of each: values with 95 % intervals, None where the target was missed or a run diverged.

    ``behind_scout`` is what the schedule spent to the target over what SCOUT spent.
    """
    from lapg.comparison.statistics import compare

    comparison, points = compare(curves), {}
    for label, row in comparison.rows.items():
        cost, kinds = row.costs[0.90], ("uploads", "bits")
        points[label] = {
            "rounds_ratio": plain(cost.rounds_ratio),
            "uploads": plain(cost.uploads)[0],
            "savings": {kind: plain(cost.savings[kind]) for kind in kinds},
            "behind_scout": {kind: plain(comparison.saving("SCOUT", label, cost=kind)) for kind in kinds},
            "difference": plain(row.difference),
        }
    return points


def chosen(points: dict[str, Any]) -> str | None:
    """The best schedule by the rule above."""
    limit = 1.1 * max(1.0, points["SCOUT"]["rounds_ratio"][0] or 1.0)
    admitted = {}
    for label, point in points.items():
        rounds, end = point["rounds_ratio"][0], point["difference"][0]
        known = None not in (point["uploads"], rounds, end) and label not in ("PG", "SCOUT")
        if known and rounds <= limit and end > -0.05:
            admitted[label] = point["uploads"]
    return min(admitted, key=admitted.__getitem__, default=None)


def _interval(bounds: list[float | None], form: str = ".3g", unknown: str = "missed") -> str:
    def text(value: float | None) -> str:
        return unknown if value is None else f"{value:,.0f}" if abs(value) >= 1000 else format(value, form)

    value, low, high = bounds
    return text(value) if low is None and high is None else f"{text(value)} [{text(low)}, {text(high)}]"


def _row(label: str, point: dict[str, Any], best: dict[str, Any] | None) -> list[str]:
    over = [_interval(best["behind_scout"][kind]) if best and label == "SCOUT" else "" for kind in ("bits", "uploads")]
    uploads = "missed" if point["uploads"] is None else f"{point['uploads']:,.0f}"
    if label == "PG":
        return [label, *over, "1", uploads, "1", "1", "0"]
    savings = [_interval(point["savings"][kind]) for kind in ("bits", "uploads")]
    return [
        label,
        *over,
        _interval(point["rounds_ratio"]),
        uploads,
        *savings,
        _interval(point["difference"], "+.3f", "diverged"),
    ]


def rows(name: str, points: dict[str, Any], best: str | None, labels: list[str] | None = None) -> list[list[str]]:
    """Rows of the table: PG, SCOUT and the best schedule, or those named."""
    labels = labels or ["PG", "SCOUT", *([best] if best else [])]
    found = [[SEARCHES[name]["words"], *_row(label, points[label], points[best] if best else None)] for label in labels]
    return [[cells[0] if not index else "", *cells[1:]] for index, cells in enumerate(found)]


def table() -> str:
    """The table of README.md from docs/results: fresh seeds."""
    body = []
    for name in SEARCHES:
        if (file := RESULTS / f"{name}.json").is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            body += rows(name, found["fresh"], chosen(found["tuning"]))
    return _markdown(body)


def reproduced() -> str:
    """The sentence of README.md about what `make reproduce` prints, from its report."""
    found = json.loads((RESULTS / "reproduce-fig4.json").read_text(encoding="utf-8"))

    def said(label: str, what: str, form: str = ".3g") -> str:
        value, low, high = (format(found[label][what][key], form) for key in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"

    def row(label: str) -> str:
        uploads, bits = said(label, "fewer uploads than PG"), said(label, "fewer bits both ways than PG")
        end = said(label, "final minus PG's", "+.3f")
        return f"{uploads} times fewer uploads and {bits} times fewer bits both ways at {said(label, 'rounds / PG')} times PG's rounds, final {end}"

    return f"SCOUT {row('SCOUT')}; the staggered period {row('staggered local')}."


def reproduced_paper() -> str:
    """The sentences of docs/reproduction.md about the preset paper, from its report."""
    found = json.loads((RESULTS / "reproduce-fig4-paper.json").read_text(encoding="utf-8"))
    total = found["PG"]["uploads in all"]

    def bounds(label: str, what: str, form: str = ".3g") -> str:
        return _interval(
            [found[label][what][key] or None for key in ("value", "low", "high")], form
        )  # 0 times is missed

    def row(label: str) -> str:
        rounds, fewer = bounds(label, "rounds / PG"), bounds(label, "fewer uploads than PG")
        sent, end = found[label]["uploads in all"], bounds(label, "final minus PG's", "+.3f")
        return f"{sent:,.0f} of {total:,.0f} uploads in all, final {end}, PG's uploads to 90 % over its own {fewer}, its rounds over PG's {rounds}"

    gain, missed = found["PG"]["gain in the last fifth"], found["PG"]["seeds that missed"]
    rows = "; ".join(f"c = {c}: {row(label)}" for c, label in ((0, "LAPG c=0"), (1, "LAPG"), (6, "LAPG c=6")))
    return f"PG misses the target on {missed} of ten seeds, and {gain:.0%} of its improvement falls into the last fifth. LAPG with {rows}."


def decided(kind: str) -> dict[str, list[str]]:
    """Settings in which fresh seeds decide that SCOUT needs less than the best schedule, that it needs more, or neither; 'uploads' or 'bits'."""
    found: dict[str, list[str]] = {"less": [], "more": [], "undecided": []}
    for name in SEARCHES:
        results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        _, low, high = results["fresh"][chosen(results["tuning"])]["behind_scout"][kind]
        found["less" if low > 1 else "more" if high < 1 else "undecided"].append(name)
    return found


def _markdown(body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [HEADER, ["---"] * len(HEADER), *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(SEARCHES))
    parser.add_argument("--table", action="store_true", help="print the table of README.md")
    parser.add_argument(
        "--fresh", action="store_true", help="play the fresh seeds alone, with the schedule chosen last time"
    )
    parser.add_argument("--seeds", type=int, help="fewer than the setting's own, for a look; nothing is kept")
    parser.add_argument("--rounds", type=int, help="fewer than the setting's own, for a look; nothing is kept")
    parser.add_argument("--out", type=Path, default=Path("runs/schedules"), help="where sweeps are kept (%(default)s)")
    given = parser.parse_args()
    if given.table or given.name is None:
        print(table())
        return
    use_all_cores()
    search, console = SEARCHES[given.name], Console(stderr=True)
    brief, file, out = given.seeds or given.rounds, RESULTS / f"{given.name}.json", given.out / given.name
    if given.fresh:
        tuning = json.loads(file.read_text(encoding="utf-8"))["tuning"]
    else:
        seeds = given.seeds or search["seeds"]
        tuning = play(given.name, out / "tuning", console, seeds=seeds, first_seed=1000, rounds=given.rounds)
        print(_markdown(rows(given.name, tuning, chosen(tuning), list(tuning))) + "\n")
    best, seeds = chosen(tuning), given.seeds or search["fresh"]
    fresh = play(given.name, out / "fresh", console, seeds=seeds, first_seed=30, only=best or "", rounds=given.rounds)
    if not brief:
        file.write_text(json.dumps({"tuning": tuning, "fresh": fresh}, indent=1), encoding="utf-8")
    print(_markdown(rows(given.name, fresh, best)))


if __name__ == "__main__":
    main()
