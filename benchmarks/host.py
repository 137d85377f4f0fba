"""Where the time of a run on a host environment goes: CartPole-v1 of Gymnasium, trained with LAPG.

    python benchmarks/host.py [--rounds 20] [--repeats 5] [--environments 8 64]

For so many sub-environments in all: the share of the time outside of the environments' own step. That is the whole run without any timer in it, beside
the very same steps (same environments, seeds, actions, order) with nothing else around them; both take turns, and medians count. Then shares of the
compiled act and of the compiled end of a round (finish: log-probabilities, gradients, uploads; controller), from a run of their own with timers, and what
is left: Python between environments and policy, and resets. Once for episodes as the policy makes them, and once for episodes that always last T steps:
where they end early, env.step is called less and everything else weighs more.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from lapg import Config
from lapg.experiments.build import build
from lapg.experiments.train import make_lanes
from lapg.methods import Part
from lapg.runtimes import use_all_cores

NUM_STEPS, NUM_LEARNERS = 200, 4
Episode = tuple[int, list[int]]
"""A seed and the actions that followed."""
played: list[list[Episode]] = []
"""By environment, in a run that is recorded."""


class Recorded(gymnasium.Wrapper):
    """Takes down what is played."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._episodes: list[Episode] = []
        played.append(self._episodes)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self._episodes.append((seed, []))
        return self.env.reset(seed=seed)

    def step(self, action: int) -> Any:
        self._episodes[-1][1].append(action)
        return self.env.step(action)


def cart_pole(endless: bool, record: bool = False) -> gymnasium.Env:
    """CartPole-v1; if endless, poles may lie down."""
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    if endless:
        env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = np.inf
    return Recorded(env) if record else env


def timed(spent: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments, **options))
        spent.append(time.perf_counter() - start)
        return result

    return call


class Run:
    """The run, ready to be played again and again from the same state; with timers of act and finish if ``spent`` is given."""

    def __init__(
        self,
        num_environments: int,
        rounds: int,
        endless: bool,
        record: bool = False,
        spent: dict[str, list[float]] | None = None,
    ) -> None:
        config = Config(
            problem=Part(
                "gymnasium",
                env=f"{__name__}:cart_pole",
                num_learners=NUM_LEARNERS,
                num_steps=NUM_STEPS,
                env_options={"endless": endless, "record": record},
            ),
            method="lapg",
            optimiser=Part("sgd", step_size=0.01),
            batch_size=num_environments // NUM_LEARNERS,
            rounds=rounds + 1,
            seeds=1,
            chunk_rounds=rounds,
        )
        built = build(config)
        if spent is not None:
            collect = built.problem.collect
            problem = built.problem._replace(
                collect=lambda act, *rest, **who: collect(timed(spent["act"], act), *rest, **who)
            )
            built = built._replace(problem=problem)
        self._lanes, self._rounds = make_lanes(config, built), rounds
        if spent is not None:
            self._lanes._finish = timed(spent["finish"], self._lanes._finish)
            self._lanes._sampler.answer = timed(spent["finish"], self._lanes._sampler.answer)
        self._state, _ = self._lanes.advance(self._lanes.start(), 0, 1)

    def seconds(self) -> float:
        start = time.perf_counter()
        self._lanes.advance(self._state, 1, self._rounds + 1)
        return time.perf_counter() - start


def replayed(environments: list[gymnasium.Env], rounds: list[tuple[Episode, ...]]) -> float:
    """Seconds of the same steps, without those of the resets."""
    total = 0.0
    for episodes in rounds:
        for env, (seed, _) in zip(environments, episodes, strict=True):
            env.reset(seed=seed)
        lengths = [len(actions) for _, actions in episodes]
        turns = [
            [
                (env.step, actions[t])
                for env, (_, actions) in zip(environments, episodes, strict=True)
                if t < len(actions)
            ]
            for t in range(max(lengths))
        ]
        start = time.perf_counter()
        for turn in turns:
            for step, action in turn:
                step(action)
        total += time.perf_counter() - start
    return total


def measure(num_environments: int, endless: bool, rounds: int, repeats: int) -> dict[str, float]:
    played.clear()
    spent: dict[str, list[float]] = {"act": [], "finish": []}
    recorded = Run(num_environments, rounds, endless, record=True)
    for episodes in played:
        episodes.clear()
    recorded.seconds()
    script = list(zip(*[episodes for episodes in played if episodes], strict=True))
    plain, inside = Run(num_environments, rounds, endless), Run(num_environments, rounds, endless, spent=spent)
    environments = [cart_pole(endless) for _ in range(num_environments)]
    both = [(plain.seconds(), replayed(environments, script)) for _ in range(repeats)]
    total, steps = np.median(both, 0)
    for calls in spent.values():
        calls.clear()
    whole = inside.seconds()
    act, finish = (sum(calls) / whole for calls in spent.values())
    outside = float(np.median([1 - own / all for all, own in both]))
    lengths = [len(actions) for episodes in script for _, actions in episodes]
    return {
        "length": float(np.mean(lengths)),
        "total": total,
        "step": steps,
        "outside": outside,
        "act": act,
        "finish": finish,
        "rest": outside - act - finish,
    }


def main(rounds: int, repeats: int, environments: list[int]) -> None:
    use_all_cores()
    table = Table("sub-environments", "mean length", "run, s", "env.step, s", "outside", "act", "finish", "rest")
    for endless in (False, True):
        for num in environments:
            found = measure(num, endless, rounds, repeats)
            table.add_row(
                str(num),
                f"{found['length']:.0f}",
                f"{found['total']:.2f}",
                f"{found['step']:.2f}",
                *(f"{found[name]:.0%}" for name in ("outside", "act", "finish", "rest")),
            )
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--environments", type=int, nargs="+", default=[8, 64])
    given = parser.parse_args()
    main(given.rounds, given.repeats, given.environments)
