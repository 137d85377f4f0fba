"""The conformance check against environments that are broken on purpose, one flaw each."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import problems
from lapg.policies import gaussian_mlp, softmax_mlp
from lapg.problems.builders import from_environment, make_tasks, score
from lapg.problems.check import check_problem
from lapg.types import Environment, HostBatch, Problem, Transition

LEARNERS, STEPS = 2, 4
POLICY = softmax_mlp(1, (3,), 3)
BUILT_IN = {
    "acrobot": {"num_steps": 20},
    "cart_pole": {},
    "cooperative_navigation": {"num_steps": 4},
    "garnet": {"num_learners": 2},
    "linear_quadratic": {},
    "pendulum": {},
    "quadratic": {"num_learners": 2, "dimension": 3},
}


def reset(key, task):
    return jax.random.uniform(key, (1,))


def step(key, task, state, action):
    after = state + 0.4 * (action - 1)
    return Transition(after, jnp.sum(jnp.abs(after)), jnp.max(after) > 1.2)


def walk(reset=reset, step=step, policy=POLICY):
    tasks = make_tasks(LEARNERS, (1.0, 4.0))
    walker = Environment(reset, lambda state: state, step)
    return from_environment(walker, policy, tasks=tasks, num_steps=STEPS, discount=0.9)


def failures(problem, **options):
    return [(result.name, result.remedy) for result in check_problem(problem, **options) if not result.passed]


def play(act, seeds, num):
    """NumPy: learner m walks from a uniform start; an episode ends above 1.2 and stays there."""
    rng = [np.random.default_rng(int(seed)) for seed in seeds]
    state = np.stack([each.uniform(size=(num, 1)) for each in rng])
    alive = np.ones((len(seeds), num), bool)
    steps = []
    for t in range(STEPS):
        recorded, executed = act(state, t)
        after = np.where(alive[..., None], state + 0.4 * (executed[..., None] - 1), state)
        ended = alive & (after[..., 0] > 1.2)
        cut = alive & ~ended & (t == STEPS - 1)
        steps.append((state, recorded, np.where(alive, np.abs(after[..., 0]), 0), alive, ended, cut, after))
        state, alive = after, alive & ~ended
    return HostBatch(*(np.stack(each, 2) for each in zip(*steps, strict=True)))


def hosted(change=lambda recorded: recorded):
    return Problem(
        score=score(0.9),
        tasks=make_tasks(LEARNERS, (1.0, 4.0)),
        num_learners=LEARNERS,
        collect=lambda act, seeds, num: change(play(act, seeds, num)),
        policy=POLICY,
        num_steps=STEPS,
    )


@pytest.mark.parametrize(
    "name",
    [name if name in ("garnet", "quadratic") else pytest.param(name, marks=pytest.mark.slow) for name in BUILT_IN],
)
def test_built_in_problems_pass(name):
    """Oracle: they are tested on their own; raw losses of garnet lie in [0, 1] by construction."""
    bounds = {"loss_bounds": (0.0, 1.0)} if name == "garnet" else {}
    assert failures(getattr(problems, name)(**BUILT_IN[name]), **bounds) == []


def test_sound_environments_pass_inside_jax_and_outside():
    """Oracle: the same walk twice, written to the protocols; raw losses are at most 1.6, which scaled ones (c = 4) exceed."""
    for problem in (walk(), hosted()):
        results = check_problem(problem, loss_bounds=(0.0, 1.6))
        assert all(result.passed for result in results), "\n".join(map(str, results))
        assert {"shapes", "losses", "after the end", "policy", "score"} < {result.name for result in results}


def unsteady(key, task, state, action):
    return step(key, task, state, action)._replace(state=jnp.zeros(2))


def branching(key, task, state, action):
    after = step(key, task, state, action)
    return after if state[0] < 0.5 else after._replace(loss=after.loss + 1)


COUNTER = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("problem", "name", "remedy"),
    [
        (walk(step=lambda *a: step(*a)._replace(loss=jnp.zeros(2))), "environment compiles", "loss must be one real"),
        (walk(step=unsteady), "environment compiles", r"float64\[1\], got float64\[2\]"),
        (walk(step=branching), "environment compiles", "TracerBoolConversionError"),
        (walk(step=lambda *a: step(*a)._replace(truncated=0.0)), "environment compiles", "truncated must be one bool"),
        (walk(step=lambda *a: step(*a)._replace(terminated=a[2] > 1)), "environment compiles", "terminated must be"),
        (walk(reset=lambda *_: jnp.asarray(COUNTER.uniform(size=1))), "environment repeats itself", "jax.random"),
        (walk(reset=lambda *_: 1 / 0), "environment repeats itself", "it raises ZeroDivisionError: division by zero"),
        (walk(step=lambda *a: step(*a)._replace(loss=jnp.nan)), "losses", "must be finite, got"),
        (walk(policy=POLICY._replace(init=lambda key: jnp.zeros((2, 2)))), "initial params", r"got float64\[2, 2\]"),
        (walk(policy=POLICY._replace(init=lambda key: jnp.zeros(2))), "initial params", "num_params=18 entries, got 2"),
        (walk(policy=POLICY._replace(init=lambda key: jnp.full(18, jnp.inf))), "initial params", "must return finite"),
        (
            walk(policy=POLICY._replace(init=lambda key: jnp.asarray(COUNTER.uniform(size=18)))),
            "initial params",
            "the same θ⁰",
        ),
        (walk()._replace(num_learners=3), "tasks", "leading axis of num_learners=3"),
        (walk()._replace(score=lambda task, batch: {"score_raw": task.scale}), "score", "score_scaled is missing"),
    ],
)
def test_flaws_inside_jax(problem, name, remedy):
    """Oracle: the flaw that was put in; the check that looks for it fails, and no other before it."""
    ((found, said), *_) = failures(problem)
    assert found == name
    assert re.search(remedy, said), said


def restarting(recorded):
    mask = recorded.mask.copy()
    mask[..., 1] = False
    return recorded._replace(mask=mask)


@pytest.mark.parametrize(
    ("change", "name", "remedy"),
    [
        (lambda r: r._replace(losses=r.losses[..., 0]), "shapes", "losses must be real with axes"),
        (lambda r: r._replace(mask=r.mask.astype(float)), "shapes", "mask must be boolean"),
        (lambda r: r._replace(observations=r.observations + np.inf), "shapes", "observations must be finite"),
        (lambda r: r._replace(actions=r.actions[:, 0]), "shapes", "actions must have leading axes"),
        (lambda r: r._replace(following=r.observations[..., 0]), "shapes", "following must be like"),
        (lambda r: r._replace(following=r.observations), "after the end", "what followed the step before"),
        (lambda r: r._replace(truncated=r.truncated & False), "after the end", "either terminated or truncated"),
        (lambda r: r._replace(terminated=r.truncated), "after the end", "either terminated or truncated"),
        (lambda r: r._replace(losses=r.losses - r.mask), "losses", "as declared"),
        (lambda r: r._replace(losses=r.losses + COUNTER.uniform()), "samples repeat themselves", "in reset"),
        (restarting, "after the end", "must not restart"),
        (lambda r: r._replace(mask=np.zeros_like(r.mask)), "after the end", "True in the first step"),
        (lambda r: r._replace(mask=np.arange(STEPS) < r.mask[..., :1]), "after the end", "losses must be 0"),
        (lambda r: r._replace(actions=r.actions.astype(float)), "policy", "actions as recorded"),
    ],
)
def test_flaws_outside_jax(change, name, remedy):
    """Oracle: the flaw that was put in; the check that looks for it fails."""
    found = dict(failures(hosted(change), loss_bounds=(0.0, 1.6)))
    assert remedy in found[name]


def test_policies_that_contradict_themselves():
    """Oracle: log_prob of the squashed action is another one; a policy without θ has no gradient; a gradient of √0 is infinite."""
    normal = gaussian_mlp(1, (3,), 1, low=-1.0, high=1.0)
    push = lambda *a: step(*a[:3], a[3][0])  # noqa: E731
    squashed = normal._replace(
        log_prob=lambda params, seen, action: normal.log_prob(params, seen, normal.actuate(action))
    )
    constant = normal._replace(
        sample=lambda noise, params, seen: (noise, jnp.zeros(())), log_prob=lambda params, seen, action: 0 * params[0]
    )
    rooted = constant._replace(log_prob=lambda params, seen, action: jnp.sqrt(0 * params[0]))
    assert failures(walk(step=push, policy=normal)) == []
    for policy, remedy in (
        (squashed, "what sample says"),
        (constant, "its gradient is 0"),
        (rooted, "finite gradient"),
    ):
        ((name, said),) = failures(walk(step=push, policy=policy))
        assert name == "policy"
        assert remedy in said


def test_a_finding_is_a_line():
    """Oracle: the docstring's promise, with the flaw of 1/0."""
    lines = [str(result) for result in check_problem(walk(reset=lambda *_: 1 / 0))]
    assert lines[0] == "ok    tasks"
    assert "FAIL  environment repeats itself: it raises ZeroDivisionError: division by zero" in lines
