"""What estimators share."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lapg.types import Estimate, Estimator


def stateless(estimate: Callable[..., Estimate], minimum_batch: int = 1) -> Estimator:
    """An estimator without memory from ``task, θ, batch → Estimate``."""
    return Estimator(
        init=lambda key, params: (),
        update=lambda state, task, batch: state,
        estimate=lambda state, task, params, batch: estimate(task, params, batch),
        minimum_batch=minimum_batch,
    )


def mean_and_noise(gradients: Float[Array, "N d"]) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """ḡ and σ̂² = Σ_n ‖g_n − ḡ‖² / (N(N−1)), unbiased for tr Cov(ḡ) of independent g_n; inf for N = 1, where nothing can be told."""
    num = gradients.shape[0]
    mean = gradients.mean(0)
    if num == 1:
        return mean, jnp.full((), jnp.inf, mean.dtype)
    return mean, jnp.sum((gradients - mean[None]) ** 2) / (num * (num - 1))


def first_steps(ended: Bool[Array, "*N T"]) -> Bool[Array, "*N T"]:
    """Steps after which an episode did not go on → steps before which one began, that of the row included."""
    return jnp.concatenate([jnp.ones_like(ended[..., :1]), ended[..., :-1]], -1)
