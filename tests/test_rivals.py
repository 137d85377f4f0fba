"""Today's rivals as presets on PPO: thresholds that keep a rate, fading errors, and the limits in which they are PPO itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, Part
from lapg.experiments.build import build
from lapg.types import Broadcast, Candidate, Estimate
from lapg.uplink import memories, triggers
from support import player

RNG = np.random.default_rng(11)
SMALL = Config(
    method="ppo", problem=Part("cart_pole", num_learners=3, heterogeneity=0.5), policy=Part(hidden=(8,)), rollout=Part(num_steps=8), seeds=1, batch_size=2
).but(local=Part(epochs=2, minibatches=2), estimator=Part(critic=(8,), critic_epochs=2, critic_minibatches=2))  # fmt: skip


def candidate(vector):
    zero = jnp.zeros(())
    return Candidate(vector, zero, vector, vector, jnp.int32(1), jnp.int32(0), ())


def test_a_threshold_that_keeps_a_rate():
    """Oracle: NumPy from the docstring; and after 400 rounds of log-normal sizes the rate is the wanted one within a fifth."""
    wanted, gain, smoothing = 0.1, 0.7, 0.2
    trigger = triggers.budget(wanted, gain=gain, smoothing=smoothing)
    sizes = np.exp(RNG.normal(size=400))

    @jax.jit
    def play(sizes):
        def step(state, size):
            vector = jnp.array([size, 0.0])
            estimate = Estimate(vector, None, jnp.ones(()))
            state, decision = trigger.update(jax.random.key(0), state, candidate(vector), estimate, lambda *_: estimate)
            return state, (decision.fires, decision.threshold)

        return jax.lax.scan(step, trigger.init(jnp.zeros(2)), sizes)[1]

    fires, thresholds = map(np.asarray, play(jnp.asarray(sizes)))
    threshold, recent = sizes[0], 0.0
    for k, size in enumerate(sizes):
        np.testing.assert_allclose(thresholds[k], threshold, rtol=1e-9)
        assert fires[k] == (size > threshold)
        recent = (1 - smoothing) * recent + smoothing * (size > threshold)
        threshold *= np.exp(gain * (recent - wanted))
    assert 0.8 * wanted <= fires.mean() <= 1.2 * wanted


@pytest.mark.parametrize(
    ("change", "message"), [({"rate": 0.0}, "rate"), ({"gain": -1.0}, "gain"), ({"smoothing": 2.0}, "smoothing")]
)
def test_wrong_budgets_are_refused(change, message):
    """Oracle: the argument's name and the value."""
    with pytest.raises(ValueError, match=rf"budget\({message}=...\) must .*, got {next(iter(change.values()))}"):
        triggers.budget(**change)


def test_errors_fade():
    """Oracle: keep · (E − decoded) after an upload, E untouched without one; 1 is the accumulator that loses nothing."""
    value, decoded, broadcast = jnp.array([3.0, -1.0]), jnp.array([2.0, 0.0]), Broadcast(jnp.int32(0), jnp.zeros(2), ())
    for keep in (0.95, 1.0, 0.0):
        memory = memories.accumulator(keep)
        state = memory.update(memory.init(jnp.zeros(2)), broadcast, Estimate(value, None, jnp.ones(())))
        np.testing.assert_allclose(memory.residual(state), value)
        np.testing.assert_allclose(memory.residual(memory.settle(state, decoded)), keep * (value - decoded))
    with pytest.raises(ValueError, match=r"accumulator\(keep=...\) must lie in \[0, 1\], got 1.5"):
        memories.accumulator(1.5)


def test_only_what_shows_travels():
    """Oracle: NumPy with bfloat16 of ml_dtypes: θ = 1 has neighbours 2^−8 and 2^−7 away, so that three halves of 2^−9 show and one does not; what waits adds up."""
    params = jnp.array([1.0, 1.0, -1.0, 0.0, 3.0])
    broadcast = Broadcast(jnp.int32(0), params, ())
    way = jnp.array([2**-9 * 0.9, 2**-8 * 1.1, 2**-9 * 0.9, 1e-30, 0.0])
    memory = memories.visible()
    play = jax.jit(lambda state, way: memory.update(state, broadcast, Estimate(way, None, jnp.ones(()))))
    state, total, sent = memory.init(params), np.zeros(5), np.zeros(5)
    for _ in range(4):
        state, total = play(state, way), total + np.asarray(way)
        expected = total - sent
        here, there = (np.asarray(x).astype(jnp.bfloat16) for x in (params, params - expected))
        innovation, noise = jax.jit(memory.innovation)(state, jnp.int32(1))
        np.testing.assert_allclose(innovation, np.where(here != there, expected, 0), rtol=1e-15)
        assert np.isinf(noise)
        sent = sent + innovation
        state = memory.settle(state, innovation)
        np.testing.assert_allclose(memory.residual(state), total - sent, atol=1e-17)
    assert (sent != 0).tolist() == [True, True, True, True, False]


def play(config, rounds=4):
    built = build(config)
    hyper = {name: jnp.asarray(value) for name, value in built.hyper.items()}
    return player(built.recipe, built.problem, rounds)(hyper)


@pytest.mark.parametrize("name", ["a2c", "fedback"])
def test_they_move_when_somebody_uploads(name):
    """Oracle: θ stays finite and moves in the rounds in which somebody uploads, and in these alone."""
    states, logs = play(SMALL.but(method=name, **({"local": Part(minibatches=1)} if name == "a2c" else {})))
    moved = np.linalg.norm(np.diff(states.controller.params, axis=0), axis=1) > 0
    np.testing.assert_array_equal(moved, logs.sent.any(1))
    assert np.isfinite(states.controller.params).all()
    assert moved.any()


@pytest.fixture(scope="module")
def expected():
    """Two rounds of PPO."""
    return play(SMALL, 2)[0].controller.params


@pytest.mark.parametrize("name", ["staggered_diloco", "muloco", "proxskip", "sparseloco", "pulseloco", "scout_ppo"])
def test_limits_in_which_they_are_ppo(name, expected):
    """Oracle: `ppo` itself, as soon as everybody uploads everything every round and the outer step is the mean."""
    parts = {
        "trigger": Part("always"),
        "memory": Part("accumulator"),
        "compressor": Part("identity"),
        "optimiser": Part("mean", step_size=1.0, momentum=0.0, nesterov=False),
        "local": Part(optimiser=Part("adam", step_size=0.001, eps=1e-5)),
    }
    if name == "proxskip":  # with one learner there is nothing to correct
        parts["local"] = Part(control_variates=False, **parts["local"].options)
    found, _ = play(SMALL.but(method=name, **parts), 2)
    np.testing.assert_array_equal(found.controller.params, expected)
