"""Checks of a compressor of your own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg.checks.common import Z_LIMIT, compiled, repeats, signatures, vector, z_scores
from lapg.problems.checklist import Checklist, CheckResult, describe, equal, need
from lapg.types import Compressor


def check_compressor(
    compressor: Compressor, *, size: int = 37, num_draws: int = 2000, seed: int = 0, quick: bool = False
) -> list[CheckResult]:
    """Checks that messages have fixed shapes, are as long as they say, survive the wire, and lose no more than promised.

    Args:
      size: d.
      num_draws: messages of one vector, for the mean and the error of what is drawn at random.
      quick: functions, and one message: its length and its way over the wire.
    """
    checks = Checklist()
    checks.run("functions", signatures, compressor)
    if quick:
        message = checks.run("messages", _message, compressor, _vectors(size, seed)["random"]) if checks.sound else None
        if message is not None:
            checks.run("lengths", _lengths, compressor, message)
            checks.run("wire", _wire, compressor, message)
        return checks.results
    messages = checks.run("messages", _messages, compressor, _vectors(size, seed)) if checks.sound else None
    if messages is not None:
        checks.run("lengths", _lengths, compressor, messages)
        checks.run("wire", _wire, compressor, messages)
        checks.run("what is lost", _loss, compressor, _vectors(size, seed)["random"], num_draws, seed)
    return checks.results


def _vectors(size: int, seed: int) -> dict[str, Any]:
    random = jax.random.normal(jax.random.key(seed), (size,))
    spread = random * 10.0 ** jnp.linspace(-6, 6, size).astype(random.dtype)
    first = jnp.zeros(size, random.dtype).at[0].set(1)
    return {"random": random, "zero": 0 * random, "one entry": first, "equal": jnp.ones_like(random), "spread": spread}


def _message(compressor: Compressor, x: Any) -> dict[str, Any]:
    """The message of one vector."""
    message = compiled("compress", compressor.compress, jax.random.key(1), x)
    vector("decompress's result", compiled("decompress", compressor.decompress, message), x)
    return {"random": message}


def _messages(compressor: Compressor, vectors: dict[str, Any]) -> dict[str, Any]:
    """One message of each vector."""
    repeats("compress", compressor.compress, jax.random.key(1), vectors["random"])
    compress, decompress = jax.jit(compressor.compress), jax.jit(compressor.decompress)
    messages = {name: compress(jax.random.key(1), x) for name, x in vectors.items()}
    shapes = {describe(message) for message in messages.values()}
    need(
        len(shapes) == 1, f"compress must make messages of one structure, shape and dtype, got {' and '.join(shapes)}."
    )
    for name, message in messages.items():
        decoded = decompress(message)
        vector("decompress's result", decoded, vectors[name])
        need(np.isfinite(decoded).all(), f"decompress must bring finite numbers of a finite vector ({name}).")
    need(
        not np.any(decompress(messages["zero"])),
        "the message of a zero vector must stand for zeros; look for a division by the largest entry.",
    )
    both = jax.vmap(lambda x: compressor.decompress(compressor.compress(jax.random.key(1), x)))
    alone = decompress(messages["random"])
    need(
        np.allclose(both(jnp.stack([vectors["random"]] * 2))[1], alone, 1e-5, 1e-6),
        "compress and decompress must do the same under jax.vmap.",
    )
    return messages


def _lengths(compressor: Compressor, messages: dict[str, Any]) -> None:
    num_bits = jax.jit(compressor.num_bits)
    for name, message in messages.items():
        bits = np.asarray(num_bits(message))
        need(
            bits.shape == () and bits.dtype.kind == "i",
            f"num_bits must be one whole number of int32, got {describe(bits)}.",
        )
        real = 8 * len(compressor.encode(jax.tree.map(np.asarray, message)))
        need(bits == real, f"num_bits must be 8 · len(encode(message)), {real} of the vector '{name}', got {bits}.")


def _wire(compressor: Compressor, messages: dict[str, Any]) -> None:
    for name, message in messages.items():
        plain = jax.tree.map(np.asarray, message)
        blank = jax.tree.map(np.zeros_like, plain)
        again = compressor.decode(bytes(compressor.encode(plain)), blank)
        need(
            describe(jax.tree.map(np.asarray, again)) == describe(plain) and equal(again, plain),
            f"decode(encode(message), like) must be the message, to the bit; that of the vector '{name}' is not.",
        )


def _loss(compressor: Compressor, vector: Any, num_draws: int, seed: int) -> None:
    """An unbiased compressor has the mean and the variance that it claims; another one is no further off than sending nothing."""
    keys = jax.random.split(jax.random.key(seed), num_draws)
    found = np.asarray(jax.jit(jax.vmap(lambda key: compressor.decompress(compressor.compress(key, vector))))(keys))
    size, errors = float(jnp.sum(vector**2)), ((found - np.asarray(vector)) ** 2).sum(1)
    least = errors.mean() - Z_LIMIT * errors.std() / num_draws**0.5
    if compressor.variance is None:
        need(
            least <= size * (1 + 1e-5),
            f"a biased compressor must not lose more than the whole vector, E‖C(x) − x‖² <= ‖x‖², or residuals grow; got {errors.mean() / size:.3g} ‖x‖².",
        )
        return
    off = z_scores(found, vector).max()
    need(
        off <= Z_LIMIT,
        f"the mean of C(x) must be x where variance is given, got one that is {off:.1f} standard errors off; leave variance out if C is biased.",
    )
    bound = compressor.variance(vector.size)
    need(
        least <= bound * size * (1 + 1e-5) + 1e-6 * size,
        f"variance must bound E‖C(x) − x‖² / ‖x‖², got {bound:.3g} where it is {errors.mean() / size:.3g}.",
    )
