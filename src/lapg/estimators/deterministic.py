"""The deterministic policy gradient: actions follow the slope of a learned Q, which stays at the learner."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from lapg.estimators.common import mean_and_noise
from lapg.estimators.critics import (
    CriticState,
    Kind,
    make_critic,
    make_network,
    observation_of,
    sums_ahead,
    td_errors,
)
from lapg.types import Estimate, Estimator, Policy, Problem, Task, Trajectories, squared_norm


def deterministic(
    policy: Policy,
    discount: float,
    problem: Problem,
    *,
    critic: Kind = (32,),
    critic_step_size: float = 0.01,
    critic_steps: int = 10,
    trace_decay: float = 1.0,
    time_average: bool = False,
) -> Estimator:
    """(1/N) Σ_n Σ_t γ^t ∇_θ μ_θ(s_t) ∇_a Q_t(s_t, a) at a = μ_θ(s_t), with μ the policy's ``mode``; at other θ with the weights w_{0:t−1} of s_t.

    No score of the exploration noise enters, so that its variance does not grow as the exploration shrinks. Q is that of the exploring policy
    within the T steps, fitted to λ-returns of its episodes after it was used: the present batch sees the critic of the batches before. Given that
    critic, trajectories are independent, and the noise is unbiased for tr Cov. Parameters on which ``mode`` does not depend, such as a learned
    standard deviation, have gradient 0.

    Biased, by three things: the slope of Q's error; where Q is not quadratic in the action, taking the slope at μ rather than averaging it
    over the exploration, O(std²); and for the objective of the policy without exploration, states and values of the exploring one. With the exact
    Q of a linear-quadratic problem it is unbiased for the exploring policy's gradient. At other θ, Q remains that of the sampling policy.

    Args:
      policy: the (joint) policy, with continuous actions.
      discount: γ, counted from t = 0.
      problem: says what observations look like, and T.
      critic: hidden widths of Q, a tanh network of observation, action and t/T; ``quadratic``, which linear-quadratic problems fit; or a
        `lapg.policies.networks.Network` with ``apply: weights, (observation, action), t/T → Q``.
      critic_step_size: of Adam, in units of the critic's weights.
      critic_steps: full-batch steps of Adam per batch.
      trace_decay: λ of the returns; 1 regresses on the discounted sum of the losses that followed, less bootstraps.
      time_average: divide by T.
    Raises:
      ValueError: actions are not continuous, a number is out of its range, or the critic does not fit the problem.
    Source: Silver et al., Deterministic policy gradient algorithms, ICML 2014, eq. (9), with the discounted objective's γ^t.
    """

    def example() -> tuple[PyTree, PyTree]:
        observation = observation_of("deterministic", problem)
        action = jax.eval_shape(lambda key, seen: policy.mode(policy.init(key), seen), jax.random.key(0), observation)
        for leaf in jax.tree.leaves(action):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"deterministic(policy=...) must have continuous actions, got {leaf.dtype}; use actor_critic."
                )
        return observation, action

    network = make_network("deterministic", critic, example, problem.num_steps)
    learned = make_critic(
        "deterministic", network, step_size=critic_step_size, num_steps=critic_steps, trace_decay=trace_decay
    )

    def times(batch: Trajectories) -> Float[Array, " T"]:
        steps = batch.losses.shape[1]
        return jnp.arange(steps, dtype=float) / steps

    def init(key: Key[Array, ""], params: Float[Array, " d"]) -> CriticState:
        return learned.init(key)

    def update(state: CriticState, task: Task, batch: Trajectories) -> CriticState:
        seen = (batch.observations, batch.actions)
        values = learned.values(state.fitted, seen, times(batch))
        errors = td_errors(batch, discount, values, jnp.where(batch.ended, 0, jnp.roll(values, -1, 1)))
        targets = values + sums_ahead(errors, discount * trace_decay, batch.ended)
        return learned.fit(state, seen, times(batch), targets, batch.mask)

    def estimate(state: CriticState, task: Task, params: Float[Array, " d"], batch: Trajectories) -> Estimate:
        weights = discount ** jnp.arange(batch.losses.shape[1], dtype=batch.losses.dtype)
        if time_average:
            weights = weights / weights.size

        def surrogate(
            params: Float[Array, " d"], trajectory: Trajectories
        ) -> tuple[Float[Array, ""], Float[Array, ""]]:
            log_probs = jax.vmap(policy.log_prob, (None, 0, 0))(params, trajectory.observations, trajectory.actions)
            steps = jnp.where(trajectory.mask, log_probs - trajectory.log_probs, 0)
            ratios = jax.lax.stop_gradient(jnp.exp(jnp.cumsum(steps)))
            reached = jnp.concatenate([jnp.ones(1, ratios.dtype), ratios[:-1]])
            actions = jax.vmap(policy.mode, (None, 0))(params, trajectory.observations)
            values = jax.vmap(network.apply, (None, 0, 0))(
                state.weights, (trajectory.observations, actions), times(batch)
            )
            return jnp.sum(jnp.where(trajectory.mask, weights * reached * values, 0)), ratios[-1]

        gradients, ratios = jax.vmap(jax.grad(surrogate, has_aux=True), (None, 0))(params, batch)
        mean, noise = mean_and_noise(gradients)
        return Estimate(mean, noise, jnp.sum(ratios) ** 2 / squared_norm(ratios))

    return Estimator(init, update, estimate)
