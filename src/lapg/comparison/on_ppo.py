"""Experiments whose learners train with PPO: settings, the methods that run in them, and the grids from which their numbers were chosen."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lapg.comparison.figure import Figure
from lapg.experiments.config import Choice, EvaluationConfig
from lapg.methods import Part

REFERENCE = "PPO"
"""Everybody's displacement, whole, averaged every round."""
ANNEALED = Part(anneal=True)
BITS, ENTRIES = Part("quantise", bits=4), Part("top_k", fraction=0.03, bits=2)
"""What uploads are: all entries at 4 bits, or the largest 3 % at 2 bits; the rest waits."""


def _alone(messages: Part) -> dict[str, Any]:
    """Step sizes that end at 0, and uploads that are passed on as they come."""
    return {"local": ANNEALED, "compressor": messages, "downlink": Part("forwarded")}


def _together(messages: Part) -> dict[str, Any]:
    """The same for learners that upload together, whose total is sent as one such message."""
    return _alone(messages) | {"downlink": Part("replicated", compressor=messages)}


Steps = tuple[tuple[float, ...], tuple[float, ...]]
Point = tuple[float, float]
"""The controller's step and a rule's own number, in the units of `Rule`."""


class Rule(NamedTuple):
    """Who uploads when: a method, the name of the number that it has beside the controller's step, and the values of both that are tried.

    ``steps`` are in units of the mean of all learners, and where ``alone`` in those of one learner's whole way, M times as much.
    """

    method: Choice
    number: str
    steps: tuple[float, ...]
    numbers: tuple[float, ...]
    alone: bool = False

    def chosen(self, point: Point, num_learners: int) -> Choice:
        """The method with these numbers."""
        kind, option = self.number.split(".")
        step = point[0] * (num_learners if self.alone else 1)
        return self.method.but(**{"optimiser": Part(step_size=step), kind: Part(**{option: point[1]})})


PERIODS, ONE_BY_ONE = (2.0, 4.0, 8.0, 16.0), (16.0, 32.0, 64.0, 128.0)


def _rates(periods: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(1 / period for period in periods)


def _rules(
    messages: dict[str, Any], suffix: str, thresholds: tuple[float, ...], periods: tuple[float, ...], steps: Steps
) -> dict[str, Rule]:
    """SCOUT and the schedules, all with the same messages; ``periods`` of learners that upload one by one, ``steps`` of those, and of them together."""
    staggered, (alone, together) = Part("periodic", phase="staggered"), steps
    return {
        f"SCOUT PPO{suffix}": Rule(Choice("scout_ppo", **messages), "trigger.threshold", alone, thresholds, True),
        f"staggered PPO{suffix}": Rule(
            Choice("ppo", trigger=staggered, **messages), "trigger.period", alone, periods, True
        ),
        f"periodic PPO{suffix}": Rule(
            Choice("ppo", trigger=Part("periodic"), **messages | _together(messages["compressor"])),
            "trigger.period",
            together,
            PERIODS,
        ),
        f"random PPO{suffix}": Rule(
            Choice("ppo", trigger=Part("random"), **messages), "trigger.rate", alone, _rates(periods), True
        ),
    }


MERGED = _together(ENTRIES) | {"upload_every": 2}
RULES = _rules(_alone(BITS), "", (10.0, 20.0, 40.0, 80.0), ONE_BY_ONE, ((0.5, 1.0), (1.5, 2.5))) | _rules(
    MERGED, " 3 %", (0.625, 1.25, 2.5, 5.0), (4.0, 8.0, 16.0, 32.0), ((0.5, 1.0), (4.0, 8.0))
)
"""Those of every experiment: with 4 bits for few uploads, with 3 % of the entries, in every second round, for few bits both ways."""
RIVALS: dict[str, Rule] = {
    "DiLoCo": Rule(Choice("diloco", **_together(BITS)), "trigger.period", (0.5, 0.7), PERIODS),
    "staggered DiLoCo": Rule(
        Choice("staggered_diloco", **_alone(BITS)), "trigger.period", (0.05, 0.1), ONE_BY_ONE, True
    ),
    "MuLoCo": Rule(Choice("muloco", **_together(BITS)), "trigger.period", (0.5, 0.7), PERIODS),
    "SparseLoCo": Rule(Choice("sparseloco", local=ANNEALED), "trigger.period", (0.7, 1.0), PERIODS),
    "PULSELoCo": Rule(Choice("pulseloco", local=ANNEALED), "trigger.period", (0.5, 0.7), PERIODS),
    "ProxSkip": Rule(Choice("proxskip", local=ANNEALED), "trigger.rate", (1.0, 1.5), _rates(PERIODS)),
    "FedBack": Rule(Choice("fedback", **_alone(BITS)), "trigger.rate", (0.5, 1.0), _rates(ONE_BY_ONE), True),
    "FDA": Rule(Choice("fda", local=ANNEALED), "trigger.threshold", (1.0, 1.5), (0.1, 0.3, 1.0, 3.0)),
    "optimal sampling": Rule(
        Choice("optimal_sampling", local=ANNEALED), "trigger.rate", (0.5, 1.0), (0.1, 0.2, 0.4, 0.8)
    ),
}
"""Methods of others, as they were published, at 4 bits where they say nothing of messages."""


def _methods(points: Mapping[str, Point], num_learners: int) -> dict[str, Choice]:
    """The methods of an experiment by label: PPO, and those whose numbers are known."""
    found = {label: (RULES | RIVALS)[label].chosen(point, num_learners) for label, point in points.items()}
    return {REFERENCE: Choice("ppo", local=ANNEALED)} | found


def _pair(
    name: str,
    title: str,
    problem: Part,
    rounds: int,
    points: Mapping[str, Point],
    *,
    batch_size: int = 2,
    num_steps: int = 128,
    every: int = 2,
    episodes: int = 1,
    **others: Any,
) -> tuple[Figure, Figure]:
    """An experiment with learners that are alike, and that differ; a round is a segment of ``num_steps`` steps of ``batch_size`` environments."""

    def one(word: str, heterogeneity: float) -> Figure:
        return Figure(
            name=f"{name}-{word}",
            title=f"PPO, {title}: {problem.options['num_learners']} learners, {word}",
            problem=Part(problem.name, **problem.options, heterogeneity=heterogeneity),
            policy=Part("actor"),
            rollout=Part("segments", num_steps=num_steps),
            estimator=Part("ppo"),
            evaluation=EvaluationConfig(every=every, episodes=episodes),
            batch_size=batch_size,
            rounds=rounds,
            tuned=_methods(points, problem.options["num_learners"]),
            step=1.0,
            reference=REFERENCE,
            **others,
        )

    return one("homogeneous", 0.0), one("heterogeneous", 1.0)


BODIES = {"ppo-hopper": ("hopper", 300), "ppo-halfcheetah": ("half_cheetah", 300)}
"""MuJoCo's, by experiment: the problem, and K."""
POINTS = {
    "SCOUT PPO": (0.5, 20.0),
    "staggered PPO": (0.5, 16.0),
    "periodic PPO": (1.5, 8.0),
    "random PPO": (0.5, 1 / 16),
    "SCOUT PPO 3 %": (0.5, 1.25),
    "staggered PPO 3 %": (1.0, 4.0),
    "periodic PPO 3 %": (4.0, 4.0),
    "random PPO 3 %": (1.0, 1 / 4),
    "DiLoCo": (0.7, 8.0),
}
"""Chosen by benchmarks/ppo_tuning.py on cart poles that differ, and taken over by the others."""
ON_PPO = {
    "ppo-cartpole": _pair(
        "ppo-cartpole", "cart pole", Part("cart_pole", num_learners=16), 72, POINTS, first_seed=40
    ),  # 30 to 39 were looked at with earlier settings
    "ppo-acrobot": _pair("ppo-acrobot", "acrobot", Part("acrobot", num_learners=16), 60, POINTS),
    "ppo-minatar": _pair(
        "ppo-minatar",
        "MinAtar's Breakout",
        Part("minatar", env="Breakout", num_learners=8),
        100,
        POINTS,
        batch_size=4,
        every=4,
    ),
    "ppo-spread": _pair(
        "ppo-spread",
        "simple_spread",
        Part("simple_spread", num_learners=8),
        160,
        POINTS,
        batch_size=4,
        num_steps=50,
        every=4,
        episodes=4,
    ),
} | {
    name: _pair(name, problem.replace("_", " "), Part(problem, num_learners=8), rounds, POINTS, every=10)
    for name, (problem, rounds) in BODIES.items()
}
"""Experiments by name. They are reproduced; `lapg tune` and `lapg compare` know nothing of them."""
