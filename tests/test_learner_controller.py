"""The learner and the controller as wholes: limits, symmetries and edge cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.learner import make_learner
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.types import Broadcast, Estimate, Estimator, Local
from lapg.uplink import memories, triggers
from lapg.uplink.compressors import identity
from support import full, player, quadratic_gradients

ROUNDS, STEP = 25, 0.05
# θ is below 10 and adds up 25 steps of three gradients each, in another order: 100 · 10 · 2.2e-16.
TOLERANCE = 3e-13


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=3, dimension=4, scales=(1.0, 0.5, 0.2), noise=0.5)


@pytest.fixture(scope="module")
def certain(problem):
    return methods.Setting(estimators.exact(problem.gradient), 1, 3)


@pytest.fixture(scope="module")
def noisy(problem):
    return methods.Setting(estimators.noisy(problem.gradient), 2, 3)


@pytest.fixture(scope="module")
def pg_run(problem, noisy):
    return player(lambda hyper: methods.compose("pg", noisy, hyper=full(hyper)), problem, ROUNDS)(
        {"step_size": STEP, "momentum": 0.6}
    )


def test_heavy_ball_by_hand(problem, pg_run):
    """Oracle: θ − α Σ_m g_m + β(θ − θ^{k−1}) in NumPy on recomputed gradients."""
    params = pg_run[0].controller.params
    gradients = quadratic_gradients(problem, params[:-1], 2).sum(1)
    before = params[0]
    for k in range(ROUNDS):
        expected = params[k] - STEP * gradients[k] + 0.6 * (params[k] - before)
        np.testing.assert_allclose(params[k + 1], expected, atol=TOLERANCE)
        before = params[k]


def test_lapg_without_threshold_is_pg(problem, noisy, pg_run):
    """Oracle: at c = ξ = 0 every innovation fires, and the sum of innovations is the sum of gradients."""
    hyper = {"step_size": STEP, "momentum": 0.6, "xi": 0.0, "noise_weight": 0.0}
    states, logs = player(lambda hyper: methods.compose("lapg", noisy, hyper=full(hyper)), problem, ROUNDS)(hyper)
    np.testing.assert_allclose(states.controller.params, pg_run[0].controller.params, atol=TOLERANCE)
    assert logs.sent.all()


def test_one_learner_is_gradient_descent():
    """Oracle: θ_k = b + (1 − α c λ)^k (θ_0 − b), entry by entry."""
    problem = quadratic(num_learners=1, dimension=4, scales=(0.7,))
    setting = methods.Setting(estimators.exact(problem.gradient), 1, 1)
    states, _ = player(lambda hyper: methods.compose("pg", setting, hyper=full(hyper)), problem, ROUNDS)(
        {"step_size": 0.3}
    )
    extra, start = jax.tree.map(lambda leaf: np.asarray(leaf)[0], problem.tasks.extra), states.controller.params[0]
    shrink = (1 - 0.3 * 0.7 * extra["curvature"]) ** np.arange(ROUNDS + 1)[:, None]
    expected = extra["centre"] + shrink * (start - extra["centre"])
    np.testing.assert_allclose(states.controller.params, expected, atol=TOLERANCE)


def test_never_keeps_one_direction(problem, certain):
    """Oracle: θ_k = θ_0 − k α g_0, and one upload each."""
    states, logs = player(lambda hyper: methods.compose("never", certain, hyper=full(hyper)), problem, ROUNDS)(
        {"step_size": STEP}
    )
    params = states.controller.params
    start = (
        problem.tasks.scale[:, None] * problem.tasks.extra["curvature"] * (params[:1] - problem.tasks.extra["centre"])
    )
    expected = params[0] - np.arange(ROUNDS + 1)[:, None] * STEP * np.asarray(start).sum(0)
    np.testing.assert_allclose(params, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(logs.sent.sum(0), 1)
    np.testing.assert_array_equal(logs.learner.staleness, np.arange(ROUNDS)[:, None].repeat(3, 1))


@pytest.mark.parametrize(
    "recipe",
    [
        lambda setting: methods.compose(
            "lapg",
            setting,
            optimiser=Part("sgd", step_size=STEP),
            trigger=Part(noise_bound=[0.02] * 3, noise_weight=1.0),
        ),
        lambda setting: methods.compose(
            "lapg",
            setting,
            optimiser=Part("sgd", step_size=STEP),
            memory=Part("running_average", weight=0.3),
            trigger=Part(noise_bound=[0.002] * 3),
        ),
    ],
)
def test_order_of_learners_does_not_matter(problem, certain, recipe):
    """Oracle: symmetry: tasks in another order leave θ alone and permute the decisions."""
    order = np.array([2, 0, 1])
    moved = jax.tree.map(lambda leaf: leaf[order], problem.tasks)
    moved = type(moved)(problem.tasks.index, moved.scale, moved.extra)
    states, logs = player(lambda hyper: recipe(certain), problem, ROUNDS)({})
    others, other_logs = player(lambda hyper: recipe(certain), problem._replace(tasks=moved), ROUNDS)({})
    np.testing.assert_allclose(others.controller.params, states.controller.params, atol=TOLERANCE)
    np.testing.assert_array_equal(other_logs.sent, logs.sent[:, order])
    assert len(np.unique(logs.sent.sum(0))) > 1  # learners differ, so the order shows


@pytest.mark.parametrize(
    "recipe",
    [
        lambda setting: methods.compose("pg", setting, optimiser=Part("sgd", step_size=STEP)),
        lambda setting: methods.compose(
            "lapg", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(xi=0.0, noise_weight=0.0)
        ),
        lambda setting: methods.compose(
            "awapg", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(threshold=1e-09)
        ),
    ],
)
def test_non_finite_innovations_stay_at_home(problem, recipe):
    """Oracle: learner 1 breaks in rounds 3 and 4 of methods that otherwise always upload: it is silent there, says so, and is back in round 5."""

    def estimate(calls, task, params, batch):
        broken = (task.index == 1) & ((calls == 3) | (calls == 4))
        return Estimate(jnp.where(broken, jnp.nan, problem.gradient(task, params)), jnp.zeros(()), jnp.ones(()))

    estimator = Estimator(lambda key, params: jnp.int32(-1), lambda calls, task, batch: calls + 1, estimate)
    setting = methods.Setting(estimator, 2, 3)
    states, logs = player(lambda hyper: recipe(setting), problem, 7)({})
    expected = np.ones((7, 3), bool)
    expected[3:5, 1] = False
    np.testing.assert_array_equal(logs.sent, expected)
    np.testing.assert_array_equal(logs.learner.non_finite, ~expected)
    assert np.isfinite(states.controller.params).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states.controller.trigger))


def test_silence_costs_nothing():
    """Oracle: two rounds of one learner: a first upload of 4 float64 and a float64 report, then silence: zeros, no bits, age 1."""
    trigger = triggers.age_weighted(1e9, num_learners=2, max_age=None)
    estimator = estimators.stateless(lambda task, params, batch: Estimate(params + 1, jnp.ones(()), jnp.ones(())))
    learner = make_learner(estimator, memories.lagged(), identity(), trigger)
    task = jax.tree.map(lambda leaf: leaf[0], quadratic(num_learners=1, dimension=4).tasks)
    params = jnp.arange(4.0)

    @jax.jit
    def run(key):
        state, replies = learner.init(key, jnp.int32(0), params), []
        for k in range(2):
            state, *reply = learner.reply(key, task, state, Broadcast(jnp.int32(k), params, jnp.ones(())), ())
            replies.append(reply)
        return state, replies

    state, ((first, _), (second, log)) = jax.tree.map(np.asarray, run(jax.random.key(0)))
    assert first.sent
    np.testing.assert_array_equal(first.message, [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(first.report, 30**0.5)
    assert first.bits == 5 * 64
    assert not second.sent
    np.testing.assert_array_equal(second.message, 0)
    assert (second.report, second.bits, log.staleness, state.sent_round) == (0, 0, 1, 0)
    np.testing.assert_array_equal(state.memory.value, [1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda s: methods.compose("lapg", s._replace(batch_size=1), optimiser=Part("sgd", step_size=0.1)),
            r"batch_size must be >= 2 for this trigger, got 1",
        ),
        (
            lambda s: methods.compose(
                "lapg", s, optimiser=Part("sgd", step_size=0.1), trigger=Part(xi=[0.1, 0.1], window=10)
            ),
            r"trigger.xi must have 1 or window=10 entries, got 2",
        ),
        (
            lambda s: methods.compose("lapg", s, optimiser=Part("sgd", step_size=0.1), trigger=Part(window=0)),
            r"trigger.window must be >= 1, got 0",
        ),
        (
            lambda s: methods.compose(
                "pg",
                s._replace(estimator=estimators.stateless(None, minimum_batch=3)),
                optimiser=Part("sgd", step_size=0.1),
            ),
            r"batch_size must be >= 3 for this estimator, got 2",
        ),
    ],
)
def test_wrong_methods_are_refused(noisy, build, message, unchecked):
    """Oracle: the docstrings; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        build(noisy)


def test_estimates_use_the_batch_that_the_updated_state_has_prepared():
    """Oracle: an estimator that counts rounds, prepares count · 100 + batch, and returns the first entries that it is given: all, and two of them in a minibatch."""
    estimator = Estimator(
        lambda key, params: jnp.zeros(()),
        lambda count, task, batch: count + 1,
        lambda count, task, params, data: Estimate(data[:2], None, jnp.ones(())),
        knows_noise=False,
        prepare=lambda count, task, params, batch: 100 * count + batch,
    )
    task = jax.tree.map(lambda leaf: leaf[0], quadratic(num_learners=1, dimension=2).tasks)
    seen = []

    def walk(key, state, params, estimate, gradient_at, num):
        part = gradient_at(params, jnp.array([3, 2])).gradient
        return state, Estimate(jnp.append(estimate.gradient, part), None, jnp.ones(()))

    learner = make_learner(
        estimator, memories.fresh(), identity(), triggers.always(), local=Local(walk=walk), num_entries=4
    )
    state = learner.init(jax.random.key(0), jnp.int32(0), jnp.zeros(4))
    for k in range(2):
        broadcast = Broadcast(jnp.int32(k), jnp.zeros(4), ())
        state, upload, _ = learner.reply(jax.random.key(k), task, state, broadcast, jnp.arange(4.0))
        seen.append(upload.message)
    np.testing.assert_array_equal(seen, [[100, 101, 103, 102], [200, 201, 203, 202]])
