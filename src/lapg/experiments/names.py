"""What goes by a name in a configuration: built-in parts, and a user's own as MODULE:NAME."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import optax

from lapg import estimators, policies, problems
from lapg.controller import heavy_ball
from lapg.methods import METHODS
from lapg.problems.adapters import imported
from lapg.sampling import segments, whole_episodes
from lapg.types import Policy, Problem, Rollout

PROBLEMS: dict[str, Callable[..., Problem]] = {name: getattr(problems, name) for name in problems.__all__}
POLICIES: dict[str, Callable[..., Policy]] = {
    name: getattr(policies, name) for name in ("mlp", "conv", "linear", "table")
}
ROLLOUTS: dict[str, Callable[..., Rollout]] = {"episodes": whole_episodes, "segments": segments}
ESTIMATORS: dict[str, Callable[..., Any]] = {
    name: getattr(estimators, name)
    for name in ("gpomdp", "reinforce", "actor_critic", "deterministic", "reuse", "exact", "noisy")
}
OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {"heavy_ball": heavy_ball} | {
    name: getattr(optax, name)
    for name in (
        *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad"),
        *("lamb", "lars", "lion", "nadam", "nadamw", "novograd", "optimistic_adam_v2", "optimistic_gradient_descent"),
        *("radam", "rmsprop", "sgd", "sign_sgd", "signum", "yogi"),
    )
    if hasattr(optax, name)  # an older optax has fewer
}
"""Those of optax that need no more than a step size or a schedule of it, and gradients; beside our own."""
KNOWN: dict[str, Mapping[str, Callable[..., Any]]] = {
    "problem": PROBLEMS,
    "policy": POLICIES,
    "rollout": ROLLOUTS,
    "estimator": ESTIMATORS,
    "method": METHODS,
    "optimiser": OPTIMISERS,
}
Part = TypeVar("Part")


def resolve(kind: str, name: str, known: Mapping[str, Part]) -> Part:
    """A built-in part by its name, or a user's own as MODULE:NAME.

    Raises:
      ValueError: there is no such part.
    """
    if ":" not in name:
        if name not in known:
            choices = ", ".join(sorted(known))
            raise ValueError(
                f"{kind} must be one of {choices}, or your own as MODULE:NAME, got {name!r}{meant(name, known)}."
            )
        return known[name]
    return imported(name, f"{kind}={name}")


def meant(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who wrote ``name``, as the end of a message; nothing if nothing looks like it."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def named(kind: str, part: Callable[..., Any]) -> str:
    """The name under which a configuration can hold a factory: a built-in's own, or MODULE:NAME of a function at the top of a module.

    Raises:
      ValueError: it has none, so that no other process could find it.
    """
    for name, known in KNOWN.get(kind, {}).items():
        if part is known:
            return name
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", "")
    if not module or not name.isidentifier():
        raise ValueError(
            f"{kind} must be a name, or a function at the top of a module, which a run can name as MODULE:NAME, got {part!r}; "
            "give lambdas and inner functions a name there."
        )
    return f"{module}:{name}"
