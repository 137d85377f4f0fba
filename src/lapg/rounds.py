"""What every runtime does in a round, and what it leaves behind."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lapg.rollouts import rollout_of
from lapg.types import (
    INIT,
    NOBODY,
    PRESENCE,
    RELAY,
    REPLY,
    ROLLOUT,
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
    Trajectories,
    Upload,
    address,
    select,
)

HOSTED = "runtime must be lapg.runtimes.Hosted for a problem outside JAX, which has no sample."


class RunState(eqx.Module):
    """Everything that a run must remember between rounds; learners carry a leading axis M. ``downlink`` is the controller's end of it."""

    controller: ControllerState
    learners: LearnerState
    downlink: PyTree = ()


class Log(eqx.Module):
    """What one round leaves in the record; per-learner fields have an axis M, and a stretch's log leading axes (lane, round). ``faults`` is empty where nothing can go wrong on the way.

    ``training_scores`` and ``training_steps`` are of the batches that learners learned from, whatever θ they were sampled at; ``scores`` are those of
    θ^k, where ``evaluated``, and ``evaluation_steps`` were played for them alone (`lapg.runtimes.evaluation.finish_log`).
    """

    participated: Bool[Array | np.ndarray, "*K M"]
    downlink_bits: Int[Array | np.ndarray, "*K M"]
    sent: Bool[Array | np.ndarray, "*K M"]
    uplink_bits: Int[Array | np.ndarray, "*K M"]
    learner: LearnerLog
    controller: RoundLog
    training_scores: Mapping[str, Float[Array | np.ndarray, "*K M"]]
    training_steps: Int[Array | np.ndarray, "*K M"]
    scores: Mapping[str, Float[Array | np.ndarray, "*K M"]] = eqx.field(default_factory=dict)
    evaluation_steps: Int[Array | np.ndarray, "*K M"] | None = None
    evaluated: Bool[np.ndarray, "*K M"] | None = None
    faults: Mapping[str, Int[Array | np.ndarray, "*K M"]] = eqx.field(default_factory=dict)


def initialise(
    method: Method, problem: Problem, root: Key[Array, ""], params: Float[Array, " d"] | None = None
) -> RunState:
    """The state before round 0: θ⁰ (the problem's own if None, which learners draw from the seed) and learners that have never uploaded."""
    drawn = params is None
    if params is None:
        params = problem.init(address(root, INIT, NOBODY, 0))

    controller = method.controller.init(params, problem.num_learners)
    learners = jax.vmap(lambda task: first_state(method, problem, root, task, params))(problem.tasks)
    downlink = method.downlink.init(controller, problem.num_learners)
    if not drawn:
        downlink = method.downlink.resync(downlink, jnp.ones(problem.num_learners, bool))
    return RunState(controller, learners, downlink)


def first_state(
    method: Method, problem: Problem, root: Key[Array, ""], task: Task, params: Float[Array, " d"]
) -> LearnerState:
    """A learner that has never uploaded, and its environments at their first states, where they live on."""
    state = method.learner.init(address(root, INIT, task.index, 0), task.index, params)
    return replace(state, rollout=first_rollout(problem, root, task, method.batch_size))


def first_rollout(problem: Problem, root: Key[Array, ""], task: Task, num: int) -> PyTree:
    """The state of a learner's rollout before round 0."""
    return rollout_of(problem).init(address(root, ROLLOUT, NOBODY if problem.shared else task.index, 0), task, num)


def next_batch(
    problem: Problem,
    root: Key[Array, ""],
    task: Task,
    rollout: PyTree,
    params: Float[Array, " d"],
    round: Any,
    num: int,
) -> tuple[PyTree, PyTree]:
    """The state of a learner's rollout after a round, and what it learns from. With shared samples the address names nobody, so everybody sees the same.

    Raises:
      ValueError: the problem's environment is outside JAX.
    """
    advance = rollout_of(problem).advance
    if advance is None:
        raise ValueError(HOSTED)
    key = address(root, SAMPLE, NOBODY if problem.shared else task.index, round)
    return advance(key, task, rollout, params, num)


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
    """Whole episodes, or other samples, of one learner. With shared ones the address names nobody, so everybody sees the same.

    Raises:
      ValueError: the problem's environment is outside JAX.
    """
    if problem.sample is None:
        raise ValueError(HOSTED)
    who = NOBODY if problem.shared else task.index
    return problem.sample(address(root, purpose, who, round, step), task, params, num)


def environment_steps(batch: PyTree) -> Int[Array, ""]:
    """Steps of the environment in a batch of `Trajectories`, up to each row's end; 0 in any other batch, for which none was made."""
    return jnp.sum(batch.mask, dtype=jnp.int32) if isinstance(batch, Trajectories) else jnp.int32(0)


class Reply(eqx.Module):
    """What comes of a learner's round besides its state: the upload, and for the record its log, the scores of its batch, and the steps it played."""

    upload: Upload
    log: LearnerLog
    scores: dict[str, Float[Array, "*M"]]
    steps: Int[Array, "*M"]


def play_learner(
    method: Method, problem: Problem, root: Key[Array, ""], task: Task, state: LearnerState, broadcast: Broadcast
) -> tuple[LearnerState, Reply]:
    """One learner's round: samples and takes in."""
    params = method.learner.behaviour(state, broadcast)
    rollout, batch = next_batch(problem, root, task, state.rollout, params, broadcast.round, method.batch_size)
    after, answer = reply(method, problem, root, task, replace(state, rollout=()), broadcast, batch)
    return replace(after, rollout=rollout), answer


def reply(
    method: Method,
    problem: Problem,
    root: Key[Array, ""],
    task: Task,
    state: LearnerState,
    broadcast: Broadcast,
    batch: PyTree,
) -> tuple[LearnerState, Reply]:
    """Takes in the batch and answers the controller."""
    key = address(root, REPLY, state.index, broadcast.round)
    state, upload, log = method.learner.reply(key, task, state, broadcast, batch)
    return state, Reply(upload, log, rollout_of(problem).score(task, batch), environment_steps(batch))


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


def mask_absent(
    participated: Bool[Array, ""], before: LearnerState, after: LearnerState, reply: Reply, broadcast: Broadcast
) -> tuple[LearnerState, Reply]:
    """One learner's round as it counts: one that was absent has sent nothing, and remembers nothing of it. Its scores and steps stand, for the record."""
    upload = select(participated, reply.upload, jax.tree.map(jnp.zeros_like, reply.upload))
    age = (broadcast.round - before.sent_round).astype(jnp.int32)
    log = eqx.tree_at(lambda log: log.staleness, reply.log, jnp.where(participated, reply.log.staleness, age))
    return select(participated, after, before), Reply(upload, log, reply.scores, reply.steps)


def make_relay(
    method: Method, root: Key[Array, ""], broadcast: Broadcast, downlink: PyTree, uploads: Upload
) -> tuple[PyTree, PyTree]:
    """What controller and replicas are to step with, made of the uploads; the downlink's new state first."""
    key = address(root, RELAY, NOBODY, broadcast.round)
    return method.downlink.compress(key, downlink, method.controller.gather(uploads), uploads.message)


def take_step(method: Method, state: ControllerState, relayed: PyTree) -> tuple[ControllerState, RoundLog]:
    """The controller's step, or that of a replica of it."""
    return method.controller.step(state, method.downlink.expand(relayed))


def finish_round(
    method: Method, root: Key[Array, ""], broadcast: Broadcast, state: RunState, learners: LearnerState, replies: Reply
) -> tuple[RunState, Log]:
    """The controller's half of a round; learners (after their round) and replies carry a leading axis M, ``state`` is that before the round."""
    participated = participants(method, root, broadcast.round, replies.upload.sent.shape[0])
    learners, replies = jax.vmap(mask_absent, (0, 0, 0, 0, None))(
        participated, state.learners, learners, replies, broadcast
    )
    downlink, downlink_bits = method.downlink.deliver(state.downlink, state.controller, broadcast, participated)
    uploads = replies.upload
    downlink, relayed = make_relay(method, root, broadcast, downlink, uploads)
    controller, round_log = take_step(method, state.controller, relayed)
    log = Log(
        participated, downlink_bits, uploads.sent, uploads.bits, replies.log, round_log, replies.scores, replies.steps
    )
    return RunState(controller, learners, downlink), log


def play_round(method: Method, problem: Problem, root: Key[Array, ""], state: RunState) -> tuple[RunState, Log]:
    """One round of everybody, learners side by side."""
    broadcast = announce(method, root, state.controller)
    learners, replies = jax.vmap(lambda task, learner: play_learner(method, problem, root, task, learner, broadcast))(
        problem.tasks, state.learners
    )
    return finish_round(method, root, broadcast, state, learners, replies)
