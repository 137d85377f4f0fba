"""Which upload rule to deploy: for every problem and every cost, the cheapest method, and those that cannot be told from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lapg.experiments.compare import Comparison, compare
from lapg.experiments.curves import COSTS, to_curve
from lapg.experiments.report import markdown_table, times_fewer
from lapg.experiments.reproduce import read_contents
from lapg.experiments.run import load
from lapg.experiments.study import read_cases
from lapg.network import Network

LEVEL = 0.90
PLAIN = ("uploads", "uplink_bits", "bits")
ON_A_NETWORK = ("seconds", "joules")


def cheapest(comparison: Comparison, cost: str) -> list[str]:
    """Labels of the method that reaches 90 % at the least cost, first, and of those whose cost cannot be told from it (95 %).

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


def guide(studies: Iterable[Path], networks: Mapping[str, Network], compute_seconds: float = 0.0) -> str:
    """A table, problems × costs, from the records of studies; time and energy once for every network.

    Raises:
      RunError: a directory is not a study's, or damaged.
    """
    body = []
    for study in studies:
        for case in read_cases(study):
            content = read_contents(study / case)
            records = {label: load(study / case / name).record for label, name in content["runs"].items()}
            reference = content["reference"]
            plain = compare({label: to_curve(record) for label, record in records.items()}, reference)
            cells = [_cell(plain, cost) for cost in PLAIN]
            for network in networks.values():
                curves = {label: to_curve(record, network, compute_seconds) for label, record in records.items()}
                timed = compare(curves, reference)
                cells += [_cell(timed, cost) for cost in ON_A_NETWORK]
            body.append([case, *cells])
    header = ["problem", *(COSTS[cost] for cost in PLAIN)]
    header += [f"{cost}, {name}" for name in networks for cost in ON_A_NETWORK]
    lines = [
        "# Which upload rule?",
        "",
        "The method that reaches 90 % of PG's improvement at the least cost, and how many times less that is than PG's, with its 95 % interval; in",
        "parentheses the methods that cannot be told from it. Only methods whose final score is not inferior to PG's count.",
        "",
        *markdown_table(header, body),
    ]
    return "\n".join(lines)


def _cell(comparison: Comparison, cost: str) -> str:
    labels = cheapest(comparison, cost)
    if not labels:
        return "none"
    saving = times_fewer(comparison.rows[labels[0]].costs[LEVEL].savings[cost])
    return f"**{labels[0]}** {saving}" + (f" ({', '.join(labels[1:])})" if labels[1:] else "")
