"""Finite Markov decision processes: everything about them can be computed exactly."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt

from lapg.policies import table
from lapg.problems.builders import at_least, from_environment, make_tasks, unit_interval
from lapg.types import Discrete, Environment, Model, Policy, Problem, Spaces, Task, Transition, is_concrete


def tabular(
    transitions: Float[Array, "S A S"],
    losses: Float[Array, "M S A"],
    initial: Float[Array, "M S"],
    *,
    scales: Sequence[float] | None = None,
    num_steps: int | None = None,
    horizon: int = 20,
    discount: float = 0.9,
    shared_trajectories: bool = False,
) -> Problem:
    """Parallel RL (5) on one finite MDP: learner m has its loss ℓ_m and its initial distribution ρ_m.

    ``gradient`` and ``value`` are exact, for any policy; the default one is a softmax table, d = S·A. With ``num_steps`` None they are those of the infinite horizon, by a linear solve, while episodes are
    ``horizon`` steps long; with a number, both are those of the truncated objective (28), t = 0..T−1, by backward recursion.

    Args:
      transitions: P(s'|s,a), rows summing to 1.
      losses: ℓ_m(s,a), raw.
      initial: ρ_m(s), rows summing to 1.
      scales: c_m > 0, one per learner; None is all 1.
      num_steps: T; None is the infinite horizon, of which an episode plays ``horizon`` steps.
      horizon: steps of an episode where ``num_steps`` is None.
      discount: γ.
      shared_trajectories: whether all learners see the same episodes.
    Raises:
      ValueError: shapes disagree, rows are not distributions, or the discount is 1 without a number of steps.
    """
    transitions, losses, initial = (jnp.asarray(array, float) for array in (transitions, losses, initial))
    num_learners, num_states, num_actions = losses.shape
    if transitions.shape != (num_states, num_actions, num_states) or initial.shape != (num_learners, num_states):
        raise ValueError(
            f"tabular(...) needs transitions [S, A, S], losses [M, S, A] and initial [M, S] that agree; got {transitions.shape}, "
            f"{losses.shape} and {initial.shape}."
        )
    for name, rows in (("transitions", transitions), ("initial", initial)):
        if is_concrete(rows) and not (bool(jnp.all(rows >= 0)) and bool(jnp.allclose(rows.sum(-1), 1, atol=1e-5))):
            raise ValueError(f"tabular({name}=...) rows must be non-negative and sum to 1; divide each row by its sum.")
    steps = num_steps if num_steps is not None else horizon
    at_least("tabular", num_steps=steps)
    unit_interval("tabular", discount)
    if num_steps is None and discount == 1:
        raise ValueError("tabular(discount=1) has no infinite-horizon value; give num_steps, or a discount below 1.")
    log_transitions, log_initial = jnp.log(transitions), jnp.log(initial)

    def loss_of(policy: Policy, task: Task, params: Float[Array, " d"]) -> Float[Array, ""]:
        log_probs = jax.vmap(jax.vmap(policy.log_prob, (None, None, 0)), (None, 0, None))
        probs = jnp.exp(log_probs(params, jnp.arange(num_states), jnp.arange(num_actions)))
        step = jnp.einsum("sa,sat->st", probs, transitions)
        loss = task.scale * jnp.sum(probs * task.extra["losses"], -1)
        if num_steps is None:
            values = jnp.linalg.solve(jnp.eye(num_states) - discount * step, loss)
        else:
            values, _ = jax.lax.scan(
                lambda after, _: (loss + discount * step @ after, None), jnp.zeros_like(loss), None, length=num_steps
            )
        return task.extra["initial"] @ values

    def model(policy: Policy) -> Model:
        value = partial(loss_of, policy)
        return Model(value, jax.grad(value, 1))

    def reset(key: Key[Array, ""], task: Task) -> Int[Array, ""]:
        return jax.random.categorical(key, task.extra["log_initial"]).astype(jnp.int32)

    def step(key: Key[Array, ""], task: Task, state: Int[Array, ""], action: Int[Array, ""]) -> Transition:
        after = jax.random.categorical(key, log_transitions[state, action]).astype(jnp.int32)
        return Transition(after, task.extra["losses"][state, action])

    return from_environment(
        Environment(reset, lambda state: state, step),
        table,
        spaces=Spaces(Discrete(num_states), Discrete(num_actions)),
        tasks=make_tasks(num_learners, scales, {"losses": losses, "initial": initial, "log_initial": log_initial}),
        num_steps=steps,
        discount=discount,
        shared=shared_trajectories,
        model=model,
        loss_bound=lambda task: task.scale * jnp.max(jnp.abs(task.extra["losses"])),
    )


def garnet(
    *,
    num_learners: int = 4,
    num_states: int = 5,
    num_actions: int = 3,
    branching: int = 3,
    scales: Sequence[float] | None = None,
    num_steps: int | None = 20,
    discount: float = 0.9,
    problem_seed: int | UInt[Array, ""] = 0,
) -> Problem:
    """A random MDP (Garnet): every (s, a) leads to ``branching`` states; losses are uniform in [0, 1], per learner; ρ_m is Dirichlet.

    Args:
      num_learners: M.
      num_states, num_actions: of the MDP.
      branching: states that a state and an action can lead to.
      scales: c_m > 0, one per learner; None is all 1.
      num_steps: T.
      discount: γ.
      problem_seed: draws the MDP.
    Raises:
      ValueError: a size is below 1, or branching exceeds the number of states.
    """
    at_least("garnet", num_learners=num_learners, num_states=num_states, num_actions=num_actions, branching=branching)
    if branching > num_states:
        raise ValueError(f"garnet(branching=...) must be at most num_states={num_states}, got {branching}.")
    keys = jax.random.split(jax.random.key(problem_seed), 4)
    weights = jax.random.exponential(keys[0], (num_states, num_actions, num_states))
    chosen = jax.random.uniform(keys[1], weights.shape)
    weights = jnp.where(jnp.argsort(jnp.argsort(chosen, -1), -1) < branching, weights, 0)
    return tabular(
        weights / weights.sum(-1, keepdims=True),
        jax.random.uniform(keys[2], (num_learners, num_states, num_actions)),
        jax.random.dirichlet(keys[3], jnp.ones(num_states), (num_learners,)),
        scales=scales,
        num_steps=num_steps,
        discount=discount,
    )
