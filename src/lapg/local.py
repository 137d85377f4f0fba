"""The learner's own steps: where it samples, and what it makes of a gradient before its memory takes it in."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from lapg.types import Broadcast, Estimate, GradientAt, Local, Scalar, is_concrete, select


def stand() -> Local:
    """No steps: the learner samples at θ^k, and its memory takes in the gradient (PG, LAPG)."""
    return Local()


def sgd(step_size: Scalar | Callable[[Int[Array, ""]], Any]) -> Local:
    """Steps along the learner's own gradients: it samples at θ^k − step · E, E being what its memory holds back; the memory takes in the gradient.

    With the controller's step times M, and everybody uploading in the same rounds, that is local SGD with averaging (FedAvg).

    Args:
      step_size: a number, or round → number. What the controller's optimiser will make of E in the end, to foresee it.
    Raises:
      ValueError: step_size is negative.
    Source: McMahan et al., arXiv 1602.05629.
    """
    if not callable(step_size) and is_concrete(step_size) and not float(step_size) >= 0:
        raise ValueError(f"sgd(step_size=...) must be >= 0, got {float(step_size)}; local.stand() takes no steps.")

    def position(broadcast: Broadcast, residual: Float[Array, " d"]) -> Float[Array, " d"]:
        step = step_size(broadcast.round) if callable(step_size) else step_size
        return broadcast.params - jnp.asarray(step, residual.dtype) * residual

    return Local(position=position, moves=True)


class Corrected(eqx.Module):
    """Of a learner with control variates: the correction c of every step, and where the last round's steps ended."""

    shift: Float[Array, " d"]
    end: Float[Array, " d"]


def optimise(
    transform: optax.GradientTransformation,
    epochs: int = 1,
    minibatches: int = 1,
    *,
    target_kl: float | None = None,
    control_rate: Scalar | None = None,
    uncontrolled: int = 0,
) -> Local:
    """Takes several steps a batch with a local optimiser; the memory accumulates the displacement, θ before minus θ after.

    Every epoch shuffles the entries of the prepared batch (N trajectories by default) and takes one step on each of ``minibatches`` equal parts: FedAvg,
    DiLoCo, PPO's epochs with Adam. The learner samples at θ^k − E, E being the displacement not yet uploaded. The controller's optimiser is then the outer
    one; plain steps of size 1/M average M learners.

    Args:
      transform: the local optimiser; its state (moments) persists across uploads and skipped rounds.
      epochs: passes over a batch.
      minibatches: must divide the number of entries. An estimator that keeps earlier batches uses all of them in every part.
      target_kl: skips the rest of the round's steps once `lapg.types.Estimate.divergence` of a minibatch exceeds 1.5 times this, in nats per decision; None
        takes all steps.
      control_rate: None takes steps as they come. p adds a correction c_m to every one of a round's H steps, c_m ← c_m + (p/H)(θ − θ_end): how far uploads
        have led from where the learner's own steps had ended. It is Scaffnew's control variate, as it should be where learners upload together with
        probability p, and the controller steps to their mean; Σ_m c_m is then 0. For plain steps of size γ, c_m = γh_m.
      uncontrolled: last entries of θ that are not corrected: statistics, which no step moves.
    Raises:
      ValueError: epochs or minibatches is below 1, target_kl is not positive, or control_rate lies outside (0, 1].
    Source: McMahan et al., arXiv 1602.05629; Reddi et al., arXiv 2003.00295, for inner and outer optimisers; Mishchenko, Malinovsky, Stich, Richtárik,
      arXiv 2202.09357, Algorithm 2, for control_rate, which has one plain step a round. With several, or other optimisers, it is a heuristic.
    """
    for name, value in (("epochs", epochs), ("minibatches", minibatches)):
        if value < 1:
            raise ValueError(f"optimise({name}=...) must be a whole number >= 1, got {value}.")
    if target_kl is not None and not target_kl > 0:
        raise ValueError(f"optimise(target_kl=...) must be > 0, got {target_kl}; leave it out for no limit.")
    if control_rate is not None and is_concrete(control_rate) and not 0 < float(control_rate) <= 1:
        raise ValueError(
            f"optimise(control_rate=...) must lie in (0, 1], got {float(control_rate)}; leave it out for no control variates."
        )
    num_steps = epochs * minibatches

    def walk(
        key: Key[Array, ""],
        state: Any,
        params: Float[Array, " d"],
        estimate: Estimate,
        gradient_at: GradientAt,
        num: int,
    ) -> tuple[Any, Estimate]:
        held, moments = state
        if control_rate is not None:
            rate = jnp.asarray(control_rate / num_steps, params.dtype)
            led = jnp.where(jnp.arange(params.size) < params.size - uncontrolled, params - held.end, 0)
            held = Corrected(held.shift + rate * led, params)

        def descend(carry: Any, found: Estimate) -> Any:
            at, moments, goes_on = carry
            moved: Any = transform.update(found.gradient, moments, at)
            change, moments_after = moved
            if control_rate is not None:
                change = change + held.shift
            after = (at + change).astype(params.dtype), moments_after
            if target_kl is None:
                return *after, goes_on
            assert found.divergence is not None, "Local.needs_divergence"
            goes_on &= found.divergence <= 1.5 * target_kl
            return *select(goes_on, after, (at, moments)), goes_on

        def step(carry: Any, rows: Int[Array, " n"] | None) -> tuple[Any, None]:
            return descend(carry, gradient_at(carry[0], rows)), None

        start = params, moments, jnp.bool_(True)
        if minibatches > 1:
            shuffled = jax.vmap(lambda key: jax.random.permutation(key, num))(jax.random.split(key, epochs))
            end, moments, _ = jax.lax.scan(step, start, shuffled.reshape(num_steps, num // minibatches))[0]
        else:  # the gradient at the first position is there already
            first = descend(start, estimate)
            end, moments, _ = jax.lax.scan(step, first, length=epochs - 1)[0]
        if control_rate is not None:
            held = Corrected(held.shift, end)
        return (held, moments), Estimate(params - end, None, estimate.effective_samples)

    return Local(
        init=lambda params: (
            () if control_rate is None else Corrected(jnp.zeros_like(params), params),
            transform.init(params),
        ),
        position=lambda broadcast, residual: broadcast.params - residual,
        walk=walk,
        moves=True,
        increment="displacement",
        num_steps=num_steps,
        minibatches=minibatches,
        needs_divergence=target_kl is not None,
    )
