"""Uploads that come together: learners upload in every R-th round alone, and what goes down is sent once for all of them."""

import jax
import numpy as np
import pytest

from lapg import Config, estimators, methods
from lapg.downlink import replicated
from lapg.experiments.build import build
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.runtimes import sequential
from lapg.uplink.compressors import identity
from support import full, player, quadratic_gradients

ROUNDS, LEARNERS, DIMENSION, BATCH, EVERY = 40, 4, 3, 2, 5
HYPER = {"step_size": 0.02}
# sums of at most 4 · 40 terms below 100, relative error 160 · 2.2e-16
TOLERANCE = 4e-12


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=DIMENSION, scales=(1.0, 0.7, 0.5, 0.2), noise=0.5)


def recipe(problem, method, every, **own):
    """A method whose learners hold replicas and upload in every so manieth round."""
    setting = methods.Setting(estimators.noisy(problem.gradient), BATCH, LEARNERS, upload_every=every)
    return lambda hyper: methods.compose(method, setting, downlink=replicated(identity()), hyper=full(hyper), **own)


ACCUMULATE = "awapg", {"trigger": Part(threshold=10.0)}
REUSE = "lapg", {"trigger": Part(noise_weight=0.3), "memory": Part("running_average", weight=0.3)}


@pytest.mark.parametrize(("method", "own"), [ACCUMULATE, REUSE])
def test_uploads_wait_for_the_round(problem, method, own):
    """Oracle: NumPy, from the addressed draws: who uploads is who the trigger's logged sides say, in rounds 0, 5, 10, ... alone; then what it holds is all there."""
    states, logs = player(recipe(problem, method, EVERY, **own), problem, ROUNDS)(HYPER)
    due = np.arange(ROUNDS) % EVERY == 0
    fires, first = logs.learner.trigger_statistic > logs.learner.trigger_threshold, logs.sent.cumsum(0) == logs.sent
    wanted = fires | (first & (method == "lapg"))
    np.testing.assert_array_equal(logs.sent, wanted & due[:, None])
    assert (wanted & ~due[:, None]).any()
    assert logs.sent.any(0).all()
    assert logs.sent[1:].sum() > 0

    theta = states.controller.params
    gradients = quadratic_gradients(problem, theta[:-1], BATCH)
    held, uploaded, found = np.zeros((2, LEARNERS, DIMENSION)), None, theta[0]
    held, uploaded = held
    for k in range(ROUNDS):
        sent = logs.sent[k][:, None]
        if method == "awapg":
            held = held + gradients[k]
            aggregate = np.where(sent, held, 0).sum(0)
            held = np.where(sent, 0, held)
        else:
            held = gradients[k] if k == 0 else 0.7 * held + 0.3 * gradients[k]
            uploaded = np.where(sent, held, uploaded)
            aggregate = uploaded.sum(0)
        found = found - HYPER["step_size"] * aggregate
        np.testing.assert_allclose(found, theta[k + 1], rtol=0, atol=TOLERANCE)


def test_what_goes_down_comes_together(problem):
    """Oracle: by hand, on the runtime where everything becomes bytes and replicas are compared bitwise: a frame after a round with uploads, however many."""
    method, own = ACCUMULATE
    _, log = sequential(recipe(problem, method, EVERY, **own), problem, HYPER, 0, ROUNDS)
    num = log.sent.sum(1)[:-1]
    assert num.max() > 1
    frames = np.where(num > 0, 64 * DIMENSION + 8 + 64 * num + 160, 0)
    np.testing.assert_array_equal(log.downlink_bits[1:], frames[:, None].repeat(LEARNERS, 1))
    _, alone = sequential(recipe(problem, method, None, **own), problem, HYPER, 0, ROUNDS)
    assert (log.downlink_bits[1:] > 0).sum() < 0.7 * (alone.downlink_bits[1:] > 0).sum()


@pytest.mark.parametrize(("method", "own"), [ACCUMULATE, REUSE])
def test_every_round_is_no_restriction(problem, method, own):
    """Oracle: the run without it, bitwise, as a number known when compiled and as one that is not."""
    expected = player(recipe(problem, method, None, **own), problem, ROUNDS)(HYPER)
    jax.tree.map(
        np.testing.assert_array_equal, player(recipe(problem, method, 1, **own), problem, ROUNDS)(HYPER), expected
    )
    config = Config(
        problem=Part("quadratic", num_learners=LEARNERS), estimator=Part("noisy"), method="awapg", upload_every=7
    )
    built = build(config)
    assert built.hyper["upload_every"] == 7  # so that lanes of several share a compilation
    traced = player(lambda hyper: recipe(problem, method, hyper.pop("every"), **own)(hyper), problem, ROUNDS)
    jax.tree.map(np.testing.assert_array_equal, traced(HYPER | {"every": np.float32(1)}), expected)


@pytest.mark.parametrize("every", [0, -3, 2.5])
def test_rounds_are_whole(problem, every):
    """Oracle: the rule in the message."""
    with pytest.raises(ValueError, match=rf"upload_every must be a whole number >= 1, got {every}; leave it out"):
        recipe(problem, *ACCUMULATE[:1], every)(HYPER)
