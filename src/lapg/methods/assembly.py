"""The one way to a Method: parts are made of the choice of them, and put together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from lapg.controller import check_linear, inverse_time, limit_step, make_controller, on_arrivals
from lapg.downlink import dense
from lapg.learner import make_learner
from lapg.methods.making import choose, make, settings
from lapg.methods.parts import Part
from lapg.methods.preset import KINDS, Preset
from lapg.methods.registry import resolve
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
    is_concrete,
)
from lapg.uplink import compressors


class Setting(NamedTuple):
    """What every method of an experiment shares: the estimator, N trajectories a round and learner, M learners.

    ``participation`` is the fraction of them that takes part in a round; ``upload_every``: learners upload in rounds 0, R, 2R, ... alone, so that what
    they hear of each other comes together as well; ``num_rounds`` is K, None where it is not known: the pace of a run, for parts whose defaults follow it.
    """

    estimator: Estimator
    batch_size: int
    num_learners: int
    participation: float = 1.0
    upload_every: Scalar | None = None
    num_rounds: int | None = None


def compose(
    method: str | Preset,
    setting: Setting,
    *,
    about: Mapping[str, Any] | None = None,
    hyper: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Method:
    """The method that a preset and changes of its parts choose.

    Args:
      about: what else parts may want to know (`lapg.methods.signatures.RUN`): ``policy``, ``printed_noise_bound``.
      hyper: values, possibly traced, that take the place of options, by their full names: ``trigger.threshold``.
      changes: by kind, `Part`s, of which one without a name changes options of the preset's; or parts that are made already.
    Raises:
      ValueError: there is no such method, part or option, or parts do not fit together.
    """
    return assemble(setting, **make_parts(method, setting, about=about, hyper=hyper, **changes))


def make_parts(
    method: str | Preset,
    setting: Setting,
    *,
    about: Mapping[str, Any] | None = None,
    hyper: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The parts by kind that `compose` puts together, each made."""
    preset = resolve("method", method) if isinstance(method, str) else method
    values, made = hyper or {}, {kind: part for kind, part in changes.items() if not isinstance(part, Part)}
    if strange := [name for name in values if name.partition(".")[0] not in KINDS]:
        raise ValueError(
            f"hyper must name options with their part, such as optimiser.step_size, got {strange[0]!r}; parts are {', '.join(KINDS)}."
        )
    chosen = choose(preset, {kind: part for kind, part in changes.items() if isinstance(part, Part)})
    parts = {kind: part for kind, part in chosen.items() if kind not in made}
    run = {"num_learners": setting.num_learners, "num_rounds": setting.num_rounds, "batch_size": setting.batch_size}
    run |= {"policy": None, "printed_noise_bound": None} | dict(about or {}) | _steps(parts.get("optimiser"), values)
    schedule = _current("trigger", parts.get("trigger"), values)
    period = run["upload_period"] = schedule.get("period")
    refused = period is not None and is_concrete(period) and float(period) <= 0  # by the trigger
    run["upload_rate"] = schedule.get("rate", None if period is None or refused else 1 / period)
    if "compressor" in parts:
        made["compressor"] = make("compressor", parts.pop("compressor"), run, values)
    if setting.estimator.statistics is not None:
        made["compressor"] = compressors.partly(made["compressor"], setting.estimator.statistics.num_entries)
    run["uplink"], downlink = made["compressor"], parts.pop("downlink", None)
    made |= {kind: make(kind, part, run, values) for kind, part in parts.items()}
    if downlink is not None:
        run["uplink"] = on_the_way(made["compressor"], made["memory"], made["trigger"])
        made["downlink"] = make("downlink", downlink, run, values)
    return made


def _current(kind: str, part: Part | None, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """A part's options, by default, as given, or as hyperparameters; none are known of a part that is made already."""
    if part is None:
        return {}
    return {name: hyper.get(f"{kind}.{name}", value) for name, value in settings(kind, part).items()}


def _steps(optimiser: Part | None, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """What parts may want to know of the controller's steps."""
    current = _current("optimiser", optimiser, hyper)
    step, ours = current.get("step_size"), optimiser is not None and optimiser.name == "sgd"
    decay, momentum = (current["decay"], current["momentum"]) if ours else (0.0, 0.0)
    plain = optimiser is not None and ours and not {"momentum", "decay"} & optimiser.options.keys()
    found: dict[str, Any] = {"step_size": step, "plain_step_size": step if plain else None}
    if step is not None and optimiser is not None and optimiser.name != "mean":  # that one's are not along gradients
        found["step_sizes"] = lambda round, factor: inverse_time(factor * step, decay)(round)
        found["foreseen_steps"] = lambda round, factor: inverse_time(factor * step / jnp.asarray(1 - momentum), decay)(
            round
        )
    return found


def assemble(
    setting: Setting,
    *,
    memory: Memory,
    trigger: Trigger,
    optimiser: optax.GradientTransformation,
    compressor: Compressor | None = None,
    local: Local | None = None,
    variance_reduction: VarianceReduction | None = None,
    step_limit: StepLimit | None = None,
    downlink: Downlink | None = None,
    names: Mapping[str, str] | None = None,
) -> Method:
    """Puts parts together: both ends share the compressor and the trigger, and the memory says how arrivals aggregate.

    Args:
      compressor: None is `lapg.uplink.compressors.identity`.
      local: None is `lapg.local.stand`.
      downlink: None is `lapg.downlink.dense`.
      names: of the parts by kind, for messages, where they are known.
    Raises:
      ValueError: the batch, or a part of it, is smaller than the estimator can work with; a step limit or local steps do not fit the optimiser, the
        memory or the variance reduction; a rule needs a noise or divergence that the estimator does not provide; what a biased compressor leaves out would be lost for good;
        nobody would take part; rounds in which to upload are not counted in whole numbers.
    """
    local = local or Local()
    check_batch(setting, local)
    check_noise(setting, local, memory, trigger)
    if local.needs_divergence and not setting.estimator.knows_divergence:
        raise ValueError(
            "local.target_kl needs an estimator that provides the divergence of the policy, such as ppo; leave it out."
        )
    if setting.estimator.statistics is not None and local.increment != "displacement":
        raise ValueError(
            "policy.normalise must be False where learners upload gradients, which would move the statistics; use a method whose learners upload "
            "displacements, such as ppo (local optimise)."
        )
    if variance_reduction not in (None, VarianceReduction()) and local.num_steps > 1:
        raise ValueError(
            f"variance_reduction must be left out where learners take {local.num_steps} steps a batch: it refines the first gradient alone; leave it "
            "out, or use epochs 1 and minibatches 1."
        )
    if not 0 < setting.participation <= 1:
        raise ValueError(
            f"participation must lie in (0, 1], got {setting.participation}; 1 is everybody, and one learner is the least."
        )
    every = setting.upload_every
    if every is not None and is_concrete(every) and not (float(every) >= 1 and float(every).is_integer()):
        raise ValueError(f"upload_every must be a whole number >= 1, got {every}; leave it out for every round.")
    compressor = on_the_way(compressor, memory, trigger)
    if local.moves and local.increment == "gradient":
        check_linear(
            optimiser,
            f"local {names['local']!r} needs" if names else "local steps need",
            "a local step predicts the controller's step from the gradient: use optimiser sgd, no local steps (--local.name stand), or a method without "
            "them (--method awapg)",
            f"{names['optimiser']!r}, which turns" if names else "one that turns",
        )
    if step_limit is not None:
        optimiser = limit_step(optimiser, step_limit.limit, setting.num_learners, memory.aggregate)
    if local.increment == "displacement":
        optimiser = on_arrivals(optimiser)
    learner = make_learner(
        setting.estimator,
        memory,
        compressor,
        trigger,
        reduction=variance_reduction,
        local=local,
        step_limit=step_limit,
        every=every,
        num_entries=setting.estimator.num_entries or setting.batch_size,
    )
    return Method(
        learner,
        make_controller(compressor, trigger, optimiser, memory.aggregate),
        compressor,
        setting.batch_size,
        memory.aggregate,
        local=local,
        downlink=downlink or dense(),
        participation=setting.participation,
    )


def on_the_way(compressor: Compressor | None, memory: Memory, trigger: Trigger) -> Compressor:
    """What uploads go through: the compressor, contractive where the memory keeps what it leaves out, and behind a weight where the trigger weighs.

    Args:
      compressor: None is `lapg.uplink.compressors.identity`.
    Raises:
      ValueError: what a biased compressor leaves out would be lost for good.
    """
    compressor = compressor or compressors.identity()
    if not memory.forgets:
        compressor = compressors.contractive(compressor)
    elif compressor.variance is None:
        raise ValueError(
            "this compressor needs a memory that keeps what it leaves out, and this method's keeps nothing; use qsgd, or a method that accumulates "
            "or reuses gradients (periodic, lapg, scout, ...)."
        )
    return compressors.weighted(compressor) if trigger.weighs else compressor


def check_batch(setting: Setting, local: Local) -> None:
    """Refuses batches, or parts of them, that are smaller than the estimator can work with."""
    needed, parts = setting.estimator.minimum_batch, local.minibatches
    steps = setting.estimator.num_entries
    num = setting.batch_size if steps is None else steps
    what = f"batch_size={num}" if steps is None else f"the {num} steps of a batch (batch_size times those of a row)"
    if num % parts:
        raise ValueError(f"local.minibatches must divide {what}, got {parts}; change one of the two.")
    if steps is not None and num // parts < needed:
        raise ValueError(
            f"local.minibatches must leave >= {needed} of {what} in each part, got {parts}: advantages are normalised there; take fewer, or "
            "longer rows."
        )
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
