"""Rollouts of a policy in an environment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lapg.types import Environment, Policy, Problem, Step, Task, Trajectories, select


def rollout(environment: Environment, policy: Policy, num_steps: int) -> Callable[..., tuple[Trajectories, Any]]:
    """One episode: ``key, task, θ → Trajectories (leading axis T), states (leading axis T)``.

    After the end, be it a termination or a truncation, nothing counts any more: losses are 0, ``mask`` is False, and the last observation stays.
    """

    def run(key: Key[Array, ""], task: Task, params: Float[Array, " d"]) -> tuple[Trajectories, Any]:
        key_reset, key_actions, key_steps = jax.random.split(key, 3)
        noise = jax.vmap(policy.noise)(jax.random.split(key_actions, num_steps))

        def step(carry: Any, draws: Any) -> tuple[Any, Any]:
            state, observation, alive, terminated = carry
            noise, key = draws
            action, log_prob = policy.sample(noise, params, observation)
            after = Step(*environment.step(key, task, state, policy.actuate(action)))
            loss = jnp.where(alive, task.scale * after.loss, 0)
            seen = select(alive, environment.observe(after.state), observation)
            going = alive & ~(jnp.asarray(after.terminated) | after.truncated)
            carry = after.state, seen, going, terminated | (alive & after.terminated)
            return carry, (state, observation, action, log_prob, loss, alive)

        state = environment.reset(key_reset, task)
        start = (state, environment.observe(state), jnp.bool_(True), jnp.bool_(False))
        draws = noise, jax.random.split(key_steps, num_steps)
        (_, final, _, terminated), (states, observations, actions, log_probs, losses, mask) = jax.lax.scan(
            step, start, draws
        )
        return Trajectories(observations, actions, log_probs, losses, mask, terminated, final), states

    return run


def rollouts(environment: Environment, policy: Policy, num_steps: int) -> Callable[..., Trajectories]:
    """A batch: ``key, task, θ, N → Trajectories`` with leading axes N, T."""
    one = rollout(environment, policy, num_steps)

    def sample(key: Key[Array, ""], task: Task, params: Float[Array, " d"], num: int) -> Trajectories:
        return jax.vmap(lambda key: one(key, task, params)[0])(jax.random.split(key, num))

    return sample


def episodes(problem: Problem) -> Callable[..., Trajectories] | None:
    """A problem's sampler: whole episodes of its policy in its environment (`rollouts`); None as long as it has no policy."""
    if problem.environment is None or problem.policy is None:
        return None
    return rollouts(problem.environment, problem.policy, problem.num_steps)
