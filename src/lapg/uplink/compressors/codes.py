"""Whole numbers and positions as bits: their lengths inside the compiled code, and the bits themselves on the host.

Every code is a number written in more bits than it has: the zeros in front say how to read it. Elias' γ writes n >= 1 in 2⌊log₂ n⌋ + 1 bits. Rice's
code with parameter r writes n >= 0 as ⌊n/2^r⌋ zeros, a one, and the last r bits of n. Positions are a γ-coded count and the Rice-coded gaps
between them, with r from the mean gap: r = 0 is a bitmap, and large gaps need about log₂(mean gap) + 1.5 bits each, less than an index.

Source: Elias, IEEE Trans. Inf. Theory 21 (1975); Rice and Plaunt, IEEE Trans. Commun. 19 (1971).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from lapg.types import Buffer


def whole_bytes(num_bits: Any) -> Any:
    """The next multiple of 8."""
    return -(-num_bits // 8) * 8


def gamma_length(numbers: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Length of the γ code of numbers >= 1."""
    return 2 * (31 - jax.lax.clz(numbers)) + 1


def positions_length(mask: Bool[Array, " d"]) -> Int[Array, ""]:
    """Length of `write_positions`; at most 2d + 64."""
    count, index = jnp.sum(mask, dtype=jnp.int32), jnp.arange(mask.size, dtype=jnp.int32)
    parameter = 31 - jax.lax.clz(jnp.maximum(1, _golomb(mask.size, jnp.maximum(1, count))))
    last = jax.lax.associative_scan(jnp.maximum, jnp.where(mask, index, -1))
    gaps = index - 1 - jnp.concatenate([jnp.full(1, -1, jnp.int32), last[:-1]])
    gaps_length = jnp.sum(jnp.where(mask, gaps >> parameter, 0), dtype=jnp.int32)
    return gamma_length(count + 1) + gaps_length + count * (1 + parameter)


def _golomb(size: int, count: Any) -> Any:
    """Rice's parameter is the binary logarithm of 0.69 of the mean gap, Golomb's rule."""
    return (size - count) * 11 // (16 * count)


def write_bits(numbers: Any, lengths: Any) -> np.ndarray:
    """Each number in its own number of bits, high bits first: one array of zeros and ones."""
    numbers, lengths = np.broadcast_arrays(np.asarray(numbers, np.int64), np.asarray(lengths, np.int64))
    below = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
    return (np.repeat(numbers, lengths) >> np.minimum(below, 62) & 1).astype(np.uint8)


def write_gamma(numbers: Any) -> np.ndarray:
    """Numbers >= 1 by Elias' γ code."""
    return write_bits(numbers, 2 * (_bit_lengths(numbers) - 1) + 1)


def write_positions(mask: np.ndarray) -> np.ndarray:
    """Where the mask is true."""
    places = np.flatnonzero(mask)
    gaps, parameter = np.diff(places, prepend=-1) - 1, _parameter(mask.size, places.size)
    codes = write_bits(1 << parameter | gaps & (1 << parameter) - 1, (gaps >> parameter) + 1 + parameter)
    return np.concatenate([write_gamma([places.size + 1]), codes])


def pack(bits: np.ndarray) -> bytes:
    """Bits to bytes; the last byte is filled up with zeros."""
    return np.packbits(bits).tobytes()


class Reader:
    """Reads back, in the same order, what was written."""

    def __init__(self, raw: Buffer) -> None:
        self.bits = np.unpackbits(np.frombuffer(raw, np.uint8))
        self.ones = np.flatnonzero(self.bits)
        self.at = 0

    def numbers(self, count: int, width: int) -> np.ndarray:
        """``count`` numbers of ``width`` bits each."""
        block = self.bits[self.at : self.at + count * width].reshape(count, width)
        self.at += count * width
        return block @ (1 << np.arange(width, dtype=np.int64)[::-1])

    def _code(self, parameter: int | None) -> tuple[int, int]:
        """The zeros in front, and the number from its first one on: with as many bits after it as ``parameter`` says, or as there are zeros."""
        start, first = self.at, int(self.ones[np.searchsorted(self.ones, self.at)])
        self.at = first
        zeros = first - start
        return zeros, int(self.numbers(1, 1 + (zeros if parameter is None else parameter))[0])

    def gamma(self, count: int) -> np.ndarray:
        """``count`` numbers by Elias' γ code."""
        return np.array([self._code(None)[1] for _ in range(count)], np.int64)

    def positions(self, size: int) -> np.ndarray:
        """The mask of `write_positions`."""
        count = int(self.gamma(1)[0]) - 1
        parameter = _parameter(size, count)
        codes = np.array([self._code(parameter) for _ in range(count)], np.int64).reshape(count, 2)
        gaps = (codes[:, 0] << parameter) + (codes[:, 1] - (1 << parameter))
        mask = np.zeros(size, bool)
        mask[np.cumsum(gaps + 1) - 1] = True
        return mask


def _bit_lengths(numbers: Any) -> np.ndarray:
    return np.frexp(np.asarray(numbers, float))[1]


def _parameter(size: int, count: int) -> int:
    return max(1, _golomb(size, max(1, count))).bit_length() - 1
