"""The learner: estimate → memory → innovation → compressor → trigger → settle. No method is named here."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from lapg.types import (
    Broadcast,
    Candidate,
    Compressor,
    Estimate,
    Estimator,
    GradientAt,
    Learner,
    LearnerLog,
    LearnerState,
    Memory,
    Scalar,
    StepLimit,
    Task,
    Trigger,
    Upload,
    select,
    squared_norm,
    tree_bits,
)


def make_learner(
    estimator: Estimator,
    memory: Memory,
    compressor: Compressor,
    trigger: Trigger,
    step_limit: StepLimit | None = None,
    every: Scalar | None = None,
) -> Learner:
    """Puts the parts of learner m together.

    With a `lapg.types.StepLimit` uploads report a length. Where it is ``local``, the learner's own way from θ^k is no longer than that of a step of
    the controller's may be, as far as the Fisher matrix of its last batch along its last share tells.

    Uploads happen in rounds 0, ``every``, 2 · ``every``, ... alone, None is every round: in the others the trigger takes notice of what has come about,
    and its answer waits.

    With a memory that reuses, a learner that has never uploaded does so whatever its trigger says (round 0, a rejoin, a resync): the aggregate needs its
    share. One whose innovation is not finite does not upload, and its log says so.
    """
    strides = step_limit is not None and step_limit.local and memory.behaviour is not None

    def init(key: Key[Array, ""], index: Int[Array, ""], params: Float[Array, " d"]) -> LearnerState:
        slope = jnp.zeros((), params.dtype) if strides else ()
        start = memory.init(params), trigger.init(params)
        return LearnerState(index, estimator.init(key, params), *start, jnp.int32(-1), slope)

    def behaviour(state: LearnerState, broadcast: Broadcast) -> Float[Array, " d"]:
        if memory.behaviour is None:
            return broadcast.params
        there = memory.behaviour(state.memory, broadcast)
        if step_limit is None or not strides:
            return there
        way = there - broadcast.params
        longest, length = jnp.sqrt(2 * step_limit.limit), state.slope * jnp.sqrt(squared_norm(way))
        return jnp.where(length > longest, broadcast.params + way * (longest / length).astype(way.dtype), there)

    def take_in(
        task: Task, state: LearnerState, broadcast: Broadcast, batch: PyTree
    ) -> tuple[LearnerState, Float[Array, " d"], GradientAt]:
        inner = estimator.update(state.estimator, task, batch)
        here = behaviour(state, broadcast)
        on_policy = estimator.estimate(inner, task, here, batch)

        def gradient_at(params: Float[Array, " d"]) -> Estimate:
            return on_policy if params is here else estimator.estimate(inner, task, params, batch)

        updated = memory.update(state.memory, broadcast, here, gradient_at)
        return eqx.tree_at(lambda s: (s.estimator, s.memory), state, (inner, updated)), here, gradient_at

    def absorb(
        key: Key[Array, ""], task: Task, state: LearnerState, broadcast: Broadcast, batch: PyTree
    ) -> LearnerState:
        return take_in(task, state, broadcast, batch)[0]

    def reply(
        key: Key[Array, ""], task: Task, state: LearnerState, broadcast: Broadcast, batch: PyTree
    ) -> tuple[LearnerState, Upload, LearnerLog]:
        before = (state.memory, state.trigger)
        state, params, gradient_at = take_in(task, state, broadcast, batch)
        estimate = gradient_at(params)
        age = broadcast.round - state.sent_round
        innovation, noise = memory.innovation(state.memory, age)
        key_compress, key_trigger = jax.random.split(key)
        message = compressor.compress(key_compress, innovation)
        decoded = compressor.decompress(message)
        candidate = Candidate(innovation, noise, decoded, params, age, state.index, broadcast.signal)
        trigger_state, decision = trigger.update(key_trigger, state.trigger, candidate, gradient_at)

        finite = jnp.all(jnp.isfinite(innovation))
        due = True if every is None else broadcast.round % jnp.asarray(every, jnp.int32) == 0
        sent = (decision.fires | (memory.reuses & (state.sent_round < 0))) & due & finite
        share = memory.share(state.memory, decoded)
        measured: Any = () if step_limit is None else step_limit.length(params, batch, share)
        payload = (message, (decision.report, measured))
        message, report = select(sent, payload, jax.tree.map(jnp.zeros_like, payload))
        bits = compressor.num_bits(message) + tree_bits(report)
        upload = Upload(sent, message, report, jnp.where(sent, bits, 0).astype(jnp.int32))

        if strides:
            size = jnp.sqrt(squared_norm(share))
            slope = jnp.where(finite & (size > 0), measured / size, state.slope)
            state = eqx.tree_at(lambda s: s.slope, state, slope)
        settled = LearnerState(
            state.index,
            state.estimator,
            memory.settle(state.memory, decoded),
            trigger.settle(trigger_state, candidate),
            broadcast.round,
            state.slope,
        )
        # a gradient that is not finite is forgotten, or it would silence the learner for ever
        remembered = select(finite, (state.memory, trigger_state), before)
        kept = eqx.tree_at(lambda s: (s.memory, s.trigger), state, remembered)
        log = LearnerLog(
            innovation_norm=jnp.sqrt(squared_norm(innovation)),
            gradient_norm=jnp.sqrt(squared_norm(estimate.gradient)),
            noise=estimate.noise,
            trigger_left=decision.left,
            trigger_right=decision.right,
            staleness=jnp.where(sent, 0, age).astype(jnp.int32),
            non_finite=~finite,
        )
        return select(sent, settled, kept), upload, log

    return Learner(init, behaviour, absorb, reply)
