"""Likelihood-ratio estimators of ∇L_m(θ), each with its noise, and at any θ by importance weights."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lapg.estimators.common import first_steps, mean_and_noise, stateless
from lapg.types import Estimate, Estimator, Policy, Task, Trajectories, squared_norm

Baseline = Literal["none", "leave_one_out"]


def policy_gradient(
    weight: Callable[[Float[Array, " T"], Bool[Array, " T"]], Float[Array, " T"]],
    policy: Policy,
    discount: float,
    baseline: Baseline,
    time_average: bool,
) -> Estimator:
    """The gradient of Σ_t w_t(θ) γ^t (ℓ_t − b_t), where ``weight`` makes log w_t of the log ratios of the policy and of which steps are first ones.

    On-policy every w_t is 1 and its gradient is the score that multiplies the loss at t. One baseline serves every θ.
    """
    if baseline not in ("none", "leave_one_out"):
        raise ValueError(f"baseline must be 'none' or 'leave_one_out', got {baseline!r}.")

    def estimate(task: Task, params: Float[Array, " d"], batch: Trajectories) -> Estimate:
        num, steps = batch.losses.shape
        losses = batch.losses * discount ** jnp.arange(steps, dtype=batch.losses.dtype)[None]
        if time_average:
            losses = losses / steps
        if baseline == "leave_one_out":
            losses = (losses - losses.mean(0, keepdims=True)) * (num / (num - 1))  # ℓ_n minus the mean of the others

        def surrogate(params: Float[Array, " d"], trajectory: Trajectories, losses: Float[Array, " T"]) -> Any:
            log_probs = jax.vmap(policy.log_prob, (None, 0, 0))(params, trajectory.observations, trajectory.actions)
            log_ratios = jnp.where(trajectory.mask, log_probs - trajectory.log_probs, 0)
            weights = jnp.exp(weight(log_ratios, first_steps(trajectory.ended)))
            return jnp.sum(weights * losses), jnp.exp(jnp.sum(log_ratios))

        gradients, ratios = jax.vmap(jax.grad(surrogate, has_aux=True), (None, 0, 0))(params, batch, losses)
        mean, noise = mean_and_noise(gradients)
        return Estimate(mean, noise, jnp.sum(ratios) ** 2 / squared_norm(ratios))

    return stateless(estimate, minimum_batch=2 if baseline == "leave_one_out" else 1)


def gpomdp(
    policy: Policy, discount: float, *, baseline: Baseline = "leave_one_out", time_average: bool = False
) -> Estimator:
    """G(PO)MDP: (1/N) Σ_n Σ_t (Σ_{τ≤t} ∇log π(a_τ|s_τ)) γ^t (ℓ_t − b_t); at other θ with per-decision weights w_{0:t}.

    Args:
      policy: the (joint) policy π; the gradient is with respect to all of θ.
      discount: γ, counted from t = 0.
      baseline: ``none`` as in the paper, or ``leave_one_out``: b_t is the mean of ℓ_t over the other N − 1 trajectories. Both are unbiased.
      time_average: divide by T, which the paper leaves open.
    Returns:
      An estimator whose noise is unbiased for tr Cov without a baseline; with ``leave_one_out`` the trajectories' terms are correlated and it is
      low by O(1/(N−1)²).
    Source: Chen et al., arXiv 1812.03239, eq. (9), (10), with t = 0..T−1.
    """
    return policy_gradient(lambda log_ratios, _: jnp.cumsum(log_ratios), policy, discount, baseline, time_average)


def reinforce(
    policy: Policy, discount: float, *, baseline: Baseline = "leave_one_out", time_average: bool = False
) -> Estimator:
    """REINFORCE: (1/N) Σ_n (Σ_t ∇log π(a_t|s_t)) (Σ_t γ^t (ℓ_t − b_t)); at other θ with the weight of the whole trajectory.

    `gpomdp` has lower variance.

    Args:
      baseline, time_average: as in `gpomdp`.
    """
    return policy_gradient(
        lambda log_ratios, _: jnp.full_like(log_ratios, 1) * jnp.sum(log_ratios),
        policy,
        discount,
        baseline,
        time_average,
    )
