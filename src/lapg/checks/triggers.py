"""Checks of a trigger of your own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg.checks.common import keeps_types, repeats, scalar, signatures, traced
from lapg.problems.checklist import Checklist, CheckResult, describe, equal, need
from lapg.types import Arrival, Candidate, Estimate, Trigger


def check_trigger(
    trigger: Trigger, *, num_learners: int = 3, size: int = 4, num_rounds: int = 20, seed: int = 0, quick: bool = False
) -> list[CheckResult]:
    """Checks both halves of a trigger alone and in a run with random innovations, and what it says of the noise.

    Args:
      num_learners: M, as the trigger was made for.
      size: d.
      quick: functions and types alone; nothing is computed.
    """
    checks, params = Checklist(), jnp.zeros(size)
    checks.run("functions", signatures, trigger)
    if checks.sound:
        checks.run("learner half", _learner, trigger, params)
    if checks.sound:
        checks.run("controller half", _controller, trigger, params, num_learners)
    if checks.sound and not quick:
        checks.run("a run", _run, trigger, params, num_learners, num_rounds, seed)
        checks.run("noise", _noise, trigger, params, num_learners)
    return checks.results


def _candidate(key: Key[Array, ""], params: Float[Array, " d"], index: Any, age: Any, signal: Any) -> Candidate:
    value = jax.random.normal(key, params.shape, params.dtype)
    noise = jnp.ones((), params.dtype)
    age, index = jnp.asarray(age, jnp.int32), jnp.asarray(index, jnp.int32)
    return Candidate(value, noise, 0.9 * value, params, age, index, signal)


def _decide(trigger: Trigger, key: Key[Array, ""], state: Any, candidate: Candidate) -> Any:
    """A decision on an innovation that is this round's gradient, the same at every θ but for 0.1 θ."""

    def gradient_at(params: Float[Array, " d"], rows: Any = None) -> Estimate:
        one = jnp.ones((), params.dtype)
        return Estimate(candidate.innovation + 0.1 * (params - candidate.params), one, 10 * one)

    return trigger.update(key, state, candidate, gradient_at(candidate.params), gradient_at)


def _learner(trigger: Trigger, params: Any) -> None:
    state, signal = trigger.init(params), trigger.signal(jax.random.key(0), trigger.controller_init(params, 1))
    candidate = _candidate(jax.random.key(0), params, 0, 1, signal)
    found = traced("update", lambda *given: _decide(trigger, *given), jax.random.key(1), state, candidate)
    need(
        isinstance(found, tuple) and len(found) == 2 and hasattr(found[1], "fires"),
        f"update must return a new state and a lapg.types.Decision, got {type(found).__name__}.",
    )
    after, decision = found
    keeps_types("update", state, after)
    scalar("Decision.fires", decision.fires, "b")
    scalar("Decision.statistic", decision.statistic, "f")
    scalar("Decision.threshold", decision.threshold, "f")
    need(
        trigger.weighs == (decision.weight is not None),
        f"Decision.weight must be given where the trigger weighs and nowhere else, got {describe(decision.weight)}; say Trigger(weighs=True).",
    )
    if decision.weight is not None:
        scalar("Decision.weight", decision.weight, "f")
    for leaf in jax.tree.leaves(decision.report):
        need(jnp.ndim(leaf) == 0, f"Decision.report must be made of scalars, got {describe(leaf)}.")
    keeps_types("settle", state, traced("settle", trigger.settle, after, candidate))


def _controller(trigger: Trigger, params: Any, num_learners: int) -> None:
    state = trigger.controller_init(params, num_learners)
    arrival = _arrival(trigger, params, num_learners)
    after = traced("controller_update", trigger.controller_update, state, params + 1, arrival)
    keeps_types("controller_update", state, after)
    first, then = (traced("signal", trigger.signal, jax.random.key(0), each) for each in (state, after))
    need(
        describe(first) == describe(then),
        f"signal must keep structure, shapes and dtypes, {describe(first)}, got {describe(then)}.",
    )


def _arrival(trigger: Trigger, params: Any, num_learners: int) -> Arrival:
    signal = trigger.signal(jax.random.key(0), trigger.controller_init(params, num_learners))
    candidate = _candidate(jax.random.key(0), params, 0, 1, signal)
    _, decision = _decide(trigger, jax.random.key(1), trigger.init(params), candidate)
    report = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_learners), decision.report)
    return Arrival(params + 1, jnp.ones(num_learners, bool), report)


def _run(trigger: Trigger, params: Any, num_learners: int, num_rounds: int, seed: int) -> None:
    """A run under ``vmap`` and ``scan``, as runtimes play it, in which displacements are minus a tenth of what arrives."""

    def play(key: Key[Array, ""]) -> Any:
        def learner(key: Any, index: Any, state: Any, age: Any, signal: Any) -> Any:
            one, other = jax.random.split(key)
            candidate = _candidate(one, params, index, age, signal)
            after, decision = _decide(trigger, other, state, candidate)
            settled = trigger.settle(after, candidate)
            state = jax.tree.map(lambda a, b: jnp.where(decision.fires, a, b), settled, after)
            return state, candidate.decoded, decision

        def step(carry: Any, k: Any) -> Any:
            states, ages, held = carry
            keys = jax.random.split(jax.random.fold_in(key, k), num_learners + 1)
            signal = trigger.signal(keys[0], held)
            states, decoded, decision = jax.vmap(learner, (0, 0, 0, 0, None))(
                keys[1:], jnp.arange(num_learners), states, ages, signal
            )
            sent = decision.fires
            total = jnp.sum(jnp.where(sent[:, None], decoded, 0), 0)
            held = trigger.controller_update(held, -0.1 * total, Arrival(total, sent, decision.report))
            return (states, jnp.where(sent, 1, ages + 1), held), (decision, signal)

        states = jax.vmap(lambda _: trigger.init(params))(jnp.arange(num_learners))
        start = states, jnp.ones(num_learners, jnp.int32), trigger.controller_init(params, num_learners)
        return jax.lax.scan(step, start, jnp.arange(num_rounds))

    carry, (decision, signal) = repeats("a run", play, jax.random.key(seed))
    for name, value in (("states", carry), ("statistic", decision.statistic), ("signal", signal)):
        bad = [
            leaf for leaf in map(np.asarray, jax.tree.leaves(value)) if leaf.dtype.kind == "f" and np.isnan(leaf).any()
        ]
        need(
            not bad, f"{name} must never be NaN in a run with finite innovations; look for 0/0, 0 · inf and inf − inf."
        )
    need(not np.isnan(np.asarray(decision.threshold)).any(), "threshold must never be NaN; look for 0/0 and inf − inf.")


def _noise(trigger: Trigger, params: Any, num_learners: int) -> None:
    """A trigger decides the same whatever the noise is, unless it says that it needs it."""
    state = trigger.init(params)
    signal = trigger.signal(jax.random.key(0), trigger.controller_init(params, num_learners))

    @jax.jit
    def decide(noise: Float[Array, ""]) -> Any:
        candidate = _candidate(jax.random.key(0), params, 0, 1, signal)
        decision = _decide(trigger, jax.random.key(1), state, dataclasses.replace(candidate, noise=noise))[1]
        return decision.fires, decision.statistic, decision.threshold

    none, large, unknown = (decide(jnp.asarray(noise, params.dtype)) for noise in (0.0, 1e30, jnp.inf))
    need(not np.isnan(unknown[2]), "threshold must not be NaN where the noise is inf; use lapg.types.weighed.")
    need(
        trigger.needs_noise or (equal(none, large) and equal(none, unknown)),
        "the decision must not depend on candidate.noise, which may be unknown, unless the trigger says so; give Trigger(needs_noise=True).",
    )
