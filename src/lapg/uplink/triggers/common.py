"""What triggers share."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, spread evenly however many there are."""


def golden_fraction(index: Int[Array, ""]) -> Float[Array, ""]:
    """Learner m's place in an order that spreads any number of learners evenly over [0, 1): the fractional part of (m + 1)(√5 − 1)/2."""
    return (index + 1) * GOLDEN % 1


def check_max_age(owner: str, max_age: int | None) -> None:
    """Raises a ValueError unless it is None or at least 1."""
    if max_age is not None and max_age < 1:
        raise ValueError(f"{owner}(max_age=...) must be >= 1 or none, got {max_age}; 1 uploads every round.")


def overdue(age: Int[Array, ""], max_age: int | None) -> Bool[Array, ""]:
    """Whether the learner has been silent for so long that it uploads in any case."""
    return jnp.bool_(False) if max_age is None else age >= max_age
