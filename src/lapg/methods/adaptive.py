"""Our own methods: uploads that follow what a learner has to say."""

from lapg.controller import heavy_ball
from lapg.methods.assembly import Optimiser, Setting, assemble
from lapg.types import Method, Scalar
from lapg.uplink import memories, triggers


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
