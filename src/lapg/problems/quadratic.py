"""Quadratic losses with known gradients and curvature: the laboratory of the triggers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt

from lapg.problems.protocol import at_least, make_tasks
from lapg.types import Model, Problem, Task


def quadratic(
    *,
    num_learners: int = 4,
    dimension: int = 20,
    scales: Sequence[float] | None = None,
    conditioning: float = 30.0,
    noise: float = 1.0,
    start: float = 3.0,
    shared_noise: bool = False,
    problem_seed: int | UInt[Array, ""] = 0,
) -> Problem:
    """L_m(θ) = ½ c_m (θ − b_m)ᵀ A_m (θ − b_m), A_m diagonal with entries log-uniform in [1/conditioning, 1], b_m standard normal.

    A batch is N draws of gradient noise, standard normal times ``noise``/√d, scaled by c_m like everything that learner m measures. θ⁰ is
    ``start`` times a standard normal draw.

    Raises:
      ValueError: a size is below 1, conditioning is below 1, noise is negative, scales do not fit.
    """
    at_least("quadratic", num_learners=num_learners, dimension=dimension)
    if conditioning < 1 or noise < 0:
        raise ValueError(f"quadratic(...) needs conditioning >= 1 and noise >= 0, got {conditioning} and {noise}.")
    key_curvature, key_centre = jax.random.split(jax.random.key(problem_seed))
    shape = (num_learners, dimension)
    curvature = conditioning ** -jax.random.uniform(key_curvature, shape)
    centre = jax.random.normal(key_centre, shape)

    def gradient(task: Task, params: Float[Array, " d"]) -> Float[Array, " d"]:
        return task.scale * task.extra["curvature"] * (params - task.extra["centre"])

    def value(task: Task, params: Float[Array, " d"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(gradient(task, params) * (params - task.extra["centre"]))

    def sample(key: Key[Array, ""], task: Task, params: Float[Array, " d"], num: int) -> dict[str, Array]:
        draws = noise / dimension**0.5 * task.scale * jax.random.normal(key, (num, dimension))
        return {"noise": draws, "params": params}

    def score(task: Task, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        scaled = -value(task, batch["params"])
        return {"score_scaled": scaled, "score_raw": scaled / task.scale}

    return Problem(
        sampler=lambda problem: sample,
        score=score,
        start=lambda key: start * jax.random.normal(key, (dimension,)),
        tasks=make_tasks(num_learners, scales, {"curvature": curvature, "centre": centre}),
        num_learners=num_learners,
        shared=shared_noise,
        model=lambda policy: Model(value, gradient),
        smoothness=lambda task: task.scale * jnp.max(task.extra["curvature"]),
    )


def total_smoothness(tasks: Task) -> Float[Array, ""]:
    """The largest curvature of Σ_m L_m, which is at most Σ_m L_m's constants."""
    return jnp.max(jnp.sum(tasks.scale[:, None] * tasks.extra["curvature"], 0))


def minimiser(tasks: Task) -> Float[Array, " d"]:
    """θ* of Σ_m L_m: the mean of the centres, weighted with their curvatures, entry by entry."""
    weights = tasks.scale[:, None] * tasks.extra["curvature"]
    return jnp.sum(weights * tasks.extra["centre"], 0) / jnp.sum(weights, 0)
