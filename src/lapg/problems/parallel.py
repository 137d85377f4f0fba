"""Parallel RL (5): learners that differ in named quantities, all by one knob."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Key

from lapg.problems.builders import make_tasks, spread
from lapg.types import Task

SCALE_FACTOR = 4.0


def parallel_tasks(
    num_learners: int,
    scales: Sequence[float] | None,
    heterogeneity: float,
    key: Key[Array, ""],
    **quantities: tuple[ArrayLike, float],
) -> Task:
    """Tasks whose ``extra`` has, for every named quantity, what each of the M learners has of it (leading axis M).

    Learner m has nominal · factor^(h·u_m), each quantity with an order of the u_m of its own (`lapg.problems.builders.spread`).

    Args:
      scales: c_m > 0, one per learner; None spreads them too, around 1 by a factor of 4.
      heterogeneity: h; 0 gives everybody the nominal values and scale 1.
      key: draws the orders.
      quantities: name → (nominal value, a number or an array; factor).
    Raises:
      ValueError: heterogeneity is negative or not finite, or scales do not fit.
    """
    key_scales, *keys = jax.random.split(key, len(quantities) + 1)
    extra = {
        name: jnp.multiply.outer(spread(num_learners, heterogeneity, factor, key), jnp.asarray(nominal, float))
        for key, (name, (nominal, factor)) in zip(keys, quantities.items(), strict=True)
    }
    if scales is None:
        scales = spread(num_learners, heterogeneity, SCALE_FACTOR, key_scales).tolist()
    return make_tasks(num_learners, scales, extra)


def quantities_of(
    owner: str, env: str, settings: Mapping[str, Any], vary: Mapping[str, float] | None
) -> dict[str, tuple[ArrayLike, float]]:
    """Quantities for `parallel_tasks` of an outside environment: its own real parameters by name, each with the factor that ``vary`` gives it.

    Raises:
      ValueError: the environment has no such parameter, or it is no real number or array of them; a factor is not positive and finite.
    """
    real = {name: value for name, value in settings.items() if _real(value)}
    for name, factor in (vary or {}).items():
        if name not in real:
            known = ", ".join(sorted(real)) or "none"
            raise ValueError(f"{owner}(vary=...) must name real parameters of {env!r} ({known}), got {name!r}.")
        if not 0 < factor < math.inf:
            raise ValueError(f"{owner}(vary=...) must have factors > 0 and finite, got {factor} for {name!r}.")
    return {name: (real[name], float(factor)) for name, factor in (vary or {}).items()}


def _real(value: Any) -> bool:
    return isinstance(value, float | np.ndarray | jax.Array) and np.issubdtype(np.asarray(value).dtype, np.floating)
