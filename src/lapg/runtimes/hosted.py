"""The runtime for environments outside JAX: episodes on the host, everything else compiled.

In every step only observations go in and actions come out; behaviour log-probabilities, gradients, uploads and the controller's step are one compiled
function per round. A round starts from addressed seeds, so that no environment outlives it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg.runtimes.in_turn import InTurn
from lapg.runtimes.protocol import Log, RunState, absorb, announce, conclude, initialise, reply
from lapg.types import (
    NOBODY,
    SAMPLE,
    SCORE,
    Broadcast,
    LearnerState,
    Policy,
    Problem,
    Recipe,
    Recorded,
    Task,
    Trajectories,
    address,
)


def sampler(problem: Problem, policy: Policy) -> Callable[..., Recorded]:
    """Episodes of a host problem: ``keys [M], θ [M, d], N → Recorded``.

    The noise of actions is drawn from the keys as in `lapg.sampling.rollouts`: equal keys, equal noise.
    """
    collect = problem.collect
    if collect is None:
        raise ValueError("sampler(problem=...) needs a problem with collect; use problem.sample.")

    @partial(jax.jit, static_argnames="num")
    def draw(keys: Key[Array, " M"], num: int) -> Any:
        def episode(key: Key[Array, ""]) -> Any:
            reset, actions, _ = jax.random.split(key, 3)
            return jax.random.bits(reset, dtype=jnp.uint32), jax.vmap(policy.noise)(
                jax.random.split(actions, problem.num_steps)
            )

        seeds, noise = jax.vmap(lambda key: jax.vmap(episode)(jax.random.split(key, num)))(keys)
        return seeds[:, 0], jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 2, 0), noise)

    @jax.jit
    def act(noise: Any, params: Float[Array, "M d"], observations: Any, t: Any) -> Any:
        def one(noise: Any, params: Float[Array, " d"], observation: Any) -> Any:
            action, _ = policy.sample(noise, params, observation)
            executed = policy.actuate(action)
            return action, None if executed is action else executed  # what stays as it is comes out once

        now = jax.tree.map(lambda leaf: leaf[t], noise)
        return jax.vmap(jax.vmap(one, (0, None, 0)))(now, params, observations)

    def play(keys: Key[Array, " M"], params: Float[Array, "M d"], num: int) -> Recorded:
        seeds, noise = draw(keys, num=num)

        def ask(observations: Any, t: int) -> tuple[Any, Any]:
            recorded, executed = jax.tree.map(np.asarray, act(noise, params, observations, t))
            return recorded, recorded if executed is None else executed

        return collect(ask, np.asarray(seeds), num)

    return play


def to_batch(policy: Policy, task: Task, params: Float[Array, " d"], recorded: Recorded) -> Trajectories:
    """One learner's recorded episodes, with the log-probabilities of their actions at θ and with scaled losses."""
    per_step = jax.vmap(jax.vmap(policy.log_prob, (None, 0, 0)), (None, 0, 0))
    return Trajectories(
        recorded.observations,
        recorded.actions,
        per_step(params, recorded.observations, recorded.actions),
        task.scale * recorded.losses,
        recorded.mask,
        recorded.terminated,
        recorded.final_observation,
    )


class Hosted(InTurn):
    """Plays a method on a host problem for L lanes, one after the other; used like `lapg.runtimes.Vectorised`, whose arguments it takes."""

    def __init__(
        self,
        recipe: Recipe,
        problem: Problem,
        hypers: dict[str, Any],
        seeds: Sequence[int],
        *,
        chunk_rounds: int = 25,
        initial_params: np.ndarray | None = None,
    ) -> None:
        policy = problem.policy
        if policy is None:
            raise ValueError("Hosted(problem=...) needs a problem with a policy.")
        super().__init__(hypers, seeds, chunk_rounds, initial_params)
        method = recipe(self._hypers[0])
        self._batches, self._local = method.batches, method.local
        self._play = sampler(problem, policy)

        @jax.jit
        def start(hyper: dict[str, Any], seed: Any, params: Any) -> RunState:
            return initialise(recipe(hyper), problem, jax.random.key(seed), params)

        @jax.jit
        def hear(hyper: dict[str, Any], seed: Any, state: RunState) -> Broadcast:
            return announce(recipe(hyper), jax.random.key(seed), state.controller)

        @jax.jit
        def present(seed: Any, broadcast: Broadcast) -> tuple[Any, Any]:
            """What θ^k is scored with, where learners sample at parameters of their own."""

            def one(task: Task) -> Any:
                who = NOBODY if problem.shared else task.index
                return address(jax.random.key(seed), SCORE, who, broadcast.round), broadcast.params

            return jax.vmap(one)(problem.tasks)

        @partial(jax.jit, static_argnames="step")
        def behave(
            hyper: dict[str, Any], seed: Any, learners: LearnerState, broadcast: Broadcast, step: int
        ) -> tuple[Any, Any]:
            def one(task: Task, state: LearnerState) -> tuple[Any, Any]:
                who = NOBODY if problem.shared else task.index
                key = address(jax.random.key(seed), SAMPLE, who, broadcast.round, step)
                return key, recipe(hyper).learner.behaviour(state, broadcast)

            return jax.vmap(one)(problem.tasks, learners)

        @partial(jax.jit, static_argnames="step")
        def take_in(
            hyper: dict[str, Any],
            seed: Any,
            learners: LearnerState,
            broadcast: Broadcast,
            params: Any,
            recorded: Recorded,
            step: int,
        ) -> LearnerState:
            def one(task: Task, state: LearnerState, params: Any, recorded: Recorded) -> LearnerState:
                batch = to_batch(policy, task, params, recorded)
                return absorb(recipe(hyper), jax.random.key(seed), task, state, broadcast, step, batch)

            return jax.vmap(one)(problem.tasks, learners, params, recorded)

        @jax.jit
        def finish(
            hyper: dict[str, Any],
            seed: Any,
            state: RunState,
            learners: LearnerState,
            broadcast: Broadcast,
            params: Any,
            recorded: Recorded,
            scored: Recorded | None,
        ) -> tuple[RunState, Log]:
            method, root = recipe(hyper), jax.random.key(seed)

            def one(task: Task, state: LearnerState, params: Any, recorded: Recorded, scored: Recorded | None) -> Any:
                batch = to_batch(policy, task, params, recorded)
                own = None if scored is None else to_batch(policy, task, broadcast.params, scored)
                return reply(method, problem, root, task, state, broadcast, batch, own)

            learners, replies = jax.vmap(one)(problem.tasks, learners, params, recorded, scored)
            return conclude(method, root, broadcast, state, learners, replies)

        self._start, self._hear, self._present = start, hear, present
        self._behave, self._take_in, self._finish = behave, take_in, finish

    def _initialise(self, index: int) -> RunState:
        return self._start(self._hypers[index], self._seeds[index], self._initial[index])

    def _play_round(self, index: int, state: RunState) -> tuple[RunState, Log]:
        hyper, seed = self._hypers[index], self._seeds[index]
        *inner, last = self._batches
        broadcast = self._hear(hyper, seed, state)
        scored = self._play(*self._present(seed, broadcast), last) if self._local else None
        learners = state.learners
        for step, num in enumerate(inner):
            keys, params = self._behave(hyper, seed, learners, broadcast, step=step)
            recorded = self._play(keys, params, num)
            learners = self._take_in(hyper, seed, learners, broadcast, params, recorded, step=step)
        keys, params = self._behave(hyper, seed, learners, broadcast, step=len(inner))
        recorded = self._play(keys, params, last)
        return self._finish(hyper, seed, state, learners, broadcast, params, recorded, scored)
