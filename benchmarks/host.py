"""Where the time of a run on a host environment goes: CartPole-v1 of Gymnasium, trained with LAPG.

    python benchmarks/host.py [--rounds 20]

For 8 and 64 sub-environments in all: seconds spent in the environments' step and reset, in the compiled act, in the compiled rest of a round (finish:
log-probabilities, gradients, uploads, controller), and in everything else, the timers included; and the share outside of env.step. Once for episodes as
the policy makes them, and once for episodes that always last T steps: where they end early, env.step is called less and everything else weighs more.
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

from lapg import Config, MethodConfig, ProblemConfig
from lapg.experiments.build import build
from lapg.experiments.run import make_lanes
from lapg.runtimes import use_all_cores

NUM_STEPS = 200
spent: dict[str, list[float]] = {"step": [], "act": [], "reset": [], "finish": []}


def timed(name: str, function: Callable[..., Any]) -> Any:
    put_down = spent[name].append

    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments, **options))
        put_down(time.perf_counter() - start)
        return result

    return call


class Timed(gymnasium.Wrapper):
    """An environment whose reset and step are timed, with as little else as can be: the timer itself counts as the rest."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        now, advance, put_down = time.perf_counter, env.step, spent["step"].append

        def step(action: Any) -> Any:
            start = now()
            result = advance(action)
            put_down(now() - start)
            return result

        self.reset, self.step = timed("reset", env.reset), step


def cart_pole(endless: bool) -> gymnasium.Env:
    """CartPole-v1; if endless, poles may lie down."""
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    if endless:
        env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = np.inf
    return Timed(env)


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
    for calls in spent.values():
        calls.clear()
    start = time.perf_counter()
    lanes.advance(state, 1, rounds + 1)
    total = time.perf_counter() - start
    shares = {name: sum(calls) / total for name, calls in spent.items()}
    return shares | {
        "rest": 1 - sum(shares.values()),
        "total": total,
        "length": len(spent["step"]) / rounds / num_environments,
    }


def main(rounds: int) -> None:
    use_all_cores()
    table = Table("sub-environments", "mean length", "seconds", "env.step", "outside", "act", "reset", "finish", "rest")
    for endless in (False, True):
        for num in (8, 64):
            found = measure(num, endless, rounds)
            shares = [found["step"], 1 - found["step"], *(found[name] for name in ("act", "reset", "finish", "rest"))]
            table.add_row(
                str(num), f"{found['length']:.0f}", f"{found['total']:.2f}", *(f"{share:.0%}" for share in shares)
            )
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    main(parser.parse_args().rounds)
