"""Gradients made less noisy with the same batch's gradient at earlier parameters, before the learner does anything with them."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lapg.types import Broadcast, Estimate, GradientAt, Scalar, VarianceReduction, is_concrete
from lapg.uplink.memories import blended_noise


class Anchored(eqx.Module):
    """Earlier parameters, a gradient that belongs to them, its noise, and how many batches have come since."""

    params: Float[Array, " d"]
    gradient: Float[Array, " d"]
    noise: Float[Array, ""]
    count: Int[Array, ""]


def _start(params: Float[Array, " d"]) -> Anchored:
    zeros = jnp.zeros_like(params)
    return Anchored(zeros, zeros, jnp.zeros((), params.dtype), jnp.int32(0))


def plain() -> VarianceReduction:
    """No reduction: gradients as they are."""
    return VarianceReduction()


def storm(weight: Scalar = 0.2) -> VarianceReduction:
    """Recursive variance reduction: v ← g(θ^k) + (1 − β)(v − g(θ^{k−1})), both gradients from this round's batch; v = g in the first round.

    v is a running average of gradients that follows the policy: where the policy stands still it is v ← (1 − β)v + βg, and where it moves the
    difference of the two gradients moves v along. That difference is importance-weighted, so v is unbiased for fixed parameters, and its noise grows
    with the distance of one round. Cost: one more gradient a round, 2d numbers.

    Args:
      weight: β in (0, 1]; 1 is the plain gradient.
    Returns:
      A reduction whose noise follows s² ← (1 − β)² s² + β² σ̂²: exact where a batch's errors at θ^k and θ^{k−1} are equal, else low.
    Raises:
      ValueError: weight outside (0, 1].
    Source: Cutkosky and Orabona, arXiv 1905.10018; with importance weights Yuan et al., arXiv 2003.04302.
    """
    if is_concrete(weight) and not 0 < float(weight) <= 1:
        raise ValueError(f"storm(weight=...) must lie in (0, 1], got {float(weight)}; 1 is the plain gradient.")

    def refine(
        last: Anchored, broadcast: Broadcast, params: Float[Array, " d"], here: Estimate, gradient_at: GradientAt
    ) -> tuple[Anchored, Estimate]:
        first = last.count == 0
        blend = jnp.where(first, 1.0, weight).astype(params.dtype)
        there = gradient_at(jnp.where(first, params, last.params))
        value = here.gradient + (1 - blend) * (last.gradient - there.gradient)
        noise = blended_noise(last.noise, blend, here.noise_or_inf)
        return Anchored(params, value, noise, last.count + 1), Estimate(value, noise, here.effective_samples)

    return VarianceReduction(_start, refine)


def snapshot(period: int = 10, num_batches: int = 5) -> VarianceReduction:
    """Snapshot variance reduction: v = g(θ^k) − g(θ̃) + μ, where θ̃ is θ at the last multiple of ``period`` and μ a gradient there.

    Both gradients are of this round's batch, the second by importance weights. μ is the mean of g(θ̃) over the first ``num_batches`` batches since the
    snapshot, in place of a larger batch in the round of the snapshot; 1 is SVRPG with equal batches, whose v has the noise of one gradient, the
    same throughout the period. Unbiased for fixed parameters. Cost: one more gradient a round, 2d numbers.

    Args:
      period: rounds between snapshots.
      num_batches: batches whose mean is μ, 1..period.
    Returns:
      A reduction whose noise is that of μ: exact where a batch's errors at θ^k and θ̃ are equal, else low.
    Raises:
      ValueError: period < 1, or num_batches outside 1..period.
    Source: Papini et al., arXiv 1806.05618, Algorithm 1, where the snapshot's batch is larger.
    """
    if period < 1 or not 1 <= num_batches <= period:
        raise ValueError(
            f"snapshot(...) needs period >= 1 and 1 <= num_batches <= period, got {period} and {num_batches}."
        )

    def refine(
        last: Anchored, broadcast: Broadcast, params: Float[Array, " d"], here: Estimate, gradient_at: GradientAt
    ) -> tuple[Anchored, Estimate]:
        anchor = jnp.where(last.count == 0, params, last.params)
        there = gradient_at(anchor)
        share = jnp.where(last.count < num_batches, 1 / (last.count + 1).astype(params.dtype), 0)
        mean = (1 - share) * last.gradient + share * there.gradient
        noise = blended_noise(last.noise, share, there.noise_or_inf)
        value = here.gradient - there.gradient + mean
        count = (last.count + 1) % period
        return Anchored(anchor, mean, noise, count), Estimate(value, noise, here.effective_samples)

    return VarianceReduction(_start, refine)


class Followed(eqx.Module):
    """θ^k, and the controller's parameters before those."""

    params: Float[Array, " d"]
    before: Float[Array, " d"]


def federated_momentum(
    weight: Scalar = 0.5, *, plain_step_size: Scalar, num_learners: int, upload_period: Scalar
) -> VarianceReduction:
    """Drift correction: v = g(θ_m) + (1 − β)(u − g(θ_before)), with both gradients from this batch and u the mean direction of the last aggregation.

    θ_m is where the learner's own steps have taken it; θ_before are the controller's parameters before its last step, and
    u = (θ_before − θ)/(α M H) for plain steps α, M learners and H local steps each, so that nobody has to send it. That u is everybody's and g(θ_before) the learner's own takes the drift out of
    the local steps. Before the controller's first step v = g.

    Args:
      weight: β in (0, 1]; 1 is the plain local step of FedAvg.
      plain_step_size: α.
      num_learners: M.
      upload_period: H.
    Raises:
      ValueError: weight outside (0, 1].
    Source: Wang et al., arXiv 2405.19499, Algorithm 1 (FedSVRPG-M).
    """
    if is_concrete(weight) and not 0 < float(weight) <= 1:
        raise ValueError(f"federated_momentum(weight=...) must lie in (0, 1], got {float(weight)}; 1 is FedAvg.")

    controller_step = num_learners * plain_step_size * upload_period

    def refine(
        last: Followed, broadcast: Broadcast, params: Float[Array, " d"], here: Estimate, gradient_at: GradientAt
    ) -> tuple[Followed, Estimate]:
        moved = jnp.any(broadcast.params != last.params)
        before = jnp.where(moved, last.params, last.before)
        mean = ((before - broadcast.params) / controller_step).astype(params.dtype)
        blend = jnp.where(jnp.any(before != broadcast.params), weight, 1.0).astype(params.dtype)
        value = here.gradient + (1 - blend) * (mean - gradient_at(before).gradient)
        noise = blend**2 * here.noise_or_inf
        return Followed(broadcast.params, before), Estimate(value, noise, here.effective_samples)

    return VarianceReduction(lambda params: Followed(params, params), refine)
