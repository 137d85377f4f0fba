"""How far a direction moves the policy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lapg.types import Policy, Trajectories


def fisher_norm(policy: Policy) -> Callable[..., Any]:
    """``θ, batch, v → (vᵀ F v)^½``, F the Fisher matrix of an episode under π_θ, estimated from a batch that was sampled at θ.

    vᵀ F v = E Σ_t (v · ∇log π(a_t|s_t))², mean over the N trajectories; the square of the sum over t has the same expectation, because scores at
    different t are uncorrelated, and more variance. Half of it is the divergence KL(π_θ ‖ π_{θ+v}) of episodes up to terms of third order in v.
    Where rows are segments, it is that of a segment. One forward-mode derivative; no d × d matrix.
    """

    def norm(params: Float[Array, " d"], batch: Trajectories, direction: Float[Array, " d"]) -> Float[Array, ""]:
        def log_probs(params: Float[Array, " d"]) -> Float[Array, "N T"]:
            steps = jax.vmap(policy.log_prob, (None, 0, 0))
            return jax.vmap(steps, (None, 0, 0))(params, batch.observations, batch.actions)

        _, slopes = jax.jvp(log_probs, (params,), (direction,))
        return jnp.sqrt(jnp.mean(jnp.sum(jnp.where(batch.mask, slopes, 0) ** 2, -1)))

    return norm
