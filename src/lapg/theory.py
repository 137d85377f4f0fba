"""Constants and bounds of the paper's section 4, as far as the presets need them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lapg.types import NOBODY, SAMPLE, Problem, Trajectories, address


def deviation_bound(
    score_bound: float, loss_bound: Float[Array, " M"] | np.ndarray, discount: float
) -> Float[Array, " M"]:
    """V_m = 2 G ℓ̄_m γ/(1−γ)², as printed in (31).

    The sum behind it counts t scores at step t where there are t + 1; without the factor γ it is a bound.
    """
    return jnp.asarray(2 * score_bound * loss_bound * discount / (1 - discount) ** 2)


def concentration_bound(
    deviation: Float[Array, " M"], num_trajectories: int, num_rounds: int, failure_probability: float
) -> Float[Array, " M"]:
    """σ²_m = 2 log(2K/δ) V_m²/N, as printed in (15)."""
    return 2 * jnp.log(2 * num_rounds / failure_probability) * deviation**2 / num_trajectories


def estimate_constants(
    problem: Problem, seed: int = 0, num_trajectories: int = 1000
) -> tuple[float, Float[Array, " M"]]:
    """G and ℓ̄_m as the largest score norm and losses met on initial trajectories: estimates, not bounds.

    Returns:
      max ‖∇log π(a|s)‖ over all visited pairs, and per learner the largest |c_m ℓ_m|.
    """
    root = jax.random.key(seed)
    policy, sample = problem.policy, problem.sample
    if policy is None or sample is None:
        raise ValueError(
            "estimate_constants(problem=...) needs a problem with a policy and inside JAX; give noise_bound as numbers."
        )
    params = problem.init(root)

    def visit(task):
        key = address(root, SAMPLE, NOBODY, 0)
        batch: Trajectories = sample(key, task, params, num_trajectories)
        scores = jax.vmap(jax.vmap(jax.grad(policy.log_prob), (None, 0, 0)), (None, 0, 0))
        norms = jnp.linalg.norm(scores(params, batch.observations, batch.actions), axis=-1)
        return jnp.max(norms), jnp.max(jnp.abs(batch.losses))

    score_bounds, loss_bounds = jax.jit(lambda tasks: jax.lax.map(visit, tasks))(problem.tasks)
    return float(jnp.max(score_bounds)), loss_bounds
