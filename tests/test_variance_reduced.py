"""Variance reduction: noise by identities on a quadratic, bias on a small MDP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.controller import heavy_ball
from lapg.problems import garnet, quadratic
from lapg.types import Broadcast
from lapg.uplink import memories, triggers
from lapg.uplink.variance_reduction import snapshot, storm
from support import player, quadratic_gradients

ROUNDS, BATCH, LEARNERS, STEP = 12, 2, 3, 0.05
TOLERANCE = 1e-12  # sums of a dozen terms below 100


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=4, scales=(1.0, 0.5, 0.2), noise=0.5)


def play(problem, reduction, memory=None, trigger=None):
    """θ before every round, what the memory holds after it, the gradients' errors by hand, the noise of the gradients, and the decisions."""
    setting = methods.Setting(estimators.noisy(problem.gradient), BATCH, LEARNERS)
    run = player(
        lambda hyper: methods.assemble(
            setting,
            memory=memory or memories.fresh(),
            trigger=trigger or triggers.always(),
            optimiser=heavy_ball(STEP),
            variance_reduction=reduction,
        ),
        problem,
        ROUNDS,
    )
    states, logs = run({})
    params = states.controller.params[:-1]
    return states, logs, params, quadratic_gradients(problem, params, BATCH) - slopes(problem, params)


def slopes(problem, params):
    tasks = jax.tree.map(np.asarray, problem.tasks)
    return tasks.scale[:, None] * tasks.extra["curvature"] * (params[:, None] - tasks.extra["centre"])


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_storm_averages_the_errors_and_follows_the_policy(problem, weight):
    """Oracle: a batch's errors are the same at every θ, so v − ∇L(θ^k) = (1 − β) (that of k − 1) + β (this batch's error); at β = 1 it is PG."""
    states, _, params, errors = play(problem, storm(weight))
    expected = errors[0]
    for k in range(ROUNDS):
        expected = errors[k] if k == 0 else (1 - weight) * expected + weight * errors[k]
        found = states.controller.aggregate[k + 1] - slopes(problem, params)[k].sum(0)
        np.testing.assert_allclose(found, expected.sum(0), atol=TOLERANCE)


@pytest.mark.parametrize(("period", "num_batches"), [(5, 1), (5, 3), (1, 1)])
def test_snapshot_keeps_the_errors_of_its_first_batches(problem, period, num_batches):
    """Oracle: as above, v − ∇L(θ^k) is the mean error of the first ``num_batches`` batches since the last multiple of the period; (1, 1) is PG."""
    states, _, params, errors = play(problem, snapshot(period, num_batches))
    for k in range(ROUNDS):
        begin = k - k % period
        expected = errors[begin : min(k + 1, begin + num_batches)].mean(0)
        found = states.controller.aggregate[k + 1] - slopes(problem, params)[k].sum(0)
        np.testing.assert_allclose(found, expected.sum(0), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("reduction", "shares"),
    [
        (storm(0.3), lambda k: [0.7 ** (k - i) * (0.3 if i else 1.0) for i in range(k + 1)]),
        (snapshot(12, 4), lambda k: [1 / min(k + 1, 4)] * min(k + 1, 4)),
    ],
)
def test_noise_and_the_memory_behind(problem, reduction, shares):
    """Oracle: the noise of Σ_i c_i (error i) is Σ_i c_i² σ̂²_i; under a coin's trigger, on lagged v, aggregate == Σ uploaded."""
    states, logs, _, _ = play(problem, reduction, memories.lagged(), triggers.random(0.5))
    inner = states.learners.memory
    np.testing.assert_allclose(states.controller.aggregate, inner.uploaded.sum(1), atol=TOLERANCE)
    assert logs.sent[1:].any()
    assert not logs.sent[1:].all()
    for k in range(ROUNDS):
        part = np.array(shares(k))[:, None]
        np.testing.assert_allclose(inner.noise[k + 1], np.sum(part**2 * logs.learner.noise[: len(part)], 0), 1e-10)


def test_importance_weights_keep_them_unbiased():
    """Oracle: the exact gradient at the second of two fixed θ, 4 standard errors; a v that does not follow would be off by more.

    Both are less noisy than the plain gradient: at equal θ by (1 − β)² + β² = .58 for two batches, and by 1/2; the weights give some of it back.
    """
    problem = garnet(num_learners=1, num_states=3, num_actions=2, branching=2, num_steps=3)
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    first = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=6))
    second = first + 0.4 * jnp.asarray([1.0, -1, -1, 1, 1, -1])
    estimator = estimators.gpomdp(problem.policy, problem.discount, baseline="none")
    made = {"storm": storm(0.3), "snapshot": snapshot(2, 2)}

    @jax.jit
    @jax.vmap
    def run(key):
        states, reduced = {name: reduction.init(first) for name, reduction in made.items()}, {}
        for k, (one, params) in enumerate(zip(jax.random.split(key), (first, second), strict=True)):
            batch = problem.sample(one, task, params, 2)

            def gradient_at(at, batch=batch):
                return estimator.estimate((), task, at, batch)

            broadcast = Broadcast(jnp.int32(k), params, ())
            plain = gradient_at(params)
            for name in made:
                states[name], reduced[name] = made[name].refine(states[name], broadcast, params, plain, gradient_at)
        return {name: reduced[name].gradient for name in made} | {"plain": plain.gradient}

    found = jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(1), 20_000)))
    exact, spread = np.asarray(problem.gradient(task, second)), found["plain"].var(0).sum()
    moved = exact - np.asarray(problem.gradient(task, first))
    for name in made:
        errors = found[name].std(0) / len(found[name]) ** 0.5
        assert np.abs((found[name].mean(0) - exact) / errors).max() < 4
        assert 0.5 * np.abs(moved / errors).max() > 4  # what a v that does not follow would miss
        assert found[name].var(0).sum() < 0.9 * spread


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: storm(0.0), r"storm\(weight=...\) must lie in \(0, 1\], got 0.0"),
        (lambda: snapshot(3, 4), r"1 <= num_batches <= period, got 3 and 4"),
        (lambda: snapshot(0), r"needs period >= 1"),
    ],
)
def test_wrong_options_are_refused(build, message, unchecked):
    """Oracle: the docstrings."""
    with pytest.raises(ValueError, match=message):
        build()
