"""Values of a configuration as their type hints want them, the same from Python, flags and files."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from lapg.experiments.names import meant, named

NAMES = {"name": "part", "optimiser": "optimiser", "env": "environment"}
"""Settings that name a factory, which may then be the function itself."""
KINDS = {int: "a whole number", float: "a number", str: "a name", bool: "True or False"}
PLAIN = (bool, int, float, str, list, Mapping, type(None))
PLURALS = {int: "whole numbers", float: "numbers", str: "names"}


def fit(config: Any, where: str = "") -> None:
    """Brings the values of a new configuration into the form of their type hints, the same from Python as from a file; see `_fit`.

    Args:
      where: what names in messages begin with.
    Raises:
      ValueError: a value of the wrong type, or out of the range of numbers.
    """
    for name, hint in _hints(type(config)).items():
        object.__setattr__(config, name, _fit(getattr(config, name), hint, where + name))


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
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            changes[name] = changed(current, value, f"{where}.{name}")
        else:
            changes[name] = _fit(value, known[name], f"{where}.{name}")
    return dataclasses.replace(default, **changes)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def _fit(value: Any, hint: Any, where: str) -> Any:
    """The value as its type hint wants it.

    Numbers and arrays of NumPy and JAX become Python's; whole numbers become floats where floats are wanted; lists, and single values, tuples where
    several are; functions their names; and the name of a part, or a table, its configuration.
    """
    value = _python(value)
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for choice in choices:
        origin = typing.get_origin(choice)
        if choice is type(None) and value is None:
            return None
        if origin is Literal and isinstance(value, str) and value in typing.get_args(choice):
            return value
        if origin is tuple and isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return tuple(_fit(item, typing.get_args(choice)[0], where) for item in value)
        if origin is dict and isinstance(value, Mapping):
            return _plain(value, where)
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return _within(value, where) if isinstance(value, float) else float(_within(value, where))
        if choice is int and type(value) is int:
            return _within(value, where)
        if choice in (str, bool) and type(value) is choice:
            return value
        if choice is str and callable(value) and (kind := NAMES.get(where.rpartition(".")[2])):
            return named(where.split(".")[-2] if kind == "part" else kind, value)
        if dataclasses.is_dataclass(choice):
            if isinstance(value, choice):
                return value
            if isinstance(value, Mapping):
                return changed(choice(), value, where)
            if "name" in _hints(typing.cast(type, choice)) and (isinstance(value, str) or callable(value)):
                return choice(name=value)  # pyright: ignore[reportCallIssue]
    if type(value) in (int, float, str):  # one stands for a list of one
        for choice in choices:
            if typing.get_origin(choice) is tuple and (type(value) is str) == (typing.get_args(choice)[0] is str):
                return (_fit(value, typing.get_args(choice)[0], where),)
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
    return text if len(text) < 100 else f"something of type {type(value).__name__}"


def _words(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if origin is tuple:
        return f"a list of {PLURALS[typing.get_args(hint)[0]]}"
    if dataclasses.is_dataclass(hint):
        return f"a {getattr(hint, '__name__', hint)} or a table of its settings"
    return "a table" if origin is dict else KINDS[hint]
