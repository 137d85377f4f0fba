"""Checks, one after the other, and what comes of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lapg.problems.contract import EnvironmentFailed, Misfit


class CheckResult(NamedTuple):
    """One check: its name, whether it passed, and if not what to mend. With ``note`` it is no check, but something to know."""

    name: str
    passed: bool
    remedy: str = ""
    note: str = ""

    def __str__(self) -> str:
        if self.note:
            return f"note  {self.name}: {self.note}"
        return f"ok    {self.name}" if self.passed else f"FAIL  {self.name}: {self.remedy}"


class Flaw(Exception):  # noqa: N818
    """What to mend."""


class Checklist:
    """Runs checks one after the other: a check raises `Flaw` with what to mend, or whatever else the user's code raises."""

    def __init__(self) -> None:
        self.results: list[CheckResult] = []

    @property
    def sound(self) -> bool:
        """Whether all checks have passed so far."""
        return all(result.passed for result in self.results)

    def run(self, name: str, check: Callable[..., Any], *args: Any) -> Any:
        """What the check returns, None where it fails."""
        value, remedy = None, ""
        try:
            value = check(*args)
        except (Flaw, Misfit, EnvironmentFailed) as flaw:
            remedy = str(flaw)
        except Exception as error:  # the user's code may raise anything
            reason = str(error).strip().partition("\n")[0]
            remedy = f"it raises {type(error).__name__}: {reason}"
        self.results.append(CheckResult(name, not remedy, remedy))
        return value


def need(condition: Any, remedy: str) -> None:
    """Raises a `Flaw` unless the condition holds."""
    if not condition:
        raise Flaw(remedy)


def equal(one: PyTree, other: PyTree) -> bool:
    """Whether two trees are the same, NaNs and keys included."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(map(_plain, jax.tree.leaves(one)), map(_plain, jax.tree.leaves(other)), strict=True)
    )


def _plain(leaf: Any) -> np.ndarray:
    """NumPy's view of a leaf, which may be a key."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def finite(tree: PyTree) -> bool:
    """Whether all numbers of a tree are finite."""
    return all(np.isfinite(leaf).all() for leaf in map(np.asarray, jax.tree.leaves(tree)) if leaf.dtype.kind == "f")


def describe(tree: PyTree) -> str:
    """Structure, dtypes and shapes, as text."""
    leaves, structure = jax.tree.flatten(tree)
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves) + (
        "" if len(leaves) == 1 else f" in {structure}"
    )
