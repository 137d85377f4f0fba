"""The learner's own steps as a part: local steps on Figure 4, an optimiser with epochs and minibatches, limits and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lapg import estimators, local, methods
from lapg.controller import heavy_ball
from lapg.learner import make_learner
from lapg.methods import Part, make
from lapg.methods.optimisers import muon
from lapg.policies import conv, replicated, softmax_table, with_policy
from lapg.problems import cooperative_navigation, quadratic
from lapg.rounds import sample_batch
from lapg.types import REPLY, Box, Broadcast, Estimate, Spaces, address
from lapg.uplink import compressors, memories, triggers, variance_reduction
from support import player

LEARNERS, BATCH = 3, 4


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=5, scales=(1.0, 0.5, 0.2), noise=0.5)


@pytest.fixture(scope="module")
def setting(problem):
    return methods.Setting(estimators.noisy(problem.gradient), BATCH, LEARNERS)


def test_looking_ahead_on_figure_4():
    """Oracle: scout in NumPy from its docstrings, gradients measured where it stands: the same uploads, θ within 1e-12, over 50 rounds of Figure 4."""
    rounds, step, kappa, num = 50, 0.002, 4.0, 10
    problem = with_policy(cooperative_navigation(num_agents=2, scales=(1.0, 0.5)), hidden=(30, 10))
    estimator = estimators.gpomdp(problem.policy, problem.discount)
    setting = methods.Setting(estimator, num, 2)
    recipe = lambda hyper: methods.compose(  # noqa: E731
        "scout",
        setting,
        compressor=Part("identity"),
        optimiser=Part("sgd", step_size=step),
        trigger=Part(threshold=kappa),
    )
    states, logs = player(recipe, problem, rounds)({})
    root = jax.random.key(0)

    @jax.jit
    def measure(k, thetas):
        def one(task, theta):
            return estimator.estimate((), task, theta, sample_batch(problem, root, task, theta, k, 0, num)).gradient

        return jax.vmap(one)(problem.tasks, thetas)

    theta, order = states.controller.params[0], np.arange(1, 3) * (5**0.5 - 1) / 2 % 1
    held, reports = np.zeros((2, theta.size)), np.zeros(2)
    ages, total, count, uploaded = np.ones(2), np.zeros(2), np.zeros(2), np.zeros(2, bool)
    sent_ever = 0
    for k in range(rounds):
        gradients = np.asarray(measure(np.int32(k), theta - step * held))
        held, total, count = held + gradients, total + np.linalg.norm(gradients, axis=1), count + 1
        scale = np.where(uploaded, reports.sum(), np.maximum(reports.sum(), 2 * total / count * order))
        sent = ages * np.linalg.norm(held, axis=1) > kappa * scale
        np.testing.assert_array_equal(logs.sent[k], sent, err_msg=f"round {k}")
        theta = theta - step * held[sent].sum(0)
        np.testing.assert_allclose(states.controller.params[k + 1], theta, rtol=0, atol=1e-12)
        reports, held = np.where(sent, total / count, reports), np.where(sent[:, None], 0, held)
        total, count, ages = np.where(sent, 0, total), np.where(sent, 0, count), np.where(sent, 1, ages + 1)
        uploaded, sent_ever = uploaded | sent, sent_ever + sent.sum()
    assert 10 < sent_ever < 80


def test_an_optimiser_of_its_own(problem, setting):
    """Oracle: Adam in NumPy, two shuffled epochs of two minibatches a round from θ^k − E, its moments kept through skipped rounds and uploads."""
    rounds, rate, epochs, parts = 7, 0.1, 2, 2
    own = local.optimise(optax.adam(rate), epochs, parts)
    recipe = lambda hyper: methods.assemble(  # noqa: E731
        setting,
        memory=memories.accumulator(),
        trigger=triggers.periodic(3),
        optimiser=heavy_ball(1 / LEARNERS),
        local=own,
    )
    states, logs = player(recipe, problem, rounds)({})
    root, tasks = jax.random.key(0), jax.tree.map(np.asarray, problem.tasks)
    theta, held = states.controller.params[0], np.zeros((LEARNERS, 5))
    first, second, steps = np.zeros((LEARNERS, 5)), np.zeros((LEARNERS, 5)), 0
    for k in range(rounds):
        for m in range(LEARNERS):
            task = jax.tree.map(lambda leaf, m=m: leaf[m], problem.tasks)
            noise = np.asarray(sample_batch(problem, root, task, jnp.asarray(theta), k, 0, BATCH)["noise"])
            key = jax.random.split(address(root, REPLY, m, k), 3)[2]
            at = theta - held[m]
            for i, each in enumerate(jax.random.split(key, epochs)):
                for j, rows in enumerate(np.asarray(jax.random.permutation(each, BATCH)).reshape(parts, -1)):
                    slope = tasks.scale[m] * tasks.extra["curvature"][m] * (at - tasks.extra["centre"][m])
                    gradient, time = slope + noise[rows].mean(0), steps + i * parts + j + 1
                    first[m] = 0.9 * first[m] + 0.1 * gradient
                    second[m] = 0.999 * second[m] + 0.001 * gradient**2
                    scale = np.sqrt(second[m] / (1 - 0.999**time)) + 1e-8
                    at = at - rate * first[m] / (1 - 0.9**time) / scale
            held[m] = theta - at
        steps += epochs * parts
        if k % 3 == 2:
            np.testing.assert_array_equal(logs.sent[k], True)
            theta, held = theta - held.mean(0), np.zeros_like(held)
        np.testing.assert_allclose(states.learners.memory.value[k + 1], held, atol=1e-12)
        np.testing.assert_allclose(states.controller.params[k + 1], theta, atol=1e-12)


def test_one_plain_step_of_its_own_is_looking_ahead(problem, setting):
    """Oracle: the limit optimise(sgd(α), 1, 1), in displacements with outer step 1, is sgd(α), in gradients with outer step α."""
    step, made = 0.05, {}
    for name, own, outer in (("own", local.optimise(optax.sgd(step)), 1.0), ("sgd", local.sgd(step), step)):
        recipe = lambda hyper, own=own, outer=outer: methods.assemble(  # noqa: E731
            setting, memory=memories.accumulator(), trigger=triggers.random(0.4), optimiser=heavy_ball(outer), local=own
        )
        made[name] = player(recipe, problem, 20)({})
    (one, log), (other, other_log) = made.values()
    np.testing.assert_array_equal(log.sent, other_log.sent)
    assert not log.sent.all()
    np.testing.assert_allclose(one.controller.params, other.controller.params, atol=1e-12)
    np.testing.assert_allclose(one.learners.memory.value, step * other.learners.memory.value, atol=1e-12)


def test_adam_outside_counts_arrivals():
    """Oracle: Adam in NumPy over the rounds in which somebody uploads, its moments and its count untouched by the others; optax's would decay in those."""
    problem, step, rate = quadratic(num_learners=LEARNERS, dimension=5, scales=(1.0, 0.5, 0.2)), 0.05, 0.02
    setting = methods.Setting(estimators.exact(problem.gradient), BATCH, LEARNERS)
    own, coin = Part("optimise", optimiser=Part("sgd", step_size=step)), Part("random", rate=0.2)
    recipe = lambda hyper: methods.compose(  # noqa: E731
        "random", setting, local=own, trigger=coin, optimiser=Part("adam", step_size=rate)
    )
    states, logs = player(recipe, problem, 40)({})
    tasks = jax.tree.map(np.asarray, problem.tasks)
    theta, way = states.controller.params[0], np.zeros((LEARNERS, 5))
    first, second, count = np.zeros(5), np.zeros(5), 0
    for k, sent in enumerate(logs.sent):
        slope = tasks.scale[:, None] * tasks.extra["curvature"] * (theta - way - tasks.extra["centre"])
        way = way + step * slope
        if sent.any():
            total, count = way[sent].sum(0), count + 1
            first, second = 0.9 * first + 0.1 * total, 0.999 * second + 0.001 * total**2
            scale = np.sqrt(second / (1 - 0.999**count)) + 1e-8
            theta = theta - rate * first / (1 - 0.9**count) / scale
            way[sent] = 0
        np.testing.assert_allclose(states.controller.params[k + 1], theta, atol=1e-12)
    assert 10 < count < 30


def test_control_variates_lead_to_the_optimum():
    """Oracle: Scaffnew (arXiv 2202.09357, Algorithm 2) in NumPy, coin by coin; and the minimum of the sum in closed form, which local steps alone miss."""
    problem = quadratic(num_learners=LEARNERS, dimension=5, conditioning=4.0, scales=(1.0, 0.5, 0.2))
    rounds, step, rate = 900, 0.2, 0.25
    exact = methods.Setting(estimators.exact(problem.gradient), BATCH, LEARNERS)
    ends = {}
    for corrects in (True, False):
        recipe = lambda hyper, corrects=corrects: methods.compose(  # noqa: E731
            "periodic",
            exact,
            optimiser=Part("mean"),
            local=Part("optimise", optimiser=Part("sgd", step_size=step), control_variates=corrects),
            trigger=Part("random", rate=rate, shared=True),
        )
        states, logs = player(recipe, problem, rounds)({})
        np.testing.assert_array_equal(logs.sent.all(1), logs.sent.any(1))
        assert abs(logs.sent[:, 0].mean() - rate) < 4 * (rate * (1 - rate) / rounds) ** 0.5
        ends[corrects] = states.controller.params[1:][logs.sent[:, 0]][-1]
        if corrects:
            thetas, coins = states.controller.params, logs.sent[:, 0]
    tasks = jax.tree.map(np.asarray, problem.tasks)
    slopes = tasks.scale[:, None] * tasks.extra["curvature"]
    models, shifts = np.tile(thetas[0], (LEARNERS, 1)), np.zeros((LEARNERS, 5))
    for k in range(100):
        there = models - step * (slopes * (models - tasks.extra["centre"]) - shifts)
        models = np.tile(there.mean(0), (LEARNERS, 1)) if coins[k] else there
        shifts = shifts + rate / step * (models - there)
        if coins[k]:
            np.testing.assert_allclose(thetas[k + 1], models[0], atol=1e-12)
    best = (slopes * tasks.extra["centre"]).sum(0) / slopes.sum(0)
    np.testing.assert_allclose(ends[True], best, atol=1e-6)
    assert np.abs(ends[False] - best).max() > 1e-2


def orthogonal(matrix, steps=5):
    """Newton-Schulz as Muon has it."""
    found = matrix / (np.linalg.norm(matrix) + 1e-8)
    if tall := found.shape[0] > found.shape[1]:
        found = found.T
    for _ in range(steps):
        square = found @ found.T
        found = 3.4445 * found + (-4.775 * square + 2.0315 * square @ square) @ found
    return found.T if tall else found


@pytest.mark.parametrize("num_agents", [1, 2])
def test_muon_sees_matrices(num_agents):
    """Oracle: NumPy: Nesterov momentum, Newton-Schulz and its scale for each weight matrix, one of an image's filters among them, Adam for biases and log stds."""
    spaces = Spaces(Box((4, 4, 1)), Box((2,)))
    policy = replicated(conv(spaces, channels=(3,), hidden=(5,), learned_std=True), num_agents)
    rate, beta, blocks = 0.01, 0.95, [(9, 3), 3, (12, 5), 5, (5, 2), 2, 2] * num_agents
    optimiser = make("optimiser", Part("muon", step_size=rate), {"num_learners": 1, "policy": policy})
    sizes = [int(np.prod(block)) for block in blocks]
    assert sum(sizes) == policy.num_params
    gradients = np.random.default_rng(3).normal(size=(3, policy.num_params))

    @jax.jit
    def play(gradients):
        def step(state, gradient):
            change, state = optimiser.update(gradient, state, gradient)
            return state, change

        return jax.lax.scan(step, optimiser.init(gradients[0]), gradients)[1]

    first, square = np.zeros((2, policy.num_params))
    second = first.copy()
    for t, (gradient, change) in enumerate(zip(gradients, play(gradients), strict=True), start=1):
        first, second = beta * first + (1 - beta) * gradient, 0.9 * second + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        ahead = beta * first / (1 - beta ** (t + 1)) + (1 - beta) * gradient / (1 - beta**t)
        adam = 0.9 * second / (1 - 0.9 ** (t + 1)) + 0.1 * gradient / (1 - 0.9**t)
        adam = adam / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        expected = []
        for block, a, b in zip(blocks, *(np.split(x, np.cumsum(sizes)[:-1]) for x in (ahead, adam)), strict=True):
            whole = b if isinstance(block, int) else orthogonal(a.reshape(block)) * 0.2 * max(block) ** 0.5
            expected.append(-rate * whole.ravel())
        np.testing.assert_allclose(change, np.concatenate(expected), rtol=1e-6, atol=1e-12)


def test_moments_of_a_broken_round_are_forgotten():
    """Oracle: a NaN gradient leaves memory and moments as they were; the next gradient counts one, and moves both."""
    estimator = estimators.stateless(
        lambda task, params, batch: Estimate(params * 0 + batch["value"].mean(), jnp.ones(()), jnp.ones(()))
    )
    own, trigger = local.optimise(optax.adam(0.1), epochs=2), triggers.never()
    learner = make_learner(estimator, memories.accumulator(), compressors.identity(), trigger, local=own)
    task, params = jax.tree.map(lambda leaf: leaf[0], quadratic(num_learners=1, dimension=2).tasks), jnp.ones(2)

    @jax.jit
    def reply(state, value):
        broadcast = Broadcast(jnp.int32(0), params, ())
        return learner.reply(jax.random.key(0), task, state, broadcast, {"value": value[None]})[0]

    start = learner.init(jax.random.key(0), jnp.int32(0), params)
    broken, sound = reply(start, jnp.asarray(jnp.nan)), reply(start, jnp.asarray(1.0))
    for part in ("local", "memory"):
        jax.tree.map(np.testing.assert_array_equal, getattr(broken, part), getattr(start, part))
    np.testing.assert_allclose(sound.memory.value, 0.2, rtol=1e-6)  # Adam on a constant gradient moves by its step size
    assert int(optax.tree_utils.tree_get(sound.local, "count")) == 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: local.sgd(-0.1), r"sgd\(step_size=...\) must be >= 0, got -0.1"),
        (lambda s: local.optimise(optax.sgd(0.1), 0), r"optimise\(epochs=...\) must be a whole number >= 1, got 0"),
        (
            lambda s: local.optimise(optax.sgd(0.1), control_rate=0.0),
            r"control_rate=...\) must lie in \(0, 1\], got 0.0",
        ),
        (
            lambda s: methods.compose("pg", s, local=Part("optimise", optimiser=Part("sgd"), control_variates=True)),
            r"local.control_variates needs a trigger with a rate or a period, got True",
        ),
        (
            lambda s: methods.compose("periodic", s, local=Part("optimise", optimiser=Part("muon"))),
            r"local.optimiser 'muon' needs a problem with a policy",
        ),
        (
            lambda s: muon(policy=softmax_table(2, 2)._replace(shapes=None)),
            r"muon\(policy=...\) must be a policy that says which entries make a matrix",
        ),
        (lambda s: walk(s, minibatches=3), r"minibatches must divide batch_size=4, got 3"),
        (
            lambda s: walk(s._replace(estimator=pairs(s)), minibatches=4),
            r"batch_size must be >= 2 .* in each of 4 mini",
        ),
        (lambda s: walk(s, memory=memories.lagged()), r"need a memory that holds back .* or local.stand\(\)"),
        (lambda s: walk(s, trigger=weighing()), r"trigger must not need the noise of displacements"),
        (
            lambda s: walk(s, epochs=2, reduction=variance_reduction.storm()),
            r"take 2 steps a batch",
        ),
    ],
)
def test_wrong_steps_are_refused(setting, build, message, unchecked):
    """Oracle: the docstrings; the message names the rule, the value and the remedy."""
    with pytest.raises(ValueError, match=message):
        build(setting)


def walk(setting, memory=None, trigger=None, reduction=None, **options):
    own = local.optimise(optax.sgd(0.1), **options)
    memory, trigger = memory or memories.accumulator(), trigger or triggers.always()
    parts = {"memory": memory, "trigger": trigger, "local": own, "variance_reduction": reduction}
    return methods.assemble(setting, optimiser=heavy_ball(0.1), **parts)


def pairs(setting):
    return setting.estimator._replace(minimum_batch=2)


def weighing():
    return triggers.lazy(jnp.ones(1), step_size=0.1, num_learners=LEARNERS)


def test_a_noise_that_nobody_knows(problem, setting):
    """Oracle: None is a noise without end to whoever does not look at it, and is refused by what does, or where the estimator claims to know it."""

    def estimate(task, params, batch):
        return dataclasses.replace(setting.estimator.estimate((), task, params, batch), noise=None)

    silent = setting._replace(estimator=estimators.stateless(estimate)._replace(knows_noise=False))
    with pytest.raises(
        ValueError, match=r"trigger must not need the noise of this estimator's gradients, got one that"
    ):
        methods.compose("lapg", silent, optimiser=Part("sgd", step_size=0.05))
    memory = memories.accumulator()._replace(needs_noise=True)
    with pytest.raises(ValueError, match=r"memory must not need the noise"):
        methods.assemble(silent, memory=memory, trigger=triggers.always(), optimiser=heavy_ball(0.05))
    plain = {"optimiser": Part("sgd", step_size=0.05), "trigger": Part(noise_weight=0.0)}
    (one, log), (other, _) = (
        player(lambda h, s=s: methods.compose("lapg", s, **plain), problem, 8)({}) for s in (silent, setting)
    )
    np.testing.assert_array_equal(one.controller.params, other.controller.params)
    assert np.isinf(log.learner.noise).all()
    claiming = setting._replace(estimator=estimators.stateless(estimate))
    with pytest.raises(
        ValueError, match=r"Estimator\(knows_noise=...\) must be False where estimate returns noise=None"
    ):
        player(lambda hyper: methods.compose("pg", claiming, optimiser=Part("sgd", step_size=0.05)), problem, 1)({})
