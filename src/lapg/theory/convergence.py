"""Theorem 1: the admissible step, the function that falls, the rate, and what a wanted accuracy asks for."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from lapg.theory.constants import deviation_bound, truncation_bound
from lapg.types import Scalar, is_concrete


def admissible_step(xi: ArrayLike, smoothness: Any) -> Any:
    """(1 − 3Σξ)/L, the largest step of Theorem 1 (21).

    Raises:
      ValueError: Σξ ≥ 1/3, where there is none.
    """
    total = jnp.sum(jnp.asarray(xi))
    if is_concrete(total) and not float(total) < 1 / 3:
        raise ValueError(f"admissible_step(xi=...) must sum to less than 1/3, got {float(total)}; use smaller weights.")
    return (1 - 3 * total) / smoothness


def lyapunov(
    gaps: Float[Array, " n"], squared_steps: Float[Array, " K"], xi: Float[Array, " D"], step_size: Scalar
) -> Float[Array, " n"]:
    """V^k = L(θ^k) − inf L + (3/2α) Σ_d (Σ_{τ≥d} ξ_τ) ‖θ^{k+1−d} − θ^{k−d}‖², for k = 0..K (n = K + 1), nothing before round 0 (20).

    Args:
      gaps: L(θ^k) − inf L.
      squared_steps: ‖θ^{k+1} − θ^k‖².
    """
    weights = 1.5 / step_size * jnp.cumsum(xi[::-1])[::-1]
    movement = jnp.convolve(squared_steps, weights)[: squared_steps.shape[0]]
    return gaps + jnp.concatenate([jnp.zeros_like(gaps, shape=(1,)), movement])


def descent_bound(gradient: Any, skipped: Any, noise: Any, truncation: Any, step_size: Any) -> Any:
    """Lemma 1's bound on L(θ^{k+1}) − L(θ^k) (14), from the squared norms of ∇L, Σ_{silent} δ_m, the estimates' error and the truncation error."""
    return step_size * (-gradient + 3 * (skipped + noise + truncation)) / 2


def rate_bound(start: Any, step_size: Any, num_rounds: Any, *, truncation: Any = 0.0, noise: Any = 0.0) -> Any:
    """2V¹/(αK) + 3σ_T² + 21σ², Theorem 1's bound on the mean of ‖∇L(θ^k)‖² over K rounds (23).

    Args:
      start: V¹ = L(θ¹) − inf L, or more.
      truncation: σ_T.
      noise: σ² = M Σ_m σ²_m.
    """
    return 2 * start / (step_size * num_rounds) + 3 * truncation**2 + 21 * noise


class Requirements(NamedTuple):
    """T, K, N of (22)."""

    num_steps: int
    num_rounds: int
    num_trajectories: int


def requirements(
    accuracy: float,
    failure_probability: float,
    *,
    start: float,
    step_size: float,
    score_bound: float,
    loss_bound: ArrayLike,
    discount: float,
) -> Requirements:
    """The T, K and N that make (23) at most ε, a third for each of its terms (22): K ≥ 6V¹/(αε), 3σ_T² ≤ ε/3, N ≥ 126 M ΣV_m² log(2MK/δ)/ε.

    V_m is that of the infinite horizon, so that N does not hang on T.
    """
    losses = np.atleast_1d(np.asarray(loss_bound, float))
    num_rounds = math.ceil(6 * start / (step_size * accuracy))
    num_steps = 1
    while 3 * float(truncation_bound(score_bound, losses, discount, num_steps)) ** 2 > accuracy / 3:
        num_steps += 1
    deviation = deviation_bound(score_bound, losses, discount)
    union = np.log(2 * losses.size * num_rounds / failure_probability)
    num_trajectories = math.ceil(126 * losses.size * float(np.sum(deviation**2)) * union / accuracy)
    return Requirements(num_steps, num_rounds, num_trajectories)
