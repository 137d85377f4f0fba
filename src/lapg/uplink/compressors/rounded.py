"""Vectors rounded to a few levels, with one scale per block of entries."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lapg.types import Buffer, Compressor, check_length
from lapg.uplink.compressors.codes import (
    Reader,
    gamma_length,
    pack,
    positions_length,
    whole_bytes,
    write_bits,
    write_gamma,
    write_positions,
)

ScaleBits = Literal[16] | None
DENSE, FIXED, ELIAS = range(3)
"""How codes travel: all of them in equal bits; or the positions of those that are not 0, with signs and with magnitudes in equal bits or γ-coded."""


class Rounded(eqx.Module):
    """Entry i is scale · code_i / levels, with the scale of its block."""

    codes: Int[Array, " d"]
    scales: Float[Array, " blocks"]


def quantise(
    bits: int = 4, *, block: int | None = None, even: bool = False, scale_bits: ScaleBits = None
) -> Compressor:
    """The nearest of equally spaced values between −R and R, R the block's largest magnitude.

    2^bits − 1 values with 0 among them, 2R/(2^bits − 2) apart, so that small entries vanish and no error exceeds its entry, nor
    R/(2^bits − 2): ‖x − C(x)‖ <= ‖x‖. The encoder takes the shortest of three codes, message by message (`DENSE`, `FIXED`, `ELIAS`).

    Args:
      bits: b, 2..16.
      block: entries that share a scale, the last block may be shorter; None is one scale for all.
      even: 2^bits values without 0, 2R/(2^bits − 1) apart, the grid of LAQ; 1 bit is allowed then. Small entries become larger.
      scale_bits: 16 sends scales as bfloat16, rounded up; None at the vector's own precision.
    Raises:
      ValueError: bits or block out of range.
    Source: the even grid: Sun, Chen, Giannakis, Yang, arXiv 1909.07588, eq. (5), (6).
    """
    low = 1 if even else 2
    if not low <= bits <= 16:
        raise ValueError(f"quantise(bits=...) must lie in {low}..16, got {bits}; compressors.sign() has 1 bit.")
    levels = 2**bits - 1 if even else 2 ** (bits - 1) - 1

    def nearest(key: Key[Array, ""], parts: Float[Array, "blocks n"]) -> Any:
        return 2 * jnp.floor((parts + levels + 1) / 2) - levels if even else jnp.round(parts)

    def size(parts: Float[Array, "blocks n"], counts: np.ndarray) -> Any:
        return jnp.max(jnp.abs(parts), 1)

    return _rounded("quantise", levels, size, nearest, block, scale_bits, even=even)


def sign(*, block: int | None = None, scale_bits: ScaleBits = None) -> Compressor:
    """One bit an entry: ± the block's mean magnitude; ‖x − C(x)‖² = ‖x‖² − ‖x‖₁²/n in a block of n.

    Args:
      block, scale_bits: as in `quantise`.
    Raises:
      ValueError: block out of range.
    Source: Bernstein et al., arXiv 1802.04434; with this scale and error feedback Karimireddy et al., arXiv 1901.09847.
    """

    def size(parts: Float[Array, "blocks n"], counts: np.ndarray) -> Any:
        return jnp.sum(jnp.abs(parts) / counts.astype(parts.dtype)[:, None], 1)

    def nearest(key: Key[Array, ""], parts: Float[Array, "blocks n"]) -> Any:
        return jnp.where(parts < 0, -1, 1)

    return _rounded("sign", 1, size, nearest, block, scale_bits, even=True)


def qsgd(levels: int = 7, *, block: int | None = None, scale_bits: ScaleBits = None) -> Compressor:
    """Unbiased stochastic rounding: s|x_i|/‖x‖ up or down to a whole number; E‖C(x) − x‖² <= min(n/s², √n/s) ‖x‖² in a block of n.

    Args:
      levels: s, 1..32767; 1 is ternary.
      block, scale_bits: as in `quantise`.
    Raises:
      ValueError: levels or block out of range.
    Source: Alistarh et al., arXiv 1610.02132, Section 3; Elias' γ in place of their ω code.
    """
    if not 1 <= levels <= 2**15 - 1:
        raise ValueError(f"qsgd(levels=...) must lie in 1..32767, got {levels}; compressors.identity() rounds nothing.")

    def size(parts: Float[Array, "blocks n"], counts: np.ndarray) -> Any:
        largest = jnp.max(jnp.abs(parts), 1, keepdims=True)  # squares of huge or tiny entries are not numbers
        relative = jnp.where(largest > 0, parts / largest, 0)
        return largest[:, 0] * jnp.sqrt(jnp.sum(relative * relative, 1))

    def random(key: Key[Array, ""], parts: Float[Array, "blocks n"]) -> Any:
        return jnp.sign(parts) * jnp.floor(jnp.abs(parts) + jax.random.uniform(key, parts.shape, parts.dtype))

    def variance(length: int) -> float:
        n = min(block or length, length)
        return min(n / levels**2, n**0.5 / levels)

    return _rounded("qsgd", levels, size, random, block, scale_bits, even=False)._replace(variance=variance)


def _rounded(
    owner: str,
    levels: int,
    size: Callable[..., Any],
    rounding: Callable[..., Any],
    block: int | None,
    scale_bits: ScaleBits,
    *,
    even: bool,
) -> Compressor:
    """Codes are whole numbers within ±levels, odd ones where the grid is ``even`` and has no 0."""
    if block is not None and block < 1:
        raise ValueError(f"{owner}(block=...) must be >= 1 or none, got {block}.")
    if scale_bits not in (None, 16):
        raise ValueError(f"{owner}(scale_bits=...) must be 16 or none, got {scale_bits}.")
    stride = 2 if even else 1
    width, magnitude_width = (2 * levels // stride).bit_length(), (levels - 1).bit_length()

    most_width = width if even else max(16, 3 + max(width, 2 * levels.bit_length() - 1))
    # at most 2 for a position and 1 for a sign, then the magnitude; below 16, `codes` could not count positions

    def compress(key: Key[Array, ""], vector: Float[Array, " d"]) -> Rounded:
        blocks = -(-vector.size // (block or max(1, vector.size)))
        most = most_width * vector.size + 80 + 8 * blocks * vector.dtype.itemsize
        check_length(f"a message of compressor {owner!r}", vector.size, most)
        length = min(block or vector.size, vector.size)
        parts = jnp.pad(vector, (0, -vector.size % length)).reshape(-1, length)
        counts = np.minimum(length, vector.size - length * np.arange(parts.shape[0]))
        scales = size(parts, counts)
        if scale_bits:
            scales = jnp.minimum(scales * (1 + 2**-7), float(jnp.finfo(jnp.bfloat16).max))
            scales = scales.astype(jnp.bfloat16).astype(vector.dtype)
        relative = parts / jnp.where(scales > 0, scales, jnp.inf)[:, None]
        codes = jnp.clip(rounding(key, relative * levels), -levels, levels)
        return Rounded(codes.astype(jnp.int32).ravel()[: vector.size], scales)

    def decompress(message: Rounded) -> Float[Array, " d"]:
        length = min(block or message.codes.size, message.codes.size)
        scales = jnp.repeat(message.scales, length)[: message.codes.size]
        return scales * (message.codes.astype(scales.dtype) / levels)

    def lengths(message: Rounded) -> Any:
        dense = width * message.codes.size
        if even:
            return jnp.int32(dense)[None]
        found = message.codes != 0
        magnitudes = jnp.abs(message.codes)
        sparse = positions_length(found) + jnp.sum(found, dtype=jnp.int32)
        elias = jnp.sum(jnp.where(found, gamma_length(jnp.maximum(1, magnitudes)), 0), dtype=jnp.int32)
        fixed = magnitude_width * jnp.sum(found, dtype=jnp.int32)
        return 2 + jnp.stack([jnp.int32(dense), sparse + fixed, sparse + elias])

    def scale_size(message: Rounded) -> int:
        return message.scales.size * (2 if scale_bits else message.scales.dtype.itemsize)

    def encode(message: Rounded) -> bytes:
        codes, scales = np.asarray(message.codes), np.asarray(message.scales)
        head = scales.astype(jnp.bfloat16).tobytes() if scale_bits else scales.tobytes()
        dense = write_bits((codes + levels) // stride, width)
        if even:
            return head + pack(dense)
        found = codes[codes != 0]
        sparse = [write_positions(codes != 0), (found < 0).astype(np.uint8)]
        bodies = [
            [dense],
            [*sparse, write_bits(np.abs(found) - 1, magnitude_width)],
            [*sparse, write_gamma(np.abs(found))],
        ]
        written = [np.concatenate([write_bits([kind], 2), *body]) for kind, body in enumerate(bodies)]
        return head + pack(min(written, key=len))

    def decode(raw: Buffer, like: Rounded) -> Rounded:
        split, num = scale_size(like), like.codes.size
        kind = jnp.bfloat16 if scale_bits else like.scales.dtype
        scales = np.frombuffer(raw[:split], kind).astype(like.scales.dtype)
        reader = Reader(raw[split:])
        how = DENSE if even else int(reader.numbers(1, 2)[0])
        if how == DENSE:
            codes = reader.numbers(num, width) * stride - levels
        else:
            codes = np.zeros(num, np.int64)
            mask = reader.positions(num)
            count = int(mask.sum())
            negative = reader.numbers(count, 1)
            sizes = reader.gamma(count) if how == ELIAS else 1 + reader.numbers(count, magnitude_width)
            codes[mask] = np.where(negative, -sizes, sizes)
        return Rounded(jnp.asarray(codes, jnp.int32), jnp.asarray(scales))

    return Compressor(
        compress=compress,
        decompress=decompress,
        num_bits=lambda message: 8 * scale_size(message) + whole_bytes(jnp.min(lengths(message))),
        encode=encode,
        decode=decode,
    )
