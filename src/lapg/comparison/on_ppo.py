"""Experiments whose learners train with PPO: settings, the methods that run in them, and the grids from which their numbers were chosen."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lapg.comparison.figure import Figure
from lapg.experiments.config import Choice, EvaluationConfig
from lapg.methods import Part

REFERENCE = "PPO"
"""Everybody's displacement, whole, averaged every round."""
ANNEALED = Part(anneal=True)
CODED = Part("top_k", fraction=0.1, bits=4)
ALONE: dict[str, Any] = {"local": ANNEALED, "compressor": CODED, "downlink": Part("forwarded")}
TOGETHER: dict[str, Any] = ALONE | {"downlink": Part("replicated", compressor=CODED)}
"""What rules share: step sizes that end at 0, and messages of the largest tenth of the entries at 4 bits, both ways; the rest waits."""


class Rule(NamedTuple):
    """Who uploads when: a method, the name of the number that it has beside the controller's step, and the values of both that are tried.

    ``steps`` are in units of the mean of all learners, and where ``alone`` in those of one learner's whole way, M times as much.
    """

    method: Choice
    number: str
    steps: tuple[float, ...]
    numbers: tuple[float, ...]
    alone: bool = False

    def chosen(self, step: float, number: float) -> Choice:
        """The method with these numbers."""
        kind, option = self.number.split(".")
        return self.method.but(**{"optimiser": Part(step_size=step), kind: Part(**{option: number})})


PERIODS, RATES = (2.0, 4.0, 8.0, 16.0), (1 / 16, 1 / 32, 1 / 64, 1 / 128)
STAGGERED = Part("periodic", phase="staggered")
RULES: dict[str, Rule] = {
    "SCOUT PPO": Rule(Choice("scout_ppo", **ALONE), "trigger.threshold", (0.5, 1.0), (5.0, 10.0, 20.0, 40.0), True),
    "staggered PPO": Rule(
        Choice("ppo", trigger=STAGGERED, **ALONE), "trigger.period", (0.5, 1.0), (16.0, 32.0, 64.0, 128.0), True
    ),
    "periodic PPO": Rule(Choice("ppo", trigger=Part("periodic"), **TOGETHER), "trigger.period", (1.0, 1.5), PERIODS),
    "random PPO": Rule(Choice("ppo", trigger=Part("random"), **ALONE), "trigger.rate", (0.5, 1.0), RATES, True),
    "DiLoCo": Rule(Choice("diloco", **TOGETHER), "trigger.period", (0.5, 0.7), PERIODS),
}
"""The rules of every experiment."""
RIVALS: dict[str, Rule] = {
    "staggered DiLoCo": Rule(
        Choice("staggered_diloco", **ALONE), "trigger.period", (0.05, 0.1), (16.0, 32.0, 64.0, 128.0), True
    ),
    "MuLoCo": Rule(Choice("muloco", **TOGETHER), "trigger.period", (0.5, 0.7), PERIODS),
    "SparseLoCo": Rule(Choice("sparseloco", local=ANNEALED), "trigger.period", (0.7, 1.0), PERIODS),
    "PULSELoCo": Rule(Choice("pulseloco", local=ANNEALED), "trigger.period", (0.5, 0.7), PERIODS),
    "ProxSkip": Rule(Choice("proxskip", local=ANNEALED), "trigger.rate", (1.0, 1.5), (1 / 2, 1 / 4, 1 / 8, 1 / 16)),
    "FedBack": Rule(Choice("fedback", **ALONE), "trigger.rate", (0.5, 1.0), RATES, True),
    "FDA": Rule(Choice("fda", local=ANNEALED), "trigger.threshold", (1.0, 1.5), (0.1, 0.3, 1.0, 3.0)),
    "optimal sampling": Rule(Choice("optimal_sampling", local=ANNEALED), "trigger.rate", (0.5, 1.0), (1 / 16, 1 / 8, 1 / 4, 1 / 2)),
}  # fmt: skip
"""Methods of others, as they were published, or with the messages above where they say nothing of messages."""


def _methods(rules: Mapping[str, Rule], numbers: Mapping[str, tuple[float, float]]) -> dict[str, Choice]:
    """The methods of an experiment by label: PPO, and those whose numbers are known."""
    found = {label: rules[label].chosen(*given) for label, given in numbers.items()}
    return {REFERENCE: Choice("ppo", local=ANNEALED)} | found


def _pair(
    name: str,
    title: str,
    problem: Part,
    rounds: int,
    numbers: Mapping[str, tuple[float, float]],
    *,
    batch_size: int = 2,
    num_steps: int = 128,
    policy: Part = Part("actor"),
    estimator: Part = Part("ppo"),
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
            policy=policy,
            rollout=Part("segments", num_steps=num_steps),
            estimator=estimator,
            evaluation=EvaluationConfig(every=every, episodes=episodes),
            batch_size=batch_size,
            rounds=rounds,
            tuned=_methods(RULES | RIVALS, numbers),
            step=1.0,
            reference=REFERENCE,
            **others,
        )

    return one("homogeneous", 0.0), one("heterogeneous", 1.0)


_SOME = {
    "SCOUT PPO": (8.0, 10.0),
    "staggered PPO": (8.0, 32.0),
    "periodic PPO": (1.0, 4.0),
    "random PPO": (8.0, 1 / 32),
    "DiLoCo": (0.7, 4.0),
}
ON_PPO = {
    "ppo-cartpole": _pair(
        "ppo-cartpole", "cart pole", Part("cart_pole", num_learners=16), 72, _SOME, first_seed=40
    ),  # 30 to 39 were looked at with earlier settings
    "ppo-acrobot": _pair("ppo-acrobot", "acrobot", Part("acrobot", num_learners=16), 60, _SOME),
    "ppo-minatar": _pair(
        "ppo-minatar",
        "MinAtar's Breakout",
        Part("minatar", env="Breakout", num_learners=8),
        100,
        _SOME,
        batch_size=4,
        every=4,
    ),
    "ppo-spread": _pair(
        "ppo-spread",
        "simple_spread",
        Part("simple_spread", num_learners=8),
        200,
        _SOME,
        batch_size=8,
        num_steps=50,
        every=4,
        episodes=4,
    ),
}
"""Experiments by name. They are reproduced; `lapg tune` and `lapg compare` know nothing of them."""
