"""Partial participation: who takes part, and that those who do not change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.costs import ledger
from lapg.downlink import replicated
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.rounds import participants
from lapg.runtimes import Vectorised, sequential
from lapg.uplink.compressors import identity
from support import full, player, quadratic_gradients

ROUNDS, LEARNERS, BATCH, STEP = 40, 4, 2, 0.05
# Sums of at most 4 · 40 terms, relative error 160 · 2.2e-16 of the largest, which is below 100.
TOLERANCE = 4e-12


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=4, scales=(1.0, 0.7, 0.5, 0.2), noise=0.5)


def setting(problem, **change):
    return methods.Setting(estimators.noisy(problem.gradient), BATCH, LEARNERS, participation=0.5, **change)


@pytest.fixture(scope="module")
def reused(problem):
    def recipe(hyper):
        return methods.compose(
            "lapg",
            setting(problem),
            optimiser=Part("sgd", momentum=0.5),
            memory=Part("running_average", weight=0.3),
            trigger=Part(noise_weight=0.3),
            downlink=Part("dense"),
            hyper=full(hyper),
        )

    return player(recipe, problem, ROUNDS)({"step_size": STEP})


@pytest.fixture(scope="module")
def accumulated(problem):
    def recipe(hyper):
        return methods.compose("random", setting(problem), trigger=Part(rate=0.5), hyper=full(hyper))

    return player(recipe, problem, ROUNDS)({"step_size": STEP})


@pytest.mark.parametrize(("fraction", "num"), [(0.3, 3), (0.01, 1), (0.96, 10), (1.0, 10)])
def test_how_many_take_part(problem, fraction, num):
    """Oracle: round(fraction · 10), at least 1, in every round; everybody equally often, binomial, 4 standard errors; another run, another draw."""
    rounds = 400
    method = methods.compose("pg", setting(problem), optimiser=Part("sgd", step_size=0.1))._replace(
        participation=fraction
    )
    draw = jax.jit(
        lambda seed: jax.vmap(lambda k: participants(method, jax.random.key(seed), k, 10))(jnp.arange(rounds))
    )
    found = np.asarray(draw(0))
    np.testing.assert_array_equal(found.sum(1), num)
    rate = num / 10
    assert np.all(np.abs(found.mean(0) - rate) <= 4 * (rate * (1 - rate) / rounds) ** 0.5)
    assert num == 10 or not np.array_equal(found, draw(1))


def test_the_absent_send_nothing_and_remember_nothing(reused, accumulated):
    """Oracle: the state before the round, bitwise; and every cost is 0 where nobody took part. Who takes part does not depend on the method."""
    for states, logs in (reused, accumulated):
        absent = ~logs.participated
        np.testing.assert_array_equal(absent.sum(1), 2)
        for leaf in jax.tree.leaves(states.learners):
            np.testing.assert_array_equal(leaf[1:][absent], leaf[:-1][absent])
        assert not (logs.sent & absent).any()
        assert not logs.uplink_bits[absent].any()
        assert not logs.downlink_bits[absent].any()
        age = np.arange(ROUNDS)[:, None] - states.learners.sent_round[:-1]
        np.testing.assert_array_equal(logs.learner.staleness, np.where(logs.sent, 0, age))
        rounds = np.arange(1, ROUNDS + 1)
        bits = ledger.downlink_bits(logs.downlink_bits, logs.participated)
        assert np.array_equal(bits, rounds * 2 * (64 * 5 + 160)) or states.controller.trigger == ()
    np.testing.assert_array_equal(reused[1].participated, accumulated[1].participated)


def test_reuse_keeps_the_aggregate_equal_to_what_was_uploaded(reused):
    """Oracle: aggregate == Σ_m uploaded_m after every round; and a learner uploads when it takes part for the first time, whatever its trigger says."""
    states, logs = reused
    np.testing.assert_allclose(states.controller.aggregate, states.learners.memory.uploaded.sum(1), atol=TOLERANCE)
    first = logs.participated.argmax(0)
    assert first.max() > 0
    for m, k in enumerate(first):
        assert logs.sent[k, m]
        assert not logs.sent[:k, m].any()
    assert (logs.participated & ~logs.sent).any()


def test_accumulation_loses_nothing(problem, accumulated):
    """Oracle: Σ applied + Σ residuals == Σ gradients of those that took part, recomputed in NumPy; applied is (θ^0 − θ^k)/α."""
    states, logs = accumulated
    params, residuals = states.controller.params, states.learners.memory.value.sum(1)
    gradients = quadratic_gradients(problem, params[:-1], BATCH) * logs.participated[:, :, None]
    applied = (params[0] - params[1:]) / STEP
    np.testing.assert_allclose(applied + residuals[1:], np.cumsum(gradients.sum(1), 0), atol=TOLERANCE / STEP)
    assert (logs.participated & ~logs.sent).any()


def test_the_same_everywhere(problem):
    """Oracle: the plain loop over encoded messages, in which every learner follows with a replica of its own; a restart in round 9 costs more, that is all."""

    def recipe(hyper):
        codec = replicated(identity())
        return methods.compose(
            "lapg",
            setting(problem),
            downlink=codec,
            optimiser=Part("sgd", momentum=0.5, decay=0.01),
            trigger=Part(noise_weight=0.3),
            hyper=full(hyper),
        )

    state, log = sequential(recipe, problem, {"step_size": jnp.asarray(STEP)}, 3, 20, restarts={9: [0, 1, 2, 3]})
    fast = Vectorised(recipe, problem, {"step_size": jnp.full(1, STEP)}, [3], chunk_rounds=20)
    states, logs = fast.advance(fast.start(), 0, 20)
    np.testing.assert_allclose(fast.lane(states, 0).controller.params, state.controller.params, atol=TOLERANCE)
    for name in ("participated", "sent", "uplink_bits"):
        np.testing.assert_array_equal(getattr(logs, name)[0], getattr(log, name))
    np.testing.assert_array_equal(logs.learner.staleness[0], log.learner.staleness)
    np.testing.assert_allclose(logs.scores["score_raw"][0], log.scores["score_raw"], 1e-9)
    np.testing.assert_array_equal(logs.downlink_bits[0, :9], log.downlink_bits[:9])
    back = 9 + log.participated[9:].argmax(0)
    whole = 64 * (3 * 4 + 10) + 2 * 32 + 160  # θ, aggregate, momentum, ten displacements; rounds, steps; a header
    assert {int(log.downlink_bits[k, m]) for m, k in enumerate(back)} == {whole}
    assert (logs.downlink_bits[0, back, np.arange(4)] < whole).any()


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_wrong_fractions_are_refused(problem, fraction):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=rf"participation must lie in \(0, 1\], got {fraction}"):
        methods.compose("pg", setting(problem)._replace(participation=fraction), optimiser=Part("sgd", step_size=0.1))
