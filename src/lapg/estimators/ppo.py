"""Proximal policy optimisation: the clipped surrogate of a learner's own advantages, whose critic stays at the learner."""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from lapg.estimators.agents import CriticInput, Ratio, log_probs_of, views_of
from lapg.estimators.critics import (
    CriticState,
    Kind,
    Units,
    in_units,
    make_critic,
    make_network,
    sums_ahead,
    td_errors,
    with_batch,
)
from lapg.policies import as_numbers
from lapg.policies.normalised import LIMIT
from lapg.types import Estimate, Estimator, Policy, Problem, Spaces, Task, Trajectories, squared_norm

Advantages = Literal["gae", "group"]
"""``gae``: of the learner's critic · ``group``: an episode's loss beside those of the learner's other episodes, no critic (GRPO)."""
Normalisation = Literal["minibatch", "batch", "none"]
SMALLEST_STD = 1e-8


class Steps(eqx.Module):
    """The steps of a batch in a row (leading axis N · T), with their advantages: how much more than V an action has lost.

    Behind it, an axis for the agents: of the log-probabilities where each has a ratio of its own, and of the advantages where each has a value of its own;
    otherwise it has length 1.
    """

    observations: PyTree
    actions: PyTree
    log_probs: Float[Array, "n _"]
    advantages: Float[Array, "n _"]
    mask: Bool[Array, " n"]


def ppo(
    policy: Policy,
    discount: float,
    problem: Problem,
    batch_size: int,
    *,
    clip: float = 0.2,
    advantages: Advantages = "gae",
    trace_decay: float = 0.95,
    normalise: Normalisation = "minibatch",
    entropy: float = 0.0,
    ratio: Ratio = "agent",
    critic: Kind = (64, 64),
    critic_input: CriticInput = "joint",
    critic_step_size: float = 0.001,
    critic_epochs: int = 10,
    critic_minibatches: int = 4,
    critic_max_norm: float | None = 0.5,
    value_clip: float | None = None,
    standardise_values: bool = True,
    bootstrap: bool = True,
) -> Estimator:
    """The gradient of mean_t max(ρ_t Â_t, clip(ρ_t, 1 − ε, 1 + ε) Â_t) with ρ_t = π_θ(a_t|s_t)/π_sampled(a_t|s_t); losses, so max where rewards have min.

    It is meant for `lapg.local.optimise`, several epochs of an optimiser of the learner's own on each batch: the first step follows the policy gradient of
    the advantages, as in A2C, which is one epoch of one minibatch. Steps count alike, without γ^t. Advantages are computed once a round, by the critic of the
    batches before; then the critic is fitted to Â + V. It never leaves the learner. Nobody knows the noise of these gradients.

    Args:
      policy: the (joint) policy π.
      discount: γ.
      problem: says what observations look like, T, and whether rows are whole episodes.
      batch_size: N.
      clip: ε > 0.
      advantages: ``gae``, or ``group``, of whole episodes: (episode's loss − mean)/std among the N of the batch, the same for all its steps, and no critic.
      trace_decay: λ of Â_t = Σ_{u≥t} (γλ)^{u−t} δ_u, in [0, 1].
      normalise: advantages have mean 0 and standard deviation 1 in every ``minibatch``, in the ``batch``, or are left as they are (as in GRPO).
      entropy: weight of the entropy of the policy, in nats a step, in units of the surrogate; positive keeps it random. Where ``ratio`` is of agents, the
        mean of theirs.
      ratio: of several agents, whether each has a ρ of its own, and the surrogate is the mean over agents (``agent``), or ρ is that of the ``joint`` action.
      critic: hidden widths of V, a tanh network; ``quadratic``; or a `lapg.policies.networks.Network` with ``apply: weights, observation, t/T → V``, where t is 0.
      critic_input: of several agents, whether V sees all that they observe (``joint``), the whole state where the environment tells it (``world``), or
        there is a V of each ``agent``'s own observation, by one network, for agents that are alike.
      critic_step_size: of its Adam.
      critic_epochs: passes of the regression over a batch.
      critic_minibatches: parts of the batch, a step for each; must divide N · T.
      critic_max_norm: gradients of the regression are scaled down to this norm; None leaves them.
      value_clip: V moves no further than this in a round, as far as the loss goes, in units of its network; None has no limit.
      standardise_values: V is learned in units of the returns seen so far, so that steps suit rewards of any size.
      bootstrap: an episode that was cut off has a future, V of the observation that followed; False takes every end for one that the task brought about.
    Raises:
      ValueError: a number is out of its range; the critic does not fit the problem; a group without whole episodes, or of one; a joint policy does not
        tell its agents apart.
    Source: Schulman et al., arXiv 1707.06347; arXiv 1506.02438 for Â; Shao et al., arXiv 2402.03300, for ``group``; of several agents de Witt et al.,
    arXiv 2011.09533 (IPPO), and Yu et al., arXiv 2103.01955 (MAPPO).
    """
    positive = {"clip": clip, "critic_epochs": critic_epochs, "critic_minibatches": critic_minibatches}
    positive |= {"critic_max_norm": critic_max_norm, "value_clip": value_clip}
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise ValueError(f"ppo({name}=...) must be > 0, got {value}.")
    if not entropy >= 0:
        raise ValueError(f"ppo(entropy=...) must be >= 0, got {entropy}; 0 leaves it out.")
    if entropy and policy.entropy is None:
        raise ValueError(f"ppo(entropy=...) needs a policy whose entropy is known, got {entropy}; set it to 0.")
    row = problem.num_steps if problem.rollout is None else problem.rollout.num_steps
    num_steps = batch_size * row
    if advantages == "group":
        if problem.rollout is not None and problem.rollout.continues:
            raise ValueError(
                "ppo(advantages=...) must be 'gae' where rows are segments, got 'group'; or use rollout 'episodes'."
            )
        if batch_size < 2:
            raise ValueError(f"ppo(batch_size=...) must be >= 2 for advantages 'group', got {batch_size}.")
    elif num_steps % critic_minibatches:
        raise ValueError(
            f"ppo(critic_minibatches=...) must divide the {num_steps} steps of a batch (batch_size times those of a row), got {critic_minibatches}."
        )
    if normalise == "batch" and num_steps < 2:
        raise ValueError(
            f"ppo(normalise=...) must not be 'batch' where a batch has {num_steps} step (batch_size times those of a row), which has no deviation; take "
            "more steps, or 'none'."
        )
    see = as_numbers(problem.spaces) if isinstance(problem.spaces, Spaces) else lambda observation: observation
    views = views_of(problem, critic_input)
    network = make_network("ppo", critic, lambda: jax.eval_shape(see, views.example()), 1)
    log_probs = log_probs_of(policy, problem, ratio)
    learned = make_critic(
        "ppo",
        network._replace(apply=lambda weights, observation, time: network.apply(weights, see(observation), time)),
        step_size=critic_step_size,
        num_steps=critic_epochs,
        trace_decay=trace_decay,
        minibatches=critic_minibatches,
        max_norm=critic_max_norm,
        value_clip=value_clip,
        standardise=standardise_values,
    )

    def numbers(observations: PyTree) -> Float[Array, "N T n"]:
        seen = jax.vmap(jax.vmap(see))(observations)
        return seen.reshape(*seen.shape[:2], -1)

    def inputs(moments: Units | tuple[()], observations: PyTree) -> PyTree:
        if not isinstance(moments, Units):
            return observations
        seen = (numbers(observations) - moments.mean[None, None]) / moments.std[None, None]
        return jnp.clip(seen, -LIMIT, LIMIT)

    def judge(
        weights: Float[Array, " p"], units: Any, moments: Units | tuple[()], batch: Trajectories
    ) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
        times = jnp.zeros(batch.losses.shape[1], batch.losses.dtype)
        values, following = (
            in_units(units, learned.values(weights, inputs(moments, seen), times))
            for seen in (batch.observations, batch.following)
        )
        nothing_left = batch.terminated if bootstrap else batch.ended
        errors = td_errors(batch, discount, values, jnp.where(nothing_left, 0, following))
        return values, sums_ahead(errors, discount * trace_decay, batch.ended)

    def group(batch: Trajectories) -> Float[Array, "N T"]:
        steps = jnp.arange(batch.losses.shape[1], dtype=batch.losses.dtype)
        totals = jnp.sum(batch.losses * discount ** steps[None], 1)
        apart = (totals - totals.mean()) / (totals.std() + SMALLEST_STD)
        return jnp.broadcast_to(apart[:, None], batch.losses.shape)

    def init(key: Key[Array, ""], params: Float[Array, " d"]) -> CriticState | tuple[()]:
        if advantages == "group":
            return ()
        state = learned.init(key)
        if policy.statistics is None:
            return state
        none = jnp.zeros(policy.statistics.num_entries // 2, params.dtype)
        return dataclasses.replace(state, seen=Units(none, none, jnp.zeros((), params.dtype)))

    def update(state: Any, task: Task, batch: Trajectories) -> Any:
        if advantages == "group":
            return state
        if isinstance(state.seen, Units):
            state = dataclasses.replace(state, seen=with_batch(state.seen, numbers(batch.observations), batch.mask))
        batch = views.rows(batch)
        values, found = judge(state.fitted, state.fitted_units, state.seen, batch)
        times = jnp.zeros(batch.losses.shape[1], batch.losses.dtype)
        return learned.fit(state, inputs(state.seen, batch.observations), times, values + found, batch.mask)

    def prepare(state: Any, task: Task, params: Float[Array, " d"], batch: Trajectories) -> Steps:
        if advantages == "group":
            found = group(batch)[..., None]
        else:
            found = views.entries(judge(state.weights, state.units, state.seen, views.rows(batch))[1])
        if normalise == "batch":
            found = _normalised(found, batch.mask)
        before = batch.log_probs[..., None]
        if log_probs is not None:
            before = jax.vmap(jax.vmap(log_probs, (None, 0, 0)), (None, 0, 0))(
                params, batch.observations, batch.actions
            )
        each = (batch.observations, batch.actions, before, found, batch.mask)
        return Steps(*jax.tree.map(lambda leaf: leaf.reshape(batch.mask.size, *leaf.shape[2:]), each))

    def estimate(state: Any, task: Task, params: Float[Array, " d"], steps: Steps) -> Estimate:
        counts, num = steps.mask, jnp.maximum(jnp.sum(steps.mask), 1)
        better = _normalised(steps.advantages, counts) if normalise == "minibatch" else steps.advantages
        num_ratios = steps.log_probs.shape[1]

        def surrogate(params: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, "n _"]]:
            if log_probs is None:
                now = jax.vmap(policy.log_prob, (None, 0, 0))(params, steps.observations, steps.actions)[:, None]
            else:
                now = jax.vmap(log_probs, (None, 0, 0))(params, steps.observations, steps.actions)
            log_ratios = jnp.where(counts[:, None], now - steps.log_probs, 0)
            ratios = jnp.exp(log_ratios)
            each = jnp.maximum(ratios * better, jnp.clip(ratios, 1 - clip, 1 + clip) * better).mean(1)
            if entropy and policy.entropy is not None:
                each = each - entropy / num_ratios * jax.vmap(policy.entropy, (None, 0))(params, steps.observations)
            return jnp.sum(jnp.where(counts, each, 0)) / num, log_ratios

        gradient, log_ratios = jax.grad(surrogate, has_aux=True)(params)
        divergence = jnp.sum(jnp.expm1(log_ratios) - log_ratios) / (num * num_ratios)  # k3: unbiased, never negative
        weights = jnp.where(counts, jnp.exp(log_ratios.sum(1)), 0)
        return Estimate(gradient, None, jnp.sum(weights) ** 2 / squared_norm(weights), divergence)

    return Estimator(
        init,
        update,
        estimate,
        minimum_batch=2 if normalise == "minibatch" else 1,
        knows_noise=False,
        prepare=prepare,
        num_entries=num_steps,
        takes_segments=True,
        knows_divergence=True,
        statistics=policy.statistics,
    )


def _normalised(values: Float[Array, "*shape agents"], mask: Bool[Array, "*shape"]) -> Float[Array, "*shape agents"]:
    """Mean 0 and standard deviation 1 over the steps that count, of all agents."""
    mask = jnp.broadcast_to(mask[..., None], values.shape)
    num = jnp.maximum(jnp.sum(mask), 1)
    centred = values - jnp.sum(jnp.where(mask, values, 0)) / num
    return centred / (jnp.sqrt(jnp.sum(jnp.where(mask, centred**2, 0)) / num) + SMALLEST_STD)
