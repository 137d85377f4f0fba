"""Constants measured on trajectories, where nothing bounds them: estimates, to be labelled as such."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lapg.types import NOBODY, SAMPLE, Problem, ScoreBounds, Trajectories, address


class Estimated(NamedTuple):
    """The largest met: ‖∇log π‖ and ‖∇²log π‖ over visited pairs, and |c_m ℓ_m| per learner."""

    scores: ScoreBounds
    losses: Float[Array, " M"]


def estimate_constants(
    problem: Problem,
    seed: int = 0,
    num_trajectories: int = 1000,
    *,
    params: Float[Array, " d"] | None = None,
    num_hessians: int = 0,
) -> Estimated:
    """G, F and ℓ̄_m as the largest met on trajectories at one θ: estimates from below, not bounds.

    Args:
      params: θ; the problem's θ⁰ if None.
      num_hessians: visited pairs per learner at which ‖∇²log π‖ is found, by 20 power iterations each; 0 leaves F at nan.
    Raises:
      ValueError: the problem has no policy, or is outside JAX.
    """
    root = jax.random.key(seed)
    policy, sample = problem.policy, problem.sample
    if policy is None or sample is None:
        raise ValueError(
            "estimate_constants(problem=...) needs a problem with a policy and inside JAX; give noise_bound as numbers."
        )
    theta: Any = problem.init(root) if params is None else params

    def curvature(observation: Any, action: Any) -> Float[Array, ""]:
        slope = jax.grad(lambda params: policy.log_prob(params, observation, action))

        def iterate(vector: Any, _: None) -> Any:
            image = jax.jvp(slope, (theta,), (vector,))[1]
            length = jnp.linalg.norm(image)
            return jnp.where(length > 0, image / length, vector), length

        start = jax.random.normal(root, theta.shape)
        return jax.lax.scan(iterate, start / jnp.linalg.norm(start), length=20)[1][-1]

    def visit(task: Any) -> Any:
        batch: Trajectories = sample(address(root, SAMPLE, NOBODY, 0), task, theta, num_trajectories)
        scores = jax.vmap(jax.vmap(jax.grad(policy.log_prob), (None, 0, 0)), (None, 0, 0))
        norms = jnp.linalg.norm(scores(theta, batch.observations, batch.actions), axis=-1)
        chosen = jax.random.randint(root, (num_hessians,), 0, norms.size)
        pairs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[chosen], (batch.observations, batch.actions))
        found = jax.vmap(curvature)(*pairs) if num_hessians else jnp.full((1,), jnp.nan)
        return jnp.max(norms), jnp.max(found), jnp.max(jnp.abs(batch.losses))

    largest, hessian, losses = jax.jit(lambda tasks: jax.lax.map(visit, tasks))(problem.tasks)
    return Estimated(ScoreBounds(float(jnp.max(largest)), float(jnp.max(hessian))), losses)
