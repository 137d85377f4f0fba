"""What a learner remembers of its gradients, and the innovation that it would upload.

Memories whose aggregate is `running_sum` upload v − (what was uploaded before), and the controller keeps the sum of what everybody has uploaded:
aggregate == Σ_m uploaded_m at all times. Those with `arrivals` upload what has come together, and the controller applies it once:
Σ applied + Σ residuals == Σ of what they took in.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lapg.types import Broadcast, Compressor, Estimate, Memory, Scalar, is_concrete, weighed
from lapg.uplink.aggregates import arrivals, running_sum


class Tracked(eqx.Module):
    """Value v, what has been uploaded of it, the noise s² of v, and how many gradients it has seen."""

    value: Float[Array, " d"]
    uploaded: Float[Array, " d"]
    noise: Float[Array, ""]
    count: Int[Array, ""]


class Residual(eqx.Module):
    """What has not been uploaded yet, E, and its noise."""

    value: Float[Array, " d"]
    noise: Float[Array, ""]


def blended_noise(held: Float[Array, ""], blend: Scalar, fresh: Float[Array, ""]) -> Float[Array, ""]:
    """The noise of (1 − blend) v + blend · g from v's and g's: (1 − blend)² s² + blend² σ̂².

    Not known (inf) where σ̂² is not and counts. Where σ̂² is known and s² is not, it is σ̂² alone: a mean of gradients that are as noisy as this one has
    no more noise, and one unknown noise must not stay for ever.
    """
    total = weighed((1 - blend) ** 2, held) + weighed(blend**2, fresh)
    return jnp.where(jnp.isinf(total) & jnp.isfinite(fresh), fresh, total)


def _residual(carry: Callable[[Residual, Estimate], Residual]) -> Memory:
    """Arrivals: the innovation is the residual, and ``settle`` leaves of it what the message lost (error feedback)."""
    return Memory(
        init=lambda params: Residual(jnp.zeros_like(params), jnp.zeros((), params.dtype)),
        update=lambda state, broadcast, estimate: carry(state, estimate),
        innovation=lambda state, age: (state.value, state.noise),
        settle=lambda state, decoded: Residual(state.value - decoded, jnp.zeros_like(state.noise)),
        aggregate=arrivals(),
    )


def fresh(*, restart: bool = False) -> Memory:
    """Nothing: the innovation is this round's gradient, and a skipped one is lost (PG).

    Args:
      restart: for learners with steps of their own, which then begin every round at θ^k, so that those that are not uploaded are lost with the round.
    """
    memory = _residual(lambda state, estimate: Residual(estimate.gradient, estimate.noise_or_inf))
    memory = memory._replace(forgets=True)
    return memory._replace(residual=lambda state: jnp.zeros_like(state.value)) if restart else memory


def accumulator(keep: Scalar = 1.0) -> Memory:
    """E ← E + g every round; an upload hands over the whole of E, and what a message does not carry waits. Nothing is ever lost, only late.

    Args:
      keep: the part of what a message has not carried that stays, in [0, 1]; below 1 old errors fade.
    Raises:
      ValueError: keep outside [0, 1].
    Source: Stich, Cordonnier, Jaggi, arXiv 1809.07599; fading errors: SparseLoCo, arXiv 2508.15706.
    """
    if is_concrete(keep) and not 0 <= float(keep) <= 1:
        raise ValueError(f"accumulator(keep=...) must lie in [0, 1], got {float(keep)}; 1 loses nothing.")
    memory = _residual(
        lambda state, estimate: Residual(state.value + estimate.gradient, state.noise + estimate.noise_or_inf)
    )
    if not (is_concrete(keep) and float(keep) == 1):
        held = memory.settle

        def settle(state: Residual, decoded: Float[Array, " d"]) -> Residual:
            left = held(state, decoded)
            return Residual((keep * left.value).astype(left.value.dtype), left.noise)

        memory = memory._replace(settle=settle)
    return memory._replace(residual=lambda state: state.value)


class Hidden(eqx.Module):
    """What has not been uploaded yet, E, its noise, and θ^k, beside which it may be too small to be seen."""

    value: Float[Array, " d"]
    noise: Float[Array, ""]
    params: Float[Array, " d"]


def visible() -> Memory:
    """`accumulator` for displacements, of which those entries alone travel that show: where θ^k − E and θ^k differ once both are rounded to bfloat16.

    The others wait until they do. The message is as sparse as that only under a compressor that leaves out zeros, such as `lossless`.

    Source: PULSELoCo, arXiv 2602.03839: learners compute with parameters cast to bfloat16, and what the cast hides changes nothing for anybody. Here
    they compute with θ as it is, and the gate decides about the upload alone; it looks at the whole of E, what has waited included.
    """

    def init(params: Float[Array, " d"]) -> Hidden:
        return Hidden(jnp.zeros_like(params), jnp.zeros((), params.dtype), params)

    def update(state: Hidden, broadcast: Broadcast, estimate: Estimate) -> Hidden:
        return Hidden(state.value + estimate.gradient, state.noise + estimate.noise_or_inf, broadcast.params)

    def innovation(state: Hidden, age: Int[Array, ""]) -> Any:
        # not a cast, which XLA may leave out on the way back
        there, here = (jax.lax.reduce_precision(x, 8, 7) for x in (state.params - state.value, state.params))
        return jnp.where(there != here, state.value, 0), state.noise

    return Memory(
        init=init,
        update=update,
        innovation=innovation,
        settle=lambda state, decoded: Hidden(state.value - decoded, jnp.zeros_like(state.noise), state.params),
        aggregate=arrivals(),
        residual=lambda state: state.value,
    )


def _tracked(weight: Scalar, innovation_noise: Callable[[Float[Array, ""], Int[Array, ""]], Any]) -> Memory:
    """Reuse: v ← (1 − weight) v + weight · g, starting at the first g; the innovation is v − uploaded."""

    def init(params: Float[Array, " d"]) -> Tracked:
        zeros = jnp.zeros_like(params)
        return Tracked(zeros, zeros, jnp.zeros((), params.dtype), jnp.int32(0))

    def update(state: Tracked, broadcast: Broadcast, estimate: Estimate) -> Tracked:
        blend = jnp.where(state.count == 0, 1.0, weight).astype(state.value.dtype)
        return Tracked(
            (1 - blend) * state.value + blend * estimate.gradient,
            state.uploaded,
            blended_noise(state.noise, blend, estimate.noise_or_inf),
            state.count + 1,
        )

    def settle(state: Tracked, decoded: Float[Array, " d"]) -> Tracked:
        return Tracked(state.value, state.uploaded + decoded, state.noise, state.count)

    return Memory(
        init=init,
        update=update,
        innovation=lambda state, age: (state.value - state.uploaded, innovation_noise(state.noise, age)),
        settle=settle,
        aggregate=running_sum(),
        share=lambda state, decoded: state.uploaded + decoded,
    )


def lagged() -> Memory:
    """LAPG's memory: the innovation is this round's gradient minus the one uploaded last (13); its noise is σ̂²_m, as (16) has it.

    That is the noise of one of the two gradients in the difference; the innovation's own is about twice as much.
    """
    return _tracked(1.0, lambda noise, age: noise)


def running_average(weight: Scalar = 0.1) -> Memory:
    """The innovation of a running average v ← (1−η)v + ηg, which moves more than its noise only when the policy has moved.

    Args:
      weight: η in (0, 1]; 1 is LAPG's own memory, up to the noise.
    Returns:
      A memory whose noise is that of the *innovation*: 2 s²(1 − (1−η)^age), with s² ← (1−η)² s² + η² σ̂² the noise of v.
    Raises:
      ValueError: η outside (0, 1].
    """
    if isinstance(weight, float | int) and not 0 < weight <= 1:
        raise ValueError(f"running_average(weight=...) must lie in (0, 1], got {weight}; 0.1 is a good start.")
    return _tracked(weight, lambda noise, age: weighed(2 * (1 - (1 - weight) ** age), noise))


class Shifted(eqx.Module):
    """The gradient h, the one at the last upload, what has been uploaded, and the noise of h."""

    value: Float[Array, " d"]
    held: Float[Array, " d"]
    uploaded: Float[Array, " d"]
    noise: Float[Array, ""]


def dasha(correction: Scalar | None = None, *, uplink: Compressor) -> Memory:
    """Differences of gradients for unbiased messages: h − h_last − a (uploaded − h_last), with h_last the gradient at the last upload.

    What a message adds by chance is taken back at the rate a, and no dense upload is ever needed. With nothing lost on the way it is `lagged`.

    Args:
      correction: a; None is the paper's 1/(2ω + 1) for a compressor with variance ω (`lapg.types.Compressor`).
      uplink: the compressor.
    Source: Tyurin and Richtárik, arXiv 2202.01268, Algorithm 1; there the first upload is exact, here uploaded and h_last start at 0. On
      `lapg.uplink.variance_reduction.storm` it is DASHA-MVR.
    """

    def update(state: Shifted, broadcast: Broadcast, estimate: Estimate) -> Shifted:
        return Shifted(estimate.gradient, state.held, state.uploaded, estimate.noise_or_inf)

    def innovation(state: Shifted, age: Int[Array, ""]) -> Any:
        variance = 0.0 if uplink.variance is None else uplink.variance(state.value.size)  # a biased one is refused
        rate = jnp.asarray(1 / (2 * variance + 1) if correction is None else correction, state.value.dtype)
        return state.value - state.held - rate * (state.uploaded - state.held), state.noise

    def init(params: Float[Array, " d"]) -> Shifted:
        zeros = jnp.zeros_like(params)
        return Shifted(zeros, zeros, zeros, jnp.zeros((), params.dtype))

    return Memory(
        init=init,
        update=update,
        innovation=innovation,
        settle=lambda state, decoded: Shifted(state.value, state.value, state.uploaded + decoded, state.noise),
        aggregate=running_sum(),
        share=lambda state, decoded: state.uploaded + decoded,
        forgets=True,
    )
