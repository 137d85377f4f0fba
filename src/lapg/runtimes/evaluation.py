"""Scores θ^k while a run is played: a hook beside the rounds, from which nothing is learned and whose episodes are counted separately."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lapg.rollouts import rollout_of
from lapg.rounds import Log, environment_steps, sample_batch
from lapg.runtimes.host_env import sampler, to_batch
from lapg.types import NOBODY, SCORE, HostBatch, Method, Policy, Problem, Task, address

Scores = tuple[Mapping[str, Any], Any]
"""The problem's scores on every learner's task, leading axis M, and the environment steps that were played for them."""
Score = Callable[[Key[Array, ""], Float[Array, " d"], Any], Scores]
"""``root, θ^k, round → Scores``."""


class Evaluation(NamedTuple):
    """When and how θ^k is scored.

    Attributes:
      every: rounds 0, ``every``, 2 · ``every``, ... are scored; with 0 none is.
      episodes: of every learner's task; None is as many as a training batch has.
      greedy: whether the most probable action is taken, instead of one from the policy's distribution.
      last: a round that is scored in any case, unless none is.
    """

    every: int = 1
    episodes: int | None = None
    greedy: bool = False
    last: int | None = None

    def is_due(self, round: Any) -> Any:
        """Whether a round is scored, elementwise for an array of rounds."""
        if not self.every:
            return np.zeros(np.shape(round), bool)
        due = round % self.every == 0
        return due if self.last is None else due | (round == self.last)

    def plays(self, problem: Problem, method: Method) -> bool:
        """Whether extra episodes are played to score θ^k.

        None are where learners sample whole episodes at θ^k themselves and neither ``greedy`` nor another number of episodes is set: the score of the
        training batch, which was drawn before anything was learned from it, is then unbiased.
        """
        elsewhere = method.local.moves or rollout_of(problem).continues
        return self.every > 0 and (elsewhere or self.greedy or self.episodes not in (None, method.batch_size))


def greedy(policy: Policy) -> Policy:
    """Makes the policy that always takes the most probable action of another."""

    def sample(noise: Any, params: Any, observation: Any) -> Any:
        action = policy.mode(params, observation)
        return action, policy.log_prob(params, observation, action)

    return policy._replace(sample=sample)


def as_evaluated(problem: Problem, evaluation: Evaluation) -> Problem:
    """Replaces the problem's policy with the one that is scored.

    Raises:
      ValueError: the greedy policy is to be scored where there are no episodes.
    """
    if not evaluation.greedy:
        return problem
    policy = problem.policy
    if policy is None or (problem.environment is None and problem.collect is None):
        raise ValueError(
            "evaluation.greedy needs a problem with a policy and episodes, which this one has not; leave it out."
        )
    return problem._replace(policy=greedy(policy))


def score_inside(problem: Problem, evaluation: Evaluation, method: Method) -> Score:
    """Scores θ^k on episodes inside JAX; a pure function."""
    problem, num = as_evaluated(problem, evaluation), evaluation.episodes or method.batch_size

    def score(root: Key[Array, ""], params: Float[Array, " d"], round: Any) -> Scores:
        def one(task: Task) -> tuple[dict[str, Float[Array, ""]], Int[Array, ""]]:
            batch = sample_batch(problem, root, task, params, round, 0, num, SCORE)
            return problem.score(task, batch), environment_steps(batch)

        return jax.vmap(one)(problem.tasks)

    return score


def score_outside(problem: Problem, evaluation: Evaluation, method: Method) -> Score:
    """Does what `score_inside` does with environments outside JAX; as many episodes at once as a training batch has."""
    problem, at_once = as_evaluated(problem, evaluation), method.batch_size
    policy, num = problem.policy, evaluation.episodes or at_once
    assert policy is not None
    play = sampler(problem, policy)

    @jax.jit
    def keys(root: Key[Array, ""], round: Any) -> Key[Array, " M"]:
        who = lambda task: NOBODY if problem.shared else task.index  # noqa: E731
        return jax.vmap(lambda task: address(root, SCORE, who(task), round))(problem.tasks)

    @jax.jit
    def score_batch(params: Float[Array, "M d"], recorded: HostBatch) -> Scores:
        def one(task: Task, params: Float[Array, " d"], recorded: HostBatch) -> Any:
            batch = to_batch(policy, task, params, recorded)
            return problem.score(task, batch), environment_steps(batch)

        return jax.vmap(one)(problem.tasks, params, recorded)

    def score(root: Key[Array, ""], params: Float[Array, " d"], round: Any) -> Scores:
        everywhere = jnp.broadcast_to(params, (problem.num_learners, *np.shape(params)))
        return score_batch(everywhere, play(keys(root, round), everywhere, num, at_once=at_once))

    return score


class Evaluator:
    """Scores θ^k for runtimes that play round by round, in the process that holds the controller, without the learners.

    Raises:
      ValueError: the evaluation does not fit the problem.
    """

    def __init__(self, problem: Problem, evaluation: Evaluation, method: Method) -> None:
        self._evaluation = evaluation
        outside = problem.collect is not None
        score = (score_outside if outside else score_inside)(problem, evaluation, method)
        self._score = score if outside else jax.jit(score)

    def __call__(self, seed: Any, params: Any, round: int) -> Scores | None:
        """Scores a round's θ^k; None where the round is not scored."""
        if not self._evaluation.is_due(round):
            return None
        return jax.tree.map(np.asarray, self._score(jax.random.key(seed), jnp.asarray(params), np.int32(round)))


def make_evaluator(problem: Problem, evaluation: Evaluation, method: Method) -> Evaluator | None:
    """Makes an `Evaluator`; None where no episodes are played to score θ^k (`Evaluation.plays`).

    Raises:
      ValueError: the evaluation does not fit the problem.
    """
    return Evaluator(problem, evaluation, method) if evaluation.plays(problem, method) else None


def with_scores(log: Log, found: Scores | None) -> Log:
    """Adds the scores of θ^k to a round's log; zeros if the round was not scored, which `finish_log` replaces with nan."""
    scores, steps = jax.tree.map(jnp.zeros_like, (log.training_scores, log.training_steps)) if found is None else found
    return dataclasses.replace(log, scores=scores, evaluation_steps=steps)


def finish_log(log: Log, first: int, evaluation: Evaluation) -> Log:
    """Marks the known scores in the log of rounds from ``first`` on, on the host: leading axes (lane, round).

    Training steps and scores are those of learners that took part and answered. Where the training batch gives the score, the batch of a learner that did
    not take part was played for the score alone, and counts as evaluation.
    """
    answered = log.participated & (np.asarray(log.faults.get("missing", 0)) == 0)
    due = evaluation.is_due(first + np.arange(answered.shape[1]))[:, None]
    played = np.maximum(log.training_steps, 0)  # -1 of one that did not answer
    spent: Any
    if log.scores:
        evaluated, scores, spent = due & np.ones_like(answered), log.scores, log.evaluation_steps
    else:
        evaluated = due & (answered if log.faults else np.ones_like(answered))
        scores, spent = log.training_scores, np.where(answered, 0, played)

    def where(known: np.ndarray, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: np.where(known, value, np.nan).astype(value.dtype) for name, value in values.items()}

    same = evaluation.every == 1 and not log.scores
    return dataclasses.replace(
        log,
        evaluated=evaluated,
        scores=where(evaluated, scores) if evaluation.every else {},
        evaluation_steps=np.where(evaluated, spent, 0),
        training_scores={} if same else where(answered, log.training_scores),
        training_steps=np.where(answered, played, 0),
    )
