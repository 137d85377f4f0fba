"""Tables and verdicts of a comparison, computed from its rows; nothing here is typed in."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from lapg.experiments.compare import LEVELS, MARGIN, Comparison, Interval, late_improvement
from lapg.experiments.curves import COSTS, Curve
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


def number(value: float, digits: int = 3) -> str:
    """A short number; misses read as such."""
    if math.isinf(value):
        return "missed"
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def interval(value: Interval, digits: int = 3) -> str:
    """Point estimate and interval."""
    return f"{number(value.value, digits)} [{number(value.low, digits)}, {number(value.high, digits)}]"


def times_fewer(value: Interval) -> str:
    """As `interval`, of how many times less something costs: 0 where it missed the target, infinite where only the other did."""
    bounds = ("∞" if bound == math.inf else number(bound or math.inf) for bound in (value.value, value.low, value.high))
    return "{} [{}, {}]".format(*bounds)


def _outcome(holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "undecided"


def verdicts(comparison: Comparison, claims: Mapping[str, str | None]) -> list[Verdict]:
    """The paper's claims, tested on every method in ``claims`` (label → the paper's word for its saving; None where it has none).

    A claim holds if its whole interval lies on the claim's side of the threshold, does not hold if the whole interval lies on the other side, and
    is undecided in between.
    """
    found = []
    for label, word in claims.items():
        row = comparison.rows[label]
        cost = row.costs[0.90]
        rounds, saving, final = cost.rounds_ratio, cost.uploads_saving, row.difference
        found += [
            Verdict(
                f"as many rounds as PG to 90 % (≤ {ROUNDS_TOLERANCE}×)",
                label,
                interval(rounds),
                _outcome(rounds.high <= ROUNDS_TOLERANCE, rounds.low > ROUNDS_TOLERANCE),
            ),
            Verdict(
                f"final return not inferior (margin {MARGIN:.0%})",
                label,
                interval(final),
                _outcome(final.low > -MARGIN, final.high < -MARGIN),
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


Rows = tuple[list[str], list[list[str]]]


def _finals(comparison: Comparison) -> Rows:
    header = ["method", "final score [95 %]", "raw", "minus PG's, of its improvement [95 %]", "uploads in all"]
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
    return header, body


def _rival(comparison: Comparison) -> str | None:
    return next((label for label in comparison.rows if label.startswith("periodic")), None)


def _uploads(comparison: Comparison) -> Rows:
    rival = _rival(comparison)
    header = ["method", "to", "rounds", "uploads [95 %]", "rounds / PG [95 %]", "fewer uploads than PG [95 %]"]
    header += [f"than {rival} [95 %]"] if rival else []
    body = []
    for label, row in comparison.rows.items():
        for level in LEVELS:
            cost = row.costs[level]
            cells = [label, f"{level:.0%}", number(cost.rounds.value, 4), interval(cost.uploads, 4)]
            cells += [interval(cost.rounds_ratio), times_fewer(cost.uploads_saving)]
            body.append([*cells, times_fewer(comparison.saving(label, rival, level))] if rival else cells)
    return header, body


def _spent(comparison: Comparison, names: Sequence[str], saved: Sequence[str]) -> Rows:
    """What was spent to the targets, and PG's costs over the method's."""
    header = ["method", "to", *(f"{COSTS[name]} [95 %]" for name in names)]
    header += [f"fewer {COSTS[name]} than PG [95 %]" for name in saved]
    body = []
    for label, row in comparison.rows.items():
        for level in LEVELS:
            cost = row.costs[level]
            spent = [interval(scaled(cost.spent[name], name)) for name in names]
            body.append([label, f"{level:.0%}", *spent, *(times_fewer(cost.savings[name]) for name in saved)])
    return header, body


def scaled(value: Interval, name: str) -> Interval:
    """A cost in the unit that `lapg.experiments.curves.COSTS` names."""
    unit = 1e6 if COSTS[name].startswith("Mbit") else 1
    return Interval(value.value / unit, value.low / unit, value.high / unit)


def _chances(comparison: Comparison, reference: str) -> Rows:
    rivals = [rival for rival in (reference, _rival(comparison)) if rival]
    measures = {"ends higher": None, "fewer uploads to 90 %": "uploads"}
    header = ["method", *(f"{words} than {rival} [95 %]" for rival in rivals for words in measures)]
    body = []
    for label in comparison.rows:
        chances = [comparison.improvement(label, rival, cost) for rival in rivals for cost in measures.values()]
        body.append([label, *map(interval, chances)])
    return header, body


def _tables(comparison: Comparison, reference: str) -> dict[str, Rows]:
    """All tables of a comparison by title."""
    first = next(iter(comparison.rows.values())).costs[LEVELS[0]].spent
    tables = {
        "Final scores": _finals(comparison),
        "Rounds and uploads to the targets": _uploads(comparison),
        "Bits to the targets, headers included": _spent(
            comparison, ("uplink_bits", "downlink_bits", "bits"), ("uplink_bits", "bits")
        ),
    }
    if "seconds" in first:
        tables["Time and energy to the targets"] = _spent(comparison, ("seconds", "joules"), ("seconds", "joules"))
    return tables | {"Probability that one run beats another": _chances(comparison, reference)}


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


def markdown(
    title: str, comparison: Comparison, found: list[Verdict], curves: Mapping[str, Curve], reference: str = "PG"
) -> str:
    """The report of a figure."""
    num_seeds, num_rounds = curves[reference].score.shape
    lines = [
        f"# {title}",
        "",
        f"{num_seeds} seeds, {num_rounds} rounds. {_learning(curves[reference], reference)} Brackets are 95 % bootstrap intervals over seeds, paired.",
        "",
        *(
            line
            for name, table in _tables(comparison, reference).items()
            for line in [f"## {name}", "", *markdown_table(*table)]
        ),
        *(["## Claims", "", *markdown_table(*_claims(found))] if found else []),
        "## Rounds to 90 %, seed by seed",
        "",
        *_per_seed(comparison, num_rounds),
        "",
    ]
    return "\n".join(lines)


def summary(comparisons: Mapping[str, Comparison], reference: str) -> str:
    """All problems of a study side by side: methods × problems, one table for each measure."""
    labels = list(dict.fromkeys(label for comparison in comparisons.values() for label in comparison.rows))

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
        "Brackets are 95 % bootstrap intervals over seeds, paired. Savings are PG's cost to 90 % over the method's.",
        "",
    ]
    for cost, unit in COSTS.items():
        if cost in next(iter(next(iter(comparisons.values())).rows.values())).totals:
            lines += [f"## Saving: {unit}", ""]
            lines += table(lambda each, label, cost=cost: times_fewer(each.rows[label].costs[LEVELS[0]].savings[cost]))
    lines += [
        "## Rounds to 90 %, over PG's",
        "",
        *table(lambda each, label: interval(each.rows[label].costs[LEVELS[0]].rounds_ratio)),
    ]
    lines += [
        "## Final score minus PG's, of its improvement",
        "",
        "`!` where it may be inferior (lower bound below −5 %).",
        "",
        *table(ends),
    ]
    lines += [
        "## Probability that a run ends higher than one of PG",
        "",
        *table(lambda each, label: interval(each.improvement(label, reference))),
    ]
    return "\n".join(lines)


def markdown_table(header: list[str], body: list[list[str]]) -> list[str]:
    """The lines of a table, and an empty one."""
    return ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *body]] + [""]


def _claims(found: list[Verdict]) -> Rows:
    return ["claim", "method", "measured [95 %]", "verdict"], [[v.claim, v.label, v.measured, v.outcome] for v in found]


def _show_table(header: list[str], body: list[list[str]], console: Console, title: str | None = None) -> None:
    table = Table(*header, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for cells in body:
        table.add_row(*cells)
    console.print(table)


def show(title: str, comparison: Comparison, found: list[Verdict], console: Console, reference: str = "PG") -> None:
    """The report on a terminal."""
    console.rule(title)
    for name, table in _tables(comparison, reference).items():
        _show_table(*table, console, name)
    if found:
        show_verdicts(found, console)


def show_verdicts(found: list[Verdict], console: Console) -> None:
    """Claims and verdicts on a terminal."""
    _show_table(*_claims(found), console)


def write_json(path: Path, comparison: Comparison, found: list[Verdict]) -> None:
    """The same for machines; misses are null."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    rows = {label: plain(asdict(row)) for label, row in comparison.rows.items()}
    content = {"rows": rows, "verdicts": [asdict(verdict) for verdict in found]}
    write_text(path, json.dumps(content, indent=2))
