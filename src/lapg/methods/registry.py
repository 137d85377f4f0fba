"""All built-in parts by kind and name. A part of one's own goes by MODULE:NAME wherever a name of these can stand."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import optax

from lapg import downlink, estimators, policies, problems
from lapg.methods import limits, own_steps
from lapg.methods.optimisers import mean, muon, scheduled, sgd
from lapg.methods.parts import Part
from lapg.methods.preset import Preset
from lapg.methods.presets import PRESETS
from lapg.problems.adapters import imported
from lapg.rollouts import segments, whole_episodes
from lapg.uplink import compressors, memories, triggers, variance_reduction
from lapg.uplink.triggers import measures


def _named(*factories: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {factory.__name__: factory for factory in factories}


def _of_optax(*names: str) -> dict[str, Callable[..., Any]]:
    return {name: scheduled(getattr(optax, name)) for name in names if hasattr(optax, name)}  # an older one has fewer


REGISTRY: dict[str, Mapping[str, Any]] = {
    "problem": {name: getattr(problems, name) for name in problems.__all__},
    "policy": _named(policies.mlp, policies.actor, policies.conv, policies.linear, policies.table),
    "rollout": {"episodes": whole_episodes, "segments": segments},
    "estimator": _named(
        estimators.gpomdp,
        estimators.reinforce,
        estimators.actor_critic,
        estimators.ppo,
        estimators.deterministic,
        estimators.reuse,
        estimators.exact,
        estimators.noisy,
    ),
    "method": PRESETS,
    "variance_reduction": _named(
        variance_reduction.plain,
        variance_reduction.storm,
        variance_reduction.snapshot,
        variance_reduction.federated_momentum,
    ),
    "local": _named(own_steps.stand, own_steps.sgd, own_steps.averaging, own_steps.optimise),
    "memory": _named(
        memories.fresh,
        memories.lagged,
        memories.running_average,
        memories.accumulator,
        memories.visible,
        memories.dasha,
    ),
    "trigger": _named(
        triggers.always,
        triggers.never,
        triggers.periodic,
        triggers.random,
        triggers.budget,
        triggers.lazy,
        triggers.changed,
        triggers.age_weighted,
        triggers.model_variance,
        triggers.importance,
    ),
    "measure": _named(
        measures.innovation, measures.quantised, measures.staleness, measures.same_samples, measures.against_snapshot
    ),
    "compressor": _named(
        compressors.identity,
        compressors.lossless,
        compressors.top_k,
        compressors.quantise,
        compressors.qsgd,
        compressors.sign,
    ),
    "optimiser": _named(sgd, mean, muon)
    | _of_optax(
        *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad"),
        *("lamb", "lars", "lion", "nadam", "nadamw", "novograd", "optimistic_adam_v2", "optimistic_gradient_descent"),
        *("radam", "rmsprop", "sign_sgd", "signum", "yogi"),
    ),
    "step_limit": _named(limits.unlimited, limits.kl),
    "downlink": _named(downlink.dense, downlink.replicated, downlink.forwarded),
}
"""By kind of part its factories by name; of ``method`` the presets."""
DEFAULTS = {
    "problem": "cooperative_navigation",
    "rollout": "episodes",
    "estimator": "gpomdp",
    "variance_reduction": "plain",
    "local": "stand",
    "memory": "fresh",
    "trigger": "always",
    "measure": "innovation",
    "compressor": "identity",
    "optimiser": "sgd",
    "step_limit": "unlimited",
    "downlink": "dense",
}
"""The part of each kind where neither a configuration nor its preset names one."""
ASKED = {"step_limit": "kl", "policy": "mlp"}
"""The part of a kind where options are given, but no name; of a policy that which most problems have by default."""


def resolve(kind: str, name: str, where: str | None = None) -> Any:
    """A built-in part's factory (of a method its preset) by name, or a user's own as MODULE:NAME.

    Args:
      where: the setting that has the name, for messages; the kind unless given.
    Raises:
      ValueError: there is no such part.
      EnvironmentFailed: the user's module raises.
    """
    own = {"optimiser": scheduled, "method": _preset, "policy": no_network}.get(kind, lambda found: found)
    if kind == "method":
        return pick(name, REGISTRY[kind], where or kind, own=own)
    return pick(name, REGISTRY[kind], where or kind, own=lambda found: own(_callable(found, f"{where or kind}={name}")))


def _callable(found: Any, subject: str) -> Any:
    if not callable(found):
        raise ValueError(
            f"{subject} must be a factory, a function that returns the part, got {type(found).__name__}; write `def make(): return ...` around it and name that."
        )
    return found


def no_network(found: Any) -> Any:
    """A policy's factory.

    Raises:
      ValueError: it is a network, or the class of one, around which a factory is easily made.
    """
    if isinstance(found, type | eqx.Module) or all(callable(getattr(found, name, None)) for name in ("init", "apply")):
        what = f"the class {found.__name__}" if isinstance(found, type) else f"a network, {type(found).__name__}"
        raise ValueError(
            f"policy must be a factory, spaces → lapg.types.Policy, got {what}; put net = lapg.policies.from_flax(NETWORK()) beside it, from_equinox for "
            "one of Equinox, and name net."
        )
    return found


def _preset(found: Any) -> Preset:
    if not isinstance(found, Preset):
        raise ValueError(
            f"method must be a lapg.methods.Preset, a choice of parts, got {type(found).__name__}; a rule of your own is a part: give its name to "
            "trigger.name, memory.name, ..."
        )
    return found._replace(**{kind: _by_name(kind, part) for kind, part in found._asdict().items() if kind != "about"})


def _by_name(kind: str, part: Part) -> Part:
    """A part of a preset, which may name its factory by the function itself."""
    return part if part.name is None or isinstance(part.name, str) else Part(named(kind, part.name), **part.options)


def pick(name: str, known: Mapping[str, Any], where: str, own: Callable[[Any], Any] | None = None) -> Any:
    """What ``known`` has by a name, or MODULE:NAME, through ``own``.

    Raises:
      ValueError: there is nothing of that name.
    """
    if ":" in name:
        found = imported(name, f"{where}={name}")
        return found if own is None else own(found)
    if name not in known:
        choices = ", ".join(sorted(known))
        raise ValueError(
            f"{where} must be one of {choices}, or your own as MODULE:NAME, got {name!r}{meant(name, known)}."
        )
    return known[name]


def meant(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who wrote ``name``, as the end of a message; nothing if nothing looks like it."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def named(kind: str, part: Any) -> str:
    """The name under which a configuration can hold a factory: a built-in's own, or MODULE:NAME of a function at the top of a module.

    Raises:
      ValueError: it has none, so that no other process could find it.
    """
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", "")
    for known, factory in REGISTRY.get(kind, {}).items():
        if factory is part or (known == name and getattr(factory, "__module__", "") == module):
            return known
    if not module or not name.isidentifier():
        raise ValueError(
            f"{kind} must be a name, or a function at the top of a module, which a run can name as MODULE:NAME, got {part!r}; "
            "give lambdas and inner functions a name there."
        )
    return f"{module}:{name}"
