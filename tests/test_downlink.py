"""The downlink: replicas that follow the controller, what they hear, and what it costs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, estimators, methods
from lapg.controller import heavy_ball, make_controller
from lapg.costs import ledger
from lapg.downlink import dense, replicated
from lapg.experiments.build import build
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.runtimes import Sequential, sequential, wire
from lapg.runtimes.distributed.replica import Outbox, follow
from lapg.types import Arrival, Relay
from lapg.uplink import aggregates, triggers
from lapg.uplink.compressors import identity, quantise
from support import full, player

ROUNDS, LEARNERS, DIMENSION, STEP = 40, 3, 6, 0.05


def largest():
    """The entry of largest magnitude: its index and its value, 12 bytes; loses much."""
    return identity()._replace(
        compress=lambda key, value: (
            jnp.argmax(jnp.abs(value)).astype(jnp.int32),
            value[jnp.argmax(jnp.abs(value))],
            0 * value,
        ),
        decompress=lambda message: message[2].at[message[0]].set(message[1]),
        num_bits=lambda message: jnp.int32(96),
        encode=lambda message: np.asarray(message[0]).tobytes() + np.asarray(message[1]).tobytes(),
        decode=lambda raw, like: (
            np.frombuffer(raw[:4], np.int32)[0],
            np.frombuffer(raw[4:], np.float64)[0],
            np.zeros(like[2].shape),
        ),
    )


def arrivals(num, learners=LEARNERS):
    """Rounds in which some, nobody, or all have sent; reports and lengths only of those."""
    draw = np.random.default_rng(1)
    for _ in range(num):
        sent = draw.random(learners) < 0.3 * draw.integers(0, 3)
        report, length = (jnp.asarray(sent * draw.normal(size=learners)) for _ in range(2))
        yield Arrival(jnp.asarray(sent.any() * draw.normal(size=DIMENSION)), jnp.asarray(sent), report, length)


@pytest.fixture(scope="module")
def controller():
    """Momentum, decaying steps, a running aggregate and a scale made of reports: θ and signal move in silent rounds too."""
    trigger = triggers.age_weighted(1.0, num_learners=LEARNERS)
    return make_controller(identity(), trigger, heavy_ball(0.1, 0.6, 0.01), aggregates.running_sum())


@pytest.mark.parametrize("compressor", [identity(), largest()])
def test_replicas_follow_to_the_bit(controller, compressor):
    """Oracle: the controller, bitwise, whenever a learner takes part; the bits announced are those that were encoded.

    Learners 0 and 2 begin with the controller's first state, learner 1 with nothing. Learner 0 hears every round. Learner 1 stays away for one round, for
    which it hears frames, or for five, after which the state is shorter. Learner 2 joins in round 2 and loses its replica before round 20.
    """
    codec = replicated(compressor)
    step = jax.jit(lambda state, relay: controller.step(state, codec.expand(relay))[0])
    compress = jax.jit(codec.compress)
    state = controller.init(jnp.ones(DIMENSION), LEARNERS)
    replicas, last, relay = [state, None, state], [0, -1, 0], None
    outbox, end = Outbox(compressor, state), codec.resync(codec.init(state, LEARNERS), jnp.arange(LEARNERS) == 1)
    due_bits = []
    for k, arrival in enumerate(arrivals(ROUNDS)):
        if k == 20:
            replicas[2], last[2] = None, -1
            end = codec.resync(end, jnp.arange(LEARNERS) == 2)
        present = jnp.asarray([True, k % 8 in (0, 2), k >= 2])
        end, due = codec.deliver(end, state, controller.broadcast(jax.random.key(0), state), present)
        for m in np.flatnonzero(present):
            raw = outbox.catch_up(last[m], state)
            replicas[m] = follow(replicas[m], raw, k, compressor, step, like=(state, relay))
            last[m] = k
            assert wire.encode_tree(replicas[m]) == wire.encode_tree(state), (k, m)
            assert 8 * len(raw) == due[m], (k, m)
        due_bits.append(np.asarray(due))
        end, relay = compress(jax.random.key(k), end, arrival)
        outbox.add(state, relay)
        before, state = state, step(state, relay)
        assert not np.array_equal(before.params, state.params)
    due_bits = np.stack(due_bits)
    whole = 64 * (3 * DIMENSION + LEARNERS) + 32 * 2 + 160  # θ, aggregate, momentum, reports; rounds, steps; a header
    assert due_bits[0, 0] == 0
    assert due_bits[0, 1] == due_bits[20, 2] == whole
    assert 0 < due_bits[2, 2] == min(due_bits[1:3, 0].sum(), whole)
    assert (due_bits[:, 0] == 0).any()
    assert (due_bits[8::8, 1] == whole).any()
    assert ((due_bits[2::8, 1] < whole) & (due_bits[2::8, 1] > due_bits[2::8, 0])).any()


def test_what_compression_leaves_over_comes_later():
    """Oracle: Σ totals == Σ decoded + error after every round, in NumPy; nothing is said in silent rounds, and nothing is lost in them."""
    codec = replicated(largest())
    compress = jax.jit(codec.compress)
    start = make_controller(identity(), triggers.always(), heavy_ball(0.1), aggregates.arrivals()).init(
        jnp.zeros(DIMENSION), 3
    )
    state, told, arrived = codec.init(start, LEARNERS), np.zeros(DIMENSION), np.zeros(DIMENSION)
    for arrival in arrivals(ROUNDS):
        state, relay = compress(jax.random.key(0), state, arrival)
        decoded = codec.expand(relay)
        told, arrived = told + decoded.total, arrived + arrival.total
        np.testing.assert_allclose(told + state.error, arrived, atol=1e-13)
        assert np.count_nonzero(decoded.total) == arrival.sent.any()
        num = int(arrival.sent.sum())
        assert int(relay.bits) == (96 + 8 + num * 2 * 64 if num else 0)
        jax.tree.map(np.testing.assert_array_equal, (decoded.sent, decoded.report, decoded.length), (arrival.sent, arrival.report, arrival.length))  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    """The same run, dense and replicated: states and logs."""
    problem = quadratic(num_learners=LEARNERS, dimension=DIMENSION, scales=(1.0, 0.5, 0.2), noise=0.5)

    def play(codec):
        setting = methods.Setting(estimators.noisy(problem.gradient), 2, LEARNERS)
        return player(
            lambda hyper: methods.compose(
                "awapg",
                setting,
                optimiser=Part("sgd", momentum=0.5),
                trigger=Part(threshold=10.0),
                hyper=full(hyper),
                downlink=codec,
            ),
            problem,
            ROUNDS,
        )({"step_size": STEP})

    return play(dense()), play(replicated(identity()))


def test_without_compression_nothing_changes(runs):
    """Oracle: the dense run; sums of 40 terms of at most 10, ten times over."""
    (expected, logs), (found, told) = runs
    np.testing.assert_array_equal(told.sent, logs.sent)
    np.testing.assert_allclose(found.controller.params, expected.controller.params, atol=40 * 10 * 10 * 2.3e-16)


def test_a_silent_round_costs_a_header(runs):
    """Oracle: by hand: dense, θ and one scale; replicated, after every round with uploads the total, a byte and a report for each upload."""
    (_, logs), (_, told) = runs
    np.testing.assert_array_equal(logs.downlink_bits, np.full((ROUNDS, LEARNERS), 64 * (DIMENSION + 1)))
    num = told.sent.sum(1)[:-1]
    relays = np.where(num > 0, 64 * DIMENSION + 8 + 64 * num + 160, 0)
    np.testing.assert_array_equal(told.downlink_bits, np.r_[0, relays][:, None].repeat(LEARNERS, 1))
    silent = np.flatnonzero(np.r_[1, num] == 0)
    total = ledger.downlink_bits(told.downlink_bits, told.participated)
    np.testing.assert_array_equal(total[silent] - total[silent - 1], LEARNERS * ledger.HEADER_BITS)
    assert len(silent) > ROUNDS / 3


def test_parameters_that_were_given_travel_first(runs):
    """Oracle: the same parameters drawn from the seed, of which learners need not hear; encoded, so that lengths and replicas are checked."""
    problem = quadratic(num_learners=LEARNERS, dimension=DIMENSION)
    setting = methods.Setting(estimators.exact(problem.gradient), 1, LEARNERS)
    recipe = lambda hyper: methods.compose("pg", setting, hyper=full(hyper), downlink=replicated())  # noqa: E731
    start = np.asarray(problem.init(jax.random.key(0)))[None]

    def first(initial):
        lane = {"step_size": np.asarray([0.1])}
        runtime = Sequential(recipe, problem, lane, [0], chunk_rounds=2, initial_params=initial)
        return runtime.advance(runtime.start(), 0, 2)[1].downlink_bits[0]

    drawn, given = first(None), first(start)
    np.testing.assert_array_equal(drawn[0], 0)
    assert (given[0] > 64 * DIMENSION).all()
    np.testing.assert_array_equal(drawn[1], given[1])


def test_uploads_are_forwarded():
    """Oracle: the replicated run without compression, decisions bitwise and θ up to the order of sums; NumPy has each frame's length from the uploads' own."""
    problem = quadratic(num_learners=10, dimension=40, noise=0.5)

    def play(codec):
        setting = methods.Setting(estimators.noisy(problem.gradient), 2, 10)
        return sequential(
            lambda hyper: methods.compose(
                "random", setting, compressor=quantise(16), trigger=Part(rate=0.4), hyper=full(hyper), downlink=codec
            ),
            problem,
            {"step_size": 0.01},
            0,
            ROUNDS,
        )

    (expected, logs), (found, told) = play(replicated(identity())), play(Part("forwarded"))
    np.testing.assert_array_equal(told.sent, logs.sent)
    np.testing.assert_allclose(found.controller.params, expected.controller.params, rtol=0, atol=1e-11)
    num = told.sent.sum(1)
    assert num.max() > 8
    own = np.where((num > 0) & (num <= 8), told.uplink_bits.sum(1) + 32 * num, 10**9)
    assert ((own < 64 * 40) & (num > 1)).any()
    assert ((own >= 64 * 40) & (num > 0) & (num <= 8)).any()
    relays = np.where(num > 0, 160 + 16 + 8 + np.minimum(own, 64 * 40), 0)[:-1]
    np.testing.assert_array_equal(told.downlink_bits[1:], relays[:, None].repeat(10, 1))
    assert told.downlink_bits[1:].sum() < logs.downlink_bits[1:].sum()


@pytest.fixture(scope="module")
def lone():
    """One learner, for runs that are to fail."""
    problem = quadratic(num_learners=1, dimension=2)
    estimator = estimators.exact(problem.gradient)

    def run(compressor):
        setting = methods.Setting(estimator, 1, 1)
        return sequential(
            lambda hyper: methods.compose(
                "pg", setting, optimiser=Part("sgd", step_size=0.1), downlink=replicated(compressor)
            ),
            problem,
            {},
            0,
            2,
        )

    return run


def test_replicas_that_go_astray_stop_the_run(lone):
    """Oracle: a codec whose bytes come back changed."""
    astray = identity()._replace(decode=lambda raw, like: 2 * identity().decode(raw, like))
    with pytest.raises(RuntimeError, match="learner 0's replica differs from the controller before round 1"):
        lone(astray)


def test_wrong_lengths_stop_the_run(lone):
    """Oracle: a codec that lies about its length by one byte: 2 float64, who sent, a header, and 8 bits more."""
    lying = identity()._replace(encode=lambda message: np.asarray(message).tobytes() + b"x")
    with pytest.raises(RuntimeError, match="the controller, to learner 0, announced 296 bits and encoded 304"):
        lone(lying)


def test_settings_reach_the_downlink(unchecked):
    """Oracle: by hand: of four entries the half that are largest come out, and one learner of two takes part; what does not fit is refused."""
    downlink = Part("replicated", compressor=Part("top_k", fraction=0.5))
    problem = Part("quadratic", num_learners=2, dimension=4)
    config = Config(problem=problem, estimator=Part("noisy"), method="pg", downlink=downlink, participation=0.5)
    made = build(config).recipe({"downlink.compressor.fraction": 0.5})
    assert made.participation == 0.5
    total = jnp.asarray([3.0, -1.0, 2.0, -4.0])
    state = made.downlink.init(made.controller.init(total, 2), 2)
    relay = made.downlink.compress(jax.random.key(0), state, Arrival(total, jnp.asarray([True, False]), ()))[1]
    np.testing.assert_array_equal(made.downlink.expand(relay).total, [3.0, 0.0, 0.0, -4.0])
    for change, message in (
        (Part("dense", compressor=Part("top_k")), r"downlink\.compressor is not an option of downlink 'dense'"),
        (
            Part("replicated", compressor=Part("top_k", bits=99)),
            r"downlink\.compressor\.bits must lie in 2\.\.16, got 99",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build(dataclasses.replace(config, downlink=change))
    with pytest.raises(ValueError, match=r"participation must lie in \(0, 1\], got 0"):
        dataclasses.replace(config, participation=0)


def test_relays_come_back():
    """Oracle: round trip, of eleven learners three; two bytes say which, and nobody else's numbers travel."""
    sent = np.isin(np.arange(11), [0, 7, 10])
    report = {
        "size": jnp.asarray(sent * 2.5, jnp.float32),
        "pair": jnp.asarray(sent[:, None] * np.arange(22.0).reshape(11, 2)),
    }
    relay = Relay(jnp.arange(3.0), jnp.asarray(sent), report, (), jnp.int32(8 * (2 + 3 * (4 + 16) + 24)))
    raw = wire.encode_relay(identity(), relay)
    assert 8 * len(raw) == int(relay.bits)
    back = wire.decode_relay(identity(), raw, jax.tree.map(jnp.zeros_like, relay))
    jax.tree.map(np.testing.assert_array_equal, back, relay)
    frames = wire.frame(raw, round=3, learner=0) + wire.frame(b"", round=5, learner=0)
    assert wire.unframe_all(frames) == [(3, raw), (5, b"")]
    with pytest.raises(ValueError, match="a frame has at least 20 bytes, got 19"):
        wire.unframe_all(frames[:-1])
