"""PG and LAPG step for step against the paper's algorithms in plain NumPy."""

import jax
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.methods import Part
from lapg.policies import with_policy
from lapg.problems import cooperative_navigation
from lapg.rounds import sample_batch
from oracles import algorithms
from support import full, player

ROUNDS, BATCH, HIDDEN, XI = 12, 3, (4, 3), (0.5, 0.3, 0.1)
# A gradient is a sum of N T(T+1)/2 = 45 scores of about 100 operations each: relative error below 45 · 100 · 2.2e-16 = 1e-12, and θ adds up 12 of them.
TOLERANCE = 2e-11


@pytest.fixture(scope="module")
def problem():
    return with_policy(
        cooperative_navigation(num_agents=2, num_steps=5, scales=(1.0, 0.5), discount=0.9), hidden=HIDDEN
    )


@pytest.fixture(scope="module")
def trajectories(problem):
    root = jax.random.key(0)
    sample = jax.jit(lambda k, task, theta: sample_batch(problem, root, task, theta, k, 0, BATCH))

    def draw(k, m, theta):
        batch = sample(np.int32(k), jax.tree.map(lambda leaf: leaf[m], problem.tasks), theta)
        return np.asarray(batch.observations), np.asarray(batch.actions), np.asarray(batch.losses)

    return draw


@pytest.fixture(scope="module")
def setting(problem):
    estimator = estimators.gpomdp(problem.policy, problem.discount, baseline="none")
    return methods.Setting(estimator, BATCH, problem.num_learners)


@pytest.fixture(scope="module")
def play_pg(problem, setting):
    return player(lambda hyper: methods.compose("pg", setting, hyper=full(hyper)), problem, ROUNDS)


@pytest.fixture(scope="module")
def play_lapg(problem, setting):
    return player(
        lambda hyper: methods.compose("lapg", setting, trigger=Part(xi=XI, window=len(XI)), hyper=full(hyper)),
        problem,
        ROUNDS,
    )


def common(momentum):
    return {
        "widths": (12, *HIDDEN, 5),
        "num_learners": 2,
        "num_rounds": ROUNDS,
        "step_size": 0.05,
        "momentum": momentum,
        "discount": 0.9,
    }


def check(states, logs, rounds):
    for k, expected in enumerate(rounds):
        np.testing.assert_array_equal(logs.sent[k], expected.sent, err_msg=f"round {k}")
        after = states.controller
        np.testing.assert_allclose(after.aggregate[k + 1], expected.aggregate, TOLERANCE, TOLERANCE)
        np.testing.assert_allclose(after.params[k + 1], expected.after, TOLERANCE, TOLERANCE)
        moved = np.linalg.norm(expected.after - expected.theta)
        np.testing.assert_allclose(logs.controller.displacement_norm[k], moved, TOLERANCE)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_pg_is_algorithm_1(play_pg, trajectories, momentum):
    """Oracle: Algorithm 1 with (10), (11) and heavy ball, transcribed."""
    states, logs = play_pg({"step_size": 0.05, "momentum": momentum})
    rounds = algorithms.algorithm_1(states.controller.params[0], trajectories, **common(momentum))
    check(states, logs, rounds)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_lapg_is_algorithm_2(play_lapg, trajectories, momentum):
    """Oracle: Algorithm 2 with (10), (12), (13), (16) and heavy ball, transcribed."""
    states, logs = play_lapg({"step_size": 0.05, "momentum": momentum, "noise_weight": 1.0})
    start = states.controller.params[0]
    rounds = algorithms.algorithm_2(start, trajectories, xi=XI, noise_weight=1.0, **common(momentum))
    check(states, logs, rounds)
    for k, expected in enumerate(rounds):
        np.testing.assert_allclose(logs.learner.trigger_statistic[k], expected.left, TOLERANCE)
        np.testing.assert_allclose(logs.learner.trigger_threshold[k], expected.right, TOLERANCE)
    assert logs.sent[1:].any()  # both answers of (16) were seen
    assert not logs.sent[1:].all()
