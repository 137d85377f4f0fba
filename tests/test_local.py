"""Learners that take steps of their own between uploads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.types import StepLimit
from lapg.uplink import compressors
from support import player

LEARNERS, STEP, PERIOD, PERIODS = 3, 0.02, 4, 5
# 20 steps on numbers below 10, relative error 2.2e-16 each, with room for another order of summation
TOLERANCE = 1e-13


@pytest.fixture(scope="module")
def problem():
    """Without noise, so that NumPy can repeat every gradient."""
    return quadratic(num_learners=LEARNERS, dimension=4, scales=(1.0, 0.5, 0.2), noise=0.0)


@pytest.fixture(scope="module")
def setting(problem):
    return methods.Setting(estimators.noisy(problem.gradient), 2, LEARNERS)


def gradients(problem, params):
    """c_m A_m (θ_m − b_m) of all learners: [M, d]."""
    tasks = jax.tree.map(np.asarray, problem.tasks)
    return tasks.scale[:, None] * tasks.extra["curvature"] * (params - tasks.extra["centre"])


def test_with_m_times_the_step_it_is_federated_averaging(problem, setting):
    """Oracle: McMahan et al., Algorithm 1, in NumPy: H local steps of size Mα from the common θ, then the mean of the M models."""
    recipe = lambda hyper: methods.compose(  # noqa: E731
        "periodic",
        setting,
        optimiser=Part("sgd", step_size=STEP),
        local=Part("sgd", step_scale=hyper["step_scale"]),
        trigger=Part(period=PERIOD),
    )
    states, _ = player(recipe, problem, PERIOD * PERIODS)({"step_scale": float(LEARNERS)})
    params = states.controller.params[0]
    for period in range(PERIODS):
        models = np.tile(params, (LEARNERS, 1))
        for _ in range(PERIOD):
            models = models - LEARNERS * STEP * gradients(problem, models)
        params = models.mean(0)
        np.testing.assert_allclose(states.controller.params[PERIOD * (period + 1)], params, atol=TOLERANCE)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_learners_step_as_far_as_the_controller_will(problem, setting, momentum):
    """Oracle: by hand with decaying steps and silence: E grows by the gradient at θ⁰ − α/((1−β)(1+δk)) E, and training is scored there."""
    decay = 0.5
    states, logs = player(
        lambda hyper: methods.compose(
            "scout",
            setting,
            optimiser=Part("sgd", step_size=STEP, momentum=momentum, decay=decay),
            trigger=Part(threshold=1e9),
        ),
        problem,
        6,
    )({})
    start, residual = states.controller.params[0], np.zeros((LEARNERS, 4))
    for k in range(6):
        here = start - STEP / (1 - momentum) / (1 + decay * k) * residual
        residual = residual + gradients(problem, here)
        scores = -0.5 * np.sum(gradients(problem, here) * (here - np.asarray(problem.tasks.extra["centre"])), -1)
        np.testing.assert_allclose(logs.training_scores["score_scaled"][k], scores, rtol=1e-12)
        np.testing.assert_allclose(states.learners.memory.value[k + 1], residual, atol=TOLERANCE)
    assert not logs.sent.any()


@pytest.mark.parametrize("local", [True, False])
def test_a_learner_s_own_way_is_limited_like_a_step(problem, setting, local):
    """Oracle: by hand, with a policy that moves by 3 for every unit of θ: the way to where E leads is at most (2 · limit)^½ / 3 long.

    So from round 1 on, where it would be longer; only if the limit is ``local``.
    """
    limit, step = StepLimit(0.02, lambda params, batch, way: 3 * jnp.sqrt(jnp.sum(way**2)), local), 0.1
    made = lambda hyper: methods.compose(  # noqa: E731
        "scout",
        setting,
        step_limit=limit,
        optimiser=Part("sgd", step_size=step),
        trigger=Part(threshold=1e9),
    )
    states, logs = player(made, problem, 6)({})
    start, residual, longest = (
        states.controller.params[0],
        np.zeros((LEARNERS, 4)),
        1e300,
    )  # nothing is known in round 0
    shortened = 0
    for k in range(6):
        way = -step * residual
        size = np.linalg.norm(way, axis=1, keepdims=True)
        if local:
            shortened += (size > longest).sum()
            way = np.where(size > longest, way * longest / np.maximum(size, 1e-300), way)
            longest = (2 * 0.02) ** 0.5 / 3
        residual = residual + gradients(problem, start + way)
        np.testing.assert_allclose(states.learners.memory.value[k + 1], residual, atol=TOLERANCE)
    assert not logs.sent.any()
    assert (shortened > 0) == local


def test_without_looking_ahead_scout_is_awapg(problem, setting):
    """Oracle: their docstrings: the same parts; and that looking ahead makes a difference."""
    chosen = {"optimiser": Part("sgd", step_size=STEP), "trigger": Part(threshold=20.0, max_age=200)}
    whole = {"compressor": compressors.identity(), **chosen}
    play = lambda recipe: player(recipe, problem, 30)({})[0].controller.params  # noqa: E731
    plain = play(lambda hyper: methods.compose("awapg", setting, **chosen))
    np.testing.assert_array_equal(
        play(lambda hyper: methods.compose("scout", setting, local=Part("stand"), **whole)), plain
    )
    assert (
        np.abs(play(lambda hyper: methods.compose("scout", setting, local=Part(step_scale=1.0), **whole)) - plain).max()
        > 1e-3
    )


def test_only_accumulated_gradients_can_be_followed(setting):
    """Oracle: the message names the part, the rule and the remedy."""
    with pytest.raises(ValueError, match=r"learner's own \(local\) need a memory that holds back .* or local.stand"):
        methods.compose(
            "periodic",
            setting,
            optimiser=Part("sgd", step_size=STEP),
            memory=Part("lagged"),
            local=Part("sgd", step_scale=1.0),
        )
