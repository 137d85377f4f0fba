"""Values of a configuration as type hints and factories want them, the same from Python, flags and files."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np

from lapg.methods.making import check_options
from lapg.methods.parts import Part, from_table, merged
from lapg.methods.registry import ASKED, DEFAULTS, REGISTRY, meant, named, no_network, resolve
from lapg.methods.signatures import Signature, signature

FUNCTIONS = {"env": "environment"}
"""Options that name a factory, which may then be the function itself."""
KINDS = {int: "a whole number", float: "a number", str: "a name", bool: "True or False"}
PLAIN = (bool, int, float, str, list, Mapping, type(None))
PLURALS = {int: "whole numbers", float: "numbers", str: "names"}


def check_names(kind: type, names: Iterable[str], where: str) -> None:
    """Refuses settings that a dataclass does not have.

    Raises:
      ValueError: there is one; with the nearest name.
    """
    known = [item.name for item in dataclasses.fields(kind)]
    for name in names:
        if name not in known:
            raise ValueError(f"{where}({name}=...) is not a setting{meant(name, known)}; known are {', '.join(known)}.")


def fit(config: Any, where: str = "") -> None:
    """Brings the values of a new configuration into the form of their type hints, the same from Python as from a file; see `fit_value`.

    Parts are left to `fit_part`, which knows what kind they are.

    Args:
      where: what names in messages begin with.
    Raises:
      ValueError: a value of the wrong type, or out of the range of numbers.
    """
    for name, hint in _hints(type(config)).items():
        if hint is not Part:
            object.__setattr__(config, name, fit_value(getattr(config, name), _members(hint), where + name))


def fit_part(kind: str, value: Any, where: str, below: Part | None = None, *, own: bool = False) -> Part:
    """A part of a configuration: named, and its options as its factory wants them.

    Args:
      value: a `Part`, a name, a factory, a table, or None for nothing.
      below: what takes the options where there is no name; the default of the kind unless given.
      own: whether factories outside lapg may be imported; if not, their options are only checked to be plain data.
    Raises:
      ValueError: there is no such part or option, or a value does not fit.
    """
    below = below or Part(ASKED.get(kind) or DEFAULTS.get(kind))
    if isinstance(value, Mapping):
        value = from_table(value)
    part = value if isinstance(value, Part) else Part(value)
    name = part.name
    if name is not None and not isinstance(name, str):
        if not callable(name):
            made = "; that part is made already: give its factory, and options beside it, as Part(FACTORY, option=...)"
            raise ValueError(
                f"{where} must be a name, a factory or a table of settings, got {_got(name)}{made if isinstance(name, tuple) else ''}."
            )
        if kind == "policy":
            no_network(name)
        name = named(kind, name)
    called = name or below.name
    if called is None or (":" in called and not own):
        return Part(name, **{option: _plain(item, f"{where}.{option}") for option, item in part.options.items()})
    found = signature(kind, resolve(kind, called, where))
    if name or kind != "policy":  # the policy of a problem may have other options, which are known when it is there
        check_options(found, Part(called, **part.options), where, kind)
    inner = below.options if called == below.name else {}
    return Part(name, **fit_options(found, part.options, inner, where, own=own))


def fit_options(
    found: Signature, options: Mapping[str, Any], below: Mapping[str, Any], where: str, *, own: bool
) -> dict[str, Any]:
    """The options of a part as its signature wants them; those that it does not name as plain data."""
    fitted = {}
    for name, value in options.items():
        full, option = f"{where}.{name}", found.options.get(name)
        if option is None:
            fitted[name] = _plain(value, full)
            continue
        under = below.get(name)
        value = fit_value(value, option.choices, full, under if isinstance(under, Part) else None, own=own)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{full} must be finite, got {value}; leave it out for the part's own default.")
        fitted[name] = value
    return fitted


def changed(default: Any, data: Mapping[str, Any], where: str) -> Any:
    """A configuration with what plain data (JSON, TOML) names in it changed.

    Raises:
      ValueError: an unknown name or a value of the wrong type.
    """
    known, changes = _hints(type(default)), {}
    for name, value in data.items():
        if name not in known:
            raise ValueError(
                f"{where}.{name} is not a setting; known are {', '.join(known)}{meant(name, known)}. Is the file from another version of lapg?"
            )
        current = getattr(default, name)
        if isinstance(current, Part) and isinstance(value, Mapping):
            changes[name] = merged(current, _parts_in(from_table(value), current))
        elif isinstance(current, Part):
            changes[name] = fit_part(name, value, name)
        elif dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            changes[name] = changed(current, value, f"{where}.{name}")
        else:
            changes[name] = fit_value(value, _members(known[name]), f"{where}.{name}")
    return dataclasses.replace(default, **changes)


def _parts_in(above: Part, current: Part) -> Part:
    """The part with tables in it as parts, where those that they change are."""
    options = {
        name: _parts_in(from_table(value), old)
        if isinstance(value, Mapping) and isinstance(old := current.options.get(name), Part)
        else value
        for name, value in above.options.items()
    }
    return Part(above.name, **options)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def fit_value(value: Any, choices: tuple[Any, ...], where: str, below: Part | None = None, *, own: bool = False) -> Any:
    """The value as one of its type hints wants it.

    Numbers and arrays of NumPy and JAX become Python's; whole numbers become floats where floats are wanted; lists, and single values, tuples where
    several are; functions their names; tables, and names of parts, parts; and the word None where it may be None, None.

    Raises:
      ValueError: it is none of these.
    """
    value = _python(value)
    if type(None) in choices and (value is None or (isinstance(value, str) and value.lower() == "none")):
        return None
    for choice in choices:
        origin = typing.get_origin(choice)
        if choice is Any:
            return _plain(value, where)
        if origin is Annotated:
            if isinstance(value, Part | Mapping | str) or callable(value):
                kind = typing.get_args(choice)[1]
                part = fit_part(kind, value, where, below, own=own)
                return part if part.name or below else Part(DEFAULTS[kind], **part.options)
            continue
        if origin is Literal and isinstance(value, str | int) and value in typing.get_args(choice):
            return value
        if origin is tuple and isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            inner = typing.get_args(choice)[0]
            return tuple(_plain(item, where) if inner is Any else fit_value(item, (inner,), where) for item in value)
        if dict in (choice, origin) and isinstance(value, Mapping):
            return _plain(value, where)
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return _within(value, where) if isinstance(value, float) else float(_within(value, where))
        if choice is int and type(value) is int:
            return _within(value, where)
        if choice in (str, bool) and type(value) is choice:
            return value
        if choice is str and callable(value) and (kind := FUNCTIONS.get(where.rpartition(".")[2])):
            return named(kind, value)
        if dataclasses.is_dataclass(choice):
            if isinstance(value, choice):
                return value
            if isinstance(value, Mapping):
                return changed(choice(), value, where)
    if type(value) in (int, float, str):  # one stands for a list of one
        for choice in choices:
            inner = typing.get_args(choice)[0] if typing.get_origin(choice) is tuple else None
            if inner in KINDS and (type(value) is str) == (inner is str):
                return (fit_value(value, (inner,), where),)
    wanted = " or ".join(_words(choice) for choice in choices if choice is not type(None))
    made = "" if isinstance(value, PLAIN) else "; what a factory has made is not data: give the factory, or its name"
    names = [name for choice in choices if typing.get_origin(choice) is Literal for name in typing.get_args(choice)]
    hint_at = meant(value, names) if isinstance(value, str) else ""
    raise ValueError(f"{where} must be {wanted}, got {_got(value)}{hint_at}{made}.")


def _python(value: Any) -> Any:
    """Python's own value of a scalar or an array of NumPy or JAX."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray | jax.Array) else value


def _plain(value: Any, where: str) -> Any:
    """A tree of options, as it goes into config.json and comes back.

    Raises:
      ValueError: there is something in it that is neither number, text, True, False, None, list nor table.
    """
    value = _python(value)
    if isinstance(value, Part):
        return Part(value.name, **{name: _plain(item, f"{where}.{name}") for name, item in value.options.items()})
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{where} must be a table with names, got {name!r} among them.")
        return {name: _plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(
        f"{where} must be plain data (numbers, text, True, False, None, lists, tables), got {_got(value)}; "
        "a factory of your own can make anything else from it."
    )


def _within(value: Any, where: str) -> Any:
    if isinstance(value, int) and not -(2**31) <= value < 2**32:
        raise ValueError(f"{where} must fit into 32 bits, got {value}.")
    return value


def _got(value: Any) -> str:
    """A value in a message, its kind alone where it would fill pages."""
    text = repr(value)
    return text if len(text) < 100 and not hasattr(value, "_fields") else f"something of type {type(value).__name__}"


def _words(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if origin is tuple:
        return f"a list of {PLURALS.get(typing.get_args(hint)[0], 'values')}"
    if origin is Annotated:
        kind = typing.get_args(hint)[1]
        return f"a {kind} ({', '.join(REGISTRY[kind])}) or a table of its settings"
    if dataclasses.is_dataclass(hint):
        return f"a {getattr(hint, '__name__', hint)} or a table of its settings"
    return "a table" if dict in (hint, origin) else KINDS[hint]
