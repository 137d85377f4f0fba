"""What is tuned: for every method a grid of numbers, equally many points for each."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lapg.experiments.config import Choice
from lapg.methods import PRESETS, Part, settings, signature_of

Grid = dict[str, tuple[float, ...]]
"""Values by the full name of a method's number, ``trigger.period``; ``step`` multiplies a step size: PG's grid that of the experiment, all others that
chosen for PG."""
MAX_NUMBERS = 3
XI = 0.03
"""ξ_d = 0.03 for D = 10: Σξ = 0.3 < 1/3, as Theorem 1 asks."""

NUM_ROUNDS = 3000
"""K of the problems for which the grids of `KNOWN` are made; for others they follow K (`follow`)."""
SHORTEST = 2.0
"""Rounds of the shortest period; 1 is an upload in every round."""
NUM_POINTS = 12
STEPS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
SHARED: Grid = {"optimiser.decay": (0.0, 8e-4)}
"""What every method may tune beside its step and a number of its own."""
LOCAL: dict[str, Any] = {
    "local": Part("sgd", step_scale=1.0),
    "compressor": Part("quantise", bits=4),
    "downlink": Part("forwarded"),
}
"""What is fixed of the recommended method, and of the baselines that keep the same memory."""
STAGGERED = Part("periodic", phase="staggered")
AVERAGE = Part("running_average", weight=0.05)
DRIFT = Part(xi=XI)
KNOWN: dict[str, tuple[Choice, Grid]] = {
    "pg": (Choice("pg"), {"step": STEPS}),
    "lapg": (Choice("lapg", trigger=DRIFT), {"step": (0.7, 1.0), "trigger.noise_weight": (0.0, 0.5, 1.0)}),
    "lapg-average": (
        Choice("lapg", trigger=Part(xi=0.0), memory=AVERAGE),
        {"step": (0.7, 1.0), "trigger.noise_weight": (0.75, 1.0, 1.5)},
    ),
    "scout": (Choice("scout", **LOCAL), {"step": (0.8, 1.2), "trigger.threshold": (160.0, 320.0, 640.0)}),
    "awapg": (Choice("awapg"), {"step": (1.0, 1.6), "trigger.threshold": (80.0, 160.0, 320.0)}),
    "periodic": (Choice("periodic"), {"step": (1.0, 1.6), "trigger.period": (20.0, 40.0, 80.0)}),
    "periodic-local": (Choice("periodic", **LOCAL), {"step": (0.8, 1.2), "trigger.period": (25.0, 50.0, 100.0)}),
    "staggered": (
        Choice("periodic", trigger=STAGGERED),
        {"step": (1.0, 1.6), "trigger.period": (40.0, 80.0, 160.0)},
    ),
    "staggered-local": (
        Choice("periodic", trigger=STAGGERED, **LOCAL),
        {"step": (0.8, 1.2), "trigger.period": (50.0, 100.0, 200.0)},
    ),
    "periodic-average": (
        Choice("periodic", memory=AVERAGE),
        {"step": (0.7, 1.0), "trigger.period": (5.0, 10.0, 20.0)},
    ),
    "ef14": (Choice("ef14"), {"step": (0.7, 1.0), "compressor.fraction": (0.01, 0.05, 0.2)}),
    "ef21": (Choice("ef21"), {"step": (0.7, 1.0), "compressor.fraction": (0.01, 0.05, 0.2)}),
    "random": (Choice("random"), {"step": (1.0, 1.6), "trigger.rate": (0.0125, 0.025, 0.05)}),
    "random-local": (Choice("random", **LOCAL), {"step": (1.0, 1.6), "trigger.rate": (0.005, 0.01, 0.02)}),
}
"""By name: what of a method is fixed, and its grid without the shared number. A grid of two numbers of its own takes no shared one."""


@dataclass(frozen=True)
class Contender:
    """A method as it enters a comparison: what of it is fixed, and the grid of what is tuned."""

    label: str
    method: Choice
    grid: Grid

    def __post_init__(self) -> None:
        where = f"grid of {self.label}"
        if not 0 < len(self.grid) <= MAX_NUMBERS or "step" not in self.grid:
            raise ValueError(f"{where} must hold step and at most two further numbers, got {', '.join(self.grid)}.")
        for name, values in self.grid.items():
            if not values or any(type(value) is not float or not math.isfinite(value) for value in values):
                raise ValueError(
                    f"{where}: {name} must be finite numbers with a decimal point, which need no compiling of their own, got {values}."
                )

    def under(self, momentum: float | None) -> "Contender":
        """The same under momentum; None: without."""
        optimiser = Part() if momentum is None else Part("sgd", momentum=momentum)
        return replace(self, method=self.method.but(optimiser=optimiser))

    @property
    def points(self) -> list[dict[str, float]]:
        """The grid's points."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


SCHEDULES = ("periodic", "random", "never")
"""Triggers that upload by a schedule, whatever has been measured: methods that have one are the baselines of a comparison."""


def is_baseline(method: Choice) -> bool:
    """Whether a method uploads by a schedule; nothing is imported for the answer, and one of one's own does not unless its trigger is named."""
    preset = PRESETS.get(method.method)
    return (method.trigger.name or (preset and preset.trigger.name)) in SCHEDULES


def at(method: Choice, numbers: Mapping[str, float]) -> Choice:
    """A method with other numbers, by their full names."""
    for name, value in numbers.items():
        kind, *tables, last = name.split(".")
        part = Part(**{last: value})
        for table in reversed(tables):
            part = Part(**{table: part})
        method = method.but(**{kind: part})
    return method


def slug(label: str) -> str:
    """A label as a name of files and directories."""
    return "".join(c if c.isalnum() else "-" for c in label.lower()).strip("-")


def check_budgets(contenders: Iterable[Contender]) -> None:
    """Every method gets as many points as any other.

    Raises:
      ValueError: one has more, or two have the same label.
    """
    budgets = [(contender.label, len(contender.points)) for contender in contenders]
    if len(dict(budgets)) < len(budgets):
        raise ValueError(
            f"methods must have different labels, got {', '.join(label for label, _ in budgets)}; leave one out."
        )
    if len({points for _, points in budgets}) > 1:
        words = ", ".join(f"{label} {points}" for label, points in budgets)
        raise ValueError(f"every method must be tuned on equally many points, got {words}; change their grids.")


def follow(grid: Grid, pace: float) -> Grid:
    """A grid for runs ``pace`` times as long: periods and thresholds are as many times larger, rates of uploads and decays as many times smaller.

    Periods keep their ratios and are at least `SHORTEST` rounds, rates at most the inverse.
    """

    def scaled(name: str, values: tuple[float, ...]) -> tuple[float, ...]:
        if name in ("trigger.period", "trigger.threshold"):
            factor = max(pace, SHORTEST / min(values)) if name == "trigger.period" and pace < 1 else pace
            return tuple(value * factor for value in values)
        if name in ("trigger.rate", "optimiser.decay"):
            factor = max(pace, SHORTEST * max(values)) if name == "trigger.rate" and pace < 1 else pace
            return tuple(value / factor for value in values)
        return values

    return grid if pace == 1 else {name: scaled(name, values) for name, values in grid.items()}


def contender(
    label: str, *, shared: Grid = SHARED, own: Mapping[str, Grid] | None = None, pace: float = 1.0
) -> Contender:
    """A method by its name, with the grid that is known for it; for any other one around its own default.

    Args:
      label: a name in `KNOWN` (case and blanks as in a figure's legend), a method of `lapg list`, or MODULE:NAME.
      shared: the number that every method may tune.
      own: by name, values that take the place of those in `KNOWN`.
      pace: the method's own numbers follow the length of the runs (`follow`); ``shared`` is taken as it is.
    Raises:
      ValueError: there is no such method.
    """
    name = label.lower().replace(" ", "-")
    if name in KNOWN:
        method, grid = KNOWN[name]
        rest = shared if len(grid) < MAX_NUMBERS else {}
    else:
        name, method = label, Choice(label)
        grid, rest = _around_default(method, shared)
    return Contender(label, method, follow(grid | (own or {}).get(name, {}), pace) | rest)


OWN = ("trigger", "memory", "variance_reduction")
"""Kinds of parts in which a method's own number is looked for."""


def _around_default(method: Choice, shared: Grid) -> tuple[Grid, Grid]:
    """A quarter, once and four times a method's first number that may vary without compiling again, and as many steps as the budget leaves."""
    parts = method.parts
    found = {kind: signature_of(kind, part.name) for kind, part in parts.items()}
    plain = any("plain_step_size" in each.supplied for each in found.values())
    rest = {name: values for name, values in shared.items() if not (plain and name.startswith("optimiser."))}
    own: Grid = {}
    for kind in OWN:
        current = settings(kind, parts[kind])
        for name, option in found[kind].options.items():
            value = current.get(name)
            if not own and option.traced and type(value) is float and value:
                own = {f"{kind}.{name}": (value / 4, value, 4 * value)}
    num_steps = NUM_POINTS // math.prod(len(values) for values in (own | rest).values())
    steps = tuple(2 ** ((index - (num_steps - 1) / 2) / 2) for index in range(num_steps))
    return {"step": steps} | own, rest
