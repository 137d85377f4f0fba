"""Adapters to gymnax and JaxMARL against those libraries, stepped directly, and against engines that do not depend on them."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, train
from lapg.methods import Part
from lapg.problems.adapters import first_observation
from lapg.problems.cooperative_navigation import State, collisions
from lapg.problems.cooperative_navigation import environment as navigation
from lapg.problems.gymnax import gymnax
from lapg.problems.jaxmarl import jaxmarl

SPREAD = {"env": "MPE_simple_spread_v3", "env_options": {"num_agents": 3, "num_landmarks": 3}}


@pytest.fixture(autouse=True)
def relaxed():
    """Both libraries promote ranks."""
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
        (lambda: jaxmarl(env="coin_game", observations="local"), r"num_steps=\.\.\.\) must be given for 'coin_game'"),
    ],
)
def test_wrong_settings_are_refused(build, message, unchecked):
    """Oracle: the docstrings; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("forbidden", [0, 1])
def test_masked_actions_are_refused(forbidden, monkeypatch):
    """Oracle: a simple_spread that forbids one agent its first action, or no one any."""
    masks = {"agent_0": jnp.array([1 - forbidden, 1]), "agent_1": jnp.ones(2)}
    world = importlib.import_module("jaxmarl").environments.SimpleSpreadMPE
    monkeypatch.setattr(world, "get_avail_actions", lambda self, state: masks)
    if not forbidden:
        assert jaxmarl(**SPREAD, observations="local").num_learners == 3
        return
    with pytest.raises(ValueError, match=r"always allowed, got 'MPE_simple_spread_v3', which masks some"):
        jaxmarl(**SPREAD, observations="local")


@pytest.mark.slow
def test_hanabi_is_refused():
    """Oracle: its rules: a player can play only the cards that it holds."""
    with pytest.raises(ValueError, match="got 'hanabi', which masks some"):
        jaxmarl(env="hanabi", observations="local", num_steps=5)


@pytest.mark.parametrize(("factory", "extra"), [(gymnax, "gymnax"), (jaxmarl, "jaxmarl")])
def test_a_missing_package_is_named(factory, extra, monkeypatch):
    """Oracle: the extras of pyproject.toml."""
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ValueError, match=rf"pip install 'lapg\[{extra}\]'"):
        factory(env="any")
