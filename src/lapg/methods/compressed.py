"""Methods that upload in every round, but little. ``compressor`` of the setting replaces the one named here."""

from lapg.controller import heavy_ball
from lapg.methods.assembly import Optimiser, Setting, assemble
from lapg.types import Method, Scalar
from lapg.uplink import compressors, memories, triggers


def qsgd(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """QSGD: fresh gradients, rounded at random to 7 levels and unbiased. Source: Alistarh et al., arXiv 1610.02132."""
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.fresh(), triggers.always(), step, compressors.qsgd(7))


def ef14(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Error feedback: the largest 5 % of the accumulated gradients; the rest waits. Source: Stich, Cordonnier, Jaggi, arXiv 1809.07599.

    The memory holds gradients, not steps, which is the same for a constant step size.
    """
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.accumulator(), triggers.always(), step, compressors.top_k(0.05))


def ef_sign(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Signs with error feedback: one bit an entry; the rest waits. Source: Karimireddy, Rebjock, Stich, Jaggi, arXiv 1901.09847."""
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.accumulator(), triggers.always(), step, compressors.sign())


def ef21(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """EF21: the largest 5 % of the difference between the gradient and what has been uploaded of it. Source: arXiv 2106.05203, Algorithm 2."""
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.lagged(), triggers.always(), step, compressors.top_k(0.05))


def ef21_sgdm(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    average_weight: Scalar = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """EF21-SGDM: EF21 on a running average v ← (1−η)v + ηg, for noisy gradients. Source: Fatkhullin, Tyurin, Richtárik, arXiv 2305.15155.

    Args:
      average_weight: η; 1 is EF21. Momentum on top of it is the controller's, and ours.
    """
    step = optimiser(step_size, momentum, decay)
    memory = memories.running_average(average_weight)
    return assemble(setting, memory, triggers.always(), step, compressors.top_k(0.05))


def dasha(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    correction: Scalar | None = None,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """DASHA: differences of gradients, rounded at random, and never a dense upload. Source: Tyurin and Richtárik, arXiv 2202.01268.

    With ``variance_reduction`` storm it is DASHA-MVR, the variant for noisy gradients.

    Args:
      correction: a; None is the paper's 1/(2ω + 1).
    """
    codec = setting.compressor or compressors.qsgd(7)
    variance = codec.variance or (lambda size: 0.0)  # a biased one is refused below

    def weight(size: int) -> Scalar:
        return 1 / (2 * variance(size) + 1) if correction is None else correction

    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.dasha(weight), triggers.always(), step, codec)
