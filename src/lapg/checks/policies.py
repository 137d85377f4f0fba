"""Checks of a policy of your own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lapg.checks.common import Z_LIMIT, repeats, signatures, traced, z_scores
from lapg.problems.checklist import Checklist, CheckResult, describe, need
from lapg.types import Policy


def check_policy(policy: Policy, observation: PyTree, *, num_draws: int = 5000, seed: int = 0) -> list[CheckResult]:
    """Checks a policy at one observation: types, that sampling and log-probability are of one distribution, and its gradient.

    Args:
      observation: one, as the environment shows it.
      num_draws: actions, for the mean of the score ∇log π, which is 0 for every distribution.
    """
    checks = Checklist()
    checks.run("functions", signatures, policy)
    params = checks.run("initial params", _initial, policy, seed) if checks.sound else None
    if params is not None:
        checks.run("actions", _actions, policy, params, observation, seed)
    if checks.sound:
        checks.run("log-probabilities", _log_probs, policy, params, observation, seed)
    if checks.sound:
        checks.run("score", _score, policy, params, observation, num_draws, seed)
    return checks.results


def _initial(policy: Policy, seed: int) -> Any:
    params = repeats("init", policy.init, jax.random.key(seed))
    need(
        params.shape == (policy.num_params,) and params.dtype.kind == "f",
        f"init must return one flat vector of num_params={policy.num_params} floats, got {describe(params)}; see jax.flatten_util.ravel_pytree.",
    )
    need(np.isfinite(params).all(), "init must return finite numbers.")
    return params


def _actions(policy: Policy, params: Any, observation: PyTree, seed: int) -> None:
    noise = repeats("action_noise", policy.action_noise, jax.random.key(seed))
    action, log_prob = repeats("sample", policy.sample, noise, params, observation)
    need(
        jnp.shape(log_prob) == () and jnp.asarray(log_prob).dtype.kind == "f",
        f"sample must return the action and its log-probability, one real number, got {describe(jnp.asarray(log_prob))}.",
    )
    greedy = repeats("mode", policy.mode, params, observation)
    need(
        describe(greedy) == describe(action),
        f"mode must return actions like sample, {describe(action)}, got {describe(greedy)}.",
    )
    traced("actuate", policy.actuate, action)


def _log_probs(policy: Policy, params: Any, observation: PyTree, seed: int) -> None:
    def one(key: Any) -> Any:
        action, said = policy.sample(policy.action_noise(key), params, observation)
        return said, *jax.value_and_grad(policy.log_prob)(params, observation, action)

    said, again, slope = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), 20))
    need(
        np.allclose(said, again, 1e-4, 1e-5),
        f"log_prob must say of a sampled action what sample says, {said[0]}, got {again[0]}; is one of them for the squashed action?",
    )
    need(
        np.isfinite(slope).all(),
        "log_prob must have a finite gradient in θ; look for log(0), sqrt(0) and jnp.where around them.",
    )


def _score(policy: Policy, params: Any, observation: PyTree, num_draws: int, seed: int) -> None:
    params = params + 0.1 * jax.random.normal(jax.random.key(seed + 1), params.shape, params.dtype)

    def score(key: Any) -> Any:
        return jax.grad(policy.log_prob)(
            params, observation, policy.sample(policy.action_noise(key), params, observation)[0]
        )

    found = jax.jit(jax.vmap(score))(jax.random.split(jax.random.key(seed), num_draws))
    need(np.any(np.asarray(found) != 0), "log_prob must depend on θ, but its gradient is 0.")
    off = z_scores(found, np.zeros(params.shape)).max()
    need(
        off <= Z_LIMIT,
        f"the mean of ∇log π over sampled actions must be 0, got one that is {off:.1f} standard errors off: log_prob is not the logarithm of the density "
        "that sample draws from, or not normalised.",
    )
