"""What `lapg.uplink.triggers.lazy` holds against the drift: how much a learner's gradient has changed since its last upload."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lapg.types import Candidate, GradientAt, Scalar, is_concrete, squared_norm, weighed


class Sides(NamedTuple):
    """The change as a ``statistic``, an ``error`` that counts against it, and whether it is ``noisy``, so that the trigger's noise term applies."""

    statistic: Float[Array, ""]
    error: Scalar
    noisy: bool | Bool[Array, ""]


class Measure(NamedTuple):
    """``init: θ → state`` · ``update: state, Candidate, gradient_at → state, Sides`` · ``settle: state, Candidate → state`` (only when sent)."""

    update: Callable[[Any, Candidate, GradientAt], tuple[Any, Sides]]
    init: Callable[[Float[Array, " d"]], Any] = lambda params: ()
    settle: Callable[[Any, Candidate], Any] = lambda state, candidate: state


def innovation() -> Measure:
    """‖δ_m‖² itself (LAG-WK, LAPG)."""
    return Measure(lambda state, candidate, gradient_at: (state, Sides(squared_norm(candidate.innovation), 0.0, True)))


def quantised(error_weight: Scalar = 3.0) -> Measure:
    """What the message would carry, ‖δ_Q‖², less 3 (‖ε‖² + ‖ε̂‖²): the compression errors of this message and of the one uploaded last.

    Args:
      error_weight: 3 in the paper.
    Source: Sun, Chen, Giannakis, Yang, arXiv 1909.07588, eq. (7a).
    """

    def lost(candidate: Candidate) -> Float[Array, ""]:
        return squared_norm(candidate.innovation - candidate.decoded)

    def update(last: Float[Array, ""], candidate: Candidate, gradient_at: GradientAt) -> tuple[Any, Sides]:
        return last, Sides(squared_norm(candidate.decoded), error_weight * (lost(candidate) + last), True)

    return Measure(
        update, lambda params: jnp.zeros((), params.dtype), lambda last, candidate: lost(candidate).astype(last.dtype)
    )


def staleness(smoothness: Scalar | Sequence[float] | Float[Array, " M"] = 1.0) -> Measure:
    """L_m² ‖θ̂_m − θ^k‖², a bound on the change of the gradient since θ̂_m, the parameters at the last upload; it has no noise.

    In LAG-PS the controller keeps all θ̂_m and asks for uploads. Learner m knows its own, so that it decides the same without being asked.

    Args:
      smoothness: L_m, one number for all learners or one for each.
    Raises:
      ValueError: an entry is negative.
    Source: Chen et al., arXiv 1805.09965, eq. (15b).
    """
    if is_concrete(smoothness) and bool(np.any(np.asarray(smoothness) < 0)):
        raise ValueError(
            f"staleness(smoothness=...) must be >= 0, got {np.asarray(smoothness).tolist()}; it bounds the Hessian."
        )
    bounds = jnp.atleast_1d(jnp.asarray(smoothness))

    def update(last: Float[Array, " d"], candidate: Candidate, gradient_at: GradientAt) -> tuple[Any, Sides]:
        bound = bounds[0] if bounds.size == 1 else jnp.take(bounds, candidate.index)
        statistic = bound.astype(last.dtype) ** 2 * squared_norm(last - candidate.params)
        return last, Sides(statistic, 0.0, False)

    return Measure(update, lambda params: params, lambda last, candidate: candidate.params)


def same_samples(min_effective: float = 0.25) -> Measure:
    """‖g(θ^k; z) − g(θ̂_m; z)‖², both gradients from this round's batch z, θ̂_m the parameters at the last upload: most of the noise cancels.

    The second gradient is importance-weighted (per decision with G(PO)MDP, with the same baseline as the first). Where few effective samples are
    left of it, the weights are noise themselves, and `innovation` with the trigger's noise term decides instead.

    Args:
      min_effective: fraction of the effective samples at θ^k below which that is so; 0 never.
    Raises:
      ValueError: outside [0, 1].
    Source: Chen, Guo, Sun, Yin, arXiv 2012.15469 (CADA2; LASG-WK2 in arXiv 2002.11360), where losses are averages over data and need no weights.
    """
    if not 0 <= min_effective <= 1:
        raise ValueError(
            f"same_samples(min_effective=...) must lie in [0, 1], got {min_effective}; 0 always trusts the weights."
        )

    def update(last: Float[Array, " d"], candidate: Candidate, gradient_at: GradientAt) -> tuple[Any, Sides]:
        here, there = gradient_at(candidate.params), gradient_at(last)
        trusted = there.effective_samples >= weighed(min_effective, here.effective_samples)
        change = squared_norm(here.gradient - there.gradient)
        return last, Sides(jnp.where(trusted, change, squared_norm(candidate.innovation)), 0.0, ~trusted)

    return Measure(update, lambda params: params, lambda last, candidate: candidate.params)


class Corrected(eqx.Module):
    """θ̃, g(θ; z) − g(θ̃; z) now and at the last upload, and how many batches there have been."""

    params: Float[Array, " d"]
    now: Float[Array, " d"]
    last: Float[Array, " d"]
    count: Int[Array, ""]


def against_snapshot(period: int = 50) -> Measure:
    """‖δ̃^k − δ̃_last‖² with δ̃^k = g(θ^k; z^k) − g(θ̃; z^k), and θ̃ the parameters at the last multiple of ``period``.

    The second gradient is importance-weighted. Two batches, but each difference has little noise as long as θ^k is near θ̃.

    Args:
      period: rounds between snapshots.
    Raises:
      ValueError: period < 1.
    Source: Chen, Guo, Sun, Yin, arXiv 2012.15469 (CADA1; LASG-WK1 in arXiv 2002.11360).
    """
    if period < 1:
        raise ValueError(f"against_snapshot(period=...) must be >= 1, got {period}.")

    def init(params: Float[Array, " d"]) -> Corrected:
        zeros = jnp.zeros_like(params)
        return Corrected(params, zeros, zeros, jnp.int32(0))

    def update(state: Corrected, candidate: Candidate, gradient_at: GradientAt) -> tuple[Any, Sides]:
        params = jnp.where(state.count % period == 0, candidate.params, state.params)
        now = gradient_at(candidate.params).gradient - gradient_at(params).gradient
        after = Corrected(params, now, state.last, state.count + 1)
        return after, Sides(squared_norm(now - state.last), 0.0, False)

    def settle(state: Corrected, candidate: Candidate) -> Corrected:
        return eqx.tree_at(lambda each: each.last, state, state.now)

    return Measure(update, init, settle)
