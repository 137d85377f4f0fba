"""Noise of actions that persists from step to step."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg.policies import actor, gaussian_mlp, make_policy, with_policy
from lapg.policies.gaussian import correlated
from lapg.problems import gymnasium, pendulum
from lapg.runtimes.host_env import sampler
from lapg.types import Box, Discrete, JointSpaces, Spaces

SPACES = Spaces(Box((2,)), Box((1,), -1.0, 1.0))


class Still(gym.Env):
    """Nothing changes."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


def lag(values):
    """The correlation of consecutive entries along the last axis but one."""
    return np.corrcoef(values[..., :-1, :].ravel(), values[..., 1:, :].ravel())[0, 1]


def test_a_row_of_noise():
    """Oracle: the recursion in NumPy."""
    fresh = np.random.default_rng(1).normal(size=(6, 2))
    expected = [fresh[0]]
    for now in fresh[1:]:
        expected.append(0.6 * expected[-1] + 0.8 * now)
    policy = correlated(gaussian_mlp(2, (3,), 2), 0.6)
    np.testing.assert_allclose(policy.correlate(jnp.asarray(fresh)), expected, rtol=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_rows_are_played_with_it(correlation):
    """Oracle: the correlation asked for, within five standard errors (at most 1/√(N T)), inside JAX and on the host; each action's deviation stays std."""
    num, std = 128, 0.7
    inside = with_policy(pendulum(num_learners=1, num_steps=40), actor, std=std, correlation=correlation)
    outside = gymnasium(env=f"{__name__}:Still", num_learners=1, num_steps=40)
    outside = with_policy(outside, actor, std=std, correlation=correlation, normalise=False)
    params = [jnp.zeros(each.policy.num_params).at[-1].set(np.log(std)) for each in (inside, outside)]
    task = jax.tree.map(lambda leaf: leaf[0], inside.tasks)
    acted = [
        inside.sample(jax.random.key(3), task, params[0], num).actions,
        sampler(outside, outside.policy)(jax.random.split(jax.random.key(4), 1), params[1][None], num).actions[0],
    ]
    outside.close()
    for actions in map(np.asarray, acted):
        assert actions.shape == (num, 40, 1)
        assert abs(lag(actions) - correlation) < 5 / np.sqrt(actions.size)
        assert abs(actions.std() / std - 1) < 0.1


def test_who_explores_so():
    """Oracle: the docstring: normal actions, where it is asked for; AR(1) from two equal entries."""
    independent = jnp.ones((2, 1))
    for options, expected in (({}, 1.0), ({"correlation": 0.7}, 0.7 + np.sqrt(1 - 0.49))):
        np.testing.assert_allclose(actor(SPACES, **options).correlate(independent), [[1.0], [expected]])
    discrete = Spaces(Box((2,)), Discrete(2), raw=True)
    assert actor(discrete).correlate(independent) is independent
    with pytest.raises(ValueError, match="these are discrete"):
        actor(discrete, correlation=0.5)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got 1.0"):
        actor(SPACES, correlation=1.0)
    with pytest.raises(ValueError, match=r"policy\(correlation=...\) must be left out where agents are several"):
        make_policy(JointSpaces((SPACES, SPACES), True, True), actor, correlation=0.5)
