"""From choices of parts to the parts themselves."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from lapg.methods.parts import Part, merged
from lapg.methods.preset import KINDS, Preset
from lapg.methods.registry import ASKED, DEFAULTS, meant, resolve
from lapg.methods.signatures import REQUIRED, RUN, Option, Signature, signature
from lapg.problems.contract import theirs
from lapg.types import (
    Compressor,
    Downlink,
    Estimator,
    Local,
    Memory,
    Rollout,
    StepLimit,
    Trigger,
    VarianceReduction,
)
from lapg.uplink.triggers.measures import Measure

MADE: dict[str, type] = {
    "rollout": Rollout,
    "estimator": Estimator,
    "local": Local,
    "variance_reduction": VarianceReduction,
    "memory": Memory,
    "trigger": Trigger,
    "measure": Measure,
    "compressor": Compressor,
    "step_limit": StepLimit,
    "downlink": Downlink,
}
"""What factories of a kind return."""


def choose(preset: Preset, changes: Mapping[str, Part], kinds: Sequence[str] = KINDS) -> dict[str, Part]:
    """The parts of a method by kind: the preset's, or the default, as ``changes`` change them; a policy without either is the problem's, and has no name."""
    found = {}
    for kind in kinds:
        below, above = getattr(preset, kind), changes.get(kind, Part())
        name = below.name or (ASKED.get(kind) if above and kind in DEFAULTS else None) or DEFAULTS.get(kind)
        found[kind] = merged(Part(name, **below.options), above)
    return found


def signature_of(kind: str, name: str, where: str | None = None) -> Signature:
    """What a part by its name takes.

    Raises:
      ValueError: there is no such part.
    """
    return signature(kind, resolve(kind, name, where))


def settings(kind: str, part: Part) -> dict[str, Any]:
    """All options of a part, by default or as it has them; those without either are left out."""
    options = signature_of(kind, part.name).options
    return {name: option.default for name, option in options.items() if option.default is not REQUIRED} | part.options


def nested_kind(option: Option | None) -> str | None:
    """The kind of part that an option is, if it is one."""
    choices = () if option is None else option.choices
    return next((get_args(choice)[1] for choice in choices if get_origin(choice) is Annotated), None)


def numbers(kind: str, part: Part, given: Part, where: str) -> dict[str, float]:
    """Of the options that were ``given`` the hyperparameters, by their full names: what may vary between lanes without compiling again."""
    options, found = signature_of(kind, part.name, where).options, {}
    for name in given.options:
        value, option = part.options[name], options.get(name)
        if isinstance(value, Part):
            found |= numbers(nested_kind(option) or name, value, given.options[name], f"{where}.{name}")
        elif option is not None and option.traced and isinstance(value, float):
            found[f"{where}.{name}"] = value
    return found


def make(
    kind: str,
    part: Part,
    run: Mapping[str, Any],
    hyper: Mapping[str, Any] | None = None,
    where: str | None = None,
    factory: Callable[..., Any] | None = None,
) -> Any:
    """Calls a part's factory with its options, and with what it wants to know of the run.

    Args:
      run: what is known, by the names in `lapg.methods.signatures.SUPPLIED`.
      hyper: values, possibly traced, that take the place of options, by their full names: ``trigger.threshold``.
      where: the full name of the part itself; its kind unless given.
      factory: the part's own, in other clothes.
    Raises:
      ValueError: there is no such part; it has no such option; it needs one that is not given; the problem lacks what it needs; or a value does not fit.
    """
    where = where or kind
    called: Any = factory or resolve(kind, part.name, where)
    found, values = signature(kind, called), hyper or {}
    check_options(found, part, where, kind)
    for full in values:
        owner, _, name = full.partition(f"{where}.")
        if not owner and name and not found.anything and name.partition(".")[0] not in found.options:
            raise ValueError(
                f"{full} is not an option of {kind} {part.name!r}{meant(name, found.options)}; leave it out."
            )
    given: dict[str, Any] = {}
    for name, value in part.options.items():
        full = f"{where}.{name}"
        if isinstance(value, Part):
            inside = nested_kind(found.options.get(name))
            value = make(inside, value, run, values, full) if inside else value
        given[name] = value
    for name, option in found.options.items():
        if f"{where}.{name}" in values:
            given[name] = values[f"{where}.{name}"]
        if name not in given and option.default is REQUIRED:
            raise ValueError(f"{where} {part.name!r} needs {name}; give {where}.{name}.")
    for name, optional in found.supplied.items():
        if name in run and (run[name] is not None or optional):
            given[name] = run[name]
        elif not optional:
            raise ValueError(
                f"{where} {part.name!r} needs {RUN.get(name, f'a problem with a known {name}').partition(':')[0]}, which is not there; choose another {kind}."
            )
    with as_typed(where, found):
        if ":" not in part.name:
            return called(**given)
        return _made_outside(kind, part.name, called, given, where)


def _made_outside(kind: str, name: str, factory: Callable[..., Any], given: Mapping[str, Any], where: str) -> Any:
    """What a factory from outside lapg returns.

    Raises:
      EnvironmentFailed: it raises anything but a ValueError.
      ValueError: it raises that, or returns something of another type.
    """
    with theirs(f"{where} {name!r} could not be made", ValueError):
        made = factory(**given)
    wanted = MADE.get(kind, object)
    if not isinstance(made, wanted) and not (made is None and kind == "step_limit"):
        raise ValueError(
            f"{where} {name!r} must return a {wanted.__module__.partition('.parts')[0]}.{wanted.__name__}, got {type(made).__name__}; see docs/extending.md."
        )
    return made


def check_options(found: Signature, part: Part, where: str, kind: str) -> None:
    """Refuses options that a part does not have.

    Raises:
      ValueError: it has such a one.
    """
    for name in part.options:
        if name not in found.options and (not found.anything or name in found.supplied):
            takes = ", ".join(found.options) or "nothing"
            near = meant(name, found.options)
            if kind == "problem" and name in signature_of("policy", "mlp").options:
                near = f"; it is the policy's: policy.{name}"
            raise ValueError(f"{where}.{name} is not an option of {kind} {part.name!r}, which takes {takes}{near}.")


ELSEWHERE = {"step_size": "optimiser.step_size", "batch_size": "batch_size"}
"""What parts are supplied with, by the setting that it comes from."""


@contextlib.contextmanager
def as_typed(where: str, found: Signature) -> Iterator[None]:
    """What a factory says of its argument, ``lazy(xi=...)``, in the words of the configuration: ``trigger.xi``.

    Raises:
      ValueError: the same, with the setting that was typed.
    """

    def typed(match: re.Match[str]) -> str:
        if match[1] in found.options:
            return f"{where}.{match[1]}"
        return ELSEWHERE.get(match[1], match[0]) if match[1] in found.supplied else match[0]

    try:
        yield
    except ValueError as error:
        text = re.sub(r"\b\w+\((\w+)=\.\.\.\)", typed, str(error))
        if text == str(error):
            raise
        raise ValueError(text) from error
