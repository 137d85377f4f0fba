"""Nothing is lost."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from lapg.types import Compressor


def identity() -> Compressor:
    """The innovation itself, at its own precision: 32·d or 64·d bits."""

    def decode(raw: bytes, like: Any) -> np.ndarray:
        return np.frombuffer(raw, like.dtype).reshape(like.shape)

    return Compressor(
        compress=lambda key, innovation: innovation,
        decompress=lambda message: message,
        num_bits=lambda message: jnp.int32(8 * message.size * message.dtype.itemsize),
        encode=lambda message: np.asarray(message).tobytes(),
        decode=decode,
        unbiased=True,
    )
