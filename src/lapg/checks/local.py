"""Checks of a learner's own steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lapg.checks.common import compiled, keeps_types, scalar, signatures, traced, vector
from lapg.problems.checklist import Checklist, CheckResult, need
from lapg.types import Broadcast, Estimate, Local


def check_local(local: Local, *, size: int = 4, batch_size: int = 8, seed: int = 0) -> list[CheckResult]:
    """Checks types of the learner's own steps, and that they say so where they sample elsewhere than at θ^k.

    Args:
      size: d.
      batch_size: N.
    """
    checks, params = Checklist(), jax.random.normal(jax.random.key(seed), (size,))
    checks.run("functions", signatures, local)
    if checks.sound:
        checks.run("types", _types_stay, local, params, batch_size)
    if checks.sound:
        checks.run("where it samples", _position, local, params)
    return checks.results


def _broadcast(params: Float[Array, " d"]) -> Broadcast:
    return Broadcast(jnp.int32(3), params, ())


def _types_stay(local: Local, params: Any, num: int) -> None:
    one = jnp.ones((), params.dtype)

    def gradient_at(params: Any, rows: Any = None) -> Estimate:
        return Estimate(0.1 * params, one, one)

    state, estimate = local.init(params), gradient_at(params)
    vector("position", traced("position", local.position, _broadcast(params), params), params)
    found = traced(
        "walk",
        lambda key, state, params: local.walk(key, state, params, estimate, gradient_at, num),
        jax.random.key(0),
        state,
        params,
    )
    need(
        isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Estimate),
        f"walk must return a new state and a lapg.types.Estimate, got {type(found).__name__}.",
    )
    keeps_types("walk", state, found[0])
    vector("the increment's gradient", found[1].gradient, params)
    scalar("the increment's effective_samples", found[1].effective_samples, "f")


def _position(local: Local, params: Any) -> None:
    found = compiled("position", local.position, _broadcast(params), 0 * params + 1)
    need(np.isfinite(found).all(), "position must be finite.")
    need(
        local.moves or np.array_equal(found, params),
        "position must be θ^k, got another θ; say Local(moves=True), which has memories without a residual refused.",
    )
