"""Controls: uploads that know nothing of what they carry."""

from lapg.controller import heavy_ball
from lapg.methods.assembly import MemoryName, Optimiser, Setting, assemble, local_steps, make_memory
from lapg.types import Method, Scalar
from lapg.uplink import memories, triggers


def periodic(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    period: Scalar = 10.0,
    phase: triggers.Phase = "together",
    memory: MemoryName = "accumulate",
    look_ahead: Scalar | None = None,
    average_weight: Scalar = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Control: uploads every ``period`` rounds. With ``accumulate`` and all together it is PG with larger batches and rarer steps.

    Args:
      phase: whether learners upload in the same rounds or staggered, see `lapg.uplink.triggers.periodic`.
    """
    return assemble(
        setting,
        make_memory(memory, average_weight),
        triggers.periodic(period, phase=phase),
        optimiser(step_size, momentum, decay),
        local=local_steps(look_ahead, step_size, momentum, decay),
    )


def random(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    rate: Scalar = 0.1,
    memory: MemoryName = "accumulate",
    look_ahead: Scalar | None = None,
    average_weight: Scalar = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Control: every learner uploads with probability ``rate``."""
    return assemble(
        setting,
        make_memory(memory, average_weight),
        triggers.random(rate),
        optimiser(step_size, momentum, decay),
        local=local_steps(look_ahead, step_size, momentum, decay),
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
