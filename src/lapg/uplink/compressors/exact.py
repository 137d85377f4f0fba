"""Nothing is lost; and what to make of a compressor where nothing may be, or not of some entries, or where messages have weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lapg.types import Buffer, Compressor, Weighted, check_length, tree_bits


def identity() -> Compressor:
    """The innovation itself, at its own precision: 32·d or 64·d bits.

    As every compressor's, its messages are refused (ValueError) where d = 0, or where they may be longer than `lapg.types.MOST_BITS`.
    """

    def compress(key: Any, innovation: Any) -> Any:
        check_length("a message of compressor 'none'", innovation.size, tree_bits(innovation))
        return innovation

    def decode(raw: Buffer, like: Any) -> np.ndarray:
        return np.frombuffer(raw, like.dtype).reshape(like.shape)

    return Compressor(
        compress=compress,
        decompress=lambda message: message,
        num_bits=lambda message: jnp.int32(8 * message.size * message.dtype.itemsize),
        encode=lambda message: np.asarray(message).reshape(-1).view(np.uint8).data,
        decode=decode,
        variance=lambda size: 0.0,
    )


def weighted(compressor: Compressor) -> Compressor:
    """Messages behind a number by which the controller multiplies them; behind 0 there is none, and what it decodes to is 0 (`lapg.types.Weighted`)."""

    def decode(raw: Buffer, like: Weighted) -> Weighted:
        width = like.weight.dtype.itemsize
        weight = np.frombuffer(raw[:width], like.weight.dtype)[0]
        if weight != 0:
            return Weighted(np.asarray(weight), compressor.decode(raw[width:], like.message))
        if len(raw) > width:
            raise ValueError(f"nothing follows weight 0, got {len(raw) - width} bytes.")
        nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like.message)
        return Weighted(np.asarray(weight), nothing)

    def decompress(message: Weighted) -> Float[Array, " d"]:
        vector = compressor.decompress(message.message)
        return jnp.where(message.weight == 0, 0, message.weight * vector)

    def num_bits(message: Weighted) -> Any:
        return tree_bits(message.weight) + jnp.where(message.weight == 0, 0, compressor.num_bits(message.message))

    def encode(message: Weighted) -> bytes:
        weight = np.asarray(message.weight)
        return weight.tobytes() + (bytes(compressor.encode(message.message)) if weight != 0 else b"")

    return Compressor(
        compress=lambda key, vector: Weighted(jnp.ones((), vector.dtype), compressor.compress(key, vector)),
        decompress=decompress,
        num_bits=num_bits,
        encode=encode,
        decode=decode,
        variance=compressor.variance,
    )


def contractive(compressor: Compressor) -> Compressor:
    """An unbiased compressor shrunk by 1/(1 + ω), so that E‖x − C(x)‖² <= (1 − 1/(1 + ω)) ‖x‖²; a biased one as it is.

    Memories that keep what a message leaves out need that: with ω > 1 their residual would grow.

    Source: Beznosikov, Horváth, Richtárik, Safaryan, arXiv 2002.12410.
    """
    variance = compressor.variance
    if variance is None:
        return compressor

    def decompress(message: Any) -> Any:
        vector = compressor.decompress(message)
        return vector / (1 + variance(vector.size))

    return compressor._replace(decompress=decompress, variance=None)


def partly(compressor: Compressor, whole: int) -> Compressor:
    """A compressor of all but the last ``whole`` entries, which travel as they are: statistics, of another size than what shares a scale.

    An unbiased one is shrunk (`contractive`), so that nothing needs to shrink the entries that are exact.
    """
    inner, exact = contractive(compressor), identity()

    def compress(key: Any, innovation: Any) -> Any:
        return inner.compress(key, innovation[:-whole]), exact.compress(key, innovation[-whole:])

    def decode(raw: Buffer, like: Any) -> Any:
        at = len(raw) - like[1].size * like[1].dtype.itemsize
        return inner.decode(raw[:at], like[0]), exact.decode(raw[at:], like[1])

    return Compressor(
        compress=compress,
        decompress=lambda message: jnp.append(inner.decompress(message[0]), message[1]),
        num_bits=lambda message: inner.num_bits(message[0]) + exact.num_bits(message[1]),
        encode=lambda message: bytes(inner.encode(message[0])) + bytes(exact.encode(message[1])),
        decode=decode,
        variance=compressor.variance if compressor.variance is not None and compressor.variance(1) == 0 else None,
    )
