"""Old trajectories used again, by importance weights."""

import math
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lapg.estimators.likelihood_ratio import Baseline, gpomdp
from lapg.types import Estimate, Estimator, Policy, Problem, Task, Trajectories, squared_norm


class History(eqx.Module):
    """The last B batches (leading axis B, newest first), and how many of them are there already."""

    batches: Trajectories
    count: Int[Array, ""]


def reuse(
    policy: Policy,
    discount: float,
    problem: Problem,
    batch_size: int,
    *,
    num_batches: int = 4,
    max_weight: float | None = None,
    baseline: Baseline = "leave_one_out",
    time_average: bool = False,
) -> Estimator:
    """The mean of G(PO)MDP's estimates from this batch and from the B − 1 before it, each at θ by per-decision weights w_{0:t} (in log space).

    Given the parameters at which the batches were sampled, each estimate is unbiased at every θ. In a run θ depends on the older batches, which
    leaves a bias of the order of that dependence, as in every method that reuses. Nor are successive estimates independent: noise that a memory adds
    up over rounds is too low.

    Args:
      problem: whose trajectories these are; their shapes are taken from it.
      batch_size: N.
      num_batches: B. State: B·N trajectories with their behaviour log-probabilities; cost: B times that of one batch.
      max_weight: weights above it are cut to it, which bounds the variance and biases; None cuts nothing and is unbiased.
      baseline, time_average: as in `lapg.estimators.gpomdp`, each batch with its own baseline.
    Returns:
      An estimator whose ``effective_samples`` is (Σw)²/Σw² over all trajectories held, w = w_{0:T−1}, cut weights included, and whose noise is that
      of a mean of independent batches.
    Raises:
      ValueError: num_batches < 1, max_weight < 1, a problem that does not sample inside compiled code, or a batch that is not N trajectories.
    """
    if num_batches < 1:
        raise ValueError(f"reuse(num_batches=...) must be >= 1, got {num_batches}; 1 is gpomdp.")
    if max_weight is not None and not max_weight >= 1:
        raise ValueError(
            f"reuse(max_weight=...) must be >= 1 or none, got {max_weight}; below 1 it would cut the weights of this round's batch."
        )
    if problem.sample is None:
        raise ValueError("reuse needs a problem that samples inside compiled code, got one with collect; use gpomdp.")
    sample = problem.sample
    bound = math.inf if max_weight is None else math.log(max_weight)
    single = gpomdp(policy, discount, baseline=baseline, time_average=time_average)

    def kept(batch: Trajectories) -> Trajectories:
        return replace(batch, following=())  # which G(PO)MDP does not look at

    def init(key: Key[Array, ""], params: Float[Array, " d"]) -> History:
        task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
        shape = jax.eval_shape(lambda key, params: kept(sample(key, task, params, batch_size)), key, params)
        blank = jax.tree.map(lambda leaf: jnp.zeros((num_batches, *leaf.shape), leaf.dtype), shape)
        return History(blank, jnp.int32(0))

    def update(state: History, task: Task, batch: Trajectories) -> History:
        if batch.losses.shape[0] != batch_size:
            raise ValueError(
                f"reuse(batch_size=...) must be that of the rounds, {batch.losses.shape[0]}, got {batch_size}."
            )
        batches = jax.tree.map(lambda new, old: jnp.concatenate([new[None], old[:-1]]), kept(batch), state.batches)
        return History(batches, jnp.minimum(state.count + 1, num_batches))

    def log_weights(params: Float[Array, " d"], one: Trajectories) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
        log_probs = jax.vmap(policy.log_prob, (None, 0, 0))(params, one.observations, one.actions)
        return log_probs, jnp.minimum(jnp.cumsum(jnp.where(one.mask, log_probs - one.log_probs, 0)), bound)

    def estimate(state: History, task: Task, params: Float[Array, " d"], batch: Any) -> Estimate:
        held = jnp.arange(num_batches) < state.count
        log_probs, weights = jax.vmap(jax.vmap(log_weights, (None, 0)), (None, 0))(params, state.batches)
        batches = state.batches
        if max_weight is not None:
            # a cut weight is the weight of a behaviour that was more probable, held fixed: scores still count
            steps = jnp.diff(weights, axis=-1, prepend=0)
            behaviour = jax.lax.stop_gradient(jnp.where(batches.mask, log_probs - steps, batches.log_probs))
            batches = eqx.tree_at(lambda each: each.log_probs, batches, behaviour)
        each = jax.vmap(lambda one: single.estimate((), task, params, one))(batches)
        whole = jnp.where(held[:, None], jnp.exp(weights[..., -1]), 0).ravel()
        return Estimate(
            jnp.sum(jnp.where(held[:, None], each.gradient, 0), 0) / state.count,
            jnp.sum(jnp.where(held, each.noise_or_inf, 0)) / state.count**2,
            jnp.sum(whole) ** 2 / squared_norm(whole),
        )

    return Estimator(init, update, estimate, single.minimum_batch)
