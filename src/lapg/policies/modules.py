"""Policies around networks of Flax and Equinox, in one line each."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from lapg.policies.choose import Factory, around
from lapg.policies.networks import Network, shapes_of
from lapg.types import Discrete, Policy, Spaces


def from_flax(module: Any, *, std: float | None = None, learned_std: bool = False) -> Factory:
    """A policy factory around a module of ``flax.linen``: its output is the logits of discrete actions, or the mean of normal ones.

    Args:
      module: sees one observation, in the shape that the problem's spaces say; its variables are trained as a whole, so that layers with state
        (batch statistics) or random numbers (dropout) do not fit.
      std, learned_std: of normal actions, as in `lapg.policies.mlp`.
    Raises:
      ValueError: it is no linen module; and when the policy is made: it has state (batch statistics), or its output does not fit the actions.
    """
    if isinstance(module, type) or not (
        callable(getattr(module, "init", None)) and callable(getattr(module, "apply", None))
    ):
        raise ValueError(
            f"from_flax(module=...) must be a module of flax.linen, made but not initialised, got {type(module).__name__}."
        )

    def init(key: Key[Array, ""], seen: Any) -> Any:
        variables = module.init(key, seen)
        if other := set(variables) - {"params"}:
            raise ValueError(
                f"from_flax(module=...) must have parameters alone, got variables of {', '.join(sorted(other))} too; leave out layers with state."
            )
        return variables

    return _factory(lambda spaces: _flat("from_flax", spaces, init, module.apply), std, learned_std)


def from_equinox(make: Callable[..., Any], *, std: float | None = None, learned_std: bool = False) -> Factory:
    """A policy factory around a module of Equinox: its output is the logits of discrete actions, or the mean of normal ones.

    Args:
      make: ``key → module``, such as ``lambda key: eqx.nn.MLP(4, 2, 16, 1, key=key)``, so that every seed has a θ⁰ of its own; the module sees one
        observation. All its arrays of floats are trained.
      std, learned_std: of normal actions, as in `lapg.policies.mlp`.
    Raises:
      ValueError: a module in place of its maker; and when the policy is made: its output does not fit the actions.
    """
    if isinstance(make, eqx.Module):
        raise ValueError(
            f"from_equinox(make=...) must be a function key → module, got a module ({type(make).__name__}); give lambda key: {type(make).__name__}(..., key=key)."
        )

    def network(spaces: Spaces) -> Network:
        rest = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)[1]

        def init(key: Key[Array, ""], seen: Any) -> Any:
            return eqx.filter(make(key), eqx.is_inexact_array)

        def apply(weights: Any, seen: Any) -> Any:
            return eqx.combine(weights, rest)(seen)

        return _flat("from_equinox", spaces, init, apply)

    return _factory(network, std, learned_std)


def _factory(network: Callable[[Spaces], Network], default_std: float | None, default_learned: bool) -> Factory:
    def factory(spaces: Spaces, *, std: float | None = default_std, learned_std: bool = default_learned) -> Policy:
        """A policy around a network of one's own."""
        return around(spaces, network(spaces), std=std, learned_std=learned_std)

    return factory


def _flat(owner: str, spaces: Spaces, init: Callable[..., Any], apply: Callable[..., Any]) -> Network:
    """A network with one flat vector of weights, of ``init: key, input → weights`` and ``apply: weights, input → output``."""
    seen = spaces.observation
    example = jnp.zeros(spaces.num_inputs if isinstance(seen, Discrete) else seen.shape)
    try:
        weights = init(jax.random.key(0), example)
    except Exception as error:
        error.add_note(f"{owner}(...): the network was given an observation of shape {example.shape}")
        raise
    flat, unravel = ravel_pytree(weights)
    found = jax.eval_shape(apply, weights, example)
    wanted = (spaces.num_outputs,)
    if getattr(found, "shape", None) != wanted:
        what = "logits of the actions" if isinstance(spaces.action, Discrete) else "the mean action"
        raise ValueError(
            f"{owner}(...) needs a network that returns {wanted[0]} numbers ({what}) of an observation of shape {example.shape}, got {found}."
        )

    def start(key: Key[Array, ""]) -> Float[Array, " d"]:
        return ravel_pytree(init(key, example))[0]

    return Network(start, lambda params, seen: apply(unravel(params), seen), flat.size, shapes_of(weights))
