"""What is tuned: for every method a grid of numbers, equally many points for each."""

import inspect
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from lapg.experiments.build import resolve
from lapg.experiments.config import MethodConfig
from lapg.methods import METHODS, controls

Grid = dict[str, tuple[float, ...]]
"""Values by the name of a method's number; ``step`` multiplies a step size: PG's grid that of the experiment, all others that chosen for PG."""
MAX_NUMBERS = 3
XI = (0.03,)
"""ξ_d = 0.03 for D = 10: Σξ = 0.3 < 1/3, as Theorem 1 asks."""

NUM_ROUNDS = 3000
"""K of the problems for which the grids of `KNOWN` are made; for others they follow K (`follow`)."""
SHORTEST = 2.0
"""Rounds of the shortest period; 1 is an upload in every round."""
NUM_POINTS = 12
STEPS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
SHARED: Grid = {"decay": (0.0, 8e-4)}
"""What every method may tune beside its step and a number of its own."""
LOCAL = MethodConfig(look_ahead=1.0, compressor="quantise", compressor_bits=4, downlink="replicated")
"""What is fixed of the recommended method, and of the controls that keep the same memory."""
KNOWN: dict[str, tuple[MethodConfig, Grid]] = {
    "pg": (MethodConfig("pg"), {"step": STEPS}),
    "lapg": (MethodConfig("lapg", xi=XI), {"step": (0.7, 1.0), "noise_weight": (0.0, 0.5, 1.0)}),
    "lapg-average": (
        MethodConfig("lapg", xi=(0.0,), average_weight=0.05),
        {"step": (0.7, 1.0), "noise_weight": (0.75, 1.0, 1.5)},
    ),
    "scout": (replace(LOCAL, name="scout"), {"step": (0.8, 1.2), "threshold": (160.0, 320.0, 640.0)}),
    "awapg": (MethodConfig("awapg"), {"step": (1.0, 1.6), "threshold": (80.0, 160.0, 320.0)}),
    "periodic": (MethodConfig("periodic"), {"step": (1.0, 1.6), "period": (20.0, 40.0, 80.0)}),
    "periodic-local": (replace(LOCAL, name="periodic"), {"step": (0.8, 1.2), "period": (25.0, 50.0, 100.0)}),
    "staggered": (
        MethodConfig("periodic", phase="staggered"),
        {"step": (1.0, 1.6), "period": (40.0, 80.0, 160.0)},
    ),
    "staggered-local": (
        replace(LOCAL, name="periodic", phase="staggered"),
        {"step": (0.8, 1.2), "period": (50.0, 100.0, 200.0)},
    ),
    "periodic-average": (
        MethodConfig("periodic", memory="average", average_weight=0.05),
        {"step": (0.7, 1.0), "period": (5.0, 10.0, 20.0)},
    ),
    "ef14": (MethodConfig("ef14", compressor="top_k"), {"step": (0.7, 1.0), "compressor_fraction": (0.01, 0.05, 0.2)}),
    "ef21": (MethodConfig("ef21", compressor="top_k"), {"step": (0.7, 1.0), "compressor_fraction": (0.01, 0.05, 0.2)}),
    "random": (MethodConfig("random"), {"step": (1.0, 1.6), "rate": (0.0125, 0.025, 0.05)}),
    "random-local": (replace(LOCAL, name="random"), {"step": (1.0, 1.6), "rate": (0.005, 0.01, 0.02)}),
}
"""By name: what of a method is fixed, and its grid without the shared number. A grid of two numbers of its own takes no shared one."""


@dataclass(frozen=True)
class Contender:
    """A method as it enters a comparison: what of it is fixed, and the grid of what is tuned."""

    label: str
    method: MethodConfig
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

    @property
    def points(self) -> list[dict[str, float]]:
        """The grid's points."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


SCHEDULES = {"fedavg", *(name for name, recipe in METHODS.items() if recipe.__module__ == controls.__name__)}
"""Recipes that upload by a schedule, whatever they have measured: the baselines of a comparison."""


def is_baseline(method: MethodConfig) -> bool:
    """Whether a method, in whatever variant, uploads by a schedule."""
    return method.name in SCHEDULES


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
        if name in ("period", "threshold"):
            factor = max(pace, SHORTEST / min(values)) if name == "period" and pace < 1 else pace
            return tuple(value * factor for value in values)
        if name in ("rate", "decay"):
            factor = max(pace, SHORTEST * max(values)) if name == "rate" and pace < 1 else pace
            return tuple(value / factor for value in values)
        return values

    return grid if pace == 1 else {name: scaled(name, values) for name, values in grid.items()}


def contender(
    label: str, *, shared: Grid = SHARED, own: Mapping[str, Grid] | None = None, pace: float = 1.0
) -> Contender:
    """A method by its name, with the grid that is known for it; for any other recipe one around its own default.

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
        name, method = label, MethodConfig(label)
        grid, rest = _around_default(label, shared)
    return Contender(label, method, follow(grid | (own or {}).get(name, {}), pace) | rest)


def _around_default(name: str, shared: Grid) -> tuple[Grid, Grid]:
    """A quarter, once and four times the default of a recipe's first number, and as many steps as the budget leaves."""
    parameters = inspect.signature(resolve("method", name, METHODS)).parameters
    accepts_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    rest = {number: values for number, values in shared.items() if number in {*parameters, "kl_limit"} or accepts_all}
    taken = {"step_size", "momentum", *shared}
    defaults = {number: parameter.default for number, parameter in parameters.items() if number not in taken}
    first = next(((number, value) for number, value in defaults.items() if type(value) is float and value), None)
    own: Grid = {} if first is None else {first[0]: (first[1] / 4, first[1], 4 * first[1])}
    num_steps = NUM_POINTS // math.prod(len(values) for values in (own | rest).values())
    steps = tuple(2 ** ((index - (num_steps - 1) / 2) / 2) for index in range(num_steps))
    return {"step": steps} | own, rest
