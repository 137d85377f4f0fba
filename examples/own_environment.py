"""Your own environment: parallel RL on a slope, where every learner stands on its own slope and all share one policy.

python examples/own_environment.py
PYTHONPATH=examples lapg train --problem.name own_environment:slopes --problem.num-learners 3 --rounds 50
PYTHONPATH=examples lapg train --problem.name own_environment:slopes --policy.hidden 32 32 --policy.activation relu --rounds 50

It can be drawn, too: lapg render runs/own-environment, with the same PYTHONPATH.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lapg import Config, Part, evaluate, train
from lapg.problems.builders import from_environment, make_tasks
from lapg.types import Discrete, Environment, Problem, Task, Transition

SECONDS_PER_STEP = 0.1


def cart() -> Environment:
    """A cart at (position, velocity) is pushed left, not at all or right, and its loss is its distance to 0. The episode ends when it rests there."""

    def reset(key: jax.Array, task: Task) -> jax.Array:
        return jnp.stack([jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros(())])

    def step(key: jax.Array, task: Task, state: jax.Array, action: jax.Array) -> Transition:
        position, velocity = state
        velocity += SECONDS_PER_STEP * (3.0 * (action - 1) - task.extra["slope"] - 0.5 * velocity)
        position += SECONDS_PER_STEP * velocity
        after = jnp.stack([position, velocity])
        return Transition(after, loss=jnp.abs(position), terminated=jnp.max(jnp.abs(after)) < 0.05)

    def draw(axes: Any, state: jax.Array) -> None:
        axes.plot(float(state[0]), 0.0, "o", markersize=20)
        axes.plot(0.0, 0.0, "X", color="black")
        axes.set(xlim=(-2, 2), ylim=(-1, 1), yticks=[])

    return Environment(reset, lambda state: state, step, draw)


def slopes(
    *, num_learners: int = 3, scales: Sequence[float] | None = None, num_steps: int = 30, discount: float = 0.98
) -> Problem:
    """One common policy for carts on slopes between −1 and 1; that the dynamics differ is more than the paper's (5) allows."""
    tasks = make_tasks(num_learners, scales, extra={"slope": jnp.linspace(-1.0, 1.0, num_learners)})
    return from_environment(cart(), actions=Discrete(3), tasks=tasks, num_steps=num_steps, discount=discount)


def main(rounds: int, out: Path) -> None:
    config = Config(
        problem=Part("own_environment:slopes", num_learners=3),
        method="awapg",
        optimiser=Part("sgd", step_size=0.01),
        trigger=Part(threshold=20.0),
        rounds=rounds,
        seeds=4,
    )
    run = train(config, out)
    returns = evaluate(run, num_episodes=100)["return_raw"].mean("seed")
    for learner in returns["learner"].values:
        stochastic, greedy = (float(returns.sel(mode=mode, learner=learner)) for mode in ("stochastic", "greedy"))
        rate = float(run.record["sent"].sel(learner=learner).mean())
        print(f"learner {learner}: return {stochastic:.2f}, greedy {greedy:.2f}; uploaded in {rate:.1%} of the rounds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/own-environment"), help="new directory for the run")
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.out)
