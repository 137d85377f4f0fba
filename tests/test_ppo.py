"""PPO: advantages, the clipped surrogate, its critic and its limits, each beside NumPy; the learners' mean; first runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lapg import Config, Part, estimators, local, train
from lapg.controller import heavy_ball, on_arrivals
from lapg.estimators.critics import make_critic
from lapg.experiments.build import build
from lapg.experiments.config import EvaluationConfig
from lapg.methods.optimisers import mean
from lapg.policies import gaussian_mlp, product, replicated, softmax_mlp
from lapg.policies.networks import Network
from lapg.rounds import initialise, next_batch, play_round
from lapg.types import REPLY, Broadcast, Trajectories, address
from support import four_states

DISCOUNT, DECAY, CLIP = 0.9, 0.8, 0.2
RNG = np.random.default_rng(7)
STATES, FOLLOWING = RNG.integers(0, 4, (2, 6)), RNG.integers(0, 4, (2, 6))
ACTIONS, LOSSES = RNG.integers(0, 2, (2, 6)), RNG.normal(size=(2, 6))
TERMINATED = np.zeros((2, 6), bool)
TRUNCATED = np.zeros((2, 6), bool)
TERMINATED[0, 2], TRUNCATED[1, 3] = True, True
CRITIC = RNG.normal(size=4)
BEHAVIOUR = 0.5 * RNG.normal(size=(4, 2))
ELSEWHERE = BEHAVIOUR + 0.4 * RNG.normal(size=(4, 2))  # far enough for some ratios to be clipped


def log_softmax(theta):
    return theta - np.log(np.exp(theta).sum(1, keepdims=True))


def log_probs(theta):
    return log_softmax(theta)[STATES, ACTIONS]


def advantages(bootstrap=True):
    """Â by the double sum, per piece of an episode."""
    nothing = TERMINATED if bootstrap else TERMINATED | TRUNCATED
    errors = LOSSES + DISCOUNT * np.where(nothing, 0, CRITIC[FOLLOWING]) - CRITIC[STATES]
    found = np.zeros((2, 6))
    for n in range(2):
        for t in range(6):
            for u in range(t, 6):
                found[n, t] += (DISCOUNT * DECAY) ** (u - t) * errors[n, u]
                if TERMINATED[n, u] or TRUNCATED[n, u]:
                    break
    return found


@pytest.fixture(scope="module")
def chain():
    """A problem of four states and two actions, and a batch of segments in it."""
    problem = four_states(DISCOUNT)
    arrays = [STATES.astype(np.int32), ACTIONS.astype(np.int32), log_probs(BEHAVIOUR), LOSSES, np.ones((2, 6), bool)]
    arrays += [TERMINATED, TRUNCATED, FOLLOWING.astype(np.int32)]
    return problem, jax.tree.map(lambda leaf: leaf[0], problem.tasks), Trajectories(*map(jnp.asarray, arrays))


TABLE = Network(lambda key: jnp.asarray(CRITIC), lambda weights, state, time: weights[state], 4)
PLAIN = {"critic": TABLE, "trace_decay": DECAY, "standardise_values": False, "critic_minibatches": 1}


def ppo(problem, **options):
    return estimators.ppo(problem.policy, DISCOUNT, problem, 2, **PLAIN | options)


def prepared(chain, **options):
    problem, task, batch = chain
    estimator = ppo(problem, **options)
    state = estimator.update(estimator.init(jax.random.key(0), jnp.zeros(8)), task, batch)
    return estimator, state, task, estimator.prepare(state, task, jnp.zeros(8), batch)


@pytest.mark.parametrize("bootstrap", [True, False])
def test_advantages_by_the_double_sum(chain, bootstrap):
    """Oracle: NumPy; the critic is the one before the batch, and cut-off episodes have a future only if asked for."""
    _, _, _, steps = prepared(chain, bootstrap=bootstrap)
    np.testing.assert_allclose(steps.advantages[:, 0], advantages(bootstrap).ravel(), atol=1e-12)


def test_critic_goes_to_the_mean_of_the_returns(chain):
    """Oracle: means of V(s) + Â over the visits to s."""
    _, state, _, _ = prepared(chain, critic_step_size=0.05, critic_epochs=1000)
    returns = CRITIC[STATES] + advantages()
    visited = np.unique(STATES)
    np.testing.assert_allclose(
        np.asarray(state.fitted)[visited], [returns[s == STATES].mean() for s in visited], atol=1e-3
    )


@pytest.mark.parametrize("normalise", ["minibatch", "batch", "none"])
def test_surrogate_by_hand(chain, normalise):
    """Oracle: NumPy, value and gradient of the clipped surrogate of some steps, at θ where they were sampled and elsewhere, and k3."""
    estimator, state, task, steps = prepared(chain, normalise=normalise)
    rows = np.array([0, 3, 4, 7, 9, 11])
    part = estimator.part(steps, jnp.asarray(rows))
    found = advantages().ravel()
    if normalise == "batch":
        found = (found - found.mean()) / found.std()
    found = found[rows]
    if normalise == "minibatch":
        found = (found - found.mean()) / found.std()
    clipped = 0
    for theta in (BEHAVIOUR, ELSEWHERE):
        ratios = np.exp(log_probs(theta) - log_probs(BEHAVIOUR)).ravel()[rows]
        expected = np.zeros((4, 2))
        for ratio, better, state_, action in zip(
            ratios, found, STATES.ravel()[rows], ACTIONS.ravel()[rows], strict=True
        ):
            if ratio * better >= np.clip(ratio, 1 - CLIP, 1 + CLIP) * better:
                score = -np.exp(log_softmax(theta))[state_]
                score[action] += 1
                expected[state_] += ratio * better * score / rows.size
            else:
                clipped += 1
        estimate = estimator.estimate(state, task, jnp.asarray(theta.ravel()), part)
        np.testing.assert_allclose(estimate.gradient, expected.ravel(), atol=1e-7)
        np.testing.assert_allclose(estimate.divergence, np.mean(ratios - 1 - np.log(ratios)), atol=1e-12)
        np.testing.assert_allclose(estimate.effective_samples, ratios.sum() ** 2 / (ratios**2).sum(), rtol=1e-12)
    assert clipped > 0
    assert estimate.noise is None


def test_entropy_bonus(chain):
    """Oracle: the gradient of −0.3 times the mean entropy in NumPy, by differences."""
    estimator, state, task, steps = prepared(chain, entropy=0.3)
    plain = ppo(chain[0])
    theta = jnp.asarray(ELSEWHERE.ravel())
    bonus = estimator.estimate(state, task, theta, steps).gradient - plain.estimate(state, task, theta, steps).gradient

    def entropy(theta):
        logs = log_softmax(theta.reshape(4, 2))
        return -0.3 * np.mean(-(np.exp(logs) * logs).sum(1)[STATES])

    flat, eps = ELSEWHERE.ravel(), 1e-6
    expected = [(entropy(flat + eps * unit) - entropy(flat - eps * unit)) / (2 * eps) for unit in np.eye(8)]
    np.testing.assert_allclose(bonus, expected, atol=1e-8)


def test_entropies():
    """Oracle: Σ −p log p, ½ log(2πe σ²), sums over agents."""
    categorical, normal = softmax_mlp(3, (4,), 5), gaussian_mlp(3, (4,), 2, std=0.3, learned_std=True)
    key, seen = jax.random.key(0), jnp.array([0.1, -0.2, 0.3])
    theta, other = categorical.init(key), normal.init(key)
    probabilities = np.exp([categorical.log_prob(theta, seen, jnp.int32(action)) for action in range(5)])
    of_choice, of_normal = -np.sum(probabilities * np.log(probabilities)), 2 * 0.5 * np.log(2 * np.pi * np.e * 0.09)
    np.testing.assert_allclose(categorical.entropy(theta, seen), of_choice, rtol=1e-10)
    np.testing.assert_allclose(normal.entropy(other, seen), of_normal, rtol=1e-10)
    both = product([categorical, normal])
    np.testing.assert_allclose(both.entropy(jnp.append(theta, other), (seen, seen)), of_choice + of_normal, rtol=1e-10)
    twice = replicated(categorical, 2)
    np.testing.assert_allclose(twice.entropy(jnp.append(theta, theta), seen), 2 * of_choice, rtol=1e-10)


def test_group_advantages():
    """Oracle: (episode's loss − mean)/std, the same at all steps; no critic."""
    problem = build(
        Config(
            method="ppo",
            problem=Part("cart_pole", num_learners=1, num_steps=12),
            rollout=Part("episodes"),
            batch_size=4,
        )
    ).problem
    estimator = estimators.ppo(problem.policy, DISCOUNT, problem, 4, advantages="group", normalise="none")
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    batch = problem.sample(jax.random.key(0), task, problem.init(jax.random.key(1)), 4)
    batch = dataclasses.replace(batch, losses=jnp.asarray(RNG.normal(size=(4, 12))))
    assert estimator.init(jax.random.key(0), jnp.zeros(3)) == ()
    totals = np.asarray(batch.losses) @ DISCOUNT ** np.arange(12)
    expected = np.repeat((totals - totals.mean()) / totals.std(), 12)
    np.testing.assert_allclose(estimator.prepare((), task, jnp.zeros(8), batch).advantages[:, 0], expected, atol=1e-6)


def test_rewards_of_any_size(chain):
    """Oracle: with values in units of the returns, losses 1,000 times as large leave normalised advantages and the critic's weights as they are."""
    problem, task, batch = chain
    found = []
    for size in (1.0, 1000.0):
        estimator = ppo(problem, standardise_values=True, normalise="batch", critic_step_size=0.01)
        state = estimator.init(jax.random.key(0), jnp.zeros(8))
        large = dataclasses.replace(batch, losses=size * batch.losses)
        state = dataclasses.replace(state, fitted=jnp.zeros(4))
        for _ in range(3):
            state = estimator.update(state, task, large)
        found.append(
            (
                state.fitted,
                estimator.prepare(state, task, jnp.zeros(8), large).advantages,
                state.fitted_units.std / size,
            )
        )
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_units_of_all_targets_so_far():
    """Oracle: NumPy's mean and variance of both batches together, without what is masked."""
    learned = make_critic("ppo", TABLE, step_size=0.1, num_steps=1, trace_decay=1.0, standardise=True)
    state, targets, mask = (
        learned.init(jax.random.key(0)),
        RNG.normal(3, 2, (2, 2, 6)),
        RNG.uniform(size=(2, 2, 6)) > 0.3,
    )
    for some, counts in zip(targets, mask, strict=True):
        state = learned.fit(state, jnp.asarray(STATES), jnp.zeros(6), jnp.asarray(some), jnp.asarray(counts))
    units = state.fitted_units
    np.testing.assert_allclose(
        [units.mean, units.variance, units.count], [targets[mask].mean(), targets[mask].var(), mask.sum()]
    )


def test_a_broken_fit_is_dropped(chain):
    """Oracle: a NaN loss leaves the critic as it was; the learner's gradient says so itself."""
    problem, task, batch = chain
    estimator = ppo(problem)
    state = estimator.init(jax.random.key(0), jnp.zeros(8))
    broken = dataclasses.replace(batch, losses=batch.losses.at[0, 0].set(jnp.nan))
    after = estimator.update(state, task, broken)
    np.testing.assert_array_equal(after.fitted, state.fitted)
    gradient = estimator.estimate(
        after, task, jnp.zeros(8), estimator.prepare(after, task, jnp.zeros(8), broken)
    ).gradient
    assert not np.isfinite(gradient).any()


def test_value_clipping():
    """Oracle: an answer that has moved further than the clip, towards its target, is not pulled on: it stops within a step of the clip."""
    one = Network(lambda key: jnp.zeros(1), lambda weights, state, time: weights[0], 1)
    learned = make_critic("ppo", one, step_size=0.01, num_steps=200, trace_decay=1.0, value_clip=0.3)
    ones = jnp.ones((1, 4))
    state = learned.fit(learned.init(jax.random.key(0)), ones, jnp.zeros(4), 5 * ones, ones > 0)
    assert 0.3 <= float(state.fitted[0]) < 0.5  # Adam's momentum carries it over


def test_steps_end_at_the_target_divergence(chain):
    """Oracle: the loop by hand, which stops before the first step whose minibatch is 1.5 times the target away."""
    estimator, state, task, steps = prepared(chain)
    start, num = jnp.asarray(BEHAVIOUR.ravel()), 12

    def gradient_at(theta, rows=None):
        return estimator.estimate(state, task, theta, steps if rows is None else estimator.part(steps, rows))

    key, target = jax.random.key(3), 0.002
    own = local.optimise(optax.sgd(0.3), 5, 2, target_kl=target)
    _, increment = own.walk(key, own.init(start), start, gradient_at(start), gradient_at, num)
    theta, taken = start, 0
    for each in jax.random.split(key, 5):
        for rows in jax.random.permutation(each, num).reshape(2, -1):
            found = gradient_at(theta, rows)
            if found.divergence > 1.5 * target:
                break
            theta, taken = theta - 0.3 * found.gradient, taken + 1
        else:
            continue
        break
    assert 1 <= taken < 10
    np.testing.assert_allclose(increment.gradient, start - theta, atol=1e-12)


def test_one_epoch_is_a2c(chain):
    """Oracle: at θ where it sampled, one plain step of the whole batch is minus the mean of Â ∇log π."""
    estimator, state, task, steps = prepared(chain, normalise="none")
    start = jnp.asarray(BEHAVIOUR.ravel())
    own = local.optimise(optax.sgd(0.1))
    at = lambda theta, rows=None: estimator.estimate(state, task, theta, steps)  # noqa: E731
    _, increment = own.walk(jax.random.key(0), own.init(start), start, at(start), at, 12)
    expected = np.zeros((4, 2))
    for state_, action, better in zip(STATES.ravel(), ACTIONS.ravel(), advantages().ravel(), strict=True):
        expected[state_] -= better * np.exp(log_softmax(BEHAVIOUR))[state_] / 12
        expected[state_, action] += better / 12
    np.testing.assert_allclose(increment.gradient, 0.1 * expected.ravel(), atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_outer_steps_are_those_of_arrivals(nesterov):
    """Oracle: momentum in NumPy over the rounds in which somebody uploaded; the others change nothing."""
    outer = on_arrivals(mean(0.7, momentum=0.9, nesterov=nesterov, num_learners=4))
    theta, state = jnp.zeros(3), outer.init(jnp.zeros(3))
    expected, velocity = np.zeros(3), np.zeros(3)
    for k in range(6):
        total, sent = jnp.asarray(RNG.normal(size=3)), jnp.asarray([False, k % 3 == 0])
        change, state = outer.update(total * sent.any(), state, theta, sent=sent, lengths=())
        theta = theta + change
        if k % 3 == 0:
            velocity = 0.9 * velocity + np.asarray(total)
            expected -= 0.7 / 4 * (np.asarray(total) + 0.9 * velocity if nesterov else velocity)
        np.testing.assert_allclose(theta, expected, atol=1e-12)


@pytest.mark.parametrize("learners", [1, 3])
def test_a_round_of_everybody_is_the_mean_of_their_ways(learners):
    """Oracle: the learners' own functions, one after the other: θ¹ = θ⁰ − mean of the displacements; with one learner θ¹ is where PPO has led it."""
    config = Config(method="ppo", problem=Part("cart_pole", num_learners=learners), rounds=1, seeds=1, batch_size=2)
    config = config.but(rollout=Part(num_steps=16), local=Part(epochs=2), estimator=Part(critic_epochs=2))
    problem, recipe, hyper = build(config)
    method = recipe({name: float(value) for name, value in hyper.items()})
    root = jax.random.key(0)
    start = initialise(method, problem, root)
    after, log = jax.jit(lambda start: play_round(method, problem, root, start))(start)
    assert np.all(log.sent)
    broadcast, held = Broadcast(jnp.int32(0), start.controller.params, ()), []
    for m in range(learners):
        task, learner = jax.tree.map(lambda leaf, m=m: leaf[m], (problem.tasks, start.learners))
        _, batch = next_batch(problem, root, task, learner.rollout, broadcast.params, jnp.int32(0), 2)
        learner = dataclasses.replace(learner, rollout=())
        reply = method.learner.reply(address(root, REPLY, m, jnp.int32(0)), task, learner, broadcast, batch)
        held.append(np.asarray(reply[1].message))
    np.testing.assert_allclose(after.controller.params, start.controller.params - np.mean(held, 0), atol=1e-10)
    assert np.linalg.norm(np.mean(held, 0)) > 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local": Part(minibatches=3)}, r"local.minibatches must divide the 32 steps of a batch \(batch_size times those of a row\), got 3"),
        ({"local": Part(minibatches=32)}, r"local.minibatches must leave >= 2 of the 32 steps of a batch .* got 32: advantages are normalised there"),
        ({"local": Part(epochs=0)}, r"local.epochs must be a whole number >= 1, got 0"),
        ({"local": Part(target_kl=-1.0)}, r"local.target_kl must be > 0, got -1.0"),
        ({"local": Part(max_norm=0.0)}, r"local.max_norm must be > 0, got 0.0"),
        ({"local": Part(optimiser=Part(step_size=-0.1))}, r"local.optimiser.step_size must be > 0, got -0.1; a negative one goes uphill"),
        ({"optimiser": Part(step_size=-1.0)}, r"optimiser.step_size must be > 0, got -1.0"),
        ({"estimator": Part(clip=0.0)}, r"estimator.clip must be > 0, got 0.0"),
        ({"estimator": Part(critic_epochs=0)}, r"estimator.critic_epochs must be > 0, got 0"),
        ({"estimator": Part(critic_max_norm=-1.0)}, r"estimator.critic_max_norm must be > 0, got -1.0"),
        ({"estimator": Part(entropy=-0.1)}, r"estimator.entropy must be >= 0, got -0.1"),
        ({"estimator": Part(critic_minibatches=5)}, r"estimator.critic_minibatches must divide the 32 steps of a batch"),
        ({"estimator": Part(advantages="group")}, r"estimator.advantages must be 'gae' where rows are segments"),
        ({"estimator": Part(advantages="group"), "rollout": Part("episodes"), "batch_size": 1}, r"batch_size must be >= 2 for advantages 'group', got 1"),
        ({"estimator": Part(trace_decay=1.5)}, r"estimator.trace_decay must lie in \[0, 1\], got 1.5"),
        ({"estimator": Part("actor_critic", finite_horizon=False), "local": Part(target_kl=0.1, minibatches=1)}, r"local.target_kl needs an estimator that provides the divergence"),
        ({"trigger": Part("lazy")}, r"trigger must not need the noise of displacements"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(change, message):
    """Oracle: one line with the setting as it was typed, its rule and its value."""
    config = Config(method="ppo", problem=Part("cart_pole", num_learners=2), rounds=2, seeds=1, batch_size=2)
    config = config.but(rollout=Part(num_steps=16))
    with pytest.raises(ValueError, match=message):
        build(config.but(**change))


def test_ppo_learns_with_defaults(tmp_path):
    """Oracle: 475 of 500 steps on cart pole, learners alike, within 38,400 steps, where a random policy lives about 22."""
    config = Config(
        method="ppo",
        problem=Part("cart_pole", num_learners=1),
        rounds=31,
        seeds=1,
        evaluation=EvaluationConfig(every=5, episodes=4),
    )
    run = train(config, tmp_path / "run", show_progress=False)
    scores = run.record["return_raw"].mean("learner")[0].dropna("round").values
    assert scores[0] < 60
    assert scores[-3:].mean() > 475


def test_heavy_ball_of_the_mean():
    """Oracle: plain steps of size 1/M."""
    one, other = mean(num_learners=5), heavy_ball(0.2)
    total = jnp.arange(3.0)
    np.testing.assert_allclose(one.update(total, one.init(total))[0], other.update(total, other.init(total))[0])
