"""Linear systems with quadratic losses: continuous states and actions, and still everything about them is known."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lapg.policies import linear
from lapg.problems.builders import at_least, from_environment, unit_interval
from lapg.problems.parallel import parallel_tasks
from lapg.types import Box, Environment, Model, Policy, Problem, Task, Transition

INPUT_VARIANCE = (
    0.1  # of a column of B: exploration stays small beside the initial state, and the slope at θ = 0 moderate
)
ACTION_WEIGHT = 0.1


def linear_quadratic(
    *,
    num_learners: int = 16,
    num_states: int = 3,
    num_actions: int = 2,
    process_noise: float = 0.1,
    radius: float = 1.0,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    num_steps: int = 20,
    discount: float = 0.95,
    problem_seed: int = 0,
) -> Problem:
    """Parallel RL (5) on linear-quadratic control: M learners train one policy, by default a ~ N(Θs, 0.5² I), Θ [A, n] row by row, d = A·n, θ⁰ = 0.

    s' = A_m s + B_m a + w with w ~ N(0, process_noise² I), s_0 ~ N(0, v_m I), ℓ_m = q_m ‖s‖² + 0.1 ‖a‖² at (s_t, a_t). The nominal A is ``radius``
    times a random orthogonal matrix, B is normal with columns of length √0.1 in the mean square.

    Of linear policies, whatever their std, ``value`` and ``gradient`` are exact for the T steps, exploration and process noise included. Losses are not bounded, which the convergence
    theory asks for, and a θ that destabilises the system has a loss that grows geometrically with T: large steps diverge.

    Args:
      num_learners: M.
      num_states: n.
      num_actions: A.
      process_noise: standard deviation of every entry of w.
      radius: modulus of all eigenvalues of A, the system without control; 1 is marginal.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them.
      heterogeneity: h, spreads by factor^±h: A (1.05), B (1.5), state weight q = 1 (2), variance v = 1 of the start (2), scale 1 (4).
        The first two go beyond the paper, whose learners differ in ρ_m and ℓ_m alone.
      num_steps: T.
      discount: γ.
      problem_seed: draws A, B, and who gets what.
    Raises:
      ValueError: a size is not a whole number >= 1, radius or process_noise is negative or not finite, scales do not fit, heterogeneity is negative.
    """
    sizes = {"num_learners": num_learners, "num_states": num_states, "num_actions": num_actions, "num_steps": num_steps}
    at_least("linear_quadratic", **sizes)
    unit_interval("linear_quadratic", discount)
    if not (0 <= radius < math.inf and 0 <= process_noise < math.inf):
        raise ValueError(
            f"linear_quadratic(...) needs radius >= 0 and process_noise >= 0, both finite, got {radius} and {process_noise}; "
            "process_noise=0 leaves the noise out."
        )
    key_tasks, key_dynamics, key_inputs = jax.random.split(jax.random.key(problem_seed), 3)
    dynamics = radius * jax.random.orthogonal(key_dynamics, num_states)
    inputs = (INPUT_VARIANCE / num_states) ** 0.5 * jax.random.normal(key_inputs, (num_states, num_actions))
    tasks = parallel_tasks(
        num_learners,
        scales,
        heterogeneity,
        key_tasks,
        dynamics=(dynamics, 1.05),
        inputs=(inputs, 1.5),
        state_weight=(1.0, 2.0),
        start=(1.0, 2.0),
    )
    identity = jnp.eye(num_states)

    def loss_of(policy: Policy, task: Task, params: Float[Array, " d"]) -> Float[Array, ""]:
        own, nothing = task.extra, jnp.zeros(num_states)
        feedback = jax.vmap(policy.mode, (None, 0), 1)(params, identity)
        spread = policy.sample(jnp.ones(num_actions), params, nothing)[0]  # std of every action
        closed = own["dynamics"] + own["inputs"] @ feedback
        driven = own["inputs"] * spread[None] ** 2 @ own["inputs"].T + process_noise**2 * identity
        weight = own["state_weight"] * identity + ACTION_WEIGHT * feedback.T @ feedback

        # The loss needs E[s sᵀ] alone, and E[s' s'ᵀ] nothing else either, since all noise has mean 0.
        def advance(moment: Float[Array, "n n"], _: None) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
            return closed @ moment @ closed.T + driven, jnp.sum(weight * moment)

        _, losses = jax.lax.scan(advance, own["start"] * identity, length=num_steps)
        exploration = ACTION_WEIGHT * jnp.sum(spread**2)
        return task.scale * discount ** jnp.arange(num_steps, dtype=losses.dtype) @ (losses + exploration)

    def model(policy: Policy) -> Model | None:
        if not policy.linear:
            return None
        value = partial(loss_of, policy)
        return Model(value, jax.grad(value, 1))

    def reset(key: Key[Array, ""], task: Task) -> Float[Array, " n"]:
        return jnp.sqrt(task.extra["start"]) * jax.random.normal(key, (num_states,))

    def step(key: Key[Array, ""], task: Task, state: Float[Array, " n"], action: Float[Array, " A"]) -> Transition:
        own = task.extra
        noise = process_noise * jax.random.normal(key, (num_states,))
        after = own["dynamics"] @ state + own["inputs"] @ action + noise
        return Transition(after, own["state_weight"] * state @ state + ACTION_WEIGHT * action @ action)

    return from_environment(
        Environment(reset, lambda state: state, step),
        linear,
        actions=Box((num_actions,)),
        tasks=tasks,
        num_steps=num_steps,
        discount=discount,
        model=model,
    )
