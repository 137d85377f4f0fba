"""Small things that everybody needs: what is known before tracing, addresses of random numbers, sizes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

Scalar = int | float | Float[Array, ""]


def is_concrete(value: Any) -> bool:
    """Whether a value is concrete, so that a constructor can check it; tracers are not."""
    return not isinstance(value, Tracer)


# Purposes of random numbers: the first entry of every address.
SAMPLE, REPLY, SIGNAL, INIT, SCORE, PRESENCE, RELAY, ROLLOUT = range(8)
NOBODY = 2**32 - 1
"""The learner of an address that belongs to no learner: the controller, or a shared environment."""


def address(
    root: Key[Array, ""],
    purpose: int,
    learner: int | Int[Array, ""],
    round: int | Int[Array, ""],
    step: int | Int[Array, ""] = 0,
) -> Key[Array, ""]:
    """The key of one use of randomness; a pure function of where it is used, so no state holds a key.

    Every runtime, order of execution, restart and resume therefore sees the same samples. All four
    parts are always folded in: shortening an address would make two of them collide.
    """
    for part in (purpose, learner, round, step):
        root = jax.random.fold_in(root, part)
    return root


def tree_bits(tree: PyTree) -> int:
    """Length of a tree's leaves on the wire, each at its own precision; shapes suffice."""
    return sum(8 * leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


MOST_BITS = 2**31 - 2**20
"""Longest message. Compiled code counts bits in 32-bit numbers; what is left is room for headers and reports."""


def check_length(what: str, size: int, most_bits: int, remedy: str = "or fewer bits an entry (quantise, sign)") -> None:
    """Refuses vectors whose messages may be too long to be counted, and vectors without entries.

    Args:
      what: the message, as the user named it.
      size: d.
      most_bits: of any message of such a vector.
      remedy: what else there is to do than to take fewer parameters.
    Raises:
      ValueError: d = 0, or most_bits is more than `MOST_BITS`.
    """
    if size == 0:
        raise ValueError(
            f"{what} must have at least one entry, got a vector of length 0; use a policy or problem with parameters."
        )
    if most_bits > MOST_BITS:
        raise ValueError(
            f"{what} must have at most {MOST_BITS:,} bits, but with d = {size:,} it may take {most_bits:,}; "
            f"use at most {MOST_BITS * size // most_bits:,} parameters, {remedy}."
        )


def sum_rows(rows: Float[Array, "M d"], which: Bool[Array, " M"]) -> Float[Array, " d"]:
    """Σ_m rows[m] over those m. Long rows as a product, if at all: on CPUs XLA sums columns up to a hundred times slower than it multiplies."""
    if rows.shape[1] < 10_000:  # where a sum fuses with what is around it
        return jnp.sum(jnp.where(which[:, None], rows, 0), 0)
    return jax.lax.cond(
        jnp.any(which),
        lambda: jnp.matmul(which.astype(rows.dtype), rows, precision="highest"),
        lambda: jnp.zeros_like(rows[0]),
    )


def squared_norm(vector: Float[Array, " d"]) -> Float[Array, ""]:
    """‖x‖²."""
    return jnp.sum(vector * vector)


def weighed(weight: Scalar, value: Float[Array, ""]) -> Float[Array, ""]:
    """The product, and 0 at weight 0 even of an infinite value: a noise that is not known, an effective number of samples without end."""
    return jnp.where(weight == 0, 0, weight * value).astype(value.dtype)


def take_rows(batch: PyTree, rows: Int[Array, " n"]) -> PyTree:
    """Some entries of the leading axis N of a batch.

    Raises:
      ValueError: not all of its arrays have the same leading axis.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(batch)]
    if len({shape[:1] for shape in shapes} | {()}) != 2:
        raise ValueError(
            f"minibatches need batches whose arrays all have the leading axis N, got shapes {shapes}; give Estimator(part=...), or use minibatches 1."
        )
    return jax.tree.map(lambda leaf: leaf[rows], batch)


def select(condition: Bool[Array, ""], yes: PyTree, no: PyTree) -> PyTree:
    """``yes`` where the condition holds, else ``no``, leaf by leaf; keys included."""
    return jax.tree.map(lambda a, b: jax.lax.select(condition, a, b), yes, no)
