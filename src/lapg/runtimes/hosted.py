"""The runtime for environments outside JAX: all learners of a lane together, their episodes on the host."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg.rollouts import rollout_of
from lapg.rounds import Log, Reply, RunState, announce, finish_round, initialise, participants
from lapg.runtimes.evaluation import Evaluation, make_evaluator
from lapg.runtimes.host_env import HostSampler, close
from lapg.runtimes.per_lane import PerLaneRuntime
from lapg.types import Broadcast, LearnerState, Problem, Recipe


class Hosted(PerLaneRuntime):
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
        evaluation: Evaluation = Evaluation(),  # noqa: B008  (immutable)
    ) -> None:
        super().__init__(hypers, seeds, chunk_rounds, initial_params, evaluation)
        self._sampler, self._problem = HostSampler(recipe, problem, self._hypers[0]), problem
        self._evaluator = make_evaluator(problem, evaluation, recipe(self._hypers[0]))

        @jax.jit
        def start(hyper: dict[str, Any], seed: Any, params: Any) -> RunState:
            return initialise(recipe(hyper), problem, jax.random.key(seed), params)

        @jax.jit
        def hear(hyper: dict[str, Any], seed: Any, state: RunState) -> Broadcast:
            return announce(recipe(hyper), jax.random.key(seed), state.controller)

        @jax.jit
        def finish(
            hyper: dict[str, Any],
            seed: Any,
            state: RunState,
            learners: LearnerState,
            broadcast: Broadcast,
            replies: Reply,
        ) -> tuple[RunState, Log]:
            return finish_round(recipe(hyper), jax.random.key(seed), broadcast, state, learners, replies)

        @jax.jit
        def present(hyper: dict[str, Any], seed: Any, round: Any) -> Any:
            return participants(recipe(hyper), jax.random.key(seed), round, problem.num_learners)

        self._start, self._hear, self._present, self._finish = start, hear, present, finish
        self._some = rollout_of(problem).continues and recipe(self._hypers[0]).participation < 1

    def close(self) -> None:
        """Closes the environments."""
        close(self._problem)

    def _initialise(self, index: int) -> RunState:
        return self._start(self._hypers[index], self._seeds[index], self._initial[index])

    def _play_round(self, index: int, state: RunState) -> tuple[RunState, Log]:
        lane = self._hypers[index], self._seeds[index]
        broadcast = self._hear(*lane, state)
        if not self._some:
            learners, replies = self._sampler.play(*lane, self._problem.tasks, state.learners, broadcast)
            return self._finish(*lane, state, learners, broadcast, replies)
        # environments that live on over rounds must not advance where their learner is absent
        who = np.flatnonzero(self._present(*lane, broadcast.round))
        tasks, learners = jax.tree.map(lambda leaf: leaf[who], (self._problem.tasks, state.learners))
        played = self._sampler.play(*lane, tasks, learners, broadcast)
        learners, replies = jax.tree.map(
            lambda leaf: jnp.zeros((self._problem.num_learners, *leaf.shape[1:]), leaf.dtype).at[who].set(leaf), played
        )
        return self._finish(*lane, state, learners, broadcast, replies)
