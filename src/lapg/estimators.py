"""Estimators of ∇L_m(θ) from a batch, each with its noise, and at any θ by importance weights."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lapg.types import Estimate, Estimator, Policy, Task, Trajectories, squared_norm

Baseline = Literal["none", "leave_one_out"]


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


def _policy_gradient(
    weight: Callable[[Float[Array, " T"]], Float[Array, " T"]],
    policy: Policy,
    discount: float,
    baseline: Baseline,
    time_average: bool,
) -> Estimator:
    """The gradient of Σ_t w_t(θ) γ^t (ℓ_t − b_t), where ``weight`` makes w_t of the log ratios of the policy.

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
            ratios = jnp.exp(weight(jnp.where(trajectory.mask, log_probs - trajectory.log_probs, 0)))
            return jnp.sum(ratios * losses), ratios[-1]

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
    return _policy_gradient(jnp.cumsum, policy, discount, baseline, time_average)


def reinforce(
    policy: Policy, discount: float, *, baseline: Baseline = "leave_one_out", time_average: bool = False
) -> Estimator:
    """REINFORCE: (1/N) Σ_n (Σ_t ∇log π(a_t|s_t)) (Σ_t γ^t (ℓ_t − b_t)); at other θ with the weight of the whole trajectory.

    Arguments as in `gpomdp`, whose variance is lower.
    """
    return _policy_gradient(
        lambda log_ratios: jnp.full_like(log_ratios, 1) * jnp.sum(log_ratios), policy, discount, baseline, time_average
    )


def exact(gradient: Callable[[Task, Float[Array, " d"]], Float[Array, " d"]]) -> Estimator:
    """The problem's own ∇L_m(θ), where it is known. The batch is ignored; the noise is 0."""

    def estimate(task: Task, params: Float[Array, " d"], batch: Any) -> Estimate:
        value = gradient(task, params)
        return Estimate(value, jnp.zeros((), value.dtype), jnp.full((), jnp.inf, value.dtype))

    return stateless(estimate)


def noisy(gradient: Callable[[Task, Float[Array, " d"]], Float[Array, " d"]]) -> Estimator:
    """∇L_m(θ) plus the batch's noise draws (see `lapg.problems.quadratic`). The same draws serve every θ."""

    def estimate(task: Task, params: Float[Array, " d"], batch: dict[str, Array]) -> Estimate:
        draws = batch["noise"]
        mean, noise = mean_and_noise(gradient(task, params)[None] + draws)
        return Estimate(mean, noise, jnp.full((), draws.shape[0], mean.dtype))

    return stateless(estimate)
