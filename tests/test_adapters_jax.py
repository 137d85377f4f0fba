"""Adapters to gymnax and JaxMARL against those libraries, stepped directly, and against engines that do not depend on them."""

import dataclasses
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, train
from lapg.methods import Part
from lapg.policies import with_policy
from lapg.problems import acrobot, minatar, simple_spread
from lapg.problems.adapters import first_observation
from lapg.problems.cooperative_navigation import State, collisions
from lapg.problems.cooperative_navigation import environment as navigation
from lapg.problems.gymnax import gymnax
from lapg.problems.jaxmarl import jaxmarl

SPREAD = {"env": "MPE_simple_spread_v3", "env_options": {"num_agents": 3, "num_landmarks": 3}}


@pytest.fixture
def lenient():
    """For calls of the libraries themselves, which promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


def first_task(problem):
    return jax.tree.map(lambda leaf: leaf[0], problem.tasks)


def test_cart_pole_steps_as_in_gymnax():
    """Oracle: gymnax's public step (which resets by itself and tells the two ends apart) from the same reset, pushing right until the pole falls."""
    problem = gymnax(env="CartPole-v1", num_learners=2)
    game, settings = importlib.import_module("gymnax").make("CartPole-v1")
    key, task = jax.random.key(3), first_task(problem)
    ours, (seen, theirs) = problem.environment.reset(key, task), game.reset(key, settings)
    np.testing.assert_array_equal(problem.environment.observe(ours), seen)
    step = jax.jit(problem.environment.step)
    for _ in range(20):
        after = step(key, task, ours, jnp.int32(1))
        _, theirs, reward, terminated, truncated, info = game.step(key, theirs, jnp.int32(1), settings)
        np.testing.assert_allclose(problem.environment.observe(after.state), info["final_observation"], 1e-12)
        assert (float(after.loss), bool(after.terminated), bool(after.truncated)) == (-reward, terminated, truncated)
        ours = after.state
        if terminated:
            break
    assert terminated
    assert not truncated
    late = problem.environment.reset(key, task)
    late = type(late)(late.inner.replace(time=jnp.asarray(499, late.inner.time.dtype)), late.observation)
    after = step(key, task, late, jnp.int32(1))
    assert (bool(after.terminated), bool(after.truncated)) == (False, True)


def test_pendulum_moves_as_in_gymnasium():
    """Oracle: Gymnasium's Pendulum-v1 from injected states; its observations are float32. The policy's actions are squashed into ±2."""
    problem, key = gymnax(env="Pendulum-v1", num_learners=1), jax.random.key(0)
    low, high = (problem.policy.actuate(jnp.full(1, size)) for size in (-50.0, 50.0))
    np.testing.assert_allclose([*low, *high], [-2, 2])
    engine = importlib.import_module("gymnasium").make("Pendulum-v1").unwrapped
    start, task = problem.environment.reset(key, first_task(problem)), first_task(problem)
    step = jax.jit(problem.environment.step)
    for angle, speed, torque in np.random.default_rng(0).uniform([-3, -8, -2], [3, 8, 2], (20, 3)):
        engine.reset(seed=0)
        engine.state = np.array([angle, speed])
        seen, reward, *_ = engine.step(np.array([torque]))
        inner = start.inner.replace(theta=jnp.asarray(angle), theta_dot=jnp.asarray(speed))
        after = step(key, task, type(start)(inner, start.observation), jnp.asarray([torque]))
        np.testing.assert_allclose(problem.environment.observe(after.state), seen, 1e-5, 1e-5)
        np.testing.assert_allclose(after.loss, -reward, 1e-6)


def test_simple_spread_moves_as_cooperative_navigation():
    """Oracle: our explicit integrator (tested against mpe2) from injected states, and the reward by its formula; float64.

    JaxMARL says that an episode has ended from its 26th call on, whatever has happened: a truncation.
    """
    problem, size = jaxmarl(**SPREAD, observations="concatenated"), 50
    rng, task, key = np.random.default_rng(0), first_task(problem), jax.random.key(0)
    shrunk = np.where(np.arange(size) % 2, 0.2, 1.0)[:, None, None]  # in half of them agents overlap
    positions, velocities, landmarks = rng.uniform(-1, 1, (3, size, 3, 2)) * shrunk
    actions, calls = rng.integers(0, 5, (size, 3)), rng.integers(23, 27, size)
    start = problem.environment.reset(key, task)

    @jax.jit
    @jax.vmap
    def theirs(positions, velocities, landmarks, actions, calls):
        resting = jnp.zeros_like(landmarks)
        inner = start.inner.replace(
            p_pos=jnp.concatenate([positions, landmarks]), p_vel=jnp.concatenate([velocities, resting]), step=calls - 1
        )
        before = type(start)(inner, start.observations, (calls - 1).astype(jnp.int32))
        return problem.environment.step(key, task, before, actions)

    @jax.jit
    @jax.vmap
    def ours(positions, velocities, landmarks, actions):
        state = State(positions, velocities, landmarks)
        after = navigation(3).step(key, task, state, actions).state
        return after.positions, after.velocities, collisions(after)

    found, expected = (
        jax.tree.map(np.asarray, each)
        for each in (
            theirs(positions, velocities, landmarks, actions, calls),
            ours(positions, velocities, landmarks, actions),
        )
    )
    moved, pushed, touched = expected
    errors = [
        np.abs(found.state.inner.p_pos[:, :3] - moved).max(),
        np.abs(found.state.inner.p_vel[:, :3] - pushed).max(),
    ]
    print("simple_spread: largest errors in positions and velocities", errors)
    assert max(errors) < 1e-11
    assert 0.1 < np.mean(touched > 0) < 0.9
    gaps = np.linalg.norm(moved[:, :, None] - landmarks[:, None], axis=-1).min(1).sum(-1)
    np.testing.assert_allclose(found.loss, 0.5 * touched[:, 0] + 0.5 * gaps, 1e-11)
    assert not found.terminated.any()
    np.testing.assert_array_equal(found.truncated, calls == 26)


@pytest.mark.usefixtures("lenient")
def test_what_agents_see():
    """Oracle: JaxMARL's own observation spaces: 18 numbers an agent in simple_spread, 16 and 14 in simple_tag; and its world state in a FACMAC task."""
    views = {
        name: first_observation(problem.environment, problem.tasks)
        for name, problem in {
            "local": jaxmarl(**SPREAD, observations="local"),
            "concatenated": jaxmarl(**SPREAD, observations="concatenated"),
            "mixed": jaxmarl(env="MPE_simple_tag_v3", observations="local"),
        }.items()
    }
    assert views["local"].shape == (3, 18)
    assert views["concatenated"].shape == (54,)
    assert [view.shape for view in views["mixed"]] == [(16,), (16,), (16,), (14,)]
    problem = jaxmarl(env="MPE_simple_facmac_v1")
    state = problem.environment.reset(jax.random.key(0), first_task(problem))
    game = importlib.import_module("jaxmarl").make("MPE_simple_facmac_v1")
    whole = jax.tree.leaves(game.get_world_state(state.inner))
    np.testing.assert_array_equal(
        problem.environment.observe(state), np.concatenate([np.ravel(part) for part in whole])
    )
    small = with_policy(problem._replace(num_steps=3), hidden=(2,))
    batch = jax.jit(lambda key: small.sample(key, first_task(small), small.init(key), 2))(jax.random.key(0))
    np.testing.assert_array_equal(batch.worlds[0], batch.observations)  # for critics whose policies do not see it
    np.testing.assert_array_equal(batch.worlds[1], batch.following)


@pytest.mark.parametrize(
    ("name", "options", "learners", "size"),
    [
        ("lapg.problems.gymnax:gymnax", {"env": "CartPole-v1"}, 4, 4 * 5 + 5 + 5 * 2 + 2),
        ("lapg.problems.jaxmarl:jaxmarl", {**SPREAD, "observations": "local"}, 3, 3 * (18 * 5 + 5 + 5 * 5 + 5)),
        pytest.param(
            "lapg.problems.jaxmarl:jaxmarl",
            {"env": "switch_riddle", "observations": "local"},
            3,
            3 * (2 * 5 + 5 + 5 * 3 + 3),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_training(name, options, learners, size, tmp_path):
    """Oracle: everybody uploads in every round of pg; parameters counted by hand; CartPole's return is the length of an episode, 8 to 10 at least."""
    problem = Part(name, num_steps=10, **options)
    config = Config(
        problem=problem,
        policy=Part(hidden=5),
        method="pg",
        optimiser=Part("sgd", step_size=0.01),
        rounds=2,
        seeds=1,
        batch_size=2,
        chunk_rounds=2,
    )
    record = train(config, tmp_path / "out", show_progress=False).record
    assert record.sizes == {"seed": 1, "round": 2, "learner": learners, "parameter": size}
    assert record["sent"].all()
    assert np.isfinite(record["return_raw"]).all()
    if learners == 4:
        assert 8 <= record["return_raw"].min() <= record["return_raw"].max() <= 10


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gymnax(env="CartPole-v0"), r"must be one of CartPole-v1, .* \(26 in all\), got 'CartPole-v0'"),
        (lambda: gymnax(env="CartPole-v1", num_learners=0), r"gymnax\(num_learners=\.\.\.\) must be a whole number"),
        (lambda: jaxmarl(env="simple_spread"), r"must be one of MPE_simple_spread_v3, .*, got 'simple_spread'"),
        (lambda: jaxmarl(**SPREAD), r"'MPE_simple_spread_v3' has not; use 'concatenated'"),
        (lambda: jaxmarl(**SPREAD, observations="all"), r"must be 'global', 'local' or 'concatenated', got 'all'"),
        (
            lambda: gymnax(env="Acrobot-v1", vary={"gravity": 2.0}),
            r"vary=\.\.\.\) must name real .*link_moi.*, got 'gravity'",
        ),
        (
            lambda: gymnax(env="Acrobot-v1", vary={"dt": 0.0}),
            r"vary=\.\.\.\) must have factors > 0 and finite, got 0\.0",
        ),
        (lambda: gymnax(env="CartPole-v1", sticky=0.5, heterogeneity=1.0), r"sticky=\.\.\.\) must lie in \[0, 1\)"),
        (lambda: gymnax(env="Pendulum-v1", sticky=0.5), r"sticky=\.\.\.\) must be 0 where actions are not discrete"),
        (lambda: jaxmarl(**SPREAD, observations="local", heterogeneity=1.0), r"got 1\.0; give num_learners"),
        (
            lambda: jaxmarl(**SPREAD, observations="concatenated", share_network=True),
            "got 'concatenated' in 'MPE_simple",
        ),
        (
            lambda: jaxmarl(**SPREAD, observations="local", num_learners=2, shared_trajectories=True),
            r"shared_trajectories=\.\.\.\) must be False where num_learners is given",
        ),
        (
            lambda: jaxmarl(env="HeuristicEnemySMAX", env_options={"scenario": "3mm"}),
            r"env_options\.scenario=\.\.\.\) must be one of 3m, .*got '3mm'",
        ),
        (lambda: jaxmarl(env="coin_game", observations="local"), r"num_steps=\.\.\.\) must be given for 'coin_game'"),
    ],
)
def test_wrong_settings_are_refused(build, message, unchecked):
    """Oracle: the docstrings; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("observations", ["local", "concatenated"])
def test_masked_actions_are_never_taken(observations, monkeypatch):
    """Oracle: a simple_spread that forbids the first agent all but action 3 and, when it has moved, all but 1; the others nothing."""
    world = importlib.import_module("jaxmarl").environments.SimpleSpreadMPE

    def allowed(self, state):
        first = jax.nn.one_hot(jnp.where(state.step == 0, 3, 1), 5)
        return {"agent_0": first, "agent_1": jnp.ones(5), "agent_2": jnp.ones(5)}

    monkeypatch.setattr(world, "get_avail_actions", allowed)
    problem = jaxmarl(**SPREAD, observations=observations, num_steps=4)
    size = {"local": 18, "concatenated": 54}[observations]
    assert all(
        (agent.num_inputs, agent.num_outputs, agent.masked) == (size, 5, True) for agent in problem.spaces.agents
    )
    problem = with_policy(problem, hidden=(3,))
    batch = jax.jit(lambda key: problem.sample(key, first_task(problem), problem.init(key), 20))(jax.random.key(0))
    assert batch.observations.shape == (20, 4, 3, size + 5)
    np.testing.assert_array_equal(batch.actions[:, :, 0], np.tile([3, 1, 1, 1], (20, 1)))
    assert set(np.unique(batch.actions[:, :, 1:])) == set(range(5))
    seen = {f"agent_{m}": np.full(18, m) for m in range(3)}
    info = {agent: {"action_mask": np.arange(5) == 2} for agent in seen}
    np.testing.assert_array_equal(problem.interface.encode(seen, info)[1, -5:], [0, 0, 1, 0, 0])
    with pytest.raises(ValueError, match=r"info\['agent_0'\] must have an action_mask, got none"):
        problem.interface.encode(seen, {})


def test_worlds_without_masks_have_none(monkeypatch):
    """Oracle: masks that are all 1 at the start leave observations as they are."""
    world = importlib.import_module("jaxmarl").environments.SimpleSpreadMPE
    monkeypatch.setattr(world, "get_avail_actions", lambda self, state: {"agent_0": jnp.ones(5)})
    assert not jaxmarl(**SPREAD, observations="local").spaces.agents[0].masked


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        {"env": "hanabi", "num_steps": 5},
        {"env": "HeuristicEnemySMAX", "env_options": {"scenario": "3m"}, "num_learners": 2, "share_network": True},
    ],
    ids=["hanabi", "smax"],
)
def test_masks_of_real_worlds(world):
    """Oracle: the mask that was seen when an action was taken; not everything is always allowed. SMAX is made for float32."""
    with jax.enable_x64(False):
        problem = with_policy(jaxmarl(**world, observations="local"), hidden=(3,))
        batch = jax.jit(lambda key: problem.sample(key, first_task(problem), problem.init(key), 3))(jax.random.key(0))
    masks = np.asarray(batch.observations)[..., -problem.spaces.agents[0].action.num :]
    assert np.take_along_axis(masks, np.asarray(batch.actions)[..., None], -1).all()
    assert not masks.all()


def test_gymnax_parameters_by_the_knob():
    """Oracle: our acrobot (tested against Gymnasium) of the same length, torque and scale from the same states; nominal without heterogeneity."""
    vary = {"link_length_1": 1.25, "available_torque": 1.5}
    problem = gymnax(env="Acrobot-v1", num_learners=3, heterogeneity=1.0, vary=vary)
    np.testing.assert_allclose(np.sort(problem.tasks.extra["link_length_1"]), 1.25 ** np.linspace(-1, 1, 3))
    np.testing.assert_allclose(np.sort(problem.tasks.extra["available_torque"][:, 2]), 1.5 ** np.linspace(-1, 1, 3))
    np.testing.assert_allclose(np.sort(problem.tasks.scale), 4.0 ** np.linspace(-1, 1, 3))
    vary = {"link_length_1": 1.25, "link_com_pos_1": 1.25, "link_com_pos_2": 1.25, "available_torque": 1.5}
    own, theirs = acrobot(num_learners=1), gymnax(env="Acrobot-v1", num_learners=1, vary=vary)
    key, task = jax.random.key(0), first_task(theirs)
    start = theirs.environment.reset(key, task)

    @jax.jit
    @jax.vmap
    def both(length, torque, state, action):
        extra = {"link_length_1": length, "link_com_pos_1": length / 2, "link_com_pos_2": length / 2}
        extra["available_torque"] = jnp.stack([-torque, 0.0 * torque, torque])
        inner = start.inner.replace(
            **dict(zip(("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"), state, strict=True))
        )
        found = theirs.environment.step(
            key, dataclasses.replace(task, extra=extra), type(start)(inner, start.observation), action
        )
        quantities = {"length": length, "torque": torque, "mass": 1.0, "start": 0.1}
        expected = own.environment.step(key, dataclasses.replace(task, extra=quantities), state, action)
        return found.state.observation, found.loss, own.environment.observe(expected.state), expected.loss

    rng = np.random.default_rng(0)
    sizes, states = rng.uniform(0.7, 1.4, (2, 50)), rng.uniform(-1, 1, (50, 4)) * [3, 3, 4, 9]
    seen, losses, expected, wanted = both(*map(jnp.asarray, sizes), jnp.asarray(states), jnp.asarray(np.arange(50) % 3))
    np.testing.assert_allclose(seen, expected, 1e-10, 1e-10)
    np.testing.assert_array_equal(losses, wanted)
    assert 0 < np.mean(wanted) < 1


def test_actions_stick_with_the_learners_probability():
    """Oracle: a cart's velocity tells the executed action: the chosen one or else the last; binomial bounds of 5 σ on how often it is the last."""
    problem = gymnax(env="CartPole-v1", num_learners=3, heterogeneity=1.0, sticky=0.2)
    np.testing.assert_allclose(np.sort(problem.tasks.extra["sticky"]), [0.05, 0.2, 0.8])
    environment, num = problem.environment, 2000

    @jax.jit
    @jax.vmap
    def play(task):
        start = environment.reset(jax.random.key(0), task)

        def step(state, draws):
            action, key = draws
            after = environment.step(key, task, held(start, state), action)
            return after.state.action, after.state.observation[1] > start.observation[1]

        chosen = jnp.arange(num) % 2
        return jax.lax.scan(step, start.action, (chosen.astype(jnp.int32), jax.random.split(jax.random.key(1), num)))[1]

    def held(state, action):
        return type(state)(state.inner, state.observation, action)

    executed, chosen = np.asarray(play(problem.tasks)).astype(int), np.arange(num) % 2
    before = np.concatenate([np.zeros((3, 1), int), executed[:, :-1]], 1)
    assert np.all((executed == chosen) | (executed == before))
    for rate, row, last in zip(problem.tasks.extra["sticky"], executed, before, strict=True):
        differ = last != chosen
        assert abs(np.mean(row[differ] == last[differ]) - rate) < 5 * np.sqrt(rate * (1 - rate) / differ.sum())


def test_minatar_is_gymnaxs():
    """Oracle: gymnax's own Breakout stepped directly, with actions that never stick; a screen is a vector unless asked for."""
    problem = minatar(num_learners=2, sticky=0.0)
    game, settings = importlib.import_module("gymnax").make("Breakout-MinAtar")
    key, task = jax.random.key(0), first_task(problem)
    ours, (seen, theirs) = problem.environment.reset(key, task), game.reset_env(key, settings)
    step, reference = jax.jit(problem.environment.step), jax.jit(game.step_env)
    for action in (1, 2, 2, 0):
        after = step(key, task, ours, jnp.int32(action))
        seen, theirs, reward, terminated, _ = reference(key, theirs, jnp.int32(action), settings)
        np.testing.assert_array_equal(problem.environment.observe(after.state), np.asarray(seen, float).ravel())
        assert (float(after.loss), bool(after.terminated)) == (-reward, terminated)
        ours = after.state
    assert problem.spaces.observation.shape == (400,)
    assert minatar(images=True).spaces.observation.shape == (10, 10, 4)
    np.testing.assert_array_equal(minatar(num_learners=3).tasks.extra["sticky"], [0.1] * 3)
    np.testing.assert_array_equal(minatar(num_learners=3).tasks.scale, np.ones(3))


@pytest.mark.usefixtures("lenient")
def test_teams_of_simple_spread():
    """Oracle: JaxMARL's own world with that acceleration and damping, stepped directly; the loss is minus the mean of the agents' rewards."""
    problem = simple_spread(num_learners=3, heterogeneity=1.0)
    assert (problem.num_learners, problem.joint, problem.policy.num_params) == (3, False, 18 * 16 + 16 + 16 * 5 + 5)
    np.testing.assert_allclose(np.sort(problem.tasks.extra["accel"][:, 1]), 5 * 1.5 ** np.linspace(-1, 1, 3))
    np.testing.assert_allclose(np.sort(problem.tasks.extra["damping"]), 0.25 * 1.5 ** np.linspace(-1, 1, 3))
    key, action = jax.random.key(0), jnp.array([1, 4, 0])
    step = jax.jit(
        jax.vmap(lambda task: problem.environment.step(key, task, problem.environment.reset(key, task), action))
    )
    found = step(problem.tasks)
    for m in range(3):
        game = importlib.import_module("jaxmarl").make(
            "MPE_simple_spread_v3",
            accel=problem.tasks.extra["accel"][m],
            damping=float(problem.tasks.extra["damping"][m]),
        )
        _, inner = game.reset(key)
        seen, _, rewards, _, _ = game.step_env(key, inner, dict(zip(game.agents, action, strict=True)))
        for agent, views in zip(game.agents, found.state.observations, strict=True):
            np.testing.assert_allclose(views[m], seen[agent], 1e-12)
        np.testing.assert_allclose(found.loss[m], -np.mean([float(reward) for reward in rewards.values()]), 1e-12)
    assert len({round(float(views[0]), 6) for views in found.state.observations[0]}) == 3


@pytest.mark.parametrize(("factory", "extra"), [(gymnax, "gymnax"), (jaxmarl, "jaxmarl")])
def test_a_missing_package_is_named(factory, extra, monkeypatch):
    """Oracle: the extras of pyproject.toml."""
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ValueError, match=rf"pip install 'lapg\[{extra}\]'"):
        factory(env="any")
