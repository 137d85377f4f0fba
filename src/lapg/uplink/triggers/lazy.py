"""Uploads when the gradient has changed by more than recent policy movement explains."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg.types import Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, is_concrete, squared_norm, weighed
from lapg.uplink.triggers.common import check_max_age, overdue
from lapg.uplink.triggers.measures import Measure, innovation

Weights = Scalar | Sequence[float] | Float[Array, " D"]
WINDOW = 10


def past_weights(xi: Weights, window: int | None = None) -> Float[Array, " D"]:
    """ξ_1..ξ_D of the last D displacements, newest first, from one number for all or D numbers.

    Args:
      window: D; None is as many as there are weights, `WINDOW` of one number.
    Raises:
      ValueError: window < 1, or xi has neither 1 nor D entries, or an entry is negative.
    """
    weights = jnp.asarray(xi)
    if weights.ndim > 1 or not weights.size:
        raise ValueError(f"lazy(xi=...) must be one weight per past round, D >= 1, got shape {weights.shape}.")
    if window is None:
        window = weights.size if weights.ndim else WINDOW
    if window < 1:
        raise ValueError(f"lazy(window=...) must be >= 1, got {window}.")
    if weights.size not in (1, window):
        raise ValueError(
            f"lazy(xi=...) must have 1 or window={window} entries, got {weights.size}; give one weight for all, or change the window."
        )
    if is_concrete(xi) and bool(np.any(np.asarray(xi) < 0)):
        raise ValueError(f"lazy(xi=...) must be non-negative, got {np.asarray(xi).tolist()}; 0 switches the drift off.")
    return jnp.broadcast_to(weights, (window,))


def lazy(
    xi: Weights = 0.03,
    *,
    window: int | None = None,
    noise_weight: Scalar = 6.0,
    noise_bound: Sequence[float] | Float[Array, " M"] | Literal["printed"] | None = None,
    strict: bool = True,
    max_age: int | None = None,
    displacement_scale: Scalar | None = None,
    measure: Measure | None = None,
    step_size: Scalar,
    num_learners: int,
    batch_size: int | None = None,
    printed_noise_bound: Callable[[], Sequence[float]] | None = None,
) -> Trigger:
    """Uploads when the innovation outgrows recent policy movement and its own noise.

    Fires iff ‖δ_m‖² > drift + noise_weight · σ²_m, drift = (1/α²M²) Σ_d ξ_d ‖θ^{k+1−d} − θ^{k−d}‖². The controller computes the drift from
    the displacements that really happened and broadcasts that one scalar. Where the noise is not known (inf), no innovation exceeds it, and only
    ``max_age`` makes a learner upload; noise_weight 0 and noise_bound do without it.

    Args:
      xi: weights ξ_1..ξ_D, newest first, or one number for all, non-negative; Σξ < 1/3 for Theorem 1. Dimensionless.
      window: D, how many past displacements count; None is as many as xi has entries, 10 if it is one number.
      noise_weight: c; 6 in the paper, for a high-probability bound on σ²; 1 to 2 for a sample variance.
      noise_bound: σ²_m, one for each learner, as constants that replace the sample variance; ``printed`` are those of (15), (31), δ = 0.05, with constants
        estimated from 1,000 initial trajectories; None uses the sample variance.
      strict: ``>``; False is the paper's ``>=``, which also fires at 0 >= 0.
      max_age: rounds after which a learner uploads in any case; None as in the paper.
      displacement_scale: what turns displacements into gradients; None is the step size α of the controller, right for plain steps.
      measure: what takes the place of ‖δ_m‖² (`lapg.uplink.triggers.measures`); None is `measures.innovation`.
      step_size: α of the controller's step.
      num_learners: M.
      batch_size: N.
      printed_noise_bound: what ``printed`` stands for.
    Raises:
      ValueError: xi has neither 1 nor D entries; an entry of xi or noise_weight is negative; a step size is not positive; the bound is not one per learner;
        max_age < 1; or one trajectory has no noise that could be weighed.
    Source: Chen et al., arXiv 1812.03239, eq. (16); strict '>' where the paper has '≥' (see Lemma 4).
    """
    xi = past_weights(xi, window)
    scale = step_size if displacement_scale is None else displacement_scale
    if is_concrete(noise_weight) and float(noise_weight) < 0:
        raise ValueError(f"lazy(noise_weight=...) must be >= 0, got {float(noise_weight)}; 0 ignores the noise.")
    if is_concrete(scale) and float(scale) <= 0:
        name = "step_size" if displacement_scale is None else "displacement_scale"
        raise ValueError(f"lazy({name}=...) must be > 0, got {float(scale)}.")
    weighs = noise_bound is None and not (is_concrete(noise_weight) and float(noise_weight) == 0)
    if weighs and batch_size == 1 and measure is None:
        raise ValueError(
            "batch_size must be >= 2 for this trigger, got 1; the noise of one trajectory cannot be estimated: raise batch_size, or give "
            "lazy(noise_bound=...)."
        )
    if isinstance(noise_bound, str):
        if printed_noise_bound is None:
            raise ValueError(
                f"lazy(noise_bound=...) must be numbers here, got {noise_bound!r}, which needs a problem of episodes."
            )
        noise_bound = printed_noise_bound()
    noise_bound = None if noise_bound is None else jnp.asarray(noise_bound, float)
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
        statistic = sides.statistic
        noise = jnp.where(sides.noisy, weighed(noise_weight, noise), 0)
        threshold = (candidate.signal + sides.error + noise).astype(statistic.dtype)
        fires = (statistic > threshold if strict else statistic >= threshold) | overdue(candidate.age, max_age)
        return state, Decision(fires, statistic, threshold)

    def signal(key: Key[Array, ""], movements: Float[Array, " D"]) -> Float[Array, ""]:
        return (jnp.sum(xi * movements) / (scale * num_learners) ** 2).astype(movements.dtype)

    return Trigger(
        update=update,
        init=measured.init,
        settle=measured.settle,
        controller_init=lambda params, num_learners: jnp.zeros(xi.shape, params.dtype),
        controller_update=lambda movements, displacement, arrival: (
            jnp.roll(movements, 1).at[0].set(squared_norm(displacement))
        ),
        signal=signal,
        needs_noise=noise_bound is None and is_concrete(noise_weight) and float(noise_weight) > 0,
    )


def changed(weight: Scalar = 1.0, *, max_age: int | None = None) -> Trigger:
    """Uploads when the innovation is large beside the last round's change of the gradient: ‖g^k − uploaded‖² > ζ ‖g^k − g^{k−1}‖².

    Args:
      weight: ζ; 0 uploads whenever there is anything to say.
      max_age: rounds after which a learner uploads in any case.
    Raises:
      ValueError: weight is negative, or max_age < 1.
    Source: Richtárik et al., arXiv 2202.00998 (CLAG), after LAG's condition; its state is one gradient, and nothing is broadcast.
    """
    if is_concrete(weight) and float(weight) < 0:
        raise ValueError(f"changed(weight=...) must be >= 0, got {float(weight)}; 0 uploads every round.")
    check_max_age("changed", max_age)

    def update(
        key: Key[Array, ""], last: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Any, Decision]:
        gradient = estimate.gradient
        statistic = squared_norm(candidate.innovation)
        threshold = (weight * squared_norm(gradient - last)).astype(statistic.dtype)
        return gradient, Decision((statistic > threshold) | overdue(candidate.age, max_age), statistic, threshold)

    return Trigger(update=update, init=jnp.zeros_like)
