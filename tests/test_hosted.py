"""The host runtime: the same run as inside JAX, stopped and continued to the bit, and evaluated."""

import os
import signal

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from lapg import Config, Interrupted, cli, compressors, estimators, evaluate, load, methods
from lapg.downlink import replicated
from lapg.experiments.evaluate import render
from lapg.experiments.measure import measure
from lapg.experiments.predict import predict
from lapg.experiments.train import resume, train
from lapg.methods import Part
from lapg.policies import softmax_mlp
from lapg.problems.builders import from_environment, make_tasks
from lapg.problems.hosting import Host, from_hosts
from lapg.runtimes import Hosted, Vectorised, runtime_of
from lapg.types import Environment, Transition
from support import full

QUIET = {"show_progress": False, "checkpoint_seconds": 0.0}
TASKS, STEPS, DISCOUNT = (2, (1.0, 0.5)), 6, 0.9
START, END = 1.0, 2.0


def walk_in_jax():
    """A walker at 1 moves by −0.5, 0.25 or 0.5, has as its loss its distance to 0.3, and stops beyond ±2 or is cut off below −0.4."""

    def step(key, task, state, action):
        after = state + jnp.asarray([-0.5, 0.25, 0.5])[action][None]
        return Transition(after, jnp.abs(after[0] - 0.3), jnp.abs(after[0]) >= END, after[0] < -0.4)

    return Environment(lambda key, task: jnp.full(1, START), lambda state: state, step)


def walk_on_host():
    """The same in Python."""
    place = [START]

    def reset(seed):
        place[0] = START
        return np.array(place)

    def step(action):
        place[0] += (-0.5, 0.25, 0.5)[action]
        return np.array(place), abs(place[0] - 0.3), abs(place[0]) >= END, place[0] < -0.4

    return Host(reset, step)


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hosted_is_vectorised(shared):
    """Oracle: the vectorised runtime on the same walk. An inner step and a reply a round, a memory that averages, two lanes with their own θ⁰.

    One learner of the two takes part in a round, and hears compressed totals.
    """
    policy = softmax_mlp(1, (3,), 3, "tanh")
    common = {"tasks": make_tasks(*TASKS), "num_steps": STEPS, "discount": DISCOUNT, "shared": shared}
    inside = from_environment(walk_in_jax(), policy, **common)
    outside = from_hosts("walk", walk_on_host, policy, **common)
    assert (runtime_of(inside), runtime_of(outside)) == (Vectorised, Hosted)
    downlink = replicated(compressors.top_k(0.3))
    setting = methods.Setting(estimators.gpomdp(policy, DISCOUNT), 3, 2, participation=0.5)

    def recipe(hyper):
        return methods.compose(
            "lapg",
            setting,
            memory=Part("running_average", weight=0.5),
            trigger=Part(xi=0.1),
            hyper=full(hyper),
            downlink=downlink,
        )

    hypers = {"step_size": np.array([0.3, 0.5]), "noise_weight": np.array([0.2, 0.4])}
    theta = np.random.default_rng(0).normal(size=(2, policy.num_params))
    ends, logs = [], []
    for runtime, problem in ((Vectorised, inside), (Hosted, outside)):
        lanes = runtime(recipe, problem, hypers, [3, 4], chunk_rounds=5, initial_params=theta)
        assert jax.tree.map(jnp.shape, lanes.start()) == jax.tree.map(lambda leaf: leaf.shape, lanes.state_shape())
        state, first = lanes.advance(lanes.start(), 0, 7)
        state, second = lanes.advance(state, 5, 7)
        ends.append(state)
        logs.append(jax.tree.map(lambda *parts: np.concatenate(parts, 1), first, second))
    assert logs[1].sent.shape == (2, 7, 2)
    assert (logs[1].participated & ~logs[1].sent).any()
    np.testing.assert_array_equal(logs[1].participated.sum(2), 1)
    np.testing.assert_array_equal(logs[1].sent, logs[0].sent)
    jax.tree.map(lambda found, expected: np.testing.assert_allclose(found, expected, 1e-9, 1e-12), logs[1], logs[0])
    jax.tree.map(lambda found, expected: np.testing.assert_allclose(found, expected, 1e-9, 1e-12), ends[1], ends[0])
    assert not np.array_equal(logs[1].scores["score_raw"][:, :, 0], logs[1].scores["score_raw"][:, :, 1]) or shared


@pytest.mark.parametrize("num", [1, 3])
def test_predictions_measure_on_host_what_they_do_inside(num):
    """Oracle: the same walk inside JAX: noise and signal of every learner; at N = 1, where no estimator knows its noise, they are finite all the same."""
    policy = softmax_mlp(1, (3,), 3, "tanh")
    common = {"tasks": make_tasks(*TASKS), "num_steps": STEPS, "discount": DISCOUNT}
    config = Config(estimator=Part("gpomdp", baseline="none"), batch_size=num)
    params = policy.init(jax.random.key(0))
    found = [
        measure(config, problem, params, 0, 3)
        for problem in (
            from_environment(walk_in_jax(), policy, **common),
            from_hosts("walk", walk_on_host, policy, **common),
        )
    ]
    np.testing.assert_allclose(found[1], found[0], 1e-9)
    assert np.isfinite(found[0]).all()
    assert (found[0][0] > 0).all()


class Valley(gym.Env):
    """A place on a line; actions move it left or right by 1; the reward is −|place|. Starts at 2 or 3, by seed."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(-20, 20, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 2 + int(self.np_random.integers(2))
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place += 2 * action - 1
        return np.array([self.place], np.float32), -abs(self.place), False, False, {}


VALLEY = Config(
    problem=Part("gymnasium", env="test_hosted:Valley", num_learners=2, num_steps=5),
    policy=Part(hidden=3),
    method="lapg",
    optimiser=Part("sgd", step_size=0.02),
    downlink=Part("replicated", compressor=Part("top_k", fraction=0.3)),
    trigger=Part(xi=0.1, noise_weight=0.3),
    batch_size=3,
    rounds=5,
    seeds=2,
    first_seed=4,
    chunk_rounds=2,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Never interrupted."""
    return train(VALLEY, tmp_path_factory.mktemp("runs") / "whole", **QUIET)


def test_stopped_and_continued(tmp_path, whole):
    """Oracle: the uninterrupted run, bit for bit: episodes start from addressed seeds alone."""

    def stop(segment, until):
        if until == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(VALLEY, tmp_path / "run", callbacks=(stop,), **QUIET)
    assert load(tmp_path / "run").record.sizes["round"] == 2
    done = resume(tmp_path / "run", trust=True, **QUIET)
    assert done.record["sent"][:, 0].all()
    assert not done.record["sent"].all()
    assert np.unique(done.record["score_raw"]).size > 5
    assert np.atleast_1d(load(tmp_path / "run").record.attrs.pop("resumed_at")).tolist() == [2]
    assert "resumed_at" not in whole.record.attrs
    assert np.atleast_1d(done.record.attrs.pop("resumed_at")).tolist() == [2]
    xr.testing.assert_identical(done.record.drop_vars("wall_seconds"), whole.record.drop_vars("wall_seconds"))


def test_evaluation(whole):
    """Oracle: the greedy policy followed by hand from both starts; five episodes are blocks of 3 and 2, so means are mixtures of fifths."""
    returns = evaluate(whole, num_episodes=5)["return_raw"].sel(mode="greedy")
    for seed in (4, 5):
        by_start = []
        for place in (2.0, 3.0):
            total = 0.0
            for _ in range(5):
                place += 2 * int(whole.policy(np.array([place]), seed=seed)) - 1
                total -= abs(place)
            by_start.append(total)
        fifths = [(k * by_start[0] + (5 - k) * by_start[1]) / 5 for k in range(6)]
        for found in returns.sel(seed=seed).values:
            assert np.isclose(fifths, found).any()
    assert evaluate(whole, num_episodes=5).identical(evaluate(whole, num_episodes=5))


def test_predictions_on_host():
    """Oracle: the command's function answers for an environment outside JAX, with one number for each learner, and refuses what shows no noise."""
    lines = {line.name: line for line in predict(VALLEY, num_batches=2)}
    assert lines["L_m"].value == "unknown"
    assert np.isfinite(lines["σ̂²_m"].value).tolist() == [True, True]
    assert lines["method"].value in ("lapg", "scout")
    with pytest.raises(ValueError, match=r"batches must be >= 2, got 1"):
        predict(VALLEY, num_batches=1)


def test_rendering_is_left_to_the_environment(tmp_path, whole):
    """Oracle: the message."""
    with pytest.raises(ValueError, match=r"'gymnasium' has no draw function.*with the actions of run\.policy"):
        render(whole, tmp_path / "out.gif")


def test_missing_environment(capsys):
    """Oracle: the adapter's own argument; one line."""
    with pytest.raises(SystemExit):
        cli.main(["train", "--problem.name", "gymnasium", "--rounds", "1"])
    assert "problem 'gymnasium' needs env" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pg", "lapg"])
@pytest.mark.parametrize(
    ("adapter", "env", "options", "learners"),
    [
        ("gymnasium", "CartPole-v1", {"num_learners": 2}, 2),
        ("gymnasium", "Pendulum-v1", {"num_learners": 2}, 2),
        ("pettingzoo", "mpe2.simple_spread_v3", {}, 3),
        ("pettingzoo", "mpe2.simple_speaker_listener_v4", {"observations": "local", "shared_trajectories": True}, 2),
    ],
)
def test_real_environments(tmp_path, method, adapter, env, options, learners):
    """Oracle: the record loads, PG uploads in every round, rewards lie within each environment's bounds per step."""
    low, high = {"CartPole-v1": (0, 1), "Pendulum-v1": (-16.3, 0)}.get(env, (-50, 0))
    config = Config(
        problem=Part(adapter, env=env, num_steps=10, **options),
        policy=Part(hidden=4),
        method=method,
        optimiser=Part("sgd", step_size=0.01),
        batch_size=2,
        rounds=2,
        seeds=1,
    )
    run = train(config, tmp_path / "run", **QUIET)
    record = load(tmp_path / "run").record
    assert record["sent"].shape == (1, 2, learners)
    assert record["sent"][:, 0].all()
    assert record["sent"].all() or method == "lapg"
    assert ((low <= record["score_raw"]) & (record["score_raw"] <= high)).all()
    returns = evaluate(run, num_episodes=2)["return_raw"]
    assert returns.shape == (2, 1, learners)
    assert ((10 * low <= returns) & (returns <= 10 * high)).all()
