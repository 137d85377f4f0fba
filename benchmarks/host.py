"""Where the time of a run on a host environment goes: CartPole-v1 of Gymnasium, trained with LAPG.

    python benchmarks/host.py [--rounds 20]

For 8 and 64 sub-environments in all: seconds spent in the environments' step and reset, in the compiled act, in the compiled rest of a round (finish:
log-probabilities, gradients, uploads, controller), and in everything else; and the share outside of env.step. Once for episodes as the policy makes
them, and once for episodes that always last T steps: where they end early, env.step is called less and everything else weighs more.
"""

import argparse
import time
from collections import Counter
from typing import Any

import gymnasium
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from lapg import Config, MethodConfig, ProblemConfig
from lapg.experiments.build import build
from lapg.experiments.run import make_lanes
from lapg.runtimes import use_all_cores

NUM_STEPS = 200
clock: Counter[str] = Counter()


class Timed(gymnasium.Wrapper):
    """Adds up the seconds of reset and step; with ``endless`` poles may lie down."""

    def __init__(self, env: Any, endless: bool) -> None:
        super().__init__(env)
        self.endless = endless

    def reset(self, **options: Any) -> Any:
        start = time.perf_counter()
        result = self.env.reset(**options)
        clock["reset"] += time.perf_counter() - start
        return result

    def step(self, action: Any) -> Any:
        start = time.perf_counter()
        observation, reward, terminated, truncated, info = self.env.step(action)
        clock["step"] += time.perf_counter() - start
        clock["steps"] += 1
        return observation, reward, terminated and not self.endless, truncated, info


def cart_pole(endless: bool) -> gymnasium.Env:
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    if endless:
        env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = np.inf
    return Timed(env, endless)


def timed(name: str, function: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments, **options))
        clock[name] += time.perf_counter() - start
        return result

    return call


def measure(num_environments: int, endless: bool, rounds: int) -> dict[str, float]:
    config = Config(
        problem=ProblemConfig(
            "gymnasium",
            env=f"{__name__}:cart_pole",
            num_learners=4,
            num_steps=NUM_STEPS,
            options={"env_options": {"endless": endless}},
        ),
        method=MethodConfig("lapg", 0.01),
        batch_size=num_environments // 4,
        rounds=rounds + 1,
        seeds=1,
        chunk_rounds=rounds,
    )
    built = build(config)
    collect = built.problem.collect
    problem = built.problem._replace(collect=lambda act, *rest: collect(timed("act", act), *rest))
    lanes = make_lanes(config, built._replace(problem=problem))
    lanes._finish = timed("finish", lanes._finish)
    state, _ = lanes.advance(lanes.start(), 0, 1)
    clock.clear()
    start = time.perf_counter()
    lanes.advance(state, 1, rounds + 1)
    total = time.perf_counter() - start
    spent = {name: clock[name] / total for name in ("step", "act", "reset", "finish")}
    return spent | {
        "rest": 1 - sum(spent.values()),
        "total": total,
        "length": clock["steps"] / rounds / num_environments,
    }


def main(rounds: int) -> None:
    use_all_cores()
    table = Table("sub-environments", "mean length", "seconds", "env.step", "outside", "act", "reset", "finish", "rest")
    for endless in (False, True):
        for num in (8, 64):
            spent = measure(num, endless, rounds)
            shares = [spent["step"], 1 - spent["step"], *(spent[name] for name in ("act", "reset", "finish", "rest"))]
            table.add_row(
                str(num), f"{spent['length']:.0f}", f"{spent['total']:.2f}", *(f"{share:.0%}" for share in shares)
            )
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    main(parser.parse_args().rounds)
