"""Lemma 4 and Theorem 2: how seldom learners upload, and when that is fewer than policy gradient's."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from lapg.theory.constants import Form
from lapg.types import is_concrete


def hardness(smoothness: Any, total: Any = None) -> Any:
    """H(m) = L_m²/L², L = Σ_m L_m unless given. With bounds (18), (19) it is (ℓ̄_m/Σℓ̄)²: G, F, γ and ρ_m drop out."""
    total = jnp.sum(smoothness) if total is None else total
    return (jnp.asarray(smoothness) / total) ** 2


def hardness_thresholds(xi: Any, step_size: Any, smoothness: Any, num_learners: Any) -> Any:
    """γ_d = ξ_d/(3 d α² L² M²) for d = 1..D (24).

    Raises:
      ValueError: ξ increases with d, which Lemma 4 excludes.
    """
    xi = jnp.asarray(xi)
    if is_concrete(xi) and bool(np.any(np.diff(np.asarray(xi, float)) > 0)):
        raise ValueError(f"hardness_thresholds(xi=...) must not increase with d, got {np.asarray(xi).tolist()}.")
    return xi / (3 * jnp.arange(1, xi.shape[0] + 1) * (step_size * smoothness * num_learners) ** 2)


def laziness(hardness: Any, thresholds: Any) -> Any:
    """d_m, the largest d with H(m) ≤ γ_d, 0 if there is none: learner m then uploads at most every d_m + 1 rounds (Lemma 4).

    It holds for any controller update, needs the strict '>' of (16) and gradients without memory, and with noise the bounds of (15) in (16).
    """
    return jnp.sum(jnp.asarray(hardness)[:, None] <= jnp.asarray(thresholds)[None], -1)


def max_uploads(laziness: Any, num_rounds: Any) -> Any:
    """⌈K/(d_m + 1)⌉, the most that learner m uploads in K rounds, round 0 included."""
    return -(-num_rounds // (laziness + 1))


def hardness_cdf(hardness: Any, gamma: Any) -> Any:
    """h(γ), the fraction of learners with H(m) ≤ γ (26)."""
    return jnp.mean(jnp.asarray(hardness)[:, None] <= jnp.atleast_1d(gamma)[None], 0)


def saving(hardness: Any, thresholds: Any) -> Any:
    """ΔC = Σ_d (1/d − 1/(d+1)) h(γ_d) (25); equal to 1 − mean_m 1/(d_m + 1)."""
    d = jnp.arange(1, jnp.shape(thresholds)[0] + 1)
    return jnp.sum((1 / d - 1 / (d + 1)) * hardness_cdf(hardness, thresholds))


def communication_factor(hardness: Any, xi: Any, num_learners: Any) -> Any:
    """(1 − ΔC)/(1 − 3Σξ) at α = (1 − 3Σξ)/L, the factor of (27)."""
    slack = 1 - 3 * jnp.sum(jnp.asarray(xi))
    return (1 - saving(hardness, hardness_thresholds(xi, slack, 1.0, num_learners))) / slack


def communication_bound(hardness: Any, xi: Any, smoothness: Any, start: Any, accuracy: Any, num_learners: Any) -> Any:
    """(1 − ΔC) M ⌈2L V¹/((1 − 3Σξ) ε)⌉ + M ≥ uploads until min_k ‖∇L(θ^k)‖² ≤ ε, exact gradients, α = (1 − 3Σξ)/L.

    This is what (27) implies: it compares upper bounds on iterations. With measured counts of policy gradient in their place (27) is false.
    """
    slack = 1 - 3 * jnp.sum(jnp.asarray(xi))
    rounds = jnp.ceil(2 * smoothness * start / (slack * accuracy))
    return communication_factor(hardness, xi, num_learners) * slack * num_learners * rounds + num_learners


def fewer_uploads_certified(
    hardness: ArrayLike, weight: float, window: int, *, form: Form = "corrected"
) -> tuple[bool, float]:
    """Theorem 2's sufficient condition for a factor below 1 with ξ_1 = ... = ξ_D = ξ: some γ' with γ' < ξ/(3DM²) < h(γ')/(9D(D+1)M²).

    Args:
      hardness: H(m) of all M learners.
      weight, window: ξ, D.
    Returns:
      Whether the condition holds, and the γ' that shows it, or nan. It is enough to try the H(m) themselves, where h jumps.
    Printed (69): γ' < ξ/(DM²) < h(γ')/(3(D+1)DM²), from (68) with 3's lost.
    """
    values = np.asarray(hardness, float)
    factor = 1 if form == "printed" else 3
    left = weight / (factor * window * values.size**2)
    for gamma in np.sort(values):
        share = np.mean(values <= gamma)
        if gamma < left < share / (3 * factor * window * (window + 1) * values.size**2):
            return True, float(gamma)
    return False, float("nan")


class ExtremeExample(NamedTuple):
    """Window D, weight ξ of each of its entries, and the bound on the ratio of uploads to policy gradient's bound."""

    window: int
    weight: float
    ratio: float


def extreme_example(num_learners: int, total_weight: float, step: float | None = None) -> ExtremeExample:
    """The O(1/M) example, L_m ≤ 1 for m < M and L_M = M², as it holds: the window has to grow with M.

    D = ⌊M √(c/3)/a⌋, ξ = c/D: every small learner has H(m) ≤ γ_D, and the ratio is at most (1/M)(1 + (M−1)/(D+1))/a.

    Args:
      total_weight: c = Σξ in (0, 1/3).
      step: a = αL; the largest admissible, 1 − 3c, if None.
    Raises:
      ValueError: D would be 0.
    """
    step = 1 - 3 * total_weight if step is None else step
    window = int(num_learners * (total_weight / 3) ** 0.5 / step)
    if window < 1:
        raise ValueError(
            f"extreme_example(num_learners={num_learners}, total_weight={total_weight}, step={step}) has no window; "
            "use more learners, a larger weight or a smaller step."
        )
    ratio = (1 + (num_learners - 1) / (window + 1)) / num_learners / step
    return ExtremeExample(window, total_weight / window, ratio)
