"""Rules that need to hear from everybody: reports that travel alone, and innovations that are weighed by the controller."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Part, estimators, methods
from lapg.problems import quadratic
from lapg.runtimes import sequential
from lapg.types import Arrival, Candidate, Estimate
from lapg.uplink import compressors, triggers
from support import player, quadratic_gradients

LEARNERS, SIZE, STEP, BATCH = 3, 4, 0.05, 2
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=SIZE, scales=(1.0, 0.5, 0.2), noise=0.5)


@pytest.fixture(scope="module")
def setting(problem):
    return methods.Setting(estimators.noisy(problem.gradient), BATCH, LEARNERS)


def recipe(setting, trigger, memory="accumulator", **options):
    """Local steps of size STEP, averaged."""
    own = Part("optimise", optimiser=Part("sgd", step_size=STEP))
    chosen = {"memory": Part(memory, **options), "trigger": trigger, "local": own, "optimiser": Part("mean")}
    return lambda hyper: methods.compose(
        "pg", setting, downlink=Part("replicated", compressor=Part("lossless")), **chosen
    )


def test_all_upload_when_the_models_are_far_apart():
    """Oracle: NumPy without noise: each learner's way, the estimate of its variance a round later, θ, and bits: 8 bytes and two numbers alone."""
    bound, rounds = 0.02, 40
    problem = quadratic(num_learners=LEARNERS, dimension=SIZE, scales=(1.0, 0.5, 0.2))
    setting, tasks = methods.Setting(estimators.exact(problem.gradient), 1, LEARNERS), problem.tasks
    slopes, centres = np.asarray(tasks.scale)[:, None] * np.asarray(tasks.extra["curvature"]), tasks.extra["centre"]
    states, logs = player(recipe(setting, Part("model_variance", threshold=bound)), problem, rounds)({})
    assert logs.sent.all()
    theta, way, direction = states.controller.params[0], np.zeros((LEARNERS, SIZE)), np.zeros(SIZE)
    due, dues, above = False, [], []
    for k in range(rounds):
        way = way + STEP * slopes * (theta - way - np.asarray(centres))
        estimate = (way**2).sum(1).mean() - (way @ direction).mean() ** 2
        assert estimate >= ((way - way.mean(0)) ** 2).sum(1).mean() - 1e-12
        np.testing.assert_array_equal(logs.uplink_bits[k], 64 * (3 + due * SIZE))
        dues.append(due)
        above.append(estimate)
        if due:
            step, theta = -way.mean(0), theta - way.mean(0)
            direction, way = step / np.linalg.norm(step), np.zeros_like(way)
        due = not due and estimate > bound
        np.testing.assert_allclose(states.controller.params[k + 1], theta, atol=1e-12)
        np.testing.assert_allclose(states.learners.memory.value[k + 1], way, atol=1e-12)
    assert 4 < sum(dues) < rounds / 3
    assert max(above) < 4 * bound


def test_weighted_uploads_are_unbiased():
    """Oracle: p_m = min(1, rate · M ‖·‖/Σ‖·‖) by hand; p times the weight is 1; the mean over coins within 4.5 standard errors; lone reports only if asked for."""
    norms, rate, draws = np.array([0.1, 1.0, 6.0]), 0.5, 4000
    chances = np.minimum(1, rate * 3 * norms / norms.sum())
    for alone in (True, False):
        trigger = triggers.importance(rate, alone=alone, num_learners=3)
        state = trigger.controller_init(jnp.zeros(2), 3)
        everybody = Arrival(jnp.zeros(2), jnp.ones(3, bool), jnp.asarray(norms))
        state = trigger.controller_update(state, jnp.zeros(2), everybody)

        @jax.jit
        def decide(key, norm, trigger=trigger, state=state):
            vector, zero = norm * jnp.array([0.6, 0.8]), jnp.zeros(())
            word = trigger.signal(key, state)
            candidate = Candidate(vector, zero, vector, vector, jnp.int32(1), jnp.int32(0), word)
            estimate = Estimate(vector, None, jnp.ones(()))
            return trigger.update(key, (), candidate, estimate, lambda *_: estimate)[1]

        keys = jax.random.split(jax.random.key(0), draws)
        found = jax.vmap(lambda key: jax.vmap(decide, (None, 0))(key, jnp.asarray(norms)))(keys)
        np.testing.assert_allclose(found.statistic[0], chances)
        np.testing.assert_allclose(np.unique(found.weight[:, 0]), [0, 1 / chances[0]])
        errors = np.sqrt((1 / chances - 1) / draws)
        assert (np.abs(np.asarray(found.weight).mean(0) - 1) <= 4.5 * errors + 1e-12).all()
        np.testing.assert_array_equal(found.fires, True if alone else found.weight > 0)


def test_optimal_sampling_by_hand(problem, setting):
    """Oracle: NumPy with the chances that the log has and its coins: θ^{k+1} = θ^k − mean_m [coin < p] E_m/p, E_m being this round's way alone."""
    rate, rounds = 0.4, 12
    made = recipe(setting, Part("importance", rate=rate), memory="fresh", restart=True)
    states, logs = player(made, problem, rounds)({})
    ways = STEP * quadratic_gradients(problem, states.controller.params[:-1], BATCH)
    norms = np.linalg.norm(ways, axis=2)
    before = np.concatenate([np.zeros((1, LEARNERS)), norms[:-1]]).sum(1, keepdims=True)
    chances = np.where(before > 0, np.minimum(1, rate * LEARNERS * norms / np.where(before > 0, before, 1)), 1)
    np.testing.assert_allclose(logs.learner.trigger_statistic, chances, rtol=1e-9)
    chosen = logs.learner.trigger_threshold < chances
    assert chosen[0].all()
    assert 0 < chosen[1:].mean() < 0.7
    steps = (np.where(chosen, 1 / chances, 0)[..., None] * ways).mean(1)
    np.testing.assert_allclose(states.controller.params[1:], states.controller.params[:-1] - steps, atol=1e-12)
    np.testing.assert_array_equal(logs.uplink_bits, 64 * (2 + SIZE * chosen))


@pytest.mark.parametrize("trigger", [Part("model_variance", threshold=0.02), Part("importance", rate=0.4, alone=False)])
def test_the_same_as_bytes(problem, setting, trigger):
    """Oracle: the plain loop over encoded messages and replicas: the same uploads and bits, θ equal up to rounding; a share that the aggregate needs is whole."""
    options = {"memory": "lagged"} if trigger.name == "importance" else {}
    if options:  # gradients, and the sum of shares
        made = lambda hyper: methods.compose(  # noqa: E731
            "lapg", setting, trigger=trigger, optimiser=Part("sgd", step_size=STEP), downlink=Part("forwarded")
        )
    else:
        made = recipe(setting, trigger)
    states, logs = player(made, problem, 10)({})
    end, log = sequential(made, problem, {}, seed=0, num_rounds=10)
    np.testing.assert_array_equal(log.sent, logs.sent)
    np.testing.assert_array_equal(log.uplink_bits, logs.uplink_bits)
    np.testing.assert_array_equal(log.downlink_bits, logs.downlink_bits)
    np.testing.assert_allclose(end.controller.params, states.controller.params[-1], atol=1e-12)
    if options:
        np.testing.assert_array_equal(logs.uplink_bits[0], 64 * (2 + SIZE))


def test_momentum_waits_for_innovations(problem, setting):
    """Oracle: an optimiser with momentum under reports alone: θ does not move between the rounds in which all upload."""
    trigger = Part("model_variance", threshold=0.02)
    own = Part("optimise", optimiser=Part("sgd", step_size=STEP))
    made = lambda hyper: methods.compose(  # noqa: E731
        "periodic", setting, trigger=trigger, local=own, optimiser=Part("mean", momentum=0.9)
    )
    states, logs = player(made, problem, 30)({})
    moved = np.abs(np.diff(states.controller.params, axis=0)).max(1) > 0
    np.testing.assert_array_equal(moved, logs.uplink_bits[:, 0] > 64 * 3)
    assert 2 < moved.sum() < 15


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: triggers.model_variance(0.0), r"model_variance\(threshold=...\) must be > 0, got 0.0"),
        (lambda: triggers.importance(0.0, num_learners=2), r"importance\(rate=...\) must lie in \(0, 1\], got 0.0"),
    ],
)
def test_wrong_rules_are_refused(build_it, message, unchecked):
    """Oracle: the docstrings."""
    with pytest.raises(ValueError, match=message):
        build_it()


def test_forwarded_messages_decode_as_they_were_meant(problem, setting):
    """Oracle: `dense` with the same messages: an unbiased compressor under a memory that keeps the rest is shrunk at all ends."""
    found = {}
    for downlink in ("dense", "forwarded"):
        made = lambda hyper, downlink=downlink: methods.compose(  # noqa: E731
            "random",
            setting,
            optimiser=Part("sgd", step_size=STEP),
            compressor=Part("qsgd", levels=2),
            downlink=Part(downlink),
        )
        found[downlink] = player(made, problem, 10)({})[0].controller.params
    np.testing.assert_allclose(found["forwarded"], found["dense"], atol=1e-12)


def test_presets_of_reports(problem, setting):
    """Oracle: `ppo`'s parts on the same gradients after a round in which nobody is silent: at p = 1, and a round after the models were far apart."""
    own = Part(optimiser=Part("sgd", step_size=STEP), epochs=1, minibatches=1)

    def play(method, **changes):
        made = lambda hyper: methods.compose(method, setting, local=own, **changes)  # noqa: E731
        return player(made, problem, 2)({})[0]

    expected, sampled = play("ppo").controller.params, play("optimal_sampling").controller.params
    np.testing.assert_allclose(sampled[1], expected[1], atol=1e-12)
    together = play("fda", trigger=Part(threshold=1e-12))
    thetas, way = together.controller.params, together.learners.memory.value[1].mean(0)
    np.testing.assert_allclose(thetas[0] - way, expected[1], atol=1e-12)
    np.testing.assert_array_equal(thetas[1], thetas[0])
    assert (thetas[2] != thetas[0]).any()


def test_weighted_messages_at_their_length():
    """Oracle: num_bits == 8 · len(encode) with and without a message; what follows weight 0 is refused."""
    made, vector = compressors.weighted(compressors.lossless()), jnp.arange(4.0)
    whole = made.compress(jax.random.key(0), vector)
    alone = jax.tree.map(jnp.zeros_like, whole)
    for message, expected in ((whole, vector), (alone, 0 * vector)):
        raw = made.encode(jax.tree.map(np.asarray, message))
        assert int(made.num_bits(message)) == 8 * len(raw)
        jax.tree.map(np.testing.assert_array_equal, made.decode(raw, jax.tree.map(np.asarray, whole)), message)
        np.testing.assert_array_equal(made.decompress(message), expected)
    with pytest.raises(ValueError, match=r"nothing follows weight 0, got 1 bytes"):
        made.decode(raw + b"x", jax.tree.map(np.asarray, whole))
