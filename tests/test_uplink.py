"""Memories, triggers and compressors, alone and at work in a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.types import Arrival, Broadcast, Candidate, Estimate, VarianceReduction
from lapg.uplink import memories, triggers, variance_reduction
from lapg.uplink.compressors import identity
from support import full, player, quadratic_gradients

ROUNDS, LEARNERS, BATCH, STEP = 30, 3, 2, 0.05
# Sums of at most 3 · 30 terms, relative error 90 · 2.2e-16 of the largest, which is below 100.
TOLERANCE = 2e-12


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=4, scales=(1.0, 0.5, 0.2), noise=0.5)


@pytest.fixture(scope="module")
def setting(problem):
    return methods.Setting(estimators.noisy(problem.gradient), BATCH, LEARNERS)


def mixed(sent):
    return sent[1:].any() and not sent[1:].all()


@pytest.mark.parametrize(
    "recipe",
    [
        lambda setting: methods.compose(
            "lapg", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(noise_weight=1.0, xi=0.1, window=3)
        ),
        lambda setting: methods.compose(
            "lapg",
            setting,
            optimiser=Part("sgd", step_size=STEP, momentum=0.5),
            memory=Part("running_average", weight=0.3),
            trigger=Part(noise_weight=0.3),
        ),
    ],
)
def test_reuse_keeps_the_aggregate_equal_to_what_was_uploaded(problem, setting, recipe):
    """Oracle: the invariant aggregate == Σ_m uploaded_m after every round, and uploaded_m == the learner's value at its last upload."""
    states, logs = player(lambda hyper: recipe(setting), problem, ROUNDS)({})
    memory = states.learners.memory
    np.testing.assert_allclose(states.controller.aggregate, memory.uploaded.sum(1), atol=TOLERANCE)
    assert mixed(logs.sent)
    held = np.zeros_like(memory.value[0])
    for k in range(ROUNDS):
        held = np.where(logs.sent[k][:, None], memory.value[k + 1], held)
        np.testing.assert_allclose(memory.uploaded[k + 1], held, atol=TOLERANCE)


@pytest.mark.parametrize(
    "recipe",
    [
        lambda setting: methods.compose(
            "awapg", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(threshold=10.0)
        ),
        lambda setting: methods.compose(
            "random", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(rate=0.3)
        ),
    ],
)
def test_accumulation_loses_nothing(problem, setting, recipe):
    """Oracle: Σ applied + Σ residuals == Σ gradients after every round, gradients recomputed in NumPy; applied is (θ^0 − θ^k)/α."""
    states, logs = player(lambda hyper: recipe(setting), problem, ROUNDS)({})
    params, residuals = states.controller.params, states.learners.memory.value.sum(1)
    gradients = quadratic_gradients(problem, params[:-1], BATCH)
    applied = (params[0] - params[1:]) / STEP
    np.testing.assert_allclose(applied + residuals[1:], np.cumsum(gradients.sum(1), 0), atol=TOLERANCE / STEP)
    assert mixed(logs.sent)


def test_running_average_follows_its_definition(problem, setting):
    """Oracle: v ← (1−η)v + ηg from v = g, in NumPy on recomputed gradients."""
    hyper = {"optimiser.step_size": STEP, "memory.weight": 0.3, "trigger.noise_weight": 0.3}
    recipe = lambda hyper: methods.compose("lapg", setting, memory=Part("running_average"), hyper=hyper)  # noqa: E731
    states, _ = player(recipe, problem, ROUNDS)(hyper)
    gradients = quadratic_gradients(problem, states.controller.params[:-1], BATCH)
    value = gradients[0]
    for k in range(1, ROUNDS):
        value = 0.7 * value + 0.3 * gradients[k]
        np.testing.assert_allclose(states.learners.memory.value[k + 1], value, atol=TOLERANCE)


def test_running_average_noise_in_closed_form():
    """Oracle: s²_n = s² + (σ² − s²)(1−η)^2n with s² = σ²η/(2−η), and 2 s²_n (1 − (1−η)^age) for the innovation."""
    memory, weight, noise = memories.running_average(0.3), 0.3, 5.0
    state, limit = memory.init(jnp.zeros(2)), 5.0 * 0.3 / 1.7
    broadcast = Broadcast(jnp.int32(0), jnp.zeros(2), ())
    for n in range(6):
        state = memory.update(state, broadcast, Estimate(jnp.ones(2), jnp.float64(noise), jnp.ones(())))
        expected = limit + (noise - limit) * (1 - weight) ** (2 * n)
        np.testing.assert_allclose(state.noise, expected, 1e-14)
        np.testing.assert_allclose(
            memory.innovation(state, jnp.int32(n + 1))[1], 2 * expected * (1 - 0.7 ** (n + 1)), 1e-14
        )


@pytest.mark.parametrize(
    ("memory", "factor"),
    [(memories.running_average(0.2), 1.0), (memories.accumulator(), 1.0), (memories.lagged(), 2.0)],
)
def test_noise_of_the_innovation_is_its_variance(memory, factor):
    """Oracle: Monte Carlo, 4 standard errors: unit noise about a zero gradient, an upload in round 39, the innovation ten rounds later.

    Of the two noises in a lagged difference (16) counts one, hence the factor 2.
    """
    runs, rounds, upload = 20_000, 50, 39

    @jax.jit
    def run(key):
        def step(state, inputs):
            k, draw = inputs
            broadcast = Broadcast(k, jnp.zeros(1), ())
            state = memory.update(state, broadcast, Estimate(draw, jnp.ones(()), jnp.ones(())))
            settled = memory.settle(state, memory.innovation(state, jnp.int32(1))[0])
            return jax.tree.map(lambda a, b: jnp.where(k == upload, a, b), settled, state), None

        draws = jax.random.normal(key, (rounds, 1))
        state = jax.lax.scan(step, memory.init(jnp.zeros(1)), (jnp.arange(rounds, dtype=jnp.int32), draws))[0]
        return memory.innovation(state, jnp.int32(rounds - 1 - upload))

    value, noise = jax.tree.map(np.asarray, jax.vmap(run)(jax.random.split(jax.random.key(0), runs)))
    squared = value[:, 0] ** 2
    assert abs(squared.mean() - factor * noise.mean()) / (squared.std() / runs**0.5) < 4


# ---------------------------------------------------------------- triggers


def decide(
    trigger, *, innovation=(3.0, 4.0), noise=0.0, age=1, index=0, signal=0.0, key=0, state=(), gradient=(0.0, 0.0)
):
    signal = signal if isinstance(signal, tuple) else jnp.float64(signal)
    vector = jnp.asarray(innovation)
    candidate = Candidate(vector, jnp.float64(noise), vector, vector, jnp.int32(age), jnp.int32(index), signal)
    estimate = Estimate(jnp.asarray(gradient), jnp.ones(()), jnp.ones(()))
    return trigger.update(jax.random.key(key), state, candidate, estimate, lambda params: estimate)


def lazily(**change):
    return triggers.lazy(**{"xi": jnp.ones(2), "step_size": 0.1, "num_learners": 2} | change)


def test_lazy_signal_is_the_drift():
    """Oracle: (1/α²M²) Σ_d ξ_d ‖Δθ_d‖² by hand from five displacements, newest first, nothing before the first."""
    weights, moves = np.array([0.5, 0.3, 0.1]), np.random.default_rng(0).normal(size=(5, 2))
    trigger = triggers.lazy(jnp.asarray(weights), step_size=0.2, num_learners=3)
    state = trigger.controller_init(jnp.zeros(2), 3)
    assert float(trigger.signal(jax.random.key(0), state)) == 0
    for k, move in enumerate(moves):
        state = trigger.controller_update(state, jnp.asarray(move), None)
        past = [np.sum(moves[k - d] ** 2) if k >= d else 0.0 for d in range(3)]
        found = trigger.signal(jax.random.key(0), state)
        np.testing.assert_allclose(found, weights @ past / (0.2 * 3) ** 2, 1e-14)


def test_lazy_condition_by_hand():
    """Oracle: ‖(3, 4)‖² = 25 against signal + c σ²; the bound of learner 1 replaces its own noise."""
    weighted = lazily(noise_weight=2.0)
    for signal, noise, fires in [(4.0, 10.0, True), (5.0, 10.0, False), (6.0, 10.0, False)]:
        _, decision = decide(weighted, signal=signal, noise=noise)
        assert bool(decision.fires) == fires
        assert (float(decision.statistic), float(decision.threshold)) == (25.0, signal + 2 * noise)
    bounded = lazily(noise_weight=1.0, noise_bound=jnp.asarray([1.0, 30.0]))
    assert [bool(decide(bounded, index=m, noise=7.0)[1].fires) for m in (0, 1)] == [True, False]


def test_strict_is_silent_at_zero():
    """Oracle: 0 > 0 is false, 0 >= 0 is true."""
    for strict in (True, False):
        trigger = lazily(strict=strict)
        assert bool(decide(trigger, innovation=(0.0, 0.0))[1].fires) != strict


@pytest.mark.parametrize(
    ("trigger", "state"),
    [
        (lazily(max_age=3), ()),
        (
            triggers.age_weighted(1.0, num_learners=2, max_age=3),
            triggers.Window(jnp.zeros(()), jnp.int32(0), jnp.bool_(True)),
        ),
        (triggers.periodic(2.5), ()),
    ],
)
def test_age_forces_an_upload(trigger, state):
    """Oracle: with nothing to say (0 against 1e9) an upload happens at age 3 and not before; a period of 2.5 is reached at 3."""
    fired = [
        bool(decide(trigger, innovation=(0.0, 0.0), signal=1e9, age=age, state=state)[1].fires) for age in (1, 2, 3, 4)
    ]
    assert fired == [False, False, True, True]


def test_always_and_never():
    """Oracle: their names."""
    for trigger, answer in ((triggers.always(), True), (triggers.never(), False)):
        assert {bool(decide(trigger, age=age)[1].fires) for age in (1, 1000)} == {answer}


def test_random_fires_at_its_rate(problem, setting):
    """Oracle: binomial, 4 standard errors, over rounds and learners; learners' coins differ."""
    rounds = 2000
    _, logs = player(
        lambda hyper: methods.compose("random", setting, optimiser=Part("sgd", step_size=1e-06), hyper=full(hyper)),
        problem,
        rounds,
    )({"rate": 0.3})
    sent = logs.sent[1:]
    assert np.all(np.abs(sent.mean(0) - 0.3) < 4 * (0.3 * 0.7 / len(sent)) ** 0.5)
    assert np.all(np.abs(np.corrcoef(sent.T) - np.eye(LEARNERS)) < 4 / len(sent) ** 0.5 + 1e-12)


def test_periodic_uploads_every_period(problem, setting):
    """Oracle: rounds 3, 7, 11; nobody waits for an accumulating learner in round 0."""
    _, logs = player(
        lambda hyper: methods.compose("periodic", setting, optimiser=Part("sgd", step_size=0.01), hyper=full(hyper)),
        problem,
        13,
    )({"period": 4.0})
    np.testing.assert_array_equal(logs.sent, (np.arange(13) % 4 == 3)[:, None].repeat(LEARNERS, 1))


@pytest.mark.parametrize(("memory", "first"), [("accumulator", (6, 2, 8)), ("lagged", (7, 3, 9))])
def test_staggered_learners_upload_one_after_the_other(problem, setting, memory, first):
    """Oracle: 10 times the fractional parts of m · 0.618 are 6.18, 2.36 and 8.54, so ages 7, 3 and 9; then every 10 rounds.

    Ages count from the beginning, or from the share that a reused gradient needs in round 0.
    """
    recipe = lambda hyper: methods.compose(  # noqa: E731
        "periodic",
        setting,
        optimiser=Part("sgd", step_size=0.01),
        memory=Part(memory),
        trigger=Part(phase="staggered"),
        hyper=full(hyper),
    )
    _, logs = player(recipe, problem, 30)({"period": 10.0})
    rounds = np.arange(30)[:, None]
    expected = (rounds >= first) & ((rounds - first) % 10 == 0) | ((rounds == 0) & (memory == "lagged"))
    np.testing.assert_array_equal(logs.sent, expected)


def test_age_weighted_report_by_hand():
    """Oracle: windows 5, (5 + 13)/2; the scale is the sum of the last reports; left is age · ‖E‖, right κ · scale; equals do not fire."""
    trigger = triggers.age_weighted(2.0, num_learners=2, scale="report", max_age=None)
    window = trigger.settle(trigger.init(jnp.zeros(2)), None)
    window, first = decide(trigger, state=window, gradient=(3.0, 4.0), signal=6.0, age=2)
    assert (float(first.statistic), float(first.threshold), bool(first.fires), float(first.report)) == (
        10.0,
        12.0,
        False,
        5.0,
    )
    window, second = decide(trigger, state=window, gradient=(5.0, 12.0), signal=7.5, age=3)
    assert (float(second.statistic), float(second.threshold), bool(second.fires), float(second.report)) == (
        15.0,
        15.0,
        False,
        9.0,
    )
    assert bool(decide(trigger, state=window, gradient=(5.0, 12.0), signal=7.4, age=3)[1].fires)
    assert (float(trigger.settle(window, None).total), int(trigger.settle(window, None).count)) == (0.0, 0)
    state = trigger.controller_init(jnp.zeros(2), 2)
    for sent, reports, scale in (
        ((True, True), (2.0, 3.0), 5.0),
        ((False, True), (0.0, 7.0), 9.0),
        ((False, False), (0.0, 0.0), 9.0),
    ):
        state = trigger.controller_update(
            state, jnp.zeros(2), Arrival(jnp.zeros(2), jnp.asarray(sent), jnp.asarray(reports))
        )
        assert float(trigger.signal(jax.random.key(0), state)) == scale


def test_age_weighted_before_the_first_upload():
    """Oracle: κ = 2, M = 2, own mean 5: the right side is 2 · max(signal, 10 · .618) for learner 0, and 2 · signal once it has uploaded."""
    trigger = triggers.age_weighted(2.0, num_learners=2)
    start = trigger.init(jnp.zeros(2))
    for state, signal, right in (
        (start, 0.0, 10.0 * (5**0.5 - 1)),
        (start, 12.0, 24.0),
        (trigger.settle(start, None), 3.0, 6.0),
    ):
        assert float(decide(trigger, state=state, gradient=(3.0, 4.0), signal=signal)[1].threshold) == pytest.approx(
            right
        )


def test_somebody_speaks_first():
    """Oracle: M = 3, fractions .618, .236, .854, so that learner 1 comes first, then 0, then 2: at ages 5, 6, 7 while nobody has uploaded, and never after."""
    trigger = triggers.age_weighted(1e9, num_learners=3, max_age=None, first_upload=0.5, num_rounds=10)
    start = trigger.init(jnp.zeros(2))

    def ages(index, state=start, signal=0.0):
        told = {"state": state, "index": index, "signal": signal, "gradient": (3.0, 4.0)}
        return [age for age in range(4, 9) if decide(trigger, age=age, **told)[1].fires]

    assert [ages(index)[0] for index in range(3)] == [6, 5, 7]
    assert ages(1, signal=1e-3) == ages(1, state=trigger.settle(start, None), signal=1e-3) == []
    patient = triggers.age_weighted(1e9, num_learners=3, max_age=None)
    assert not decide(patient, state=start, index=1, age=1000, gradient=(3.0, 4.0))[1].fires


def test_age_weighted_step_by_hand():
    """Oracle: running mean of ‖Δθ‖/α, starting at the first one: 5/.5 = 10, then .8 · 10 + .2 · 20; nothing is reported."""
    trigger = triggers.age_weighted(1.0, num_learners=2, scale="step", step_size=0.5, decay=0.8)
    state = trigger.controller_init(jnp.zeros(2), 2)
    arrival = Arrival(jnp.zeros(2), jnp.asarray([True, False]), ())
    for move, scale in (((3.0, 4.0), 10.0), ((6.0, 8.0), 12.0), ((0.0, 0.0), 9.6)):
        state = trigger.controller_update(state, jnp.asarray(move), arrival)
        np.testing.assert_allclose(trigger.signal(jax.random.key(0), state), scale, 1e-14)
    assert decide(trigger, state=trigger.init(jnp.zeros(2)))[1].report == ()


# ---------------------------------------------------------------- a noise that is not known

MEMORIES = {
    "fresh": (VarianceReduction(), memories.fresh()),
    "lagged": (VarianceReduction(), memories.lagged()),
    "average": (VarianceReduction(), memories.running_average(0.3)),
    "average of one": (VarianceReduction(), memories.running_average(1.0)),
    "accumulate": (VarianceReduction(), memories.accumulator()),
    "visible": (VarianceReduction(), memories.visible()),
    "dasha": (VarianceReduction(), memories.dasha(0.5, uplink=identity())),
    "storm": (variance_reduction.storm(0.3), memories.running_average(0.5)),
    "storm of one": (variance_reduction.storm(1.0), memories.lagged()),
    "snapshot": (variance_reduction.snapshot(4, 2), memories.accumulator()),
    "federated": (
        variance_reduction.federated_momentum(0.5, plain_step_size=0.05, num_learners=2, upload_period=2),
        memories.accumulator(),
    ),
}
WEIGHING = {  # the noise counts against an upload
    "lazy": lazily(noise_weight=1.0),
    "quantised": lazily(measure=triggers.measures.quantised()),
}
INDIFFERENT = {
    "always": triggers.always(),
    "never": triggers.never(),
    "periodic": triggers.periodic(2),
    "random": triggers.random(0.5),
    "lazy, c = 0": lazily(noise_weight=0.0),
    "lazy, bound": lazily(noise_bound=jnp.ones(2)),
    "same samples": lazily(measure=triggers.measures.same_samples(0.0)),
    "snapshot": lazily(measure=triggers.measures.against_snapshot(3)),
    "staleness": lazily(measure=triggers.measures.staleness(1.0)),
    "changed": triggers.changed(0.5),
    "report": triggers.age_weighted(3.0, num_learners=2),
    "step": triggers.age_weighted(3.0, num_learners=2, scale="step"),
}
UNKNOWN = {"always": [np.inf] * 6, "never": [1.0] * 6, "once": [1.0, np.inf, 1.0, 1.0, 1.0, 1.0]}


@pytest.fixture(scope="module")
def remembered():
    """By memory and by when the noise is not known: the noise of the innovation in six rounds without an upload, and the innovation of the last."""

    def play(reduction, memory, noises):
        def step(states, inputs):
            (reduced, state), (k, noise) = states, inputs
            broadcast = Broadcast(k, jnp.ones(2), ())
            estimate = Estimate(jnp.ones(2) * (k + 1.0), noise, jnp.ones(()))
            reduced, refined = reduction.refine(reduced, broadcast, broadcast.params, estimate, lambda params: estimate)
            state = memory.update(state, broadcast, refined)
            return (reduced, state), memory.innovation(state, k + 1)

        start = reduction.init(jnp.ones(2)), memory.init(jnp.ones(2))
        return jax.lax.scan(step, start, (jnp.arange(6, dtype=jnp.int32), noises))[1]

    every = jnp.asarray(list(UNKNOWN.values()))
    run = jax.jit(lambda: {name: jax.vmap(lambda n, m=m: play(*m, n))(every) for name, m in MEMORIES.items()})
    return {
        name: dict(zip(UNKNOWN, zip(noise, innovation[:, -1], strict=True), strict=True))
        for name, (innovation, noise) in jax.tree.map(np.asarray, run()).items()
    }


@pytest.mark.parametrize("memory", MEMORIES)
def test_unknown_noise_stays_unknown_and_goes(memory, remembered):
    """Oracle: inf means not known: it is never NaN, and where no gradient's noise is known the innovation's is not.

    After one such gradient the noise is finite again: at once in what forgets or averages, after an upload in sums.
    """
    found = {when: noise for when, (noise, _) in remembered[memory].items()}
    assert not np.isnan(list(found.values())).any()
    assert np.isinf(found["always"]).all()
    assert np.isfinite(found["never"]).all()
    assert np.isinf(found["once"][1])
    if memory in ("accumulate", "visible", "snapshot", "federated"):
        assert np.isinf(found["once"][1:]).all()
        _, held = MEMORIES[memory]
        state = held.settle(held.init(jnp.ones(2)), jnp.ones(2))
        assert float(held.innovation(state, jnp.int32(1))[1]) == 0
    else:
        assert np.isfinite(found["once"][2:]).all()
        assert (
            found["once"][2:] >= found["never"][2:]
        ).all()  # an unknown noise is taken for no better than one gradient's


@pytest.mark.parametrize("memory", MEMORIES)
def test_unknown_noise_and_every_trigger(memory, remembered):
    """Oracle: rules that do not weigh the noise decide as with noise 0; those that do are silent, and both sides say why; age still forces an upload."""
    noise, innovation = remembered[memory]["always"]

    def answer(trigger, noise, **change):
        state = trigger.init(jnp.zeros(2))
        return decide(trigger, innovation=innovation, noise=noise, state=state, gradient=(1.0, 2.0), **change)[1]

    for trigger in INDIFFERENT.values():
        assert jax.tree.map(float, answer(trigger, noise[-1])) == jax.tree.map(float, answer(trigger, 0.0))
    for name, trigger in WEIGHING.items():
        decision = answer(trigger, noise[-1])
        assert (bool(decision.fires), float(decision.threshold)) == (False, np.inf), name
        assert np.isfinite(float(decision.statistic))
    assert bool(answer(lazily(max_age=3), noise[-1], age=3).fires)


def test_effective_samples_without_end():
    """Oracle: an exact gradient has infinitely many; at min_effective 0 importance weights are always trusted: no noise on the right."""
    trigger = lazily(measure=triggers.measures.same_samples(0.0), noise_weight=1.0)
    vector = jnp.asarray([3.0, 4.0])
    candidate = Candidate(vector, jnp.float64(7.0), vector, vector, jnp.int32(1), jnp.int32(0), jnp.float64(0.5))
    estimate = Estimate(vector, jnp.ones(()), jnp.float64(np.inf))
    assert (
        float(
            trigger.update(jax.random.key(0), jnp.zeros(2), candidate, estimate, lambda params: estimate)[1].threshold
        )
        == 0.5
    )


# ---------------------------------------------------------------- compressors


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_identity_travels_unchanged(dtype):
    """Oracle: the vector itself; num_bits == 8 · len(encode)."""
    codec, vector = identity(), jnp.asarray(np.random.default_rng(0).normal(size=7), dtype)
    message = codec.compress(jax.random.key(0), vector)
    raw = codec.encode(message)
    assert int(codec.num_bits(message)) == 8 * len(raw) == 7 * 8 * dtype.dtype.itemsize
    decoded = codec.decompress(codec.decode(raw, message))
    assert decoded.dtype == vector.dtype
    np.testing.assert_array_equal(decoded, vector)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: triggers.periodic(2.0, phase="late"), r"phase=\.\.\.\) must be 'together' or 'staggered', got 'late'"),
        (lambda: triggers.periodic(0.5), r"period=\.\.\.\) must be >= 1, got 0\.5"),
        (lambda: triggers.random(1.5), r"rate=\.\.\.\) must lie in \[0, 1\], got 1\.5"),
        (lambda: lazily(xi=jnp.asarray([0.1, -0.1])), r"xi=\.\.\.\) must be non-negative, got \[0\.1, -0\.1\]"),
        (lambda: lazily(xi=jnp.ones(0)), r"D >= 1, got shape \(0,\)"),
        (lambda: lazily(noise_weight=-1.0), r"noise_weight=\.\.\.\) must be >= 0, got -1\.0"),
        (lambda: lazily(step_size=0.0), r"step_size=\.\.\.\) must be > 0, got 0\.0"),
        (lambda: lazily(noise_bound=jnp.ones(3)), r"one entry per learner, 2, got \(3,\)"),
        (lambda: lazily(max_age=0), r"lazy\(max_age=\.\.\.\) must be >= 1 or none, got 0"),
        (lambda: triggers.age_weighted(0.0, num_learners=2), r"threshold=\.\.\.\) must be > 0, got 0\.0"),
        (
            lambda: triggers.age_weighted(1.0, num_learners=2, step_size=-1.0),
            r"step_size=\.\.\.\) must be > 0, got -1\.0",
        ),
        (
            lambda: triggers.age_weighted(1.0, num_learners=2, scale="loud"),
            r"scale=\.\.\.\) must be 'report' or 'step', got 'loud'",
        ),
        (
            lambda: triggers.age_weighted(1.0, num_learners=2, decay=1.0),
            r"decay=\.\.\.\) must lie in \[0, 1\), got 1\.0",
        ),
        (
            lambda: triggers.age_weighted(1.0, num_learners=2, max_age=0),
            r"age_weighted\(max_age=\.\.\.\) must be >= 1 or none, got 0",
        ),
        (lambda: memories.running_average(0.0), r"weight=\.\.\.\) must lie in \(0, 1\], got 0\.0"),
        (lambda: memories.running_average(1.5), r"weight=\.\.\.\) must lie in \(0, 1\], got 1\.5"),
        (
            lambda: methods.resolve("memory", "elephant"),
            r"memory must be one of accumulator, dasha, fresh, lagged, running_average, visible, or your own .*got 'elephant'",
        ),
        (
            lambda: methods.compose("pg", methods.Setting(estimators.exact(None), 2, 2), hyper={"step_size": 0.1}),
            r"hyper must name options with their part, such as optimiser\.step_size, got 'step_size'",
        ),
    ],
)
def test_wrong_parts_are_refused(build, message, unchecked):
    """Oracle: the docstrings; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        build()
