"""Policies over a finite number of actions: softmax of a table, of a network, or of any logits."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from lapg.policies.networks import mlp
from lapg.types import Policy, ScoreBounds


def categorical(
    logits: Callable[..., Float[Array, " A"]],
    init: Callable[..., Any],
    num_params: int,
    score_bounds: ScoreBounds | None = None,
    allowed: Callable[..., Bool[Array, " A"]] | None = None,
    shapes: tuple[tuple[int, ...], ...] | None = None,
) -> Policy:
    """A softmax over the logits that ``logits: θ, observation → [A]`` returns. Samples by inverting the CDF: one uniform an action.

    Args:
      allowed: ``observation → [A]``, which actions may be taken; the others have probability 0. None is all of them.
      shapes: of the arrays that θ consists of, where they are known.
    """

    def scores(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        values = logits(params, observation)
        if allowed is None:
            return values
        return jnp.where(allowed(observation), values, jnp.finfo(values.dtype).min / 2)  # finite, as 0 · ∞ is NaN

    def log_probs(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        return jax.nn.log_softmax(scores(params, observation))

    def entropy(params: Float[Array, " d"], observation: PyTree) -> Float[Array, ""]:
        values = log_probs(params, observation)
        return -jnp.sum(jnp.exp(values) * values)

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
        action_noise=jax.random.uniform,
        sample=sample,
        log_prob=lambda params, observation, action: pick(log_probs(params, observation), action),
        mode=lambda params, observation: jnp.argmax(scores(params, observation)).astype(jnp.int32),
        num_params=num_params,
        entropy=entropy,
        score_bounds=score_bounds,
        shapes=shapes,
    )


def softmax_table(num_states: int, num_actions: int) -> Policy:
    """Tabular softmax, d = S·A; observations are state indices. θ⁰ is standard normal."""
    size = num_states * num_actions
    return categorical(
        lambda params, state: params.reshape(num_states, num_actions)[state],
        lambda key: jax.random.normal(key, (size,)),
        size,
        ScoreBounds(math.sqrt(2), 0.5),
        shapes=((num_states, num_actions),),
    )


def softmax_mlp(
    num_inputs: int, hidden: Sequence[int], num_actions: int, activation: str = "relu", *, masked: bool = False
) -> Policy:
    """A fully connected network with softmax output; see `lapg.policies.networks.mlp` for θ⁰ and errors.

    Args:
      masked: whether an observation has ``num_actions`` more entries, which the network does not see: 1 where an action is allowed, else 0.
    """
    network = mlp(num_inputs, hidden, num_actions, activation)
    if not masked:
        return categorical(network.apply, network.init, network.num_params, shapes=network.shapes)
    return categorical(
        lambda params, observation: network.apply(params, observation[:num_inputs]),
        network.init,
        network.num_params,
        allowed=lambda observation: observation[num_inputs:] > 0,
        shapes=network.shapes,
    )
