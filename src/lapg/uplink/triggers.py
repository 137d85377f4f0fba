"""When to upload. A learner that has never uploaded does so in any case; that is round 0, and it is counted."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from lapg.types import Arrival, Candidate, Decision, GradientAt, Scalar, Trigger, known, squared_norm

Scale = Literal["report", "step"]


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


def lazy(
    xi: Float[Array, " D"],
    *,
    step_size: Scalar,
    num_learners: int,
    noise_weight: Scalar = 6.0,
    noise_bound: Float[Array, " M"] | None = None,
    strict: bool = True,
    max_age: int | None = None,
) -> Trigger:
    """Uploads when the innovation outgrows recent policy movement and its own noise.

    Fires iff ‖δ_m‖² > drift + noise_weight · σ²_m, drift = (1/α²M²) Σ_d ξ_d ‖θ^{k+1−d} − θ^{k−d}‖². The controller computes the drift from
    the displacements that really happened and broadcasts that one scalar.

    Args:
      xi: weights ξ_1..ξ_D, newest first, non-negative; Σξ < 1/3 for Theorem 1. Dimensionless.
      step_size: α of the controller's plain step. With other optimisers, the scale that turns a displacement into a gradient.
      num_learners: M.
      noise_weight: c; 6 in the paper, for a high-probability bound on σ²; 1 to 2 for a sample variance.
      noise_bound: σ²_m as constants that replace the candidate's own noise, as in (15); None uses the sample variance.
      strict: ``>``; False is the paper's ``>=``, which also fires at 0 >= 0.
      max_age: rounds after which a learner uploads in any case; None as in the paper.
    Raises:
      ValueError: an entry of xi or noise_weight is negative, step_size is not positive, the bound is not one per learner, or max_age < 1.
    Source: Chen et al., arXiv 1812.03239, eq. (16); strict '>' where the paper has '≥' (see Lemma 4).
    """
    if xi.ndim != 1 or xi.shape[0] < 1:
        raise ValueError(f"lazy(xi=...) must be one weight per past round, D >= 1, got shape {xi.shape}.")
    if known(xi) and bool(np.any(np.asarray(xi) < 0)):
        raise ValueError(f"lazy(xi=...) must be non-negative, got {np.asarray(xi).tolist()}; 0 switches the drift off.")
    if known(noise_weight) and float(noise_weight) < 0:
        raise ValueError(f"lazy(noise_weight=...) must be >= 0, got {float(noise_weight)}; 0 ignores the noise.")
    if known(step_size) and float(step_size) <= 0:
        raise ValueError(f"lazy(step_size=...) must be > 0, got {float(step_size)}.")
    if noise_bound is not None and noise_bound.shape != (num_learners,):
        raise ValueError(
            f"lazy(noise_bound=...) must have one entry per learner, {num_learners}, got {noise_bound.shape}."
        )
    _check_max_age("lazy", max_age)

    def update(key: Key[Array, ""], state: Any, candidate: Candidate, gradient_at: GradientAt) -> tuple[Any, Decision]:
        noise = candidate.noise if noise_bound is None else jnp.take(noise_bound, candidate.index)
        left = squared_norm(candidate.innovation)
        right = (candidate.signal + noise_weight * noise).astype(left.dtype)
        fires = (left > right if strict else left >= right) | _overdue(candidate.age, max_age)
        return state, Decision(fires, left, right)

    def signal(key: Key[Array, ""], movements: Float[Array, " D"]) -> Float[Array, ""]:
        return (jnp.sum(xi * movements) / (step_size * num_learners) ** 2).astype(movements.dtype)

    return Trigger(
        update=update,
        controller_init=lambda params, num_learners: jnp.zeros(xi.shape, params.dtype),
        controller_update=lambda movements, displacement, arrival: (
            jnp.roll(movements, 1).at[0].set(squared_norm(displacement))
        ),
        signal=signal,
    )


class Window(eqx.Module):
    """Since the last upload: Σ‖g‖ and the number of gradients."""

    total: Float[Array, ""]
    count: Int[Array, ""]


def age_weighted(
    threshold: Scalar,
    *,
    scale: Scale = "report",
    step_size: Scalar = 1.0,
    max_age: int | None = 200,
    decay: float = 0.95,
) -> Trigger:
    """Uploads when what has come together is large *and* old: age · ‖innovation‖ >= κ · scale.

    For an accumulated innovation, age · ‖E‖ grows like age² under steady drift and like age^{3/2} under noise, so a learner's rate follows the size of
    its own gradients. The scale is in units of one round's gradient and honest: it is made of what has arrived.

    Args:
      threshold: κ; larger is lazier. Dimensionless.
      scale: ``report``: every upload carries the mean ‖g‖ of its window, and the controller broadcasts the sum of the last reports. ``step``: the
        running mean of the controller's own ‖Δθ‖/α; nothing is reported.
      step_size: α, for ``step``.
      max_age: rounds after which a learner uploads in any case.
      decay: weight of the past in the running mean of ``step``.
    Raises:
      ValueError: threshold or step_size not positive, an unknown scale, max_age < 1, decay outside [0, 1).
    """
    if known(threshold) and float(threshold) <= 0:
        raise ValueError(
            f"age_weighted(threshold=...) must be > 0, got {float(threshold)}; triggers.always() uploads every round."
        )
    if known(step_size) and float(step_size) <= 0:
        raise ValueError(f"age_weighted(step_size=...) must be > 0, got {float(step_size)}.")
    if scale not in ("report", "step"):
        raise ValueError(f"age_weighted(scale=...) must be 'report' or 'step', got {scale!r}.")
    if not 0 <= decay < 1:
        raise ValueError(f"age_weighted(decay=...) must lie in [0, 1), got {decay}.")
    _check_max_age("age_weighted", max_age)
    reports = scale == "report"

    def update(
        key: Key[Array, ""], state: Window, candidate: Candidate, gradient_at: GradientAt
    ) -> tuple[Window, Decision]:
        norm = jnp.sqrt(squared_norm(gradient_at(candidate.params).gradient))
        window = Window(state.total + norm, state.count + 1)
        left = candidate.age * jnp.sqrt(squared_norm(candidate.innovation))
        right = (threshold * candidate.signal).astype(left.dtype)
        report = window.total / window.count if reports else ()
        return window, Decision((left >= right) | _overdue(candidate.age, max_age), left, right, report)

    def empty(dtype: Any) -> Window:
        return Window(jnp.zeros((), dtype), jnp.int32(0))

    def controller_init(params: Float[Array, " d"], num_learners: int) -> Float[Array, "..."]:
        return jnp.zeros((num_learners,) if reports else (), params.dtype)

    def controller_update(
        state: Float[Array, "..."], displacement: Float[Array, " d"], arrival: Arrival
    ) -> Float[Array, "..."]:
        if reports:
            return jnp.where(arrival.sent, arrival.report, state)
        size = jnp.sqrt(squared_norm(displacement)) / step_size
        return jnp.where(state == 0, size, decay * state + (1 - decay) * size).astype(state.dtype)

    return Trigger(
        update=update,
        init=lambda params: empty(params.dtype),
        settle=lambda state, candidate: empty(state.total.dtype),
        controller_init=controller_init,
        controller_update=controller_update,
        signal=lambda key, state: jnp.sum(state),
    )


def _check_max_age(owner: str, max_age: int | None) -> None:
    if max_age is not None and max_age < 1:
        raise ValueError(f"{owner}(max_age=...) must be >= 1 or none, got {max_age}; 1 uploads every round.")


def _overdue(age: Int[Array, ""], max_age: int | None) -> Bool[Array, ""]:
    return jnp.bool_(False) if max_age is None else age >= max_age
