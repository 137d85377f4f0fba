"""Policies against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg.policies import product, replicated, softmax_mlp, softmax_table
from oracles import algorithms

RNG = np.random.default_rng(0)


def draw(policy, params, observation, num):
    """Actions and log-probabilities of ``num`` samples."""

    @jax.jit
    @jax.vmap
    def run(key):
        return policy.sample(policy.action_noise(key), params, observation)

    return run(jax.random.split(jax.random.key(0), num))


def test_frequencies_are_the_softmax():
    """Oracle: softmax of the table's row in NumPy; 5 frequencies within 4 standard errors. The mode is the argmax."""
    policy, num = softmax_table(3, 5), 20_000
    table = RNG.normal(size=(3, 5))
    params = jnp.asarray(table.ravel())
    actions, logs = draw(policy, params, jnp.int32(1), num)
    chances = np.exp(table[1]) / np.exp(table[1]).sum()
    frequencies = np.bincount(actions, minlength=5) / num
    assert np.all(np.abs(frequencies - chances) < 4 * np.sqrt(chances * (1 - chances) / num))
    np.testing.assert_allclose(logs, np.log(chances)[actions], 1e-13)
    assert policy.mode(params, jnp.int32(1)) == table[1].argmax()


@pytest.mark.parametrize("activation", ["relu", "softplus", "tanh"])
def test_network_and_its_score(activation):
    """Oracle: forward pass and back-propagation in NumPy, two agents; a hundred operations keep 1e-13."""
    widths = (4, 3, 2, 5)
    policy = replicated(softmax_mlp(4, widths[1:-1], 5, activation), 2)
    params = policy.init(jax.random.key(1)) + 0.3 * jnp.asarray(RNG.normal(size=policy.num_params))
    observation, actions = RNG.normal(size=4), [3, 1]
    layers = algorithms.unflatten(np.asarray(params), widths, 2)
    value, slope = jax.jit(jax.value_and_grad(policy.log_prob))(params, jnp.asarray(observation), jnp.asarray(actions))
    expected = sum(algorithms.log_probs(layers, m, observation, activation)[a] for m, a in enumerate(actions))
    np.testing.assert_allclose(value, expected, 1e-13)
    np.testing.assert_allclose(slope, algorithms.score(layers, observation, actions, activation), 1e-12, 1e-14)
    best = [algorithms.log_probs(layers, m, observation, activation).argmax() for m in range(2)]
    np.testing.assert_array_equal(policy.mode(params, jnp.asarray(observation)), best)


def test_tied_agents_share_their_weights():
    """Oracle: agents with parameters of their own who all have the same: samples, log-probability, entropy, mode; the score is the sum of theirs."""
    one = softmax_mlp(4, (3,), 5)
    tied, apart = (replicated(one, 3, local=True, tied=each) for each in (True, False))
    params, seen = one.init(jax.random.key(0)), jnp.asarray(RNG.normal(size=(3, 4)))
    thrice, noise = jnp.tile(params, 3), apart.action_noise(jax.random.key(1))
    assert (tied.num_params, tied.init(jax.random.key(0)).shape) == (one.num_params, (one.num_params,))
    action, log_prob = tied.sample(noise, params, seen)
    jax.tree.map(np.testing.assert_array_equal, (action, log_prob), apart.sample(noise, thrice, seen))
    np.testing.assert_allclose(tied.log_prob(params, seen, action), log_prob, 1e-13)
    np.testing.assert_allclose(tied.entropy(params, seen), apart.entropy(thrice, seen), 1e-13)
    np.testing.assert_array_equal(tied.mode(params, seen), apart.mode(thrice, seen))
    score = jax.grad(apart.log_prob)(thrice, seen, action).reshape(3, -1).sum(0)
    np.testing.assert_allclose(jax.grad(tied.log_prob)(params, seen, action), score, 1e-12, 1e-14)
    table = softmax_table(2, 2)
    bounds = replicated(
        table, 3, local=True, tied=True
    ).score_bounds  # all scores, and all Hessians, may point the same way
    assert bounds == (3 * table.score_bounds.score, 3 * table.score_bounds.hessian)


def test_network_starts_with_lecun_normal_weights_and_no_bias():
    """Oracle: variance 1/inputs, biases 0; a sample variance of n normals has standard error √(2/n) (4 of them; truncation only narrows it)."""
    policy = softmax_mlp(40, (30,), 20)
    (first, bias), (second, _) = algorithms.unflatten(np.asarray(policy.init(jax.random.key(0))), (40, 30, 20), 1)
    np.testing.assert_array_equal(bias, 0)
    for weight, inputs in ((first, 40), (second, 30)):
        assert abs(weight.var() * inputs - 1) < 4 * (2 / weight.size) ** 0.5
    assert policy.num_params == 40 * 30 + 30 + 30 * 20 + 20


def test_samples_know_their_log_probability():
    """Oracle: log_prob at the sampled joint action; agents' coins are independent (correlation within 4 standard errors of 0)."""
    policy = replicated(softmax_table(2, 2), 2)
    params = jnp.asarray(0.3 * RNG.normal(size=8))
    actions, logs = draw(policy, params, jnp.int32(0), 4000)
    again = jax.vmap(policy.log_prob, (None, None, 0))(params, jnp.int32(0), actions)
    np.testing.assert_allclose(logs, again, 1e-13)
    assert abs(np.corrcoef(np.asarray(actions).T)[0, 1]) < 4 / 4000**0.5


def test_product_of_mixed_policies():
    """Oracle: independence: log-probabilities add up; modes, parameters and actions stay each agent's own."""
    parts = [softmax_table(3, 2), softmax_mlp(2, (3,), 4, "tanh")]
    policy = product(parts)
    params = policy.init(jax.random.key(0))
    sizes = [part.num_params for part in parts]
    assert policy.num_params == params.size == sum(sizes)
    slices = [params[: sizes[0]], params[sizes[0] :]]
    observations = (jnp.int32(2), jnp.asarray([0.3, -1.0]))
    actions, log_prob = policy.sample(policy.action_noise(jax.random.key(1)), params, observations)
    each = [part.log_prob(*rest) for part, *rest in zip(parts, slices, observations, actions, strict=True)]
    np.testing.assert_allclose(log_prob, sum(each), 1e-13)
    np.testing.assert_allclose(policy.log_prob(params, observations, actions), sum(each), 1e-13)
    modes = [part.mode(*rest) for part, *rest in zip(parts, slices, observations, strict=True)]
    assert list(policy.mode(params, observations)) == modes


def test_replicated_is_a_product_of_equals():
    """Oracle: the product of three copies on the same observation, with the same keys."""
    one = softmax_mlp(2, (3,), 4)
    stacked, mixed = replicated(one, 3), product([one] * 3)
    params = stacked.init(jax.random.key(0))
    np.testing.assert_array_equal(params, mixed.init(jax.random.key(0)))
    assert stacked.num_params == mixed.num_params
    seen = jnp.asarray([0.3, -1.0])
    noise = stacked.action_noise(jax.random.key(1))
    actions, log_prob = stacked.sample(noise, params, seen)
    other, other_log_prob = mixed.sample(tuple(noise), params, (seen,) * 3)
    np.testing.assert_array_equal(actions, jnp.stack(other))
    np.testing.assert_allclose(log_prob, other_log_prob, 1e-13)
    np.testing.assert_array_equal(stacked.mode(params, seen), jnp.stack(mixed.mode(params, (seen,) * 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, (3,), 4, "swish"), r"activation must be one of relu, softplus, tanh, got 'swish'"),
        ((2, (0,), 4), r"widths must be whole numbers >= 1, got \(0,\)"),
    ],
)
def test_wrong_networks_are_refused(arguments, message):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=message):
        softmax_mlp(*arguments)
