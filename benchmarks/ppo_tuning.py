"""Chooses the numbers of `lapg.comparison.on_ppo`: every rule on eight points, on seeds from 1000, which are never reported.

    python benchmarks/ppo_tuning.py ppo-cartpole                     # rules, on learners that differ; about 5 minutes
    python benchmarks/ppo_tuning.py ppo-cartpole --rivals            # methods of others, too
    python benchmarks/ppo_tuning.py ppo-cartpole --rules "SCOUT PPO" # some of them

Costs are those to 90 % of PPO's improvement. Of the points that reach it on every seed and end at most 5 % of the improvement lower, within 1.1 times PPO's
environment steps, the one with the fewest uploads is chosen, for rules that send 3 % of the entries that with the fewest bits both ways; where there is
none, the one that needs the fewest steps. Sweeps are kept in --out, and
not played again.
"""

import argparse
import itertools
import math
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lapg.comparison import presets
from lapg.comparison.on_ppo import REFERENCE, RIVALS, RULES, Point, Rule
from lapg.comparison.statistics import Row, compare
from lapg.comparison.sweeps import sweep_curves
from lapg.runtimes import use_all_cores

FIRST_SEED, MOST_STEPS, LOWEST_END = 1000, 1.1, -0.05


def points(rule: Rule) -> dict[Point, str]:
    """What is tried of a rule, and how it is shown."""
    unit, name = " M" if rule.alone else "", rule.number.rpartition(".")[2]
    found = itertools.product(rule.steps, rule.numbers)
    return {point: f"step {point[0]:g}{unit}, {name} {point[1]:.4g}" for point in found}


def chosen(rows: dict[Point, Row], cost: str) -> Point:
    """The point by the rule above; ``cost`` is uploads or bits."""

    def rank(point: Point) -> tuple[bool, float]:
        found = rows[point].costs[0.9]
        steps, saved = found.rounds_ratio.value, found.savings[cost].value
        fits = steps <= MOST_STEPS and rows[point].difference.value >= LOWEST_END
        return (not fits, -saved if fits else (steps if math.isfinite(steps) else math.inf))

    return min(rows, key=rank)


def at_an_end(rule: Rule, point: Point) -> str:
    """Which of the two numbers lies at an end of its grid."""
    number = rule.numbers.index(point[1]) in (0, len(rule.numbers) - 1)
    return rule.number.rpartition(".")[2] if number else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(presets.ON_PPO))
    parser.add_argument("--rivals", action="store_true", help="methods of others, too")
    parser.add_argument("--rules", nargs="+", metavar="LABEL", choices=sorted(RULES | RIVALS), help="some alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, help="fewer than the experiment's own, for a look")
    parser.add_argument("--out", type=Path, default=Path("runs/ppo-tuning"), help="where sweeps are kept (%(default)s)")
    given = parser.parse_args()
    use_all_cores()
    console, progress = Console(), Console(stderr=True)
    figure = presets.ON_PPO[given.name][1]
    config = replace(
        presets.setting(figure), seeds=given.seeds, first_seed=FIRST_SEED, rounds=given.rounds or figure.rounds
    )
    num_learners = figure.problem.options["num_learners"]
    rules = RULES | (RIVALS if given.rivals else {})
    rules = {label: rule for label, rule in (RULES | RIVALS).items() if label in (given.rules or rules)}
    place = given.out / figure.name
    reference = sweep_curves(
        config, [figure.tuned[REFERENCE]], place / "reference.nc", console=progress, label=REFERENCE
    )
    shown = Table(
        "rule", "point", "steps / PPO", "uploads", "fewer uploads", "fewer bits both ways", "final − PPO's", ""
    )
    for label, rule in rules.items():
        tried = points(rule)
        curves = sweep_curves(
            config,
            [rule.chosen(point, num_learners) for point in tried],
            place / f"{label}.nc",
            console=progress,
            label=label,
        )
        named = {REFERENCE: reference[0]} | dict(zip(tried.values(), curves, strict=True))
        compared = compare(named, reference=REFERENCE).rows
        rows = {point: compared[name] for point, name in tried.items()}
        best = chosen(rows, "bits" if label.endswith("%") else "uploads")
        for point, row in rows.items():
            cost = row.costs[0.9]
            values = cost.rounds_ratio, cost.uploads, cost.savings["uploads"], cost.savings["bits"]
            end = " ".join(["chosen", *([f"({at_an_end(rule, point)} at an end)"] if at_an_end(rule, point) else [])])
            cells = [f"{value.value:.3g}" for value in values]
            shown.add_row(label, tried[point], *cells, f"{row.difference.value:+.3f}", end if point == best else "")
            console.print(f"{label}, {tried[point]}: {', '.join(cells)}{' <' if point == best else ''}", soft_wrap=True)
    console.print(shown)


if __name__ == "__main__":
    main()
