"""Observations in units of running moments, which are entries of θ: what the policy sees, how they move, and how they travel."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, Part
from lapg.downlink import forwarded
from lapg.experiments.build import build
from lapg.policies import actor, make_policy, normalised
from lapg.policies.normalised import LEAST_WEIGHT, LIMIT, SCALE
from lapg.problems import cart_pole
from lapg.rounds import initialise, next_batch, play_round
from lapg.types import REPLY, Box, Broadcast, Discrete, JointSpaces, Spaces, Trajectories, address
from lapg.uplink import compressors

SIZE = 3
SPACES = Spaces(Box((SIZE,)), Box((2,), -1.0, 1.0))
RNG = np.random.default_rng(3)


def statistics(mean, std):
    return SCALE * np.concatenate([mean, np.log(std)])


@pytest.mark.parametrize("spaces", [SPACES, Spaces(Box((SIZE,)), Discrete(4)), Spaces(Box((SIZE,)), Discrete(4), True)])
def test_what_is_seen(spaces):
    """Oracle: the policy without statistics, of observations normalised and clipped by hand; masks are left as they are; no gradient moves a statistic."""
    plain, policy = (actor(spaces, hidden=(5,), normalise=each) for each in (False, True))
    mean, std = np.array([3.0, -50.0, 0.0]), np.array([0.1, 20.0, 1.0])
    weights = RNG.normal(size=plain.num_params)
    params = jnp.asarray(np.concatenate([weights, statistics(mean, std)]))
    assert policy.num_params == params.size
    seen = np.array([3.2, -20.0, 99.0])
    inside = np.clip((seen - mean) / std, -LIMIT, LIMIT)
    assert inside[2] == LIMIT
    allowed = np.array([0.0, 1.0, 0.0, 1.0]) if spaces.masked else np.zeros(0)
    seen, inside = (jnp.asarray(np.concatenate([each, allowed])) for each in (seen, inside))
    noise = policy.action_noise(jax.random.key(0))
    found, expected = policy.sample(noise, params, seen), plain.sample(noise, jnp.asarray(weights), inside)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)
    np.testing.assert_allclose(policy.mode(params, seen), plain.mode(jnp.asarray(weights), inside), rtol=1e-10)
    np.testing.assert_allclose(policy.entropy(params, seen), plain.entropy(jnp.asarray(weights), inside), rtol=1e-10)
    slope = jax.grad(policy.log_prob)(params, seen, expected[0])
    expected = jax.grad(plain.log_prob)(jnp.asarray(weights), inside, expected[0])
    np.testing.assert_allclose(slope, np.concatenate([expected, np.zeros(2 * SIZE)]), rtol=1e-9, atol=1e-12)


def batch_of(seen, mask=None):
    shape = seen.shape[:2]
    flags = np.zeros(shape, bool)
    mask = ~flags if mask is None else mask
    zeros = np.zeros(shape)
    return Trajectories(*map(jnp.asarray, (seen, zeros, zeros, zeros, mask, flags, flags, seen)))


def test_moments_are_running_ones():
    """Oracle: NumPy's mean and standard deviation of all batches together, as long as 1/(k + 1) is the weight; then the same of the last few, by the recursion."""
    absorb = actor(SPACES, normalise=True).statistics.absorb
    batches = RNG.normal([5.0, -200.0, 0.0], [2.0, 30.0, 0.01], (4, 2, 9, SIZE)) + RNG.normal(size=(4, 1, 1, SIZE))
    now = jnp.zeros(2 * SIZE)
    for k, seen in enumerate(batches):
        now = absorb(now, batch_of(seen), jnp.int32(k))
        together = batches[: k + 1].reshape(-1, SIZE)
        np.testing.assert_allclose(now, statistics(together.mean(0), together.std(0)), rtol=1e-6)
    mask = RNG.random((2, 9)) < 0.5
    late = absorb(now, batch_of(batches[0], mask), jnp.int32(1000))
    counted, before = batches[0][mask], batches.reshape(-1, SIZE)
    mean = before.mean(0) + LEAST_WEIGHT * (counted.mean(0) - before.mean(0))
    square = (1 - LEAST_WEIGHT) * (before**2).mean(0) + LEAST_WEIGHT * (counted**2).mean(0)
    np.testing.assert_allclose(late, statistics(mean, np.sqrt(square - mean**2)), rtol=1e-6)
    still = absorb(jnp.zeros(2 * SIZE), batch_of(np.ones((2, 9, SIZE))), jnp.int32(0))
    assert np.isfinite(still).all()


@pytest.mark.parametrize(("learners", "compressor"), [(1, None), (3, Part("quantise", bits=4))])
def test_statistics_arrive_exactly(learners, compressor):
    """Oracle: moments in NumPy of what each learner has observed; θ¹ has their mean, whatever is done to the other entries."""
    config = Config(method="ppo", problem=Part("cart_pole", num_learners=learners), rounds=1, seeds=1, batch_size=2)
    config = config.but(
        policy=Part(normalise=True, hidden=(4,)),
        rollout=Part(num_steps=16),
        local=Part(epochs=2, optimiser=Part("adamw", weight_decay=0.5)),
        estimator=Part(critic_epochs=1, critic=(4,)),
        **({} if compressor is None else {"compressor": compressor}),
    )
    problem, recipe, hyper = build(config)
    method = recipe({name: float(value) for name, value in hyper.items()})
    root = jax.random.key(0)
    start = initialise(method, problem, root)
    after, log = jax.jit(lambda start: play_round(method, problem, root, start))(start)
    theta, expected, bits = start.controller.params, [], []
    np.testing.assert_array_equal(theta[-8:], 0)
    for m in range(learners):
        task, learner = jax.tree.map(lambda leaf, m=m: leaf[m], (problem.tasks, start.learners))
        _, batch = next_batch(problem, root, task, learner.rollout, theta, jnp.int32(0), 2)
        seen = np.asarray(batch.observations).reshape(-1, 4)
        expected.append(statistics(seen.mean(0), seen.std(0)))
        reply = method.learner.reply(
            address(root, REPLY, m, jnp.int32(0)),
            task,
            dataclasses.replace(learner, rollout=()),
            Broadcast(jnp.int32(0), theta, ()),
            batch,
        )
        bits.append(8 * len(method.compressor.encode(jax.tree.map(np.asarray, reply[1].message))))
    np.testing.assert_allclose(after.controller.params[-8:], np.mean(expected, 0), rtol=1e-5)
    np.testing.assert_array_equal(log.uplink_bits, bits)
    assert np.linalg.norm(after.controller.params[:-8] - theta[:-8]) > 0.01


@pytest.mark.parametrize(
    "inner", [compressors.identity(), compressors.quantise(4), compressors.qsgd(1), compressors.top_k(0.3)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_last_entries_travel_whole(inner, dtype):
    """Oracle: the inner compressor of the other entries, shrunk where it is unbiased; the bytes are as long as they are said to be, and read back the same."""
    vector = RNG.normal(size=20).astype(dtype)
    vector[-4:] *= 1e-6
    made, key = compressors.partly(inner, 4), jax.random.key(2)
    message = made.compress(key, jnp.asarray(vector))
    head = compressors.contractive(inner)
    expected = head.decompress(head.compress(key, jnp.asarray(vector[:-4])))
    np.testing.assert_array_equal(made.decompress(message), np.concatenate([expected, vector[-4:]]))
    raw = made.encode(jax.tree.map(np.asarray, message))
    assert int(made.num_bits(message)) == 8 * len(raw)
    assert (
        int(made.num_bits(message))
        == int(inner.num_bits(inner.compress(key, jnp.asarray(vector[:-4])))) + 32 * vector.itemsize
    )
    jax.tree.map(np.testing.assert_array_equal, made.decode(memoryview(raw), message), message)


CART_POLE = Config(
    method="ppo", problem=Part("cart_pole", num_learners=1), policy=Part("actor", normalise=True), batch_size=4
)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            CART_POLE.but(method="pg", estimator=Part("gpomdp"), rollout=Part("episodes")),
            "policy.normalise must be False with estimator 'gpomdp'",
        ),
        (
            CART_POLE.but(method="pg", estimator=Part("ppo"), rollout=Part("segments")),
            "policy.normalise must be False where learners upload gradients",
        ),
    ],
)
def test_gradients_do_not_carry_statistics(config, said):
    """Oracle: the rule in the message."""
    with pytest.raises(ValueError, match=said):
        build(config)


def test_who_normalises():
    """Oracle: the docstring: outside environments by default; images, whole numbers and several agents never."""
    vector, image = Spaces(Box((SIZE,)), Discrete(2)), Spaces(Box((8, 8, 1)), Discrete(2), raw=True)
    assert actor(vector).statistics is None
    assert actor(vector._replace(raw=True)).statistics.num_entries == 2 * SIZE
    assert actor(image).statistics is None
    assert actor(Spaces(Discrete(5), Discrete(2), raw=True)).statistics is None
    with pytest.raises(ValueError, match="images or whole numbers"):
        actor(image, normalise=True)
    with pytest.raises(ValueError, match="where agents are several"):
        make_policy(JointSpaces((vector, vector), True, True), actor, normalise=True)
    assert cart_pole().spaces.raw is False
    assert normalised(actor(vector), lambda seen: seen, SIZE).num_params == actor(vector).num_params + 2 * SIZE


def test_uploads_are_forwarded_whole():
    """Oracle: the sum of what the uploads decode to, after a trip through the bytes of a downlink that forwards them."""
    made, rows = compressors.partly(compressors.quantise(4), 4), jnp.asarray(RNG.normal(size=(3, 60)))
    relay = forwarded(made).compressor
    messages = jax.vmap(made.compress, (None, 0))(jax.random.key(0), rows)
    total = jnp.sum(jax.vmap(made.decompress)(messages), 0)
    message = relay.compress(jax.random.key(1), (total, messages, jnp.ones(3, bool)))
    assert int(message.count) == 3
    raw = relay.encode(jax.tree.map(np.asarray, message))
    assert int(relay.num_bits(message)) == 8 * len(raw)
    back = relay.decompress(jax.tree.map(jnp.asarray, relay.decode(memoryview(raw), message)))
    np.testing.assert_allclose(back, total, rtol=1e-12)
    np.testing.assert_allclose(back[-4:], np.sum(rows[:, -4:], 0), rtol=1e-12)
