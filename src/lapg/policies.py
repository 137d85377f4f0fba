"""Policies: tabular softmax, softmax networks, normal ones, and the joint policy that is a product of them.

A policy's parameters are one flat vector; only this file knows its parts.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree

from lapg.networks import Network, mlp
from lapg.types import Policy, ScoreBounds


def categorical(
    logits: Callable[..., Float[Array, " A"]],
    init: Callable[..., Any],
    num_params: int,
    score_bounds: ScoreBounds | None = None,
    allowed: Callable[..., Bool[Array, " A"]] | None = None,
) -> Policy:
    """A softmax over the logits that ``logits: θ, observation → [A]`` returns. Samples by inverting the CDF: one uniform an action.

    Args:
      allowed: ``observation → [A]``, which actions may be taken; the others have probability 0. None is all of them.
    """

    def scores(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        values = logits(params, observation)
        if allowed is None:
            return values
        return jnp.where(allowed(observation), values, jnp.finfo(values.dtype).min / 2)  # finite, as 0 · ∞ is NaN

    def log_probs(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        return jax.nn.log_softmax(scores(params, observation))

    def pick(values: Float[Array, " A"], action: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.sum(jax.nn.one_hot(action, values.shape[0], dtype=values.dtype) * values)

    def sample(uniform: Float[Array, ""], params: Float[Array, " d"], observation: PyTree) -> Any:
        values = log_probs(params, observation)
        action = jnp.sum(jnp.cumsum(jnp.exp(values))[:-1] <= uniform).astype(jnp.int32)
        if allowed is not None:  # where rounding has led to one that is not
            action = jnp.where(allowed(observation)[action], action, jnp.argmax(values).astype(jnp.int32))
        return action, pick(values, action)

    return Policy(
        init=init,
        noise=jax.random.uniform,
        sample=sample,
        log_prob=lambda params, observation, action: pick(log_probs(params, observation), action),
        mode=lambda params, observation: jnp.argmax(scores(params, observation)).astype(jnp.int32),
        num_params=num_params,
        score_bounds=score_bounds,
    )


def softmax_table(num_states: int, num_actions: int) -> Policy:
    """Tabular softmax, d = S·A; observations are state indices. θ⁰ is standard normal."""
    size = num_states * num_actions
    return categorical(
        lambda params, state: params.reshape(num_states, num_actions)[state],
        lambda key: jax.random.normal(key, (size,)),
        size,
        ScoreBounds(math.sqrt(2), 0.5),
    )


def softmax_mlp(
    num_inputs: int, hidden: Sequence[int], num_actions: int, activation: str = "relu", *, masked: bool = False
) -> Policy:
    """A fully connected network with softmax output; see `lapg.networks.mlp` for θ⁰ and errors.

    Args:
      masked: whether an observation has ``num_actions`` more entries, which the network does not see: 1 where an action is allowed, else 0.
    """
    network = mlp(num_inputs, hidden, num_actions, activation)
    if not masked:
        return categorical(network.apply, network.init, network.num_params)
    return categorical(
        lambda params, observation: network.apply(params, observation[:num_inputs]),
        network.init,
        network.num_params,
        allowed=lambda observation: observation[num_inputs:] > 0,
    )


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
        noise=lambda key: jax.random.normal(key, (num_actions,)),
        sample=sample,
        log_prob=log_prob,
        mode=centre,
        num_params=mean.num_params + extra,
        actuate=actuate,
        score_bounds=ScoreBounds(math.inf, math.inf),  # scores grow with the distance of an action from the mean
    )


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
    features: Callable[..., Float[Array, " F"]] = lambda observation: observation,
    **options: Any,
) -> Policy:
    """A normal policy with mean θ φ(s), linear in F features (6); θ⁰ = 0, row by row of actions. ``options`` are those of `gaussian`."""
    size = num_features * num_actions

    def apply(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        return params.reshape(num_actions, num_features) @ features(observation)

    return gaussian(Network(lambda key: jnp.zeros(size), apply, size), num_actions, **options)


def product_bounds(bounds: Sequence[ScoreBounds | None]) -> ScoreBounds | None:
    """G and F of a product of policies with parameters of their own: G² = Σ_j G_j², F = max_j F_j; None where one is unknown."""
    known = [each for each in bounds if each is not None]
    if len(known) < len(bounds):
        return None
    return ScoreBounds(math.hypot(*(each.score for each in known)), max(each.hessian for each in known))


def replicated(policy: Policy, num_agents: int, *, local: bool = False) -> Policy:
    """The product π(a|s) = Π_m π_m(a_m|o_m; θ_m) of M equal agents. Actions are stacked; θ = (θ_1..θ_M).

    Args:
      policy: that of one agent.
      num_agents: M.
      local: whether every agent has an observation of its own (leading axis M), or all see the same one, the global state of the paper.
    """
    seen = 0 if local else None

    def split(params: Float[Array, " d"]) -> Float[Array, "M dm"]:
        return params.reshape(num_agents, policy.num_params)

    def sample(noise: PyTree, params: Float[Array, " d"], observation: PyTree) -> Any:
        actions, log_probs = jax.vmap(policy.sample, (0, 0, seen))(noise, split(params), observation)
        return actions, jnp.sum(log_probs)

    return Policy(
        init=lambda key: jax.vmap(policy.init)(jax.random.split(key, num_agents)).ravel(),
        noise=lambda key: jax.vmap(policy.noise)(jax.random.split(key, num_agents)),
        sample=sample,
        log_prob=lambda params, observation, actions: jnp.sum(
            jax.vmap(policy.log_prob, (0, seen, 0))(split(params), observation, actions)
        ),
        mode=lambda params, observation: jax.vmap(policy.mode, (0, seen))(split(params), observation),
        num_params=num_agents * policy.num_params,
        actuate=jax.vmap(policy.actuate),
        score_bounds=product_bounds([policy.score_bounds] * num_agents),
    )


def product(policies: Sequence[Policy]) -> Policy:
    """The product of agents with different policies; observations and actions are tuples, one entry per agent."""
    ends = np.cumsum([policy.num_params for policy in policies])

    def split(params: Float[Array, " d"]) -> list[Float[Array, " dm"]]:
        return jnp.split(params, ends[:-1])

    def each_key(function: Callable[[Policy], Callable[..., Any]], key: Key[Array, ""]) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(policies))
        return tuple(function(policy)(key) for policy, key in zip(policies, keys, strict=True))

    def sample(noise: tuple[PyTree, ...], params: Float[Array, " d"], observations: tuple[PyTree, ...]) -> Any:
        drawn = [p.sample(*rest) for p, *rest in zip(policies, noise, split(params), observations, strict=True)]
        actions, log_probs = zip(*drawn, strict=True)
        return actions, sum(log_probs)

    def log_prob(params: Float[Array, " d"], observations: tuple[PyTree, ...], actions: tuple[PyTree, ...]) -> Any:
        return sum(p.log_prob(*rest) for p, *rest in zip(policies, split(params), observations, actions, strict=True))

    return Policy(
        init=lambda key: jnp.concatenate(each_key(lambda policy: policy.init, key)),
        noise=lambda key: each_key(lambda policy: policy.noise, key),
        sample=sample,
        log_prob=log_prob,
        mode=lambda params, observations: tuple(
            p.mode(*rest) for p, *rest in zip(policies, split(params), observations, strict=True)
        ),
        num_params=int(ends[-1]),
        actuate=lambda actions: tuple(p.actuate(action) for p, action in zip(policies, actions, strict=True)),
        score_bounds=product_bounds([policy.score_bounds for policy in policies]),
    )
