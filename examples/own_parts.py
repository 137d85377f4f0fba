"""Every part your own: a problem, a policy, an estimator, a memory, a trigger, a compressor and the learners' own steps, each a function that is named.

python examples/own_parts.py
PYTHONPATH=examples lapg train --problem.name own_parts:swings --policy.name own_parts:bilinear --estimator.name own_parts:score_function \
    --local.name own_parts:stride --memory.name own_parts:gathered --trigger.name own_parts:doubled --compressor.name own_parts:halves \
    --optimiser.name own_parts:accelerated --trigger.factor 3 --rounds 50

Keyword arguments are options, and flags: --trigger.factor, whose words in --help are those of the docstring. Arguments that the run knows, such as
num_learners, are supplied (`lapg.methods.signatures.RUN`).
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lapg import Config, Part, Preset, train
from lapg.estimators import mean_and_noise, stateless
from lapg.local import sgd
from lapg.policies import around
from lapg.policies.networks import Network
from lapg.problems.builders import from_environment, make_tasks
from lapg.types import (
    Compressor,
    Decision,
    Discrete,
    Environment,
    Estimate,
    Estimator,
    Local,
    Memory,
    Policy,
    Problem,
    Scalar,
    Spaces,
    Transition,
    Trigger,
    squared_norm,
)
from lapg.uplink.aggregates import arrivals


def swings(*, num_learners: int = 3, num_steps: int = 10, discount: float = 0.95) -> Problem:
    """A swing is pushed one way or the other and its loss is its deflection; every learner has a swing of another length."""

    def step(key: jax.Array, task: Any, state: jax.Array, action: jax.Array) -> Transition:
        angle, speed = state
        speed += 0.2 * (2.0 * action - 1 - task.extra["stiffness"] * angle)
        return Transition(jnp.stack([angle + 0.2 * speed, speed]), loss=jnp.abs(angle))

    environment = Environment(lambda key, task: jax.random.normal(key, (2,)), lambda state: state, step)
    tasks = make_tasks(num_learners, None, extra={"stiffness": jnp.linspace(0.5, 2.0, num_learners)})
    return from_environment(environment, tasks=tasks, num_steps=num_steps, discount=discount, actions=Discrete(2))


def bilinear(spaces: Spaces, *, curvature: float = 0.1) -> Policy:
    """Logits that are linear in the observation and in its products.

    Args:
      curvature: weight of the products.
    """
    features = spaces.num_inputs * (spaces.num_inputs + 1)
    size = spaces.num_outputs * features

    def apply(params: jax.Array, seen: jax.Array) -> jax.Array:
        return params.reshape(-1, features) @ jnp.concatenate([seen, curvature * jnp.outer(seen, seen).ravel()])

    return around(spaces, Network(lambda key: jnp.zeros(size), apply, size))


def score_function(policy: Policy, discount: float) -> Estimator:
    """REINFORCE in a few lines: ∇log π of an episode times its discounted loss Σ γ^t ℓ_t; losses in a batch are not discounted yet."""

    def estimate(task: Any, params: jax.Array, batch: Any) -> Estimate:
        def one(observations: Any, actions: Any, mask: jax.Array, losses: jax.Array) -> jax.Array:
            def log_prob(params: jax.Array) -> jax.Array:
                each = jax.vmap(policy.log_prob, (None, 0, 0))(params, observations, actions)
                return jnp.sum(each * mask)

            return jax.grad(log_prob)(params) * jnp.sum(losses * discount ** jnp.arange(losses.size))

        gradients = jax.vmap(one)(batch.observations, batch.actions, batch.mask, batch.losses)
        mean, noise = mean_and_noise(gradients)
        return Estimate(mean, noise, jnp.full((), gradients.shape[0], mean.dtype))

    return stateless(estimate)


def stride(length: Scalar = 0.5, *, num_learners: int, step_size: Scalar) -> Local:
    """Steps of the learner's own as long as those that the controller would take if all learners measured the same.

    Args:
      length: and how many times that.
    """
    return sgd(length * num_learners * step_size)


def gathered() -> Memory:
    """Gradients add up until they are sent; what a message leaves out stays. Their noise is not known."""
    return Memory(
        init=jnp.zeros_like,
        update=lambda state, broadcast, estimate: state + estimate.gradient,
        innovation=lambda state, age: (state, jnp.full((), jnp.inf, state.dtype)),
        settle=lambda state, decoded: state - decoded,
        aggregate=arrivals(),
        residual=lambda state: state,
    )


def doubled(*, factor: Scalar = 2.0) -> Trigger:
    """Fires iff the innovation is so many times longer than it was in the round after the last upload.

    Args:
      factor: how many times.
    """

    def update(key: Any, first: jax.Array, candidate: Any, estimate: Any, gradient_at: Any) -> tuple[Any, Decision]:
        size = jnp.sqrt(squared_norm(candidate.innovation))
        first = jnp.where(first == 0, size, first)
        return first, Decision(size >= factor * first, size, (factor * first).astype(size.dtype))

    return Trigger(
        update=update,
        init=lambda params: jnp.zeros((), params.dtype),
        settle=lambda first, candidate: jnp.zeros_like(first),
    )


def halves() -> Compressor:
    """Every entry at half precision, 16 bits, within ±65,504."""
    return Compressor(
        compress=lambda key, innovation: jnp.clip(innovation, -65504, 65504).astype(jnp.float16),
        decompress=lambda message: message.astype(jnp.zeros(()).dtype),
        num_bits=lambda message: jnp.int32(16 * message.size),
        encode=lambda message: np.asarray(message).tobytes(),
        decode=lambda raw, like: np.frombuffer(raw, np.float16),
    )


def accelerated(step_size: Scalar, *, momentum: float = 0.5) -> optax.GradientTransformation:
    """Nesterov's method; the first argument of an optimiser is its step size, or a schedule of it.

    Args:
      momentum: weight of the past.
    """
    return optax.sgd(step_size, momentum, nesterov=True)


everything = Preset(
    "Parts that are all of this module; any of them can be another one.",
    optimiser=Part("own_parts:accelerated", step_size=0.02),
    local=Part("own_parts:stride"),
    memory=Part("own_parts:gathered"),
    trigger=Part("own_parts:doubled"),
    compressor=Part("own_parts:halves"),
)


def main(rounds: int, out: Path) -> None:
    config = Config(
        problem=Part("own_parts:swings", num_learners=3),
        policy=Part("own_parts:bilinear", curvature=0.2),
        estimator=Part("own_parts:score_function"),
        method="own_parts:everything",
        trigger=Part(factor=3.0),
        rounds=rounds,
        seeds=2,
    )
    record = train(config, out).record
    print(f"uploads in {float(record['sent'].mean()):.1%} of the rounds, {int(record['uplink_bits'].max())} bits each")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/own-parts"), help="new directory for the run")
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.out)
