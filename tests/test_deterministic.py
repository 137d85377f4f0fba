"""The deterministic policy gradient against linear-quadratic control, where Q and the gradient are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg.estimators import gpomdp
from lapg.estimators.deterministic import deterministic
from lapg.policies import gaussian_linear, with_policy
from lapg.policies.networks import Network
from lapg.problems import linear_quadratic, tabular
from lapg.types import Trajectories
from oracles.linear_quadratic import followed_slopes, state_action_values

STEPS, DISCOUNT, STD, NOISE, NUM, BATCHES, SCALE = 3, 0.9, 0.2, 0.1, 4, 5_000, 0.5
THETA = np.array([[-0.3, 0.2]])
ELSEWHERE = THETA + np.array([[0.1, -0.05]])


@pytest.fixture(scope="module")
def problem():
    made = linear_quadratic(
        num_learners=1,
        num_states=2,
        num_actions=1,
        scales=(SCALE,),
        process_noise=NOISE,
        num_steps=STEPS,
        discount=DISCOUNT,
    )
    return with_policy(made, std=STD)


@pytest.fixture(scope="module")
def task(problem):
    return jax.tree.map(lambda leaf: leaf[0], problem.tasks)


@pytest.fixture(scope="module")
def system(task):
    """A, B, weight of the states and variance of the start, as NumPy arrays."""
    extra = {name: np.asarray(leaf) for name, leaf in task.extra.items()}
    return extra["dynamics"], extra["inputs"], extra["state_weight"] * np.eye(2), extra["start"] * np.eye(2)


@pytest.fixture(scope="module")
def exact(system):
    """H_t of the scaled Q of THETA."""
    dynamics, inputs, state_loss, _ = system
    return SCALE * state_action_values(
        THETA, dynamics, inputs, state_loss, 0.1 * np.eye(1), STD, NOISE, DISCOUNT, STEPS
    )


def as_weights(tables):
    """Symmetric H_t as weights of the products of pairs of entries, a pair counted once."""
    rows, columns = np.triu_indices(tables.shape[-1])
    return jnp.asarray((tables * (2 - np.eye(tables.shape[-1])))[:, rows, columns].ravel())


def make(problem, **options):
    return deterministic(problem.policy, DISCOUNT, problem, critic="quadratic", **options)


def knowing(state, weights):
    return eqx.tree_at(lambda s: s.weights, state, weights)


def slopes(tables, theta, system):
    dynamics, inputs, _, initial = system
    return followed_slopes(tables, theta, dynamics, inputs, initial, STD, NOISE, DISCOUNT).ravel()


def z_scores(draws, expected):
    return (draws.mean(0) - expected) / (draws.std(0, ddof=1) / len(draws) ** 0.5)


@pytest.fixture(scope="module")
def estimates(problem, task, exact):
    """Name → estimates of many batches at THETA with its exact Q, there and elsewhere, all on the same samples."""

    @jax.jit
    @jax.vmap
    def run(key):
        here, there = (jnp.asarray(theta.ravel()) for theta in (THETA, ELSEWHERE))
        batch = problem.sample(key, task, here, NUM)
        estimator = make(problem)
        state = knowing(estimator.init(key, here), as_weights(exact))
        return {
            "here": estimator.estimate(state, task, here, batch),
            "there": estimator.estimate(state, task, there, batch),
            "leave_one_out": gpomdp(problem.policy, DISCOUNT).estimate((), task, here, batch),
        }

    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(1), BATCHES)))


def test_slopes_of_the_exact_critic_are_the_gradient(problem, task, exact, system):
    """Oracle: the problem's own gradient, exploration included, by automatic differentiation of its value; two derivations meet at 1e-12."""
    gradient = problem.gradient(task, jnp.asarray(THETA.ravel()))
    np.testing.assert_allclose(slopes(exact, THETA, system), gradient, 1e-12)


@pytest.mark.parametrize(("name", "theta"), [("here", THETA), ("there", ELSEWHERE)])
def test_mean_is_the_closed_form(estimates, exact, system, name, theta):
    """Oracle: second moments of the states under θ and the Q of THETA, in NumPy; 4 standard errors, each below 5 % of the gradient."""
    draws, expected = estimates[name].gradient, slopes(exact, theta, system)
    assert np.abs(z_scores(draws, expected)).max() < 4
    assert (draws.std(0) / BATCHES**0.5).max() < 0.05 * np.linalg.norm(expected)


def test_noise_is_the_variance(estimates, exact, system):
    """Oracle: E‖ḡ − mean‖², paired with the noise of the same batch, 4 standard errors."""
    squared = np.sum((estimates["here"].gradient - slopes(exact, THETA, system)) ** 2, -1)
    assert abs(z_scores(squared - estimates["here"].noise, 0)) < 4


def test_little_exploration_costs_little(estimates):
    """Oracle: a score has variance 1/std² = 25; the same samples give likelihood ratios more than five times the variance."""
    spread = {name: each.gradient.var(0).sum() for name, each in estimates.items()}
    assert 5 * spread["here"] < spread["leave_one_out"]


def test_critic_learns_the_slopes(problem, task, exact, system):
    """Oracle: the closed form with the exact Q; the learned Q, which starts at 0, is asked for the same slopes.

    4,000 steps of Adam; where a is the mean plus noise of 0.2, columns of the regression are nearly parallel, and 800 leave almost half of the slopes wrong.
    """
    estimator = make(problem, critic_step_size=0.02, critic_steps=50)

    @jax.jit
    def run(key):
        def step(state, key):
            state = estimator.update(state, task, problem.sample(key, task, jnp.asarray(THETA.ravel()), 400))
            return state, state.fitted

        return jax.lax.scan(step, estimator.init(key, jnp.zeros(2)), jax.random.split(key, 80))[1][40:].mean(0)

    tables = np.zeros_like(exact)
    rows, columns = np.triu_indices(exact.shape[-1])
    tables[:, rows, columns] = np.asarray(run(jax.random.key(2))).reshape(STEPS, -1)
    learned = slopes((tables + tables.transpose(0, 2, 1)) / 2, THETA, system)
    expected = slopes(exact, THETA, system)
    np.testing.assert_allclose(learned, expected, atol=0.05 * np.linalg.norm(expected))


# Two episodes of three steps; the first ends after two, and what is recorded after that must not be seen.
MASK = np.array([[1, 1, 0], [1, 1, 1]], bool)
LOSSES = np.array([[1.0, 3, 99], [2, 1, 4]])
OBSERVATIONS = np.array([[[1.0, 2], [0.5, -1], [7, 7]], [[0, 1], [2, 1], [-1, 1]]])
ACTIONS = np.array([[[0.5], [-1], [9]], [[1], [0], [2]]])


def log_probs(theta):
    return -0.5 * np.sum((ACTIONS - OBSERVATIONS @ theta.T) ** 2, -1)  # std 1, up to a constant


@pytest.fixture(scope="module")
def episodes():
    arrays = [jnp.asarray(each) for each in (OBSERVATIONS, ACTIONS, log_probs(THETA) - 0.5 * np.log(2 * np.pi), LOSSES)]
    ends = [jnp.asarray(np.array(each, bool)) for each in ([[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]])]
    return Trajectories(*arrays, jnp.asarray(MASK), *ends, following=())


def test_gradient_of_two_short_episodes_by_hand(problem, task, episodes):
    """Oracle: NumPy, Σ_t w_{0:t−1} γ^t ∂Q_t/∂a s_t / N / T with a Q drawn at random."""
    tables = np.random.default_rng(0).normal(size=(STEPS, 4, 4))
    tables = tables + tables.transpose(0, 2, 1)
    policy = gaussian_linear(2, 1, std=1.0)
    estimator = deterministic(policy, DISCOUNT, problem, critic="quadratic", time_average=True)
    state = knowing(estimator.init(jax.random.key(0), jnp.zeros(2)), as_weights(tables))
    found = jax.jit(lambda theta: estimator.estimate(state, task, theta.ravel(), episodes))
    for theta in (THETA, ELSEWHERE):
        steps = np.where(MASK, log_probs(theta) - log_probs(THETA), 0)
        expected = np.zeros(2)
        for n, length in enumerate(MASK.sum(1)):
            for t in range(length):
                entries = np.concatenate([OBSERVATIONS[n, t], theta @ OBSERVATIONS[n, t], [1]])
                slope = 2 * tables[t, 2] @ entries
                expected += np.exp(steps[n, :t].sum()) * DISCOUNT**t * slope * OBSERVATIONS[n, t] / 6
        estimate = found(jnp.asarray(theta))
        np.testing.assert_allclose(estimate.gradient, expected, 1e-11)
        whole = np.exp(steps.sum(1))
        np.testing.assert_allclose(estimate.effective_samples, whole.sum() ** 2 / np.sum(whole**2), 1e-11)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_regression_goes_to_the_mean_of_the_returns(problem, task, episodes, decay):
    """Oracle: λ-returns by hand, G_t = ℓ_t + γ((1 − λ) Q_{t+1} + λ G_{t+1}), 0 after the end; a Q of t alone fits their means, Adam to 1e-3."""
    start = np.array([1.0, -2.0, 3.0])
    critic = Network(
        lambda key: jnp.asarray(start),
        lambda weights, inputs, time: weights[jnp.round(time * STEPS).astype(int)],
        STEPS,
    )
    estimator = deterministic(
        problem.policy, DISCOUNT, problem, critic=critic, trace_decay=decay, critic_step_size=0.05, critic_steps=1000
    )
    state = jax.jit(lambda: estimator.update(estimator.init(jax.random.key(0), jnp.zeros(2)), task, episodes))()
    returns = np.zeros((2, STEPS + 1))
    for n, length in enumerate(MASK.sum(1)):
        for t in reversed(range(length)):
            after = start[t + 1] if t + 1 < length else 0
            returns[n, t] = LOSSES[n, t] + DISCOUNT * ((1 - decay) * after + decay * returns[n, t + 1])
    expected = [returns[MASK[:, t], t].mean() for t in range(STEPS)]
    np.testing.assert_allclose(state.fitted, expected, atol=1e-3)
    np.testing.assert_array_equal(state.weights, start)


def test_discrete_actions_are_refused():
    """Oracle: the docstring."""
    finite = tabular(jnp.ones((1, 2, 1)), jnp.zeros((1, 1, 2)), jnp.ones((1, 1)), num_steps=2)
    with pytest.raises(ValueError, match=r"deterministic\(policy=...\) must have continuous actions, got int32"):
        deterministic(finite.policy, 0.9, finite)
