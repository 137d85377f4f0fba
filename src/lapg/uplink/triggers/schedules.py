"""Uploads that know nothing of what they carry."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from lapg.types import Candidate, Decision, GradientAt, Scalar, Trigger, known, squared_norm


def _rule(rule: Callable[[Key[Array, ""], Candidate], tuple[Bool[Array, ""], Any, Any]]) -> Trigger:
    """A trigger without state from ``key, candidate → fires, left, right``."""

    def update(key: Key[Array, ""], state: Any, candidate: Candidate, gradient_at: GradientAt) -> tuple[Any, Decision]:
        fires, left, right = rule(key, candidate)
        dtype = candidate.noise.dtype
        return state, Decision(fires, jnp.asarray(left, dtype), jnp.asarray(right, dtype))

    return Trigger(update=update)


def always() -> Trigger:
    """Upload every round (PG)."""
    return _rule(lambda key, candidate: (jnp.bool_(True), squared_norm(candidate.innovation), -jnp.inf))


def never() -> Trigger:
    """Upload in round 0 and never again: the control that shows what one gradient is worth."""
    return _rule(lambda key, candidate: (jnp.bool_(False), squared_norm(candidate.innovation), jnp.inf))


def periodic(period: Scalar) -> Trigger:
    """Upload when ``period`` rounds have passed since the last upload.

    Raises:
      ValueError: period < 1.
    """
    if known(period) and float(period) < 1:
        raise ValueError(f"periodic(period=...) must be >= 1, got {float(period)}; 1 uploads every round.")
    return _rule(lambda key, candidate: (candidate.age >= period, candidate.age, period))


def random(rate: Scalar) -> Trigger:
    """Upload with probability ``rate``, every learner by its own coin.

    Raises:
      ValueError: rate outside [0, 1].
    """
    if known(rate) and not 0 <= float(rate) <= 1:
        raise ValueError(f"random(rate=...) must lie in [0, 1], got {float(rate)}.")

    def rule(key: Key[Array, ""], candidate: Candidate) -> tuple[Bool[Array, ""], Any, Any]:
        coin = jax.random.uniform(key)
        return coin < rate, rate, coin

    return _rule(rule)
