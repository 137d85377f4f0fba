"""Actor-critic: the policy gradient of a learner's own advantages, whose critic stays at the learner."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from lapg.estimators.critics import (
    CriticState,
    Kind,
    decayed_sums,
    make_critic,
    make_network,
    observation_of,
    sums_ahead,
    td_errors,
)
from lapg.estimators.likelihood_ratio import policy_gradient
from lapg.types import Estimate, Estimator, Policy, Problem, Task, Trajectories


def actor_critic(
    policy: Policy,
    discount: float,
    problem: Problem,
    *,
    critic: Kind = (32,),
    critic_step_size: float = 0.01,
    critic_steps: int = 10,
    trace_decay: float = 0.95,
    finite_horizon: bool = True,
    time_average: bool = False,
) -> Estimator:
    """(1/N) Σ_n Σ_τ γ^τ ∇log π(a_τ|s_τ) Â_τ with Â_τ = Σ_{t≥τ} (γλ)^{t−τ} δ_t and δ_t = c_m ℓ_t + γV(s_{t+1}) − V(s_t).

    That is G(PO)MDP with δ_t in place of ℓ_t and scores that fade as λ^{t−τ}; at other θ it has the same per-decision weights w_{0:t}. The
    weight γ^τ belongs to an objective that counts from t = 0; many codes leave it out and follow no gradient.

    V is fitted to λ-returns after it was used: the present batch sees the critic of the batches before. Given that critic, trajectories are
    independent, and the noise is unbiased for tr Cov. λ = 1 with a finite horizon is unbiased whatever the critic, which is then a baseline.
    Else the bias is what the critic's error leaves, and the first rounds, with a critic that knows nothing, have most of it.

    Where the problem's rollout plays segments, which ``finite_horizon=False`` takes, all sums and weights begin anew in every episode and row, and γ^τ
    is left out: the mean is Σ_t E[Σ_a ∇π(a|s_t) Q(s_t, a)] over the states that come by. Rows begin in different states, so that the noise is rather
    too large.

    Args:
      policy: the (joint) policy π.
      discount: γ, counted from t = 0.
      problem: says what observations look like, T, and whether rows are whole episodes.
      critic: hidden widths of V, a tanh network of the observation and t/T; ``quadratic``; or a `lapg.policies.networks.Network` with
        ``apply: weights, observation, t/T → V``, which a problem with whole-number observations needs.
      critic_step_size: of Adam, in units of the critic's weights.
      critic_steps: full-batch steps of Adam per batch.
      trace_decay: λ in [0, 1]; smaller has less noise and trusts the critic more.
      finite_horizon: True: the objective of `gpomdp`. Nothing counts after the end of an episode, whatever ended it, and V sees t/T. False:
        an episode that was cut off would go on, so that V of the observation that followed stands for its rest; only termination has value 0; V sees time 0.
      time_average: divide by T.
    Raises:
      ValueError: a number is out of its range, or the critic does not fit the problem.
    Source: Schulman et al., arXiv 1506.02438, eq. (16), with the discounted objective's γ^τ.
    """
    network = make_network(
        "actor_critic",
        critic,
        lambda: observation_of("actor_critic", problem),
        problem.num_steps if finite_horizon else 1,
    )
    learned = make_critic(
        "actor_critic", network, step_size=critic_step_size, num_steps=critic_steps, trace_decay=trace_decay
    )

    def fading(log_ratios: Float[Array, " T"], first: Bool[Array, " T"]) -> Float[Array, " T"]:
        # the value is log w_{0:t}, the gradient Σ_{τ≤t} λ^{t−τ} ∇log π_τ
        scores = decayed_sums(log_ratios, trace_decay, first)
        return scores + jax.lax.stop_gradient(decayed_sums(log_ratios, 1.0, first) - scores)

    segmented = problem.rollout is not None and problem.rollout.continues
    actor = policy_gradient(fading, policy, 1.0 if segmented else discount, "none", time_average)

    def times(num: int, steps: int) -> Float[Array, " num"]:
        return jnp.arange(num, dtype=float) / steps if finite_horizon else jnp.zeros(num)

    def judge(weights: Float[Array, " p"], batch: Trajectories) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
        steps = batch.losses.shape[1]
        at = times(steps + 1, steps)
        values = learned.values(weights, batch.observations, at[:-1])
        following = learned.values(weights, batch.following, at[1:])
        nothing_left = batch.ended if finite_horizon else batch.terminated
        return values, td_errors(batch, discount, values, jnp.where(nothing_left, 0, following))

    def init(key: Key[Array, ""], params: Float[Array, " d"]) -> CriticState:
        return learned.init(key)

    def update(state: CriticState, task: Task, batch: Trajectories) -> CriticState:
        values, errors = judge(state.fitted, batch)
        targets = values + sums_ahead(errors, discount * trace_decay, batch.ended)
        steps = batch.losses.shape[1]
        return learned.fit(state, batch.observations, times(steps, steps), targets, batch.mask)

    def estimate(state: CriticState, task: Task, params: Float[Array, " d"], batch: Trajectories) -> Estimate:
        _, errors = judge(state.weights, batch)
        return actor.estimate((), task, params, eqx.tree_at(lambda b: b.losses, batch, errors))

    return Estimator(init, update, estimate, takes_segments=not finite_horizon)
