"""Gradient estimators and exact gradients on a Markov decision process small enough to enumerate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators
from lapg.policies import softmax_table
from lapg.problems import tabular
from lapg.problems.builders import make_tasks
from lapg.rollouts import rollouts
from lapg.types import Environment, Transition
from oracles import markov

STEPS, DISCOUNT, NUM, BATCHES, SCALE = 4, 0.8, 2, 20_000, 0.5
KINDS = [(rule, baseline) for rule in ("reinforce", "gpomdp") for baseline in ("none", "leave_one_out")]

RNG = np.random.default_rng(0)
TRANSITIONS = RNG.dirichlet(np.ones(3), (3, 2))
LOSSES = RNG.uniform(0, 0.5, (2, 3, 2)) + 2 * np.array(
    [[0, 1], [0, 1], [1, 0]]
)  # actions matter: the gradient stands out of the noise
INITIAL = RNG.dirichlet(np.ones(3), 2)
THETA = 0.3 * RNG.normal(size=6)
ELSEWHERE = THETA + 0.5 * np.array([1, -1, 1, -1, -1, 1])


def make(num_steps):
    arrays = [jnp.asarray(each) for each in (TRANSITIONS, LOSSES, INITIAL)]
    return tabular(*arrays, scales=(1.0, SCALE), num_steps=num_steps, horizon=STEPS, discount=DISCOUNT)


@pytest.fixture(scope="module")
def problem():
    return make(STEPS)


@pytest.fixture(scope="module")
def task(problem):
    """Learner 1, whose scale, losses and start are its own."""
    return jax.tree.map(lambda leaf: leaf[1], problem.tasks)


def true_value(theta):
    return SCALE * markov.value_by_enumeration(theta, TRANSITIONS, LOSSES[1], INITIAL[1], STEPS, DISCOUNT)


def true_gradient(theta):
    moments = SCALE * markov.score_moments(theta, TRANSITIONS, LOSSES[1], INITIAL[1], STEPS, DISCOUNT)
    return moments[np.arange(STEPS), np.arange(STEPS)].sum(0)


def make_estimator(problem, rule, baseline, **more):
    return getattr(estimators, rule)(problem.policy, DISCOUNT, baseline=baseline, **more)


@pytest.fixture(scope="module")
def estimates(problem, task):
    """(rule, baseline) → estimates of many batches at the behaviour policy and elsewhere, all on the same samples."""

    @jax.jit
    @jax.vmap
    def run(key):
        batch = problem.sample(key, task, jnp.asarray(THETA), NUM)
        made = [make_estimator(problem, *kind) for kind in KINDS]
        return [[e.estimate((), task, jnp.asarray(at), batch) for at in (THETA, ELSEWHERE)] for e in made]

    results = run(jax.random.split(jax.random.key(1), BATCHES))
    return dict(zip(KINDS, jax.tree.map(np.asarray, results), strict=True))


def z_scores(draws, expected):
    return (draws.mean(0) - expected) / (draws.std(0, ddof=1) / len(draws) ** 0.5)


def test_truncated_value_is_the_mean_over_all_episodes(problem, task):
    """Oracle: enumeration of all 6^4 episodes. A sum of 1,296 terms in float64 keeps 1e-12."""
    np.testing.assert_allclose(problem.value(task, jnp.asarray(THETA)), true_value(THETA), 1e-12)


def test_infinite_value_is_the_limit_of_value_iteration(task):
    """Oracle: 200 sweeps of value iteration; .8^200 = 4e-20 is left out."""
    expected = SCALE * markov.value_by_iteration(THETA, TRANSITIONS, LOSSES[1], INITIAL[1], DISCOUNT, 200)
    np.testing.assert_allclose(make(None).value(task, jnp.asarray(THETA)), expected, 1e-12)


@pytest.mark.parametrize("num_steps", [STEPS, None])
def test_exact_gradient_is_the_slope_of_the_value(task, num_steps):
    """Oracle: central differences of the enumerated or iterated value; h²|f'''| + eps |f| / h < 1e-10 + 1e-10 at h = 1e-5."""

    def value(theta):
        if num_steps is not None:
            return true_value(theta)
        return SCALE * markov.value_by_iteration(theta, TRANSITIONS, LOSSES[1], INITIAL[1], DISCOUNT, 200)

    estimate = estimators.exact(make(num_steps).gradient).estimate((), task, jnp.asarray(THETA), None)
    np.testing.assert_allclose(estimate.gradient, markov.difference_quotient(value, THETA, 1e-5), atol=1e-9)
    assert estimate.noise == 0


@pytest.mark.parametrize("kind", KINDS)
def test_estimators_are_unbiased(estimates, kind):
    """Oracle: the gradient by enumeration; 6 entries within 4 standard errors, which are below 2 % of its length."""
    draws, exact = estimates[kind][0].gradient, true_gradient(THETA)
    assert np.abs(z_scores(draws, exact)).max() < 4
    assert (draws.std(0) / BATCHES**0.5).max() < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("kind", KINDS)
def test_importance_weights_give_the_gradient_elsewhere(estimates, kind):
    """Oracle: the gradient by enumeration at another θ, 4 standard errors; unweighted, the mean would be the one at the behaviour's θ."""
    draws, exact = estimates[kind][1].gradient, true_gradient(ELSEWHERE)
    assert np.abs(z_scores(draws, exact)).max() < 4
    assert np.abs(z_scores(draws, true_gradient(THETA))).max() > 8


@pytest.mark.parametrize("rule", ["reinforce", "gpomdp"])
def test_noise_without_baseline_is_the_variance(estimates, rule):
    """Oracle: E‖ḡ − ∇L‖², paired with the noise of the same batch, 4 standard errors."""
    estimate = estimates[rule, "none"][0]
    squared = np.sum((estimate.gradient - true_gradient(THETA)) ** 2, -1)
    assert abs(z_scores(squared - estimate.noise, 0)) < 4


@pytest.mark.parametrize("rule", ["reinforce", "gpomdp"])
def test_noise_with_leave_one_out_is_low_by_what_the_pairs_share(estimates, rule):
    """Oracle: Cov(g_n, g_j) = Σ_tu C_tu·C_ut / (N−1)², C_tu = E[Z_t γ^u ℓ_u] by enumeration; REINFORCE has Z_t = Z_T and so ‖∇L‖²/(N−1)²."""
    moments = SCALE * markov.score_moments(THETA, TRANSITIONS, LOSSES[1], INITIAL[1], STEPS, DISCOUNT)
    if rule == "reinforce":
        moments = np.broadcast_to(moments[-1:], moments.shape)
    shared = np.sum(moments * moments.transpose(1, 0, 2)) / (NUM - 1) ** 2
    if rule == "reinforce":
        np.testing.assert_allclose(shared, np.sum(true_gradient(THETA) ** 2) / (NUM - 1) ** 2)
    estimate = estimates[rule, "leave_one_out"][0]
    missing = np.sum((estimate.gradient - true_gradient(THETA)) ** 2, -1) - estimate.noise
    assert abs(z_scores(missing, shared)) < 4
    assert z_scores(missing, 0) > 8


def test_leave_one_out_and_per_decision_weights_reduce_the_noise(estimates):
    """Oracle: the textbook order of variances, on the same samples."""
    spread = {kind: each[0].gradient.var(0).sum() for kind, each in estimates.items()}
    assert spread["gpomdp", "none"] < spread["reinforce", "none"]
    assert spread["gpomdp", "leave_one_out"] < spread["gpomdp", "none"]


def test_effective_samples(problem, task, estimates):
    """Oracle: (Σw)²/Σw² with w = π'(episode)/π(episode) in NumPy; N on-policy."""
    batch = jax.jit(lambda key: problem.sample(key, task, jnp.asarray(THETA), 5))(jax.random.key(2))
    weights = 1.0
    for t in range(STEPS):
        at = (batch.observations[:, t], batch.actions[:, t])
        new, old = (markov.softmax(theta.reshape(3, 2))[at] for theta in (ELSEWHERE, THETA))
        weights = weights * new / old
    estimator = make_estimator(problem, "gpomdp", "none")
    found = jax.jit(lambda at: estimator.estimate((), task, at, batch).effective_samples)
    np.testing.assert_allclose(found(jnp.asarray(ELSEWHERE)), weights.sum() ** 2 / np.sum(weights**2), 1e-12)
    np.testing.assert_allclose(found(jnp.asarray(THETA)), 5, 1e-12)


def test_time_average_divides_by_the_steps(problem, task):
    """Oracle: linearity; the estimate is 1/T of the sum's and its noise 1/T². N = 1 cannot tell its noise."""

    @jax.jit
    def run(key):
        batch = problem.sample(key, task, jnp.asarray(THETA), 3)
        one = jax.tree.map(lambda leaf: leaf[:1], batch)
        plain = make_estimator(problem, "gpomdp", "leave_one_out").estimate((), task, jnp.asarray(THETA), batch)
        mean = make_estimator(problem, "gpomdp", "leave_one_out", time_average=True)
        single = make_estimator(problem, "gpomdp", "none").estimate((), task, jnp.asarray(THETA), one)
        return plain, mean.estimate((), task, jnp.asarray(THETA), batch), single

    plain, mean, single = run(jax.random.key(3))
    np.testing.assert_allclose(mean.gradient, plain.gradient / STEPS, 1e-13)
    np.testing.assert_allclose(mean.noise, plain.noise / STEPS**2, 1e-13)
    assert np.isposinf(single.noise)
    assert np.isfinite(single.gradient).all()


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_nothing_counts_after_the_end(ending):
    """Oracle: an environment that ends in state 3, entered after three steps; the score and the loss of three steps, by hand."""
    steps, length = 6, 3
    environment = Environment(
        reset=lambda key, task: jnp.int32(0),
        observe=lambda state: jnp.where(state > length, -1, state),
        step=lambda key, task, state, action: Transition(state + 1, 2.0 + action, **{ending: state + 1 >= length}),
    )
    policy = softmax_table(4, 2)
    task = jax.tree.map(lambda leaf: leaf[0], make_tasks(1, [0.5]))
    theta = jnp.asarray(np.random.default_rng(4).normal(size=8))
    estimator = estimators.reinforce(policy, DISCOUNT, baseline="none")

    @jax.jit
    def run(key):
        batch = rollouts(environment, policy, steps)(key, task, theta, 3)
        return batch, estimator.estimate((), task, theta, batch)

    batch, estimate = jax.tree.map(np.asarray, run(jax.random.key(5)))
    np.testing.assert_array_equal(batch.mask, np.arange(steps)[None].repeat(3, 0) < length)
    np.testing.assert_allclose(batch.losses, np.where(batch.mask, 0.5 * (2.0 + batch.actions), 0))
    np.testing.assert_array_equal(batch.observations, np.minimum(np.arange(steps), length)[None].repeat(3, 0))
    np.testing.assert_array_equal(batch.following, np.minimum(np.arange(1, steps + 1), length)[None].repeat(3, 0))
    last = np.arange(steps)[None].repeat(3, 0) == length - 1
    np.testing.assert_array_equal(batch.terminated, last & (ending == "terminated"))
    np.testing.assert_array_equal(batch.truncated, last & (ending == "truncated"))
    expected = np.zeros((3, 4, 2))
    for n in range(3):
        cost = sum(DISCOUNT**t * batch.losses[n, t] for t in range(length))
        for t in range(length):
            expected[n, t] -= markov.softmax(np.asarray(theta).reshape(4, 2)[t]) * cost
            expected[n, t, batch.actions[n, t]] += cost
    np.testing.assert_allclose(estimate.gradient, expected.mean(0).ravel(), 1e-12, 1e-15)


def test_noisy_gradient_and_noise_by_hand():
    """Oracle: draws 1, 3, 5 about a slope of 10: mean 13, variance of the mean 8/(3·2)."""
    estimator = estimators.noisy(lambda task, params: jnp.full(1, 10.0))
    task = jax.tree.map(lambda leaf: leaf[0], make_tasks(1, None))
    estimate = estimator.estimate((), task, jnp.zeros(1), {"noise": jnp.asarray([[1.0], [3.0], [5.0]])})
    np.testing.assert_allclose([estimate.gradient[0], estimate.noise, estimate.effective_samples], [13, 8 / 6, 3])


def test_unknown_baseline_is_refused(unchecked):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=r"baseline must be 'none' or 'leave_one_out', got 'mean'"):
        estimators.gpomdp(softmax_table(2, 2), 0.9, baseline="mean")
