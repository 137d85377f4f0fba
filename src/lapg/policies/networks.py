"""Networks whose parameters are one flat vector; policies and critics share them."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

ACTIVATIONS: dict[str, Callable[..., Any]] = {"relu": jax.nn.relu, "softplus": jax.nn.softplus, "tanh": jnp.tanh}


Initialisation = Literal["normal", "orthogonal"]
"""``normal``: variance 1/fan-in · ``orthogonal``: times √2, and times 0.01 in the last layer, as is usual for PPO. Biases start at 0."""
OUTPUT_GAIN = 0.01


class Network(NamedTuple):
    """``init: key → θ`` · ``apply: θ, input → output`` · ``num_params``: d · ``shapes`` of the arrays that θ consists of (`lapg.types.Policy`)."""

    init: Callable[..., Any]
    apply: Callable[..., Any]
    num_params: int
    shapes: tuple[tuple[int, ...], ...] | None = None


def mlp(
    num_inputs: int,
    hidden: Sequence[int],
    num_outputs: int,
    activation: str = "relu",
    initialisation: Initialisation = "normal",
) -> Network:
    """Layers of the given widths; the output is linear.

    Raises:
      ValueError: unknown activation or initialisation, or a layer width below 1.
    """
    function = _activation(activation)
    widths = (num_inputs, *hidden, num_outputs)
    if any(width < 1 for width in widths):
        raise ValueError(f"hidden layer widths must be whole numbers >= 1, got {tuple(hidden)}.")

    def apply(layers: PyTree, value: Float[Array, " n"]) -> Float[Array, " m"]:
        for layer, (weight, bias) in enumerate(layers):
            value = (function(value) if layer else value) @ weight + bias
        return value

    return _layered(list(pairwise(widths)), apply, initialisation)


def conv(
    shape: tuple[int, ...],
    num_outputs: int,
    *,
    channels: Sequence[int] = (8, 16),
    kernel: int = 3,
    stride: int = 2,
    hidden: Sequence[int] = (32,),
    activation: str = "relu",
    initialisation: Initialisation = "normal",
) -> Network:
    """Convolutions of an image [H, W, C], each followed by the activation, then fully connected layers; the output is linear.

    Args:
      channels: of every convolution's output.
      kernel, stride: in both directions, of every convolution; borders are padded with zeros, so that H and W shrink by the stride alone.
      hidden: widths of the layers after the convolutions.
    Raises:
      ValueError: the input is no image, a size is below 1, unknown activation or initialisation.
    """
    function = _activation(activation)
    if len(shape) != 3:
        raise ValueError(f"conv(...) needs observations that are images [H, W, C], got shape {shape}; use mlp.")
    if min((*channels, *hidden, kernel, stride)) < 1:
        raise ValueError(
            f"conv(channels, hidden, kernel, stride) must be whole numbers >= 1, got {tuple(channels)}, {tuple(hidden)}, {kernel}, {stride}."
        )
    height, width = (math.ceil(size / stride ** len(channels)) for size in shape[:2])
    depths = (shape[2], *channels)
    filters = [(kernel, kernel, before, after) for before, after in pairwise(depths)]
    dense = list(pairwise((height * width * depths[-1], *hidden, num_outputs)))

    def apply(layers: PyTree, image: Float[Array, "H W C"]) -> Float[Array, " m"]:
        value = image[None]
        for weight, bias in layers[: len(filters)]:
            value = jax.lax.conv_general_dilated(
                value, weight, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            value = function(value + bias[None, None, None])
        value = value.ravel()
        for layer, (weight, bias) in enumerate(layers[len(filters) :]):
            value = (function(value) if layer else value) @ weight + bias
        return value

    return _layered(filters + dense, apply, initialisation)


def shapes_of(weights: PyTree) -> tuple[tuple[int, ...], ...]:
    """The shapes of a tree's arrays, in the order in which ``ravel_pytree`` puts them one after the other."""
    return tuple(leaf.shape for leaf in jax.tree.leaves(weights))


def _activation(name: str) -> Callable[..., Any]:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}.")
    return ACTIVATIONS[name]


def _orthogonal(gain: float) -> Callable[..., Any]:
    """``key, shape, dtype → weights`` whose rows, or columns if these are fewer, are orthogonal and ``gain`` long; all axes but the last are one.

    By Gram-Schmidt, twice over: the QR decomposition of `jax.nn.initializers.orthogonal` can wait for ever for XLA's own threads in a larger compiled function.
    """

    def draw(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
        size, num_outputs = math.prod(shape[:-1]), shape[-1]
        normal = jax.random.normal(key, (max(size, num_outputs), min(size, num_outputs)), dtype)

        def add(done: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
            index, vector = column
            for _ in range(2):
                vector = vector - done @ (done.T @ vector)
            return done.at[:, index].set(vector / jnp.linalg.norm(vector)), None

        columns = jnp.arange(normal.shape[1]), normal.T
        found, _ = jax.lax.scan(add, jnp.zeros_like(normal), columns)
        return gain * (found if size >= num_outputs else found.T).reshape(shape)

    return draw


def _layered(shapes: Sequence[tuple[int, ...]], apply: Callable[..., Any], initialisation: str) -> Network:
    """A network of weights of these shapes, fan-out last, each with biases; ``apply: layers, input → output``."""
    if initialisation not in ("normal", "orthogonal"):
        raise ValueError(f"initialisation must be 'normal' or 'orthogonal', got {initialisation!r}.")
    blank = [(jnp.zeros(shape), jnp.zeros(shape[-1])) for shape in shapes]
    flat, unravel = ravel_pytree(blank)

    def weights(layer: int) -> Callable[..., Any]:
        if initialisation == "orthogonal":
            return _orthogonal(math.sqrt(2) if layer < len(shapes) - 1 else OUTPUT_GAIN)
        return jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    def init(key: Key[Array, ""]) -> Float[Array, " d"]:
        keys = jax.random.split(key, len(shapes))
        layers = [
            (weights(layer)(key, shape, flat.dtype), jnp.zeros(shape[-1]))
            for layer, (key, shape) in enumerate(zip(keys, shapes, strict=True))
        ]
        return ravel_pytree(layers)[0]

    return Network(init, lambda params, value: apply(unravel(params), value), flat.size, shapes_of(blank))
