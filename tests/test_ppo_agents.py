"""PPO of several agents: ratios, clips and values of their own, beside NumPy; what it is with one agent."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators
from lapg.policies import one_view, product, replicated, softmax_table
from lapg.policies.networks import Network
from lapg.problems.builders import make_tasks, score
from lapg.types import Discrete, Environment, JointSpaces, Problem, Spaces, Trajectories, Transition

DISCOUNT, DECAY, CLIP, ENTROPY = 0.9, 0.8, 0.2, 0.3
RNG = np.random.default_rng(3)
N, T, STATES = 2, 5, 3
SEEN, NEXT = RNG.integers(0, STATES, (2, N, T, 2)).astype(np.int32)  # the last axis is the agents'
ACTIONS, LOSSES = RNG.integers(0, 2, (N, T, 2)).astype(np.int32), RNG.normal(size=(N, T))
ENDED = np.arange(N * T).reshape(N, T) == 2
BEFORE = 0.5 * RNG.normal(size=(2, STATES, 2))
AFTER = BEFORE + 0.5 * RNG.normal(size=(2, STATES, 2))
VALUES = {"agent": RNG.normal(size=STATES), "joint": RNG.normal(size=(STATES, STATES))}
VALUES["world"] = VALUES["joint"].T  # of states that have the agents in another order


def problem_of(num, **spaces):
    one = Spaces(Discrete(STATES), Discrete(2))
    joint = JointSpaces((one,) * num, **{"local": True, "stacked": True} | spaces)
    observation = jax.ShapeDtypeStruct((num,), jnp.int32)
    tasks, policy = make_tasks(1, None), replicated(softmax_table(STATES, 2), num, local=True)
    environment = Environment(lambda key, task: jnp.zeros(num), lambda state: state, no_step, world=lambda state: state)
    problem = Problem(score(DISCOUNT), tasks, 1, policy=policy, spaces=joint, observation=observation, num_steps=T)
    return problem._replace(environment=environment)


def no_step(key, task, state, action):
    return Transition(state, 0.0)


def batch_of(seen, actions, following, log_probs):
    nothing = jnp.zeros((N, T), bool)
    arrays = (seen, actions, log_probs, LOSSES, ~nothing, ENDED, nothing, following)
    return Trajectories(*map(jnp.asarray, arrays))


def log_probs(theta):
    """Of each agent, [N, T, 2]."""
    logs = theta - np.log(np.exp(theta).sum(-1, keepdims=True))
    return np.stack([logs[m][SEEN[..., m], ACTIONS[..., m]] for m in range(2)], -1)


def advantages(kind):
    """Â of every agent by the double sum, [N, T, 2]."""
    look = dict.fromkeys(("joint", "world"), lambda seen: VALUES["joint"][seen[..., 0], seen[..., 1]])
    look["agent"] = lambda seen: VALUES["agent"][seen]
    now, following = (look[kind](seen).reshape(N, T, -1) for seen in (SEEN, NEXT))
    found = np.zeros((N, T, now.shape[-1]))
    for n, t in np.ndindex(N, T):
        for u in range(t, T):
            found[n, t] += (DISCOUNT * DECAY) ** (u - t) * (
                LOSSES[n, u] + (not ENDED[n, u]) * DISCOUNT * following[n, u] - now[n, u]
            )
            if ENDED[n, u]:
                break
    return np.broadcast_to((found - found.mean()) / found.std(), (N, T, 2))


def surrogate(theta, ratio, kind):
    """Value by loops over steps and agents; entropy of the product is the sum of theirs."""
    logs = theta - np.log(np.exp(theta).sum(-1, keepdims=True))
    entropies = -(np.exp(logs) * logs).sum(-1)
    ratios, better, total = np.exp(log_probs(theta) - log_probs(BEFORE)), advantages(kind), 0.0
    for n, t in np.ndindex(N, T):
        both = [(ratios[n, t, m], better[n, t, m]) for m in range(2)]
        each = both if ratio == "agent" else [(ratios[n, t].prod(), better[n, t, 0])]
        clipped = [max(rho * adv, np.clip(rho, 1 - CLIP, 1 + CLIP) * adv) for rho, adv in each]
        bonus = sum(entropies[m][SEEN[n, t, m]] for m in range(2)) / len(each)
        total += np.mean(clipped) - ENTROPY * bonus
    return total / (N * T)


def critic(kind):
    table = jnp.asarray(VALUES[kind])
    index = (lambda w, seen: w[seen]) if kind == "agent" else (lambda w, seen: w[seen[0], seen[1]])
    shape = table.shape
    return Network(lambda key: table.ravel(), lambda w, seen, time: index(w.reshape(shape), seen), table.size)


def estimator_of(problem, kind="joint", **options):
    plain = {"trace_decay": DECAY, "standardise_values": False, "critic_minibatches": 1, "clip": CLIP}
    return estimators.ppo(
        problem.policy, DISCOUNT, problem, N, critic=critic(kind), critic_input=kind, **plain | options
    )


@pytest.mark.parametrize(
    ("ratio", "kind"), [("agent", "agent"), ("agent", "joint"), ("joint", "joint"), ("agent", "world")]
)
def test_surrogate_of_two_agents(ratio, kind):
    """Oracle: NumPy's loops, by differences at parameters at which some ratios are clipped; divergence and effective samples by their formulas."""
    problem = problem_of(2)
    estimator = estimator_of(problem, kind, ratio=ratio, entropy=ENTROPY, normalise="batch")
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    batch = batch_of(SEEN, ACTIONS, NEXT, log_probs(BEFORE).sum(-1))
    batch = dataclasses.replace(batch, worlds=(jnp.asarray(SEEN[..., ::-1]), jnp.asarray(NEXT[..., ::-1])))
    state = estimator.update(estimator.init(jax.random.key(0), jnp.zeros(12)), task, batch)
    steps = estimator.prepare(state, task, jnp.asarray(BEFORE.ravel()), batch)
    found = estimator.estimate(state, task, jnp.asarray(AFTER.ravel()), steps)
    flat, eps = AFTER.ravel(), 1e-6
    moved = [[(flat + sign * eps * unit).reshape(AFTER.shape) for sign in (1, -1)] for unit in np.eye(12)]
    expected = [(surrogate(up, ratio, kind) - surrogate(down, ratio, kind)) / (2 * eps) for up, down in moved]
    np.testing.assert_allclose(found.gradient, expected, atol=1e-7)
    apart = log_probs(AFTER) - log_probs(BEFORE)
    assert (np.abs(np.exp(apart) - 1) > CLIP).any()
    whole = apart.sum(-1)
    seen = apart if ratio == "agent" else whole
    np.testing.assert_allclose(found.divergence, np.mean(np.expm1(seen) - seen), 1e-12)
    np.testing.assert_allclose(found.effective_samples, np.exp(whole).sum() ** 2 / np.exp(2 * whole).sum(), 1e-12)


def test_one_agent_is_plain_ppo():
    """Oracle: the same steps without the axis of agents, by the single policy."""
    problem, single = (
        problem_of(1),
        problem_of(1)._replace(
            spaces=Spaces(Discrete(STATES), Discrete(2)),
            policy=softmax_table(STATES, 2),
            observation=jax.ShapeDtypeStruct((), jnp.int32),
        ),
    )
    task, theta = jax.tree.map(lambda leaf: leaf[0], problem.tasks), jnp.asarray(AFTER[0].ravel())
    found = []
    table = Network(lambda key: jnp.asarray(VALUES["agent"]), lambda w, seen, time: w[jnp.ravel(seen)[0]], STATES)
    for each, cut in ((problem, slice(0, 1)), (single, 0)):
        own = np.exp(BEFORE[0]) / np.exp(BEFORE[0]).sum(-1, keepdims=True)
        sampled = np.log(own[SEEN[..., 0], ACTIONS[..., 0]])
        batch = batch_of(SEEN[..., cut], ACTIONS[..., cut], NEXT[..., cut], sampled)
        for kind in ("agent", "joint"):
            # a single agent's whole numbers are seen one-hot
            made = table if each is problem else table._replace(apply=lambda w, seen, time: w @ seen)
            estimator = estimators.ppo(
                each.policy, DISCOUNT, each, N, critic=made, critic_input=kind, critic_minibatches=1, entropy=ENTROPY
            )
            state = estimator.update(estimator.init(jax.random.key(0), theta), task, batch)
            steps = estimator.prepare(state, task, jnp.asarray(BEFORE[0].ravel()), batch)
            found.append((estimator.estimate(state, task, theta, steps), state.fitted))
    for estimate, fitted in found[1:]:
        np.testing.assert_allclose(estimate.gradient, found[0][0].gradient, 1e-12, 1e-14)
        np.testing.assert_allclose(estimate.divergence, found[0][0].divergence, 1e-12)
        np.testing.assert_allclose(fitted, found[0][1], 1e-9)


def test_policies_tell_agents_apart():
    """Oracle: the agents' own policies; their sum is the joint log-probability."""
    one, params = softmax_table(STATES, 2), jnp.asarray(BEFORE.ravel())
    seen, actions = jnp.array([2, 0]), jnp.array([1, 0])
    expected = [one.log_prob(jnp.asarray(BEFORE[m].ravel()), seen[m], actions[m]) for m in range(2)]
    equal, pair = replicated(one, 2, local=True), product([one, one])
    np.testing.assert_allclose(equal.log_probs(params, seen, actions), expected, 1e-14)
    np.testing.assert_allclose(pair.log_probs(params, tuple(seen), tuple(actions)), expected, 1e-14)
    common = one_view(pair, 2)
    again = replicated(one, 2)
    both = (common.log_probs(params, seen[0], tuple(actions)), again.log_probs(params, seen[0], actions))
    np.testing.assert_allclose(*both, 1e-14)
    np.testing.assert_allclose(again.log_prob(params, seen[0], actions), both[0].sum(), 1e-14)


@pytest.mark.parametrize(
    ("problem", "options", "message"),
    [
        (
            problem_of(2)._replace(policy=softmax_table(STATES, 2)),
            {},
            r"ppo\(ratio=\.\.\.\) must be 'joint' where a policy",
        ),
        (
            problem_of(2, local=False),
            {"critic_input": "agent"},
            r"ppo\(critic_input=\.\.\.\) must not be 'agent' where agents are not",
        ),
        (
            problem_of(2)._replace(environment=None),
            {"critic_input": "world"},
            r"ppo\(critic_input=\.\.\.\) must be 'joint' or",
        ),
    ],
)
def test_agents_that_cannot_be_told_apart(problem, options, message):
    """Oracle: the docstrings."""
    with pytest.raises(ValueError, match=message):
        estimators.ppo(problem.policy, DISCOUNT, problem, N, critic=critic("joint"), critic_minibatches=1, **options)
