"""What all recipes share: the setting, the one way to a Method, memories by name."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from lapg.controller import check_linear, inverse_time, limit_step, make_controller
from lapg.downlink import dense
from lapg.learner import make_learner
from lapg.local import sgd
from lapg.types import (
    Compressor,
    Downlink,
    Estimator,
    Local,
    Memory,
    Method,
    Scalar,
    StepLimit,
    Trigger,
    VarianceReduction,
    known,
)
from lapg.uplink import compressors, memories
from lapg.uplink.variance_reduction import snapshot, storm

Optimiser = Callable[..., optax.GradientTransformation]
MemoryName = Literal["fresh", "lagged", "average", "accumulate"]
Weights = Scalar | Sequence[float] | Float[Array, " D"]
CompressorName = Literal["none", "top_k", "quantise", "qsgd", "sign"]
REDUCTIONS = {"storm": storm, "snapshot": snapshot}


class Setting(NamedTuple):
    """What every method of an experiment shares: the estimator, N trajectories a round and learner, M learners.

    ``step_limit`` bounds the controller's steps; ``variance_reduction`` is what every gradient goes through before anything else is done with it;
    ``compressor`` replaces the method's own; ``downlink`` is what learners hear, or a function that makes it of the uploads' compressor;
    ``participation`` is the fraction of them that takes part in a round; ``upload_every``: learners upload in rounds 0, R, 2R, ... alone, so that what
    they hear of each other comes together as well; ``num_rounds`` is K, None where it is not known: the pace of a run, for methods whose defaults
    follow it.
    """

    estimator: Estimator
    batch_size: int
    num_learners: int
    step_limit: StepLimit | None = None
    variance_reduction: VarianceReduction | None = None
    compressor: Compressor | None = None
    downlink: Downlink | Callable[[Compressor], Downlink] = dense()
    participation: float = 1.0
    upload_every: Scalar | None = None
    num_rounds: int | None = None


def assemble(
    setting: Setting,
    memory: Memory,
    trigger: Trigger,
    optimiser: optax.GradientTransformation,
    compressor: Compressor | None = None,
    *,
    local: Local | None = None,
    reduction: VarianceReduction | None = None,
) -> Method:
    """The one way to a Method: both ends share the compressor and the trigger, and the memory says how arrivals aggregate.

    Args:
      compressor: the method's own, where the setting names none; None is `lapg.uplink.compressors.identity`.
      local: the learners' own steps.
      reduction: the method's own variance reduction, where the setting names none.
    Raises:
      ValueError: the batch, or a part of it, is smaller than the estimator can work with; a step limit or local steps do not fit the optimiser, the
        memory or the variance reduction; a rule needs the noise, which nobody knows; what a biased compressor leaves out would be lost for good;
        nobody would take part; rounds in which to upload are not counted in whole numbers.
    """
    local = local or Local()
    check_batch(setting, local)
    check_noise(setting, local, memory, trigger)
    reduction = setting.variance_reduction or reduction
    if reduction is not None and local.num_steps > 1:
        raise ValueError(
            f"variance_reduction must be left out where learners take {local.num_steps} steps a batch: it refines the first gradient alone; leave it "
            "out, or use epochs 1 and minibatches 1."
        )
    if not 0 < setting.participation <= 1:
        raise ValueError(
            f"participation must lie in (0, 1], got {setting.participation}; 1 is everybody, and one learner is the least."
        )
    every = setting.upload_every
    if every is not None and known(every) and not (float(every) >= 1 and float(every).is_integer()):
        raise ValueError(f"upload_every must be a whole number >= 1, got {every}; leave it out for every round.")
    compressor = setting.compressor or compressor or compressors.identity()
    if not memory.forgets:
        compressor = compressors.contractive(compressor)
    elif compressor.variance is None:
        raise ValueError(
            "this compressor needs a memory that keeps what it leaves out, and this method's keeps nothing; use qsgd, or a method that accumulates "
            "or reuses gradients (periodic, lapg, scout, ...)."
        )
    if local.moves and local.increment == "gradient":
        check_linear(
            optimiser,
            "local steps (scout, fedavg, look_ahead) need",
            "a learner's own step foresees what the controller makes of its gradient: use heavy_ball, or a method without local steps (awapg, periodic)",
        )
    limit = setting.step_limit
    if limit is not None:
        optimiser = limit_step(optimiser, limit.limit, setting.num_learners, memory.aggregate)
    learner = make_learner(
        setting.estimator,
        memory,
        compressor,
        trigger,
        reduction=reduction,
        local=local,
        step_limit=limit,
        every=every,
        batch_size=setting.batch_size,
    )
    return Method(
        learner,
        make_controller(compressor, trigger, optimiser, memory.aggregate),
        compressor,
        setting.batch_size,
        memory.aggregate,
        local=local,
        downlink=setting.downlink if isinstance(setting.downlink, Downlink) else setting.downlink(compressor),
        participation=setting.participation,
    )


def check_batch(setting: Setting, local: Local) -> None:
    """Refuses batches, or parts of them, that are smaller than the estimator can work with."""
    needed, num, parts = setting.estimator.minimum_batch, setting.batch_size, local.minibatches
    if num % parts:
        raise ValueError(f"minibatches must divide batch_size={num}, got {parts}; change one of the two.")
    if num // parts < needed:
        part = "" if parts == 1 else f" in each of {parts} minibatches"
        raise ValueError(
            f"batch_size must be >= {needed} for this estimator{part}, got {num // parts}; a leave-one-out baseline needs another "
            "trajectory to average over: raise batch_size, or use baseline 'none'."
        )


def check_noise(setting: Setting, local: Local, memory: Memory, trigger: Trigger) -> None:
    """Refuses a memory or a trigger that needs the noise of gradients where it is not known."""
    whose = None if setting.estimator.knows_noise else "this estimator's gradients"
    if local.increment == "displacement":
        whose = "displacements (local optimise)"
    for name, part in (("memory", memory), ("trigger", trigger)):
        if part.needs_noise and whose is not None:
            raise ValueError(
                f"{name} must not need the noise of {whose}, got one that does, and nobody knows it; use one that looks at the size alone (lazy: "
                "noise_weight 0 or noise_bound), or gradients whose noise is known."
            )


def local_steps(look_ahead: Scalar | None, step_size: Scalar, momentum: Scalar, decay: Scalar) -> Local:
    """Steps of the learners' own, in units b of what the controller makes of an upload in the end, α_k/(1−β); None: no such steps.

    Raises:
      ValueError: look_ahead is negative.
    """
    if look_ahead is None:
        return Local()
    if known(look_ahead) and not float(look_ahead) >= 0:
        raise ValueError(f"local_steps(look_ahead=...) must be >= 0, got {float(look_ahead)}; leave it out for none.")
    return sgd(inverse_time(look_ahead * step_size / jnp.asarray(1 - momentum), decay))


def first_age(setting: Setting, first_upload: Scalar | None) -> Scalar | None:
    """The whole number of rounds, at least 1, that is this fraction of K; None where there is no fraction or no K.

    Raises:
      ValueError: the fraction is not in (0, 1].
    """
    if first_upload is None or setting.num_rounds is None:
        return None
    if known(first_upload) and not 0 < float(first_upload) <= 1:
        raise ValueError(
            f"first_upload must lie in (0, 1], a fraction of the rounds, got {float(first_upload)}; none: nobody uploads before its trigger fires."
        )
    return jnp.maximum(1, jnp.floor(jnp.asarray(first_upload) * setting.num_rounds))


def past_weights(xi: Weights, window: int) -> Float[Array, " D"]:
    """ξ_1..ξ_D of the last D displacements, newest first, from one number for all or D numbers.

    Raises:
      ValueError: window < 1, or xi has neither 1 nor D entries.
    """
    if window < 1:
        raise ValueError(f"window must be >= 1, got {window}.")
    weights = jnp.atleast_1d(jnp.asarray(xi))
    if weights.shape not in ((1,), (window,)):
        raise ValueError(
            f"xi must have 1 or window={window} entries, got {weights.size}; give one weight for all, or change the window."
        )
    return jnp.broadcast_to(weights, (window,))


def make_memory(name: MemoryName, average_weight: Scalar = 0.1) -> Memory:
    """A memory by name: ``fresh``, ``lagged``, ``average`` (running, weight η) or ``accumulate``.

    Raises:
      ValueError: an unknown name.
    """
    choices = {
        "fresh": memories.fresh,
        "lagged": memories.lagged,
        "average": lambda: memories.running_average(average_weight),
        "accumulate": memories.accumulator,
    }
    if name not in choices:
        raise ValueError(f"memory must be one of {', '.join(choices)}, got {name!r}.")
    return choices[name]()


def make_compressor(
    name: CompressorName, *, fraction: Scalar | None = None, bits: int | None = None, block: int | None = None
) -> Compressor:
    """A compressor by name: ``none``, ``top_k`` (fraction, bits), ``quantise`` (bits, block), ``qsgd`` (bits, block) or ``sign`` (block).

    Args:
      fraction: of the entries that top_k sends; .05 unless given.
      bits: of an entry before its code is shortened, 4 unless given: quantise and qsgd have 2^bits − 1 levels; top_k sends entries at their own precision
        unless given.
      block: entries that share a scale; all unless given.
    Raises:
      ValueError: an unknown name, an argument that does not belong to it, or one out of range.
    """
    choices: dict[str, tuple[Callable[..., Compressor], tuple[str, ...]]] = {
        "none": (compressors.identity, ()),
        "top_k": (lambda fraction=0.05, bits=None: compressors.top_k(fraction, bits=bits), ("fraction", "bits")),
        "quantise": (lambda bits=4, block=None: compressors.quantise(bits, block=block), ("bits", "block")),
        "qsgd": (_qsgd, ("bits", "block")),
        "sign": (lambda block=None: compressors.sign(block=block), ("block",)),
    }
    if name not in choices:
        raise ValueError(f"compressor must be one of {', '.join(choices)}, got {name!r}.")
    make, taken = choices[name]
    given = {"fraction": fraction, "bits": bits, "block": block}
    for option, value in given.items():
        if value is not None and option not in taken:
            raise ValueError(
                f"compressor_{option} does not belong to compressor {name!r}, which takes {', '.join(taken) or 'nothing'}; leave it out."
            )
    return make(**{option: value for option, value in given.items() if value is not None})


def _qsgd(bits: int = 4, block: int | None = None) -> Compressor:
    if not 2 <= bits <= 16:
        raise ValueError(f"compressor_bits must lie in 2..16 for qsgd, got {bits}; sign has 1 bit.")
    return compressors.qsgd(2 ** (bits - 1) - 1, block=block)
