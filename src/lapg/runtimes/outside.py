"""Learners whose environments are outside JAX: these on the host, everything else compiled.

In every step only observations go in and actions come out; behaviour log-probabilities, gradients and uploads are one compiled function per round.
Episodes begin with addressed seeds. Environments that outlive a round, where segments of them are played, are no part of any state: a resumed run
begins new episodes.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg.problems.contract import EnvironmentFailed
from lapg.runtimes.protocol import Reply, reply, rollout_of
from lapg.types import (
    NOBODY,
    SAMPLE,
    SCORE,
    Broadcast,
    Elapsed,
    LearnerState,
    Policy,
    Problem,
    Recipe,
    Recorded,
    Task,
    Trajectories,
    address,
)


def sampler(problem: Problem, policy: Policy, segment_steps: int | None = None) -> Callable[..., Recorded]:
    """Episodes of a host problem: ``keys [M], θ [M, d], N → Recorded``, where ``learners`` are those whom keys and θ are for, all by default.

    With ``segment_steps`` segments of that many steps, of the environments of a ``lane`` that has to be named.

    The noise of actions is drawn from the keys as in `lapg.sampling`: equal keys, equal noise.
    """
    collect = problem.collect
    num_steps = problem.num_steps if segment_steps is None else segment_steps
    if segment_steps is not None and problem.proceed is not None:
        collect = partial(problem.proceed, num_steps=segment_steps)
    if collect is None:
        raise ValueError("sampler(problem=...) needs a problem with collect; use problem.sample.")

    @partial(jax.jit, static_argnames="num")
    def draw(keys: Key[Array, " M"], num: int) -> Any:
        def episode(key: Key[Array, ""]) -> Any:
            reset, actions, _ = jax.random.split(key, 3)
            return jax.random.bits(reset, dtype=jnp.uint32), jax.vmap(policy.noise)(
                jax.random.split(actions, num_steps)
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

    def play(keys: Key[Array, " M"], params: Float[Array, "M d"], num: int, **which: Any) -> Recorded:
        seeds, noise = draw(keys, num=num)

        def ask(observations: Any, t: int) -> tuple[Any, Any]:
            recorded, executed = jax.tree.map(np.asarray, act(noise, params, observations, t))
            return recorded, recorded if executed is None else executed

        return collect(ask, np.asarray(seeds), num, **which)

    return play


def close(problem: Problem) -> None:
    """Closes a host problem's environments; what one of them says against it is a warning, as nothing is lost by it."""
    try:
        problem.close()
    except EnvironmentFailed as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)


def to_batch(policy: Policy, task: Task, params: Float[Array, " d"], recorded: Recorded) -> Trajectories:
    """One learner's recorded steps, with the log-probabilities of their actions at θ and with scaled losses."""
    before = recorded.before
    if isinstance(before, Elapsed):
        before = Elapsed(before.steps, task.scale * before.losses, task.scale * before.discounted)
    per_step = jax.vmap(jax.vmap(policy.log_prob, (None, 0, 0)), (None, 0, 0))
    return Trajectories(
        recorded.observations,
        recorded.actions,
        per_step(params, recorded.observations, recorded.actions),
        task.scale * recorded.losses,
        recorded.mask,
        recorded.terminated,
        recorded.truncated,
        recorded.following,
        before,
    )


class Outside:
    """Rounds of learners of a host problem, of as many side by side as are given: what `lapg.runtimes.protocol.play_learner` is to the others.

    Args:
      hyper: any lane's hyperparameters.
    Raises:
      ValueError: the problem has no policy.

    ``answer: hyper, seed, Tasks, LearnerStates, Broadcast, θ, Recorded, Recorded or None → LearnerStates, Replies`` is its compiled end.
    """

    def __init__(self, recipe: Recipe, problem: Problem, hyper: dict[str, Any]) -> None:
        if problem.policy is None:
            raise ValueError("Outside(problem=...) needs a problem with a policy.")
        method, self._policy, self._problem = recipe(hyper), problem.policy, problem
        self._num, self._moves = method.batch_size, method.local.moves
        self._sample, self._rollout = sampler(problem, problem.policy), rollout_of(problem)
        self._advance, self._name = self._sample, object()
        if self._rollout.continues:
            self._advance = sampler(problem, problem.policy, self._rollout.num_steps)

        @partial(jax.jit, static_argnames="purpose")
        def behave(
            hyper: dict[str, Any],
            seed: Any,
            tasks: Task,
            learners: LearnerState,
            broadcast: Broadcast,
            purpose: int = SAMPLE,
        ) -> tuple[Any, Any]:
            """Keys and θ of a batch; θ^k's own where it is only scored."""

            def one(task: Task, state: LearnerState) -> tuple[Any, Any]:
                who = NOBODY if problem.shared else task.index
                key = address(jax.random.key(seed), purpose, who, broadcast.round)
                scored = purpose == SCORE
                return key, broadcast.params if scored else recipe(hyper).learner.behaviour(state, broadcast)

            return jax.vmap(one)(tasks, learners)

        @jax.jit
        def answer(
            hyper: dict[str, Any],
            seed: Any,
            tasks: Task,
            learners: LearnerState,
            broadcast: Broadcast,
            params: Any,
            recorded: Recorded,
            scored: Recorded | None,
        ) -> tuple[LearnerState, Reply]:
            def one(task: Task, state: LearnerState, params: Any, recorded: Recorded, scored: Recorded | None) -> Any:
                batch = to_batch(self._policy, task, params, recorded)
                own = None if scored is None else to_batch(self._policy, task, broadcast.params, scored)
                return reply(recipe(hyper), problem, jax.random.key(seed), task, state, broadcast, batch, own)

            return jax.vmap(one)(tasks, learners, params, recorded, scored)

        self._behave, self.answer = behave, answer

    def play(
        self, hyper: dict[str, Any], seed: Any, tasks: Task, learners: LearnerState, broadcast: Broadcast
    ) -> tuple[LearnerState, Reply]:
        """A round of those learners; tasks, states and replies have a leading axis.

        Environments that go on belong to their lane, which is known by its seed and hyperparameters.
        """
        given, who = (hyper, seed, tasks), {"learners": np.asarray(tasks.index).tolist()}
        scored, where = None, who
        if self._rollout.continues:
            numbers = (np.asarray(value).tobytes() for _, value in sorted(hyper.items()))
            where = who | {"lane": (self._name, int(seed), *numbers)}
        if self._moves:
            scored = self._sample(*self._behave(*given, learners, broadcast, purpose=SCORE), self._num, **who)
        keys, params = self._behave(*given, learners, broadcast)
        recorded = self._advance(keys, params, self._num, **where)
        return self.answer(*given, learners, broadcast, params, recorded, scored)

    def play_one(
        self, hyper: dict[str, Any], seed: Any, index: Any, state: LearnerState, broadcast: Broadcast
    ) -> tuple[LearnerState, Reply]:
        """Learner m's round."""
        tasks = _at(self._problem.tasks, index)
        learners = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], state)
        return jax.tree.map(lambda leaf: leaf[0], self.play(hyper, seed, tasks, learners, broadcast))

    def sketch(
        self, hyper: dict[str, Any], seed: Any, index: Any, state: LearnerState, broadcast: Broadcast
    ) -> tuple[LearnerState, Reply]:
        """As `play_one`, in which nothing is played: for shapes alone."""
        recorded = self._blank()
        scored = recorded if self._moves else None
        tasks, learners = _at(self._problem.tasks, index), jax.tree.map(lambda leaf: leaf[None], state)
        found = self.answer(hyper, seed, tasks, learners, broadcast, broadcast.params[None], recorded, scored)
        return jax.tree.map(lambda leaf: leaf[0], found)

    def _blank(self) -> Recorded:
        """One learner's batch, zeros everywhere."""
        problem, policy, num = self._problem, self._policy, self._num
        key, seen = jax.random.key(0), jax.tree.map(jnp.asarray, problem.observation)
        action, loss = policy.sample(policy.noise(key), policy.init(key), seen)[0], jnp.zeros(())

        def zeros(tree: Any, steps: int) -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros((1, num, steps, *leaf.shape), leaf.dtype), tree)

        no, before = loss > 0, ()
        if self._rollout.continues:
            before = Elapsed(jnp.zeros((1, num), jnp.int32), jnp.zeros((1, num)), jnp.zeros((1, num)))
        rows = (zeros(tree, self._rollout.num_steps) for tree in (seen, action, loss, no, no, no, seen))
        return Recorded(*rows, before)


def _at(tasks: Task, index: Any) -> Task:
    return jax.tree.map(lambda leaf: leaf[index][None], tasks)
