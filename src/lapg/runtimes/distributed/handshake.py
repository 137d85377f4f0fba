"""The handshake: a learner whose versions, precision or settings differ from the controller's is refused before the first round."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax

LIMIT_BYTES = 100_000
"""Longest hello that is read."""


def hello(config: Mapping[str, Any]) -> bytes:
    """States versions, precision and the configuration as flat text, JSON in UTF-8."""
    precision = "float64" if jax.config.read("jax_enable_x64") else "float32"
    facts = {"lapg": version("lapg"), "jax": version("jax"), "precision": precision} | _flat(config)
    return json.dumps(facts, sort_keys=True).encode()


def check_hello(mine: bytes, theirs: bytes) -> None:
    """Compares two hello messages.

    Raises:
      ValueError: they differ, or the other one is not a hello.
    """
    if len(theirs) > LIMIT_BYTES:
        raise ValueError(f"a hello must have at most {LIMIT_BYTES} bytes, got {len(theirs)}.")
    wanted = json.loads(mine)
    try:
        found = json.loads(theirs)
        if not isinstance(found, dict):
            raise TypeError("not a table")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"a hello must be a JSON table of settings ({error}).") from error
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"learner refused: {name} must be {_shown(wanted, name)}, as at the controller, got {_shown(found, name)}; "
                "give every process the same configuration, versions and precision."
            )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value, default=str)
    return flat


def _shown(facts: dict[str, Any], name: str) -> str:
    return str(facts.get(name, "not set"))[:80]
