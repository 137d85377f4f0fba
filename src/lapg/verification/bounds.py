"""Assumption 2's constants and Lemmas 2, 3, 5, 6 against enumeration, batches and measured Hessians, each with its tightness."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from lapg import estimators, theory
from lapg.policies import categorical, softmax_table
from lapg.policies import product as product_policy
from lapg.problems import garnet
from lapg.types import Policy, Problem, Task, Trajectories
from lapg.verification.families import TABLE, gradients, quadratics, rescaled, spread_scales, tables
from lapg.verification.play import many
from lapg.verification.rows import Row, compare

STEPS, DISCOUNT, BATCH = 3, 0.7, 10


def widths(key: Key[Array, ""]) -> Float[Array, ""]:
    """How far θ is drawn from 0: over two decades, from nearly uniform policies to nearly deterministic ones."""
    return 10.0 ** jax.random.uniform(key, minval=-1.0, maxval=1.0)


def draw(key: Key[Array, ""], size: int) -> Float[Array, " d"]:
    """A random θ of a random width."""
    width, direction = jax.random.split(key)
    return widths(width) * jax.random.normal(direction, (size,))


def assumption(num: int, seed: int) -> list[Row]:
    """G and F in closed form: log-linear softmax, a table, and the product of the two."""
    features = jax.random.normal(jax.random.key(seed), (3, 4, 5))
    linear = categorical(
        lambda params, state: features[state] @ params,
        jax.random.normal,
        5,
        theory.linear_softmax_bounds(features),
    )
    table = softmax_table(3, 4)
    rows = []
    for policy, where, joint in (
        (linear, "log-linear softmax", False),
        (table, "tabular softmax", False),
        (product_policy((linear, table)), "product of the two", True),
    ):
        bounds = policy.score_bounds
        assert bounds is not None
        scores, hessians = many(lambda key, policy=policy, joint=joint: _scores(policy, joint, key), seed, num)
        rows.append(compare("Assumption 2: ‖∇log π‖ ≤ G", where, scores, bounds.score, rounding=1e-12))
        rows.append(
            compare("Assumption 2: ‖∇²log π‖ ≤ F", where, spectral_norms(hessians), bounds.hessian, rounding=1e-12)
        )
    return rows


def _scores(policy: Policy, joint: bool, key: Key[Array, ""]) -> Any:
    """‖∇log π‖ and ‖∇²log π‖ at a random θ, state and every action."""
    place, state = jax.random.split(key)
    params, here = draw(place, policy.num_params), jax.random.randint(state, (), 0, 3)

    def one(action: Any) -> Any:
        def log_prob(params: Any) -> Any:
            return (
                policy.log_prob(params, (here, here), (action, action))
                if joint
                else policy.log_prob(params, here, action)
            )

        return jnp.linalg.norm(jax.grad(log_prob)(params)), jax.hessian(log_prob)(params)

    return jax.vmap(one)(jnp.arange(4))


def spectral_norms(matrices: ArrayLike) -> np.ndarray:
    """‖A‖ of symmetric matrices [..., d, d]; by NumPy, as compiling such decompositions takes longer than computing them."""
    return np.abs(np.linalg.eigvalsh(np.asarray(matrices))).max(-1)


def smoothness(num: int, seed: int) -> list[Row]:
    """Lemma 3: Hessians of every L_m, at random θ, by automatic differentiation."""
    rows = []

    def hessians(problem: Problem, key: Key[Array, ""]) -> Any:
        assert problem.value is not None
        value, params = problem.value, draw(key, jax.eval_shape(problem.init, key).shape[0])
        return jax.vmap(lambda task: jax.hessian(value, 1)(task, params))(problem.tasks)

    def quadratic(key: Key[Array, ""]) -> Any:
        case = quadratics()(key)
        return hessians(case.problem, key), case.smoothness

    left, right = many(quadratic, seed, num)
    left = spectral_norms(left)
    rows.append(compare("Lemma 3: ‖∇²L_m‖ ≤ L_m", "quadratics, L_m exact", left, right, rounding=1e-12 * right))
    for discount in (0.5, 0.9):

        def table(key: Key[Array, ""], discount: float = discount) -> Any:
            case = tables(discount=discount, num_steps=1, infinite=True)(key)
            bound: Any = case.problem.loss_bound
            losses = jax.vmap(bound)(case.problem.tasks)
            return hessians(case.objective, key), theory.smoothness(TABLE, losses, discount), case.smoothness

        left, right, sharp = many(table, seed, num)
        left = spectral_norms(left)
        where = f"random MDPs, γ={discount}"
        rows.append(compare("Lemma 3, (18) corrected: ‖∇²L_m‖ ≤ L_m", where, left, right))
        rows.append(compare("Lemma 3, sharper: (F+G²)ℓ̄/(1−γ)²", where, left, sharp))
    return rows


def truncation(num: int, seed: int) -> list[Row]:
    """Lemma 6: gradients of the infinite horizon by linear solve, of T steps by backward recursion."""
    rows = []
    for num_steps in (1, 8):

        def gap(key: Key[Array, ""], num_steps: int = num_steps) -> Any:
            case = tables(discount=0.7, num_steps=num_steps, infinite=True)(key)
            params = draw(key, 12)
            difference = jnp.sum(gradients(case.objective, params) - gradients(case.problem, params), 0)
            return jnp.linalg.norm(difference), case.truncation

        left, right = many(gap, seed, num)
        rows.append(compare("Lemma 6: ‖∇L − ∇_T L‖ ≤ σ_T", f"random MDPs, γ=0.7, T={num_steps}", left, right))
    return rows


# ---------------------------------------------------------------- by enumeration


def _tiny(key: Key[Array, ""]) -> tuple[Problem, Float[Array, " d"]]:
    """Two states, two actions, three steps: 64 episodes."""
    seed, scales, place = jax.random.split(key, 3)
    problem = garnet(
        num_learners=2,
        num_states=2,
        num_actions=2,
        branching=2,
        num_steps=STEPS,
        discount=DISCOUNT,
        problem_seed=jax.random.bits(seed, dtype=jnp.uint32),
    )
    return rescaled(problem, spread_scales(scales, 2)), draw(place, 4)


def every_episode() -> tuple[np.ndarray, np.ndarray]:
    """All state and action sequences of a tiny MDP, [64, T] each."""
    every = np.array(list(product(range(2), repeat=2 * STEPS)), np.int32)
    return every[:, :STEPS], every[:, STEPS:]


def gradients_of(
    problem: Problem, task: Task, params: Float[Array, " d"], states: np.ndarray, actions: np.ndarray
) -> Float[Array, "E d"]:
    """The real estimator on each of E episodes by itself."""
    policy = problem.policy
    assert policy is not None
    estimator = estimators.gpomdp(policy, problem.discount, baseline="none")

    def one(states: Any, actions: Any) -> Any:
        log_probs = jax.vmap(policy.log_prob, (None, 0, 0))(params, states, actions)
        losses = task.scale * task.extra["losses"][states, actions]
        mask = jnp.ones(states.shape, bool)
        last = jnp.arange(mask.size) == mask.size - 1
        batch = Trajectories(states, actions, log_probs, losses, mask, ~mask, last, following=())
        return estimator.estimate((), task, params, jax.tree.map(lambda leaf: leaf[None], batch)).gradient

    return jax.vmap(one)(jnp.asarray(states), jnp.asarray(actions))


def deviations(num: int, seed: int) -> list[Row]:
    """Lemma 5: the largest deviation of any episode's gradient, by enumeration."""

    def one(key: Key[Array, ""]) -> Any:
        problem, params = _tiny(key)
        return _largest_deviation(problem, params), _deviation_bounds(problem)

    left, right = many(one, seed, num)
    return [compare("Lemma 5, (30): ‖ĝ − ∇_T L_m‖ ≤ V_m", "tiny MDPs, all 64 episodes", left, right)]


def _largest_deviation(problem: Problem, params: Float[Array, " d"]) -> Float[Array, " M"]:
    single = jax.vmap(lambda task: gradients_of(problem, task, params, *every_episode()))(problem.tasks)
    return jnp.max(jnp.linalg.norm(single - gradients(problem, params)[:, None], axis=-1), 1)


def _deviation_bounds(problem: Problem) -> Any:
    assert problem.loss_bound is not None
    losses = jax.vmap(problem.loss_bound)(problem.tasks)
    return theory.deviation_bound(TABLE.score, losses, problem.discount, problem.num_steps)


def concentration(num: int, seed: int, num_batches: int = 400) -> list[Row]:
    """Lemma 2: many batches of real samples through the real estimator, with V_m and with the exact largest deviation in its place."""
    levels = np.array([0.5, 0.1, 0.01])

    def one(key: Key[Array, ""]) -> Any:
        make, sample = jax.random.split(key)
        problem, params = _tiny(make)
        policy = problem.policy
        assert policy is not None
        assert problem.sample is not None
        estimator, draw_batch = estimators.gpomdp(policy, problem.discount, baseline="none"), problem.sample

        def error(task: Task, exact: Any, key: Any) -> Any:
            batch = draw_batch(key, task, params, BATCH)
            return jnp.sum((estimator.estimate((), task, params, batch).gradient - exact) ** 2)

        keys = jax.random.split(sample, num_batches)
        each = jax.vmap(jax.vmap(error, (None, None, 0)), (0, 0, None))
        errors = each(problem.tasks, gradients(problem, params), keys)
        return jnp.sort(errors, -1), _deviation_bounds(problem), _largest_deviation(problem, params)

    errors, bounds, exact = many(one, seed, num)
    # P(‖·‖² > bound) ≤ p, where 2MK/δ in (15) is 2/p for one learner and one batch
    places = np.minimum(np.ceil((1 - levels) * num_batches).astype(int), num_batches - 1)
    quantiles = errors[..., places]
    rows = []
    for deviation, text in ((bounds, "V_m"), (exact, "the exact largest deviation for V_m")):
        right = np.stack(
            [theory.concentration_bound(deviation, BATCH, 1, p * deviation.size, form="corrected") for p in levels],
            -1,
        )
        rows.append(
            compare(
                "Lemma 2, (15): quantiles of ‖ĝ − ∇_T L_m‖²",
                f"tiny MDPs, {num_batches} batches of {BATCH}, {text}",
                quantiles,
                right,
                note="quantiles at 50, 90 and 99 % against the bounds of that probability",
            )
        )
    return rows
