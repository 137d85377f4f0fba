"""What a factory's signature and docstring say: the options that a configuration may give it, and what it wants to know of the run."""

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import optax
from jaxtyping import AbstractArray

from lapg.methods.parts import Part
from lapg.types import Compressor
from lapg.uplink.triggers.measures import Measure

RUN = {
    "num_learners": "the number of learners M",
    "num_rounds": "the number of rounds K",
    "batch_size": "the batch size N",
    "step_size": "an optimiser with a step size",
    "plain_step_size": "plain steps of one size, optimiser sgd without momentum and decay",
    "step_sizes": "an optimiser with a step size: round, factor → factor · α_k",
    "foreseen_steps": "an optimiser with a step size: round, factor → factor · what its steps make of an upload in the end, with momentum α_k/(1 − β)",
    "upload_period": "a trigger with a period",
    "upload_rate": "a trigger with a rate or a period",
    "uplink": "the compressor that uploads go through",
    "policy": "a problem with a policy",
    "printed_noise_bound": "a problem of episodes: () → σ²_m of (15) as the paper prints it",
}
"""What the parts of a method may want to know of the run, by the names of the arguments that ask for it."""
SUPPLIED: dict[str, tuple[str, ...]] = {
    "problem": (),
    "policy": ("spaces",),
    "rollout": ("problem",),
    "estimator": ("policy", "discount", "gradient", "problem", "batch_size"),
    "optimiser": ("num_learners", "policy"),
    "measure": (),
}
"""By kind of part: arguments that the assembly supplies, so that they are no options. Kinds that are not named here are supplied with `RUN`."""
NESTED = {Compressor: "compressor", optax.GradientTransformation: "optimiser", Measure: "measure"}
"""Types of arguments that are parts themselves."""
REQUIRED = inspect.Parameter.empty
PLAIN = (bool, int, float, str)


class Option(NamedTuple):
    """An option of a part.

    Attributes:
      choices: what it may be, as type hints: bool, int, float, str, a Literal, tuple[T, ...], dict, a nested ``Annotated[Part, kind]``, None, or Any.
      default: `REQUIRED` where there is none.
      help: the words of the factory's docstring.
      traced: whether it is a hyperparameter, which may vary between lanes without compiling again: its hint admits a `lapg.types.Scalar`.
    """

    choices: tuple[Any, ...]
    default: Any
    help: str
    traced: bool


class Signature(NamedTuple):
    """The ``options`` of a factory, what it is ``supplied`` with, and whether it takes ``anything`` else."""

    options: dict[str, Option]
    supplied: dict[str, bool]
    """By name, whether it may be None."""
    anything: bool
    summary: str


@functools.cache
def signature(kind: str, factory: Callable[..., Any]) -> Signature:
    """What a factory of this kind of part takes.

    Raises:
      ValueError: it has an option called name, which is the part's own in a configuration.
    """
    parameters = inspect.signature(factory).parameters
    try:
        hints = typing.get_type_hints(factory)
    except Exception:  # a user's own, with hints that cannot be resolved: values are then taken as they are
        hints = {}
    offered, words = SUPPLIED.get(kind, tuple(RUN)), _arguments(factory)
    options, supplied, anything = {}, {}, False
    for name, parameter in parameters.items():
        hint = hints.get(name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            anything = True
        elif name in offered:
            supplied[name] = parameter.default is not REQUIRED or type(None) in typing.get_args(hint)
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            traced = _is_scalar(hint)
            found = dict.fromkeys(choice for choice in _choices(hint) if not (traced and choice in (bool, int)))
            options[name] = Option(tuple(found) or (Any,), parameter.default, words.get(name, ""), traced)
    if "name" in options:
        raise ValueError(
            f"{kind} {getattr(factory, '__name__', factory)!r} must not have an option called name, which in a configuration says which part it is; call "
            "the argument something else."
        )
    return Signature(options, supplied, anything, summary(factory))


def summary(factory: Any) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(factory) or "").strip().partition("\n")[0]


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _is_scalar(hint: Any) -> bool:
    """Whether a number may be traced: `lapg.types.Scalar` and optax's own unions of float and array."""
    members = _members(hint)
    return float in members and any(member is jax.Array or _shape(member) == "" for member in members)


def _shape(hint: Any) -> str | None:
    """The axes of a jaxtyping array, None of anything else."""
    return hint.dim_str if isinstance(hint, type) and issubclass(hint, AbstractArray) else None


def _choices(hint: Any) -> tuple[Any, ...]:
    """What plain data a hint admits; nothing for what is not plain."""
    found: list[Any] = []
    for member in _members(hint):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if member in (*PLAIN, type(None), Any) or origin is Literal:
            found.append(member)
        elif origin in (list, tuple, Sequence) and arguments:
            inner = [choice for choice in _choices(arguments[0]) if choice in PLAIN]
            found.append(tuple[(float if _is_scalar(arguments[0]) else inner[0], ...)] if inner else Any)
        elif origin in (dict, Mapping) or member in (dict, Mapping):
            found.append(dict)
        elif (shape := _shape(member)) is not None:
            number = float if "float" in str(member.dtypes) else int
            found.append(tuple[(number, ...)] if shape else number)
        elif isinstance(member, type) and member in NESTED:
            found.append(Annotated[Part, NESTED[member]])
    return tuple(found)


def _arguments(factory: Any) -> dict[str, str]:
    """The words of a docstring's section Args, by argument; several may share an entry."""
    text = inspect.getdoc(factory) or ""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    if section is None:
        return {}
    lines = section[1].rstrip().split("\n")
    edge = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        entry = re.match(rf" {{{edge}}}([\w*, ]+?)(?: \(.*?\))?: *(.*)", line)
        if entry:
            names = [name.strip(" *") for name in entry[1].split(",")]
        more = entry[2] if entry else line.strip()
        found |= {name: f"{found.get(name, '')} {more}".strip() for name in names}
    return found
