"""Tables and verdicts of a comparison, computed from its rows; nothing here is typed in."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lapg.experiments.compare import LEVELS, MARGIN, Comparison, Curve, Interval, late_improvement

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


def _outcome(holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "undecided"


def verdicts(comparison: Comparison, claims: Mapping[str, str]) -> list[Verdict]:
    """The paper's claims, tested on every method in ``claims`` (label → the paper's word for its saving).

    A claim holds if its whole interval lies on the claim's side of the threshold, does not hold if the whole interval lies on the other side, and
    is undecided in between.
    """
    found = []
    for label, word in claims.items():
        row = comparison.rows[label]
        cost, factor = row.costs[0.90], SAVING_MEANT[word]
        rounds, saving, final = cost.rounds_ratio, cost.uploads_saving, row.difference
        found += [
            Verdict(
                f"as many rounds as PG to 90 % (ratio at most {ROUNDS_TOLERANCE})",
                label,
                interval(rounds),
                _outcome(rounds.high <= ROUNDS_TOLERANCE, rounds.low > ROUNDS_TOLERANCE),
            ),
            Verdict(
                f"final return not inferior to PG's (margin {MARGIN:.0%} of its improvement)",
                label,
                interval(final),
                _outcome(final.low > -MARGIN, final.high < -MARGIN),
            ),
            Verdict(
                f"uploads to 90 % {word!r} (at least {factor} times fewer)",
                label,
                interval(saving),
                _outcome(saving.low >= factor, saving.high < factor),
            ),
        ]
    return found


def momentum_verdict(plain: Interval, momentum: Interval, label: str) -> Verdict:
    """The paper's claim that the gain is larger with momentum: Figure 4's saving against Figure 3's, independent intervals."""
    return Verdict(
        "the saving is larger with momentum (Figure 4) than without (Figure 3)",
        label,
        f"{interval(momentum)} against {interval(plain)}",
        _outcome(momentum.low > plain.high, momentum.high < plain.low),
    )


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    header = ["method", "final score [95 %]", "raw", "uploads in all"]
    for level in LEVELS:
        header += [f"rounds to {level:.0%}", f"uploads to {level:.0%}"]
    header += ["rounds / PG (90 %)", "fewer uploads than PG (90 %)"]
    rival = next((label for label in comparison.rows if label.startswith("periodic")), None)
    header += ["than periodic"] if rival else []
    body = []
    for label, row in comparison.rows.items():
        cells = [label, interval(row.final), number(row.raw_final), number(row.total_uploads)]
        for level in LEVELS:
            cells += [number(row.costs[level].rounds.value, 4), number(row.costs[level].uploads.value, 4)]
        cells += [interval(row.costs[0.90].rounds_ratio), interval(row.costs[0.90].uploads_saving)]
        cells += [interval(comparison.saving(label, rival))] if rival else []
        body.append(cells)
    return header, body


def _per_seed(comparison: Comparison, num_rounds: int) -> list[str]:
    lines = []
    for label, row in comparison.rows.items():
        hits = [f">{num_rounds}" if math.isinf(value) else f"{value:.0f}" for value in row.costs[0.90].seed_rounds]
        lines.append(f"- {label}: {', '.join(hits)}")
    return lines


def markdown(title: str, comparison: Comparison, found: list[Verdict], curves: Mapping[str, Curve], reference: str = "PG") -> str:
    """The report of a figure."""
    header, body = _cells(comparison)
    num_seeds, num_rounds = curves[reference].score.shape
    lines = [
        f"# {title}",
        "",
        f"{num_seeds} seeds, {num_rounds} rounds. {reference} gains {late_improvement(curves[reference]):.1%} of its improvement in the last fifth of the "
        "rounds (the protocol asks for less than 2 %). Brackets are 95 % bootstrap intervals over seeds, paired.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(cells) + " |" for cells in body),
        "",
        "## Claims",
        "",
        "| claim | method | measured | verdict |",
        "|---|---|---|---|",
        *(f"| {v.claim} | {v.label} | {v.measured} | **{v.outcome}** |" for v in found),
        "",
        "## Rounds to 90 %, seed by seed",
        "",
        *_per_seed(comparison, num_rounds),
        "",
    ]
    return "\n".join(lines)


def show(title: str, comparison: Comparison, found: list[Verdict], console: Console) -> None:
    """The report on a terminal."""
    header, body = _cells(comparison)
    table = Table(*header, title=title)
    for cells in body:
        table.add_row(*cells)
    console.print(table)
    show_verdicts(found, console)


def show_verdicts(found: list[Verdict], console: Console) -> None:
    """Claims and verdicts on a terminal."""
    table = Table("claim", "method", "measured [95 %]", "verdict")
    for verdict in found:
        table.add_row(verdict.claim, verdict.label, verdict.measured, verdict.outcome)
    console.print(table)


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
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
