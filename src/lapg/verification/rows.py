"""A statement after its check: both sides where they came closest, and what that means."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["statement", "printed", "repaired", "outside", "shown"]
WANTED: dict[Kind, tuple[str, ...]] = {
    "statement": ("holds",),
    "printed": ("violated",),
    "repaired": ("holds",),
    "outside": ("violated",),
    "shown": ("holds", "violated", "vacuous"),
}
"""What each kind of row has to come out as: corrected statements and repaired slips hold, slips as printed are violated on their counter-examples, and
so are statements outside their premises, or the check could not fail. What is only shown may come out as it likes."""


@dataclass(frozen=True)
class Row:
    """One statement ``left ≤ right`` on many cases.

    Attributes:
      where: the problems and the runs.
      checks: cases in which the premise was met and both sides stood above rounding; ``vacuous``: cases in which the premise was not met.
      left, right: at the tightest case.
      margin: (right − left)/max(|left|, |right|) there; negative where violated.
      violations: cases in which left exceeds right by more than rounding.
    """

    statement: str
    where: str
    kind: Kind
    checks: int
    vacuous: int
    left: float
    right: float
    margin: float
    violations: int
    note: str = ""

    @property
    def status(self) -> str:
        """``holds``, ``violated`` or ``vacuous``."""
        if self.checks == 0:
            return "vacuous"
        return "violated" if self.violations else "holds"

    @property
    def as_expected(self) -> bool:
        """Whether it came out as its kind has to."""
        return self.status in WANTED[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """Plain data; numbers that JSON has no word for become None."""
        data = asdict(self) | {"status": self.status, "as_expected": self.as_expected}
        return {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in data.items()}


def compare(
    statement: str,
    where: str,
    left: Any,
    right: Any,
    *,
    kind: Kind = "statement",
    rounding: Any = 0.0,
    premise: Any = True,
    note: str = "",
) -> Row:
    """Checks ``left ≤ right`` case by case.

    Args:
      left, right, rounding, premise: arrays that broadcast. ``rounding`` is what floating point may add to a difference of the two sides; cases in which
        neither side exceeds it say nothing and are left out.
    """
    left, right, rounding, premise = np.broadcast_arrays(
        *(np.asarray(each, float) for each in (left, right, rounding)), np.asarray(premise, bool)
    )
    if not (np.isfinite(left[premise]).all() and not np.isnan(right[premise]).any()):
        raise FloatingPointError(f"{statement}: {where}: a side is not finite, so nothing can be said.")
    size = np.maximum(np.abs(left), np.abs(right))
    used = premise & (size >= rounding)
    margin = np.where(used, (right - left) / np.where(np.isfinite(size) & (size > 0), size, 1), np.inf)
    place = np.unravel_index(np.argmin(margin), margin.shape) if margin.size else ()
    empty = not used.any()
    return Row(
        statement,
        where,
        kind,
        int(used.sum()),
        int((~premise).sum()),
        float("nan") if empty else float(left[place]),
        float("nan") if empty else float(right[place]),
        float("nan") if empty else float(margin[place]),
        int((used & (left - right > rounding)).sum()),
        note,
    )


def pair(statement: str, where: str, left: Any, printed: Any, corrected: Any, **options: Any) -> list[Row]:
    """``left ≤ printed``, to be refuted, and ``left ≤ corrected``."""
    return [
        compare(f"{statement}, printed", where, left, printed, kind="printed", **options),
        compare(f"{statement}, corrected", where, left, corrected, kind="repaired", **options),
    ]
