"""Random problems of one shape, drawn inside compiled code, each with constants that are known for certain; and random settings of LAPG."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg import theory
from lapg.problems import garnet, quadratic
from lapg.problems.quadratic import minimiser, total_smoothness
from lapg.types import Problem, Scalar, Task

TABLE = theory.linear_softmax_bounds(np.eye(2).reshape(1, 2, 2))
"""G and F of tabular softmax policies."""


class Case(NamedTuple):
    """A problem with its constants.

    Attributes:
      problem: what the learners solve; their gradients are its own.
      objective: whose value and gradient the statements are about; the problem itself, or its infinite horizon.
      smoothness: L_m.
      total: L, a Lipschitz constant of Σ_m ∇L_m.
      infimum: inf L, or less.
      truncation: σ_T.
    """

    problem: Problem
    objective: Problem
    smoothness: Float[Array, " M"]
    total: Float[Array, ""]
    infimum: Float[Array, ""]
    truncation: Scalar = 0.0


Family = Callable[[Key[Array, ""]], Case]


def rescaled(problem: Problem, scales: Float[Array, " M"]) -> Problem:
    """The problem with other scales c_m, traced ones and zeros included."""
    return problem._replace(tasks=eqx.tree_at(lambda task: task.scale, problem.tasks, scales))


def spread_scales(key: Key[Array, ""], num_learners: int) -> Float[Array, " M"]:
    """Log-uniform over three decades."""
    return 10.0 ** jax.random.uniform(key, (num_learners,), minval=-3.0, maxval=0.0)


def quadratics(num_learners: int = 4, dimension: int = 3, noise: float = 0.0) -> Family:
    """Quadratics: every constant is exact, so statements are as tight as they can be."""

    def draw(key: Key[Array, ""]) -> Case:
        seed, scales = jax.random.split(key)
        problem = rescaled(
            quadratic(
                num_learners=num_learners,
                dimension=dimension,
                noise=noise,
                problem_seed=jax.random.bits(seed, dtype=jnp.uint32),
            ),
            spread_scales(scales, num_learners),
        )
        return quadratic_case(problem)

    return draw


def quadratic_case(problem: Problem) -> Case:
    """A quadratic with its exact constants."""
    tasks, best = problem.tasks, minimiser(problem.tasks)
    lowest, smoothness = total_value(problem, best), cast(Any, problem.smoothness)
    return Case(problem, problem, jax.vmap(smoothness)(tasks), total_smoothness(tasks), lowest)


def centred(num_learners: int, scales: Float[Array, " M"] | None = None, dimension: int = 1) -> Case:
    """L_m(θ) = ½ c_m ‖θ‖²."""
    problem = quadratic(num_learners=num_learners, dimension=dimension, conditioning=1.0, noise=0.0)
    if scales is not None:
        problem = rescaled(problem, scales)
    tasks = problem.tasks
    extra = tasks.extra | {"centre": jnp.zeros_like(tasks.extra["centre"])}
    return quadratic_case(problem._replace(tasks=Task(tasks.index, tasks.scale, extra)))


def tables(*, discount: float, num_steps: int, infinite: bool = False, num_learners: int = 4) -> Family:
    """Random finite MDPs with tabular softmax policies; constants are proved (`lapg.theory.smoothness`, sharp) but loose.

    Args:
      num_steps: T of the learners' gradients.
      infinite: whether statements are about the infinite horizon, so that these gradients are truncated.
    """

    def draw(key: Key[Array, ""]) -> Case:
        seed, scales = jax.random.split(key)
        number = jax.random.bits(seed, dtype=jnp.uint32)

        def make(steps: int | None) -> Problem:
            problem = garnet(
                num_learners=num_learners,
                num_states=4,
                num_actions=3,
                branching=2,
                num_steps=steps,
                discount=discount,
                problem_seed=number,
            )
            return rescaled(problem, spread_scales(scales, num_learners))

        problem = make(num_steps)
        objective = make(None) if infinite else problem
        losses = jax.vmap(cast(Any, problem.loss_bound))(problem.tasks)
        constants = theory.smoothness(TABLE, losses, discount, None if infinite else num_steps, form="sharp")
        truncation = theory.truncation_bound(TABLE.score, losses, discount, num_steps) if infinite else 0.0
        # losses are in [0, ℓ̄_m], so 0 is below every L
        return Case(problem, objective, constants, jnp.sum(constants), jnp.zeros(()), truncation)

    return draw


def total_value(problem: Problem, params: Float[Array, " d"]) -> Float[Array, ""]:
    """L(θ) = Σ_m L_m(θ)."""
    assert problem.value is not None
    return jnp.sum(jax.vmap(problem.value, (0, None))(problem.tasks, params))


def gradients(problem: Problem, params: Float[Array, " d"]) -> Float[Array, "M d"]:
    """∇L_m(θ) of all learners."""
    assert problem.gradient is not None
    return jax.vmap(problem.gradient, (0, None))(problem.tasks, params)


def random_weights(key: Key[Array, ""], window: int) -> Float[Array, " D"]:
    """ξ with a sum uniform in (0.02, 0.98)/3, geometric over a random part of the window, so that it never increases."""
    total, length, ratio = jax.random.split(key, 3)
    used = jax.random.randint(length, (), 1, window + 1)
    shape = jax.random.uniform(ratio, minval=0.3, maxval=1.0) ** jnp.arange(window)
    shape = jnp.where(jnp.arange(window) < used, shape, 0)
    return jax.random.uniform(total, minval=0.02, maxval=0.98) / 3 * shape / jnp.sum(shape)


def random_fraction(key: Key[Array, ""]) -> Float[Array, ""]:
    """The step in units of the largest admissible one: exactly that in seven cases of ten, less in the others."""
    coin, less = jax.random.split(key)
    return jnp.where(jax.random.uniform(coin) < 0.7, 1.0, jax.random.uniform(less, minval=0.1, maxval=1.0))
