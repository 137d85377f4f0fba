"""What environments may return and raise, and what then happens: masks, odd types, ends, pixels, failures, closing, ids; and acting as evaluation does."""

import builtins
import copy
import errno
import importlib
from pathlib import Path

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from lapg import Config, evaluate, train
from lapg.experiments.build import build_problem
from lapg.experiments.evaluate import greedy
from lapg.experiments.run import Run
from lapg.methods import Part
from lapg.policies import with_policy
from lapg.problems.check import check_problem
from lapg.problems.gymnasium import gymnasium
from lapg.problems.pettingzoo import pettingzoo
from lapg.runtimes.host_env import sampler

SEEDS = np.array([11, 12], np.uint32)
Box, Discrete, Dict, Tuple = gym.spaces.Box, gym.spaces.Discrete, gym.spaces.Dict, gym.spaces.Tuple
EYE = Box(-1.0, 1.0, (3,))
MASK = gym.spaces.MultiBinary(5)
CASES = {  # what an agent sees, and what it does
    "discrete from 5": (EYE, Discrete(2, start=5)),
    "whole number from 1": (Discrete(4, start=1), Discrete(3)),
    "whole numbers": (Box(-5, 300, (2, 3), np.int64), Discrete(3)),
    "pixels": (Box(0, 255, (4, 4, 3), np.uint8), Discrete(3)),
    "bytes up to 9": (Box(0, 9, (3,), np.uint8), Discrete(3)),
    "named parts": (Dict(image=Box(0, 255, (2, 2), np.uint8), place=Discrete(3)), Discrete(3)),
    "parts": (Tuple((EYE, Discrete(3, start=-1))), Discrete(3)),
    "bits": (gym.spaces.MultiBinary(4), Discrete(3)),
    "several whole numbers": (gym.spaces.MultiDiscrete([3, 2]), Discrete(3)),
    "free vector": (EYE, Box(-np.inf, np.inf, (2,))),
    "bounded matrix": (EYE, Box(np.float32([[-1, 0], [2, 5]]), np.float32([[1, 9], [3, 6]]))),
    "bounded number": (EYE, Box(-2.0, 3.0, ())),
    "mask inside": (Dict(observation=EYE, action_mask=MASK), Discrete(5, start=1)),
    "mask beside": (EYE, Discrete(5, start=1)),
}


class Play(gym.Env):
    """Four steps of observations drawn from its space; keeps what it has shown and been given. With a mask, two of five actions are allowed."""

    log: list = []  # noqa: RUF012

    def __init__(self, case):
        self.observation_space, self.action_space = copy.deepcopy(CASES[case])
        self.case = case

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        Play.log.append([])
        return self.show()

    def show(self):
        seen, info, mask = self.observation_space.sample(), {}, np.zeros(5, np.int8)
        mask[self.np_random.choice(5, 2, replace=False)] = 1
        if self.case == "mask inside":
            seen["action_mask"] = mask
        if self.case == "mask beside":
            info["action_mask"] = mask
        self.shown = seen, info, mask
        return seen, info

    def step(self, action):
        Play.log[-1].append((*self.shown, action))
        self.time += 1
        seen, info = self.show()
        return seen, 0.0, self.time == 4, False, info


class Team:
    """The same for two agents, of different kinds where two cases are named; the world's state is what both see."""

    possible_agents = ("a", "b")

    def __init__(self, cases):
        self.worlds = {name: Play(case) for name, case in zip(self.possible_agents, cases, strict=True)}

    def observation_space(self, name):
        return self.worlds[name].observation_space

    def action_space(self, name):
        return self.worlds[name].action_space

    def state(self):
        return np.full((2, 2), self.worlds["a"].time, np.float32)

    def gather(self, parts):
        return tuple({name: part[i] for name, part in parts.items()} for i in range(len(next(iter(parts.values())))))

    def reset(self, seed):
        self.agents = list(self.possible_agents)
        before = len(Play.log)
        found = self.gather({name: self.worlds[name].reset(seed=seed + i) for i, name in enumerate(self.agents)})
        self.log = []
        Play.log[before:] = [self.log]
        self.now = (*found, self.state())
        return found

    def step(self, actions):
        masks = {name: world.shown[2] for name, world in self.worlds.items()}
        self.log.append((*self.now, masks, actions))
        Play.log.append([])
        found = self.gather({name: self.worlds[name].step(actions[name]) for name in self.agents})
        Play.log.pop()
        self.agents = [name for name in self.agents if not found[2][name]]
        self.now = found[0], found[4], self.state()
        return found

    def close(self):
        pass


def configured(adapter, name, options, **fields):
    """A run of that problem with parameters that nobody has learned."""
    problem = Part(adapter, env=f"test_adapters_contract:{name}", num_steps=4, env_options=options, **fields)
    policy = Part(hidden=3)
    config = Config(
        problem=problem,
        policy=policy,
        method="pg",
        optimiser=Part("sgd", step_size=0.01),
        batch_size=2,
        rounds=1,
        seeds=1,
    )
    problem = build_problem(config)
    theta = np.random.default_rng(0).normal(size=(1, problem.policy.num_params))
    learners = np.arange(problem.num_learners)
    record = xr.Dataset({"params": (("seed", "parameter"), theta)}, {"seed": [0], "learner": learners})
    return Run(Path(), config, record, trust=True), problem


def greedily(run, problem):
    """What evaluation's greedy episode of learner 0 has shown, and what it was given."""
    Play.log.clear()
    play = sampler(problem, greedy(problem.policy))
    play(
        jax.random.split(jax.random.key(1), problem.num_learners),
        jnp.broadcast_to(run.params(), (problem.num_learners, run.params().size)),
        1,
    )
    return Play.log[0]


@pytest.mark.parametrize("case", CASES)
def test_acting_is_what_evaluation_does(case):
    """Oracle: the actions that the environment itself was given in a greedy episode, of the observations that it itself had shown."""
    run, problem = configured("gymnasium", "Play", {"case": case}, num_learners=1)
    steps, space = greedily(run, problem), CASES[case][1]
    assert len(steps) == 4
    for seen, info, _, given in steps:
        action = run.policy(seen, **({"info": info} if info else {}))
        np.testing.assert_allclose(action, given, 1e-6, 1e-6)
        assert np.shape(action) == space.shape
        assert isinstance(space, Box) or space.contains(action)
    print(f"{case}: {len(steps)} of {len(steps)} actions equal")


@pytest.mark.parametrize(
    ("observations", "cases"),
    [
        ("local", ("discrete from 5",) * 2),
        ("concatenated", ("parts", "bounded matrix")),
        ("global", ("whole numbers", "free vector")),
        ("global", ("mask inside", "mask beside")),
        ("local", ("mask beside", "pixels")),
    ],
)
def test_agents_act_as_in_evaluation(observations, cases):
    """Oracle: as above; ``global`` observations are the state, with which masks come in the infos."""
    run, problem = configured("pettingzoo", "Team", {"cases": cases}, observations=observations)
    steps = greedily(run, problem)
    assert len(steps) == 4
    for seen, info, state, masks, given in steps:
        if observations == "global":
            seen, info = state, {name: {"action_mask": mask} for name, mask in masks.items()}
        actions = run.policy(seen, **({"info": info} if any("mask" in case for case in cases) else {}))
        assert actions.keys() == given.keys()
        for name, action in actions.items():
            np.testing.assert_allclose(action, given[name], 1e-6, 1e-6)
    if observations == "concatenated":
        with pytest.raises(ValueError, match=r"must be those of all agents, got none of \['b'\]"):
            run.policy({"a": seen["a"]})


def test_evaluation_itself():
    """Oracle: the greedy one of its two episodes, action by action; afterwards run.policy refuses a batch, by both shapes."""
    run, _ = configured("gymnasium", "Play", {"case": "discrete from 5"}, num_learners=1)
    Play.log.clear()
    evaluate(run, num_episodes=1)
    assert [run.policy(seen) for seen, *_ in Play.log[-1]] == [given for *_, given in Play.log[-1]]
    with pytest.raises(ValueError, match=r"must have the shape of its space, \(3,\), got \(5, 3\)"):
        run.policy(np.zeros((5, 3)))


def test_acting_inside_jax_is_checked():
    """Oracle: cooperative navigation of two agents sees 12 numbers."""
    config = Config(problem=Part("cooperative_navigation", num_agents=2))
    problem = build_problem(config)
    run = Run(
        Path(), config, xr.Dataset({"params": (("seed", "p"), np.zeros((1, problem.policy.num_params)))}, {"seed": [0]})
    )
    assert run.policy(np.zeros(12)).shape == (2,)
    np.testing.assert_array_equal(run.policy([0] * 12), run.policy(np.zeros(12)))
    with pytest.raises(ValueError, match=r"must have the shape of its space, \(12,\), got \(5, 12\)"):
        run.policy(np.zeros((5, 12)))


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("adapter", "name", "options"),
    [
        ("gymnasium", "Play", {"case": "mask inside"}),
        ("gymnasium", "Play", {"case": "mask beside"}),
        ("pettingzoo", "Team", {"cases": ("mask inside", "mask beside")}),
        ("pettingzoo", "Team", {"cases": ("mask beside", "mask beside")}),
    ],
)
def test_masks_are_honoured(adapter, name, options):
    """Oracle: the environment's own mask at every step of 20 random episodes: 2 of 5 actions are allowed, so that 60 % would be wrong without it."""
    fields = {"observations": "local"} if adapter == "pettingzoo" else {"num_learners": 1}
    run, problem = configured(adapter, name, options, **fields)
    learners = problem.num_learners
    Play.log.clear()
    params = jnp.broadcast_to(run.params(), (learners, run.params().size))
    sampler(problem, problem.policy)(jax.random.split(jax.random.key(0), learners), params, 20)
    steps = [step for episode in Play.log for step in episode]
    assert len(steps) == learners * 20 * 4
    for *_, masks, action in steps:
        for mask, one in zip(masks.values(), action.values(), strict=True) if learners > 1 else ((masks, action),):
            assert mask[one - 1]


def test_masked_probabilities():
    """Oracle: probabilities of the allowed actions sum to 1 at any θ, those of the others are 0; the gradient is that of the smaller softmax."""
    _, problem = configured("gymnasium", "Play", {"case": "mask beside"}, num_learners=1)
    policy = problem.policy
    seen = jnp.asarray([*problem.observation[:3], 0, 1, 0, 1, 0])
    for seed in (1, 2):
        theta = 3 * policy.init(jax.random.key(seed))
        found = np.exp([policy.log_prob(theta, seen, jnp.int32(action)) for action in range(5)])
        np.testing.assert_allclose(found.sum(), 1, 1e-12)
        assert not found[[0, 2, 4]].any()
        slopes = jnp.stack([jax.grad(policy.log_prob)(theta, seen, jnp.int32(action)) for action in (1, 3)])
        np.testing.assert_allclose(found[[1, 3]] @ slopes, 0, atol=1e-12)
        assert np.isfinite(slopes).all()
        assert policy.mode(theta, seen) in (1, 3)
    for uniform in (0.0, np.nextafter(1, 0)):  # both ends of the CDF
        assert policy.sample(jnp.asarray(uniform), theta, seen)[0] in (1, 3)


class Whims(gym.Env):
    """Three steps that return whatever they are told to."""

    observation_space, action_space = Box(-9.0, 9.0, (2,)), Discrete(2)

    def __init__(
        self, reward=0.0, terminated=False, truncated=False, seen=(0.0, 0.0), masks=None, fails=None, **spaces
    ):
        self.told, self.seen, self.masks, self.fails = (reward, terminated, truncated), seen, masks, fails or {}
        vars(self).update(spaces)
        self.raises("make")

    def raises(self, where):
        if where in self.fails:
            error = self.fails[where]
            raise getattr(builtins, error)("oh") if isinstance(error, str) else error

    def info(self):
        mask = None if self.masks is None else self.masks[min(self.time, len(self.masks) - 1)]
        return {} if mask is None else {"action_mask": np.array(mask)}

    def reset(self, *, seed=None, options=None):
        self.raises("reset")
        self.time = 0
        return np.zeros(2, np.float32), self.info()

    def step(self, action):
        self.time += 1
        self.raises(self.time)
        return np.array(self.seen) if isinstance(self.seen, tuple) else self.seen, *self.told, self.info()

    def close(self):
        self.raises("close")


class Whimsical:
    """The same for an agent that is alone."""

    possible_agents = ("a",)

    def __init__(self, **options):
        self.inner = Whims(**options)
        self.observation_space, self.action_space = lambda _: self.inner.observation_space, lambda _: Discrete(2)

    def reset(self, seed):
        self.agents = ["a"]
        seen, info = self.inner.reset(seed=seed)
        return {"a": seen}, {"a": info}

    def step(self, actions):
        found = tuple({"a": each} for each in self.inner.step(actions["a"]))
        self.agents = ["a"] * (found[2]["a"] is False and found[3]["a"] is False)
        return found

    def close(self):
        self.inner.close()


def whims(adapter="gymnasium", num_steps=3, **options):
    if adapter == "gymnasium":
        return gymnasium(env="test_adapters_contract:Whims", num_learners=2, num_steps=num_steps, env_options=options)
    return pettingzoo(
        env="test_adapters_contract:Whimsical", observations="local", num_steps=num_steps, env_options=options
    )


def play(problem, num=1):
    """Episodes in which everybody takes action 0."""
    seen = jnp.asarray(problem.observation)
    shape = jax.eval_shape(lambda key: problem.policy.mode(problem.init(key), seen), jax.random.key(0)).shape
    zeros = np.zeros((problem.num_learners, num, *shape), int)
    return problem.collect(lambda seen, t: (zeros, zeros), SEEDS[: problem.num_learners], num)


BOTH = pytest.mark.parametrize("adapter", ["gymnasium", "pettingzoo"])


@BOTH
@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([(1, 1), (0, 0)], "action_mask must allow an action as long as the episode goes on"),
        ([(1, 1), None], "info must always have an action_mask, got none"),
        ([None, (1, 1)], "info has an action_mask, which it had not after the first reset"),
        ([(1, 1), (1, 1, 1)], r"action_mask must have the shape of its space, \(2,\), got \(3,\)"),
    ],
)
def test_masks_that_do_not_fit(adapter, masks, message):
    """Oracle: the flaw that was put in; an environment is asked for its mask at every step."""
    with pytest.raises(ValueError, match=message):
        play(whims(adapter, masks=masks))


def test_masks_are_left_out_on_request():
    """Oracle: Taxi's 500 states and 6 actions: with its advisory mask the policy sees 506 numbers, without it 500."""
    sizes = [gymnasium(env="Taxi-v4", action_masks=each).observation.size for each in (True, False)]
    assert sizes == [506, 500]
    with pytest.raises(ValueError, match=r"must have Discrete actions for its action_mask to limit, got Box"):
        whims(masks=[(1, 1)], action_space=Box(-1.0, 1.0, (2,)))


# ---------------------------------------------------------------- rewards, flags, ends


@BOTH
@pytest.mark.parametrize(
    ("reward", "loss"),
    [
        (np.uint8(3), -3),
        (True, -1),
        (np.bool_(True), -1),
        (np.array([3.5]), -3.5),
        (np.array(3), -3),
        (np.float32(0.5), -0.5),
    ],
)
def test_rewards_of_any_real_type(adapter, reward, loss):
    """Oracle: minus the number that is meant."""
    np.testing.assert_array_equal(play(whims(adapter, reward=reward)).losses[0, 0], [loss] * 3)


@BOTH
@pytest.mark.parametrize("reward", [None, "3", np.array([1.0, 2.0]), 1j, [[1.0], 2.0]])
def test_rewards_that_are_no_number(adapter, reward):
    """Oracle: the rule, the place and the value in one line."""
    with pytest.raises(ValueError, match=r"in step 1 of an episode of learner 0 .* must be one number, got") as caught:
        play(whims(adapter, reward=reward))
    assert len(str(caught.value).splitlines()) == 1


@BOTH
@pytest.mark.parametrize("value", [True, np.bool_(True), 1, 1.0, np.array([True])])
def test_flags_of_any_type(adapter, value):
    """Oracle: an end after one step, terminated or cut off."""
    for name in ("terminated", "truncated"):
        played = play(whims(adapter, **{name: value}))
        np.testing.assert_array_equal(played.mask[0, 0], [True, False, False])
        assert getattr(played, name)[0, 0].tolist() == [True, False, False]
        assert not (played.terminated & played.truncated).any()


@BOTH
@pytest.mark.parametrize("value", [None, "no", 2, np.array([True, False])])
def test_flags_that_are_none(adapter, value):
    """Oracle: the rule."""
    with pytest.raises(ValueError, match=r"truncated must be True or False, got"):
        play(whims(adapter, truncated=value))


def test_an_old_interface_is_named():
    """Oracle: Gymnasium's interface has five values; the environment returns four."""
    with pytest.raises(
        ValueError, match="step must return observation, reward, terminated, truncated, info, got 4 values"
    ):
        play(gymnasium(env="test_adapters_contract:Old", num_learners=1, num_steps=2))


class Old(Whims):
    def step(self, action):
        return super().step(action)[:4]


class Crowd:
    """Cuts everybody off after 3 steps, or lets a go first, and never empties ``agents``. Every step pays 1."""

    possible_agents = ("a", "b")

    def __init__(self, first=3):
        self.first = first

    def observation_space(self, name):
        return Box(0, 9, (1,))

    def action_space(self, name):
        return Discrete(2)

    def reset(self, seed):
        self.agents, self.time = ["a", "b"], 0
        return dict.fromkeys(self.agents, np.zeros(1)), {}

    def step(self, actions):
        assert list(actions) == self.agents
        self.time += 1
        cut = {"a": self.time >= self.first, "b": self.time >= 3}
        return dict.fromkeys("ab", np.full(1, self.time)), dict.fromkeys("ab", 1), dict.fromkeys("ab", False), cut, {}

    def close(self):
        pass


@pytest.mark.parametrize("first", [3, 1])
def test_agents_that_are_never_dropped(first):
    """Oracle: by hand: 3 steps, of which a is paid for the first ones only and seen as it was then."""
    problem = pettingzoo(
        env="test_adapters_contract:Crowd", observations="concatenated", num_steps=8, env_options={"first": first}
    )
    with pytest.warns(UserWarning, match=r"leaves agents in env\.agents after their end; they count as gone"):
        played = play(problem)
    np.testing.assert_array_equal(played.losses.sum(-1)[:, 0], [-first, -3])
    np.testing.assert_array_equal(played.mask.sum(-1), 3)
    np.testing.assert_array_equal(played.following[0, 0, -1], [first, 3])
    assert not played.terminated.any()


# ---------------------------------------------------------------- observations


@pytest.mark.parametrize(
    ("case", "options", "factor"),
    [
        ("pixels", {}, 1 / 255),
        ("pixels", {"scale_pixels": False}, 1),
        ("named parts", {}, 1 / 255),
        ("bytes up to 9", {}, 1),
    ],
)
def test_pixels_are_scaled(case, options, factor):
    """Oracle: x/255 for bytes from 0 to 255, also inside a Dict; x itself where that is switched off, or the bounds are others."""
    env = {"env": "test_adapters_contract:Play", "env_options": {"case": case}}
    seen = play(gymnasium(**env, num_learners=1, num_steps=4, **options)).observations[0, 0]
    raw = np.array([np.ravel(step[0]["image"] if case == "named parts" else step[0]) for step in Play.log[-1]])
    assert raw.max() > 3
    np.testing.assert_allclose(seen[:, : raw.shape[1]], factor * raw, 1e-14)


@BOTH
@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (np.zeros((1, 2)), r"an observation must have the shape of its space, \(2,\), got \(1, 2\)"),
        (0.0, r"\(2,\), got \(\)"),
        ([[1.0], 2.0], r"must be made of numbers of shape \(2,\), got \[\[1\.0\], 2\.0\]"),
        ((np.nan, 0.0), "an observation must be finite"),
    ],
)
def test_observations_that_do_not_fit(adapter, seen, message):
    """Oracle: the space's shape, and the place in the episode."""
    with pytest.raises(ValueError, match=rf"in step 1 of an episode of learner 0 \(seed \d+\): .*{message}"):
        play(whims(adapter, seen=seen))


@pytest.mark.parametrize("space", [Discrete(3), Dict(x=EYE), gym.spaces.MultiDiscrete([3, 2])])
def test_observations_outside_their_space(space):
    """Oracle: the flaw that was put in."""
    problem = whims(observation_space=Box(-9, 9, (2,)))
    assert play(problem).mask.all()
    with pytest.raises(ValueError, match=r"an observation must (lie in|have the)"):
        play(whims(observation_space=space, seen=(7.0, 7.0)))


# ---------------------------------------------------------------- failures


def unlucky():
    raise ValueError("low >= high")


class Unlucky(Whims):
    def step(self, action):
        if self.time:
            unlucky()
        return super().step(action)


@pytest.mark.parametrize(
    ("fails", "where"),
    [
        (
            {"make": OSError(errno.ENOENT, "no such level", "level.xml")},
            r"Whims'\) could not be made: FileNotFoundError: .*no such level",
        ),
        ({"reset": KeyError("goal")}, r", in its first reset: KeyError: 'goal'"),
        (
            {2: OSError(errno.ENOSPC, "no room")},
            r"in step 2 of an episode of learner 0 \(seed \d+\): OSError: .*no room",
        ),
        ({3: SystemExit(0)}, r"in step 3 of an episode of learner 0 .*: SystemExit: 0"),
    ],
)
@BOTH
def test_failures_are_named(adapter, fails, where):
    """Oracle: what was raised, the environment's name, and where; never a ValueError or an OSError, which would be read as ours."""
    with pytest.raises(
        RuntimeError, match=where if adapter == "gymnasium" else where.replace("Whims", "Whimsical")
    ) as caught:
        play(whims(adapter, fails=fails))
    assert caught.value.__cause__ is next(iter(fails.values()))
    assert "in raises" in caught.value.details


def test_a_failure_keeps_the_users_traceback():
    """Oracle: the functions that were on the way, and none of this library's."""
    problem = gymnasium(env="test_adapters_contract:Unlucky", num_learners=2, num_steps=3)
    with pytest.raises(
        RuntimeError, match=r"in step 2 of an episode of learner 0 \(seed \d+\): ValueError: low >= high"
    ) as caught:
        play(problem, 2)
    assert type(caught.value).__name__ == "EnvironmentFailed"
    details = caught.value.details
    assert "in unlucky" in details
    assert "site-packages/lapg" not in details
    assert "problems/gymnasium.py" not in details
    again = type(caught.value)(*caught.value.args)
    again.__dict__.update(caught.value.__dict__)
    assert again.details == details  # as pickle does, for engines


def bad_problem(*, num_learners=2):
    if num_learners == 3:
        return gymnasium(env="test_adapters_contract:Whims", num_learners=0, num_steps=2)
    return unlucky()


def test_factories_that_raise():
    """Oracle: the factory's own error is named as such; what this library refuses in it stays a refusal."""
    with pytest.raises(
        RuntimeError, match=r"problem 'test_adapters_contract:bad_problem' could not be made: ValueError: low >= high"
    ):
        build_problem(Config(problem=Part("test_adapters_contract:bad_problem")))
    with pytest.raises(ValueError, match=r"problem.num_learners must be a whole number >= 1, got 0"):
        build_problem(Config(problem=Part("test_adapters_contract:bad_problem", num_learners=3)))


def test_modules_that_raise(tmp_path, monkeypatch):
    """Oracle: an error within the module is its own, with its line; a module that is missing is a wrong name."""
    (tmp_path / "broken_levels.py").write_text("levels = {}\nlevels.first\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"cannot be imported: AttributeError: 'dict' object") as caught:
        gymnasium(env="broken_levels:make")
    assert "levels.first" in caught.value.details


# ---------------------------------------------------------------- closing


class Lonely(Whims):
    """Only one at a time; keeps who is open, and all seeds."""

    open: list = []  # noqa: RUF012
    seeds: list = []  # noqa: RUF012
    made = 0

    def __init__(self, alone=True, **options):
        if alone and Lonely.open:
            raise RuntimeError("there is another one")
        super().__init__(**options)
        Lonely.open.append(self)
        Lonely.made += 1

    def reset(self, *, seed=None, options=None):
        Lonely.seeds.append(seed)
        return super().reset(seed=seed)

    def close(self):
        Lonely.open.remove(self)


class Duo(Whimsical):
    def __init__(self, **options):
        self.inner = Lonely(**options)
        self.observation_space, self.action_space = lambda _: self.inner.observation_space, lambda _: Discrete(2)


@pytest.mark.parametrize("adapter", [gymnasium, pettingzoo])
def test_one_at_a_time(adapter):
    """Oracle: an environment that refuses to be opened twice: M = N = 1 can be played; a closed problem can be played again. Seeds fit a C int."""
    Lonely.open.clear(), Lonely.seeds.clear()
    name, fields = ("Lonely", {"num_learners": 1}) if adapter is gymnasium else ("Duo", {"observations": "local"})
    problem = adapter(env=f"test_adapters_contract:{name}", num_steps=2, **fields)
    for seed in range(6):
        problem.collect(
            lambda seen, t: (np.zeros((1, 1, *(() if adapter is gymnasium else (1,))), int),) * 2, np.array([seed]), 1
        )
    assert len(Lonely.open) == 1
    assert max(Lonely.seeds) < 2**31
    problem.close()
    assert not Lonely.open
    play(problem)
    problem.close()
    play(adapter(env=f"test_adapters_contract:{name}", num_steps=2, **fields))
    assert not Lonely.open  # forgotten


@pytest.mark.parametrize("fails", [{}, {"2": "ValueError"}, {"2": "KeyboardInterrupt"}])
def test_runs_close_what_they_open(tmp_path, fails):
    """Oracle: those that are open after the end, an error, an interrupt; after evaluation, and after what cannot be played at all."""
    Lonely.open.clear()
    Lonely.made = 0
    options = {"alone": False, "fails": fails}
    problem = Part("gymnasium", env="test_adapters_contract:Lonely", num_learners=2, num_steps=3, env_options=options)
    config = Config(
        problem=problem, method="pg", optimiser=Part("sgd", step_size=0.01), batch_size=2, rounds=1, seeds=1
    )
    try:
        run = train(config, tmp_path / "run", show_progress=False)
        assert not Lonely.open
        evaluate(run, num_episodes=3)
    except (RuntimeError, KeyboardInterrupt):
        assert fails
    assert Lonely.made >= 5  # the probe's, and those of the run
    assert not Lonely.open


# ---------------------------------------------------------------- the check


def restless():
    return Restless()


class Restless(Whims):
    """Draws from NumPy's global generator, which no seed of an episode reaches."""

    def step(self, action):
        return np.float32(np.random.uniform(size=2)), *super().step(action)[1:]  # noqa: NPY002


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        (
            "Whims",
            {"reward": None},
            r"FAIL  samples repeat themselves: gymnasium\(.*a reward must be one number, got None",
        ),
        ("Whims", {"seen": np.zeros((1, 2))}, r"FAIL  samples repeat themselves: .*\(2,\), got \(1, 2\)"),
        (
            "Whims",
            {"reward": np.inf},
            r"FAIL  samples repeat themselves: .*in step 1 .*a reward must be finite, got -?\[?inf",
        ),
        ("Unlucky", {}, r"FAIL  samples repeat themselves: .*in step 2 .*ValueError: low >= high"),
        ("Whims", {"masks": [(1, 1), (0, 0)]}, r"FAIL  samples repeat themselves: .*action_mask must allow an action"),
        ("Restless", {}, r"FAIL  samples repeat themselves: episodes must be the same under equal seeds"),
        ("Whims", {"fails": {"shut": 0}}, r"note  episodes: no episode has ended before T=3; if some should"),
        ("Whims", {"masks": [(1, 1)]}, r"note  adapter: actions that action_mask forbids are never taken"),
        ("Play", {"case": "pixels"}, r"note  adapter: observations from 0 to 255 are divided by 255"),
        ("Stuck", {}, r"FAIL  environments close: gymnasium\(.*could not be closed: RuntimeError: stuck"),
        ("Crowd", {}, r"note  warning: pettingzoo\(.*leaves agents in env\.agents after their end"),
    ],
)
def test_the_check_says_so(name, options, line):
    """Oracle: the flaw that was put in, or what the adapter does."""
    env = {"env": f"test_adapters_contract:{name}", "env_options": options}
    problem = (
        pettingzoo(**env, observations="local") if name == "Crowd" else gymnasium(**env, num_learners=1, num_steps=3)
    )
    said = "\n".join(map(str, check_problem(problem, num=2)))
    assert importlib.import_module("re").search(f"(?m)^{line}", said), said


class Stuck(Whims):
    """Closes once, for the probe."""

    closed = 0

    def close(self):
        Stuck.closed += 1
        if Stuck.closed > 1:
            raise RuntimeError("stuck")


# ---------------------------------------------------------------- ids and settings


def test_ids_with_a_module(tmp_path, monkeypatch):
    """Oracle: Gymnasium's own MODULE:ID, which imports the module first: with a version, with a namespace, with neither."""
    ids = ("Shelf-v0", "levels/Shelf-v2", "levels/Board", "Board")
    lines = [
        f"gymnasium.register({name!r}, entry_point='test_adapters_contract:Whims', max_episode_steps=7)" for name in ids
    ]
    (tmp_path / "shelves.py").write_text("\n".join(["import gymnasium", *lines]))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        for name in ids:
            assert gymnasium(env=f"shelves:{name}", num_learners=1).num_steps == 7
    finally:
        for name in ids:
            gym.registry.pop(name, None)
    with pytest.raises(
        ValueError, match=r"must be an environment that Gymnasium can make, got 'nowhere_at_all:Shelf-v0': No module"
    ):
        gymnasium(env="nowhere_at_all:Shelf-v0")
    with pytest.raises(ValueError, match="cannot be imported: module 'shelves' has no attribute 'Drawer'"):
        gymnasium(env="shelves:Drawer")


@pytest.mark.parametrize("setting", [{"std": 0.3}, {"learned_std": True}])
def test_std_needs_continuous_actions(setting):
    """Oracle: CartPole's and the agents' actions are whole numbers; with one continuous agent the setting has a meaning."""
    message = (
        rf"policy\({next(iter(setting))}=\.\.\.\) is of normal actions, and all actions are discrete; leave it out"
    )
    factories = {name: getattr(importlib.import_module("lapg.problems"), name) for name in ("gymnax", "jaxmarl")}
    with jax.numpy_rank_promotion("allow"):
        for build in (
            lambda: gymnasium(env="CartPole-v1"),
            lambda: pettingzoo(
                env="test_adapters_contract:Team",
                observations="local",
                env_options={"cases": ("parts", "bits")},
            ),
            lambda: factories["gymnax"](env="CartPole-v1"),
            lambda: factories["jaxmarl"](env="MPE_simple_spread_v3", observations="local"),
        ):
            with pytest.raises(ValueError, match=message):
                with_policy(build(), **setting)
    mixed = pettingzoo(
        env="test_adapters_contract:Team",
        observations="local",
        env_options={"cases": ("parts", "free vector")},
    )
    assert with_policy(mixed, **setting).num_learners == 2


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [("gymnax", {"env": "CartPole-v1"}, "num_learners"), ("jaxmarl", {"env": "MPE_simple_spread_v3"}, None)],
)
def test_acting_in_outside_jax_libraries(name, options, key):
    """Oracle: what the library itself returns and takes, against the policy on what the learners see."""
    factory, library = getattr(importlib.import_module("lapg.problems"), name), importlib.import_module(name)
    with jax.numpy_rank_promotion("allow"):
        seen = {"observations": "local"} if name == "jaxmarl" else {}
        problem = with_policy(factory(**options, **seen), hidden=(3,))
        config = Config(problem=Part(name, **options, **seen), policy=Part(hidden=3))
        theta = np.asarray(problem.init(jax.random.key(3)))
        run = Run(Path(), config, xr.Dataset({"params": (("seed", "p"), theta[None])}, {"seed": [0]}), trust=True)
        task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
        state = problem.environment.reset(jax.random.key(5), task)
        wanted = problem.policy.mode(jnp.asarray(theta), problem.environment.observe(state))
        made = library.make(options["env"])
        if name == "gymnax":
            seen = made[0].reset(jax.random.key(5), made[1])[0]
            assert run.policy(seen) == wanted
        else:
            seen = made.reset(jax.random.key(5))[0]
            actions = run.policy(seen)
            assert [int(actions[agent]) for agent in made.agents] == wanted.tolist()
        with pytest.raises(ValueError, match=r"must have the s(hape|tructure)"):
            run.policy(np.zeros((5, 4)) if name == "gymnax" else {agent: np.zeros(3) for agent in made.agents})
