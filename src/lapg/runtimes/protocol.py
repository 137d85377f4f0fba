"""What every runtime does in a round, and what it leaves behind."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lapg.sampling import episodes
from lapg.types import (
    INIT,
    NOBODY,
    PRESENCE,
    RELAY,
    REPLY,
    ROLLOUT,
    SAMPLE,
    SCORE,
    SIGNAL,
    Broadcast,
    ControllerState,
    LearnerLog,
    LearnerState,
    Method,
    Problem,
    Rollout,
    RoundLog,
    Task,
    Upload,
    address,
    select,
)


class RunState(eqx.Module):
    """Everything that a run must remember between rounds; learners carry a leading axis M. ``downlink`` is the controller's end of it."""

    controller: ControllerState
    learners: LearnerState
    downlink: PyTree = ()


class Log(eqx.Module):
    """What one round leaves in the record; per-learner fields carry a leading axis M. ``faults`` is empty where nothing can go wrong on the way."""

    participated: Bool[Array | np.ndarray, " M"]
    downlink_bits: Int[Array | np.ndarray, " M"]
    sent: Bool[Array | np.ndarray, " M"]
    uplink_bits: Int[Array | np.ndarray, " M"]
    learner: LearnerLog
    controller: RoundLog
    scores: Mapping[str, Float[Array | np.ndarray, " M"]]
    faults: Mapping[str, Int[Array | np.ndarray, " M"]] = eqx.field(default_factory=dict)


def initialise(
    method: Method, problem: Problem, root: Key[Array, ""], params: Float[Array, " d"] | None = None
) -> RunState:
    """The state before round 0: θ⁰ (the problem's own if None) and learners that have never uploaded."""
    if params is None:
        params = problem.init(address(root, INIT, NOBODY, 0))

    controller = method.controller.init(params, problem.num_learners)
    learners = jax.vmap(lambda task: first_state(method, problem, root, task, params))(problem.tasks)
    return RunState(controller, learners, method.downlink.init(controller, problem.num_learners))


def first_state(
    method: Method, problem: Problem, root: Key[Array, ""], task: Task, params: Float[Array, " d"]
) -> LearnerState:
    """A learner that has never uploaded, and its environments at their first states, where they live on."""
    state = method.learner.init(address(root, INIT, task.index, 0), task.index, params)
    who = NOBODY if problem.shared else task.index
    return with_rollout(state, rollout_of(problem).init(address(root, ROLLOUT, who, 0), task, method.batch_size))


def rollout_of(problem: Problem) -> Rollout:
    """How the problem's learners come by their batches."""
    return problem.rollout or episodes(problem)


def with_rollout(state: LearnerState, rollout: PyTree) -> LearnerState:
    """The learner's state with another of its rollout; with (), as the learner's own functions see it."""
    return replace(state, rollout=rollout)


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
    """The batch of one learner. With shared samples the address names nobody, so everybody sees the same.

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
    """One learner's round: samples and takes in. Scores are those of its batch, or θ^k's own."""
    scored, rollout = None, rollout_of(problem)
    if method.local.moves:
        scored = sample_batch(problem, root, task, broadcast.params, broadcast.round, 0, method.batch_size, SCORE)
    if rollout.advance is None:
        raise ValueError("runtime must be lapg.runtimes.Hosted for a problem outside JAX, which has no sample.")
    key = address(root, SAMPLE, NOBODY if problem.shared else task.index, broadcast.round)
    params, own = method.learner.behaviour(state, broadcast), with_rollout(state, ())
    live, batch = rollout.advance(key, task, state.rollout, params, method.batch_size)
    after, answer = reply(method, problem, root, task, own, broadcast, batch, scored)
    return with_rollout(after, live), answer


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
    """Takes in the batch and answers the controller; ``scored`` is θ^k's own batch where learners sample elsewhere."""
    key = address(root, REPLY, state.index, broadcast.round)
    state, upload, log = method.learner.reply(key, task, state, broadcast, batch)
    scores = rollout_of(problem).score(task, batch) if scored is None else problem.score(task, scored)
    return state, Reply(upload, log, scores)


def announce(method: Method, root: Key[Array, ""], state: ControllerState) -> Broadcast:
    """The controller's broadcast of this round."""
    return method.controller.broadcast(address(root, SIGNAL, NOBODY, state.round), state)


def num_participants(fraction: float, num_learners: int) -> int:
    """How many of M learners take part in a round: the nearest whole number to fraction · M (of two, the even one), and at least 1."""
    return max(1, round(fraction * num_learners))


def participants(method: Method, root: Key[Array, ""], round: Int[Array, ""], num_learners: int) -> Bool[Array, " M"]:
    """Who takes part in a round: always equally many, drawn by address, at least one."""
    if method.participation == 1:
        return jnp.ones(num_learners, bool)
    places = jax.random.permutation(address(root, PRESENCE, NOBODY, round), num_learners)
    return places < num_participants(method.participation, num_learners)


def excuse(
    participated: Bool[Array, ""], before: LearnerState, after: LearnerState, reply: Reply, broadcast: Broadcast
) -> tuple[LearnerState, Reply]:
    """One learner's round as it counts: one that was absent has sent nothing, and remembers nothing of it. Its scores stand, for the record."""
    upload = select(participated, reply.upload, jax.tree.map(jnp.zeros_like, reply.upload))
    age = (broadcast.round - before.sent_round).astype(jnp.int32)
    log = eqx.tree_at(lambda log: log.staleness, reply.log, jnp.where(participated, reply.log.staleness, age))
    return select(participated, after, before), Reply(upload, log, reply.scores)


def make_relay(
    method: Method, root: Key[Array, ""], broadcast: Broadcast, downlink: PyTree, uploads: Upload
) -> tuple[PyTree, PyTree]:
    """What controller and replicas are to step with, made of the uploads; the downlink's new state first."""
    key = address(root, RELAY, NOBODY, broadcast.round)
    return method.downlink.compress(key, downlink, method.controller.gather(uploads), uploads.message)


def take_step(method: Method, state: ControllerState, relayed: PyTree) -> tuple[ControllerState, RoundLog]:
    """The controller's step, or that of a replica of it."""
    return method.controller.step(state, method.downlink.expand(relayed))


def conclude(
    method: Method, root: Key[Array, ""], broadcast: Broadcast, state: RunState, learners: LearnerState, replies: Reply
) -> tuple[RunState, Log]:
    """The controller's half of a round; learners (after their round) and replies carry a leading axis M, ``state`` is that before the round."""
    participated = participants(method, root, broadcast.round, replies.upload.sent.shape[0])
    learners, replies = jax.vmap(excuse, (0, 0, 0, 0, None))(participated, state.learners, learners, replies, broadcast)
    downlink, heard = method.downlink.deliver(state.downlink, state.controller, broadcast, participated)
    uploads = replies.upload
    downlink, relayed = make_relay(method, root, broadcast, downlink, uploads)
    controller, round_log = take_step(method, state.controller, relayed)
    log = Log(participated, heard, uploads.sent, uploads.bits, replies.log, round_log, replies.scores)
    return RunState(controller, learners, downlink), log


def play_round(method: Method, problem: Problem, root: Key[Array, ""], state: RunState) -> tuple[RunState, Log]:
    """One round of everybody, learners side by side."""
    broadcast = announce(method, root, state.controller)
    learners, replies = jax.vmap(lambda task, learner: play_learner(method, problem, root, task, learner, broadcast))(
        problem.tasks, state.learners
    )
    return conclude(method, root, broadcast, state, learners, replies)
