"""Normal policies around a mean that is linear or a network; their actions may be squashed into bounds."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from lapg.policies.networks import Network, mlp
from lapg.types import Policy, ScoreBounds


def gaussian(
    mean: Network,
    num_actions: int,
    *,
    std: float = 0.5,
    learned_std: bool = False,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> Policy:
    """Normal actions with independent components around the mean that ``mean: θ, observation → [A]`` returns (6).

    Where bounds are given, the environment gets low + (high − low)·(1 + tanh u)/2 of the recorded action u. That squashing is thus a part of the
    environment: u stays normal, and scores and importance weights are exact without a Jacobian.

    Args:
      std: standard deviation, in units of the action u; where it is learned, its start.
      learned_std: whether log std is a part of θ (its last A entries), the same in every state.
      low, high: bounds of the environment's actions, a number or A numbers; None leaves actions as they are.
    Raises:
      ValueError: std is not positive, or the bounds are not finite with low < high, a number or A numbers.
    """
    if not 0 < std < math.inf:
        raise ValueError(
            f"gaussian(std=...) must be > 0 and finite, got {std}; a policy without noise has no gradient."
        )
    actuate = _squash(low, high, num_actions) if low is not None or high is not None else lambda action: action
    extra = num_actions if learned_std else 0

    def split(params: Float[Array, " d"]) -> tuple[Float[Array, " dm"], Float[Array, " A"]]:
        log_std = params[-extra:] if extra else jnp.full((num_actions,), math.log(std), params.dtype)
        return params[: mean.num_params], log_std

    def centre(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        return mean.apply(split(params)[0], observation)

    def log_prob(params: Float[Array, " d"], observation: PyTree, action: Float[Array, " A"]) -> Float[Array, ""]:
        weights, log_std = split(params)
        deviation = (action - mean.apply(weights, observation)) * jnp.exp(-log_std)
        return -jnp.sum(0.5 * deviation**2 + log_std + 0.5 * math.log(2 * math.pi))

    def sample(noise: Float[Array, " A"], params: Float[Array, " d"], observation: PyTree) -> Any:
        weights, log_std = split(params)
        action = mean.apply(weights, observation) + jnp.exp(log_std) * noise
        return action, log_prob(params, observation, action)

    def init(key: Key[Array, ""]) -> Float[Array, " d"]:
        start = mean.init(key)
        return jnp.concatenate([start, jnp.full((extra,), math.log(std), start.dtype)])

    return Policy(
        init=init,
        action_noise=lambda key: jax.random.normal(key, (num_actions,)),
        sample=sample,
        log_prob=log_prob,
        mode=centre,
        num_params=mean.num_params + extra,
        actuate=actuate,
        entropy=lambda params, observation: jnp.sum(split(params)[1] + 0.5 * math.log(2 * math.pi * math.e)),
        score_bounds=ScoreBounds(math.inf, math.inf),  # scores grow with the distance of an action from the mean
        shapes=mean.shapes,
    )


def correlated(policy: Policy, correlation: float) -> Policy:
    """A normal policy whose noise persists: x_t = ρ x_{t−1} + √(1 − ρ²) ε_t, each x_t standard normal by itself, from the first step of a row on.

    Log-probabilities stay those of the single actions, so that gradients are those of independent noise, on states that persistent noise leads to.

    Args:
      correlation: ρ, in [0, 1).
    Raises:
      ValueError: ρ lies elsewhere.
    Source: Hollenstein, Martius, Piater, arXiv 2312.11091, with noise whose spectrum is another one.
    """
    if not 0 <= correlation < 1:
        raise ValueError(f"correlated(correlation=...) must lie in [0, 1), got {correlation}; 0 is independent noise.")

    def correlate(noise: Float[Array, "T A"]) -> Float[Array, "T A"]:
        fresh = jnp.sqrt(1 - jnp.asarray(correlation, noise.dtype) ** 2)

        def step(before: Float[Array, " A"], now: Float[Array, " A"]) -> tuple[Any, Any]:
            after = correlation * before + fresh * now
            return after, after

        return jnp.concatenate([noise[:1], jax.lax.scan(step, noise[0], noise[1:])[1]])

    return policy._replace(correlate=correlate) if correlation else policy


def _squash(low: ArrayLike | None, high: ArrayLike | None, num_actions: int) -> Callable[[Array], Array]:
    lower, upper = (np.asarray(np.nan if bound is None else bound, float) for bound in (low, high))
    if not {lower.shape, upper.shape} <= {(), (num_actions,)}:
        raise ValueError(
            f"gaussian(low=..., high=...) must be one number each or one per action, {num_actions} in all, "
            f"got {lower.tolist()} and {upper.tolist()}."
        )
    if not (np.isfinite(lower).all() and np.isfinite(upper).all() and np.all(lower < upper)):
        raise ValueError(
            f"gaussian(low=..., high=...) must be finite with low < high, got {lower.tolist()} and {upper.tolist()}; "
            "leave both out where actions are not bounded."
        )

    def actuate(action: Float[Array, " A"]) -> Float[Array, " A"]:
        inside = lower + (upper - lower) / 2 * (1 + jnp.tanh(action))
        return jnp.clip(inside, lower, upper).astype(action.dtype)  # rounding alone could leave the bounds

    return actuate


def gaussian_mlp(
    num_inputs: int, hidden: Sequence[int], num_actions: int, activation: str = "tanh", **options: Any
) -> Policy:
    """A normal policy whose mean is a fully connected network; ``options`` are those of `gaussian`."""
    return gaussian(mlp(num_inputs, hidden, num_actions, activation), num_actions, **options)


def gaussian_linear(
    num_features: int,
    num_actions: int,
    features: Callable[..., Float[Array, " F"]] | None = None,
    **options: Any,
) -> Policy:
    """A normal policy with mean θ φ(s), linear in F features (6); θ⁰ = 0, row by row of actions. ``options`` are those of `gaussian`.

    Args:
      features: φ; None is the observation itself.
    """
    size = num_features * num_actions

    def apply(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        return params.reshape(num_actions, num_features) @ (features(observation) if features else observation)

    policy = gaussian(
        Network(lambda key: jnp.zeros(size), apply, size, ((num_actions, num_features),)), num_actions, **options
    )
    bounded = options.get("low") is not None or options.get("high") is not None
    return policy._replace(linear=features is None and not bounded)
