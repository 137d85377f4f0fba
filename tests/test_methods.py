"""The family of upload rules: every method against its authors' rule in NumPy, on a noisy quadratic; and in words' limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators, methods
from lapg.experiments.build import build
from lapg.experiments.config import Config
from lapg.methods import Part
from lapg.problems import garnet, quadratic
from lapg.runtimes import sequential
from lapg.types import Candidate, Estimate, Weighted
from lapg.uplink import triggers
from lapg.uplink.triggers import measures
from oracles import family
from support import player, quadratic_gradients

ROUNDS, LEARNERS, BATCH, STEP = 30, 3, 2, 0.05
# Sums of at most 3 · 30 terms below 100, relative error 90 · 2.2e-16 each.
TOLERANCE = 2e-12
XI = np.array([0.3, 0.1, 0.05])


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=6, scales=(1.0, 0.5, 0.2), noise=0.3)


@pytest.fixture(scope="module")
def setting(problem):
    return methods.Setting(estimators.noisy(problem.gradient), BATCH, LEARNERS)


@pytest.fixture(scope="module")
def slope(problem):
    tasks = jax.tree.map(np.asarray, problem.tasks)
    return lambda theta: tasks.scale[:, None] * tasks.extra["curvature"] * (theta - tasks.extra["centre"])


@pytest.fixture(scope="module")
def noise(problem, slope):
    """[K, M, d]: the draws are the same whatever θ is."""
    start = np.zeros((ROUNDS, 6))
    return quadratic_gradients(problem, start, BATCH) - slope(start[0])


def play(problem, setting, name, **options):
    return player(
        lambda hyper: methods.compose(name, setting, optimiser=Part("sgd", step_size=STEP), **options), problem, ROUNDS
    )({})


def follows(change, *, xi=XI, error=lambda own: 0.0):
    """‖change‖² > drift + error, the rule of LAG and its relatives."""

    def make(thetas, slope):
        def fires(own):
            return change(own, thetas, slope) > family.drift(thetas, own.k, xi, STEP, LEARNERS) + error(own)

        return fires

    return make


def correction(own, thetas, slope, period=7):
    """CADA1's δ̃: the snapshot is that of the last multiple of the period, and the noise cancels."""
    own.correction = (slope(thetas[own.k]) - slope(thetas[own.k - own.k % period]))[own.index]
    last = getattr(own, "sent_correction", None)
    return family.squared(own.correction - (0 if last is None else last))


def moved(own, thetas, slope):
    """The change of the noise-free gradient since the last upload: what two gradients of one batch differ by."""
    return family.squared((slope(thetas[own.k]) - slope(own.theta))[own.index])


LAZY = {
    "lag_wk": (
        {"trigger": Part(xi=tuple(XI))},
        follows(lambda own, thetas, slope: family.squared(own.innovation)),
        {},
    ),
    "lag_ps": (
        {"trigger": Part(xi=tuple(XI), measure=Part(smoothness=(0.8, 0.4, 0.1)))},
        follows(lambda own, thetas, slope: (0.8, 0.4, 0.1)[own.index] ** 2 * family.squared(thetas[own.k] - own.theta)),
        {},
    ),
    "laq": (
        {"trigger": Part(xi=tuple(XI), max_age=6)},
        follows(lambda own, thetas, slope: family.squared(own.decoded), error=lambda own: 3 * (own.lost + own.error)),
        {"compress": family.laq_grid(4), "cap": 6},
    ),
    "lasg_wk1": (
        {"trigger": Part(xi=tuple(XI), max_age=9, measure=Part(period=7))},
        follows(correction),
        {"cap": 9},
    ),
    "lasg_wk2": ({"trigger": Part(xi=tuple(XI), max_age=9)}, follows(moved), {"cap": 9}),
    "clag": (
        {"trigger": Part(weight=1.5)},
        lambda thetas, slope: (
            lambda own: (
                own.last is None or family.squared(own.innovation) > 1.5 * family.squared(own.gradient - own.last)
            )
        ),
        {"compress": family.largest(0.05)},
    ),
    "ef21": ({}, lambda thetas, slope: lambda own: True, {"compress": family.largest(0.05)}),
    "ef21_sgdm": (
        {"memory": Part(weight=0.3)},
        lambda thetas, slope: lambda own: True,
        {"compress": family.largest(0.05), "average_weight": 0.3},
    ),
}


def check(states, logs, sent, aggregate, every_round=False):
    np.testing.assert_array_equal(logs.sent, sent)
    np.testing.assert_allclose(states.controller.aggregate[1:], aggregate, atol=TOLERANCE)
    params = states.controller.params
    np.testing.assert_allclose(params[1:], params[:-1] - STEP * aggregate, atol=TOLERANCE)
    if every_round:
        assert sent.all()
    else:  # both answers were seen
        assert sent[1:].any()
        assert not sent[1:].all()


@pytest.mark.parametrize("name", LAZY)
def test_lazy_methods_are_their_authors(problem, setting, slope, noise, name):
    """Oracle: the rule in NumPy, round by round, on recomputed gradients: decisions, aggregate == Σ uploaded, and the step."""
    options, make, rest = LAZY[name]
    states, logs = play(problem, setting, name, **options)
    thetas = states.controller.params
    sent, aggregate = family.lazy(thetas, slope, noise, make(thetas, slope), **rest)
    check(states, logs, sent, aggregate, every_round=name.startswith("ef21"))
    np.testing.assert_allclose(states.controller.aggregate, states.learners.memory.uploaded.sum(1), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "options", "fires", "compress"),
    [
        ("ef14", {}, lambda size, age, scale: True, family.largest(0.05)),
        ("ef_sign", {}, lambda size, age, scale: True, family.signs),
        ("lena", {"trigger": Part(threshold=3.0)}, lambda size, age, scale: size > 3.0 * scale, family.exact),
        ("awapg", {"trigger": Part(threshold=8.0)}, lambda size, age, scale: age * size > 8.0 * scale, family.exact),
    ],
)
def test_accumulating_methods_are_their_authors(problem, setting, slope, noise, name, options, fires, compress):
    """Oracle: error feedback in NumPy, round by round; Σ applied + Σ residuals == Σ gradients."""
    states, logs = play(problem, setting, name, **options)
    thetas = states.controller.params
    sent, applied = family.accumulated(thetas, slope, noise, fires, compress)
    check(states, logs, sent, applied, every_round=name.startswith("ef"))
    gradients = np.stack([slope(theta) for theta in thetas[:-1]]) + noise
    held = states.learners.memory.value[1:].sum(1)
    np.testing.assert_allclose(np.cumsum(applied, 0) + held, np.cumsum(gradients.sum(1), 0), atol=50 * TOLERANCE)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("storm_pg", {"variance_reduction": Part(weight=0.3)}, functools.partial(family.storm, weight=0.3)),
        (
            "svrpg",
            {"variance_reduction": Part(period=7, num_batches=3)},
            functools.partial(family.snapshots, period=7, num_batches=3),
        ),
    ],
)
def test_variance_reduction_is_its_authors(problem, setting, slope, noise, name, options, expected):
    """Oracle: the recursion in NumPy; the noise of a batch is the same at every θ."""
    states, logs = play(problem, setting, name, **options)
    check(states, logs, *expected(states.controller.params, slope, noise), every_round=True)


@pytest.mark.parametrize(("name", "weight"), [("fedavg", 1.0), ("fedsvrpg_m", 0.4)])
def test_federated_methods_average_models(problem, setting, slope, noise, name, weight):
    """Oracle: M models in NumPy, stepped by M α along their own gradients and averaged every 4 rounds."""
    changes = {} if weight == 1 else {"variance_reduction": Part(weight=weight)}
    states, logs = play(problem, setting, name, trigger=Part(period=4.0), **changes)
    start = states.controller.params[0]
    expected = family.federated(start, slope, noise, STEP, 4, weight)
    np.testing.assert_allclose(states.controller.params, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(logs.sent, (np.arange(ROUNDS) % 4 == 3)[:, None].repeat(LEARNERS, 1))


def test_qsgd_rounds_fresh_gradients(problem, setting, slope, noise):
    """Oracle: with one learner, what is applied is ‖g‖/7 times whole numbers, next to the gradient; and not the gradient itself."""
    alone = setting._replace(num_learners=1)
    tasks = jax.tree.map(lambda leaf: leaf[:1], problem.tasks)
    states, logs = play(problem._replace(tasks=tasks, num_learners=1), alone, "qsgd")
    gradients = np.stack([slope(theta)[0] for theta in states.controller.params[:-1]]) + noise[:, 0]
    levels = 7 * states.controller.aggregate[1:] / np.linalg.norm(gradients, axis=1)[:, None]
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-9)
    exact = 7 * gradients / np.linalg.norm(gradients, axis=1)[:, None]
    assert (np.abs(levels - exact) < 1).all()
    assert np.abs(levels - exact).max() > 0.5
    assert logs.sent.all()


def test_dasha_uploads_rounded_differences(problem, setting):
    """Oracle: uploads are whole multiples of ‖δ‖/7 with δ = h − h_last − a (u − h_last), a = 1/(2 · 6/49 + 1), recomputed; aggregate == Σ u."""
    states, _ = play(problem, setting, "dasha")
    memory = states.learners.memory
    value, before, uploaded = memory.value[1:], memory.value[:-1], memory.uploaded
    delta = value - before - (uploaded[:-1] - before) / (2 * 6 / 49 + 1)
    levels = 7 * np.diff(uploaded, axis=0) / np.linalg.norm(delta, axis=-1, keepdims=True)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-8)
    assert (np.abs(levels - 7 * delta / np.linalg.norm(delta, axis=-1, keepdims=True)) < 1).all()
    np.testing.assert_allclose(states.controller.aggregate, uploaded.sum(1), atol=TOLERANCE)


def test_dasha_without_loss_is_pg(problem, setting, slope, noise):
    """Oracle: the sum of this round's gradients, when nothing is compressed."""
    states, _ = play(problem, setting, "dasha", compressor=Part("identity"))
    gradients = np.stack([slope(theta) for theta in states.controller.params[:-1]]) + noise
    np.testing.assert_allclose(states.controller.aggregate[1:], gradients.sum(1), atol=TOLERANCE)


def test_error_feedback_shrinks_what_is_unbiased(problem, setting):
    """Oracle: QSGD with 1 level has ω = √6 here; shrunk by 1/(1 + ω) accumulated gradients stay bounded, and every entry applied is 0 or ± one value."""
    states, _ = play(problem, setting, "ef14", compressor=Part("qsgd", levels=1))
    held = np.concatenate([np.zeros((1, LEARNERS, 6)), states.learners.memory.value[1:]])
    assert np.linalg.norm(held[-1]) < 20 * np.linalg.norm(held[1])
    gradients = quadratic_gradients(problem, states.controller.params[:-1], BATCH)
    before = held[:-1] + gradients
    ratio = (before - held[1:]) / np.linalg.norm(before, axis=-1, keepdims=True)
    found = np.abs(ratio[np.abs(ratio) > 1e-9])
    np.testing.assert_allclose(found, 1 / (1 + 6**0.5), rtol=1e-9)


# ---------------------------------------------------------------- the same batch at two parameters


def decide(trigger, state, *, there, here=(3.0, 4.0), effective=10.0, noise=2.0, signal=0.0):
    """A decision of a learner whose gradient at θ = (1, 1) is ``here`` and everywhere else ``there``."""
    params = jnp.ones(2)
    candidate = Candidate(
        jnp.asarray([6.0, 8.0]), jnp.asarray(noise), jnp.asarray([6.0, 8.0]), params, jnp.int32(1), jnp.int32(0), jnp.asarray(signal)
    )  # fmt: skip

    def gradient_at(at):
        own = jnp.all(at == params)
        gradient = jnp.where(own, jnp.asarray(here), jnp.asarray(there))
        return Estimate(gradient, jnp.ones(()), jnp.where(own, 10.0, effective))

    return trigger.update(jax.random.key(0), state, candidate, gradient_at(params), gradient_at)[1]


def test_few_effective_samples_fall_back_to_the_noise_rule():
    """Oracle: by hand ‖(3, 4) − (0, 4)‖² = 9 against the drift; with 2 of 10 effective samples ‖δ‖² = 100 against drift + 5 · 2."""
    trigger = triggers.lazy(
        jnp.ones(1), step_size=0.1, num_learners=2, noise_weight=5.0, measure=measures.same_samples(0.25)
    )
    state = trigger.init(jnp.zeros(2))
    trusted = decide(trigger, state, there=(0.0, 4.0), effective=2.6, signal=8.5)
    assert (float(trusted.statistic), float(trusted.threshold), bool(trusted.fires)) == (9.0, 8.5, True)
    fallen = decide(trigger, state, there=(0.0, 4.0), effective=2.4, signal=95.0)
    assert (float(fallen.statistic), float(fallen.threshold), bool(fallen.fires)) == (100.0, 105.0, False)


def test_no_weight_makes_infinite_noise_count():
    """Oracle: one trajectory has infinite noise; with weight 0 the right side is the drift."""
    trigger = triggers.lazy(jnp.ones(1), step_size=0.1, num_learners=2, noise_weight=0.0)
    assert float(decide(trigger, (), there=(0.0, 0.0), noise=np.inf, signal=7.0).threshold) == 7.0


def test_importance_weights_take_the_noise_out():
    """Oracle: on a small MDP a lagged difference is mostly noise, 2 tr Cov; of the same episodes' difference most cancels: below a tenth of it."""
    mdp = garnet(num_learners=2, num_states=3, num_actions=2, branching=2, num_steps=4)
    given = methods.Setting(estimators.gpomdp(mdp.policy, mdp.discount), 10, 2)
    run = player(
        lambda hyper: methods.compose(
            "lasg_wk2", given, optimiser=Part("sgd", step_size=0.05), trigger=Part(max_age=4)
        ),
        mdp,
        40,
    )
    states, logs = run({})
    changes, innovations = logs.learner.trigger_statistic[1:], logs.learner.innovation_norm[1:] ** 2
    assert 0 < np.median(changes) < 0.1 * np.median(innovations)
    assert logs.sent[1:].any()
    assert not logs.sent[1:].all()
    np.testing.assert_allclose(states.controller.aggregate, states.learners.memory.uploaded.sum(1), atol=TOLERANCE)


# ---------------------------------------------------------------- everywhere the same


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.PRESETS)
def test_every_method_is_the_same_behind_a_wire(problem, setting, name):
    """Oracle: the plain loop over encoded messages: decisions and bits equal, θ up to the order of summation."""
    own = {"local": Part(optimiser=Part("sgd", step_size=STEP), epochs=1, minibatches=1)}
    own = own if methods.PRESETS[name].local.name == "optimise" else {}
    recipe = functools.partial(methods.compose, name, setting, optimiser=Part("sgd", step_size=STEP), **own)
    state, log = sequential(lambda hyper: recipe(), problem, {}, 0, ROUNDS)
    states, logs = player(lambda hyper: recipe(), problem, ROUNDS)({})
    np.testing.assert_array_equal(logs.sent, log.sent)
    np.testing.assert_array_equal(logs.uplink_bits, log.uplink_bits)
    np.testing.assert_allclose(states.controller.params[-1], state.controller.params, atol=1e-9)


def test_every_method_is_built_by_name():
    """Oracle: the table of methods; what a compressor named by the user makes of a vector replaces the method's own."""
    for name in methods.PRESETS:
        part = {"compressor": Part("qsgd", levels=1), "rollout": Part("episodes")}
        part |= {"local": Part(optimiser=Part("adamw"))} if name == "muloco" else {}  # there are no matrices
        config = Config(problem=Part("quadratic"), estimator=Part("noisy"), method=name, batch_size=4, **part)
        built = build(config)
        method = built.recipe({key: float(value) for key, value in built.hyper.items()})
        message = method.compressor.compress(jax.random.key(0), jnp.arange(20.0))
        message = message.message if isinstance(message, Weighted) else message
        assert set(np.unique(message.codes)) <= {-1, 0, 1}, name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: methods.compose("fedsvrpg_m", s, optimiser=Part("adam")), "needs plain steps of one size, optimiser sgd without momentum and decay"),
        (lambda s: methods.compose("fedsvrpg_m", s, optimiser=Part("sgd", step_size=0.1), variance_reduction=Part(weight=0.0)), r"variance_reduction.weight must lie in \(0, 1\], got 0.0"),
        (lambda s: methods.compose("clag", s, optimiser=Part("sgd", step_size=0.1), trigger=Part(weight=-1.0)), r"trigger.weight must be >= 0, got -1.0"),
        (lambda s: methods.compose("lag_ps", s, optimiser=Part("sgd", step_size=0.1), trigger=Part(measure=Part(smoothness=-1.0))), r"trigger.measure.smoothness must be >= 0"),
        (lambda s: methods.compose("lasg_wk2", s, optimiser=Part("sgd", step_size=0.1), trigger=Part(measure=Part(min_effective=2.0))), r"trigger.measure.min_effective must lie in \[0, 1\]"),
        (lambda s: methods.compose("lasg_wk1", s, optimiser=Part("sgd", step_size=0.1), trigger=Part(measure=Part(period=0))), r"trigger.measure.period must be >= 1"),
        (lambda s: methods.compose("laq", s, optimiser=Part("sgd", step_size=0.1), trigger=Part(xi=(0.1, 0.2), window=10)), r"trigger.xi must have 1 or window=10 entries, got 2"),
        (
            lambda s: methods.compose("dasha", s, compressor=Part("sign")),
            "needs a memory that keeps what it leaves out",
        ),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(setting, make, message, unchecked):
    """Oracle: the docstrings."""
    with pytest.raises(ValueError, match=message):
        make(setting)
