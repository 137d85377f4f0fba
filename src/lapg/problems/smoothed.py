"""Smoothing: any problem with its policy's parameters perturbed once an episode."""

import math
from typing import Any

import jax
from jaxtyping import Array, Float, Key, PyTree, UInt

from lapg.types import Environment, Policy, Problem, Task, Transition


def smoothed(problem: Problem, scale: float) -> Problem:
    """The problem of E_u L_m(θ + σu), u standard normal, drawn once an episode: smooth in θ even where the policy is not (ReLU).

    The seed of u is a part of the state and of the observation, and π(a|(seed, s); θ) = π(a|s; θ + σu): an ordinary problem, whose start says which
    u it is. So estimators, importance weights and step limits are right as they stand, and their gradient is that of the smoothed objective, whose
    distance to L_m is O(σ²) where L_m is smooth. u is drawn again at every step from its seed: d normal numbers of work, none of memory. Perturbed
    parameters differ from episode to episode, so that networks run on vectors where they ran on matrices.

    Args:
      problem: one with an environment inside JAX, and the policy that is perturbed.
      scale: σ, in units of θ.
    Returns:
      A problem whose observations are pairs (seed, observation), and without the exact value and gradient of the problem. A critic has to
      look at the second of the pair.
    Raises:
      ValueError: scale is not positive and finite, or the problem has no environment and policy.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"smoothed(scale=...) must be > 0 and finite, got {scale}; use the problem itself for 0.")
    if problem.environment is None or problem.policy is None:
        raise ValueError(
            "smoothed(...) needs a problem with an environment and a policy inside JAX; this one has no such thing."
        )
    environment, policy = problem.environment, problem.policy

    def reset(key: Key[Array, ""], task: Task) -> tuple[UInt[Array, ""], PyTree]:
        key_seed, key_reset = jax.random.split(key)
        return jax.random.bits(key_seed), environment.reset(key_reset, task)

    def step(key: Key[Array, ""], task: Task, state: tuple[UInt[Array, ""], PyTree], action: PyTree) -> Transition:
        after = Transition(*environment.step(key, task, state[1], action))
        return after._replace(state=(state[0], after.state))

    def observe(state: tuple[UInt[Array, ""], PyTree]) -> tuple[UInt[Array, ""], PyTree]:
        return state[0], environment.observe(state[1])

    draw = environment.draw
    shown = draw and (lambda axes, state: draw(axes, state[1]))
    wrapped = Environment(reset, observe, step, shown, environment.step_seconds)
    return problem._replace(
        environment=wrapped,
        policy=_perturbed(policy, scale),
        spaces=None,
        default_policy=None,
        model=lambda policy: None,
        smoothness=None,
    )


def _perturbed(policy: Policy, scale: float) -> Policy:
    def shift(params: Float[Array, " d"], seed: UInt[Array, ""]) -> Float[Array, " d"]:
        return params + scale * jax.random.normal(jax.random.key(seed), params.shape, params.dtype)

    def sample(noise: PyTree, params: Float[Array, " d"], seen: tuple[UInt[Array, ""], PyTree]) -> Any:
        return policy.sample(noise, shift(params, seen[0]), seen[1])

    return policy._replace(
        linear=False,
        sample=sample,
        log_prob=lambda params, seen, action: policy.log_prob(shift(params, seen[0]), seen[1], action),
        mode=lambda params, seen: policy.mode(shift(params, seen[0]), seen[1]),
    )
