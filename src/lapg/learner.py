"""The learner: estimate → variance reduction → local steps → memory → innovation → compressor → trigger → settle. No method is named here."""

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
    Learner,
    LearnerLog,
    LearnerState,
    Local,
    Memory,
    Scalar,
    StepLimit,
    Task,
    Trigger,
    Upload,
    VarianceReduction,
    Weighted,
    select,
    squared_norm,
    tree_bits,
)


def make_learner(
    estimator: Estimator,
    memory: Memory,
    compressor: Compressor,
    trigger: Trigger,
    *,
    reduction: VarianceReduction | None = None,
    local: Local | None = None,
    step_limit: StepLimit | None = None,
    every: Scalar | None = None,
    num_entries: int = 1,
) -> Learner:
    """Puts the parts of learner m together.

    With a `lapg.types.StepLimit` uploads report a length. Where it is ``local``, the learner's own way from θ^k is no longer than that of a step of
    the controller's may be, as far as the Fisher matrix of its last batch along its last share tells.

    Uploads happen in rounds 0, ``every``, 2 · ``every``, ... alone, None is every round: in the others the trigger takes notice of what has come about,
    and its answer waits.

    Statistics among the entries of θ take in the batch at the end of the learner's own steps, as a part of their displacement.

    Where the controller keeps shares, a learner that has never uploaded does so whatever its trigger says (round 0, a rejoin, a resync): the aggregate
    needs its share. One whose innovation is not finite does not upload, and its log says so.

    Args:
      reduction, local: None are the trivial ones.
      num_entries: number of entries of the prepared batch (`lapg.types.Estimator`), from which minibatches are drawn.
    Raises:
      ValueError: local steps move away from θ^k, and the memory holds nothing back that would say where to.
    """
    statistics = estimator.statistics
    reduction, local, residual = reduction or VarianceReduction(), local or Local(), memory.residual
    if local.moves and residual is None:
        raise ValueError(
            "steps of the learner's own (local) need a memory that holds back what is not sent, got one without a residual; use the memory that "
            "accumulates, or local.stand()."
        )
    shortened = step_limit if step_limit is not None and step_limit.local and local.moves else None

    def init(key: Key[Array, ""], index: Int[Array, ""], params: Float[Array, " d"]) -> LearnerState:
        parts = reduction.init(params), local.init(params), memory.init(params), trigger.init(params)
        slope = () if shortened is None else jnp.zeros((), params.dtype)
        return LearnerState(index, estimator.init(key, params), *parts, jnp.int32(-1), slope)

    def behaviour(state: LearnerState, broadcast: Broadcast) -> Float[Array, " d"]:
        if residual is None:
            return broadcast.params
        there = local.position(broadcast, residual(state.memory))
        if shortened is None:
            return there
        way = there - broadcast.params
        longest, length = jnp.sqrt(2 * shortened.limit), state.slope * jnp.sqrt(squared_norm(way))
        return jnp.where(length > longest, broadcast.params + way * (longest / length).astype(way.dtype), there)

    def reply(
        key: Key[Array, ""], task: Task, state: LearnerState, broadcast: Broadcast, batch: PyTree
    ) -> tuple[LearnerState, Upload, LearnerLog]:
        key_compress, key_trigger, key_walk = jax.random.split(key, 3)
        knowledge = estimator.update(state.estimator, task, batch)
        params = behaviour(state, broadcast)
        data = estimator.prepare(knowledge, task, params, batch)

        def gradient_at(params: Float[Array, " d"], rows: Int[Array, " n"] | None = None) -> Estimate:
            part = data if rows is None else estimator.part(data, rows)
            estimate = estimator.estimate(knowledge, task, params, part)
            if estimate.noise is None and estimator.knows_noise:
                raise ValueError(
                    "Estimator(knows_noise=...) must be False where estimate returns noise=None, got True; give it, or estimate the noise."
                )
            return estimate

        raw = gradient_at(params)
        reduction_state, refined = reduction.refine(state.reduction, broadcast, params, raw, gradient_at)
        local_state, estimate = local.walk(key_walk, state.local, params, refined, gradient_at, num_entries)
        if statistics is not None:
            begun = params[-statistics.num_entries :]
            ended = statistics.absorb(begun, batch, broadcast.round)
            moved = estimate.gradient.at[-statistics.num_entries :].set(begun - ended)
            estimate = eqx.tree_at(lambda found: found.gradient, estimate, moved)
        memory_state = memory.update(state.memory, broadcast, estimate)
        age = broadcast.round - state.sent_round
        innovation, noise = memory.innovation(memory_state, age)
        message = compressor.compress(key_compress, innovation)
        decoded = compressor.decompress(message)
        candidate = Candidate(innovation, noise, decoded, params, age, state.index, broadcast.signal)
        trigger_state, decision = trigger.update(key_trigger, state.trigger, candidate, estimate, gradient_at)

        finite = jnp.all(jnp.isfinite(innovation))
        due = True if every is None else broadcast.round % jnp.asarray(every, jnp.int32) == 0
        owed = memory.aggregate.keeps_shares & (state.sent_round < 0)
        sent = (decision.fires | owed) & due & finite
        if trigger.weighs:
            assert decision.weight is not None, "Trigger.weighs"
            message = _weigh(message, jnp.where(owed, 1, decision.weight))
            decoded = compressor.decompress(message)
        share = memory.share(memory_state, decoded)
        length: Any = () if step_limit is None else step_limit.length(params, batch, share)
        travels = message, decision.report, length
        message, report, reported = select(sent, travels, jax.tree.map(jnp.zeros_like, travels))
        bits = compressor.num_bits(message) + tree_bits((report, reported))
        upload = Upload(sent, message, report, reported, jnp.where(sent, bits, 0).astype(jnp.int32))

        slope = state.slope
        if shortened is not None:
            size = jnp.sqrt(squared_norm(share))
            slope = jnp.where(finite & (size > 0), length / size, slope)

        def after(reduction: PyTree, local: PyTree, memory: PyTree, trigger: PyTree, sent: PyTree) -> LearnerState:
            return LearnerState(state.index, knowledge, reduction, local, memory, trigger, sent, slope)

        settled = memory.settle(memory_state, decoded), trigger.settle(trigger_state, candidate)
        uploaded = after(reduction_state, local_state, *settled, broadcast.round)
        silent = after(reduction_state, local_state, memory_state, trigger_state, state.sent_round)
        # a gradient that is not finite is forgotten, or it would silence the learner for ever
        forgotten = after(state.reduction, state.local, state.memory, state.trigger, state.sent_round)
        log = LearnerLog(
            innovation_norm=jnp.sqrt(squared_norm(innovation)),
            gradient_norm=jnp.sqrt(squared_norm(raw.gradient)),
            noise=raw.noise_or_inf,
            trigger_statistic=decision.statistic,
            trigger_threshold=decision.threshold,
            staleness=jnp.where(sent, 0, age).astype(jnp.int32),
            non_finite=~finite,
        )
        return select(sent, uploaded, select(finite, silent, forgotten)), upload, log

    return Learner(init, behaviour, reply)


def _weigh(message: Weighted, weight: Float[Array, ""]) -> Weighted:
    """The message with this weight; with 0 nothing is left of it."""
    kept = select(weight != 0, message.message, jax.tree.map(jnp.zeros_like, message.message))
    return Weighted(jnp.asarray(weight, message.weight.dtype), kept)
