"""Actor-critic: its gradient, its noise, and a critic that learns and stays at home."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg.estimators import gpomdp
from lapg.estimators.actor_critic import actor_critic
from lapg.methods import Setting, compose
from lapg.policies import softmax_table
from lapg.policies.networks import Network
from lapg.problems import linear_quadratic, tabular
from lapg.types import Trajectories
from oracles import markov

STEPS, DISCOUNT, NUM, BATCHES, SCALE = 4, 0.8, 2, 20_000, 0.5

RNG = np.random.default_rng(0)
TRANSITIONS = RNG.dirichlet(np.ones(3), (3, 2))
LOSSES = RNG.uniform(0, 0.5, (2, 3, 2)) + 2 * np.array([[0, 1], [0, 1], [1, 0]])
INITIAL = RNG.dirichlet(np.ones(3), 2)
THETA = 0.3 * RNG.normal(size=6)
ELSEWHERE = THETA + 0.5 * np.array([1, -1, 1, -1, -1, 1])
ARBITRARY = RNG.normal(2, 2, (STEPS + 1, 3))


@pytest.fixture(scope="module")
def problem():
    arrays = [jnp.asarray(each) for each in (TRANSITIONS, LOSSES, INITIAL)]
    return tabular(*arrays, scales=(1.0, SCALE), num_steps=STEPS, discount=DISCOUNT)


@pytest.fixture(scope="module")
def task(problem):
    """Learner 1, whose scale, losses and start are its own."""
    return jax.tree.map(lambda leaf: leaf[1], problem.tasks)


def table(values):
    """A critic that starts as V_t(s) = values[t, s]; one row serves problems without a time."""
    last = len(values) - 1
    return Network(
        lambda key: jnp.asarray(values).ravel(),
        lambda weights, state, time: weights.reshape(values.shape)[jnp.round(time * last).astype(int), state],
        values.size,
    )


def make(problem, values, **options):
    return actor_critic(problem.policy, DISCOUNT, problem, critic=table(values), **options)


def true_gradient(theta):
    moments = SCALE * markov.score_moments(theta, TRANSITIONS, LOSSES[1], INITIAL[1], STEPS, DISCOUNT)
    return moments[np.arange(STEPS), np.arange(STEPS)].sum(0)


def true_values(theta, sweeps):
    """V with so many steps to go, by Bellman's recursion."""
    probs = markov.softmax(theta.reshape(3, 2))
    values = np.zeros(3)
    for _ in range(sweeps):
        values = np.sum(probs * (SCALE * LOSSES[1] + DISCOUNT * TRANSITIONS @ values), -1)
    return values


EXACT = np.array([true_values(THETA, STEPS - t) for t in range(STEPS + 1)])


def z_scores(draws, expected):
    return (draws.mean(0) - expected) / (draws.std(0, ddof=1) / len(draws) ** 0.5)


@pytest.fixture(scope="module")
def estimates(problem, task):
    """Name → estimates of many batches, all on the same samples; the critics learn from the batch before it is used."""

    @jax.jit
    @jax.vmap
    def run(key):
        batch = problem.sample(key, task, jnp.asarray(THETA), NUM)
        baseline = make(problem, ARBITRARY, trace_decay=1.0, critic_step_size=0.2, critic_steps=20)
        exact = make(problem, EXACT, trace_decay=0.0)
        state = baseline.update(baseline.init(key, jnp.asarray(THETA)), task, batch)
        peeking = eqx.tree_at(lambda s: s.weights, state, state.fitted)
        at = [jnp.asarray(theta) for theta in (THETA, ELSEWHERE)]
        return {
            "baseline": baseline.estimate(state, task, at[0], batch),
            "elsewhere": baseline.estimate(state, task, at[1], batch),
            "peeking": baseline.estimate(peeking, task, at[0], batch),
            "exact": exact.estimate(exact.update(exact.init(key, at[0]), task, batch), task, at[0], batch),
            "none": gpomdp(problem.policy, DISCOUNT, baseline="none").estimate((), task, at[0], batch),
            "leave_one_out": gpomdp(problem.policy, DISCOUNT).estimate((), task, at[0], batch),
        }

    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(1), BATCHES)))


@pytest.mark.parametrize(("name", "theta"), [("baseline", THETA), ("elsewhere", ELSEWHERE), ("exact", THETA)])
def test_unbiased_where_the_critic_is_a_baseline_or_exact(estimates, name, theta):
    """Oracle: the gradient by enumeration of all episodes, 4 standard errors: λ = 1 with any critic, here and at another θ; λ = 0 with the exact V."""
    assert np.abs(z_scores(estimates[name].gradient, true_gradient(theta))).max() < 4
    assert np.linalg.norm(true_gradient(theta) - true_gradient(THETA + ELSEWHERE - theta)) > 0.1


def test_a_critic_that_knew_the_batch_would_bias(estimates):
    """Oracle: the same estimator with the weights after the fit, more than 8 standard errors off; what separates them is which weights are used."""
    assert np.abs(z_scores(estimates["peeking"].gradient, true_gradient(THETA))).max() > 8


def test_noise_is_the_variance(estimates):
    """Oracle: E‖ḡ − ∇L‖², paired with the noise of the same batch, 4 standard errors."""
    for name in ("baseline", "exact"):
        squared = np.sum((estimates[name].gradient - true_gradient(THETA)) ** 2, -1)
        assert abs(z_scores(squared - estimates[name].noise, 0)) < 4


def test_an_exact_critic_lowers_the_variance(estimates):
    """Oracle: the textbook order, on the same samples: bootstrapped exact values, then leave-one-out, then no baseline."""
    spread = {name: each.gradient.var(0).sum() for name, each in estimates.items()}
    assert 2 * spread["exact"] < spread["leave_one_out"] < spread["none"]


# Three episodes of a chain s = 0, 1, 2, 3: one terminates after 3 steps, one is truncated there, one is cut off by T = 4.
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]], bool)
LAST = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
TERMINATED = np.array([True, False, False])
CHAIN_LOSSES = np.where(MASK, [[1.0, 2, 4, 0], [3, 1, 2, 0], [2, 5, 1, 3]], 99.0)  # 99 must not be seen
STATES = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 2]])
FINAL = np.array([3, 3, 1])
ACTIONS = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
CRITIC = np.array([0.5, 1.5, -2.0, 4.0])
CHAIN_THETA, BEHAVIOUR = 0.5 * np.random.default_rng(3).normal(size=(2, 4, 2))


def log_probs(theta):
    return np.log(markov.softmax(theta))[STATES, ACTIONS]


@pytest.fixture(scope="module")
def chain():
    """The three episodes as a batch."""
    return Trajectories(
        jnp.asarray(STATES, jnp.int32),
        jnp.asarray(ACTIONS, jnp.int32),
        jnp.asarray(log_probs(BEHAVIOUR)),
        jnp.asarray(CHAIN_LOSSES),
        jnp.asarray(MASK),
        jnp.asarray(LAST & TERMINATED[:, None]),
        jnp.asarray(LAST & ~TERMINATED[:, None]),
        jnp.asarray(np.column_stack([STATES[:, 1:], FINAL]), jnp.int32),
    )


def advantages(finite_horizon, decay):
    """Σ_{t≥τ} (γλ)^{t−τ} δ_t by the double sum; what follows the last step is V(final) only for an episode that was cut off and goes on."""
    found = np.zeros((3, 4))
    for n, length in enumerate(MASK.sum(1)):
        errors = []
        for t in range(length):
            ends = finite_horizon or TERMINATED[n]
            after = CRITIC[STATES[n, t + 1]] if t + 1 < length else 0 if ends else CRITIC[FINAL[n]]
            errors.append(CHAIN_LOSSES[n, t] + DISCOUNT * after - CRITIC[STATES[n, t]])
        for tau in range(length):
            found[n, tau] = sum((DISCOUNT * decay) ** (t - tau) * errors[t] for t in range(tau, length))
    return found


def make_chain(problem, finite_horizon, **options):
    network = Network(lambda key: jnp.asarray(CRITIC), lambda weights, state, time: weights[state], 4)
    policy = softmax_table(4, 2)
    return actor_critic(policy, DISCOUNT, problem, critic=network, finite_horizon=finite_horizon, **options)


@pytest.mark.parametrize("finite_horizon", [True, False])
def test_gradient_of_three_short_episodes_by_hand(problem, task, chain, finite_horizon):
    """Oracle: NumPy, Σ_t w_{0:t} γ^t δ_t Σ_{τ≤t} λ^{t−τ} ∇log π(a_τ|s_τ) / N / T; on-policy, Σ_τ γ^τ ∇log π Â_τ."""
    decay = 0.6
    estimator = make_chain(problem, finite_horizon, trace_decay=decay, time_average=True)
    state = estimator.init(jax.random.key(0), jnp.zeros(8))
    found = jax.jit(lambda theta: estimator.estimate(state, task, theta.ravel(), chain))
    for theta in (BEHAVIOUR, CHAIN_THETA):
        ratios = np.exp(np.cumsum(log_probs(theta) - log_probs(BEHAVIOUR), 1))
        sums = advantages(finite_horizon, decay)
        expected = np.zeros((4, 2))
        for n, length in enumerate(MASK.sum(1)):
            for tau in range(length):
                score = np.zeros((4, 2))
                score[STATES[n, tau]] -= markov.softmax(theta)[STATES[n, tau]]
                score[STATES[n, tau], ACTIONS[n, tau]] += 1
                for t in range(tau, length):
                    error = sums[n, t] - (DISCOUNT * decay * sums[n, t + 1] if t + 1 < length else 0)
                    expected += ratios[n, t] * DISCOUNT**t * decay ** (t - tau) * error * score / 12
        np.testing.assert_allclose(found(jnp.asarray(theta)).gradient, expected.ravel(), 1e-11, 1e-14)
        last = ratios[np.arange(3), MASK.sum(1) - 1]
        np.testing.assert_allclose(
            found(jnp.asarray(theta)).effective_samples, last.sum() ** 2 / np.sum(last**2), 1e-12
        )


@pytest.mark.parametrize("finite_horizon", [True, False])
def test_regression_goes_to_the_mean_of_the_returns(problem, task, chain, finite_horizon):
    """Oracle: least squares on a table are means: of V(s) + Â_τ, λ-returns by the double sum, over the visits to s; 1,000 steps of Adam leave < 1e-3."""
    estimator = make_chain(problem, finite_horizon, trace_decay=0.6, critic_step_size=0.05, critic_steps=1000)
    after = jax.jit(lambda: estimator.update(estimator.init(jax.random.key(0), jnp.zeros(8)), task, chain))()
    returns = CRITIC[STATES] + advantages(finite_horizon, 0.6)
    expected = [returns[MASK & (s == STATES)].mean() for s in range(3)]
    np.testing.assert_allclose(after.fitted[:3], expected, atol=1e-3)
    assert after.fitted[3] == CRITIC[3]  # seen only after the end
    np.testing.assert_array_equal(after.weights, CRITIC)


@pytest.mark.parametrize("finite_horizon", [True, False])
def test_critic_learns_the_values(problem, task, finite_horizon):
    """Oracle: Bellman's recursion, for T steps or (200 sweeps, .8^200 = 4e-20) for ever, though episodes have only 4 steps.

    Of a return's standard deviation, about 1, the mean over 50 batches with 40 or more visits leaves 0.02, half the tolerance.
    """
    values = np.zeros((STEPS + 1, 3)) if finite_horizon else np.zeros((1, 3))
    estimator = make(
        problem, values, trace_decay=0.5, finite_horizon=finite_horizon, critic_step_size=0.03, critic_steps=5
    )

    @jax.jit
    def run(key):
        def step(state, key):
            state = estimator.update(state, task, problem.sample(key, task, jnp.asarray(THETA), 400))
            return state, state.fitted

        keys = jax.random.split(key, 100)
        return jax.lax.scan(step, estimator.init(key, jnp.asarray(THETA)), keys)[1][50:].mean(0)

    learned = np.asarray(run(jax.random.key(2))).reshape(values.shape)
    expected = EXACT if finite_horizon else true_values(THETA, 200)[None]
    np.testing.assert_allclose(learned, expected, atol=0.02 * EXACT.max())


def test_critic_stays_at_home(problem, task):
    """Oracle: the shapes of a round: the upload is d = 6 numbers and no report, while the learner's state has the 15 of its table, twice."""
    method = compose("pg", Setting(make(problem, ARBITRARY), NUM, problem.num_learners))
    theta, key = jnp.asarray(THETA), jax.random.key(0)

    def reply():
        state = method.learner.init(key, jnp.int32(0), theta)
        broadcast = method.controller.broadcast(key, method.controller.init(theta, 2))
        return method.learner.reply(key, task, state, broadcast, problem.sample(key, task, theta, NUM))

    state, upload, _ = jax.eval_shape(reply)
    assert [leaf.shape for leaf in jax.tree.leaves((upload.message, upload.report, upload.length))] == [(6,)]
    assert state.estimator.weights.shape == state.estimator.fitted.shape == (15,)


@pytest.mark.parametrize("critic", ["quadratic", (16,)])
def test_built_in_critics_learn(critic):
    """Oracle: gpomdp without baseline on the same batch; a V that knows a linear-quadratic problem takes away half its noise, one that does not, little."""
    problem = linear_quadratic(num_learners=1, num_steps=4)
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    estimator = actor_critic(problem.policy, problem.discount, problem, critic=critic, critic_step_size=0.03)
    theta = jnp.zeros(problem.policy.num_params)

    @jax.jit
    def run(key):
        def step(state, key):
            return estimator.update(state, task, problem.sample(key, task, theta, 100)), None

        start = estimator.init(key, theta)
        trained = jax.lax.scan(step, start, jax.random.split(key, 60))[0]
        batch = problem.sample(key, task, theta, 2000)
        plain = gpomdp(problem.policy, problem.discount, baseline="none").estimate((), task, theta, batch)
        return plain.noise, *[estimator.estimate(state, task, theta, batch).noise for state in (start, trained)]

    plain, start, trained = run(jax.random.key(4))
    assert trained < 0.5 * plain
    assert trained < 0.7 * start


def test_what_does_not_fit_is_refused(problem):
    """Oracle: the docstrings."""
    for option, message in (
        ({"critic": "cubic"}, r"critic=...\) must be hidden widths, 'quadratic' or a Network, got 'cubic'"),
        ({"critic": (3,)}, r"critic=...\) must be a Network of your own where an input is int32"),
        ({"critic_step_size": 0.0}, r"critic_step_size=...\) must be > 0, got 0"),
        ({"critic_steps": 0}, r"critic_steps=...\) must be a whole number >= 1, got 0"),
        ({"trace_decay": 1.5}, r"trace_decay=...\) must lie in \[0, 1\], got 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            actor_critic(problem.policy, DISCOUNT, problem, **{"critic": table(EXACT), **option})
    with pytest.raises(ValueError, match="does not say what an observation looks like"):
        actor_critic(problem.policy, DISCOUNT, problem._replace(environment=None))
