"""Does a problem keep its promises? Every check that fails is a line that says what to mend."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lapg.problems.checklist import Checklist, CheckResult, Flaw, describe, equal, finite, need
from lapg.types import Environment, HostBatch, Policy, Problem, Task, Trajectories, Transition


def check_problem(
    problem: Problem, *, num: int = 3, seed: int = 0, loss_bounds: tuple[float, float] | None = None
) -> list[CheckResult]:
    """Checks tasks, θ⁰, environment, episodes, policy and scores of a problem, inside JAX (``sample``) or outside (``collect``).

    It goes from the ground up, and what rests on a failed check is not checked: mend that first. Beside the checks there are notes: on what an
    adapter changes, what the environment has warned of while it was played, and episodes none of which has ended.

    Args:
      num: N, episodes per learner; they are played twice.
      seed: of θ⁰ and of the samples.
      loss_bounds: between which numbers raw losses ℓ_m are meant to lie; None asks for finite ones only.
    """
    checks = Checklist()
    run, findings = checks.run, checks.results

    run("tasks", _tasks, problem)
    params = run("initial params", _initial_params, problem, seed)
    environment, policy = problem.environment, problem.policy
    if checks.sound and environment is not None:
        run("environment repeats itself", _pure, environment, policy, problem.tasks, params, seed)
        run("environment compiles", _compiles, environment, policy, problem.tasks, params, seed)
    if checks.sound:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            batch = run("samples repeat themselves", _samples, problem, params, seed, num)
        findings += [CheckResult("warning", True, note=note) for note in _said(caught)]
        if checks.sound and isinstance(batch, Trajectories | HostBatch):
            run("shapes", _shapes, problem, batch, num)
            if checks.sound:
                run("after the end", _after_the_end, batch)
            if checks.sound:
                run("losses", _losses, problem, batch, loss_bounds)
                if policy is not None:
                    run("policy", _policy, policy, params, batch, seed)
        if checks.sound:
            run("score", _score, problem, batch)
            if np.all(getattr(batch, "mask", False)) and not np.any(batch.terminated):
                note = f"no episode has ended before T={problem.num_steps}; if some should, look for a missing terminated or truncated"
                findings.append(CheckResult("episodes", True, note=note))
    if problem.collect is not None:
        run("environments close", problem.close)
    if problem.interface is not None:
        findings += [CheckResult("adapter", True, note=note) for note in problem.interface.notes]
    return findings


def _said(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """What the environment has warned of, each once, as one line without colours; warnings of what a later Python will do are left out."""
    own = [item.message for item in caught if issubclass(item.category, UserWarning | RuntimeWarning)]
    return list(dict.fromkeys(" ".join(re.sub(r"\x1b\[[\d;]*m", "", str(message)).split()) for message in own))


def _tasks(problem: Problem) -> None:
    tasks, num = problem.tasks, problem.num_learners
    need(num >= 1, f"num_learners must be >= 1, got {num}.")
    for path, leaf in jax.tree.leaves_with_path(tasks):
        need(
            np.shape(leaf)[:1] == (num,),
            f"tasks{jax.tree_util.keystr(path)} must have a leading axis of num_learners={num}, got shape {np.shape(leaf)}; see make_tasks.",
        )
    need(equal(tasks.index, np.arange(num)), f"tasks.index must be 0..{num - 1}, got {np.asarray(tasks.index)}.")
    scale = np.asarray(tasks.scale)
    need(np.all((scale > 0) & np.isfinite(scale)), f"tasks.scale must be positive and finite, got {scale}.")


def _initial_params(problem: Problem, seed: int) -> Any:
    params = problem.init(jax.random.key(seed))
    need(
        np.ndim(params) == 1 and jnp.issubdtype(params.dtype, jnp.floating),
        f"init must return one flat vector of floats, got {describe(params)}; flatten it with jax.flatten_util.ravel_pytree.",
    )
    need(finite(params), "init must return finite numbers.")
    need(
        equal(params, problem.init(jax.random.key(seed))),
        "init must return the same θ⁰ under the same key; draw with jax.random from it.",
    )
    if problem.policy is not None:
        wanted = problem.policy.num_params
        need(params.size == wanted, f"init must return policy.num_params={wanted} entries, got {params.size}.")
    return params


def _first_step(
    environment: Environment, policy: Policy, tasks: Task, params: Any, seed: int
) -> tuple[Any, Any, Transition, Any]:
    """Learner 0's state and observation after a reset, a step under its policy, and the observation after it."""
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    keys = jax.random.split(jax.random.key(seed), 3)
    state = environment.reset(keys[0], task)
    seen = environment.observe(state)
    action, _ = policy.sample(policy.action_noise(keys[1]), params, seen)
    after = Transition(*environment.step(keys[2], task, state, policy.actuate(action)))
    return state, seen, after, environment.observe(after.state)


def _pure(environment: Environment, policy: Policy, tasks: Task, params: Any, seed: int) -> None:
    before, again = (_first_step(environment, policy, tasks, params, seed) for _ in range(2))
    need(
        equal(before, again),
        "reset and step must bring the same under the same key, state and action; draw with jax.random from the key, keep nothing outside "
        "the state.",
    )


def _compiles(environment: Environment, policy: Policy, tasks: Task, params: Any, seed: int) -> None:
    """Shapes of one abstract step suffice for all: what goes in as it came out stays so."""
    try:
        state, seen, after, then = jax.eval_shape(
            lambda params: _first_step(environment, policy, tasks, params, seed), params
        )
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        raise Flaw(
            f"reset, observe and step must compile, but {type(error).__name__} says that Python looks at an array's values; use jnp.where or "
            "jax.lax.cond for `if`, jax.numpy for numpy."
        ) from error
    for name, old, new in (("state", state, after.state), ("observation", seen, then)):
        need(
            describe(old) == describe(new),
            f"step must leave shapes and dtypes of the {name} as reset made them, {describe(old)}, got {describe(new)}; cast with "
            "jnp.asarray(value, dtype).",
        )
    need(
        after.loss.shape == () and after.loss.dtype.kind in "fiu",
        f"Transition.loss must be one real number, learner m's own, got {describe(after.loss)}; pick it by task.index.",
    )
    for name, flag in (("terminated", after.terminated), ("truncated", after.truncated)):
        need(
            flag.shape == () and flag.dtype == bool,
            f"Transition.{name} must be one boolean, got {describe(flag)}; compare or reduce, as in jnp.any(outside).",
        )


def _samples(problem: Problem, params: Any, seed: int, num: int) -> Any:
    """The batches of all learners, leading axis M."""
    sample, collect, policy = problem.sample, problem.collect, problem.policy
    seeds = np.arange(problem.num_learners) + seed
    if sample is not None:
        remedy = "draw with jax.random from the key that sample gets"

        def play() -> Any:  # compiled anew each time, so that what tracing has frozen differs
            one = jax.vmap(lambda index, task: sample(jax.random.key(index), task, params, num))
            return jax.jit(one)(seeds, problem.tasks)

    elif collect is not None and policy is not None:
        remedy = "seed every random number of the environment in reset, and let nothing outlive an episode"

        def play() -> Any:
            return collect(_actor(policy, params, seed), seeds, num)

    else:
        raise Flaw("a problem needs sample, or collect and a policy.")
    batch = play()
    need(equal(batch, play()), f"episodes must be the same under equal seeds and actions; {remedy}.")
    return batch


def _actor(policy: Policy, params: Any, seed: int) -> Callable[..., Any]:
    """What `collect` asks: the policy's own actions, the same whenever it is asked the same."""

    @jax.jit
    def act(observations: PyTree, t: Any) -> Any:
        leading = jax.tree.leaves(observations)[0].shape[:2]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), t), leading)
        sample = jax.vmap(jax.vmap(lambda key, seen: policy.sample(policy.action_noise(key), params, seen)[0]))
        actions = sample(keys, observations)
        return actions, jax.vmap(jax.vmap(policy.actuate))(actions)

    return lambda observations, t: jax.tree.map(np.asarray, act(observations, t))


def _shapes(problem: Problem, batch: Any, num: int) -> None:
    lead = (problem.num_learners, num, problem.num_steps)
    for name, kinds in (("losses", "fiu"), ("mask", "b"), ("terminated", "b"), ("truncated", "b")):
        leaf = np.asarray(getattr(batch, name))
        need(
            leaf.shape == lead and leaf.dtype.kind in kinds,
            f"{name} must be {'boolean' if kinds == 'b' else 'real'} with axes {lead} (learners, episodes, steps), got {describe(leaf)}.",
        )
    for name in ("observations", "actions"):
        for leaf in map(np.asarray, jax.tree.leaves(getattr(batch, name))):
            need(
                leaf.shape[:3] == lead,
                f"{name} must have leading axes {lead} (learners, episodes, steps), got {describe(leaf)}.",
            )
            need(finite(leaf), f"{name} must be finite; look for 0/0 and overflow in observe.")
    seen, following = (jax.tree.map(np.asarray, tree) for tree in (batch.observations, batch.following))
    need(
        describe(seen) == describe(following),
        f"following must be like observations, {describe(seen)}, got {describe(following)}.",
    )


def _losses(problem: Problem, batch: Any, loss_bounds: tuple[float, float] | None) -> None:
    losses = np.asarray(batch.losses)
    if isinstance(batch, Trajectories):  # there they are scaled
        losses = losses / np.asarray(problem.tasks.scale)[:, None, None]
    counted = losses[np.asarray(batch.mask)]
    need(
        finite(counted),
        f"losses must be finite, got {np.sum(~np.isfinite(counted))} that are not; look for 0/0 and overflow in step.",
    )
    if loss_bounds is not None:
        low, high, slack = *loss_bounds, 1e-6 * max(map(abs, loss_bounds))
        need(
            counted.min() >= low - slack and counted.max() <= high + slack,
            f"losses must lie in [{low}, {high}] as declared, got {counted.min()} to {counted.max()}; clip them, or declare other bounds.",
        )


def _after_the_end(batch: Any) -> None:
    mask = np.asarray(batch.mask)
    need(mask[..., 0].all(), "mask must be True in the first step: reset must bring an episode that has not ended.")
    need(
        (np.diff(mask.astype(int)) <= 0).all(),
        "mask must stay False after the end of an episode; an environment must not restart by itself.",
    )
    need((np.asarray(batch.losses)[~mask] == 0).all(), "losses must be 0 after the end, where mask is False.")
    terminated, truncated = np.asarray(batch.terminated), np.asarray(batch.truncated)
    last = mask & ~np.concatenate([mask[..., 1:], np.zeros_like(mask[..., :1])], -1)
    need(
        equal(terminated | truncated, last) and not (terminated & truncated).any(),
        "an episode's last step, and no other, must be either terminated or truncated; one that T cuts off is truncated.",
    )
    for seen, then in zip(*map(jax.tree.leaves, (batch.observations, batch.following)), strict=True):
        seen, then = np.asarray(seen), np.asarray(then)
        need(
            equal(seen[:, :, 1:], then[:, :, :-1]) and equal(seen[~mask], then[~mask]),
            "observations must be what followed the step before, and stay as they are after the end.",
        )


def _policy(policy: Policy, params: Any, batch: Any, seed: int) -> None:
    """On the first observation of learner 0."""
    seen, recorded = (
        jax.tree.map(lambda leaf: jnp.asarray(leaf[0, 0, 0]), tree) for tree in (batch.observations, batch.actions)
    )
    action, log_prob = policy.sample(policy.action_noise(jax.random.key(seed)), params, seen)
    again, slope = jax.value_and_grad(policy.log_prob)(params, seen, action)
    need(
        np.shape(log_prob) == () and np.allclose(log_prob, again, 1e-4, 1e-5),
        f"policy.log_prob must say of a sampled action what sample says, {log_prob}, got {again}; is one of them for the squashed action?",
    )
    need(
        finite(slope),
        "policy.log_prob must have a finite gradient in θ; look for log(0), sqrt(0) and jnp.where around them.",
    )
    need(np.any(np.asarray(slope) != 0), "policy.log_prob must depend on θ, but its gradient is 0.")
    for name, one in (("sample", action), ("mode", policy.mode(params, seen))):
        need(
            describe(jax.tree.map(jnp.asarray, one)) == describe(recorded),
            f"policy.{name} must return actions as recorded, {describe(recorded)}, got {describe(jax.tree.map(jnp.asarray, one))}.",
        )


def _score(problem: Problem, batch: Any) -> None:
    if isinstance(batch, HostBatch):
        fields = jax.tree.map(jnp.asarray, batch._asdict())
        fields["losses"] *= problem.tasks.scale[:, None, None]
        batch = Trajectories(log_probs=jnp.zeros_like(fields["losses"]), **fields)
    scores = jax.vmap(problem.score)(problem.tasks, batch)
    missing = {"score_scaled", "score_raw"} - set(scores)
    need(
        not missing,
        f"score must return a dict with score_scaled and score_raw; {', '.join(sorted(missing))} is missing.",
    )
    for name, value in scores.items():
        need(
            value.shape == (problem.num_learners,), f"score[{name!r}] must be one number, got shape {value.shape[1:]}."
        )
        need(finite(value), f"score[{name!r}] must be finite.")
