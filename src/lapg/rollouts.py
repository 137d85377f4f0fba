"""Rollouts of a policy in an environment: whole episodes every round, or segments of environments that go on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from lapg.types import Elapsed, Environment, Policy, Problem, Rollout, Task, Trajectories, Transition, select


def _player(
    environment: Environment, policy: Policy, num_steps: int, limit: int, *, restart: bool
) -> Callable[..., Any]:
    """``keys [3], task, θ, state, steps so far → rows, states (leading axis T), the state and the steps after them``.

    An episode ends by itself, by the environment's truncation, or after ``limit`` steps. With ``restart`` another one begins there. Without, nothing
    counts any more: losses are 0, ``mask`` is False, and the last observation stays.
    """

    def worlds(state: PyTree, after: Transition) -> PyTree:
        return () if environment.world is None else (environment.world(state), environment.world(after.state))

    def play(
        keys: Key[Array, "3"], task: Task, params: Float[Array, " d"], state: PyTree, steps: Int[Array, ""]
    ) -> tuple[tuple[Any, ...], PyTree, PyTree, Int[Array, ""]]:
        resets, actions, transitions = (jax.random.split(key, num_steps) for key in keys)

        def step(carry: Any, draws: Any) -> tuple[Any, Any]:
            state, observation, steps, alive = carry
            noise, key, key_reset = draws
            action, log_prob = policy.sample(noise, params, observation)
            after = Transition(*environment.step(key, task, state, policy.actuate(action)))
            loss = jnp.where(alive, task.scale * after.loss, 0)
            following = select(alive, environment.observe(after.state), observation)
            terminated = alive & after.terminated
            truncated = alive & ~terminated & (jnp.asarray(after.truncated) | (steps + 1 >= limit))
            ended = terminated | truncated
            row = observation, action, log_prob, loss, alive, terminated, truncated, following, (), worlds(state, after)
            if not restart:
                return (after.state, following, steps + 1, alive & ~ended), (row, state)
            fresh = environment.reset(key_reset, task)
            there = select(ended, (fresh, environment.observe(fresh)), (after.state, following))
            return (*there, jnp.where(ended, 0, steps + 1), alive), (row, state)

        start = state, environment.observe(state), steps, jnp.bool_(True)
        (state, _, steps, _), (rows, states) = jax.lax.scan(
            step, start, (policy.correlate(jax.vmap(policy.action_noise)(actions)), transitions, resets)
        )
        return rows, states, state, steps

    return play


def rollout(environment: Environment, policy: Policy, num_steps: int) -> Callable[..., tuple[Trajectories, Any]]:
    """One episode: ``key, task, θ → Trajectories (leading axis T), states (leading axis T)``.

    After the end, be it a termination or a truncation, nothing counts any more: losses are 0, ``mask`` is False, and the last observation stays.
    """
    play = _player(environment, policy, num_steps, num_steps, restart=False)

    def run(key: Key[Array, ""], task: Task, params: Float[Array, " d"]) -> tuple[Trajectories, Any]:
        keys = jax.random.split(key, 3)
        rows, states, _, _ = play(keys, task, params, environment.reset(keys[0], task), jnp.int32(0))
        return Trajectories(*rows), states

    return run


def rollouts(environment: Environment, policy: Policy, num_steps: int) -> Callable[..., Trajectories]:
    """A batch: ``key, task, θ, N → Trajectories`` with leading axes N, T."""
    one = rollout(environment, policy, num_steps)

    def sample(key: Key[Array, ""], task: Task, params: Float[Array, " d"], num: int) -> Trajectories:
        return jax.vmap(lambda key: one(key, task, params)[0])(jax.random.split(key, num))

    return sample


def episodes(problem: Problem) -> Callable[..., Trajectories] | None:
    """A problem's sampler: whole episodes of its policy in its environment (`rollouts`); None as long as it has no policy."""
    if problem.environment is None or problem.policy is None:
        return None
    return rollouts(problem.environment, problem.policy, problem.num_steps)


def whole_episodes(problem: Problem) -> Rollout:
    """N whole episodes every round, each from a reset on; nothing outlives a round."""
    sample = problem.sample

    def advance(key: Key[Array, ""], task: Task, state: tuple[()], params: Float[Array, " d"], num: int) -> Any:
        assert sample is not None
        return state, sample(key, task, params, num)

    return Rollout(lambda key, task, num: (), None if sample is None else advance, problem.score, problem.num_steps)


def rollout_of(problem: Problem) -> Rollout:
    """How the problem's learners come by their batches."""
    return problem.rollout or whole_episodes(problem)


class Live(eqx.Module):
    """Environments between two segments (leading axis N): their states, and what their episodes have come to so far."""

    state: PyTree
    elapsed: Elapsed


def segments(problem: Problem, *, num_steps: int = 128) -> Rollout:
    """Segments of ``num_steps`` steps of N environments that live on from round to round and are reset where an episode ends.

    A row may hold the end of one episode and the beginning of another. The environment's own truncation and the problem's T, counted from the
    episode's own beginning, truncate; the end of a segment ends no episode.

    Scores: ``score_*`` is the mean reward per step; returns are those of the episodes that have ended in the segment, whole, earlier segments
    included, and NaN if none has. Short episodes end first, so that the first rounds' returns are of those alone.

    Args:
      problem: one with an environment, inside JAX or outside.
      num_steps: steps of a row.
    Raises:
      ValueError: num_steps < 1, or the problem has no environment that could go on; from ``init``: its state holds a random key.
    """
    if num_steps < 1:
        raise ValueError(f"segments(num_steps=...) must be a whole number >= 1, got {num_steps}.")
    score = segment_score(problem.discount)
    if problem.proceed is not None:
        return Rollout(lambda key, task, num: (), None, score, num_steps, continues=True)
    environment, policy = problem.environment, problem.policy
    if environment is None or policy is None:
        raise ValueError(
            "segments(problem=...) needs a problem with an environment and a policy, which this one has not; use rollout 'episodes'."
        )
    play = _player(environment, policy, num_steps, problem.num_steps, restart=True)

    def init(key: Key[Array, ""], task: Task, num: int) -> Live:
        state = jax.vmap(lambda key: environment.reset(key, task))(jax.random.split(key, num))
        if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
            raise ValueError(
                "segments(problem=...) needs an environment whose state holds no random key, for it is saved; draw from the keys that reset and step get."
            )
        return Live(state, Elapsed(jnp.zeros(num, jnp.int32), jnp.zeros(num), jnp.zeros(num)))

    def advance(
        key: Key[Array, ""], task: Task, live: Live, params: Float[Array, " d"], num: int
    ) -> tuple[Live, Trajectories]:
        def one(key: Key[Array, ""], live: Live) -> tuple[Live, Trajectories]:
            rows, _, state, _ = play(jax.random.split(key, 3), task, params, live.state, live.elapsed.steps)
            batch = dataclasses.replace(Trajectories(*rows), before=live.elapsed)
            return Live(state, tally(problem.discount, batch)[0]), batch

        return jax.vmap(one)(jax.random.split(key, num), live)

    return Rollout(init, advance, score, num_steps, continues=True)


def tally(discount: float, row: Trajectories) -> tuple[Elapsed, Float[Array, " T"], Float[Array, " T"]]:
    """What the episode with which a row of a segment ends has come to, and the losses of its episodes up to every step, plain and with γ^t."""
    assert isinstance(row.before, Elapsed)

    def step(before: Elapsed, now: tuple[Array, Array]) -> tuple[Elapsed, Any]:
        loss, ended = now
        plain = before.losses + loss
        discounted = before.discounted + jnp.asarray(discount, loss.dtype) ** before.steps * loss
        after = Elapsed(before.steps + 1, plain, discounted)
        return jax.tree.map(lambda leaf: jnp.where(ended, 0, leaf), after), (plain, discounted)

    after, (plain, discounted) = jax.lax.scan(step, row.before, (row.losses, row.ended))
    return after, plain, discounted


def segment_score(discount: float) -> Callable[[Task, Trajectories], dict[str, Float[Array, ""]]]:
    """Scores of segments (`segments`), under the names of `lapg.problems.builders.score`."""

    def evaluate(task: Task, batch: Trajectories) -> dict[str, Float[Array, ""]]:
        _, *totals = jax.vmap(lambda row: tally(discount, row))(batch)
        count = jnp.sum(batch.ended)

        def returns(losses: Float[Array, "N T"]) -> Float[Array, ""]:
            return jnp.where(count > 0, -jnp.sum(jnp.where(batch.ended, losses, 0)) / jnp.maximum(count, 1), jnp.nan)

        values = {"return": returns(totals[0]), "discounted_return": returns(totals[1]), "score": -batch.losses.mean()}
        return {
            f"{name}_{unit}": value / divisor
            for name, value in values.items()
            for unit, divisor in (("scaled", 1), ("raw", task.scale))
        }

    return evaluate
