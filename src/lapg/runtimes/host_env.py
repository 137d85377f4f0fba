"""Learners whose environments are outside JAX: the environments run on the host, everything else is compiled.

Each step exchanges observations and actions alone; behaviour log-probabilities, gradients and uploads are one compiled function per round. Episodes begin
with addressed seeds. Environments that live on over rounds, where segments are played, are not part of any state: a resumed run begins new episodes.
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
from lapg.rollouts import rollout_of
from lapg.rounds import Reply, reply
from lapg.types import (
    NOBODY,
    SAMPLE,
    Broadcast,
    Elapsed,
    HostBatch,
    LearnerState,
    Policy,
    Problem,
    Recipe,
    Task,
    Trajectories,
    address,
)


def sampler(problem: Problem, policy: Policy, segment_steps: int | None = None) -> Callable[..., HostBatch]:
    """Makes the function that plays episodes of a host problem: ``keys [M], θ [M, d], N → HostBatch``, of the given ``learners``, all by default.

    With ``at_once``, at most that many episodes of each learner are played side by side.
    With ``segment_steps``, segments of that many steps are played in the environments of a ``lane``, which is then required.
    The noise of actions is drawn from the keys as in `lapg.rollouts`: equal keys, equal noise.
    """
    collect, num_steps = problem.collect, segment_steps or problem.num_steps
    if segment_steps is not None and problem.proceed is not None:
        collect = partial(problem.proceed, num_steps=segment_steps)
    if collect is None:
        raise ValueError("sampler(problem=...) needs a problem with collect; use problem.sample.")

    @partial(jax.jit, static_argnames="num")
    def draw(keys: Key[Array, " M"], num: int) -> Any:
        def episode(key: Key[Array, ""]) -> Any:
            reset, actions, _ = jax.random.split(key, 3)
            noise = jax.vmap(policy.action_noise)(jax.random.split(actions, num_steps))
            return jax.random.bits(reset, dtype=jnp.uint32), policy.correlate(noise)

        seeds, noise = jax.vmap(lambda key: jax.vmap(episode)(jax.random.split(key, num)))(keys)
        return seeds, jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 2, 0), noise)

    @jax.jit
    def act(noise: Any, params: Float[Array, "M d"], observations: Any, t: Any) -> Any:
        def one(noise: Any, params: Float[Array, " d"], observation: Any) -> Any:
            action, _ = policy.sample(noise, params, observation)
            executed = policy.actuate(action)
            return action, None if executed is action else executed  # returned once where both are the same

        now = jax.tree.map(lambda leaf: leaf[t], noise)
        return jax.vmap(jax.vmap(one, (0, None, 0)))(now, params, observations)

    def play(
        keys: Key[Array, " M"], params: Float[Array, "M d"], num: int, at_once: int | None = None, **which: Any
    ) -> HostBatch:
        seeds, noise = draw(keys, num=num)

        def block(begin: int, end: int) -> HostBatch:
            own = jax.tree.map(lambda leaf: leaf[:, :, begin:end], noise) if end - begin < num else noise

            def ask(observations: Any, t: int) -> tuple[Any, Any]:
                recorded, executed = jax.tree.map(np.asarray, act(own, params, observations, t))
                return recorded, recorded if executed is None else executed

            return collect(ask, np.asarray(seeds[:, begin]), end - begin, **which)

        size = at_once or num
        blocks = [block(begin, min(begin + size, num)) for begin in range(0, num, size)]
        return blocks[0] if len(blocks) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves, 1), *blocks)

    return play


def close(problem: Problem) -> None:
    """Closes a host problem's environments; a failure of one is a warning, since nothing is lost."""
    try:
        problem.close()
    except EnvironmentFailed as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)


def to_batch(policy: Policy, task: Task, params: Float[Array, " d"], recorded: HostBatch) -> Trajectories:
    """Converts one learner's recorded steps to trajectories, with log-probabilities at θ and scaled losses."""
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


class HostSampler:
    """Plays rounds of learners of a host problem, several side by side; the counterpart of `lapg.rounds.play_learner`.

    Args:
      hyper: any lane's hyperparameters.
    Raises:
      ValueError: the problem has no policy.

    ``answer: hyper, seed, Tasks, LearnerStates, Broadcast, θ, HostBatch → LearnerStates, Replies`` is its compiled end.
    """

    def __init__(self, recipe: Recipe, problem: Problem, hyper: dict[str, Any]) -> None:
        if problem.policy is None:
            raise ValueError("HostSampler(problem=...) needs a problem with a policy.")
        method, self._policy, self._problem = recipe(hyper), problem.policy, problem
        self._num, self._rollout, self._name = method.batch_size, rollout_of(problem), object()
        length = self._rollout.num_steps if self._rollout.continues else None
        self._sample = sampler(problem, problem.policy, length)

        @jax.jit
        def behave(
            hyper: dict[str, Any],
            seed: Any,
            tasks: Task,
            learners: LearnerState,
            broadcast: Broadcast,
        ) -> tuple[Any, Any]:
            """Gives the keys and θ of a batch."""

            def one(task: Task, state: LearnerState) -> tuple[Any, Any]:
                who = NOBODY if problem.shared else task.index
                key = address(jax.random.key(seed), SAMPLE, who, broadcast.round)
                return key, recipe(hyper).learner.behaviour(state, broadcast)

            return jax.vmap(one)(tasks, learners)

        @jax.jit
        def answer(
            hyper: dict[str, Any],
            seed: Any,
            tasks: Task,
            learners: LearnerState,
            broadcast: Broadcast,
            params: Any,
            recorded: HostBatch,
        ) -> tuple[LearnerState, Reply]:
            def one(task: Task, state: LearnerState, params: Any, recorded: HostBatch) -> Any:
                batch = to_batch(self._policy, task, params, recorded)
                return reply(recipe(hyper), problem, jax.random.key(seed), task, state, broadcast, batch)

            return jax.vmap(one)(tasks, learners, params, recorded)

        self._behave, self.answer = behave, answer

    def play(
        self, hyper: dict[str, Any], seed: Any, tasks: Task, learners: LearnerState, broadcast: Broadcast
    ) -> tuple[LearnerState, Reply]:
        """Plays a round of the given learners; tasks, states and replies have a leading axis.

        Environments that live on belong to a lane, which is identified by its seed and hyperparameters.
        """
        given, who = (hyper, seed, tasks), dict[str, Any](learners=np.asarray(tasks.index).tolist())
        if self._rollout.continues:
            who["lane"] = self._name, int(seed), *(np.asarray(hyper[name]).tobytes() for name in sorted(hyper))
        keys, params = self._behave(*given, learners, broadcast)
        recorded = self._sample(keys, params, self._num, **who)
        return self.answer(*given, learners, broadcast, params, recorded)

    def play_one(
        self, hyper: dict[str, Any], seed: Any, index: Any, state: LearnerState, broadcast: Broadcast
    ) -> tuple[LearnerState, Reply]:
        """Plays learner m's round."""
        tasks = _at(self._problem.tasks, index)
        learners = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], state)
        return jax.tree.map(lambda leaf: leaf[0], self.play(hyper, seed, tasks, learners, broadcast))

    def sketch(
        self, hyper: dict[str, Any], seed: Any, index: Any, state: LearnerState, broadcast: Broadcast
    ) -> tuple[LearnerState, Reply]:
        """Does what `play_one` does on a batch of zeros, without playing; for its shapes."""
        recorded = self._blank()
        tasks, learners = _at(self._problem.tasks, index), jax.tree.map(lambda leaf: leaf[None], state)
        found = self.answer(hyper, seed, tasks, learners, broadcast, broadcast.params[None], recorded)
        return jax.tree.map(lambda leaf: leaf[0], found)

    def _blank(self) -> HostBatch:
        """Makes one learner's batch of zeros."""
        problem, policy, num = self._problem, self._policy, self._num
        key, seen = jax.random.key(0), jax.tree.map(jnp.asarray, problem.observation)
        action, loss = policy.sample(policy.action_noise(key), policy.init(key), seen)[0], jnp.zeros(())

        def zeros(tree: Any, *steps: int) -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros((1, num, *steps, *leaf.shape), leaf.dtype), tree)

        no, before = loss > 0, ()
        if self._rollout.continues:
            before = Elapsed(zeros(jnp.int32(0)), zeros(loss), zeros(loss))
        rows = (zeros(tree, self._rollout.num_steps) for tree in (seen, action, loss, no, no, no, seen))
        return HostBatch(*rows, before=before)


def _at(tasks: Task, index: Any) -> Task:
    return jax.tree.map(lambda leaf: leaf[index][None], tasks)
