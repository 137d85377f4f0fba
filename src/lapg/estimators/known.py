"""Gradients of problems whose model is known."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from lapg.estimators.common import mean_and_noise, stateless
from lapg.types import Estimate, Estimator, Task


def exact(gradient: Callable[[Task, Float[Array, " d"]], Float[Array, " d"]]) -> Estimator:
    """The problem's own ∇L_m(θ), where it is known. The batch is ignored; the noise is 0."""

    def estimate(task: Task, params: Float[Array, " d"], batch: Any) -> Estimate:
        value = gradient(task, params)
        return Estimate(value, jnp.zeros((), value.dtype), jnp.full((), jnp.inf, value.dtype))

    return stateless(estimate)._replace(part=lambda batch, rows: batch)


def noisy(gradient: Callable[[Task, Float[Array, " d"]], Float[Array, " d"]]) -> Estimator:
    """∇L_m(θ) plus the batch's noise draws (see `lapg.problems.quadratic`). The same draws serve every θ."""

    def estimate(task: Task, params: Float[Array, " d"], batch: dict[str, Array]) -> Estimate:
        draws = batch["noise"]
        mean, noise = mean_and_noise(gradient(task, params)[None] + draws)
        return Estimate(mean, noise, jnp.full((), draws.shape[0], mean.dtype))

    return stateless(estimate)._replace(part=lambda batch, rows: batch | {"noise": batch["noise"][rows]})
