"""The controller's optimiser from a configuration."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lapg.controller import heavy_ball, inverse_time
from lapg.experiments.config import MethodConfig
from lapg.experiments.names import OPTIMISERS, resolve

TRIED = 10
"""Steps after which an optimiser must have gone downhill; a schedule may begin at 0."""


def make_optimiser(config: MethodConfig, size: int) -> Callable[..., Any]:
    """The optimiser of a method, a function of step size, momentum and decay, for d = ``size`` parameters.

    Raises:
      ValueError: there is no such optimiser, momentum does not go with it, or it does not descend.
    """
    factory = resolve("optimiser", config.optimiser, OPTIMISERS)
    if factory is heavy_ball:
        return factory
    if config.momentum is not None:
        raise ValueError(
            f"momentum={config.momentum} goes with optimiser heavy_ball, not {config.optimiser!r}; leave it out."
        )

    def make(step_size: Any, momentum: Any = 0.0, decay: Any = 0.0) -> Any:
        return factory(step_size if config.decay is None else inverse_time(step_size, decay))

    if ":" in config.optimiser:
        _check_descent(config.optimiser, make(config.step_size, decay=config.decay), size)
    return make


def _check_descent(name: str, optimiser: Any, size: int) -> None:
    """Refuses what is no optimiser, and what goes uphill: optax adds updates, so that their sign is the optimiser's business."""
    if not (callable(getattr(optimiser, "init", None)) and callable(getattr(optimiser, "update", None))):
        raise ValueError(
            f"method.optimiser={name} must return an optax optimiser, got {type(optimiser).__name__}; it is called with a step size."
        )
    params = jnp.ones(size)
    slope = jnp.where(jnp.arange(size) % 2 == 0, 1.0, -1.0)  # orthogonal to θ, so that shrinking θ counts for nothing

    def step(carry: Any, _: None) -> tuple[Any, None]:
        theta, state = carry
        updates, state = optimiser.update(slope, state, theta)
        return (optax.apply_updates(theta, updates), state), None

    start = (params, optimiser.init(params))
    (after, _), _ = jax.jit(lambda: jax.lax.scan(step, start, length=TRIED))()
    rise = float(slope @ (after - params))
    if not rise <= 0:
        raise ValueError(
            f"method.optimiser={name} must step against the gradient, but {TRIED} steps along one gradient changed the loss by {rise:+.3g}; "
            "end its chain with optax.scale_by_learning_rate(step_size), which turns the sign."
        )
