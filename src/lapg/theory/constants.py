"""Constants of the losses and their gradients: V_m, σ², σ_T, L_m, from G, F, ℓ̄_m, γ, T and N.

All are for |ℓ_m| ≤ ℓ̄_m, ‖∇log π‖ ≤ G and ‖∇²log π‖ ≤ F in operator norm, t = 0..T−1; T = None stands for the infinite horizon. They hold for any sign of
the losses and, where learners differ in dynamics or starts, for each by itself.
"""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from lapg.types import ScoreBounds

Form = Literal["corrected", "printed"]
"""``printed`` is the formula as it stands in arXiv 1812.03239, kept for comparison and not to be relied on."""


def linear_softmax_bounds(features: ArrayLike) -> ScoreBounds:
    """G = max_s max_{a,b} ‖φ(s,a) − φ(s,b)‖ and F = G²/4 of π(a|s) ∝ exp θᵀφ(s,a), features [S, A, d]. Both are attained or approached.

    ∇log π is φ(s,a) minus a mean of the φ(s,·), and −∇²log π the covariance of the φ(s,·), at most a quarter of their squared diameter.
    A table has φ(s,a) = e_{sa}: G = √2, F = 1/2.
    """
    values = np.asarray(features, float)
    gaps = np.linalg.norm(values[:, :, None] - values[:, None], axis=-1)
    return ScoreBounds(float(gaps.max()), float(gaps.max() ** 2 / 4))


def _sums(discount: float, num_steps: int | None) -> tuple[float, float]:
    """Σ_t (t+1) γ^t and Σ_t (t+1)² γ^t."""
    if num_steps is None:
        if discount >= 1:
            return np.inf, np.inf
        return 1 / (1 - discount) ** 2, (1 + discount) / (1 - discount) ** 3
    count = np.arange(1.0, num_steps + 1)
    weights = discount ** (count - 1)
    return float(count @ weights), float(count**2 @ weights)


def deviation_bound(
    score_bound: float, loss_bound: Any, discount: float, num_steps: int | None = None, *, form: Form = "corrected"
) -> Any:
    """V_m = 2 G ℓ̄_m Σ_t (t+1) γ^t, a bound on ‖ĝ − ∇_T L_m‖ for the G(PO)MDP gradient ĝ of one trajectory (30).

    Printed (31): 2 G ℓ̄_m γ/(1−γ)². The sum behind it counts t scores at step t where there are t + 1.
    """
    if form == "printed":
        return 2 * score_bound * loss_bound * discount / (1 - discount) ** 2
    return 2 * score_bound * loss_bound * _sums(discount, num_steps)[0]


def concentration_bound(
    deviation: Any,
    num_trajectories: int,
    num_rounds: int,
    failure_probability: float,
    *,
    form: Form = "corrected",
) -> Any:
    """σ²_m = 2 log(2MK/δ) V_m²/N: with probability 1 − δ no learner's ‖ĝ_m − ∇_T L_m‖² exceeds it in any of K rounds (15).

    Args:
      deviation: V_m of all M learners.
    Printed (15): log(2K/δ), which leaves the learners out of the union bound; what rests on it holds with probability 1 − Mδ.
    """
    num_learners = 1 if form == "printed" else np.size(deviation)
    return 2 * np.log(2 * num_learners * num_rounds / failure_probability) * deviation**2 / num_trajectories


def aggregate_noise(bounds: Any) -> Any:
    """σ² = M Σ_m σ²_m, which bounds ‖Σ_m (ĝ_m − ∇_T L_m)‖² where each σ²_m bounds its own."""
    return np.size(bounds) * jnp.sum(bounds)


def truncation_bound(
    score_bound: float, loss_bound: Any, discount: float, num_steps: int, *, form: Form = "corrected"
) -> Any:
    """σ_T = Σ_m G ℓ̄_m (T + 1/(1−γ)) γ^T/(1−γ), a bound on ‖∇L − ∇_T L‖ for T steps, t = 0..T−1. For (10)'s T + 1 terms give T + 1.

    Printed (32): Σ_m G ℓ̄_m (T + γ/(1−γ)) γ^T. It lost the factor 1/(1−γ) of its own derivation (35), which in turn counts t scores at step t.
    """
    if form == "printed":
        shape = (num_steps + discount / (1 - discount)) * discount**num_steps
    else:
        shape = (num_steps + 1 / (1 - discount)) * discount**num_steps / (1 - discount)
    return score_bound * jnp.sum(loss_bound) * shape


def smoothness(
    bounds: ScoreBounds,
    loss_bound: Any,
    discount: float,
    num_steps: int | None = None,
    *,
    form: Form | Literal["sharp"] = "corrected",
) -> Any:
    """L_m = ℓ̄_m (F Σ_t (t+1) γ^t + G² Σ_t (t+1)² γ^t); infinite horizon: (F + G² (1+γ)/(1−γ)) ℓ̄_m/(1−γ)². Their sum is L (19).

    Sharp: ℓ̄_m (F + G²) Σ_t (t+1) γ^t. Scores are martingale differences, so that E(vᵀ Σ_τ ∇log π)² ≤ (t+1) G² instead of (t+1)² G².
    Printed (18): (F + G² + 2γG²/(1−γ)) γ ℓ̄_m/(1−γ)², with a factor γ too much (t scores at step t again), and F a bound on the Hessian's entries.
    """
    if form == "printed":
        growth = bounds.hessian + bounds.score**2 * (1 + 2 * discount / (1 - discount))
        return growth * discount * loss_bound / (1 - discount) ** 2
    once, twice = _sums(discount, num_steps)
    return loss_bound * (bounds.hessian * once + bounds.score**2 * (once if form == "sharp" else twice))
