"""What adapters to outside environments share: policies for their spaces, observations as vectors, and what to say when something is missing."""

import contextlib
import difflib
import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lapg.policies import gaussian_mlp, softmax_mlp
from lapg.types import Environment, Policy, Task


def policy_for(
    owner: str,
    space: Any,
    num_inputs: int,
    *,
    hidden: Sequence[int],
    activation: str,
    std: float = 0.5,
    learned_std: bool = False,
) -> Policy:
    """A network for an action space: softmax for Discrete, normal for a one-dimensional Box, squashed into its bounds where it has any.

    Spaces of gymnax, JaxMARL and Gymnasium are told by their attributes, which agree.

    Raises:
      ValueError: another kind of space, or one bounded on one side only.
    """
    if hasattr(space, "n") and space.shape == ():
        return softmax_mlp(num_inputs, hidden, int(space.n), activation)
    if hasattr(space, "low") and len(space.shape) == 1:
        low, high = (np.broadcast_to(np.asarray(bound, float), space.shape) for bound in (space.low, space.high))
        bounded = np.isfinite([low, high])
        if bounded.any() and not bounded.all():
            raise ValueError(f"{owner} must have actions bounded on both sides or on none, got {space}; rescale them.")
        bounds = {"low": low, "high": high} if bounded.any() else {}
        return gaussian_mlp(num_inputs, hidden, space.shape[0], activation, std=std, learned_std=learned_std, **bounds)
    raise ValueError(
        f"{owner} needs a Discrete or a one-dimensional Box action space, got {type(space).__name__} of shape {space.shape}; "
        "wrap the environment so that it has one."
    )


def vector(observation: PyTree) -> Float[Array, " n"]:
    """Any observation as one vector of floats, leaf after leaf."""
    return jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(observation)])


def first_observation(environment: Environment, tasks: Task) -> Any:
    """Shapes and dtypes of what learner 0 observes after a reset, without computing it."""
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    return jax.eval_shape(lambda key: environment.observe(environment.reset(key, task)), jax.random.key(0))


def same_types(tree: PyTree, like: PyTree) -> PyTree:
    """``tree`` with the dtypes of ``like``: outside environments mix Python numbers and arrays, and a compiled loop may not."""
    return jax.tree.map(lambda leaf, model: jnp.asarray(leaf, model.dtype), tree, like)


def one_of(owner: str, env: str, names: Iterable[str]) -> None:
    """``env`` must be one of the names that the outside library knows; the message lists those that look like it.

    Raises:
      ValueError: it is not.
    """
    names = list(names)
    if env not in names:
        near = difflib.get_close_matches(env, names, 4, 0.4) or names[:4]
        raise ValueError(f"{owner}(env=...) must be one of {', '.join(near)}, ... ({len(names)} in all), got {env!r}.")


def imported(name: str, subject: str) -> Any:
    """A user's own part by MODULE:NAME; the message begins with ``subject``.

    Raises:
      ValueError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{subject} cannot be imported: {error}; is the module on PYTHONPATH?") from error


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
