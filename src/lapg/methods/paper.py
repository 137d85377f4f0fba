"""The paper's two methods: policy gradient, and its lazily aggregated form."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from lapg.controller import heavy_ball
from lapg.methods.assembly import Optimiser, Setting, Weights, assemble, past_weights
from lapg.types import Method, Scalar
from lapg.uplink import memories, triggers


def pg(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Policy gradient: everybody uploads every round (11). Source: arXiv 1812.03239, Algorithm 1."""
    return assemble(setting, memories.fresh(), triggers.always(), optimiser(step_size, momentum, decay))


def lapg(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    xi: Weights = 0.03,
    window: int = 10,
    noise_weight: Scalar = 6.0,
    noise_bound: Sequence[float] | Float[Array, " M"] | None = None,
    strict: bool = True,
    max_age: int | None = None,
    average_weight: Scalar | None = None,
    trigger_step_size: Scalar | None = None,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Lazily aggregated policy gradient: uploads the innovation when (16) holds. Source: arXiv 1812.03239, Algorithm 2.

    Args:
      xi: ξ, one number for all D past displacements or D numbers, newest first. Σξ < 1/3 for Theorem 1.
      window: D.
      average_weight: η; None is the paper's memoryless gradient, a number tracks a running average of the gradients instead.
      trigger_step_size: what turns displacements into gradients in (16); None is ``step_size``, right for plain steps.
      noise_weight, noise_bound, strict, max_age: see `lapg.uplink.triggers.lazy`.
    Raises:
      ValueError: xi has neither 1 nor D entries; fewer than 2 trajectories, where (16) would have no noise to weigh.
    """
    if setting.batch_size < 2 and noise_bound is None:
        raise ValueError(
            f"batch_size must be >= 2 for lapg, got {setting.batch_size}; the noise of one trajectory cannot be estimated: raise batch_size, "
            "or give noise_bound."
        )
    trigger = triggers.lazy(
        past_weights(xi, window),
        step_size=step_size if trigger_step_size is None else trigger_step_size,
        num_learners=setting.num_learners,
        noise_weight=noise_weight,
        noise_bound=None if noise_bound is None else jnp.asarray(noise_bound, float),
        strict=strict,
        max_age=max_age,
    )
    memory = memories.lagged() if average_weight is None else memories.running_average(average_weight)
    return assemble(setting, memory, trigger, optimiser(step_size, momentum, decay))
