"""Rows of several environments side by side in NumPy: arrays with a leading axis, or tuples of them, one for each agent."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def real() -> np.dtype:
    """JAX's floating-point type."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


def each(function: Callable[..., Any], *trees: Any) -> Any:
    """``function`` of one array, or of every agent's; at every step, so that ``jax.tree.map`` would be felt."""
    return tuple(map(function, *trees)) if isinstance(trees[0], tuple) else function(*trees)


def stack(items: Sequence[Any], dtype: np.dtype) -> Any:
    """One array, or one for each agent, of one item per environment."""
    if isinstance(items[0], tuple):
        return tuple(np.asarray(column, dtype) for column in zip(*items, strict=True))
    return np.asarray(items, dtype)


def unstack(tree: Any) -> Any:
    """Items by environment; the opposite of `stack`."""
    if isinstance(tree, tuple):
        return list(zip(*tree, strict=True))
    return tree.tolist() if tree.ndim == 1 else tree  # numbers are quicker than arrays of one


def renewed(old: np.ndarray, fresh: np.ndarray, where: list[int]) -> np.ndarray:
    """A copy with fresh rows in some places."""
    new = old.copy()
    new[where] = fresh
    return new


def not_finite(tree: Any) -> int | None:
    """A row in which something is NaN or infinite, if there is one."""
    for leaf in tree if isinstance(tree, tuple) else (tree,):
        if not np.isfinite(leaf).all():
            return int(np.argwhere(~np.isfinite(leaf))[0, 0])
    return None
