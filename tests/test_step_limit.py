"""The step limit: predicted and true divergence of a policy on an MDP of three states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lapg import estimators, methods
from lapg.controller import heavy_ball, limit_step
from lapg.estimators.fisher import fisher_norm
from lapg.methods import Part
from lapg.problems import tabular
from lapg.rounds import sample_batch
from lapg.types import StepLimit
from lapg.uplink.aggregates import arrivals, running_sum
from oracles import markov
from support import player

STEPS, NUM, LEARNERS, ROUNDS, LIMIT = 4, 100, 3, 8, 0.01
RNG = np.random.default_rng(0)
TRANSITIONS, INITIAL = RNG.dirichlet(np.ones(3), (3, 2)), RNG.dirichlet(np.ones(3))
LOSSES = RNG.uniform(0, 0.5, (LEARNERS, 3, 2)) + np.array([[0, 1], [1, 0], [0, 1]])  # learners nearly agree
STEP = 0.5  # without a limit the first step's divergence is above it


@pytest.fixture(scope="module")
def problem():
    """One environment and start for all, so that there is one Fisher matrix; losses differ."""
    initial = jnp.asarray(np.tile(INITIAL, (LEARNERS, 1)))
    return tabular(jnp.asarray(TRANSITIONS), jnp.asarray(LOSSES), initial, num_steps=STEPS)


def divergence(before, after):
    """KL(π_before ‖ π_after) of episodes: Σ_t E KL of the actions at s_t."""
    old, new = (markov.softmax(np.asarray(theta).reshape(3, 2)) for theta in (before, after))
    per_state, chance, total = np.sum(old * np.log(old / new), -1), INITIAL, 0.0
    for _ in range(STEPS):
        total += chance @ per_state
        chance = chance @ np.einsum("sa,sat->st", old, TRANSITIONS)
    return total


def test_half_the_squared_length_is_the_divergence(problem):
    """Oracle: the exact divergence, the mean of v and −v, which leaves ε² = 4e-4 of the fourth order: mean over 400 batches within 4 standard errors."""
    norm, task = fisher_norm(problem.policy), jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    theta, direction = jnp.asarray(RNG.normal(size=6)), jnp.asarray(0.02 * RNG.normal(size=6))
    run = jax.jit(jax.vmap(lambda key: norm(theta, problem.sample(key, task, theta, 20), direction)))
    found = 0.5 * np.asarray(run(jax.random.split(jax.random.key(1), 400))) ** 2
    true = 0.5 * (divergence(theta, theta + direction) + divergence(theta, theta - direction))
    error = found.std() / found.size**0.5
    assert error < 0.03 * true
    assert abs(found.mean() - true) < 4 * error + 4e-4 * true


@pytest.fixture(scope="module")
def runs(problem):
    """By name: states, logs: without a limit; limits ∞ and LIMIT, for PG and for LAPG, which skips uploads."""
    estimator, norm = estimators.gpomdp(problem.policy, problem.discount), fisher_norm(problem.policy)

    setting = methods.Setting(estimator, NUM, LEARNERS)

    def limited(hyper):
        return StepLimit(hyper["limit"], norm) if hyper else None

    def lapg(hyper):
        return methods.compose(
            "lapg",
            setting,
            step_limit=limited(hyper),
            optimiser=Part("sgd", step_size=STEP, momentum=0.5),
            trigger=Part(noise_weight=2.0),
        )

    pg = player(
        lambda hyper: methods.compose("pg", setting, step_limit=limited(hyper), optimiser=Part("sgd", step_size=STEP)),
        problem,
        ROUNDS,
    )
    lazy = player(lapg, problem, ROUNDS)
    found = {"plain": pg({})}
    for limit in (np.inf, LIMIT):
        found["pg", limit], found["lapg", limit] = pg({"limit": limit}), lazy({"limit": limit})
    return found


def test_no_limit_only_costs_a_scalar(runs):
    """Oracle: at limit ∞ the same run, and 64 bits more for every upload of 6 numbers."""
    (states, logs), (same, more) = runs["plain"], runs["pg", np.inf]
    np.testing.assert_allclose(same.controller.params, states.controller.params, 1e-12, 1e-12)
    np.testing.assert_array_equal(logs.uplink_bits, 6 * 64)
    np.testing.assert_array_equal(more.uplink_bits, 7 * 64)


@pytest.mark.parametrize("method", ["pg", "lapg"])
def test_steps_stay_within_the_limit(runs, method):
    """Oracle: the exact divergence of every step. Without a limit it is beyond 2 LIMIT; lengths from 100 episodes and the third order leave 20 %.

    Learners that nearly agree leave little slack to the triangle inequality: PG's longest step is beyond half the limit.
    """
    params = runs[method, LIMIT][0].controller.params
    steps = np.array([divergence(*pair) for pair in itertools.pairwise(params)])
    free = runs[method, np.inf][0].controller.params
    assert max(divergence(*pair) for pair in itertools.pairwise(free)) > 2 * LIMIT
    assert steps.max() < 1.2 * LIMIT
    assert method == "lapg" or steps.max() > LIMIT / 2


def test_a_silent_learner_keeps_its_length(problem, runs):
    """Oracle: recomputed: the controller's length of learner m is that of all that m has uploaded, on the batch of its last upload."""
    states, logs = runs["lapg", LIMIT]
    assert logs.sent[1:].any()
    assert not logs.sent[1:].all()
    norm, root = fisher_norm(problem.policy), jax.random.key(0)

    @jax.jit
    def measure(params, uploaded):
        def one(k, theta, shares):
            batch = jax.vmap(lambda task: sample_batch(problem, root, task, theta, k, 0, NUM))(problem.tasks)
            return jax.vmap(norm, (None, 0, 0))(theta, batch, shares)

        return jax.vmap(one)(jnp.arange(ROUNDS), params, uploaded)

    found = np.asarray(measure(states.controller.params[:-1], states.learners.memory.uploaded[1:]))
    expected = np.zeros(LEARNERS)
    for k in range(ROUNDS):
        expected = np.where(logs.sent[k], found[k], expected)
        np.testing.assert_allclose(states.controller.optimiser[1][k + 1], expected, 1e-9)


@pytest.mark.parametrize("aggregate", [running_sum(), arrivals()])
def test_lengths_by_hand(aggregate):
    """Oracle: NumPy: r ← β r + Σ q, steps α t · min(1, (2·LIMIT)^½ / (α r)) of the momentum t; shares that are applied once count once."""
    transform = limit_step(heavy_ball(0.1, 0.5), LIMIT, 2, aggregate)
    state = transform.init(jnp.zeros(3))
    trace, reach, held, shrunk = np.zeros(3), 0.0, np.zeros(2), []
    for sent, lengths in (([1, 1], [0.1, 0.2]), ([1, 0], [2.0, 0.0]), ([0, 1], [0.0, 0.3]), ([0, 0], [0.0, 0.0])):
        gradient, here = RNG.normal(size=3), np.array(sent, bool)
        step, state = transform.update(
            jnp.asarray(gradient), state, jnp.zeros(3), sent=jnp.asarray(here), lengths=jnp.asarray(lengths)
        )
        held = np.where(here, lengths, held if aggregate.keeps_shares else 0)
        trace, reach = 0.5 * trace + gradient, 0.5 * reach + held.sum()
        shrunk.append(min(1, (2 * LIMIT) ** 0.5 / (0.1 * reach)))
        np.testing.assert_allclose(step, -0.1 * trace * shrunk[-1], 1e-12)
    assert min(shrunk) < 1
    assert max(shrunk) == 1


@pytest.mark.parametrize(
    ("optimiser", "limit", "message"),
    [
        (heavy_ball(0.1), 0.0, r"step_limit.limit must be > 0, got 0.0"),
        (optax.adam(0.1), 0.1, r"linear in the gradients.*use optimiser sgd"),
    ],
)
def test_wrong_limits_are_refused(optimiser, limit, message):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=message):
        limit_step(optimiser, limit, 2, arrivals())
