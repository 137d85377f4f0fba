"""Uploads of what is large, by a threshold that learns to keep a wanted rate."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lapg.types import Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, is_concrete, squared_norm


class Balance(eqx.Module):
    """The threshold δ, 0 before the first innovation; and the rate of uploads, averaged over the last ones."""

    threshold: Float[Array, ""]
    rate: Float[Array, ""]


def budget(rate: Scalar = 0.05, *, gain: Scalar = 1.0, smoothing: Scalar = 0.1) -> Trigger:
    """Upload when ‖innovation‖ > δ, with log δ ← log δ + gain · (recent rate − wanted rate) every round: integral control, each learner by itself.

    Large innovations go first, and the number of uploads is known beforehand: about ``rate`` · K a learner.

    Args:
      rate: wanted uploads per round, in (0, 1].
      gain: of the control, > 0; larger reacts faster and scatters more.
      smoothing: weight of the present round in the recent rate, in (0, 1].
    Raises:
      ValueError: one of these is out of its range.
    Source: FedBack, arXiv 2411.19242, whose δ is additive, and so has the units of the innovation; here its logarithm is controlled.
    """
    for name, value in (("rate", rate), ("smoothing", smoothing)):
        if is_concrete(value) and not 0 < float(value) <= 1:
            raise ValueError(f"budget({name}=...) must lie in (0, 1], got {float(value)}.")
    if is_concrete(gain) and not float(gain) > 0:
        raise ValueError(f"budget(gain=...) must be > 0, got {float(gain)}.")

    def update(
        key: Key[Array, ""], state: Balance, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Balance, Decision]:
        size = jnp.sqrt(squared_norm(candidate.innovation))
        threshold = jnp.where(state.threshold > 0, state.threshold, size)
        fires = size > threshold
        recent = (1 - smoothing) * state.rate + smoothing * fires
        after = Balance((threshold * jnp.exp(gain * (recent - rate))).astype(size.dtype), recent.astype(size.dtype))
        return after, Decision(fires, size, threshold)

    def init(params: Float[Array, " d"]) -> Any:
        zero = jnp.zeros((), params.dtype)
        return Balance(zero, zero)

    return Trigger(update=update, init=init)
