"""What all recipes share: the setting, the one way to a Method, memories by name."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import optax

from lapg.controller import limit_step, make_controller
from lapg.downlink import dense
from lapg.learner import make_learner
from lapg.types import Compressor, Downlink, Estimator, Memory, Method, Scalar, StepLimit, Trigger
from lapg.uplink import memories
from lapg.uplink.compressors import identity
from lapg.uplink.variance_reduction import snapshot, storm

Optimiser = Callable[..., optax.GradientTransformation]
MemoryName = Literal["fresh", "lagged", "average", "accumulate"]
REDUCTIONS = {"storm": storm, "snapshot": snapshot}


class Setting(NamedTuple):
    """What every method of an experiment shares: the estimator, N trajectories a round and learner, M learners.

    ``step_limit`` bounds the controller's steps; ``variance_reduction`` is what every gradient goes through before the method's own memory takes it in;
    ``downlink`` is what learners hear; ``participation`` is the fraction of them that takes part in a round.
    """

    estimator: Estimator
    batch_size: int
    num_learners: int
    step_limit: StepLimit | None = None
    variance_reduction: Literal["storm", "snapshot"] | None = None
    downlink: Downlink = dense()
    participation: float = 1.0


def assemble(
    setting: Setting,
    memory: Memory,
    trigger: Trigger,
    optimiser: optax.GradientTransformation,
    compressor: Compressor | None = None,
) -> Method:
    """The one way to a Method: both ends share the compressor and the trigger, and the memory says how arrivals aggregate.

    Raises:
      ValueError: the batch is smaller than the estimator can work with; a step limit does not fit the optimiser; no participation.
    """
    needed = setting.estimator.minimum_batch
    if setting.batch_size < needed:
        raise ValueError(
            f"batch_size must be >= {needed} for this estimator, got {setting.batch_size}; a leave-one-out baseline needs another "
            "trajectory to average over: raise batch_size, or use baseline 'none'."
        )
    if not 0 < setting.participation <= 1:
        raise ValueError(
            f"participation must lie in (0, 1], got {setting.participation}; 1 is everybody, and one learner is the least."
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
        local=memory.behaviour is not None,
        downlink=setting.downlink,
        participation=setting.participation,
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
