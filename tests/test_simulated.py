"""Simulators on the host, whose physics differs between learners."""

import gymnasium as gym
import jax
import numpy as np
import pytest

from lapg import problems
from lapg.problems.builders import spread

pytest.importorskip("mujoco", reason="needs the extra mujoco: pip install 'lapg[mujoco]'")
STEPS = 25


def played(problem, action, learners):
    """What the given learners' episodes were, under one action for ever."""

    def act(observations, t):
        actions = np.broadcast_to(action, (len(learners), 1, *np.shape(action)))
        return actions, actions

    return problem.collect(act, np.arange(len(learners)), 1, learners)


def by_hand(env, action, seed, change=lambda inner: None):
    """Observations and rewards of Gymnasium's own environment, changed by hand."""
    env = gym.make(env)
    change(env.unwrapped)
    start = int(np.random.SeedSequence(seed).generate_state(1)[0]) % 2**31
    seen, rewards = [env.reset(seed=start)[0]], []
    for _ in range(STEPS):
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.array(seen[: len(rewards)]), np.array(rewards)


@pytest.mark.parametrize("heterogeneity", [0.0, 1.0])
def test_hopper_is_gymnasiums(heterogeneity):
    """Oracle: Gymnasium's Hopper-v5, step by step, with gravity and masses set by hand to what `spread` says; as it is at 0."""
    import mujoco

    problem = problems.hopper(num_learners=3, heterogeneity=heterogeneity, num_steps=STEPS, scales=(1.0,) * 3)
    _, *keys = jax.random.split(jax.random.key(0), 3)
    gravity, mass = (np.asarray(spread(3, heterogeneity, 1.5, key)) for key in keys)
    assert (np.ptp(gravity) > 0) == (np.ptp(mass) > 0) == (heterogeneity > 0)
    action, learners = np.array([0.5, -0.3, 0.2], np.float32), [2, 0, 1]
    batch = played(problem, action, learners)
    for row, m in enumerate(learners):

        def change(inner, m=m):
            if heterogeneity:
                inner.model.opt.gravity[2] = -9.81 * gravity[m]
                inner.model.body_mass[:] = inner.model.body_mass * mass[m]
                mujoco.mj_setConst(inner.model, inner.data)

        seen, rewards = by_hand("Hopper-v5", action, row, change)
        num = len(rewards)
        assert batch.mask[row, 0].sum() == num > 5
        np.testing.assert_array_equal(batch.observations[row, 0, :num], seen)
        np.testing.assert_array_equal(-batch.losses[row, 0, :num], rewards)
    problem.close()


def test_lander_falls_as_its_gravity_says():
    """Oracle: Gymnasium's lander with its gravity set by hand, for each learner; segments are played in the learner's own, too."""
    pytest.importorskip("Box2D", reason="needs the extra box2d: pip install 'lapg[box2d]'")
    problem = problems.lunar_lander(num_learners=2, heterogeneity=1.0, num_steps=STEPS)
    gravity = np.asarray(problem.tasks.extra["gravity"])
    np.testing.assert_allclose(np.sort(gravity), [1 / 1.2, 1.2])
    batch = played(problem, 0, [0, 1])
    wait = np.zeros((1, 1), int)
    segment = problem.proceed(lambda seen, t: (wait, wait), np.array([1]), 1, [1], "lane", STEPS)
    for m in range(2):
        seen, rewards = by_hand("LunarLander-v3", 0, m, lambda inner, m=m: setattr(inner, "gravity", -10 * gravity[m]))
        np.testing.assert_array_equal(batch.observations[m, 0], seen)
        np.testing.assert_array_equal(-batch.losses[m, 0], rewards)
    np.testing.assert_array_equal(segment.observations[0, 0], seen)
    problem.close()


@pytest.mark.parametrize("name", ["half_cheetah", "walker2d"])
def test_bodies_are_gymnasiums(name, tmp_path, monkeypatch):
    """Oracle: the spaces of Gymnasium's environments; with different physics the same actions lead elsewhere."""
    monkeypatch.chdir(tmp_path)  # where MuJoCo notes what it finds old-fashioned
    problem = getattr(problems, name)(num_learners=2, heterogeneity=1.0, num_steps=10)
    outside = gym.make({"half_cheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5"}[name])
    assert problem.spaces.observation.shape == outside.observation_space.shape
    assert problem.spaces.action.shape == outside.action_space.shape == (6,)
    batch = played(problem, np.full(6, 0.5, np.float32), [0, 1])
    assert not np.allclose(batch.observations[0, 0, -1], batch.observations[1, 0, -1])
    problem.close()


class Bath(gym.Env):
    """Nothing happens; there is water in it."""

    observation_space = gym.spaces.Box(-1, 99, (1,))
    action_space = gym.spaces.Discrete(2)
    colour = "white"

    def __init__(self):
        self.litres = 8

    def reset(self, *, seed=None, options=None):
        return np.full(1, self.litres, np.float32), {}

    def step(self, action):
        return np.full(1, self.litres, np.float32), 0.0, False, False, {}


BATH = {"env": f"{__name__}:Bath", "num_steps": 2, "num_learners": 3}


def test_attributes_of_ones_own():
    """Oracle: 8 · 2^{±1} by hand."""
    problem = problems.gymnasium(**BATH, heterogeneity=1.0, vary={"litres": 2.0})
    litres = played(problem, 0, [0, 1, 2]).observations[:, 0, 0, 0]
    np.testing.assert_allclose(litres, 8 * np.asarray(problem.tasks.extra["litres"]), rtol=1e-6)
    np.testing.assert_allclose(np.sort(litres), [4, 8, 16], rtol=1e-6)
    problem.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"heterogeneity": 1.0}, "must be 0 .* name attributes"),
        ({"vary": {"gallons": 2.0}}, "'gallons'"),
        ({"vary": {"colour": 2.0}}, "numbers"),
        ({"vary": {"litres": 0.5}}, "factors >= 1"),
        ({"heterogeneity": -1.0, "vary": {"litres": 2.0}}, "heterogeneity must be >= 0"),
    ],
)
def test_wrong_settings_are_refused(given, said):
    """Oracle: the rule in the message."""
    with pytest.raises(ValueError, match=said):
        problems.gymnasium(**BATH, **given)
