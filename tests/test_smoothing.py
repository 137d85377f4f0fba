"""Smoothing against quadrature on an MDP of two states."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, estimators, evaluate, train
from lapg.methods import Part
from lapg.problems import garnet, quadratic
from lapg.problems.smoothed import smoothed

SCALE, NUM, REPEATS = 0.8, 2, 20_000
THETA = jnp.asarray([1.0, -0.5, 0.3, 0.6])


@pytest.fixture(scope="module")
def plain():
    return garnet(num_learners=1, num_states=2, num_actions=2, branching=2, num_steps=3)


@pytest.fixture(scope="module")
def task(plain):
    return jax.tree.map(lambda leaf: leaf[0], plain.tasks)


def expected(function, theta):
    """E f(θ + σu) by Gauss-Hermite quadrature, 11 nodes in each of 4 dimensions."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(11)
    grid = np.array(list(product(nodes, repeat=4)))
    chance = np.prod(list(product(weights / weights.sum(), repeat=4)), -1)
    return chance @ np.asarray(jax.jit(jax.vmap(function))(theta[None] + SCALE * jnp.asarray(grid)))


def test_gradient_is_that_of_the_smoothed_objective(plain, task):
    """Oracle: quadrature of the exact gradient, here and elsewhere by importance weights, and of the loss, 4 standard errors; L's own gradient is 6 away."""
    problem = smoothed(plain, SCALE)
    estimator = estimators.gpomdp(problem.policy, problem.discount, baseline="none")
    elsewhere = THETA + 0.3 * jnp.asarray([1.0, -1, -1, 1])

    @jax.jit
    @jax.vmap
    def run(key):
        batch = problem.sample(key, task, THETA, NUM)
        losses = batch.losses @ problem.discount ** jnp.arange(3.0)
        return [estimator.estimate((), task, at, batch).gradient for at in (THETA, elsewhere)], losses.mean()

    gradients, losses = jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(1), REPEATS)))
    for draws, at in zip(gradients, (THETA, elsewhere), strict=True):
        errors = draws.std(0) / REPEATS**0.5
        truth = expected(lambda theta: plain.gradient(task, theta), at)
        assert np.abs((draws.mean(0) - truth) / errors).max() < 4
    own = np.asarray(plain.gradient(task, THETA))
    assert np.abs((gradients[0].mean(0) - own) / gradients[0].std(0)).max() * REPEATS**0.5 > 6
    truth = expected(lambda theta: plain.value(task, theta), THETA)
    assert abs(losses.mean() - truth) < 4 * losses.std() / REPEATS**0.5


def test_parameters_are_perturbed_once_an_episode(plain, task):
    """Oracle: log-probabilities of an episode are those of the plain policy at θ + σu with one u; u is standard normal over episodes."""
    problem = smoothed(plain, SCALE)

    @jax.jit
    def run(key):
        batch = problem.sample(key, task, THETA, 4_000)
        seeds, states = batch.observations
        draws = jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), (4,)))(seeds[:, 0])
        again = jax.vmap(jax.vmap(plain.policy.log_prob, (None, 0, 0)))(
            THETA[None] + SCALE * draws, states, batch.actions
        )
        return seeds, draws, again, batch.log_probs

    seeds, draws, again, log_probs = jax.tree.map(np.asarray, run(jax.random.key(2)))
    np.testing.assert_array_equal(seeds, seeds[:, :1].repeat(3, 1))
    np.testing.assert_allclose(again, log_probs, 1e-12)
    np.testing.assert_allclose(draws.T @ draws / 4_000, np.eye(4), atol=4 * (2 / 4_000) ** 0.5)


def test_trained_parameters_act_unperturbed(tmp_path):
    """Oracle: the same parameters in the plain problem, whose greedy returns and actions they share; stochastic ones are of the smoothed problem."""
    problem = Part("garnet", num_learners=1, num_steps=3)
    run = train(
        Config(
            problem=problem,
            smoothing=SCALE,
            method="pg",
            optimiser=Part("sgd", step_size=0.1),
            rounds=1,
            seeds=1,
            batch_size=2,
        ),
        tmp_path / "run",
        show_progress=False,
    )
    bare = replace(run, config=replace(run.config, smoothing=None))
    found, truth = (evaluate(each, 20)["return_raw"] for each in (run, bare))
    assert found.sel(mode="greedy").equals(truth.sel(mode="greedy"))
    assert not found.sel(mode="stochastic").equals(truth.sel(mode="stochastic"))
    assert run.policy(1) == bare.policy(1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: smoothed(quadratic(), 0.1), "environment and a policy"),
        (lambda: smoothed(quadratic(), 0.0), r"smoothed\(scale=...\) must be > 0 and finite, got 0.0"),
    ],
)
def test_wrong_options_are_refused(build, message, unchecked):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=message):
        build()
