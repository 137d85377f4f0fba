"""Fully connected networks whose parameters are one flat vector; policies and critics share them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

ACTIVATIONS: dict[str, Callable[..., Any]] = {"relu": jax.nn.relu, "softplus": jax.nn.softplus, "tanh": jnp.tanh}


class Network(NamedTuple):
    """``init: key → θ`` · ``apply: θ, input → output`` · ``num_params``: d."""

    init: Callable[..., Any]
    apply: Callable[..., Any]
    num_params: int


def mlp(num_inputs: int, hidden: Sequence[int], num_outputs: int, activation: str = "relu") -> Network:
    """Layers of the given widths; the output is linear. θ⁰: weights normal with variance 1/fan-in, biases 0.

    Raises:
      ValueError: unknown activation, or a layer width below 1.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    widths = (num_inputs, *hidden, num_outputs)
    if any(width < 1 for width in widths):
        raise ValueError(f"hidden layer widths must be whole numbers >= 1, got {tuple(hidden)}.")
    shapes = list(pairwise(widths))
    blank = [(jnp.zeros(shape), jnp.zeros(shape[1])) for shape in shapes]
    flat, unravel = ravel_pytree(blank)
    scaled = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    def init(key: Key[Array, ""]) -> Float[Array, " d"]:
        keys = jax.random.split(key, len(shapes))
        return ravel_pytree([(scaled(k, s, flat.dtype), jnp.zeros(s[1])) for k, s in zip(keys, shapes, strict=True)])[0]

    def apply(params: Float[Array, " d"], value: Float[Array, " n"]) -> Float[Array, " m"]:
        for layer, (weight, bias) in enumerate(unravel(params)):
            value = (ACTIVATIONS[activation](value) if layer else value) @ weight + bias
        return value

    return Network(init, apply, flat.size)
