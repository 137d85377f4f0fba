"""Old trajectories used again, on a small random MDP whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.estimators.reuse import reuse
from lapg.problems import garnet
from oracles import markov
from support import player

STEPS, NUM, REPEATS = 3, 2, 20_000
SHIFTS = (0.0, 0.5, -0.5)  # behaviours of the three batches, oldest first, about θ
DIRECTION = np.array([1.0, -1, -1, 1, 1, -1])


@pytest.fixture(scope="module")
def problem():
    return garnet(num_learners=2, num_states=3, num_actions=2, branching=2, num_steps=STEPS, scales=(1.0, 3.0))


@pytest.fixture(scope="module")
def task(problem):
    return jax.tree.map(lambda leaf: leaf[1], problem.tasks)


THETA = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=6))


def make(problem, **options):
    return reuse(problem.policy, problem.discount, problem, NUM, **options)


def batches(problem, task, key):
    """One batch at each of the behaviours."""
    keys = jax.random.split(key, len(SHIFTS))
    return [problem.sample(k, task, THETA + s * DIRECTION, NUM) for k, s in zip(keys, SHIFTS, strict=True)]


def after(estimator, task, seen):
    state = estimator.init(jax.random.key(9), THETA)
    for batch in seen:
        state = estimator.update(state, task, batch)
    return estimator.estimate(state, task, THETA, seen[-1])


def z_scores(draws, expected):
    return (draws.mean(0) - expected) / (draws.std(0, ddof=1) / len(draws) ** 0.5)


@pytest.fixture(scope="module")
def drawn(problem, task):
    """Estimates at θ from three batches sampled elsewhere: plain, and with weights cut at 1."""
    made = make(problem, num_batches=3, baseline="none"), make(problem, num_batches=3, max_weight=1.0, baseline="none")

    @jax.jit
    @jax.vmap
    def run(key):
        seen = batches(problem, task, key)
        return [after(estimator, task, seen) for estimator in made]

    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(1), REPEATS)))


def test_gradient_is_unbiased_and_the_noise_its_variance(problem, task, drawn):
    """Oracle: the exact gradient at θ, 6 entries within 4 standard errors that are below 2 % of its length; E‖ĝ − ∇L‖² paired with the noise."""
    exact = np.asarray(problem.gradient(task, THETA))
    assert np.abs(z_scores(drawn[0].gradient, exact)).max() < 4
    assert (drawn[0].gradient.std(0) / REPEATS**0.5).max() < 0.02 * np.linalg.norm(exact)
    squared = np.sum((drawn[0].gradient - exact) ** 2, -1)
    assert abs(z_scores(squared - drawn[0].noise, 0)) < 4


def test_cut_weights_bias_and_calm(problem, task, drawn):
    """Oracle: the exact gradient is missed by more than 8 standard errors, and the variance is lower."""
    exact = np.asarray(problem.gradient(task, THETA))
    assert np.abs(z_scores(drawn[1].gradient, exact)).max() > 8
    assert drawn[1].gradient.var(0).sum() < drawn[0].gradient.var(0).sum()


def test_weights_by_hand(problem, task):
    """Oracle: Σ_t min(w_t, c) γ^t ℓ_t Σ_{τ≤t} ∇log π and (Σw)²/Σw² in NumPy, w_t = Π π_θ/π_b; two of four batches are there."""
    bound = 1.2
    estimator = make(problem, num_batches=4, max_weight=bound, baseline="none")

    @jax.jit
    def run(key):
        seen = batches(problem, task, key)[1:]
        return seen, after(estimator, task, seen)

    seen, found = jax.tree.map(np.asarray, run(jax.random.key(2)))
    here = markov.softmax(np.asarray(THETA).reshape(3, 2))
    total, last = np.zeros((3, 2)), []
    for batch, shift in zip(seen, SHIFTS[1:], strict=True):
        there = markov.softmax((np.asarray(THETA) + shift * DIRECTION).reshape(3, 2))
        for n in range(NUM):
            weight, reach = 1.0, np.zeros((3, 2))
            for t in range(STEPS):
                state, action = batch.observations[n, t], batch.actions[n, t]
                weight *= here[state, action] / there[state, action]
                reach[state] -= here[state]
                reach[state, action] += 1
                total += min(weight, bound) * problem.discount**t * batch.losses[n, t] * reach
            last.append(min(weight, bound))
    last = np.array(last)
    assert (last == bound).any()
    assert (last < bound).any()
    np.testing.assert_allclose(found.gradient, total.ravel() / last.size, 1e-12, 1e-14)
    np.testing.assert_allclose(found.effective_samples, last.sum() ** 2 / np.sum(last**2), 1e-12)


def test_a_policy_that_stands_still_averages_the_last_batches(problem):
    """Oracle: at α = 0 all weights are 1: the mean of G(PO)MDP's gradients of the last three rounds, their noise by 1/B, in a whole run of two learners."""
    results = []
    for estimator in (estimators.gpomdp(problem.policy, problem.discount), make(problem, num_batches=3)):
        setting = methods.Setting(estimator, NUM, 2)
        results.append(player(lambda hyper, s=setting: methods.pg(s, **hyper), problem, 5)({"step_size": 0.0}))
    (plain, plain_logs), (held, held_logs) = results
    gradients, noise = plain.controller.aggregate[1:], plain_logs.learner.noise
    for k in range(5):
        last = slice(max(0, k - 2), k + 1)
        np.testing.assert_allclose(held.controller.aggregate[k + 1], gradients[last].mean(0), 1e-11, 1e-13)
        np.testing.assert_allclose(held_logs.learner.noise[k], noise[last].mean(0) / min(k + 1, 3), 1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_batches": 0}, r"num_batches=...\) must be >= 1, got 0"),
        ({"max_weight": 0.5}, r"max_weight=...\) must be >= 1 or none, got 0.5"),
    ],
)
def test_wrong_options_are_refused(problem, options, message, unchecked):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=message):
        make(problem, **options)
    with pytest.raises(ValueError, match="samples inside compiled code"):
        make(problem._replace(sampler=None))


def test_another_batch_size_is_refused(problem, task):
    """Oracle: the docstring."""
    estimator = make(problem)
    batch = jax.eval_shape(lambda: problem.sample(jax.random.key(0), task, THETA, NUM + 1))
    with pytest.raises(ValueError, match=r"batch_size=...\) must be that of the rounds, 3, got 2"):
        jax.eval_shape(lambda batch: estimator.update(estimator.init(jax.random.key(0), THETA), task, batch), batch)
