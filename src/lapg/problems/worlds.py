"""Worlds of JaxMARL: what their agents see, which actions they may take, and the same world with other parameters."""

import copy
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lapg.problems.adapters import lenient, vector
from lapg.problems.contract import Misfit, table
from lapg.problems.spaces import MASK

Observations = Literal["global", "local", "concatenated"]
Masks = Callable[[Any], Mapping[str, Any]]


def by_agent(game: Any, values: Mapping[str, PyTree]) -> tuple[Float[Array, " _"], ...]:
    """A vector per agent."""
    return tuple(vector(values[agent]) for agent in game.agents)


def viewer(num_agents: int, observations: Observations, alike: bool) -> Callable[[Any, tuple[Any, ...]], PyTree]:
    """How what is at hand, the world's state for ``global`` or else the agents' vectors, and their masks, become what the joint policy sees."""

    def show(seen: Any, masks: tuple[Any, ...]) -> PyTree:
        if observations == "local":
            views = tuple(seen)
        else:
            whole = vector(seen) if observations == "global" else jnp.concatenate(seen)
            if alike and not masks:
                return whole
            views = (whole,) * num_agents
        if masks:
            views = tuple(jnp.concatenate(both) for both in zip(views, masks, strict=True))
        return jnp.stack(views) if alike else views

    return show


def with_parameters(game: Any, settings: Mapping[str, Any]) -> Any:
    """The environment with other parameters; its own functions among its attributes are those of the copy."""
    own = copy.copy(game)
    for name, value in vars(game).items():
        if isinstance(value, MethodType) and value.__self__ is game:
            setattr(own, name, MethodType(value.__func__, own))
    for name, value in settings.items():
        setattr(own, name, value)
    return own


def masks_of(game: Any, base: type) -> Masks | None:
    """What JaxMARL's state allows the agents, None where that is everything: a world that masks actions does so at its start, or has ``get_legal_moves``."""
    if hasattr(game, "get_legal_moves"):
        return game.get_legal_moves
    if type(game).get_avail_actions is base.get_avail_actions:
        return None
    allowed = game.get_avail_actions(lenient(game.reset)(jax.random.key(0))[1])
    return None if all(np.all(mask) for mask in jax.tree.leaves(allowed)) else game.get_avail_actions


def given_masks(game: Any, info: Any) -> tuple[Float[Array, " _"], ...]:
    """Reads the agents' action masks from ``info``, one vector of zeros and ones per agent.

    Raises:
      Misfit: ``info`` has no mask for an agent.
    """
    given = table(info, "info of a world that masks actions")
    for agent in game.agents:
        if MASK not in given.get(agent, {}):
            raise Misfit(f"info[{agent!r}] must have an {MASK}, got none; it is what get_avail_actions returns.")
    return tuple(vector(given[agent][MASK]) for agent in game.agents)
