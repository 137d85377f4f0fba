"""PPO with several agents: one probability ratio per agent, and what the critic takes as its input."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from lapg.estimators.critics import observation_of
from lapg.types import JointSpaces, Policy, Problem, Trajectories

Ratio = Literal["agent", "joint"]
"""``agent``: a ratio and a clip for every agent's action · ``joint``: one of the joint action."""
CriticInput = Literal["joint", "agent", "world"]
"""``joint``: all that the agents observe · ``agent``: what one agent observes, a value for each, by one network · ``world``: the environment's state."""


class Views(NamedTuple):
    """How a critic sees a batch.

    ``rows: batch → batch`` of N rows, or N · agents, whose observations are the critic's · ``entries: its numbers [rows, T] → [N, T, 1 or agents]`` ·
    ``example``: what one observation looks like.
    """

    rows: Callable[[Trajectories], Trajectories]
    entries: Callable[[Float[Array, "rows T"]], Float[Array, "N T _"]]
    example: Callable[[], PyTree]


def log_probs_of(policy: Policy, problem: Problem, ratio: Ratio) -> Any:
    """The agents' log-probabilities, ``θ, observation, action → [agents]``, where each has a ratio of its own; otherwise None.

    Raises:
      ValueError: the policy does not tell its agents apart.
    """
    if ratio == "joint" or not isinstance(problem.spaces, JointSpaces):
        return None
    if policy.log_probs is None:
        raise ValueError(
            "ppo(ratio=...) must be 'joint' where a policy of several agents has no log_probs (`lapg.types.Policy`), got 'agent'."
        )
    return policy.log_probs


def views_of(problem: Problem, critic_input: CriticInput) -> Views:
    """How a critic with that input sees the problem's batches.

    Raises:
      ValueError: agents with a value each are not alike, or have no observations of their own; the whole state is not known.
    """

    def joint(batch: Trajectories) -> Trajectories:
        return batch

    def alone(values: Float[Array, "N T"]) -> Float[Array, "N T 1"]:
        return values[..., None]

    spaces, environment = problem.spaces, problem.environment
    if critic_input == "world":
        if not isinstance(spaces, JointSpaces) or environment is None or environment.world is None:
            raise ValueError(
                "ppo(critic_input=...) must be 'joint' or 'agent' where agents are not several, or the environment has no world (`lapg.types.Environment`), "
                "got 'world'."
            )
        world, task = environment.world, jax.tree.map(lambda leaf: leaf[0], problem.tasks)

        def whole(batch: Trajectories) -> Trajectories:
            now, following = batch.worlds
            return dataclasses.replace(batch, observations=now, following=following)

        return Views(
            whole,
            alone,
            lambda: jax.eval_shape(lambda key: world(environment.reset(key, task)), jax.random.key(0)),
        )
    if critic_input == "joint" or not isinstance(spaces, JointSpaces):
        return Views(joint, alone, lambda: observation_of("ppo", problem))
    if not (spaces.stacked and spaces.local):
        raise ValueError(
            "ppo(critic_input=...) must not be 'agent' where agents are not alike, or have no observations of their own; use 'joint'."
        )
    num = len(spaces.agents)

    def rows(batch: Trajectories) -> Trajectories:
        def apart(leaf: Array) -> Array:
            moved = jnp.moveaxis(leaf, 2, 1)
            return moved.reshape(-1, *moved.shape[2:])

        seen, actions, following = jax.tree.map(apart, (batch.observations, batch.actions, batch.following))
        same = (batch.log_probs, batch.losses, batch.mask, batch.terminated, batch.truncated)
        log_probs, losses, mask, terminated, truncated = (jnp.repeat(leaf, num, 0) for leaf in same)
        return Trajectories(seen, actions, log_probs, losses, mask, terminated, truncated, following)

    def entries(values: Float[Array, "rows T"]) -> Float[Array, "N T agents"]:
        return jnp.moveaxis(values.reshape(-1, num, values.shape[1]), 1, 2)

    def example() -> PyTree:
        seen = observation_of("ppo", problem)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), seen)

    return Views(rows, entries, example)
