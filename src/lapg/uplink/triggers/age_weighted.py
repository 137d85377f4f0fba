"""Uploads of what has become large and old."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from lapg.types import Arrival, Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, is_concrete, squared_norm
from lapg.uplink.triggers.common import GOLDEN, check_max_age, golden_fraction, overdue

Scale = Literal["report", "step"]


def default_threshold(num_rounds: int | None) -> float:
    """κ for K rounds; None where K is not known."""
    return 2560.0 if num_rounds is None else 0.3 * num_rounds


def _first_age(fraction: Scalar | None, num_rounds: int | None) -> Scalar | None:
    """The whole number of rounds, at least 1, that is this fraction of K; None where there is no fraction or no K."""
    if fraction is not None and is_concrete(fraction) and not 0 < float(fraction) <= 1:
        raise ValueError(
            f"age_weighted(first_upload=...) must lie in (0, 1], a fraction of the rounds, got {float(fraction)}; None: nobody uploads before its "
            "trigger fires."
        )
    if fraction is None or num_rounds is None:
        return None
    return jnp.maximum(1, jnp.floor(jnp.asarray(fraction) * num_rounds))


class Window(eqx.Module):
    """Since the last upload: Σ‖g‖ and the number of gradients; and whether there has been one."""

    total: Float[Array, ""]
    count: Int[Array, ""]
    sent: Bool[Array, ""]


def age_weighted(
    threshold: Scalar | None = None,
    *,
    scale: Scale = "report",
    max_age: int | None = None,
    first_upload: Scalar | None = 0.1,
    decay: float = 0.95,
    age_power: Scalar = 1.0,
    num_learners: int,
    step_size: Scalar = 1.0,
    num_rounds: int | None = None,
) -> Trigger:
    """Uploads when what has come together is large *and* old: age · ‖innovation‖ > κ · scale.

    For an accumulated innovation, age · ‖E‖ grows like age² under steady drift and like age^{3/2} under noise, so a learner's rate follows the size of
    its own gradients. The scale is in units of one round's gradient and honest: it is made of what has arrived. Until its first upload a learner takes
    the others for equals who upload one after the other: its scale is then at least a fraction of M times its own mean ‖g‖, the fractional part of
    (m + 1)(√5 − 1)/2, so that the first step does not wait for everybody and those with little to say hear so first. Where κ is so large that nobody
    would speak for long, ``first_upload`` makes somebody: in the order of these fractions, one learner a round from that age on, until one has uploaded.

    Args:
      threshold: κ; larger is lazier. Dimensionless. None is 0.3 K for K rounds, and 2,560 where K is not known.
      scale: ``report``: every upload carries the mean ‖g‖ of its window, and the controller broadcasts the sum of the last reports. ``step``: the
        running mean of the controller's own ‖Δθ‖/α; nothing is reported.
      max_age: rounds after which a learner uploads in any case.
      first_upload: fraction of the K rounds after which the first of all learners uploads in any case, as long as nobody has; None: never for that.
      decay: weight of the past in the running mean of ``step``.
      age_power: p of age^p · ‖innovation‖; 0 looks at the size alone.
      num_learners: M.
      step_size: α, for ``step``.
      num_rounds: K; None where it is not known, and then nobody uploads before its trigger fires.
    Raises:
      ValueError: threshold or step_size not positive, an unknown scale, max_age < 1, decay outside [0, 1), first_upload outside (0, 1].
    """
    threshold = default_threshold(num_rounds) if threshold is None else threshold
    if is_concrete(threshold) and float(threshold) <= 0:
        raise ValueError(
            f"age_weighted(threshold=...) must be > 0, got {float(threshold)}; triggers.always() uploads every round."
        )
    if is_concrete(step_size) and float(step_size) <= 0:
        raise ValueError(f"age_weighted(step_size=...) must be > 0, got {float(step_size)}.")
    if scale not in ("report", "step"):
        raise ValueError(f"age_weighted(scale=...) must be 'report' or 'step', got {scale!r}.")
    if not 0 <= decay < 1:
        raise ValueError(f"age_weighted(decay=...) must lie in [0, 1), got {decay}.")
    check_max_age("age_weighted", max_age)
    first_age = _first_age(first_upload, num_rounds)
    reports = scale == "report"
    turns = np.argsort(np.argsort((np.arange(num_learners) + 1) * GOLDEN % 1))  # of the learners, by their fractions

    def update(
        key: Key[Array, ""], state: Window, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Window, Decision]:
        norm = jnp.sqrt(squared_norm(estimate.gradient))
        window = Window(state.total + norm, state.count + 1, state.sent)
        mean = window.total / window.count
        alone = num_learners * mean * golden_fraction(candidate.index)
        scale = jnp.where(window.sent, candidate.signal, jnp.maximum(candidate.signal, alone))
        size = jnp.sqrt(squared_norm(candidate.innovation))
        statistic = (candidate.age.astype(size.dtype) ** age_power * size).astype(size.dtype)
        bound = (threshold * scale).astype(statistic.dtype)
        fires = (statistic > bound) | overdue(candidate.age, max_age)
        if first_age is not None:
            turn = jnp.take(jnp.asarray(turns), candidate.index)
            fires |= ~window.sent & (candidate.signal == 0) & (candidate.age >= first_age + turn)
        return window, Decision(fires, statistic, bound, mean if reports else ())

    def empty(dtype: Any, sent: bool) -> Window:
        return Window(jnp.zeros((), dtype), jnp.int32(0), jnp.bool_(sent))

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
        init=lambda params: empty(params.dtype, False),
        settle=lambda state, candidate: empty(state.total.dtype, True),
        controller_init=controller_init,
        controller_update=controller_update,
        signal=lambda key, state: jnp.sum(state),
    )
