"""Uploads when the gradient has changed by more than recent policy movement explains."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg.types import Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, known, squared_norm, weighed
from lapg.uplink.triggers.common import check_max_age, overdue
from lapg.uplink.triggers.measures import Measure, innovation


def lazy(
    xi: Float[Array, " D"],
    *,
    step_size: Scalar,
    num_learners: int,
    noise_weight: Scalar = 6.0,
    noise_bound: Float[Array, " M"] | None = None,
    strict: bool = True,
    max_age: int | None = None,
    measure: Measure | None = None,
) -> Trigger:
    """Uploads when the innovation outgrows recent policy movement and its own noise.

    Fires iff ‖δ_m‖² > drift + noise_weight · σ²_m, drift = (1/α²M²) Σ_d ξ_d ‖θ^{k+1−d} − θ^{k−d}‖². The controller computes the drift from
    the displacements that really happened and broadcasts that one scalar. Where the noise is not known (inf), no innovation exceeds it, and only
    ``max_age`` makes a learner upload; noise_weight 0 and noise_bound do without it.

    Args:
      xi: weights ξ_1..ξ_D, newest first, non-negative; Σξ < 1/3 for Theorem 1. Dimensionless.
      step_size: α of the controller's plain step. With other optimisers, the scale that turns a displacement into a gradient.
      num_learners: M.
      noise_weight: c; 6 in the paper, for a high-probability bound on σ²; 1 to 2 for a sample variance.
      noise_bound: σ²_m as constants that replace the candidate's own noise, as in (15); None uses the sample variance.
      strict: ``>``; False is the paper's ``>=``, which also fires at 0 >= 0.
      max_age: rounds after which a learner uploads in any case; None as in the paper.
      measure: what takes the place of ‖δ_m‖² (`lapg.uplink.triggers.measures`); None is `measures.innovation`.
    Raises:
      ValueError: an entry of xi or noise_weight is negative, step_size is not positive, the bound is not one per learner, or max_age < 1.
    Source: Chen et al., arXiv 1812.03239, eq. (16); strict '>' where the paper has '≥' (see Lemma 4).
    """
    if xi.ndim != 1 or xi.shape[0] < 1:
        raise ValueError(f"lazy(xi=...) must be one weight per past round, D >= 1, got shape {xi.shape}.")
    if known(xi) and bool(np.any(np.asarray(xi) < 0)):
        raise ValueError(f"lazy(xi=...) must be non-negative, got {np.asarray(xi).tolist()}; 0 switches the drift off.")
    if known(noise_weight) and float(noise_weight) < 0:
        raise ValueError(f"lazy(noise_weight=...) must be >= 0, got {float(noise_weight)}; 0 ignores the noise.")
    if known(step_size) and float(step_size) <= 0:
        raise ValueError(f"lazy(step_size=...) must be > 0, got {float(step_size)}.")
    if noise_bound is not None and noise_bound.shape != (num_learners,):
        raise ValueError(
            f"lazy(noise_bound=...) must have one entry per learner, {num_learners}, got {noise_bound.shape}."
        )
    check_max_age("lazy", max_age)

    measured = innovation() if measure is None else measure

    def update(
        key: Key[Array, ""], state: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Any, Decision]:
        noise = candidate.noise if noise_bound is None else jnp.take(noise_bound, candidate.index)
        state, sides = measured.update(state, candidate, gradient_at)
        left = sides.left
        noise = jnp.where(sides.noisy, weighed(noise_weight, noise), 0)
        right = (candidate.signal + sides.error + noise).astype(left.dtype)
        fires = (left > right if strict else left >= right) | overdue(candidate.age, max_age)
        return state, Decision(fires, left, right)

    def signal(key: Key[Array, ""], movements: Float[Array, " D"]) -> Float[Array, ""]:
        return (jnp.sum(xi * movements) / (step_size * num_learners) ** 2).astype(movements.dtype)

    return Trigger(
        update=update,
        init=measured.init,
        settle=measured.settle,
        controller_init=lambda params, num_learners: jnp.zeros(xi.shape, params.dtype),
        controller_update=lambda movements, displacement, arrival: (
            jnp.roll(movements, 1).at[0].set(squared_norm(displacement))
        ),
        signal=signal,
        needs_noise=noise_bound is None and known(noise_weight) and float(noise_weight) > 0,
    )


def changed(weight: Scalar, *, max_age: int | None = None) -> Trigger:
    """Uploads when the innovation is large beside the last round's change of the gradient: ‖g^k − uploaded‖² > ζ ‖g^k − g^{k−1}‖².

    Args:
      weight: ζ; 0 uploads whenever there is anything to say.
      max_age: rounds after which a learner uploads in any case.
    Raises:
      ValueError: weight is negative, or max_age < 1.
    Source: Richtárik et al., arXiv 2202.00998 (CLAG), after LAG's condition; its state is one gradient, and nothing is broadcast.
    """
    if known(weight) and float(weight) < 0:
        raise ValueError(f"changed(weight=...) must be >= 0, got {float(weight)}; 0 uploads every round.")
    check_max_age("changed", max_age)

    def update(
        key: Key[Array, ""], last: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Any, Decision]:
        gradient = estimate.gradient
        left = squared_norm(candidate.innovation)
        right = (weight * squared_norm(gradient - last)).astype(left.dtype)
        return gradient, Decision((left > right) | overdue(candidate.age, max_age), left, right)

    return Trigger(update=update, init=jnp.zeros_like)
