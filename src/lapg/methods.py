"""Methods: choices of parts, a few lines each. A recipe is called inside the compiled function, so that its hyperparameters can be traced."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from lapg.controller import heavy_ball, limit_step, make_controller
from lapg.learner import make_learner
from lapg.types import Compressor, Estimator, Memory, Method, Scalar, StepLimit, Trigger
from lapg.uplink import memories, triggers
from lapg.uplink.compressors import identity
from lapg.uplink.variance_reduction import snapshot, storm

Optimiser = Callable[..., optax.GradientTransformation]
MemoryName = Literal["fresh", "lagged", "average", "accumulate"]
REDUCTIONS = {"storm": storm, "snapshot": snapshot}


class Setting(NamedTuple):
    """What every method of an experiment shares: the estimator, N trajectories a round and learner, M learners.

    ``step_limit`` bounds the controller's steps; ``variance_reduction`` is what every gradient goes through before the method's own memory takes it in.
    """

    estimator: Estimator
    batch_size: int
    num_learners: int
    step_limit: StepLimit | None = None
    variance_reduction: Literal["storm", "snapshot"] | None = None


def assemble(
    setting: Setting,
    memory: Memory,
    trigger: Trigger,
    optimiser: optax.GradientTransformation,
    compressor: Compressor | None = None,
) -> Method:
    """The one way to a Method: both ends share the compressor and the trigger, and the memory says how arrivals aggregate.

    Raises:
      ValueError: the batch is smaller than the estimator can work with; a step limit does not fit the optimiser.
    """
    needed = setting.estimator.minimum_batch
    if setting.batch_size < needed:
        raise ValueError(
            f"batch_size must be >= {needed} for this estimator, got {setting.batch_size}; a leave-one-out baseline needs another "
            "trajectory to average over: raise batch_size, or use baseline 'none'."
        )
    compressor = compressor or identity()
    if setting.variance_reduction is not None:
        memory = REDUCTIONS[setting.variance_reduction](memory=memory)
    limit = setting.step_limit
    if limit is not None:
        optimiser = limit_step(optimiser, limit.limit, setting.num_learners, reuses=memory.reuses)
    return Method(
        make_learner(setting.estimator, memory, compressor, trigger, limit.length if limit else None),
        make_controller(compressor, trigger, optimiser, reuses=memory.reuses),
        compressor,
        (setting.batch_size,),
    )


def make_memory(name: MemoryName, average_weight: Scalar = 0.1) -> Memory:
    """A memory by name: ``fresh``, ``lagged``, ``average`` (running, weight η) or ``accumulate``."""
    choices = {
        "fresh": memories.fresh,
        "lagged": memories.lagged,
        "average": lambda: memories.running_average(average_weight),
        "accumulate": memories.accumulator,
    }
    if name not in choices:
        raise ValueError(f"memory must be one of {', '.join(choices)}, got {name!r}.")
    return choices[name]()


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
    xi: Scalar | Sequence[float] | Float[Array, " D"] = 0.03,
    window: int = 10,
    noise_weight: Scalar = 6.0,
    noise_bound: Sequence[float] | None = None,
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
    if window < 1:
        raise ValueError(f"window must be >= 1, got {window}.")
    weights = jnp.atleast_1d(jnp.asarray(xi))
    if weights.shape not in ((1,), (window,)):
        raise ValueError(
            f"xi must have 1 or window={window} entries, got {weights.size}; give one weight for all, or change the window."
        )
    trigger = triggers.lazy(
        jnp.broadcast_to(weights, (window,)),
        step_size=step_size if trigger_step_size is None else trigger_step_size,
        num_learners=setting.num_learners,
        noise_weight=noise_weight,
        noise_bound=None if noise_bound is None else jnp.asarray(noise_bound, float),
        strict=strict,
        max_age=max_age,
    )
    memory = memories.lagged() if average_weight is None else memories.running_average(average_weight)
    return assemble(setting, memory, trigger, optimiser(step_size, momentum, decay))


def awapg(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    threshold: Scalar = 160.0,
    scale: triggers.Scale = "report",
    max_age: int | None = 200,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Age-weighted accumulated policy gradient, the recommended method.

    Gradients come together at the learner, which uploads their sum when age · size passes a threshold (`lapg.uplink.triggers.age_weighted`).
    """
    trigger = triggers.age_weighted(threshold, scale=scale, step_size=step_size, max_age=max_age)
    return assemble(setting, memories.accumulator(), trigger, optimiser(step_size, momentum, decay))


def periodic(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    period: Scalar = 10.0,
    memory: MemoryName = "accumulate",
    average_weight: Scalar = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Control: uploads every ``period`` rounds. With ``accumulate`` it is PG with larger batches and rarer steps."""
    return assemble(
        setting, make_memory(memory, average_weight), triggers.periodic(period), optimiser(step_size, momentum, decay)
    )


def random(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    rate: Scalar = 0.1,
    memory: MemoryName = "accumulate",
    average_weight: Scalar = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Control: every learner uploads with probability ``rate``."""
    return assemble(
        setting, make_memory(memory, average_weight), triggers.random(rate), optimiser(step_size, momentum, decay)
    )


def never(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Control: one upload in round 0, reused for ever: a constant direction."""
    return assemble(setting, memories.lagged(), triggers.never(), optimiser(step_size, momentum, decay))


METHODS: dict[str, Callable[..., Any]] = {
    "pg": pg,
    "lapg": lapg,
    "awapg": awapg,
    "periodic": periodic,
    "random": random,
    "never": never,
}
