"""Normal policies against their density, and against the bounds that actions are squashed into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lapg.policies import gaussian_linear, gaussian_mlp, product, replicated, softmax_table
from oracles.markov import difference_quotient

RNG = np.random.default_rng(0)
GAIN, SEEN, STD = RNG.normal(size=(2, 3)), RNG.normal(size=3), np.array([0.3, 1.7])
LEARNED = jnp.asarray(np.concatenate([GAIN.ravel(), np.log(STD)]))


def draw(policy, params, observation, num):
    """Actions and log-probabilities of ``num`` samples."""

    @jax.jit
    @jax.vmap
    def run(key):
        return policy.sample(policy.action_noise(key), params, observation)

    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(0), num)))


def test_density_is_the_normal_one():
    """Oracle: scipy's normal density around the gain times the observation, one std for all or log std at the end of θ. The mode is the mean."""
    action = RNG.normal(size=2)
    fixed, learned = (gaussian_linear(3, 2, std=0.6, learned_std=each) for each in (False, True))
    seen, taken = jnp.asarray(SEEN), jnp.asarray(action)
    expected = stats.norm.logpdf(action, GAIN @ SEEN, 0.6).sum()
    np.testing.assert_allclose(fixed.log_prob(LEARNED[:6], seen, taken), expected, 1e-13)
    expected = stats.norm.logpdf(action, GAIN @ SEEN, STD).sum()
    np.testing.assert_allclose(learned.log_prob(LEARNED, seen, taken), expected, 1e-13)
    np.testing.assert_allclose(learned.mode(LEARNED, seen), GAIN @ SEEN, 1e-14)
    assert (fixed.num_params, learned.num_params) == (6, 8)


def test_samples_are_normal_and_know_their_log_probability():
    """Oracle: log_prob at the sampled action; Kolmogorov and Smirnov on the standardised actions, p > .001, uncorrelated to 4 standard errors."""
    policy, num = gaussian_linear(3, 2, learned_std=True), 4000
    actions, logs = draw(policy, LEARNED, jnp.asarray(SEEN), num)
    again = jax.vmap(policy.log_prob, (None, None, 0))(LEARNED, jnp.asarray(SEEN), jnp.asarray(actions))
    np.testing.assert_allclose(logs, again, 1e-13)
    standard = (actions - GAIN @ SEEN) / STD
    assert all(stats.kstest(each, "norm").pvalue > 1e-3 for each in standard.T)
    assert abs(np.corrcoef(standard.T)[0, 1]) < 4 / num**0.5


@pytest.mark.parametrize("learned", [False, True])
def test_score_is_the_slope_of_the_log_density(learned):
    """Oracle: central differences of scipy's density with a network's mean, log std included; h²|f'''| + eps |f|/h < 1e-9 at h = 1e-5."""
    policy = gaussian_mlp(3, (4,), 2, std=0.6, learned_std=learned)
    params = np.asarray(policy.init(jax.random.key(1))) + 0.1 * RNG.normal(size=policy.num_params)
    action, sizes = RNG.normal(size=2), [12, 16, 24, 26]

    def log_density(theta):
        first, bias, second, other, log_std = np.split(theta, sizes)
        mean = np.tanh(SEEN @ first.reshape(3, 4) + bias) @ second.reshape(4, 2) + other
        return stats.norm.logpdf(action, mean, np.exp(log_std) if learned else 0.6).sum()

    slope = jax.jit(jax.grad(policy.log_prob))(jnp.asarray(params), jnp.asarray(SEEN), jnp.asarray(action))
    np.testing.assert_allclose(slope, difference_quotient(log_density, params, 1e-5), 1e-8, 1e-8)


def test_start():
    """Oracle: the docstrings: a linear mean starts at 0, a learned log std at the log of ``std``; features stand between observation and mean."""
    policy = gaussian_linear(2, 1, lambda seen: jnp.stack([seen[0] ** 2, jnp.ones(())]), std=0.25, learned_std=True)
    np.testing.assert_allclose(policy.init(jax.random.key(0)), [0, 0, np.log(0.25)], 1e-15)
    np.testing.assert_allclose(policy.mode(jnp.asarray([2.0, 3.0, 0.0]), jnp.asarray([5.0])), [2 * 25 + 3], 1e-15)


def test_squashing_maps_onto_the_bounds():
    """Oracle: low + (high − low)·(1 + tanh u)/2 in NumPy, a bound per action or one for all; the density is that of u. Without bounds nothing happens."""
    low, high = np.array([-2.0, 0.5]), np.array([1.0, 0.75])
    bounded, plain = gaussian_linear(3, 2, low=low, high=high), gaussian_linear(3, 2)
    actions = 3 * RNG.normal(size=(50, 2))
    found = jax.vmap(bounded.actuate)(jnp.asarray(actions))
    np.testing.assert_allclose(found, low + (high - low) * (1 + np.tanh(actions)) / 2, 1e-13)
    mixed = gaussian_linear(3, 2, low=low, high=1.0).actuate(jnp.asarray(actions[0]))
    np.testing.assert_allclose(mixed, low + (1 - low) * (1 + np.tanh(actions[0])) / 2, 1e-13)
    np.testing.assert_array_equal(plain.actuate(jnp.asarray(actions[0])), actions[0])
    seen, taken = jnp.asarray(SEEN), jnp.asarray(actions[0])
    assert bounded.log_prob(LEARNED[:6], seen, taken) == plain.log_prob(LEARNED[:6], seen, taken)


def test_squashed_actions_never_leave_the_bounds():
    """Oracle: the bounds, in single precision, where low + (high − low) rounds past high for 37 of 300 random pairs."""
    rng = np.random.default_rng(0)
    low = 10 * rng.normal(size=300)
    high = low + rng.exponential(size=300)
    with jax.enable_x64(False):
        found = np.asarray(gaussian_linear(1, 300, low=low, high=high).actuate(jnp.full(300, 50.0)))
    assert found.dtype == np.float32
    assert np.all(found <= high.astype(np.float32))
    np.testing.assert_allclose(found, high, 1e-5, 1e-6)


def test_replicated_agents_see_their_own_observations():
    """Oracle: scipy's density, agent by agent, each with its gain and its observation; every agent's action has its bounds."""
    policy = replicated(gaussian_linear(3, 2, std=0.6, low=-1.0, high=3.0), 3, local=True)
    gains, seen, actions = RNG.normal(size=(3, 2, 3)), RNG.normal(size=(3, 3)), RNG.normal(size=(3, 2))
    params, observations = jnp.asarray(gains.ravel()), jnp.asarray(seen)
    means = np.einsum("mij,mj->mi", gains, seen)
    found = policy.log_prob(params, observations, jnp.asarray(actions))
    np.testing.assert_allclose(found, stats.norm.logpdf(actions, means, 0.6).sum(), 1e-13)
    np.testing.assert_allclose(policy.mode(params, observations), means, 1e-13)
    noise = policy.action_noise(jax.random.key(0))
    taken, log_prob = policy.sample(noise, params, observations)
    np.testing.assert_allclose(taken, means + 0.6 * np.asarray(noise), 1e-13)
    np.testing.assert_allclose(log_prob, stats.norm.logpdf(taken, means, 0.6).sum(), 1e-13)
    np.testing.assert_allclose(policy.actuate(taken), 1 + 2 * np.tanh(taken), 1e-13)


def test_product_of_a_softmax_and_a_normal_agent():
    """Oracle: independence: log of the softmax in NumPy plus scipy's density; only the normal agent's action is squashed."""
    policy = product([softmax_table(3, 4), gaussian_linear(3, 2, std=0.6, low=0.0, high=1.0)])
    table, action = RNG.normal(size=(3, 4)), RNG.normal(size=2)
    params = jnp.asarray(np.concatenate([table.ravel(), GAIN.ravel()]))
    seen, taken = (jnp.int32(1), jnp.asarray(SEEN)), (jnp.int32(3), jnp.asarray(action))
    expected = table[1, 3] - np.log(np.exp(table[1]).sum()) + stats.norm.logpdf(action, GAIN @ SEEN, 0.6).sum()
    np.testing.assert_allclose(policy.log_prob(params, seen, taken), expected, 1e-13)
    (chosen, moved), log_prob = policy.sample(policy.action_noise(jax.random.key(0)), params, seen)
    np.testing.assert_allclose(log_prob, policy.log_prob(params, seen, (chosen, moved)), 1e-13)
    executed = policy.actuate((chosen, moved))
    assert executed[0] == chosen
    np.testing.assert_allclose(executed[1], (1 + np.tanh(moved)) / 2, 1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": 0.0}, r"gaussian\(std=\.\.\.\) must be > 0 and finite, got 0\.0"),
        ({"std": float("inf")}, r"must be > 0 and finite, got inf"),
        ({"low": -1.0}, r"must be finite with low < high, got -1\.0 and nan"),
        ({"low": -1.0, "high": float("inf")}, r"must be finite with low < high, got -1\.0 and inf"),
        (
            {"low": (0.0, 2.0), "high": (1.0, 2.0)},
            r"must be finite with low < high, got \[0\.0, 2\.0\] and \[1\.0, 2\.0\]",
        ),
        (
            {"low": (0.0,) * 3, "high": (1.0, 2.0)},
            r"one number each or one per action, 2 in all, got \[0\.0, 0\.0, 0\.0\]",
        ),
    ],
)
def test_wrong_options_are_refused(options, message, unchecked):
    """Oracle: the docstring; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        gaussian_linear(3, 2, **options)
