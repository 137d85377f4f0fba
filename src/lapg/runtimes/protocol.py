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
    SCORE,
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
    problem: Problem,
    root: Key[Array, ""],
    task: Task,
    params: Float[Array, " d"],
    round: Any,
    step: int,
    num: int,
    purpose: int = SAMPLE,
) -> PyTree:
    """The batch of one learner and inner step. With shared samples the address names nobody, so everybody sees the same.

    Raises:
      ValueError: the problem's environment is outside JAX.
    """
    if problem.sample is None:
        raise ValueError("runtime must be lapg.runtimes.Hosted for a problem outside JAX, which has no sample.")
    who = NOBODY if problem.shared else task.index
    return problem.sample(address(root, purpose, who, round, step), task, params, num)


class Reply(eqx.Module):
    """What comes of a learner's round besides its state."""

    upload: Upload
    log: LearnerLog
    scores: dict[str, Float[Array, "*M"]]


def play_learner(
    method: Method, problem: Problem, root: Key[Array, ""], task: Task, state: LearnerState, broadcast: Broadcast
) -> tuple[LearnerState, Reply]:
    """One learner's round: samples and takes in, as often as the method says. Scores are those of the last batch, or θ^k's own."""
    *inner, last = method.batches
    scored = None
    if method.local:
        scored = sample_batch(problem, root, task, broadcast.params, broadcast.round, 0, last, SCORE)

    def draw(step: int, num: int) -> PyTree:
        params = method.learner.behaviour(state, broadcast)
        return sample_batch(problem, root, task, params, broadcast.round, step, num)

    for step, num in enumerate(inner):
        state = absorb(method, root, task, state, broadcast, step, draw(step, num))
    return reply(method, problem, root, task, state, broadcast, draw(len(inner), last), scored)


def absorb(
    method: Method,
    root: Key[Array, ""],
    task: Task,
    state: LearnerState,
    broadcast: Broadcast,
    step: int,
    batch: PyTree,
) -> LearnerState:
    """Takes in the batch of an inner step before the last."""
    key = address(root, REPLY, state.index, broadcast.round, step)
    return method.learner.absorb(key, task, state, broadcast, batch)


def reply(
    method: Method,
    problem: Problem,
    root: Key[Array, ""],
    task: Task,
    state: LearnerState,
    broadcast: Broadcast,
    batch: PyTree,
    scored: PyTree = None,
) -> tuple[LearnerState, Reply]:
    """Takes in the last batch and answers the controller; ``scored`` is θ^k's own batch where learners are `lapg.types.Method.local`."""
    key = address(root, REPLY, state.index, broadcast.round, len(method.batches) - 1)
    state, upload, log = method.learner.reply(key, task, state, broadcast, batch)
    return state, Reply(upload, log, problem.score(task, batch if scored is None else scored))


def announce(method: Method, root: Key[Array, ""], state: ControllerState) -> Broadcast:
    """The controller's broadcast of this round."""
    return method.controller.broadcast(address(root, SIGNAL, NOBODY, state.round), state)


def conclude(
    method: Method, controller: ControllerState, learners: LearnerState, replies: Reply
) -> tuple[RunState, Log]:
    """The controller's half of a round; learners and replies carry a leading axis M."""
    uploads = replies.upload
    controller, round_log = method.controller.step(controller, method.controller.gather(uploads))
    return RunState(controller, learners), Log(uploads.sent, uploads.bits, replies.log, round_log, replies.scores)


def play_round(method: Method, problem: Problem, root: Key[Array, ""], state: RunState) -> tuple[RunState, Log]:
    """One round of everybody, learners side by side."""
    broadcast = announce(method, root, state.controller)
    learners, replies = jax.vmap(lambda task, learner: play_learner(method, problem, root, task, learner, broadcast))(
        problem.tasks, state.learners
    )
    return conclude(method, state.controller, learners, replies)
