"""Runtimes: the same run everywhere, every bit accounted for, nothing compiled twice."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.costs import ledger
from lapg.methods import Part
from lapg.problems import cooperative_navigation, quadratic
from lapg.rounds import sample_batch
from lapg.runtimes import Runtime, Sequential, Vectorised, sequential, wire
from lapg.types import NOBODY, Broadcast, Upload, address
from lapg.uplink.compressors import identity
from support import full

# Different orders of summation: relative errors of 1e-16 · (30 entries), times 50 rounds, amplified tenfold by momentum and curvature.
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def figure4():
    return cooperative_navigation(num_agents=2, num_steps=20, scales=(1.0, 0.5))


def lanes(hyper, num=1):
    return {name: jnp.broadcast_to(jnp.asarray(value, float), (num,)) for name, value in hyper.items()}


def run(fast, rounds):
    states, logs = fast.start(), []
    for first in range(0, rounds, fast.chunk_rounds):
        states, part = fast.advance(states, first, rounds)
        logs.append(part)
    return states, jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs)


@pytest.mark.parametrize(
    ("method", "hyper", "reported"),
    [
        ("pg", {}, 0),
        ("lapg", {"noise_weight": 1.0, "xi": 0.03}, 0),
        ("awapg", {"threshold": 5.0}, 1),
    ],
)
def test_vectorised_is_sequential(figure4, method, hyper, reported):
    """Oracle: the plain loop over encoded messages, 50 rounds of Figure 4's setting; its lengths are d float64 and the report."""
    rounds = 50
    estimator = estimators.gpomdp(figure4.policy, figure4.discount, baseline="leave_one_out")
    setting = methods.Setting(estimator, 10, 2)
    hyper = {"step_size": 0.002, "momentum": 0.6} | hyper

    def recipe(hyper):
        return methods.compose(method, setting, hyper=full(hyper))

    state, log = sequential(recipe, figure4, {name: jnp.asarray(value) for name, value in hyper.items()}, 3, rounds)
    fast = Vectorised(recipe, figure4, lanes(hyper), [3], chunk_rounds=20)
    states, logs = run(fast, rounds)
    final, logs = fast.lane(states, 0), jax.tree.map(lambda leaf: leaf[0], logs)
    assert fast.num_traces == 1
    assert logs.sent.shape == (rounds, 2)
    np.testing.assert_array_equal(logs.sent, log.sent)
    np.testing.assert_array_equal(logs.uplink_bits, log.uplink_bits)
    np.testing.assert_allclose(final.controller.params, state.controller.params, atol=TOLERANCE)
    np.testing.assert_allclose(final.controller.aggregate, state.controller.aggregate, TOLERANCE * 1e3, TOLERANCE * 1e3)
    assert int(final.controller.round) == int(state.controller.round) == rounds
    np.testing.assert_array_equal(log.uplink_bits, 64 * (figure4.policy.num_params + reported) * log.sent)
    if method == "pg":
        assert log.sent.all()
    else:
        assert log.sent[1:].any()
        assert not log.sent[1:].all()


@pytest.fixture(scope="module")
def sweep():
    """Three lanes with their own hyperparameters and seeds on two devices, in chunks of 8 rounds of which the last is short."""
    problem = quadratic(num_learners=3, dimension=4, scales=(1.0, 0.5, 0.2), noise=0.5)
    setting = methods.Setting(estimators.noisy(problem.gradient), 2, 3)
    hypers = {"step_size": jnp.asarray([0.01, 0.05, 0.1]), "noise_weight": jnp.asarray([0.0, 0.5, 2.0])}
    return (
        problem,
        lambda hyper: methods.compose("lapg", setting, trigger=Part(xi=0.0), hyper=full(hyper)),
        hypers,
        [5, 6, 7],
    )


def test_lanes_do_not_touch(sweep):
    """Oracle: each lane alone, in the plain loop; three lanes on two devices are padded, and the padding does not show. Both are of the protocol."""
    problem, recipe, hypers, seeds = sweep
    assert jax.local_device_count() == 2
    assert all(isinstance(kind(recipe, problem, hypers, seeds), Runtime) for kind in (Vectorised, Sequential))
    fast = Vectorised(recipe, problem, hypers, seeds, chunk_rounds=8)
    states, logs = run(fast, 20)
    assert logs.sent.shape == (3, 20, 3)
    assert fast.num_traces == 1
    fractions = logs.sent[:, 1:].mean((1, 2))
    assert fractions[0] == 1 > fractions[1] > fractions[2]
    for lane in (0, 2):
        state, log = sequential(recipe, problem, {k: v[lane] for k, v in hypers.items()}, seeds[lane], 20)
        np.testing.assert_allclose(fast.lane(states, lane).controller.params, state.controller.params, atol=TOLERANCE)
        np.testing.assert_array_equal(logs.sent[lane], log.sent)
        np.testing.assert_allclose(logs.scores["score_raw"][lane], log.scores["score_raw"], TOLERANCE)


def test_masked_rounds_leave_everything_alone(sweep):
    """Oracle: a chunk whose rounds are all beyond the end; the state is bitwise what it was."""
    problem, recipe, hypers, seeds = sweep
    fast = Vectorised(recipe, problem, {k: v[:2] for k, v in hypers.items()}, seeds[:2], chunk_rounds=4)
    state, log = fast.advance(fast.start(), 0, 3)
    again, nothing = fast.advance(state, 3, 3)
    assert log.sent.shape == (2, 3, 3)
    assert nothing.sent.shape == (2, 0, 3)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    np.testing.assert_array_equal(state.controller.round, 3)


def test_constructor_checks_see_concrete_values(sweep):
    """Oracle: the trigger's own check, reached before anything is traced."""
    problem, recipe, _, _ = sweep
    with pytest.raises(ValueError, match=r"trigger\.noise_weight must be >= 0, got -1\.0"):
        Vectorised(recipe, problem, lanes({"step_size": 0.1, "noise_weight": -1.0}), [0])


def test_broadcast_costs_its_length(sweep):
    """Oracle: 8 · len(encoded): 4 float64 of θ and one of drift; with header, times learners, added up by hand."""
    _, recipe, hypers, _ = sweep
    method = recipe({k: v[1] for k, v in hypers.items()})
    controller = method.controller.init(jnp.arange(4.0), 3)
    broadcast = method.controller.broadcast(jax.random.key(0), controller)
    raw = wire.encode_broadcast(broadcast)
    assert len(raw) == 5 * 8
    assert len(wire.frame(raw, round=0, learner=NOBODY)) * 8 == 8 * len(raw) + ledger.HEADER_BITS
    per_round = 3 * (5 * 64 + ledger.HEADER_BITS)
    payload = np.full((3, 3), 8 * len(raw))
    np.testing.assert_array_equal(ledger.downlink_bits(payload, payload > 0), per_round * np.array([1, 2, 3]))


def test_ledger_by_hand():
    """Oracle: three rounds of two learners added up by hand; 2^31 bits do not overflow."""
    sent = np.array([[True, True], [False, True], [False, False]])
    payload = np.int32(2**30) * sent
    np.testing.assert_array_equal(ledger.num_uploads(sent), [2, 3, 3])
    np.testing.assert_array_equal(ledger.uplink_bits(payload, sent, header=False), 2**30 * np.array([2, 3, 3]))
    np.testing.assert_array_equal(ledger.uplink_bits(payload, sent), (2**30 + ledger.HEADER_BITS) * np.array([2, 3, 3]))
    np.testing.assert_allclose(ledger.upload_fraction(sent), [1 / 3, 2 / 3])


def test_every_part_of_an_address_counts():
    """Oracle: the 3 · 3 · 3 · 3 keys of three purposes, learners (nobody included), rounds and inner steps are all different."""
    parts = list(product([0, 1, 2], [0, 1, NOBODY], [0, 1, 2], [0, 1, 2]))
    keys = [np.asarray(jax.random.key_data(address(jax.random.key(0), *part))) for part in parts]
    assert len(np.unique(keys, axis=0)) == len(parts)


@pytest.mark.parametrize("shared", [True, False])
def test_who_sees_what(shared):
    """Oracle: shared trajectories are identical for all learners and differ by round; own ones differ. Losses are each learner's own."""
    problem = cooperative_navigation(num_agents=2, num_steps=4, scales=(1.0, 0.5), shared_trajectories=shared)

    @jax.jit
    def draw(params):
        root = jax.random.key(0)
        return jax.vmap(
            lambda k: jax.vmap(lambda task: sample_batch(problem, root, task, params, k, 0, 2))(problem.tasks)
        )(jnp.arange(2))

    batch = draw(problem.init(jax.random.key(1)))
    seen, acted = np.asarray(batch.observations), np.asarray(batch.actions)
    assert np.array_equal(seen[:, 0], seen[:, 1]) == shared
    assert np.array_equal(acted[:, 0], acted[:, 1]) == shared
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(batch.losses[:, 0], batch.losses[:, 1])


# ---------------------------------------------------------------- wire


def test_frames_come_back():
    """Oracle: round trip; the header's five numbers little-endian by hand."""
    raw = wire.frame(b"abc", round=7, learner=NOBODY, generation=2, base=5)
    assert raw == bytes([7, 0, 0, 0]) + b"\xff" * 4 + bytes([2, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0]) + b"abc"
    assert wire.unframe(raw) == (wire.Header(7, NOBODY, 2, 5, 3), b"abc")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"short", r"at least 20 bytes, got 5"),
        (wire.frame(b"abc", round=0, learner=0)[:-1], r"announces 3 bytes of payload, got 2"),
        (wire.frame(b"abc", round=0, learner=0) + b"d", r"announces 3 bytes of payload, got 4"),
    ],
)
def test_broken_frames_are_refused(raw, message):
    """Oracle: the docstring."""
    with pytest.raises(ValueError, match=message):
        wire.unframe(raw)


def test_broadcasts_and_uploads_come_back():
    """Oracle: round trip of θ, a nested signal, a message with a report, and a missing upload, which is zeros."""
    broadcast = Broadcast(jnp.int32(3), jnp.arange(3.0), (jnp.float32(0.5), jnp.asarray([True, False])))
    back = wire.decode_broadcast(wire.encode_broadcast(broadcast), 3, broadcast)
    jax.tree.map(np.testing.assert_array_equal, back, broadcast)
    upload = Upload(jnp.bool_(True), jnp.arange(3.0), jnp.float32(2.5), (), jnp.int32(3 * 64 + 32))
    raw = b"".join(wire.encode_upload(identity(), upload))
    assert 8 * len(raw) == int(upload.bits)
    jax.tree.map(np.testing.assert_array_equal, wire.decode_upload(identity(), raw, upload), upload)
    silent = Upload(jnp.bool_(False), upload.message, upload.report, (), upload.bits)
    assert wire.encode_upload(identity(), silent) == ()
    missing = wire.decode_upload(identity(), b"", upload)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(missing))
    with pytest.raises(ValueError, match="a message of 30 bytes was expected, got 3"):
        wire.decode_broadcast(b"abc", 0, broadcast)


def test_a_wrong_announcement_stops_the_run(sweep):
    """Oracle: a codec that lies about its length by one byte."""
    problem, recipe, hypers, _ = sweep

    def lying(hyper):
        method = recipe(hyper)
        codec = method.compressor._replace(encode=lambda message: np.asarray(message).tobytes() + b"x")
        return method._replace(compressor=codec)

    with pytest.raises(RuntimeError, match="learner 0 announced 256 bits and encoded 264"):
        sequential(lying, problem, {k: v[0] for k, v in hypers.items()}, 0, 1)
