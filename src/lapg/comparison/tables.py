"""Numbers as text, and the tables of a comparison; nothing here is typed in."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lapg.comparison.curves import COSTS
from lapg.comparison.statistics import LEVELS, Comparison, Interval

Rows = tuple[list[str], list[list[str]]]


def number(value: float, digits: int = 3) -> str:
    """A short number; misses and runs that diverged read as such."""
    if math.isinf(value):
        return "missed" if value > 0 else "diverged"
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def interval(value: Interval, digits: int = 3) -> str:
    """Point estimate, and interval where it is known."""
    return _bracketed(value, lambda bound: number(bound, digits))


def times_fewer(value: Interval) -> str:
    """As `interval`, of how many times less something costs: 0 where it missed the target, infinite where only the other did."""
    return _bracketed(value, lambda bound: "∞" if bound == math.inf else number(bound or math.inf))


def _bracketed(value: Interval, text: Callable[[float], str]) -> str:
    bounds = "" if math.isnan(value.low) else f" [{text(value.low)}, {text(value.high)}]"
    return text(value.value) + bounds


def _finals(comparison: Comparison) -> Rows:
    header = ["method", "final score [95 %]", "raw", f"minus {comparison.reference}'s, of its improvement [95 %]"]
    body = [
        [
            label,
            interval(row.final),
            number(row.raw_final),
            interval(row.difference),
            number(row.totals["uploads"]),
        ]
        for label, row in comparison.rows.items()
    ]
    return [*header, "uploads in all"], body


def over_best(comparison: Comparison, label: str, level: float, cost: str) -> str:
    """The factor over the best baseline, and its name."""
    best = comparison.best_baseline(level, cost)
    if best is None:
        return "none reaches it"
    return f"{times_fewer(comparison.over_best_baseline(label, level, cost))} ({best})"


def _spent(comparison: Comparison, names: Sequence[str], saved: Sequence[str], *, rounds: bool = False) -> Rows:
    """What was spent to the targets, and the costs of the reference and of the best baseline over the method's."""
    reference = comparison.reference
    header = ["method", "to", *(["rounds"] if rounds else []), *(f"{COSTS[name]} [95 %]" for name in names)]
    header += [f"rounds / {reference} [95 %]"] if rounds else []
    header += [f"fewer {COSTS[name]} than {reference} [95 %]" for name in saved]
    header += [f"fewer {COSTS[name]} than the best baseline [95 %]" for name in saved if comparison.baselines]
    body = []
    for label, row in comparison.rows.items():
        for level in LEVELS:
            cost = row.costs[level]
            cells = [label, f"{level:.0%}", *([number(cost.rounds.value, 4)] if rounds else [])]
            cells += [interval(scaled(cost.spent[name], name), 4 if rounds else 3) for name in names]
            cells += [interval(cost.rounds_ratio)] if rounds else []
            cells += [times_fewer(cost.savings[name]) for name in saved]
            cells += [over_best(comparison, label, level, name) for name in saved if comparison.baselines]
            body.append(cells)
    return header, body


def scaled(value: Interval, name: str) -> Interval:
    """A cost in the unit that `lapg.comparison.curves.COSTS` names."""
    unit = 1e6 if COSTS[name].startswith("Mbit") else 1
    return Interval(value.value / unit, value.low / unit, value.high / unit)


def _chances(comparison: Comparison) -> Rows:
    rivals = dict.fromkeys([comparison.reference, comparison.best_baseline()])
    measures = {"ends higher": None, "fewer uploads to 90 %": "uploads"}
    header = ["method", *(f"{words} than {rival} [95 %]" for rival in rivals if rival for words in measures)]
    body = []
    for label in comparison.rows:
        chances = [
            comparison.improvement(label, rival, cost) for rival in rivals if rival for cost in measures.values()
        ]
        body.append([label, *map(interval, chances)])
    return header, body


def tables(comparison: Comparison) -> dict[str, Rows]:
    """All tables of a comparison by title."""
    first = next(iter(comparison.rows.values())).costs[LEVELS[0]].spent
    tables = {
        "Final scores": _finals(comparison),
        "Rounds and uploads to the targets": _spent(comparison, ("uploads",), ("uploads",), rounds=True),
        "Bits to the targets, headers included": _spent(
            comparison, ("bits", "uplink_bits", "downlink_bits"), ("bits", "uplink_bits")
        ),
    }
    if "steps" in first:
        tables["Environment steps to the targets, all learners together"] = _spent(comparison, ("steps",), ("steps",))
    if "seconds" in first:
        tables["Time and energy to the targets"] = _spent(comparison, ("seconds", "joules"), ("seconds", "joules"))
    return tables | {"Probability that one run beats another": _chances(comparison)}


def budget_table(budgets: Mapping[str, Mapping[str, Any]]) -> Rows:
    """How each method was tuned: ``points`` tried, on how many ``seeds``, what was ``chosen``, and a ``note``; whatever is not known is left out."""
    header = ["method", "points tried", "on seeds", "chosen", "note"]
    names = ("points", "seeds", "chosen", "note")
    return header, [[label, *(str(budget.get(name, "–")) for name in names)] for label, budget in budgets.items()]


def markdown_table(header: list[str], body: list[list[str]]) -> list[str]:
    """The lines of a table, and an empty one."""
    return ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *body]] + [""]
