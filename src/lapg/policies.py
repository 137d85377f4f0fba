"""Policies: tabular softmax, softmax networks, and the joint policy that is their product.

A policy's parameters are one flat vector; only this file knows its parts.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from lapg.types import Policy

ACTIVATIONS: dict[str, Callable[..., Any]] = {"relu": jax.nn.relu, "softplus": jax.nn.softplus, "tanh": jnp.tanh}


def categorical(logits: Callable[..., Float[Array, " A"]], init: Callable[..., Any], num_params: int) -> Policy:
    """A softmax over the logits that ``logits: θ, observation → [A]`` returns. Samples by inverting the CDF: one uniform an action."""

    def log_probs(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        return jax.nn.log_softmax(logits(params, observation))

    def pick(values: Float[Array, " A"], action: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.sum(jax.nn.one_hot(action, values.shape[0], dtype=values.dtype) * values)

    def sample(uniform: Float[Array, ""], params: Float[Array, " d"], observation: PyTree) -> Any:
        values = log_probs(params, observation)
        action = jnp.sum(jnp.cumsum(jnp.exp(values))[:-1] <= uniform).astype(jnp.int32)
        return action, pick(values, action)

    return Policy(
        init=init,
        noise=jax.random.uniform,
        sample=sample,
        log_prob=lambda params, observation, action: pick(log_probs(params, observation), action),
        mode=lambda params, observation: jnp.argmax(logits(params, observation)).astype(jnp.int32),
        num_params=num_params,
    )


def softmax_table(num_states: int, num_actions: int) -> Policy:
    """Tabular softmax, d = S·A; observations are state indices. θ⁰ is standard normal."""
    size = num_states * num_actions
    return categorical(
        lambda params, state: params.reshape(num_states, num_actions)[state],
        lambda key: jax.random.normal(key, (size,)),
        size,
    )


def softmax_mlp(num_inputs: int, hidden: Sequence[int], num_actions: int, activation: str = "relu") -> Policy:
    """A fully connected network with softmax output. θ⁰: weights normal with variance 1/fan-in, biases 0.

    Raises:
      ValueError: unknown activation, or a layer width below 1.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    widths = (num_inputs, *hidden, num_actions)
    if any(width < 1 for width in widths):
        raise ValueError(f"hidden layer widths must be whole numbers >= 1, got {tuple(hidden)}.")
    shapes = list(pairwise(widths))
    blank = [(jnp.zeros(shape), jnp.zeros(shape[1])) for shape in shapes]
    flat, unravel = ravel_pytree(blank)
    scaled = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    def init(key: Key[Array, ""]) -> Float[Array, " d"]:
        keys = jax.random.split(key, len(shapes))
        return ravel_pytree([(scaled(k, s, flat.dtype), jnp.zeros(s[1])) for k, s in zip(keys, shapes, strict=True)])[0]

    def logits(params: Float[Array, " d"], observation: Float[Array, " n"]) -> Float[Array, " A"]:
        value = observation
        for layer, (weight, bias) in enumerate(unravel(params)):
            value = (ACTIVATIONS[activation](value) if layer else value) @ weight + bias
        return value

    return categorical(logits, init, flat.size)


def replicated(policy: Policy, num_agents: int) -> Policy:
    """The product π(a|s) = Π_m π_m(a_m|s; θ_m) of equal agents that all see the same observation. Actions are stacked; θ = (θ_1..θ_M)."""

    def split(params: Float[Array, " d"]) -> Float[Array, "M dm"]:
        return params.reshape(num_agents, policy.num_params)

    def sample(noise: PyTree, params: Float[Array, " d"], observation: PyTree) -> Any:
        actions, log_probs = jax.vmap(policy.sample, (0, 0, None))(noise, split(params), observation)
        return actions, jnp.sum(log_probs)

    return Policy(
        init=lambda key: jax.vmap(policy.init)(jax.random.split(key, num_agents)).ravel(),
        noise=lambda key: jax.vmap(policy.noise)(jax.random.split(key, num_agents)),
        sample=sample,
        log_prob=lambda params, observation, actions: jnp.sum(
            jax.vmap(policy.log_prob, (0, None, 0))(split(params), observation, actions)
        ),
        mode=lambda params, observation: jax.vmap(policy.mode, (0, None))(split(params), observation),
        num_params=num_agents * policy.num_params,
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
    )
