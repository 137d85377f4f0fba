"""Policies that see observations in units of their running moments: entries of θ that no gradient moves, and that travel with it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from lapg.types import Policy, Statistics, Trajectories

LIMIT = 10.0
"""Normalised observations are clipped to ± this."""
SCALE = 0.01
"""Entries of θ are moments times this, so that they weigh little in the length of a displacement."""
LEAST_WEIGHT = 0.02
"""Of a batch's moments in the running ones, which otherwise is 1/(k + 1) in round k: learners that differ, or upload rarely, meet all the same."""
LEAST_VARIANCE = 1e-6


def normalised(policy: Policy, see: Any, size: int) -> Policy:
    """The policy of (observation − mean)/std, clipped to ±10; θ has means and log standard deviations, times 0.01, as its last 2n entries, 0 at the start.

    Args:
      policy: of one agent, whose observations are real numbers.
      see: observation → its n numbers, in an array of any shape; what a flat vector has beyond them (a mask) is left as it is.
      size: n.
    """
    num = 2 * size

    def look(params: Float[Array, " d"], observation: PyTree) -> tuple[Float[Array, " dm"], Float[Array, "..."]]:
        mean, log_std = _moments(jax.lax.stop_gradient(params[-num:]))
        seen = see(observation)
        inside = jnp.clip((seen.ravel() - mean) * jnp.exp(-log_std), -LIMIT, LIMIT)
        beyond = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(observation)])[size:]
        return params[:-num], jnp.append(inside, beyond) if beyond.size else inside.reshape(seen.shape)

    def init(key: Key[Array, ""]) -> Float[Array, " d"]:
        start = policy.init(key)
        return jnp.concatenate([start, jnp.zeros(num, start.dtype)])

    def log_prob(params: Float[Array, " d"], observation: PyTree, action: PyTree) -> Float[Array, ""]:
        return policy.log_prob(*look(params, observation), action)

    def absorb(statistics: Float[Array, " s"], batch: Trajectories, round: Int[Array, ""]) -> Float[Array, " s"]:
        seen = jax.vmap(jax.vmap(see))(batch.observations).reshape(*batch.mask.shape, size)
        mean, log_std = _moments(statistics)
        weight = jnp.maximum(1 / (round + 1), LEAST_WEIGHT).astype(mean.dtype)
        counts = batch.mask[..., None]
        total = jnp.maximum(jnp.sum(batch.mask), 1).astype(mean.dtype)
        new = jnp.sum(jnp.where(counts, seen, 0), (0, 1)) / total
        spread = jnp.sum(jnp.where(counts, (seen - new[None, None]) ** 2, 0), (0, 1)) / total
        variance = (1 - weight) * jnp.exp(2 * log_std) + weight * spread + weight * (1 - weight) * (new - mean) ** 2
        log_std = jnp.log(jnp.maximum(variance, LEAST_VARIANCE)) / 2
        return SCALE * jnp.concatenate([mean + weight * (new - mean), log_std])

    entropy = policy.entropy
    return policy._replace(
        init=init,
        sample=lambda noise, params, observation: policy.sample(noise, *look(params, observation)),
        log_prob=log_prob,
        mode=lambda params, observation: policy.mode(*look(params, observation)),
        num_params=policy.num_params + num,
        entropy=entropy and (lambda params, observation: entropy(*look(params, observation))),
        score_bounds=None,
        linear=False,
        statistics=Statistics(num, absorb),
    )


def _moments(statistics: Float[Array, " s"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Means and log standard deviations."""
    mean, log_std = jnp.split(statistics / SCALE, 2)
    return mean, log_std
