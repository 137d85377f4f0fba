"""Verdicts and reports of a comparison, computed from its rows; nothing here is typed in."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table

from lapg.experiments.compare import LEVELS, MARGIN, MIN_SEEDS, Comparison, Interval, late_improvement
from lapg.experiments.curves import COSTS, Curve
from lapg.experiments.tables import Rows, budget_table, interval, markdown_table, over_best, tables, times_fewer
from lapg.record import write_text

ROUNDS_TOLERANCE = 1.1
SAVING_MEANT = {"observable": 1.1, "significantly smaller": 1.5, "sizable": 1.5, "much fewer": 2.0}
"""Our reading of the paper's words: the factor that the saving in uploads to 90 % must reach."""


@dataclass(frozen=True)
class Verdict:
    """One claim about one method: holds, does not hold, or undecided at this many seeds."""

    claim: str
    label: str
    measured: str
    outcome: str


def _outcome(holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "undecided"


def _is_lower(value: Interval) -> bool:
    """Whether a final score is certainly lower than the margin allows; a method of which a run diverged has no mean worth one."""
    return value.high < -MARGIN or (value.value == -math.inf and not math.isnan(value.low))


def verdicts(comparison: Comparison, claims: Mapping[str, str | None]) -> list[Verdict]:
    """The paper's claims, tested on every method in ``claims`` (label → the paper's word for its saving; None where it has none).

    A claim holds if its whole interval lies on the claim's side of the threshold, does not hold if the whole interval lies on the other side, and
    is undecided in between, or where the interval is not known (fewer than `MIN_SEEDS`).
    """
    found = []
    reference = comparison.reference
    for label, word in claims.items():
        row = comparison.rows[label]
        cost = row.costs[0.90]
        rounds, saving, final = cost.rounds_ratio, cost.uploads_saving, row.difference
        found += [
            Verdict(
                f"as many rounds as {reference} to 90 % (≤ {ROUNDS_TOLERANCE}×)",
                label,
                interval(rounds),
                _outcome(rounds.high <= ROUNDS_TOLERANCE, rounds.low > ROUNDS_TOLERANCE),
            ),
            Verdict(
                f"final return not inferior (margin {MARGIN:.0%})",
                label,
                interval(final),
                _outcome(final.low > -MARGIN, _is_lower(final)),
            ),
        ]
        if word is not None:
            factor = SAVING_MEANT[word]
            found.append(
                Verdict(
                    f"uploads to 90 % {word!r} (≥ {factor}× fewer)",
                    label,
                    times_fewer(saving),
                    _outcome(saving.low >= factor, saving.high < factor),
                )
            )
    return found


def momentum_verdict(plain: Interval, momentum: Interval, label: str) -> Verdict:
    """The paper's claim that the gain is larger with momentum: Figure 4's saving against Figure 3's, independent intervals."""
    return Verdict(
        "the saving is larger with momentum (Figure 4) than without (Figure 3)",
        label,
        f"{interval(momentum)} against {interval(plain)}",
        _outcome(momentum.low > plain.high, momentum.high < plain.low),
    )


def _learning(curve: Curve, label: str) -> str:
    if math.isnan(late := late_improvement(curve)):
        return f"{label} does not improve, so it sets no target and there is nothing to compare."
    return f"{label} gains {late:.1%} of its improvement in the last fifth of the rounds (the protocol asks for less than 2 %)."


def _per_seed(comparison: Comparison, num_rounds: int) -> list[str]:
    lines = []
    for label, row in comparison.rows.items():
        hits = [f">{num_rounds}" if math.isinf(value) else f"{value:.0f}" for value in row.costs[0.90].seed_rounds]
        lines.append(f"- {label}: {', '.join(hits)}")
    return lines


def _seeds(comparison: Comparison) -> str:
    """What brackets are, and how the best baseline is found."""
    words = ["Brackets are 95 % bootstrap intervals over seeds, paired."]
    if comparison.num_seeds < MIN_SEEDS:
        words = [
            f"Fewer than {MIN_SEEDS} seeds say nothing of the spread: there are no intervals, and nothing is decided."
        ]
    if comparison.baselines:
        words.append(
            f"Baselines are the methods that upload by a schedule: {', '.join(comparison.baselines)}. The best is that which reaches the target at "
            "the least of the cost in question, of those that do not end lower if there are any; it is chosen on these same seeds, which favours it."
        )
    return " ".join(words)


def markdown(
    title: str,
    comparison: Comparison,
    found: list[Verdict],
    curves: Mapping[str, Curve],
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The report of a figure.

    Args:
      budgets: what was tried to tune each method, by its label (see `budget_table`).
    """
    base = curves[comparison.reference]
    num_seeds, num_rounds = len(base.score), base.num_rounds
    lines = [
        f"# {title}",
        "",
        f"{num_seeds} seeds, {num_rounds} rounds. {_learning(base, comparison.reference)} {_seeds(comparison)}",
        "",
        *(line for name, table in tables(comparison).items() for line in [f"## {name}", "", *markdown_table(*table)]),
        *(["## Claims", "", *markdown_table(*_claims(found))] if found else []),
        *(["## Tuning", "", *markdown_table(*budget_table(budgets))] if budgets else []),
        "## Rounds to 90 %, seed by seed",
        "",
        *_per_seed(comparison, num_rounds),
        "",
    ]
    return "\n".join(lines)


def summary(comparisons: Mapping[str, Comparison]) -> str:
    """All problems of a study side by side: methods × problems, one table for each measure."""
    labels = list(dict.fromkeys(label for comparison in comparisons.values() for label in comparison.rows))
    first = next(iter(comparisons.values()))
    reference = first.reference

    def table(cell: Callable[[Comparison, str], str]) -> list[str]:
        body = [
            [label, *(cell(each, label) if label in each.rows else "" for each in comparisons.values())]
            for label in labels
        ]
        return markdown_table(["method", *comparisons], body)

    def ends(comparison: Comparison, label: str) -> str:
        row = comparison.rows[label]
        return f"{interval(row.difference)}{'' if row.not_inferior else ' !'}"

    lines = [
        "# Summary",
        "",
        f"{_seeds(first)} Savings are {reference}'s cost to 90 % over the method's.",
        "",
    ]
    for cost, unit in COSTS.items():
        known = [each for each in comparisons.values() if cost in next(iter(each.rows.values())).totals]

        def saving(each: Comparison, label: str, cost: str = cost) -> str:
            savings = each.rows[label].costs[LEVELS[0]].savings
            return times_fewer(savings[cost]) if cost in savings else "–"

        def factor(each: Comparison, label: str, cost: str = cost) -> str:
            return over_best(each, label, LEVELS[0], cost) if cost in each.rows[label].totals else "–"

        if known:
            lines += [f"## Saving: {unit}", "", *table(saving)]
        if any(each.baselines for each in known):
            lines += [f"## Factor over the best baseline, in parentheses: {unit}", "", *table(factor)]
    lines += [
        f"## Rounds to 90 %, over {reference}'s",
        "",
        *table(lambda each, label: interval(each.rows[label].costs[LEVELS[0]].rounds_ratio)),
    ]
    lines += [
        f"## Final score minus {reference}'s, of its improvement",
        "",
        "`!` where it may be inferior (lower bound below −5 %).",
        "",
        *table(ends),
    ]
    lines += [
        f"## Probability that a run ends higher than one of {reference}",
        "",
        *table(lambda each, label: interval(each.improvement(label, reference))),
    ]
    return "\n".join(lines)


def _claims(found: list[Verdict]) -> Rows:
    return ["claim", "method", "measured [95 %]", "verdict"], [[v.claim, v.label, v.measured, v.outcome] for v in found]


def _show_table(header: list[str], body: list[list[str]], console: Console, title: str | None = None) -> None:
    table = Table(*map(escape, header), title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for cells in body:
        table.add_row(*map(escape, cells))
    console.print(table)


def show(
    title: str,
    comparison: Comparison,
    found: list[Verdict],
    console: Console,
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """The report on a terminal."""
    heading(title, console)
    shown = tables(comparison) | ({"Tuning": budget_table(budgets)} if budgets else {})
    for name, table in shown.items():
        _show_table(*table, console, name)
    console.print(_seeds(comparison), highlight=False, soft_wrap=True)
    if found:
        show_verdicts(found, console)


def heading(title: str, console: Console) -> None:
    """A line across the terminal with a title in it; across a page where there is no terminal."""
    console.print(Rule(escape(title)), width=min(console.width, 100))


def show_verdicts(found: list[Verdict], console: Console) -> None:
    """Claims and verdicts on a terminal."""
    _show_table(*_claims(found), console)


def write_json(
    path: Path,
    comparison: Comparison,
    found: list[Verdict],
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """The same for machines; misses, runs that diverged and what is not known are null. Levels are keys as '0.9', costs by their names.

    ``best_baseline`` is a label by level and cost, null where no baseline reaches the target; rows hold the factors over it beside those over the
    reference.
    """

    def plain(value: object) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    rows = {label: plain(asdict(row)) for label, row in comparison.rows.items()}
    best: dict[str, dict[str, str | None]] = {}
    for level in LEVELS if comparison.baselines else ():
        costs = next(iter(comparison.rows.values())).costs[level].spent
        best[str(level)] = {cost: comparison.best_baseline(level, cost) for cost in costs}
        for label, row in rows.items():
            factors = {cost: asdict(comparison.over_best_baseline(label, level, cost)) for cost in costs}
            row["costs"][str(level)]["over_best_baseline"] = plain(factors)
    content = {
        "reference": comparison.reference,
        "baselines": list(comparison.baselines),
        "best_baseline": best,
        "rows": rows,
        "verdicts": [asdict(verdict) for verdict in found],
        "budgets": plain(dict(budgets or {})),
    }
    write_text(path, json.dumps(content, indent=2))
