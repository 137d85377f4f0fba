"""What adapters to outside environments share: their action spaces, observations as vectors, and what to say when something is missing."""

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lapg.problems.builders import first_observation
from lapg.problems.contract import Misfit, array, failed
from lapg.types import Box, Discrete, Interface, Problem

Result = TypeVar("Result")


def action_space(owner: str, space: Any) -> Discrete | Box:
    """An outside action space: Discrete, or a one-dimensional Box with its bounds where it has any.

    Spaces of gymnax, JaxMARL and Gymnasium are distinguished by their attributes, which agree.

    Raises:
      ValueError: another kind of space, or one bounded on one side only.
    """
    if discrete(space):
        return Discrete(int(space.n))
    if hasattr(space, "low") and len(space.shape) == 1:
        low, high = (np.broadcast_to(np.asarray(bound, float), space.shape) for bound in (space.low, space.high))
        bounded = np.isfinite([low, high])
        if bounded.any() and not bounded.all():
            raise ValueError(f"{owner} must have actions bounded on both sides or on none, got {space}; rescale them.")
        bounds = (tuple(low.tolist()), tuple(high.tolist())) if bounded.any() else (None, None)
        return Box(tuple(space.shape), *bounds)
    raise ValueError(
        f"{owner} needs a Discrete or a one-dimensional Box action space, got {type(space).__name__} of shape {space.shape}; "
        "wrap the environment so that it has one."
    )


def discrete(space: Any) -> bool:
    """Whether an action is one whole number."""
    return hasattr(space, "n") and space.shape == ()


def vector(observation: PyTree) -> Float[Array, " n"]:
    """Any observation as one vector of floats, leaf after leaf."""
    return jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(observation)])


def interface_of(problem: Problem) -> Interface:
    """A problem's own interface, or else the policy's own observations and actions, of which only shape and kind are checked."""
    if problem.interface is not None:
        return problem.interface
    example = problem.observation
    if example is None and problem.environment is not None:
        example = first_observation(problem.environment, problem.tasks)

    return Interface(
        lambda observation, info=None: observation if example is None else shaped(example, observation),
        lambda executed: executed,
    )


def shaped(example: PyTree, observation: PyTree) -> PyTree:
    """An observation in NumPy, with the dtypes of ``example``.

    Raises:
      Misfit: it has another structure, other shapes, or fractions for whole numbers.
    """
    wanted, found = (jax.tree.structure(tree) for tree in (example, observation))
    if jax.tree_util.treedef_is_leaf(wanted):  # a list of numbers will do
        return _fit(example, observation)
    if wanted != found:
        raise Misfit(f"an observation must have the structure {wanted}, got {found}.")
    return jax.tree.map(_fit, example, observation)


def _fit(like: Any, leaf: Any) -> np.ndarray:
    if np.issubdtype(like.dtype, np.integer) and not np.issubdtype(np.asarray(leaf).dtype, np.integer):
        raise Misfit(f"an observation must be {like.dtype}, got {np.asarray(leaf).dtype}.")
    return array(leaf, like.shape, like.dtype, "an observation")


def lenient(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function that calls other people's JAX code, which counts on the promotion of ranks, whatever the user has forbidden."""

    @wraps(function)
    def call(*given: Any) -> Result:
        with jax.numpy_rank_promotion("allow"):
            return function(*given)

    return call


def same_types(tree: PyTree, like: PyTree) -> PyTree:
    """``tree`` with the dtypes of ``like``: outside environments mix Python numbers and arrays, and a compiled loop may not."""
    return jax.tree.map(lambda leaf, model: jnp.asarray(leaf, model.dtype), tree, like)


def one_of(owner: str, env: str, names: Iterable[str], argument: str = "env") -> None:
    """``env`` must be one of the names that the outside library knows; the message lists those that look like it.

    Raises:
      ValueError: it is not.
    """
    names = list(names)
    if env not in names:
        near = difflib.get_close_matches(env, names, 4, 0.4) or names[:4]
        raise ValueError(
            f"{owner}({argument}=...) must be one of {', '.join(near)}, ... ({len(names)} in all), got {env!r}."
        )


BESIDE: list[str] = []
"""Folders that a user's own modules are looked for in after sys.path; the command line puts the current one here, as Python does for its scripts."""


def imported(name: str, subject: str) -> Any:
    """A user's own part by MODULE:NAME; the message begins with ``subject``.

    Raises:
      ValueError: there is no such module, or nothing of that name in it.
      EnvironmentFailed: the module's own code raises, an import in it included.
    """
    module, _, attribute = name.partition(":")
    look_beside()
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and (module == missing or module.startswith(f"{missing}.")):
            where = "in the current folder or on PYTHONPATH" if BESIDE else "on PYTHONPATH"
            raise ValueError(f"{subject} cannot be imported: {error}; is the module {where}?") from error
        raise failed(f"{subject} cannot be imported", error) from error
    if not hasattr(found, attribute):
        near = difflib.get_close_matches(attribute, dir(found), 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{subject} cannot be imported: module {module!r} has no attribute {attribute!r}{hint}")
    return getattr(found, attribute)


def look_beside() -> None:
    """Has Python look for modules in `BESIDE` too, from the first that a user names on."""
    sys.path.extend(folder for folder in BESIDE if folder not in sys.path)


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turns an import that fails into a line that says what to install.

    Raises:
      ValueError: something of the extra is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(f"problem {extra!r} needs the extra: pip install 'lapg[{extra}]' ({error}).") from error
