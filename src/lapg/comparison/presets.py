"""Ready-made experiments as data: the paper's five figures, and three problems of parallel RL like them.

The paper gives M, the networks, N, T, γ, and α and β from Figure 4 on. Everything else is our choice, documented here and in docs/reproduction.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from lapg.comparison import tuned
from lapg.comparison.figure import Figure, Preset
from lapg.comparison.grids import XI, Contender, Grid, contender
from lapg.comparison.on_ppo import ON_PPO
from lapg.experiments.config import Choice, Config
from lapg.methods import Part

RECOMMENDED = "SCOUT"
"""The label of the recommended method."""
SCALES = {2: (1.0, 0.5), 5: (1.0, 0.5, 0.25, 0.12, 0.06)}
"""Heterogeneous loss scales c_m of the paper's figures; it does not print its own."""


PRESET_TEXTS: dict[str, str] = {
    "literal": "equations (10), (15), (16) word by word, with >= and α = 0.01: the gradient is a sum over time without baseline",
    "paper": "what the paper most plausibly ran: time-averaged gradient without baseline, α = 0.01, sample-variance noise",
    "recommended": "leave-one-out baseline, tuned on seeds 1000-1004 (`lapg tune`); Figure 6 takes two agents' settings over in units of PG's step",
}


def _paced(*rounds: float, thresholds: tuple[float, ...], steps: tuple[float, float]) -> dict[str, Grid]:
    """Grids for a problem that is learned in so few rounds that uploads must be as much more frequent."""
    return {
        "awapg": {"step": steps, "trigger.threshold": thresholds},
        "scout": {"step": steps, "trigger.threshold": thresholds},
        "periodic": {"step": steps, "trigger.period": rounds},
        "periodic-local": {"step": steps, "trigger.period": rounds},
        "staggered": {"step": steps, "trigger.period": tuple(2 * period for period in rounds)},
        "staggered-local": {"step": steps, "trigger.period": tuple(2 * period for period in rounds)},
        "periodic-average": {"trigger.period": rounds},
        "random": {"step": steps, "trigger.rate": tuple(1 / period for period in rounds)},
        "random-local": {"step": steps, "trigger.rate": tuple(1 / period for period in rounds)},
    }


CART_POLE_GRIDS = _paced(3.0, 5.0, 10.0, thresholds=(10.0, 20.0, 40.0), steps=(1.0, 2.0))
SYSTEM_GRIDS = _paced(5.0, 10.0, 20.0, thresholds=(5.0, 10.0, 20.0), steps=(1.0, 1.6))
PENDULUM_GRIDS = _paced(2.0, 3.0, 5.0, thresholds=(2.5, 5.0, 10.0), steps=(1.0, 1.6))


def _navigation(
    number: int,
    num_agents: int,
    hidden: tuple[int, ...],
    batch_size: int,
    rounds: int,
    tuned: dict[str, Choice],
    step: float,
    claim: str,
    *,
    activation: Literal["relu", "softplus"] = "relu",
    momentum: float | None = 0.6,
    heterogeneous: bool = True,
) -> Figure:
    """A figure of section 5 of the paper."""
    words = ["heterogeneous" if heterogeneous else "homogeneous", f"momentum {momentum}" if momentum else "no momentum"]
    return Figure(
        name=f"fig{number}",
        title=", ".join([f"Figure {number}: {num_agents} agents", activation, *words]),
        problem=Part(
            "cooperative_navigation", num_agents=num_agents, scales=SCALES[num_agents] if heterogeneous else None
        ),
        policy=Part(hidden=hidden, activation=activation),
        batch_size=batch_size,
        rounds=rounds,
        tuned=tuned,
        step=step,
        claim=claim,
        momentum=momentum,
    )


PAPER = (
    _navigation(3, 2, (30, 10), 10, 3000, tuned.TWO_AGENTS, 0.0025, "observable", momentum=None),
    _navigation(4, 2, (30, 10), 10, 3000, tuned.TWO_AGENTS, 0.0025, "significantly smaller"),
    _navigation(5, 2, (30, 10), 10, 3000, tuned.TWO_AGENTS, 0.0025, "significantly smaller", heterogeneous=False),
    _navigation(6, 5, (50, 20), 8, 3500, tuned.FIVE_AGENTS, 0.0015, "sizable"),
    _navigation(7, 5, (50, 20), 8, 3500, tuned.FIVE_SOFTPLUS_AGENTS, 0.0011, "much fewer", activation="softplus"),
)


def _parallel(
    name: str,
    problem: str,
    batch_size: int,
    rounds: int,
    *,
    alike: dict[str, Choice],
    different: dict[str, Choice],
    step: float,
    kl_limits: tuple[float, float],
    grids: dict[str, Grid],
) -> tuple[Figure, Figure]:
    """Parallel RL with M = 16 learners that are alike (heterogeneity 0) and that differ (1), each tuned by itself.

    What every method may tune is not the decay of its steps but their limit (nats an episode).
    """

    def one(word: str, heterogeneity: float, tuned: dict[str, Choice]) -> Figure:
        return Figure(
            name=f"{name}-{word}",
            title=f"Parallel RL, {problem.replace('_', ' ')}: 16 learners, {word}",
            problem=Part(problem, num_learners=16, heterogeneity=heterogeneity),
            batch_size=batch_size,
            rounds=rounds,
            tuned=tuned,
            step=step,
            shared={"step_limit.limit": kl_limits},
            grids=grids,
        )

    return one("homogeneous", 0.0, alike), one("heterogeneous", 1.0, different)


PARALLEL = {
    "parallel-cartpole": _parallel(
        "parallel-cartpole",
        "cart_pole",
        8,
        250,
        alike=tuned.CART_POLES,
        different=tuned.CART_POLES,
        step=1.5e-4,
        kl_limits=(20.0, 80.0),
        grids=CART_POLE_GRIDS,
    ),
    "parallel-pendulum": _parallel(
        "parallel-pendulum",
        "pendulum",
        4,
        1200,
        alike=tuned.PENDULUMS,
        different=tuned.MIXED_PENDULUMS,
        step=1e-5,
        kl_limits=(20.0, 80.0),
        grids=PENDULUM_GRIDS,
    ),
    "parallel-lqr": _parallel(
        "parallel-lqr",
        "linear_quadratic",
        2,
        600,
        alike=tuned.SYSTEMS,
        different=tuned.MIXED_SYSTEMS,
        step=1.2e-4,
        kl_limits=(5.0, 80.0),
        grids=SYSTEM_GRIDS,
    ),
}
SCALES_APART = Figure(
    name="scales-apart",
    title="Noisy quadratics: 32 learners whose losses differ in scale by three decades",
    problem=Part("quadratic", num_learners=32, scales=tuple(10 ** (-3 * m / 31) for m in range(32)), noise=14.0),
    batch_size=2,
    rounds=500,
    tuned=tuned.SCALES_APART,
    step=0.02,
    estimator=Part("noisy"),
    shared={"optimiser.decay": (0.0, 5e-3)},
    grids=_paced(20.0, 40.0, 80.0, thresholds=(30.0, 60.0, 120.0), steps=(1.0, 2.0)),
)


GROUPS = {"all": tuple(figure.name for figure in PAPER)} | {
    name: tuple(figure.name for figure in pair) for name, pair in PARALLEL.items()
}
"""Names that stand for several experiments."""
FIGURES = {
    figure.name: figure for figure in (*PAPER, *(figure for pair in PARALLEL.values() for figure in pair), SCALES_APART)
}


def reproducible() -> dict[str, Figure]:
    """All that `lapg reproduce` plays, by name."""
    return FIGURES | {figure.name: figure for pair in ON_PPO.values() for figure in pair}


def names_of(asked: str) -> tuple[str, ...]:
    """The experiments that a name stands for."""
    groups = GROUPS | {name: tuple(figure.name for figure in pair) for name, pair in ON_PPO.items()}
    return groups.get(asked, (asked,))


@dataclass(frozen=True)
class Entry:
    """One curve of a figure. ``rate_of`` names the entry whose measured upload fraction becomes this one's ``trigger.rate``."""

    label: str
    config: Config
    rate_of: str | None = None


def _with_momentum(method: Choice, momentum: float | None) -> Choice:
    """Heavy ball at an unchanged effective step α/(1−β)."""
    if momentum is None:
        return method
    step = method.optimiser.options["step_size"] * (1 - momentum)
    return method.but(optimiser=Part("sgd", step_size=step, momentum=momentum))


def setting(figure: Figure) -> Config:
    """All of preset recommended but its methods."""
    return Config(
        problem=figure.problem,
        policy=figure.policy,
        rollout=figure.rollout,
        estimator=figure.estimator,
        evaluation=figure.evaluation,
        batch_size=figure.batch_size,
        rounds=figure.rounds,
    )


def contenders(figure: Figure, labels: Iterable[str]) -> tuple[list[Contender], float]:
    """Methods as they are tuned in a figure's setting, and the unit of PG's steps there.

    Raises:
      ValueError: there is no such method.
    """
    found = [contender(label, shared=figure.shared, own=figure.grids) for label in labels]
    return [one.under(figure.momentum) for one in found], figure.step * (1 - (figure.momentum or 0.0))


def methods(figure: Figure, preset: Preset) -> tuple[Part, dict[str, Choice]]:
    """The estimator of a preset and its methods by label, without the random baseline.

    Raises:
      ValueError: the experiment has no such preset.
    """
    if preset not in figure.presets:
        raise ValueError(f"preset of {figure.name} must be one of {', '.join(figure.presets)}, got {preset!r}.")
    if preset == "recommended":
        return setting(figure).estimator, {
            label: _with_momentum(method, figure.momentum) for label, method in figure.tuned.items()
        }
    momentum = {} if figure.momentum is None else {"momentum": figure.momentum}
    step = Part("sgd", step_size=0.01, **momentum)
    pg = Choice("pg", optimiser=step)

    def lapg(c: float, **trigger: Any) -> Choice:
        return Choice("lapg", optimiser=step, trigger=Part(xi=XI, noise_weight=c, **trigger))

    if preset == "literal":
        literal = lapg(6.0, noise_bound="printed", strict=False)
        return Part("gpomdp", baseline="none", time_average=False), {"PG": pg, "LAPG": literal}
    return Part("gpomdp", baseline="none", time_average=True), {
        "PG": pg,
        "LAPG": lapg(1.0),
        "LAPG c=0": lapg(0.0),
        "LAPG c=6": lapg(6.0),
    }


def lineup(
    figure: Figure,
    preset: Preset,
    *,
    seeds: int | None = None,
    first_seed: int | None = None,
    rounds: int | None = None,
) -> list[Entry]:
    """The entries of a figure under a preset; where there is a recommended method, random uploads at its measured rate come last."""
    estimator, chosen = methods(figure, preset)
    common = replace(
        setting(figure),
        estimator=estimator,
        rounds=figure.rounds if rounds is None else rounds,
        seeds=10 if seeds is None else seeds,
        first_seed=figure.first_seed if first_seed is None else first_seed,
    )
    entries = [Entry(label, common.playing(method)) for label, method in chosen.items()]
    if RECOMMENDED in chosen:
        same = {kind: chosen[RECOMMENDED].parts[kind] for kind in ("local", "memory", "compressor")}
        matched = replace(chosen[RECOMMENDED], method="random", trigger=Part(), **same)
        entries.append(Entry("random", common.playing(matched), rate_of=RECOMMENDED))
    return entries
