"""Checks of a memory of your own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg.checks.common import keeps_types, repeats, scalar, signatures, traced, vector
from lapg.problems.checklist import Checklist, CheckResult, equal, need
from lapg.types import Broadcast, Estimate, Memory


def check_memory(
    memory: Memory, *, size: int = 6, num_rounds: int = 30, seed: int = 0, quick: bool = False
) -> list[CheckResult]:
    """Checks a memory's types, the invariant of its aggregate under lossy messages and a coin's trigger, and what it says of the noise.

    Args:
      size: d.
      quick: functions and types alone; nothing is computed.
    """
    checks, params = Checklist(), jnp.zeros(size)
    checks.run("functions", signatures, memory)
    if checks.sound:
        checks.run("types", _types_stay, memory, params)
    if checks.sound and not quick:
        checks.run("nothing is lost", _invariant, memory, params, num_rounds, seed)
        checks.run("an exact upload says it all", _exact, memory, params)
        checks.run("noise", _noise, memory, params)
    return checks.results


def _estimate(key: Key[Array, ""], params: Float[Array, " d"], noise: Any = 1.0) -> Estimate:
    one = jnp.ones((), params.dtype)
    return Estimate(jax.random.normal(key, params.shape, params.dtype), noise * one, one)


def _broadcast(params: Any, k: Any = 0) -> Broadcast:
    return Broadcast(jnp.asarray(k, jnp.int32), params, ())


def _types_stay(memory: Memory, params: Any) -> None:
    start, estimate = memory.init(params), _estimate(jax.random.key(0), params)
    state = traced("update", memory.update, start, _broadcast(params), estimate)
    keeps_types("update", start, state)
    value, noise = traced("innovation", memory.innovation, state, jnp.int32(1))
    vector("innovation's value", value, params)
    scalar("innovation's noise", noise, "f")
    keeps_types("settle", start, traced("settle", memory.settle, state, value))
    vector("share", traced("share", memory.share, state, value), params)
    if memory.residual is not None:
        vector("residual", traced("residual", memory.residual, state), params)
    held = memory.aggregate
    need(isinstance(held.keeps_shares, bool), f"Aggregate.keeps_shares must be True or False, got {held.keeps_shares}.")


def _invariant(memory: Memory, params: Any, num_rounds: int, seed: int) -> None:
    """Messages lose entries by chance, unbiased where the memory forgets; every other round or so is an upload."""

    def play(key: Key[Array, ""]) -> Any:
        def step(carry: Any, k: Any) -> Any:
            state, sent_so_far, taken = carry
            own, lost, coin = jax.random.split(jax.random.fold_in(key, k), 3)
            estimate = _estimate(own, params)
            state = memory.update(state, _broadcast(params, k), estimate)
            value, _ = memory.innovation(state, jnp.int32(1))
            kept = jnp.where(jax.random.bernoulli(lost, 0.5, value.shape), value, 0)
            decoded = (2 if memory.forgets else 1) * kept
            share, sent = memory.share(state, decoded), jax.random.bernoulli(coin)
            state = jax.tree.map(lambda a, b: jnp.where(sent, a, b), memory.settle(state, decoded), state)
            total = sent_so_far + jnp.where(sent, decoded, 0)
            left = jnp.zeros_like(params) if memory.residual is None else memory.residual(state)
            taken = taken + estimate.gradient
            return (state, total, taken), (share, sent_so_far + decoded, decoded, total + left, taken)

        return jax.lax.scan(step, (memory.init(params), params, params), jnp.arange(num_rounds))[1]

    share, uploaded, decoded, accounted, taken = map(np.asarray, repeats("a run", play, jax.random.key(seed)))
    slack = 1e3 * num_rounds * np.finfo(share.dtype).eps
    if memory.aggregate.keeps_shares:
        need(
            np.allclose(share, uploaded, slack, slack),
            "share must be what the aggregate then holds of the learner, the sum of all its decoded uploads, this one included.",
        )
    else:
        need(
            np.allclose(share, decoded, slack, slack),
            "share must be the decoded upload itself where the controller applies it once; leave share out.",
        )
    if memory.residual is not None and not memory.forgets:
        need(
            np.allclose(accounted, taken, slack, slack),
            "what was sent and the residual must add up to what was taken in, round by round; settle must keep what the message lost: "
            "residual − decoded.",
        )


def _exact(memory: Memory, params: Any) -> None:
    """After uploads without loss the memory has nothing more to say of the same gradients."""

    @jax.jit
    def left_over() -> Any:
        state = memory.init(params)
        for k in range(3):
            state = memory.update(state, _broadcast(params, k), _estimate(jax.random.key(k), params))
            state = memory.settle(state, memory.innovation(state, jnp.int32(1))[0])
        return jnp.abs(memory.innovation(state, jnp.int32(0))[0]).max()

    left = float(left_over())
    need(
        left < 1e-4,
        f"the innovation must be 0 right after an upload that lost nothing, got {left:.3g}; look at settle.",
    )


def _noise(memory: Memory, params: Any) -> None:
    """The innovation is the same whatever the noise is, unless the memory says that it needs it; its noise is never negative nor NaN."""

    @jax.jit
    def innovations(noise: Float[Array, ""]) -> Any:
        def step(state: Any, k: Any) -> Any:
            estimate = _estimate(jax.random.fold_in(jax.random.key(0), k), params, noise)
            state = memory.update(state, _broadcast(params, k), estimate)
            return state, memory.innovation(state, k + 1)

        return jax.lax.scan(step, memory.init(params), jnp.arange(3, dtype=jnp.int32))[1]

    values = []
    for noise in (0.0, 1.0, jnp.inf):
        value, own = innovations(jnp.asarray(noise, params.dtype))
        need(np.all(own >= 0), f"the innovation's noise must be >= 0, and inf where it is not known, got {own}.")
        values.append(value)
    need(
        memory.needs_noise or all(equal(values[0], other) for other in values[1:]),
        "the innovation must not depend on estimate.noise, which may be unknown, unless the memory says so; give Memory(needs_noise=True).",
    )
