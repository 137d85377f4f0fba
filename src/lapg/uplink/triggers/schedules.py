"""Uploads that know nothing of what they carry."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lapg.types import Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, is_concrete, squared_norm
from lapg.uplink.triggers.common import golden_fraction

Phase = Literal["together", "staggered"]


def _rule(rule: Callable[[Key[Array, ""], Candidate], tuple[Bool[Array, ""], Any, Any]]) -> Trigger:
    """A trigger without state from ``key, candidate → fires, statistic, threshold``."""

    def update(
        key: Key[Array, ""], state: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Any, Decision]:
        fires, statistic, threshold = rule(key, candidate)
        dtype = candidate.noise.dtype
        return state, Decision(fires, jnp.asarray(statistic, dtype), jnp.asarray(threshold, dtype))

    return Trigger(update=update)


def always() -> Trigger:
    """Upload every round (PG)."""
    return _rule(lambda key, candidate: (jnp.bool_(True), squared_norm(candidate.innovation), -jnp.inf))


def never() -> Trigger:
    """Upload in round 0 and never again: the baseline that shows what one gradient is worth."""
    return _rule(lambda key, candidate: (jnp.bool_(False), squared_norm(candidate.innovation), jnp.inf))


def periodic(period: Scalar = 10.0, *, phase: Phase = "together") -> Trigger:
    """Upload every few rounds: when so many have passed since the last upload.

    Args:
      period: P, rounds; a fraction is rounded up.
      phase: ``together``: all learners in the same rounds. ``staggered``: one after the other, learner m's first upload being due after the fractional
        part of (m + 1)(√5 − 1)/2 of a period, which spreads any number of learners evenly.
    Raises:
      ValueError: period < 1, or an unknown phase.
    """
    if is_concrete(period) and float(period) < 1:
        raise ValueError(f"periodic(period=...) must be >= 1, got {float(period)}; 1 uploads every round.")
    if phase not in ("together", "staggered"):
        raise ValueError(f"periodic(phase=...) must be 'together' or 'staggered', got {phase!r}.")
    if phase == "together":
        return _rule(lambda key, candidate: (candidate.age >= period, candidate.age, period))

    def due(shifted: Bool[Array, ""], index: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.where(shifted, period, jnp.maximum(1, period * golden_fraction(index)))

    def update(
        key: Key[Array, ""],
        shifted: Bool[Array, ""],
        candidate: Candidate,
        estimate: Estimate,
        gradient_at: GradientAt,
    ) -> tuple[Bool[Array, ""], Decision]:
        dtype, wait = candidate.noise.dtype, due(shifted, candidate.index)
        return shifted, Decision(candidate.age >= wait, candidate.age.astype(dtype), wait.astype(dtype))

    def settle(shifted: Bool[Array, ""], candidate: Candidate) -> Bool[Array, ""]:
        # a first share that the aggregate needs in round 0 comes before the shifted upload is due, and leaves it due
        return shifted | (candidate.age >= due(shifted, candidate.index))

    return Trigger(update=update, init=lambda params: jnp.bool_(False), settle=settle)


def random(rate: Scalar = 0.1, *, shared: bool = False) -> Trigger:
    """Upload with a probability, every learner by its own coin, or all by one.

    Args:
      rate: the probability.
      shared: whether the controller tosses for all learners, whom it tells.
    Raises:
      ValueError: rate outside [0, 1].
    """
    if is_concrete(rate) and not 0 <= float(rate) <= 1:
        raise ValueError(f"random(rate=...) must lie in [0, 1], got {float(rate)}.")

    if shared:
        tossed = _rule(lambda key, candidate: (candidate.signal, candidate.signal, 0.5))
        return tossed._replace(signal=lambda key, state: jax.random.bernoulli(key, rate))

    def rule(key: Key[Array, ""], candidate: Candidate) -> tuple[Bool[Array, ""], Any, Any]:
        coin = jax.random.uniform(key)
        return coin < rate, rate, coin

    return _rule(rule)
