"""What all checks of parts share."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lapg.problems.checklist import Flaw, describe, equal, need

Z_LIMIT = 5.0
"""Standard errors that a sample mean may be off; of thousands of entries less than one in a thousand is by chance."""


def signatures(part: Any) -> None:
    """Refuses functions that do not take what they will be given, which `lapg.types.signatures` names."""
    for name, hint in typing.get_type_hints(type(part)).items():
        function = getattr(part, name)
        protocols = [kind for kind in (hint, *typing.get_args(hint)) if getattr(kind, "_is_protocol", False)]
        if function is None or not protocols:
            continue
        wanted = list(inspect.signature(protocols[0].__call__).parameters.values())[1:]
        names = [argument.name for argument in wanted if argument.default is argument.empty]
        try:
            inspect.signature(function).bind(*names)
        except TypeError as error:
            raise Flaw(
                f"{name} must take ({', '.join(names)}), positional and under any name, got {inspect.signature(function)}."
            ) from error


def traced(name: str, function: Callable[..., Any], *arguments: Any, how: Callable[..., Any] = jax.eval_shape) -> Any:
    """Shapes and dtypes of the function's value, as compiled code sees them; nothing is computed."""
    try:
        return how(lambda *given: function(*given), *arguments)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        raise Flaw(
            f"{name} must compile, but {type(error).__name__} says that Python looks at an array's values; use jnp.where or jax.lax.cond "
            "for `if`, jax.numpy for numpy."
        ) from error


def compiled(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value, compiled anew."""
    return traced(name, function, *arguments, how=lambda function, *given: jax.jit(function)(*given))


def _arrays(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf), tree)


def keeps_types(name: str, before: PyTree, after: PyTree) -> None:
    """Refuses a state that changes its structure, shapes or dtypes."""
    old, new = _arrays(before), _arrays(after)
    need(
        describe(old) == describe(new),
        f"{name} must leave structure, shapes and dtypes of the state as init made them, {describe(old)}, got {describe(new)}; cast with "
        "jnp.asarray(value, dtype).",
    )


def scalar(name: str, value: Any, kind: str) -> None:
    """Refuses what is not one number of that kind: f, i or b."""
    words = {"f": "real number", "i": "whole number", "b": "boolean"}
    value = _arrays(value)
    need(
        value.shape == () and value.dtype.kind == kind,
        f"{name} must be one {words[kind]}, got {describe(value)}; reduce it, or cast it with jnp.asarray(value, dtype).",
    )


def vector(name: str, value: Any, like: Any) -> None:
    """Refuses what is not a vector of that length and dtype."""
    value = _arrays(value)
    need(
        value.shape == like.shape and value.dtype == like.dtype,
        f"{name} must be a vector like θ, {describe(like)}, got {describe(value)}.",
    )


def repeats(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The value of a compiled function that brings the same when it is compiled anew."""
    once, again = (compiled(name, function, *arguments) for _ in range(2))
    need(
        equal(once, again),
        f"{name} must bring the same under the same arguments; draw with jax.random from the key, keep nothing outside the state.",
    )
    return once


def z_scores(samples: Any, expected: Any) -> np.ndarray:
    """By how many standard errors the means (axis 0) are off, entry by entry; rounding errors are none."""
    samples = np.asarray(samples, float)
    slack = 1e3 * np.finfo(np.float32).eps * (1e-30 + np.abs(samples).max(0))
    error = np.maximum(np.abs(samples.mean(0) - np.asarray(expected, float)) - slack, 0)
    return error / np.maximum(samples.std(0, ddof=1) / len(samples) ** 0.5, 1e-30)
