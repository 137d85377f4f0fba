"""Rules for which the controller must hear from everybody in every round: reports of a number or two, each a message that is counted as an upload."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from lapg.types import Arrival, Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, is_concrete, squared_norm


class Drifts(eqx.Module):
    """At the controller: ‖E_m‖² and ξᵀE_m as reported last, ξ, and whether all are to upload in this round."""

    squares: Float[Array, " M"]
    along: Float[Array, " M"]
    direction: Float[Array, " d"]
    due: Bool[Array, ""]


def model_variance(threshold: Scalar = 1.0) -> Trigger:
    """All upload when their models are far apart: when mean_m ‖E_m‖² − (mean_m ξᵀE_m)² > Θ, E_m being how far learner m is from θ^k.

    The left side is the variance of the models, (1/M) Σ_m ‖E_m − Ē‖², or more, because ξ is a unit vector. Every learner reports ‖E_m‖² and ξᵀE_m in every
    round: without innovation, unless the controller has found in the round before that the bound was passed, so that all upload a round after that. ξ is
    the direction of the last step that came of such a round, and before it 0. Learners that follow a replica know it; on a dense downlink it is sent with
    θ^k, d numbers more.

    Args:
      threshold: Θ > 0, in squared units of the innovation; larger uploads less.
    Raises:
      ValueError: threshold is not positive.
    Source: FDA, arXiv 2405.20988, the variant called linear; its states are sent and judged before the same round is over. Sketches in place of ξᵀE_m are not
      offered here.
    """
    if is_concrete(threshold) and not float(threshold) > 0:
        raise ValueError(
            f"model_variance(threshold=...) must be > 0, got {float(threshold)}; triggers.always() uploads every round."
        )

    def update(
        key: Key[Array, ""], state: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Any, Decision]:
        due, direction = candidate.signal
        size, dtype = squared_norm(candidate.innovation), candidate.innovation.dtype
        report = size, jnp.sum(direction * candidate.innovation)
        bound = jnp.asarray(threshold, dtype)
        return state, Decision(jnp.bool_(True), size, bound, report, due.astype(dtype))

    def controller_init(params: Float[Array, " d"], num_learners: int) -> Drifts:
        zeros = jnp.zeros(num_learners, params.dtype)
        return Drifts(zeros, zeros, jnp.zeros_like(params), jnp.bool_(False))

    def controller_update(state: Drifts, displacement: Float[Array, " d"], arrival: Arrival) -> Drifts:
        squares, along = (
            jnp.where(state.due, 0, jnp.where(arrival.sent, new, old))
            for new, old in zip(arrival.report, (state.squares, state.along), strict=True)
        )
        length = jnp.sqrt(squared_norm(displacement))
        turned = displacement / jnp.where(length > 0, length, 1)
        direction = jnp.where(state.due & (length > 0), turned, state.direction)
        return Drifts(squares, along, direction, jnp.mean(squares) - jnp.mean(along) ** 2 > threshold)

    return Trigger(
        update=update,
        controller_init=controller_init,
        controller_update=controller_update,
        signal=lambda key, state: (state.due, state.direction),
        weighs=True,
    )


def importance(rate: Scalar = 0.25, *, alone: bool = True, num_learners: int) -> Trigger:
    """Uploads with a probability in proportion to ‖innovation‖, and weighted by its inverse: p_m = min(1, rate · M · ‖innovation_m‖ / Σ_j ‖innovation_j‖).

    The weighted sum of what arrives has the sum of all innovations for its mean, whatever the norms of the others are that learner m is told: they are
    those of the round before. Meant for innovations that are lost where they are not uploaded (memory ``fresh``).

    Args:
      rate: wanted innovations a round and learner, in (0, 1]; no more are expected.
      alone: whether learners that do not upload report their norm all the same, a message of its own; if not, the last one stands.
      num_learners: M.
    Raises:
      ValueError: rate outside (0, 1].
    Source: Chen, Horváth, Richtárik, arXiv 2010.13723, with one round of approximate aggregation, and norms a round old: what the bound p <= 1 saves is not
      given to the others.
    """
    if is_concrete(rate) and not 0 < float(rate) <= 1:
        raise ValueError(f"importance(rate=...) must lie in (0, 1], got {float(rate)}.")

    def update(
        key: Key[Array, ""], state: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Any, Decision]:
        size, total = jnp.sqrt(squared_norm(candidate.innovation)), candidate.signal
        share = rate * num_learners * size / jnp.where(total > 0, total, 1)
        chance = jnp.where(total > 0, jnp.minimum(1, share), 1).astype(size.dtype)
        coin = jax.random.uniform(key, dtype=size.dtype)
        chosen = coin < chance
        weight = jnp.where(chosen, 1 / jnp.where(chosen, chance, 1), 0)
        return state, Decision(chosen | alone, chance, coin, size, weight)

    return Trigger(
        update=update,
        controller_init=lambda params, num_learners: jnp.zeros(num_learners, params.dtype),
        controller_update=lambda norms, displacement, arrival: jnp.where(arrival.sent, arrival.report, norms),
        signal=lambda key, norms: jnp.sum(norms),
        weighs=True,
    )
