"""Which upload rule to deploy: for every problem and every cost, the cheapest method, and those that cannot be distinguished from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lapg.comparison.curves import COSTS
from lapg.comparison.reproduce import baselines_of, curves_of, read_contents
from lapg.comparison.statistics import MIN_SEEDS, Comparison, compare
from lapg.comparison.study import read_cases
from lapg.comparison.tables import markdown_table, times_fewer
from lapg.costs.links import LinkModel
from lapg.experiments.run import load

LEVEL = 0.90
PLAIN = ("uploads", "bits", "uplink_bits")
ON_A_NETWORK = ("seconds", "joules")


def cheapest(comparison: Comparison, cost: str) -> list[str]:
    """Labels of the method that reaches 90 % at the least cost, first, and of those whose cost cannot be distinguished from it (95 %).

    Methods count whose final score is not inferior to PG's; none, if PG sets no target.
    """
    rows = comparison.rows
    spent = {
        label: row.costs[LEVEL].spent[cost].value
        for label, row in rows.items()
        if row.not_inferior and row.costs[LEVEL].rounds.value < float("inf")
    }
    if not spent:
        return []
    best = min(spent, key=lambda label: spent[label])
    ties = [label for label in spent if label != best and comparison.saving(best, label, LEVEL, cost).low <= 1]
    return [best, *sorted(ties, key=lambda label: spent[label])]


def guide(studies: Iterable[Path], networks: Mapping[str, LinkModel], compute_seconds: float = 0.0) -> str:
    """A table, problems × costs, from the records of studies; time and energy once for every network.

    Raises:
      RunError: a directory is not a study's, or damaged.
    """
    body = []
    for study in studies:
        for case in read_cases(study):
            content = read_contents(study / case)
            runs = {label: load(study / case / name) for label, name in content["runs"].items()}
            reference, baselines = content["reference"], baselines_of(runs)
            plain = compare(curves_of(runs), reference, baselines)
            cells = [_cell(plain, cost) for cost in PLAIN]
            for network in networks.values():
                timed = compare(curves_of(runs, network, compute_seconds), reference, baselines)
                cells += [_cell(timed, cost) for cost in ON_A_NETWORK]
            body.append([case, *cells])
    header = ["problem", *(COSTS[cost] for cost in PLAIN)]
    header += [f"{cost}, {name}" for name in networks for cost in ON_A_NETWORK]
    lines = [
        "# Which upload rule?",
        "",
        "The method that reaches 90 % of PG's improvement at the least cost, and how many times less that is than PG's, with its 95 % interval; in",
        "parentheses the methods that cannot be distinguished from it, and how many times less it is than the cost of the best baseline, a method that",
        "uploads by a schedule. Only methods whose final score is not inferior to PG's count.",
        "",
        *markdown_table(header, body),
    ]
    return "\n".join(lines)


def _cell(comparison: Comparison, cost: str) -> str:
    if comparison.num_seeds < MIN_SEEDS:
        return f"undecided: fewer than {MIN_SEEDS} seeds"
    labels = cheapest(comparison, cost)
    if not labels:
        return "none"
    words = f"**{labels[0]}** {times_fewer(comparison.rows[labels[0]].costs[LEVEL].savings[cost])}"
    words += f" ({', '.join(labels[1:])})" if labels[1:] else ""
    best = comparison.best_baseline(LEVEL, cost)
    if best is not None and best != labels[0]:
        words += f"; over {best} {times_fewer(comparison.over_best_baseline(labels[0], LEVEL, cost))}"
    return words
