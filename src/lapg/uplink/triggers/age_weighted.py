"""Uploads of what has become large and old."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from lapg.types import Arrival, Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, known, squared_norm
from lapg.uplink.triggers.common import GOLDEN, check_max_age, golden_fraction, overdue

Scale = Literal["report", "step"]


class Window(eqx.Module):
    """Since the last upload: Σ‖g‖ and the number of gradients; and whether there has been one."""

    total: Float[Array, ""]
    count: Int[Array, ""]
    sent: Bool[Array, ""]


def age_weighted(
    threshold: Scalar,
    *,
    num_learners: int,
    scale: Scale = "report",
    step_size: Scalar = 1.0,
    max_age: int | None = 200,
    first_age: Scalar | None = None,
    decay: float = 0.95,
    age_power: Scalar = 1.0,
) -> Trigger:
    """Uploads when what has come together is large *and* old: age · ‖innovation‖ > κ · scale.

    For an accumulated innovation, age · ‖E‖ grows like age² under steady drift and like age^{3/2} under noise, so a learner's rate follows the size of
    its own gradients. The scale is in units of one round's gradient and honest: it is made of what has arrived. Until its first upload a learner takes
    the others for equals who upload one after the other: its scale is then at least a fraction of M times its own mean ‖g‖, the fractional part of
    (m + 1)(√5 − 1)/2, so that the first step does not wait for everybody and those with little to say hear so first. Where κ is so large that nobody
    would speak for long, ``first_age`` makes somebody: in the order of these fractions, one learner a round from that age on, until one is heard.

    Args:
      threshold: κ; larger is lazier. Dimensionless.
      num_learners: M.
      scale: ``report``: every upload carries the mean ‖g‖ of its window, and the controller broadcasts the sum of the last reports. ``step``: the
        running mean of the controller's own ‖Δθ‖/α; nothing is reported.
      step_size: α, for ``step``.
      max_age: rounds after which a learner uploads in any case.
      first_age: rounds after which the first of all learners uploads in any case, as long as nobody has been heard; None: never for that.
      decay: weight of the past in the running mean of ``step``.
      age_power: p of age^p · ‖innovation‖; 0 looks at the size alone.
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
    check_max_age("age_weighted", max_age)
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
        left = (candidate.age.astype(size.dtype) ** age_power * size).astype(size.dtype)
        right = (threshold * scale).astype(left.dtype)
        fires = (left > right) | overdue(candidate.age, max_age)
        if first_age is not None:
            turn = jnp.take(jnp.asarray(turns), candidate.index)
            fires |= ~window.sent & (candidate.signal == 0) & (candidate.age >= first_age + turn)
        return window, Decision(fires, left, right, mean if reports else ())

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
