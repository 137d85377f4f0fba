"""Joint policies of several agents: products of policies with parameters of their own."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lapg.types import Policy, ScoreBounds


def product_bounds(bounds: Sequence[ScoreBounds | None]) -> ScoreBounds | None:
    """G and F of a product of policies with parameters of their own: G² = Σ_j G_j², F = max_j F_j; None where one is unknown."""
    known = [each for each in bounds if each is not None]
    if len(known) < len(bounds):
        return None
    return ScoreBounds(math.hypot(*(each.score for each in known)), max(each.hessian for each in known))


def _entropies(policies: Sequence[Policy], total: Callable[[list[Any]], Callable[..., Any]]) -> Any:
    """Combines the agents' entropies with ``total``; None if one is unknown."""
    each = [policy.entropy for policy in policies]
    return None if None in each else total(each)


def _joint_shapes(policies: Sequence[Policy]) -> tuple[tuple[int, ...], ...] | None:
    """The agents' arrays one after the other, with what follows an agent's as a vector; None if one does not say."""
    found: list[tuple[int, ...]] = []
    for policy in policies:
        if policy.shapes is None:
            return None
        found += policy.shapes
        if rest := policy.num_params - sum(map(math.prod, policy.shapes)):
            found.append((rest,))
    return tuple(found)


def replicated(policy: Policy, num_agents: int, *, local: bool = False, tied: bool = False) -> Policy:
    """The product π(a|s) = Π_m π_m(a_m|o_m; θ_m) of M equal agents. Actions are stacked; θ = (θ_1..θ_M).

    Args:
      policy: that of one agent.
      num_agents: M.
      local: whether every agent has an observation of its own (leading axis M), or all see the same one, the global state of the paper.
      tied: whether all θ_m are the same, θ.
    """
    seen = 0 if local else None
    weights = None if tied else 0

    def split(params: Float[Array, " d"]) -> Float[Array, "..."]:
        return params if tied else params.reshape(num_agents, policy.num_params)

    def init(key: Key[Array, ""]) -> Float[Array, " d"]:
        return policy.init(key) if tied else jax.vmap(policy.init)(jax.random.split(key, num_agents)).ravel()

    def log_probs(params: Float[Array, " d"], observation: PyTree, actions: PyTree) -> Float[Array, " M"]:
        return jax.vmap(policy.log_prob, (weights, seen, 0))(split(params), observation, actions)

    def sample(noise: PyTree, params: Float[Array, " d"], observation: PyTree) -> Any:
        actions, log_probs = jax.vmap(policy.sample, (0, weights, seen))(noise, split(params), observation)
        return actions, jnp.sum(log_probs)

    bounds = policy.score_bounds
    if tied and bounds is not None:
        bounds = ScoreBounds(num_agents * bounds.score, num_agents * bounds.hessian)

    return Policy(
        init=init,
        action_noise=lambda key: jax.vmap(policy.action_noise)(jax.random.split(key, num_agents)),
        sample=sample,
        log_prob=lambda params, observation, actions: jnp.sum(log_probs(params, observation, actions)),
        mode=lambda params, observation: jax.vmap(policy.mode, (weights, seen))(split(params), observation),
        num_params=policy.num_params if tied else num_agents * policy.num_params,
        actuate=jax.vmap(policy.actuate),
        entropy=_entropies(
            [policy],
            lambda each: lambda params, view: jnp.sum(jax.vmap(each[0], (weights, seen))(split(params), view)),
        ),
        log_probs=log_probs,
        score_bounds=bounds if tied else product_bounds([bounds] * num_agents),
        shapes=policy.shapes if tied else _joint_shapes([policy] * num_agents),
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

    def each_log_prob(params: Float[Array, " d"], observations: tuple[PyTree, ...], actions: tuple[PyTree, ...]) -> Any:
        return [p.log_prob(*rest) for p, *rest in zip(policies, split(params), observations, actions, strict=True)]

    return Policy(
        init=lambda key: jnp.concatenate(each_key(lambda policy: policy.init, key)),
        action_noise=lambda key: each_key(lambda policy: policy.action_noise, key),
        sample=sample,
        log_prob=lambda params, observations, actions: sum(each_log_prob(params, observations, actions)),
        log_probs=lambda params, observations, actions: jnp.stack(each_log_prob(params, observations, actions)),
        mode=lambda params, observations: tuple(
            p.mode(*rest) for p, *rest in zip(policies, split(params), observations, strict=True)
        ),
        num_params=int(ends[-1]),
        entropy=_entropies(
            policies,
            lambda each: (
                lambda params, observations: sum(
                    entropy(*rest) for entropy, *rest in zip(each, split(params), observations, strict=True)
                )
            ),
        ),
        actuate=lambda actions: tuple(p.actuate(action) for p, action in zip(policies, actions, strict=True)),
        score_bounds=product_bounds([policy.score_bounds for policy in policies]),
        shapes=_joint_shapes(policies),
    )


def one_view(policy: Policy, num_agents: int) -> Policy:
    """A `product` whose agents all see the same observation, which is given once."""
    each = policy.log_probs
    return policy._replace(
        sample=lambda noise, params, observation: policy.sample(noise, params, (observation,) * num_agents),
        log_prob=lambda params, observation, action: policy.log_prob(params, (observation,) * num_agents, action),
        log_probs=each and (lambda params, observation, action: each(params, (observation,) * num_agents, action)),
        mode=lambda params, observation: policy.mode(params, (observation,) * num_agents),
        entropy=_entropies(
            [policy], lambda each: lambda params, observation: each[0](params, (observation,) * num_agents)
        ),
    )
