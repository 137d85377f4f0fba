"""The controller: gather → aggregate → optimiser → θ. No method is named here."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from lapg.types import (
    Arrival,
    Broadcast,
    Compressor,
    Controller,
    ControllerState,
    RoundLog,
    Scalar,
    Trigger,
    Upload,
    squared_norm,
)


def inverse_time(step_size: Scalar, decay: Scalar) -> optax.Schedule:
    """α_k = α / (1 + decay · k); 0 is the paper's constant step."""
    return lambda round: step_size / (1 + decay * round)


def heavy_ball(step_size: Scalar, momentum: Scalar = 0.0, decay: Scalar = 0.0) -> optax.GradientTransformation:
    """θ^{k+1} = θ^k − α_k∇̂^k + β(θ^k − θ^{k−1}), the paper's update with momentum; β = 0 is (12). See `inverse_time` for α_k.

    With a decaying step the momentum term is scaled with the step, which the paper, where α is constant, leaves open.
    """
    return optax.sgd(inverse_time(step_size, decay), momentum)


def make_controller(
    compressor: Compressor, trigger: Trigger, optimiser: optax.GradientTransformation, *, reuses: bool
) -> Controller:
    """Puts the parts of the controller together.

    Args:
      reuses: True keeps the running sum ∇̂^k = ∇̂^{k−1} + Σ δ_m (12), (13); False steps with this round's arrivals alone.
    """

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
        return Arrival(jnp.sum(jnp.where(uploads.sent[:, None], decoded, 0), 0), uploads.sent, uploads.report)

    def step(state: ControllerState, arrival: Arrival) -> tuple[ControllerState, RoundLog]:
        aggregate = state.aggregate + arrival.total if reuses else arrival.total
        updates, inner = optimiser.update(aggregate, state.optimiser, state.params)
        params = jnp.asarray(optax.apply_updates(state.params, updates))
        displacement = params - state.params
        after = ControllerState(
            state.round + 1,
            params,
            aggregate,
            inner,
            trigger.controller_update(state.trigger, displacement, arrival),
        )
        log = RoundLog(jnp.sqrt(squared_norm(aggregate)), jnp.sqrt(squared_norm(displacement)))
        return after, log

    return Controller(init, broadcast, gather, step)
