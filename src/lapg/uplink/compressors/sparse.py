"""A few entries of a vector, and where they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lapg.types import Buffer, Compressor, Scalar, check_length, is_concrete, tree_bits
from lapg.uplink.compressors.codes import Reader, pack, positions_length, whole_bytes, write_positions
from lapg.uplink.compressors.rounded import quantise


def top_k(fraction: Scalar = 0.05, *, bits: int | None = None) -> Compressor:
    """The k = ⌈fraction · d⌉ entries of largest magnitude: ‖x − C(x)‖² <= (1 − k/d) ‖x‖². Entries equal to the k-th travel too, zeros never.

    Positions as in `lapg.uplink.compressors.codes`, about log₂(d/k) + 1.5 bits each. As an array the message has d entries, so that the fraction
    may be traced.

    Args:
      fraction: in (0, 1].
      bits: None sends entries at their own precision; 2..16 rounds them to the nearest of 2^bits − 1 levels (`quantise`).
    Raises:
      ValueError: fraction outside (0, 1], bits out of range.
    Source: Stich, Cordonnier, Jaggi, arXiv 1809.07599.
    """
    if is_concrete(fraction) and not 0 < float(fraction) <= 1:
        raise ValueError(f"top_k(fraction=...) must lie in (0, 1], got {float(fraction)}; 1 sends every entry.")

    def choose(vector: Float[Array, " d"]) -> Float[Array, " d"]:
        most = 2 * vector.size + 64 + tree_bits(vector)  # see `positions_length`; equal entries may all travel
        check_length("a message of compressor 'top_k'", vector.size, most if bits is None else 0)
        # the product is rounded, and 0.1 · 30 must not become 4
        count = jnp.clip(jnp.ceil(fraction * vector.size * (1 - 1e-6)), 1, vector.size).astype(jnp.int32)
        # compiled code takes subnormal numbers for 0, and the encoder must not differ
        least = jnp.maximum(_smallest_kept(jnp.abs(vector), count), jnp.finfo(vector.dtype).tiny)
        return jnp.where(jnp.abs(vector) >= least, vector, 0)

    if bits is not None:
        inner = quantise(bits)
        return inner._replace(compress=lambda key, vector: inner.compress(key, choose(vector)))

    def encode(message: Any) -> bytes:
        values = np.asarray(message)
        return pack(write_positions(values != 0)) + values[values != 0].tobytes()

    def num_bits(message: Float[Array, " d"]) -> Int[Array, ""]:
        found = message != 0
        values = 8 * message.dtype.itemsize * jnp.sum(found, dtype=jnp.int32)
        return whole_bytes(positions_length(found)) + values

    return Compressor(
        compress=lambda key, vector: choose(vector),
        decompress=lambda message: message,
        num_bits=num_bits,
        encode=encode,
        decode=_scattered,
    )


def lossless() -> Compressor:
    """Those entries of which a bit is set, as position and value, or the vector itself where that is no longer: nothing is lost, −0 included.

    Of a vector of zeros that is one byte. Positions as in `top_k`. There is no flag: a message as long as the vector is the vector.

    Source: lossless sparse patches, arXiv 2602.03839; there of parameters, here of what they are stepped with (`lapg.downlink.replicated`) or of uploads.
    """

    def sparse_length(vector: Float[Array, " d"]) -> Int[Array, ""]:
        width = 8 * vector.dtype.itemsize
        found = jax.lax.bitcast_convert_type(vector, jnp.dtype(f"uint{width}")) != 0
        return whole_bytes(positions_length(found)) + width * jnp.sum(found, dtype=jnp.int32)

    def compress(key: Any, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        # the sparse code is counted, too, where it is the longer one
        check_length("a message of compressor 'lossless'", vector.size, 2 * vector.size + 64 + tree_bits(vector))
        return vector

    def encode(message: Any) -> bytes:
        values = np.ascontiguousarray(message)
        found = values.view(f"u{values.itemsize}") != 0
        sparse = pack(write_positions(found)) + values[found].tobytes()
        return sparse if len(sparse) < values.nbytes else values.tobytes()

    def decode(raw: Buffer, like: Any) -> np.ndarray:
        return np.frombuffer(raw, like.dtype).reshape(like.shape) if len(raw) == like.nbytes else _scattered(raw, like)

    return Compressor(
        compress=compress,
        decompress=lambda message: message,
        num_bits=lambda message: jnp.minimum(sparse_length(message), tree_bits(message)),
        encode=encode,
        decode=decode,
        variance=lambda size: 0.0,
    )


def _scattered(raw: Buffer, like: Any) -> np.ndarray:
    """Zeros but for values, which follow their positions."""
    values = np.zeros(like.shape, like.dtype)
    mask = Reader(raw).positions(values.size)
    values[mask] = np.frombuffer(raw[len(raw) - int(mask.sum()) * values.itemsize :], like.dtype)
    return values


def _smallest_kept(magnitudes: Float[Array, " d"], count: Int[Array, ""]) -> Float[Array, ""]:
    """The ``count``-th largest.

    Floats that are not negative are ordered like their bit patterns, so it is found bit by bit. That is exact, takes a traced count, and is some ten
    times cheaper on a CPU than sorting.
    """
    num_bits = 8 * magnitudes.dtype.itemsize
    keys = jax.lax.bitcast_convert_type(magnitudes, jnp.dtype(f"int{num_bits}"))

    def refine(step: Int[Array, ""], found: Int[Array, ""]) -> Any:
        higher = found | jnp.left_shift(jnp.ones((), keys.dtype), (num_bits - 2 - step).astype(keys.dtype))
        return jnp.where(jnp.sum(keys >= higher, dtype=jnp.int32) >= count, higher, found)

    found = jax.lax.fori_loop(0, num_bits - 1, refine, jnp.zeros((), keys.dtype))
    return jax.lax.bitcast_convert_type(found, magnitudes.dtype)
