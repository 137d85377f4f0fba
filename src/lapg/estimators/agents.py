"""What an estimator makes of several agents: ratios of their own, and values of their own."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lapg.types import JointSpaces, Policy, Problem, Trajectories

Ratio = Literal["agent", "joint"]
"""``agent``: a ratio and a clip for every agent's action · ``joint``: one of the joint action."""
CriticInput = Literal["joint", "agent"]
"""``joint``: all that the agents observe (MAPPO) · ``agent``: what one agent observes, a value for each, by one network (IPPO)."""


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


def views_of(
    problem: Problem, critic_input: CriticInput
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """How a critic sees a batch: as rows (N, or N · agents), what becomes of its numbers [rows, T] then, [N, T, 1 or agents], and one observation.

    Raises:
      ValueError: agents with a value each are not alike, or have no observations of their own.
    """
    spaces = problem.spaces
    if critic_input == "joint" or not isinstance(spaces, JointSpaces):
        return lambda batch: batch, lambda values: values[..., None], lambda observation: observation
    if not (spaces.stacked and spaces.local):
        raise ValueError(
            "ppo(critic_input=...) must be 'joint' where agents are not alike, or have no observations of their own, got 'agent'."
        )
    num = len(spaces.agents)

    def rows(batch: Trajectories) -> Trajectories:
        def apart(leaf: Array) -> Array:
            moved = jnp.moveaxis(leaf, 2, 1)
            return moved.reshape(-1, *moved.shape[2:])

        seen, actions, following = jax.tree.map(apart, (batch.observations, batch.actions, batch.following))
        same = (batch.log_probs, batch.losses, batch.mask, batch.terminated, batch.truncated)
        return Trajectories(seen, actions, *(jnp.repeat(leaf, num, 0) for leaf in same), following)

    def entries(values: Float[Array, "rows T"]) -> Float[Array, "N T agents"]:
        return jnp.moveaxis(values.reshape(-1, num, values.shape[1]), 1, 2)

    return rows, entries, lambda observation: jax.tree.map(lambda leaf: leaf[0], observation)
