"""Segments of environments that go on: where they split and how they are stitched, what bootstraps, who moves, and what is refused."""

import itertools
from functools import partial

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, Part, estimators, methods
from lapg.experiments.build import build
from lapg.policies import softmax_mlp
from lapg.policies.networks import Network
from lapg.problems import tabular
from lapg.problems.builders import from_environment, make_tasks
from lapg.problems.gymnasium import gymnasium
from lapg.problems.hosting import Host, from_hosts
from lapg.rollouts import segments
from lapg.runtimes import Hosted, Vectorised
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.evaluation import Evaluation
from lapg.runtimes.host_env import sampler, to_batch
from lapg.types import Environment, Trajectories, Transition
from oracles import markov
from support import four_states, full

# ---------------------------------------------------------------- one life, cut into segments

LENGTH, LIMIT, SEGMENT, ROUNDS, SCALE, DISCOUNT = 3, 5, 4, 3, 0.5, 0.9
ENDINGS = ("terminated", "truncated", "limit")


def life(ending):
    """Plain Python: a counter over twelve steps that starts at 0, or at 0 again when it has ended; its loss is what it counts to."""
    rows, count, plain, discounted = [], 0, 0.0, 0.0
    for _ in range(SEGMENT * ROUNDS):
        before = count, plain, discounted
        plain, discounted = plain + SCALE * (count + 1), discounted + DISCOUNT**count * SCALE * (count + 1)
        ended = count + 1 == (LIMIT if ending == "limit" else LENGTH)
        rows.append(
            (count, count + 1, ended and ending == "terminated", ended and ending != "terminated", *before, plain)
        )
        count, plain, discounted = (0, 0.0, 0.0) if ended else (count + 1, plain, discounted)
    return np.array(rows, float).reshape(ROUNDS, SEGMENT, -1)


def counting(ending):
    def step(key, task, state, action):
        flags = {} if ending == "limit" else {ending: state + 1 >= LENGTH}
        return Transition(state + 1, state + 1, **flags)

    return Environment(lambda key, task: jnp.zeros(()), lambda state: state[None], step)


class Counter(gym.Env):
    """The same for Gymnasium."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(0, 9, (1,))

    def __init__(self, ending="terminated"):
        self.ending, self.seeds = ending, []

    def reset(self, *, seed=None, options=None):
        self.count = 0
        self.seeds.append(seed)
        return np.zeros(1), {}

    def step(self, action):
        self.count += 1
        over = self.ending != "limit" and self.count >= LENGTH
        flags = over and self.ending == "terminated", over and self.ending == "truncated"
        return np.full(1, self.count), -float(self.count), *flags, {}


def counter_that_restarts(ending="terminated"):
    return gym.wrappers.Autoreset(Counter(ending))


def three_segments(ending, where):
    """Batches of two rows, leading axis round, and the scores of each."""
    common = {"tasks": make_tasks(1, [SCALE]), "num_steps": LIMIT, "discount": DISCOUNT}
    policy = softmax_mlp(1, (2,), 2)
    if where == "inside":
        problem = from_environment(counting(ending), policy, **common)
    else:
        env = f"test_rollouts:{'Counter' if where == 'gymnasium' else 'counter_that_restarts'}"
        options = {"num_steps": LIMIT, "discount": DISCOUNT, "env_options": {"ending": ending}}
        problem = gymnasium(env=env, num_learners=1, scales=[SCALE], **options)
    rollout, theta = segments(problem, num_steps=SEGMENT), problem.init(jax.random.key(0))
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    keys = jax.random.split(jax.random.key(1), ROUNDS)
    if where == "inside":
        start = rollout.init(jax.random.key(2), task, 2)
        play = jax.jit(
            lambda: jax.lax.scan(lambda live, key: rollout.advance(key, task, live, theta, 2), start, keys)[1]
        )
        batches = play()
    else:
        play = sampler(problem, problem.policy, SEGMENT)
        rounds = [play(key[None], theta[None], 2, learners=[0], lane="a") for key in keys]
        problem.close()
        rounds = jax.tree.map(lambda *leaves: jnp.stack(leaves)[:, 0], *rounds)
        batches = jax.vmap(lambda one: to_batch(problem.policy, task, theta, one))(rounds)
    return batches, jax.vmap(lambda batch: rollout.score(task, batch))(batches)


@pytest.mark.parametrize(
    ("where", "ending"),
    [
        *(("inside", ending) for ending in ENDINGS),
        ("gymnasium", "truncated"),
        ("gymnasium", "limit"),
        ("restarting", "terminated"),
    ],
)
def test_segments_are_one_life_cut_up(where, ending):
    """Oracle: the counter's twelve steps in plain Python. Gymnasium's Autoreset, which would spend a step on a reset, never gets to it.

    Returns are those of the episodes that have ended in the segment, whole; NaN where none has.
    """
    batches, scores = three_segments(ending, where)
    now, after, terminated, truncated, steps, plain, discounted, total = life(ending).transpose(2, 0, 1)

    def both(expected):
        return np.repeat(expected[:, None], 2, 1)

    np.testing.assert_array_equal(batches.observations[..., 0], both(now))
    np.testing.assert_array_equal(batches.following[..., 0], both(after))
    np.testing.assert_array_equal(batches.terminated, both(terminated))
    np.testing.assert_array_equal(batches.truncated, both(truncated))
    np.testing.assert_allclose(batches.losses, SCALE * both(after))
    assert batches.mask.all()
    np.testing.assert_array_equal(batches.before.steps, both(steps[:, 0]))
    np.testing.assert_allclose(batches.before.losses, both(plain[:, 0]))
    np.testing.assert_allclose(batches.before.discounted, both(discounted[:, 0]), 1e-12)
    ended = (terminated + truncated).astype(bool)
    expected = [-row[over].mean() / SCALE if over.any() else np.nan for row, over in zip(total, ended, strict=True)]
    np.testing.assert_allclose(scores["return_raw"], expected)
    assert np.isnan(expected).any() == (ending == "limit")
    np.testing.assert_allclose(scores["score_scaled"], -SCALE * after.mean(1))


def test_episodes_that_begin_in_a_segment_have_seeds_of_their_own():
    """Oracle: NumPy's SeedSequence of the segment's seed, the environment and the step, as documented; equal seeds, equal episodes; lanes by themselves."""
    made = []

    def make():
        made.append(seeds := [])
        count = [0]

        def reset(seed):
            seeds.append(seed)
            count[0] = 0
            return np.zeros(1)

        def step(action):
            count[0] += 1
            return np.full(1, count[0]), 1.0, count[0] == 2, False

        return Host(reset, step)

    policy = softmax_mlp(1, (2,), 2)
    problem = from_hosts(
        "count", make, policy, tasks=make_tasks(1, None), num_steps=9, discount=1.0, observation=np.zeros(1)
    )

    def play(lane, seed):
        act = lambda seen, t: (np.zeros((1, 2), int),) * 2  # noqa: E731
        return problem.proceed(act, np.array([seed]), 2, learners=[0], lane=lane, num_steps=3)

    first = play("a", 5)
    assert [len(each) for each in made] == [2, 2]
    play("b", 5)
    second = play("a", 6)
    np.testing.assert_array_equal(first.terminated[0], [[False, True, False]] * 2)
    np.testing.assert_array_equal(second.terminated[0], [[True, False, True]] * 2)
    words = [np.random.SeedSequence([5, n, 2]).generate_state(1)[0] % 2**31 for n in range(2)]
    starts = np.random.SeedSequence(5).generate_state(2) % 2**31
    for n in range(2):
        assert made[n][:2] == [starts[n], words[n]] == made[2 + n]
        assert len(made[n]) == 4
    problem.close()
    assert play("a", 5).before.steps.tolist() == [[0, 0]]


# ---------------------------------------------------------------- gradients

STATES = np.array([[0, 1, 2, 0, 3, 1], [2, 2, 1, 0, 0, 3]])
FOLLOWING = np.array([[1, 3, 0, 2, 1, 2], [2, 1, 0, 3, 3, 1]])
ACTIONS = np.array([[0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0]])
LOSSES = np.array([[1.0, 2, 4, 3, 1, 2], [2, 5, 1, 3, 0, 1]])
TERMINATED = np.array([[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]], bool)
TRUNCATED = np.array([[0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]], bool)
CRITIC = np.array([0.5, 1.5, -2.0, 4.0])
BEHAVIOUR, ELSEWHERE = 0.5 * np.random.default_rng(3).normal(size=(2, 4, 2))
DECAY = 0.6


def pieces(row):
    """The steps of each episode in a row."""
    bounds = [0, *(np.flatnonzero(TERMINATED[row] | TRUNCATED[row]) + 1), 6]
    return [range(a, b) for a, b in itertools.pairwise(bounds) if a < b]


def advantages():
    """Σ_{t≥τ} (γλ)^{t−τ} δ_t within each piece by the double sum: V(following), but after a termination."""
    errors = LOSSES + DISCOUNT * np.where(TERMINATED, 0, CRITIC[FOLLOWING]) - CRITIC[STATES]
    found = np.zeros_like(LOSSES)
    for n in range(2):
        for piece in pieces(n):
            for tau in piece:
                found[n, tau] = sum((DISCOUNT * DECAY) ** (t - tau) * errors[n, t] for t in piece if t >= tau)
    return found, errors


def log_probs(theta):
    return np.log(markov.softmax(theta))[STATES, ACTIONS]


@pytest.fixture(scope="module")
def chain():
    """The estimator on segments of four states, its state, a task, and the two rows."""
    problem = four_states(DISCOUNT)
    critic = Network(lambda key: jnp.asarray(CRITIC), lambda weights, state, time: weights[state], 4)
    options = {"critic": critic, "finite_horizon": False, "trace_decay": DECAY, "critic_step_size": 0.05}
    estimator = estimators.actor_critic(problem.policy, DISCOUNT, problem, critic_steps=1000, **options)
    arrays = [STATES.astype(np.int32), ACTIONS.astype(np.int32), log_probs(BEHAVIOUR), LOSSES, np.ones((2, 6), bool)]
    arrays += [TERMINATED, TRUNCATED, FOLLOWING.astype(np.int32)]
    state = estimator.init(jax.random.key(0), jnp.zeros(8))
    return estimator, state, jax.tree.map(lambda leaf: leaf[0], problem.tasks), Trajectories(*map(jnp.asarray, arrays))


def test_gradient_of_pieces_by_hand(chain):
    """Oracle: NumPy, Σ_t w_t δ_t Σ_{τ≤t} λ^{t−τ} ∇log π(a_τ|s_τ) / N within each piece, weights from its first step; no γ^t; whole rows' effective number."""
    estimator, state, task, batch = chain
    found = jax.jit(lambda theta: estimator.estimate(state, task, theta.ravel(), batch))
    _, errors = advantages()
    for theta in (BEHAVIOUR, ELSEWHERE):
        steps, expected = log_probs(theta) - log_probs(BEHAVIOUR), np.zeros((4, 2))
        for n in range(2):
            for piece in pieces(n):
                for tau in piece:
                    score = np.zeros((4, 2))
                    score[STATES[n, tau]] -= markov.softmax(theta)[STATES[n, tau]]
                    score[STATES[n, tau], ACTIONS[n, tau]] += 1
                    for t in range(tau, piece.stop):
                        weight = np.exp(steps[n, piece.start : t + 1].sum())
                        expected += weight * DECAY ** (t - tau) * errors[n, t] * score / 2
        estimate = found(jnp.asarray(theta))
        np.testing.assert_allclose(estimate.gradient, expected.ravel(), 1e-11, 1e-14)
        whole = np.exp(steps.sum(1))
        np.testing.assert_allclose(estimate.effective_samples, whole.sum() ** 2 / np.sum(whole**2), 1e-12)


def test_regression_on_pieces_goes_to_the_mean_of_the_returns(chain):
    """Oracle: means of V(s) + Â_τ over the visits to s, by the double sum; 1,000 steps of Adam leave < 1e-3."""
    estimator, state, task, batch = chain
    fitted = jax.jit(lambda: estimator.update(state, task, batch))().fitted
    returns = CRITIC[STATES] + advantages()[0]
    np.testing.assert_allclose(fitted, [returns[s == STATES].mean() for s in range(4)], atol=1e-3)


RNG = np.random.default_rng(0)
TRANSITIONS, COSTS = RNG.dirichlet(np.ones(3), (3, 2)), RNG.uniform(0, 1, (1, 3, 2))
INITIAL, THETA = RNG.dirichlet(np.ones(3), 1), 0.5 * RNG.normal(size=6)


def test_segments_are_unbiased_with_the_exact_critic():
    """Oracle: Σ_t Σ_s P(s_t = s) Σ_a ∇π(a|s) Q(s, a) in NumPy, Q of the infinite horizon, 4 standard errors; episodes are cut off after 3 steps.

    The second segment of two holds the last step of the first episode and the first of the next: P(s_2), then ρ. Starting afresh would be
    P(s_0), P(s_1), which is distinguished.
    """
    gamma, rows = 0.8, 40_000
    problem = tabular(*map(jnp.asarray, (TRANSITIONS, COSTS, INITIAL)), num_steps=3, discount=gamma)
    probs = markov.softmax(THETA.reshape(3, 2))
    values = np.zeros(3)
    for _ in range(200):
        values = np.sum(probs * (COSTS[0] + gamma * TRANSITIONS @ values), -1)
    problem = problem._replace(rollouts=partial(segments, num_steps=2))
    rollout = problem.rollout
    critic = Network(lambda key: jnp.asarray(values), lambda weights, state, time: weights[state], 3)
    estimator = estimators.actor_critic(
        problem.policy, gamma, problem, critic=critic, finite_horizon=False, trace_decay=0.7
    )
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    theta = jnp.asarray(THETA)

    @jax.jit
    def run(key):
        live = rollout.init(jax.random.fold_in(key, 0), task, rows)
        found = []
        for k in (1, 2):
            live, batch = rollout.advance(jax.random.fold_in(key, k), task, live, theta, rows)
            found.append(estimator.estimate(estimator.init(key, theta), task, theta, batch))
        return found

    advantage = probs * (COSTS[0] + gamma * TRANSITIONS @ values - values[:, None])
    per_state = advantage - probs * advantage.sum(-1, keepdims=True)  # Σ_a ∇π(a|s) Q(s, a)
    chances = [INITIAL[0]]
    for _ in range(2):
        chances.append(chances[-1] @ np.einsum("sa,sat->st", probs, TRANSITIONS))
    first, second = (sum(chances[t][:, None] * per_state for t in times).ravel() for times in ((0, 1), (2, 0)))
    for estimate, expected, other in zip(run(jax.random.key(4)), (first, second), (second, first), strict=True):
        # Σ over 6 entries of z² has mean < 6; 4 standard errors in norm
        assert np.linalg.norm(estimate.gradient - expected) < 4 * np.sqrt(estimate.noise)
        assert np.linalg.norm(estimate.gradient - other) > 4 * np.sqrt(estimate.noise)


# ---------------------------------------------------------------- runs


def walk_in_jax():
    """From 1 by −0.5, 0.25 or 0.5, the loss is the distance to 0.3; terminated beyond ±2, cut off below −0.4."""

    def step(key, task, state, action):
        after = state + jnp.asarray([-0.5, 0.25, 0.5])[action][None]
        return Transition(after, jnp.abs(after[0] - 0.3), jnp.abs(after[0]) >= 2, after[0] < -0.4)

    return Environment(lambda key, task: jnp.ones(1), lambda state: state, step)


def walk_on_host():
    place = [1.0]

    def reset(seed):
        place[0] = 1.0
        return np.array(place)

    def step(action):
        place[0] += (-0.5, 0.25, 0.5)[action]
        return np.array(place), abs(place[0] - 0.3), abs(place[0]) >= 2, place[0] < -0.4

    return Host(reset, step)


def walks(participation=1.0):
    """The walk inside and outside JAX, in segments of 4 of at most 6 steps, and a recipe for it."""
    policy = softmax_mlp(1, (3,), 3, "tanh")
    common = {"tasks": make_tasks(2, (1.0, 0.5)), "num_steps": 6, "discount": 0.9}
    both = from_environment(walk_in_jax(), policy, **common), from_hosts("walk", walk_on_host, policy, **common)
    inside, outside = (each._replace(rollouts=partial(segments, num_steps=4)) for each in both)
    estimator = estimators.actor_critic(policy, 0.9, inside, critic=(2,), critic_steps=2, finite_horizon=False)
    setting = methods.Setting(estimator, 3, 2, participation=participation)
    return inside, outside, lambda hyper: methods.compose("pg", setting, hyper=full(hyper))


def close_to(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-9, 1e-12), found, expected)


NEVER = Evaluation(every=0)
HYPERS = {"step_size": np.array([0.3, 0.5])}


def test_outside_is_inside():
    """Oracle: the vectorised runtime on the same walk; two lanes, six rounds by three calls of `advance`, one learner of the two in each."""
    inside, outside, recipe = walks(participation=0.5)
    ends = []
    for runtime, problem in ((Vectorised, inside), (Hosted, outside)):
        lanes = runtime(recipe, problem, HYPERS, [3, 4], chunk_rounds=2, evaluation=NEVER)
        state, logs = lanes.start(), []
        for first in (0, 2, 4):
            state, log = lanes.advance(state, first, 6)
            logs.append((log.sent, log.training_scores, log.training_steps))
        lanes.close()
        ends.append(
            (state.controller, state.learners.estimator, jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs))
        )
    close_to(ends[1], ends[0])
    _, scores, steps = ends[0][2]
    np.testing.assert_array_equal(steps.sum(-1), 3 * 4)  # those of the learner that was there
    assert np.isfinite(scores["return_raw"]).any()


def test_absent_learners_do_not_move_and_stopping_changes_nothing():
    """Oracle: the state before the round; the same run with its state taken out and put back, to the bit."""
    inside, _, recipe = walks(participation=0.5)
    lanes = Vectorised(recipe, inside, HYPERS, [3, 4], chunk_rounds=4, evaluation=NEVER)
    whole, log = lanes.advance(lanes.start(), 0, 4)
    state = lanes.start()
    for k in range(4):
        before = state = lanes.export(state)
        state, _ = lanes.advance(state, k, k + 1)
        moved = np.any(lanes.export(state).learners.rollout.state != before.learners.rollout.state, (2, 3))
        np.testing.assert_array_equal(moved, log.participated[:, k])
    jax.tree.map(np.testing.assert_array_equal, lanes.export(state), lanes.export(whole))


def test_rehearsals_leave_no_episode_behind():
    """Oracle: the docstring: environments that go on begin with the run, though a rehearsal has played some."""
    _, outside, recipe = walks()
    hyper = {"step_size": np.float64(0.1)}
    compiled = Compiled(recipe, outside, hyper)
    compiled.rehearse(hyper)
    seen = outside.proceed(
        lambda seen, t: (np.zeros((1, 3), int),) * 2, np.array([1]), 3, learners=[0], lane="x", num_steps=1
    )
    assert seen.before.steps.tolist() == [[0, 0, 0]]


# ---------------------------------------------------------------- refusals

CRITICAL = Part("actor_critic", finite_horizon=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": Part("gpomdp")}, "estimator 'gpomdp' needs whole episodes"),
        ({"estimator": Part("reinforce")}, "estimator 'reinforce' needs whole episodes"),
        ({"estimator": Part("reuse")}, "estimator 'reuse' needs whole episodes"),
        ({"estimator": Part("actor_critic")}, "use rollout 'episodes', or .* finite_horizon false"),
        (
            {"problem": Part("pendulum", num_steps=5), "estimator": Part("deterministic")},
            "estimator 'deterministic' needs whole episodes",
        ),
        ({"rollout": Part("segments", num_steps=0)}, r"rollout\.num_steps must be a whole number >= 1, got 0"),
        ({"rollout": Part("pieces")}, "rollout must be one of episodes, segments"),
        ({"rollout": Part("episodes", num_steps=3)}, r"rollout\.num_steps is not an option of rollout 'episodes'"),
        ({"problem": Part("quadratic")}, "needs a problem with an environment"),
        (
            {"problem": Part("cooperative_navigation", shared_trajectories=True), "participation": 0.5},
            "participation must be 1 with rollout 'segments' where all learners see the same samples, got 0.5",
        ),
        (
            {"problem": Part("gymnasium", env="test_rollouts:vector")},
            "must be one environment, got a vector of 2; return a single one",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_build(change, message):
    """Oracle: the docstrings, by rule and remedy."""
    settings = {
        "problem": Part("cart_pole", num_steps=5),
        "rollout": Part("segments"),
        "estimator": CRITICAL,
    }
    with pytest.raises(ValueError, match=message):
        build(Config(**(settings | change)))


def vector():
    return gym.make_vec("CartPole-v1", num_envs=2)
