"""Rollouts of a policy in an environment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lapg.types import Environment, Policy, Task, Trajectories


def rollout(environment: Environment, policy: Policy, num_steps: int) -> Callable[..., tuple[Trajectories, Any]]:
    """One episode: ``key, task, θ → Trajectories (leading axis T), states (leading axis T)``.

    After the environment has terminated nothing counts any more: losses are 0 and ``mask`` is False.
    """

    def run(key: Key[Array, ""], task: Task, params: Float[Array, " d"]) -> tuple[Trajectories, Any]:
        key_reset, key_actions, key_steps = jax.random.split(key, 3)
        noise = jax.vmap(policy.noise)(jax.random.split(key_actions, num_steps))

        def step(carry: Any, draws: Any) -> tuple[Any, Any]:
            state, alive = carry
            noise, key = draws
            observation = environment.observe(state)
            action, log_prob = policy.sample(noise, params, observation)
            after, loss, terminated = environment.step(key, task, state, action)
            loss = jnp.where(alive, task.scale * loss, 0)
            return (after, alive & ~terminated), (Trajectories(observation, action, log_prob, loss, alive), state)

        start = (environment.reset(key_reset, task), jnp.bool_(True))
        return jax.lax.scan(step, start, (noise, jax.random.split(key_steps, num_steps)))[1]

    return run


def rollouts(environment: Environment, policy: Policy, num_steps: int) -> Callable[..., Trajectories]:
    """A batch: ``key, task, θ, N → Trajectories`` with leading axes N, T."""
    one = rollout(environment, policy, num_steps)

    def sample(key: Key[Array, ""], task: Task, params: Float[Array, " d"], num: int) -> Trajectories:
        return jax.vmap(lambda key: one(key, task, params)[0])(jax.random.split(key, num))

    return sample
