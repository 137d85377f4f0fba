"""Our own methods: learners upload when they have come far."""

from lapg.controller import heavy_ball
from lapg.methods.assembly import Optimiser, Setting, assemble, first_age, local_steps
from lapg.types import Compressor, Method, Scalar
from lapg.uplink import compressors, memories, triggers


def default_threshold(num_rounds: int | None) -> float:
    """κ of `scout` for K rounds; None where K is not known."""
    return 2560.0 if num_rounds is None else 0.3 * num_rounds


def scout(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    threshold: Scalar | None = None,
    look_ahead: Scalar | None = 1.0,
    scale: triggers.Scale = "report",
    max_age: int | None = None,
    first_upload: Scalar | None = 0.1,
    compressor: Compressor | None = None,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Learners scout ahead along their own gradients and report when they have been away for long and come far; the recommended method.

    Gradients come together at the learner, E ← E + g, and it samples where they lead, at θ^k − b·α_k/(1−β)·E. It uploads E when age · size passes a
    threshold (`lapg.uplink.triggers.age_weighted`), and the controller steps with what arrives. What the message lost, 4 bits an entry unless told
    otherwise, stays in E.

    Args:
      threshold: κ; larger uploads less. None is 0.3 K for K rounds, and 2,560 where K is not known.
      look_ahead: b; 1 steps as far as the controller will, M as if all learners measured the same; None stays at θ^k.
      compressor: None is `lapg.uplink.compressors.quantise` with 4 bits.
      first_upload: fraction of the K rounds after which the first of all learners uploads in any case, as long as nobody has been heard; None: none.
      scale, max_age: see `lapg.uplink.triggers.age_weighted`.
    """
    trigger = triggers.age_weighted(
        default_threshold(setting.num_rounds) if threshold is None else threshold,
        num_learners=setting.num_learners,
        scale=scale,
        step_size=step_size,
        max_age=max_age,
        first_age=first_age(setting, first_upload),
    )
    step = optimiser(step_size, momentum, decay)
    local = local_steps(look_ahead, step_size, momentum, decay)
    return assemble(setting, memories.accumulator(), trigger, step, compressor or compressors.quantise(4), local=local)


def awapg(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    threshold: Scalar = 160.0,
    scale: triggers.Scale = "report",
    max_age: int | None = 200,
    first_upload: Scalar | None = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Age-weighted accumulated policy gradient: `scout` without steps of the learners' own, so that everybody samples at θ^k, and with whole messages."""
    return scout(
        setting,
        step_size=step_size,
        momentum=momentum,
        decay=decay,
        threshold=threshold,
        look_ahead=None,
        scale=scale,
        max_age=max_age,
        first_upload=first_upload,
        compressor=compressors.identity(),
        optimiser=optimiser,
    )
