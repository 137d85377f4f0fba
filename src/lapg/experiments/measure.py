"""What is known of a problem before a run: the constants of the theory, and gradients' noise on a few batches."""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lapg import theory
from lapg.experiments.build import build_estimator
from lapg.experiments.config import Config
from lapg.rollouts import rollout_of
from lapg.rounds import first_rollout, next_batch
from lapg.runtimes.host_env import sampler, to_batch
from lapg.types import NOBODY, SAMPLE, Problem, ScoreBounds, address

Certainty = Literal["exact", "bound", "estimate", "measured", "setting"]


class Constants(NamedTuple):
    """G, F, ℓ̄_m and L_m, each with its certainty; None where there is no such thing."""

    scores: ScoreBounds | None
    losses: np.ndarray | None
    smoothness: np.ndarray | None
    certainty: Certainty
    remarks: tuple[str, ...] = ()


def known_constants(problem: Problem, params: Any, seed: int) -> Constants:
    """The best that is known of a problem: its own constants, bounds from its policy's, or estimates at ``params``."""
    if problem.sample is None:
        return Constants(None, None, None, "estimate", ("nothing is known of an environment outside JAX",))
    if problem.smoothness is not None:
        return Constants(None, None, np.asarray(jax.vmap(problem.smoothness)(problem.tasks)), "exact")
    policy = problem.policy
    if policy is None:
        return Constants(None, None, None, "estimate", ("nothing is known of this problem's constants",))
    remarks, certainty = [], "bound"
    scores = policy.score_bounds
    losses = None if problem.loss_bound is None else np.asarray(jax.vmap(problem.loss_bound)(problem.tasks))
    if scores is None or not math.isfinite(scores.score) or losses is None:
        found = theory.estimate_constants(problem, seed, 100, params=params, num_hessians=64)
        certainty = "estimate"
        if losses is None:
            losses = np.asarray(found.losses)
            remarks.append("losses are known only from trajectories")
        if scores is None:
            scores = found.scores
            remarks.append("networks have no G and F that hold for all θ: Assumption 2 is false for them")
        elif not math.isfinite(scores.score):
            scores = found.scores
            remarks.append("normal policies have infinite G and F: Assumption 2 is false for them")
    smooth = theory.smoothness(scores, losses, problem.discount, problem.num_steps, form="sharp")
    return Constants(scores, losses, np.asarray(smooth), certainty, tuple(remarks))


def measure(
    config: Config, problem: Problem, params: Any, seed: int, num_batches: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per learner the mean noise σ̂² of a batch's gradient, and ‖∇L_m‖² without it: ‖mean‖² − σ̂²/(number of batches), at least 0.

    Where an estimator does not know its noise (inf) it is the variance of the batches' gradients.
    """
    estimator = build_estimator(config, problem)
    root, num = jax.random.key(seed), config.batch_size

    def take(state: Any, task: Any, batch: Any) -> Any:
        state = estimator.update(state, task, batch)
        estimate = estimator.estimate(state, task, params, batch)
        return state, (estimate.gradient, estimate.noise)

    def judge(found: Any) -> Any:
        gradients, noises = found
        noise = noises.mean()
        spread = jnp.sum((gradients - gradients.mean(0)[None]) ** 2) / (num_batches - 1)
        noise = jnp.where(jnp.isfinite(noise), noise, spread)
        return noise, jnp.maximum(jnp.sum(gradients.mean(0) ** 2) - noise / num_batches, 0)

    def learner(task: Any) -> Any:
        def step(states: Any, round: Any) -> Any:
            rollout, batch = next_batch(problem, root, task, states[1], params, round, num)
            state, found = take(states[0], task, batch)
            return (state, rollout), found

        start = estimator.init(root, params), first_rollout(problem, root, task, num)
        return judge(jax.lax.scan(step, start, jnp.arange(num_batches))[1])

    if problem.collect is None:
        found = jax.jit(lambda tasks: jax.lax.map(learner, tasks))(problem.tasks)
    else:
        states = jax.vmap(lambda task: estimator.init(root, params))(problem.tasks)
        step, rounds = jax.jit(jax.vmap(take)), []
        for batch in _on_host(problem, root, params, num_batches, num):
            states, one = step(states, problem.tasks, batch)
            rounds.append(one)
        found = jax.jit(jax.vmap(judge, 1))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *rounds))
    noise, signal = jax.tree.map(np.asarray, found)
    return noise, signal


def _on_host(problem: Problem, root: Any, params: Any, num_batches: int, num: int) -> Iterator[Any]:
    """Batches of all learners, at the addresses of `lapg.rounds.next_batch`."""
    policy = problem.policy
    assert policy is not None
    rollout, everywhere = rollout_of(problem), jnp.broadcast_to(params, (problem.num_learners, params.size))
    play = sampler(problem, policy, rollout.num_steps if rollout.continues else None)
    which = {"lane": object(), "learners": range(problem.num_learners)} if rollout.continues else {}
    label = jax.jit(jax.vmap(lambda task, played: to_batch(policy, task, params, played)))
    for round in range(num_batches):
        who = jax.vmap(lambda task: jnp.uint32(NOBODY) if problem.shared else task.index)(problem.tasks)
        keys = jax.vmap(lambda m, round=round: address(root, SAMPLE, m, round))(who)
        yield label(problem.tasks, play(keys, everywhere, num, **which))
