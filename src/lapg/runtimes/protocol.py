"""What every runtime does in a round, and what it leaves behind."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lapg.types import (
    INIT,
    NOBODY,
    REPLY,
    SAMPLE,
    SIGNAL,
    Broadcast,
    ControllerState,
    LearnerLog,
    LearnerState,
    Method,
    Problem,
    RoundLog,
    Task,
    Upload,
    address,
)


class RunState(eqx.Module):
    """Everything that a run must remember between rounds; learners carry a leading axis M."""

    controller: ControllerState
    learners: LearnerState


class Log(eqx.Module):
    """What one round leaves in the record; per-learner fields carry a leading axis M."""

    sent: Bool[Array, " M"]
    uplink_bits: Int[Array, " M"]
    learner: LearnerLog
    controller: RoundLog
    scores: dict[str, Float[Array, " M"]]


def initialise(
    method: Method, problem: Problem, root: Key[Array, ""], params: Float[Array, " d"] | None = None
) -> RunState:
    """The state before round 0: θ⁰ (the problem's own if None) and learners that have never uploaded."""
    if params is None:
        params = problem.init(address(root, INIT, NOBODY, 0))

    def learner(index: Int[Array, ""]) -> LearnerState:
        return method.learner.init(address(root, INIT, index, 0), index, params)

    controller = method.controller.init(params, problem.num_learners)
    return RunState(controller, jax.vmap(learner)(jnp.arange(problem.num_learners, dtype=jnp.int32)))


def sample_batch(
    problem: Problem, root: Key[Array, ""], task: Task, params: Float[Array, " d"], round: Any, step: int, num: int
) -> PyTree:
    """The batch of one learner and inner step. With shared samples the address names nobody, so everybody sees the same."""
    who = NOBODY if problem.shared else task.index
    return problem.sample(address(root, SAMPLE, who, round, step), task, params, num)


def play_learner(
    method: Method, problem: Problem, root: Key[Array, ""], task: Task, state: LearnerState, broadcast: Broadcast
) -> tuple[LearnerState, Upload, LearnerLog, dict[str, Float[Array, ""]]]:
    """One learner's round: sample and absorb, as often as the method says; then reply. Scores are those of the last batch."""
    *inner, last = method.batches
    key = [address(root, REPLY, state.index, broadcast.round, step) for step in range(len(method.batches))]
    for step, num in enumerate(inner):
        params = method.learner.behaviour(state, broadcast)
        batch = sample_batch(problem, root, task, params, broadcast.round, step, num)
        state = method.learner.absorb(key[step], task, state, broadcast, batch)
    params = method.learner.behaviour(state, broadcast)
    batch = sample_batch(problem, root, task, params, broadcast.round, len(inner), last)
    state, upload, log = method.learner.reply(key[-1], task, state, broadcast, batch)
    return state, upload, log, problem.score(task, batch)


def announce(method: Method, root: Key[Array, ""], state: ControllerState) -> Broadcast:
    """The controller's broadcast of this round."""
    return method.controller.broadcast(address(root, SIGNAL, NOBODY, state.round), state)


def play_round(method: Method, problem: Problem, root: Key[Array, ""], state: RunState) -> tuple[RunState, Log]:
    """One round of everybody, learners side by side."""
    broadcast = announce(method, root, state.controller)
    learners, uploads, log, scores = jax.vmap(
        lambda task, learner: play_learner(method, problem, root, task, learner, broadcast)
    )(problem.tasks, state.learners)
    controller, round_log = method.controller.step(state.controller, method.controller.gather(uploads))
    return RunState(controller, learners), Log(uploads.sent, uploads.bits, log, round_log, scores)
