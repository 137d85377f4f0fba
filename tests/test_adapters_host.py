"""Adapters to Gymnasium and PettingZoo: what they record is what the environments did, agent by agent."""

import sys

import gymnasium as gym
import jax.numpy as jnp
import mpe2.simple_speaker_listener_v4
import mpe2.simple_spread_v3
import numpy as np
import pytest

from lapg.policies import with_policy
from lapg.problems.gymnasium import gymnasium
from lapg.problems.pettingzoo import pettingzoo

SEEDS = np.array([11, 12], np.uint32)


def starts(seed, num):
    """Episode seeds, as documented: those of NumPy's SeedSequence, without their highest bit."""
    return [int(start) % 2**31 for start in np.random.SeedSequence(int(seed)).generate_state(num)]


class Corridor(gym.Env):
    """Cells 0..3, from 1; action 6 goes on, 5 back; the ends terminate. Cell t pays t. Optionally breaks at cell 2."""

    action_space = gym.spaces.Discrete(2, start=5)
    observation_space = gym.spaces.Discrete(4)

    def __init__(self, pay=float, **spaces):
        self.pay = pay
        vars(self).update(spaces)

    def reset(self, *, seed=None, options=None):
        self.cell = 1
        return 1, {}

    def step(self, action):
        self.cell += 1 if action == 6 else -1
        return self.cell, self.pay(self.cell), self.cell in (0, 3), False, {}


class Broken(Corridor):
    """Sees NaN in cell 2."""

    observation_space = gym.spaces.Box(-9, 9, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset()
        return np.ones(1), {}

    def step(self, action):
        cell, *rest = super().step(action)
        return np.full(1, np.nan if cell == 2 else cell), *rest


def gappy(cell):
    return np.inf if cell == 2 else 0.0


def test_cart_pole_is_gymnasiums():
    """Oracle: gymnasium.make, episode by episode; always pushing right ends within 12 steps, taking turns does not."""
    problem = gymnasium(env="CartPole-v1", num_learners=2, num_steps=15, scales=(1.0, 0.5))

    def act(observations, t):
        assert observations.shape == (2, 3, 4)
        actions = np.ones((2, 3), int)
        actions[1] = t % 2
        return actions, actions

    for _ in range(2):  # the same environments again
        played = problem.collect(act, SEEDS, 3)
    env = gym.make("CartPole-v1")
    for m, seed in enumerate(SEEDS):
        for n, start in enumerate(starts(seed, 3)):
            seen, ended, rewards = [env.reset(seed=start)[0]], False, []
            for t in range(15):
                observation, reward, ended, _, _ = env.step(1 if m == 0 else t % 2)
                seen.append(observation)
                rewards.append(reward)
                if ended:
                    break
            length = len(rewards)
            held = seen + [seen[-1]] * (15 - length)
            np.testing.assert_array_equal(played.observations[m, n], held[:15])
            np.testing.assert_array_equal(played.following[m, n], held[1:])
            np.testing.assert_array_equal(played.mask[m, n], np.arange(15) < length)
            np.testing.assert_array_equal(played.losses[m, n, :length], -np.array(rewards))
            assert not played.losses[m, n, length:].any()
            assert ended == (m == 0)
            last = np.arange(15) == length - 1
            np.testing.assert_array_equal(played.terminated[m, n], last & ended)
            np.testing.assert_array_equal(played.truncated[m, n], last & (not ended))
    np.testing.assert_array_equal(played.actions[1, 0], np.arange(15) % 2)


def test_time_limits_truncate():
    """Oracle: the limit given to Gymnasium: 4 steps and no termination; without num_steps, T is that limit."""
    limit = {"max_episode_steps": 4}
    assert gymnasium(env="CartPole-v1", env_options=limit).num_steps == 4
    problem = gymnasium(env="CartPole-v1", num_learners=1, num_steps=6, env_options=limit)
    turns = []
    played = problem.collect(lambda observations, t: (turns.append(t) or np.full((1, 1), t % 2),) * 2, SEEDS, 1)
    np.testing.assert_array_equal(played.mask[0, 0], [True] * 4 + [False] * 2)
    assert not played.terminated.any()
    np.testing.assert_array_equal(played.truncated[0, 0], np.arange(6) == 3)
    assert turns == [0, 1, 2, 3]  # nobody is asked any more


def test_discrete_spaces():
    """Oracle: the corridor by hand: observations are one-hot, the first action is number 5."""
    problem = with_policy(gymnasium(env="test_adapters_host:Corridor", num_learners=1, num_steps=4), hidden=(3,))
    assert problem.policy.num_params == 4 * 3 + 3 + 3 * 2 + 2
    played = problem.collect(lambda observations, t: (np.array([[1, 0]]),) * 2, SEEDS, 2)
    np.testing.assert_array_equal(played.observations[0].argmax(-1), [[1, 2, 3, 3], [1, 0, 0, 0]])
    np.testing.assert_array_equal(played.observations.sum(-1), np.ones((1, 2, 4)))
    np.testing.assert_array_equal(played.losses[0], [[-2, -3, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(played.mask[0].sum(-1), [2, 1])
    np.testing.assert_array_equal(played.terminated.sum(-1), 1)


def test_continuous_actions_stay_within_bounds():
    """Oracle: Pendulum's torque limit of 2, reached by huge actions; where the environment sets no bounds, actions go through."""
    problem = gymnasium(env="Pendulum-v1", num_learners=1)
    assert problem.num_steps == 200
    np.testing.assert_allclose(problem.policy.actuate(jnp.array([50.0])), [2.0])
    np.testing.assert_allclose(problem.policy.actuate(jnp.array([0.0])), [0.0], atol=1e-12)
    free = {"action_space": gym.spaces.Box(-np.inf, np.inf, (2,))}
    problem = gymnasium(env="test_adapters_host:Corridor", num_steps=3, env_options=free)
    np.testing.assert_array_equal(problem.policy.actuate(jnp.array([50.0, -3.0])), [50.0, -3.0])


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("NoSuchGame-v0", {}, r"must be an environment that Gymnasium can make, got 'NoSuchGame-v0': .*doesn't exist"),
        ("nowhere:env", {}, r"gymnasium\(env='nowhere:env'\) cannot be imported"),
        ("test_adapters_host:Corridor", {"num_steps": None}, r"num_steps=\.\.\.\) must be given for"),
        (
            "test_adapters_host:Corridor",
            {"action_space": gym.spaces.MultiBinary(2)},
            r"must have Discrete or real Box actions, got MultiBinary\(2\)",
        ),
        (
            "test_adapters_host:Corridor",
            {"action_space": gym.spaces.Box(0, np.inf, (1,))},
            r"bounded on both sides or on none, got Box\(0\.0, inf",
        ),
        (
            "test_adapters_host:Corridor",
            {"observation_space": gym.spaces.Sequence(gym.spaces.Discrete(2))},
            r"must have observations of fixed size, got Sequence",
        ),
    ],
)
def test_what_does_not_fit(env, options, message):
    """Oracle: the docstring; the message is one line."""
    num_steps = options.pop("num_steps", 3)
    with pytest.raises(ValueError, match=message) as caught:
        gymnasium(env=env, num_steps=num_steps, env_options=options)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("Broken", {}, r"'\)?, in step 1 of an episode of learner 0 \(seed \d+\): an observation must be finite"),
        (
            "Corridor",
            {"pay": gappy},
            r"in step 1 of an episode of learner 0 \(seed \d+\): a reward must be finite, got \[?inf",
        ),
    ],
)
def test_what_breaks_on_the_way(env, options, message):
    """Oracle: environments that are not finite in cell 2, which the first step reaches."""
    problem = gymnasium(env=f"test_adapters_host:{env}", num_learners=1, num_steps=3, env_options=options)
    with pytest.raises(ValueError, match=message):
        problem.collect(lambda observations, t: (np.ones((1, 2), int),) * 2, SEEDS, 2)


class Late(gym.Env):
    """Ends after two steps at first, later after three, the last of which pays nothing that is a number."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)
    seeds = []  # noqa: RUF012  (what resets were given)

    def reset(self, *, seed=None, options=None):
        Late.seeds.append(seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        over = self.steps == (2 if len(Late.seeds) == 1 else 3)
        return np.zeros(1, np.float32), np.nan if self.steps == 3 else 1.0, over, False, {}


def test_what_breaks_in_a_later_segment():
    """Oracle: the episode's own step and seed: the third step of the second episode, which is the second one of the second segment of three."""
    problem = gymnasium(env="test_adapters_host:Late", num_learners=1, num_steps=10)
    Late.seeds.clear()
    segment = lambda: problem.proceed(lambda *_: (np.ones((1, 1), int),) * 2, SEEDS[:1], 1, [0], 0, 3)  # noqa: E731
    segment()
    with pytest.raises(ValueError, match="a reward must be finite") as caught:
        segment()
    assert f"in step 3 of an episode of learner 0 (seed {Late.seeds[1]}): a reward" in str(caught.value)


def test_missing_extras(monkeypatch):
    """Oracle: the extras' names in pyproject.toml."""
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.setitem(sys.modules, "mpe2.simple_v3", None)
    with pytest.raises(ValueError, match=r"pip install 'lapg\[gymnasium\]'"):
        gymnasium(env="CartPole-v1")
    with pytest.raises(ValueError, match=r"pip install 'lapg\[pettingzoo\]'"):
        pettingzoo(env="mpe2.simple_v3")


# ---------------------------------------------------------------- many agents


def episode(env, start, choose):
    """Observations, states and rewards of a parallel environment, played with ``choose: t → actions in the order of the agents``."""
    seen, _ = env.reset(seed=start)
    steps = [(seen, env.state(), None)]
    t = 0
    while env.agents:
        seen, rewards, *_ = env.step(dict(zip(env.agents, choose(t), strict=True)))
        steps.append((seen, env.state(), dict(rewards)))
        t += 1
    return steps


@pytest.mark.parametrize("shared", [False, True])
def test_simple_spread_is_mpe2s(shared):
    """Oracle: mpe2, episode by episode; learner m's losses are agent m's, of its own episodes or of everybody's."""
    options = {"N": 3, "local_ratio": 0.5, "max_cycles": 4}
    problem = pettingzoo(
        env="mpe2.simple_spread_v3",
        observations="local",
        shared_trajectories=shared,
        num_steps=4,
        env_options=options,
    )
    assert (problem.num_learners, problem.shared) == (3, shared)
    assert with_policy(problem, hidden=(2,)).policy.num_params == 3 * (18 * 2 + 2 + 2 * 5 + 5)
    seeds = np.array([7, 7, 7] if shared else [7, 8, 9], np.uint32)
    actions = np.random.default_rng(0).integers(5, size=(4, 3, 2, 3))
    if shared:
        actions[:] = actions[:, :1]
    played = problem.collect(lambda observations, t: (actions[t], actions[t]), seeds, 2)
    env = mpe2.simple_spread_v3.parallel_env(**options)
    for m, seed in enumerate(seeds):
        for n, start in enumerate(starts(seed, 2)):
            steps = episode(env, start, lambda t, m=m, n=n: actions[t, m, n])
            seen = [[step[0][name] for name in env.possible_agents] for step in steps]
            np.testing.assert_array_equal(played.observations[m, n], seen[:4])
            np.testing.assert_array_equal(played.following[m, n], seen[1:5])
            np.testing.assert_array_equal(played.losses[m, n], [-step[2][f"agent_{m}"] for step in steps[1:]])
    np.testing.assert_array_equal(played.actions, np.moveaxis(actions, 0, 2))
    assert played.mask.all()
    assert not played.terminated.any()


@pytest.mark.parametrize("observations", ["global", "local", "concatenated"])
def test_speaker_and_listener_differ(observations):
    """Oracle: mpe2's own spaces (3 and 11 inputs, 3 and 5 actions), state and observations."""
    problem = pettingzoo(env="mpe2.simple_speaker_listener_v4", observations=observations, num_steps=3)
    inputs = (3, 11) if observations == "local" else (14, 14)
    assert with_policy(problem, hidden=()).policy.num_params == inputs[0] * 3 + 3 + inputs[1] * 5 + 5
    actions = (np.array([[0, 1], [2, 0]]), np.array([[4, 3], [2, 1]]))
    played = problem.collect(lambda seen, t: (actions, actions), SEEDS, 2)
    env = mpe2.simple_speaker_listener_v4.parallel_env()
    for m, seed in enumerate(SEEDS):
        for n, start in enumerate(starts(seed, 2)):
            steps = episode(env, start, lambda t, m=m, n=n: [kind[m, n] for kind in actions])[:4]
            parts = [[step[0][name] for step in steps[:3]] for name in env.possible_agents]
            if observations == "local":
                for found, expected in zip(played.observations, parts, strict=True):
                    np.testing.assert_array_equal(found[m, n], expected)
            else:
                states = [step[1] for step in steps[:3]]
                expected = states if observations == "global" else np.concatenate(parts, -1)
                np.testing.assert_array_equal(played.observations[m, n], expected)
            rewards = [step[2][env.possible_agents[m]] for step in steps[1:]]
            np.testing.assert_array_equal(played.losses[m, n], -np.array(rewards))


class Race:
    """Agents walk; agent a is there after 1 step, b after 3 (or cut off then, if lazy). The reward is the number of steps."""

    possible_agents = ("a", "b")

    def __init__(self, lazy=False):
        self.lazy = lazy

    def observation_space(self, name):
        return gym.spaces.Box(0, 9, (1,))

    def action_space(self, name):
        return gym.spaces.Discrete(2)

    def reset(self, seed):
        self.agents, self.steps = ["a", "b"], 0
        return {name: np.zeros(1) for name in self.agents}, {}

    def step(self, actions):
        assert sorted(actions) == self.agents
        self.steps += 1
        now, flags = self.agents, {name: self.steps >= {"a": 1, "b": 3}[name] for name in self.agents}
        self.agents = [name for name in now if not flags[name]]
        ended = {name: flags[name] and not (self.lazy and name == "b") for name in now}
        cut = {name: flags[name] and not ended[name] for name in now}
        return {n: np.full(1, self.steps) for n in now}, dict.fromkeys(now, self.steps), ended, cut, {}

    def close(self):
        pass


@pytest.mark.parametrize("lazy", [False, True])
def test_agents_that_leave(lazy):
    """Oracle: the race by hand: a is seen at 1 ever after and pays no more; the episode goes on to step 3 and terminates unless b was cut off."""
    problem = pettingzoo(
        env="test_adapters_host:Race", observations="concatenated", num_steps=5, env_options={"lazy": lazy}
    )
    played = problem.collect(lambda seen, t: (np.zeros((2, 1, 2), int),) * 2, SEEDS, 1)
    np.testing.assert_array_equal(played.observations[0, 0], [[0, 0], [1, 1], [1, 2], [1, 3], [1, 3]])
    np.testing.assert_array_equal(played.losses[:, 0], [[-1, 0, 0, 0, 0], [-1, -2, -3, 0, 0]])
    np.testing.assert_array_equal(played.mask[1, 0], [True] * 3 + [False] * 2)
    assert (played.terminated.any(-1) == (not lazy)).all()


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("test_adapters_host:Race", {}, r"must have a state\(\) for observations='global'.*use observations='concaten"),
        ("numpy", {}, r"must be a module with a parallel_env, got 'numpy'"),
        ("mpe2.simple_spread_v3", {"num_steps": 0}, r"pettingzoo\(num_steps=\.\.\.\) must be a whole number >= 1"),
    ],
)
def test_what_does_not_fit_many(env, options, message):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=message):
        pettingzoo(env=env, **options)
