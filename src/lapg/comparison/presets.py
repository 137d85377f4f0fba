"""Ready-made experiments as data: the paper's five figures, and three problems of parallel RL like them.

The paper gives M, the networks, N, T, γ, and α and β from Figure 4 on. Everything else is our choice, documented here and in docs/reproduction.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lapg.comparison import tuned
from lapg.comparison.grids import SHARED, XI, Contender, Grid, contender
from lapg.experiments.config import Choice, Config, EvaluationConfig
from lapg.methods import Part

RECOMMENDED = "SCOUT"
"""The label of the recommended method."""
REPORTED_SEED = 30
"""First of the seeds that are reported by default. Seeds 0 to 29 were looked at while settings were chosen; `lapg tune` plays seeds from 1000."""
Preset = Literal["literal", "paper", "recommended"]
PRESETS: tuple[Preset, ...] = ("literal", "paper", "recommended")
SCALES = {2: (1.0, 0.5), 5: (1.0, 0.5, 0.25, 0.12, 0.06)}
"""Heterogeneous loss scales c_m of the paper's figures; it does not print its own."""


@dataclass(frozen=True)
class Figure:
    """One experiment: a setting, and the methods that run in it."""

    name: str
    title: str
    problem: Part
    batch_size: int
    rounds: int
    """K; enough by the protocol: PG improves by less than 2 % in the last fifth."""
    tuned: dict[str, Choice] = field(repr=False)
    """Methods of preset recommended by label, tuned on seeds that are never reported."""
    step: float
    """The step size about which PG's is sought."""
    policy: Part = Part()
    rollout: Part = Part()
    estimator: Part = Part("gpomdp", baseline="leave_one_out")
    """Of preset recommended."""
    evaluation: EvaluationConfig = field(default_factory=lambda: EvaluationConfig(every=1))
    reference: str = "PG"
    """The method beside which the others are put."""
    shared: Grid = field(default_factory=lambda: SHARED, repr=False)
    """The number that every method may tune beside its step and one of its own."""
    grids: dict[str, Grid] = field(default_factory=dict, repr=False)
    """Values of methods' own numbers, where those of `lapg.comparison.grids.KNOWN` do not fit."""
    claim: str | None = None
    """The paper's word for its saving in uploads; None where the paper has no such figure."""
    momentum: float | None = None

    @property
    def presets(self) -> tuple[Preset, ...]:
        """Those that make sense here: the paper's own only where there is a figure of the paper."""
        return PRESETS if self.claim else ("recommended",)


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


def _on_ppo(
    name: str,
    title: str,
    problem: Part,
    rounds: int,
    *,
    batch_size: int = 2,
    num_steps: int = 128,
    estimator: Part = Part("ppo"),
    evaluation: EvaluationConfig | None = None,
    tuned: dict[str, Choice] = tuned.ON_PPO,
) -> tuple[Figure, Figure]:
    """PPO at learners that are alike, and that differ; a round is a segment of ``num_steps`` steps of ``batch_size`` environments."""

    def one(word: str, heterogeneity: float) -> Figure:
        return Figure(
            name=f"{name}-{word}",
            title=f"PPO, {title}: {problem.options['num_learners']} learners, {word}",
            problem=Part(problem.name, **problem.options, heterogeneity=heterogeneity),
            policy=Part("actor"),
            rollout=Part("segments", num_steps=num_steps),
            estimator=estimator,
            evaluation=evaluation or EvaluationConfig(every=2, episodes=1),
            batch_size=batch_size,
            rounds=rounds,
            tuned=tuned,
            step=1.0,
            reference="PPO",
        )

    return one("homogeneous", 0.0), one("heterogeneous", 1.0)


ON_PPO = {
    "ppo-cartpole": _on_ppo("ppo-cartpole", "cart pole", Part("cart_pole", num_learners=16), 72),
    "ppo-acrobot": _on_ppo("ppo-acrobot", "acrobot", Part("acrobot", num_learners=16), 60),
    "ppo-minatar": _on_ppo(
        "ppo-minatar",
        "MinAtar's Breakout",
        Part("minatar", env="Breakout", num_learners=8),
        100,
        batch_size=4,
        evaluation=EvaluationConfig(every=4, episodes=1),
    ),
    "ppo-spread": _on_ppo(
        "ppo-spread",
        "simple_spread",
        Part("simple_spread", num_learners=8),
        200,
        batch_size=8,
        num_steps=50,
        evaluation=EvaluationConfig(every=4, episodes=4),
    ),
}
"""Experiments whose learners train with PPO. They are reproduced; `lapg tune` and `lapg compare` know nothing of them."""
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
    first_seed: int = REPORTED_SEED,
    rounds: int | None = None,
) -> list[Entry]:
    """The entries of a figure under a preset; where there is a recommended method, random uploads at its measured rate come last."""
    estimator, chosen = methods(figure, preset)
    common = replace(
        setting(figure),
        estimator=estimator,
        rounds=figure.rounds if rounds is None else rounds,
        seeds=10 if seeds is None else seeds,
        first_seed=first_seed,
    )
    entries = [Entry(label, common.playing(method)) for label, method in chosen.items()]
    if RECOMMENDED in chosen:
        same = {kind: chosen[RECOMMENDED].parts[kind] for kind in ("local", "memory", "compressor")}
        matched = replace(chosen[RECOMMENDED], method="random", trigger=Part(), **same)
        entries.append(Entry("random", common.playing(matched), rate_of=RECOMMENDED))
    return entries
