"""PPO on bad input: invalid settings raise one clear error, non-finite losses and critics are logged, and θ stays finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, Part
from lapg.experiments.build import build
from lapg.problems import cart_pole
from lapg.rounds import initialise, play_round
from lapg.types import Transition

SMALL = {
    "policy": Part(hidden=(3,)),
    "estimator": Part(critic=(3,), critic_epochs=1, critic_minibatches=1),
    "local": Part(epochs=2, minibatches=2),
    "rollout": Part(num_steps=8),
}


def carts(*, num_learners=2, num_steps=500, bad="0", size=1.0):
    """Cart poles whose losses are ``size`` times as large, and ``bad`` for learner 0."""
    problem = cart_pole(num_learners=num_learners, num_steps=num_steps)

    def step(key, task, state, action):
        after = Transition(*problem.environment.step(key, task, state, action))
        return after._replace(loss=size * after.loss + jnp.where(task.index == 0, float(bad), 0.0))

    return problem._replace(environment=problem.environment._replace(step=step))


def play(rounds=3, problem=None, **change):
    """θ⁰, θ after some rounds, and their logs."""
    config = Config(method="ppo", problem=Part(carts, **problem or {}), rounds=rounds, seeds=1, batch_size=2, **SMALL)
    made, recipe, hyper = build(config.but(**change))
    method = recipe({name: float(value) for name, value in hyper.items()})
    root = jax.random.key(0)
    start = initialise(method, made, root)
    step = jax.jit(lambda state: play_round(method, made, root, state))
    state, logs = start, []
    for _ in range(rounds):
        state, log = step(state)
        logs.append(log)
    return np.asarray(start.controller.params), np.asarray(state.controller.params), logs


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_losses_that_are_not_finite(bad):
    """Oracle: the log counts the learner's rounds, and it uploads nothing; the other's uploads arrive, and θ is finite."""
    before, after, logs = play(problem={"bad": bad})
    for log in logs:
        np.testing.assert_array_equal(log.learner.non_finite, [True, False])
        np.testing.assert_array_equal(log.sent, [False, True])
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize("step_size", [1e8, 1e300])
def test_a_critic_that_diverges(step_size):
    """Oracle: advantages are normalised, so that a critic that is far off, or whose fit is dropped, leaves θ finite."""
    before, after, logs = play(estimator=Part(critic_step_size=step_size, standardise_values=False))
    assert np.isfinite(after).all()
    assert any(np.any(log.sent) for log in logs)
    assert np.abs(after - before).max() > 1e-4


def test_losses_as_large_as_numbers_go():
    """Oracle: what overflows is counted and not uploaded."""
    _, after, logs = play(problem={"size": 1e200})
    assert np.isfinite(after).all()
    assert all(np.all(log.sent | log.learner.non_finite) for log in logs)


def test_episodes_that_do_not_end():
    """Oracle: a cart pole that never falls within the segments played: no return yet, which is NaN, a mean reward of 1, and a θ that moves."""
    problem, _, _ = build(Config(method="ppo", problem=Part(carts, num_steps=10**6), batch_size=2, **SMALL))
    rollout = problem.rollout
    task, params = jax.tree.map(lambda leaf: leaf[0], problem.tasks), problem.init(jax.random.key(0))
    state = rollout.init(jax.random.key(1), task, 2)
    _, batch = jax.jit(lambda state: rollout.advance(jax.random.key(2), task, state, params, 2))(state)
    scores = rollout.score(task, batch)
    assert not batch.ended.any()
    assert np.isnan(scores["return_raw"])
    assert scores["score_raw"] == 1
    before, after, _ = play(rounds=1, problem={"num_steps": 10**6})
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-4


def test_one_step_cannot_be_normalised():
    """Oracle: one number has no deviation."""
    config = Config(method="ppo", problem=Part(carts), batch_size=1, **SMALL | {"rollout": Part(num_steps=1)})
    with pytest.raises(ValueError, match=r"normalise must not be 'batch' where a batch has 1 step"):
        build(config.but(estimator=Part(normalise="batch"), local=Part(minibatches=1)))
    with pytest.raises(ValueError, match=r"minibatches must leave >= 2 of the 1 steps of a batch"):
        build(config.but(local=Part(minibatches=1)))
