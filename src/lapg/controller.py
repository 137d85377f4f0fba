"""The controller: gather → aggregate → optimiser → θ. No method is named here."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from lapg.types import (
    Aggregate,
    Arrival,
    Broadcast,
    Compressor,
    Controller,
    ControllerState,
    RoundLog,
    Scalar,
    Trigger,
    Upload,
    is_concrete,
    select,
    squared_norm,
    sum_rows,
)


def inverse_time(step_size: Scalar, decay: Scalar) -> optax.Schedule:
    """α_k = α / (1 + decay · k); 0 is the paper's constant step.

    Raises:
      ValueError: decay is negative, so that steps would grow, or turn round.
    """
    if is_concrete(decay) and not float(decay) >= 0:
        raise ValueError(f"inverse_time(decay=...) must be >= 0, got {float(decay)}; 0 keeps the step constant.")
    return lambda round: step_size / (1 + decay * round)


def heavy_ball(step_size: Scalar, momentum: Scalar = 0.0, decay: Scalar = 0.0) -> optax.GradientTransformation:
    """θ^{k+1} = θ^k − α_k∇̂^k + β(θ^k − θ^{k−1}), the paper's update with momentum; β = 0 is (12). See `inverse_time` for α_k.

    With a decaying step the momentum term is scaled with the step, which the paper, where α is constant, leaves open.

    Raises:
      ValueError: step_size is not positive, momentum lies outside [0, 1), where steps add up without end, or decay is negative.
    """
    if is_concrete(step_size) and not float(step_size) > 0:
        raise ValueError(f"heavy_ball(step_size=...) must be > 0, got {float(step_size)}.")
    if is_concrete(momentum) and not 0 <= float(momentum) < 1:
        raise ValueError(f"heavy_ball(momentum=...) must lie in [0, 1), got {float(momentum)}; 0 is no momentum.")
    return optax.sgd(inverse_time(step_size, decay), momentum)


def check_linear(
    optimiser: optax.GradientTransformation, what: str, remedy: str, found: str = "one that turns"
) -> None:
    """Refuses an optimiser whose steps are not proportional to the gradients.

    Args:
      what, remedy, found: how the message begins and ends, and what it says of the optimiser.
    Raises:
      ValueError: the optimiser is not linear (Adam, clipping), as far as its first step shows.
    """
    unit = jnp.ones(())
    once, twice = (jnp.asarray(optimiser.update(size, optimiser.init(unit), unit)[0]) for size in (unit, 2 * unit))
    if is_concrete(once) and not np.allclose(2 * np.asarray(once), np.asarray(twice)):
        raise ValueError(
            f"{what} an optimiser that is linear in the gradients, got {found} 1 and 2 into {once:.3g} and {twice:.3g}; {remedy}."
        )


def limit_step(
    optimiser: optax.GradientTransformation, limit: Scalar, num_learners: int, aggregate: Aggregate
) -> optax.GradientTransformationExtraArgs:
    """Shortens steps Δθ so that the predicted divergence ½ Δθᵀ F Δθ of the policies before and after stays within ``limit`` (nats an episode).

    Learner m reports q_m = (v_mᵀ F v_m)^½ for its share v_m of the aggregate (`lapg.estimators.fisher_norm`). The aggregate's own length is at most
    Σ_m q_m, by the triangle inequality, and so Δθ's is at most what the optimiser makes of the number Σ_m q_m in place of the gradient, if it is
    linear with non-negative weights: for plain steps α Σ_m q_m, with momentum the momentum's sum of such terms. Steps that are longer are scaled
    to ½ length² = limit; what the optimiser remembers is not.

    The bound holds for one F, the Fisher matrix of an episode. Learners measure with their own batches; where their environments or starts differ, so
    do their matrices, and the bound is one on each of them only as far as they agree. Lengths are as old as the shares: where the aggregate keeps those, the
    last report of a learner that is silent stands, measured at the policy of its last upload, and so do the terms in the momentum.

    Raises:
      ValueError: limit is not positive, or the optimiser is not linear (Adam, clipping).
    """
    if is_concrete(limit) and not float(limit) > 0:
        raise ValueError(f"step_limit.limit must be > 0, got {float(limit)}; step_limit 'unlimited' has none.")
    check_linear(optimiser, "a step limit needs", "use optimiser sgd, or step_limit unlimited")

    def init(params: Any) -> Any:
        zero = jnp.zeros((), params.dtype)
        return optimiser.init((params, zero)), jnp.zeros((num_learners,), params.dtype)

    def update(updates: Any, state: Any, params: Any = None, **arrival: Any) -> Any:
        inner, held = state
        held = jnp.where(arrival["sent"], arrival["lengths"], held if aggregate.keeps_shares else 0)
        total = jnp.sum(held)
        changes: Any = optimiser.update((updates, total), inner, (params, jnp.zeros_like(total)))
        (step, length), inner = changes
        return step * jnp.minimum(1, jnp.sqrt(2 * limit) / jnp.abs(length)).astype(step.dtype), (inner, held)

    return optax.GradientTransformationExtraArgs(init, update)


def on_arrivals(optimiser: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """An optimiser that does nothing, and remembers nothing, of a round in which nobody has uploaded, or nothing but reports: its moments would decay in silence."""
    inner = optax.with_extra_args_support(optimiser)

    def update(updates: Any, state: Any, params: Any = None, **arrival: Any) -> Any:
        silent = jax.tree.map(jnp.zeros_like, updates), state
        arrived = jnp.any(arrival["sent"]) & jnp.any(updates != 0)
        return select(arrived, inner.update(updates, state, params, **arrival), silent)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def make_controller(
    compressor: Compressor, trigger: Trigger, optimiser: optax.GradientTransformation, aggregate: Aggregate
) -> Controller:
    """Puts the parts of the controller together."""
    optimise = optax.with_extra_args_support(optimiser)

    def init(params: Float[Array, " d"], num_learners: int) -> ControllerState:
        return ControllerState(
            jnp.int32(0),
            params,
            jnp.zeros_like(params),
            optimiser.init(params),
            trigger.controller_init(params, num_learners),
        )

    def broadcast(key: Key[Array, ""], state: ControllerState) -> Broadcast:
        return Broadcast(state.round, state.params, trigger.signal(key, state.trigger))

    def gather(uploads: Upload) -> Arrival:
        decoded = jax.vmap(compressor.decompress)(uploads.message)
        total = sum_rows(decoded, uploads.sent)
        return Arrival(total, uploads.sent, uploads.report, uploads.length)

    def step(state: ControllerState, arrival: Arrival) -> tuple[ControllerState, RoundLog]:
        combined = aggregate.combine(state.aggregate, arrival)
        updates, inner = optimise.update(
            combined, state.optimiser, state.params, sent=arrival.sent, lengths=arrival.length
        )
        params = jnp.asarray(optax.apply_updates(state.params, updates))
        displacement = params - state.params
        after = ControllerState(
            state.round + 1,
            params,
            combined,
            inner,
            trigger.controller_update(state.trigger, displacement, arrival),
        )
        log = RoundLog(jnp.sqrt(squared_norm(combined)), jnp.sqrt(squared_norm(displacement)))
        return after, log

    return Controller(init, broadcast, gather, step)
