"""Whose code a run may name: reading what somebody else made must not run what they wrote."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from lapg.experiments.config import PARTS, Config
from lapg.methods.parts import as_table
from lapg.methods.registry import named
from lapg.record import RunError

Trust = bool | str | Callable[..., Any] | Collection[str | Callable[..., Any]]
"""All names, none but the built-in ones, or those listed, each as MODULE:NAME or as the function itself."""
PACKAGES = ("pettingzoo", "mpe2")
"""Whose modules are environments without a colon in their names."""


def require_trust(config: Config, path: Path, trust: Trust, *, resumed: bool = False) -> None:
    """Refuses a run's configuration that would run code from outside lapg, unless the caller trusts it.

    Args:
      path: the run, for the message.
      resumed: whether the run is resumed, and so may connect to a cluster.
    Raises:
      RunError: it would, and the caller does not.
    """
    if trust is True:
        return
    parts = (trust,) if isinstance(trust, str) or callable(trust) else trust or ()
    trusted = {part if isinstance(part, str) else named("trust", part) for part in parts}
    found = {where: name for where, name in _names(config, resumed) if name not in trusted}
    if found:
        words = ", ".join(f"config.{where} = {name}" for where, name in found.items())
        raise RunError(
            f"run={path} names code that is not lapg's, which would be run: {words}. If you trust it, repeat the command with --trust "
            "(in Python trust=True)."
        )


def _names(config: Config, resumed: bool) -> Iterator[tuple[str, str]]:
    """Every name that would be imported or connected to, by its setting."""
    if ":" in config.method:
        yield "method", config.method
    for kind in PARTS:
        yield from ((where, text) for where, text in _texts(kind, as_table(getattr(config, kind))) if ":" in text)
    env = config.problem.options.get("env")
    if config.problem.name == "pettingzoo" and env and ":" not in env and env.split(".")[0] not in PACKAGES:
        yield "problem.env", env
    if resumed and config.cluster.address is not None:
        yield "cluster.address", config.cluster.address


def _texts(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """All strings in a tree of settings."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(f"{where}.{name}", item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(where, item)
