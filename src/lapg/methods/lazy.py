"""Rules of other authors that skip uploads, on policy gradients."""

from collections.abc import Sequence

import jax.numpy as jnp

from lapg.controller import heavy_ball
from lapg.methods.assembly import Optimiser, Setting, Weights, assemble, first_age, past_weights
from lapg.types import Compressor, Method, Scalar
from lapg.uplink import compressors, memories, triggers
from lapg.uplink.triggers import measures


def _lazy(
    setting: Setting,
    measure: measures.Measure,
    optimiser: Optimiser,
    *,
    step_size: Scalar,
    momentum: Scalar,
    decay: Scalar,
    xi: Weights,
    window: int,
    max_age: int | None,
    noise_weight: Scalar = 0.0,
    compressor: Compressor | None = None,
) -> Method:
    """Lagged gradients, uploaded when ``measure`` exceeds the drift of (16); by default without the noise term."""
    trigger = triggers.lazy(
        past_weights(xi, window),
        step_size=step_size,
        num_learners=setting.num_learners,
        noise_weight=noise_weight,
        max_age=max_age,
        measure=measure,
    )
    return assemble(setting, memories.lagged(), trigger, optimiser(step_size, momentum, decay), compressor)


def lag_wk(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    xi: Weights = 0.1,
    window: int = 10,
    max_age: int | None = None,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """LAG-WK: (16) without its noise term, the rule for exact gradients. Source: Chen et al., arXiv 1805.09965, eq. (15a)."""
    shared = {"step_size": step_size, "momentum": momentum, "decay": decay, "xi": xi, "window": window}
    return _lazy(setting, measures.innovation(), optimiser, max_age=max_age, **shared)


def lag_ps(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    smoothness: Scalar | Sequence[float] = 1.0,
    xi: Weights = 0.1,
    window: int = 10,
    max_age: int | None = None,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """LAG-PS: uploads when the policy has moved so far from θ̂_m that L_m-smooth gradients could have changed. Source: arXiv 1805.09965, eq. (15b).

    Args:
      smoothness: L_m, see `lapg.uplink.triggers.measures.staleness`, which says why the learner may decide in the controller's place.
    """
    measure = measures.staleness(jnp.asarray(smoothness))
    shared = {"step_size": step_size, "momentum": momentum, "decay": decay, "xi": xi, "window": window}
    return _lazy(setting, measure, optimiser, max_age=max_age, **shared)


def laq(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    xi: Weights = 0.08,
    window: int = 10,
    error_weight: Scalar = 3.0,
    max_age: int | None = 100,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """LAQ: 4-bit differences to what was uploaded last, skipped while they are small beside drift and quantisation errors.

    Source: Sun, Chen, Giannakis, Yang, arXiv 1909.07588, eq. (5) to (7).
    """
    measure, codec = measures.quantised(error_weight), compressors.quantise(4, even=True)
    shared = {"step_size": step_size, "momentum": momentum, "decay": decay, "xi": xi, "window": window}
    return _lazy(setting, measure, optimiser, max_age=max_age, compressor=codec, **shared)


def lasg_wk1(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    xi: Weights = 0.1,
    window: int = 10,
    snapshot_period: int = 50,
    max_age: int | None = 50,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """LASG-WK1, which under Adam is CADA1: differences to the same batch's gradient at a snapshot, compared over time.

    Source: Chen, Guo, Sun, Yin, arXiv 2012.15469 and 2002.11360; see `lapg.uplink.triggers.measures.against_snapshot`.
    """
    measure = measures.against_snapshot(snapshot_period)
    shared = {"step_size": step_size, "momentum": momentum, "decay": decay, "xi": xi, "window": window}
    return _lazy(setting, measure, optimiser, max_age=max_age, **shared)


def lasg_wk2(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    xi: Weights = 0.1,
    window: int = 10,
    min_effective: float = 0.25,
    noise_weight: Scalar = 2.0,
    max_age: int | None = 50,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """LASG-WK2, which under Adam is CADA2: the same batch's gradients at θ^k and at θ̂_m, by importance weights.

    Args:
      min_effective: see `lapg.uplink.triggers.measures.same_samples`.
      noise_weight: c of (16), for rounds in which the importance weights are not to be trusted.
    Source: Chen, Guo, Sun, Yin, arXiv 2012.15469 and 2002.11360.
    """
    measure = measures.same_samples(min_effective)
    shared = {"step_size": step_size, "momentum": momentum, "decay": decay, "xi": xi, "window": window}
    return _lazy(setting, measure, optimiser, max_age=max_age, noise_weight=noise_weight, **shared)


def clag(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    threshold: Scalar = 1.0,
    max_age: int | None = None,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """CLAG: EF21's compressed differences, skipped while they are small beside the gradient's own change in a round.

    Args:
      threshold: ζ of `lapg.uplink.triggers.changed`; 0 is EF21.
    Source: Richtárik et al., arXiv 2202.00998.
    """
    trigger = triggers.changed(threshold, max_age=max_age)
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.lagged(), trigger, step, compressors.top_k(0.05))


def lena(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    threshold: Scalar = 10.0,
    scale: triggers.Scale = "report",
    max_age: int | None = 200,
    first_upload: Scalar | None = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Uploads accumulated gradients when they have become large, after LENA: self-triggered, ‖E‖ > κ · scale, whatever the age.

    The idea is that of Shokri Ghadikolaei, Stich, Jaggi (AISTATS 2021); the scale, the controller's step and the cap are those of
    `lapg.methods.awapg`, so that the two differ in the age alone.

    Args:
      threshold: κ.
      first_upload: see `lapg.methods.scout`.
      scale, max_age: see `lapg.uplink.triggers.age_weighted`.
    """
    trigger = triggers.age_weighted(
        threshold,
        num_learners=setting.num_learners,
        scale=scale,
        step_size=step_size,
        max_age=max_age,
        first_age=first_age(setting, first_upload),
        age_power=0.0,
    )
    return assemble(setting, memories.accumulator(), trigger, optimiser(step_size, momentum, decay))
