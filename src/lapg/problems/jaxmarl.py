"""Environments of JaxMARL: several agents in one world, one learner per agent. They compile together with the learners."""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from lapg.problems.adapters import action_space, needs, one_of, same_types, shaped, vector
from lapg.problems.builders import at_least, first_observation, from_environment, make_tasks, unit_interval
from lapg.problems.contract import table
from lapg.types import Box, Environment, Interface, JointSpaces, Problem, Spaces, Task, Transition

Observations = Literal["global", "local", "concatenated"]


class State(eqx.Module):
    """JaxMARL's own state, the agents' observations that came with it, as vectors, and the number of steps since the reset."""

    inner: PyTree
    observations: tuple[Float[Array, " _"], ...]
    time: Int[Array, ""]


def environment(game: Any, observations: Observations, alike: bool) -> Environment:
    """A JaxMARL environment in which learner m has minus the reward of agent m as its loss.

    JaxMARL has one flag, ``done["__all__"]``, for the end of an episode and for its time limit: from the limit on it counts as a truncation,
    before it as a termination. Flags of single agents are left to the environment's rewards.

    Args:
      alike: whether agents are equal, so that their local observations can be stacked; otherwise every agent's observation is an entry of a tuple.
    """
    limit = getattr(game, "max_steps", np.inf)

    def see(seen: Mapping[str, PyTree]) -> tuple[Float[Array, " _"], ...]:
        return tuple(vector(seen[agent]) for agent in game.agents)

    show = viewer(len(game.agents), observations, alike)

    def reset(key: Key[Array, ""], task: Task) -> State:
        seen, inner = game.reset(key)
        return State(jax.tree.map(jnp.asarray, inner), see(seen), jnp.int32(0))

    def observe(state: State) -> PyTree:
        return show(game.get_world_state(state.inner) if observations == "global" else state.observations)

    def step(key: Key[Array, ""], task: Task, state: State, action: Any) -> Transition:
        actions = {agent: action[m] for m, agent in enumerate(game.agents)}
        seen, inner, rewards, ended, _ = game.step_env(key, state.inner, actions)
        time, ended = state.time + 1, jnp.asarray(ended["__all__"], bool)
        losses = -jnp.stack([jnp.asarray(rewards[agent], float) for agent in game.agents])
        after = State(same_types(inner, state.inner), see(seen), time)
        return Transition(after, losses[task.index], ended & (time < limit), ended & (time >= limit))

    return Environment(reset, observe, step)


def viewer(num_agents: int, observations: Observations, alike: bool) -> Callable[[Any], PyTree]:
    """How what is at hand, the world's state for ``global`` or else the agents' vectors, becomes what the joint policy sees."""

    def show(seen: Any) -> PyTree:
        if observations == "local":
            return jnp.stack(seen) if alike else seen
        whole = vector(seen) if observations == "global" else jnp.concatenate(seen)
        return whole if alike else (whole,) * num_agents

    return show


def jaxmarl(
    *,
    env: str,
    observations: Observations = "global",
    env_options: Mapping[str, Any] | None = None,
    scales: Sequence[float] | None = None,
    num_steps: int | None = None,
    discount: float = 0.99,
    shared_trajectories: bool = False,
) -> Problem:
    """Multi-agent collaborative RL (4) in a JaxMARL environment; agents are the learners, and the joint policy is the product of theirs.

    Every action must be allowed in every state: masks of available actions (SMAX, Hanabi) are not applied, and such worlds are refused.

    Args:
      env: a name that JaxMARL knows, ``MPE_simple_spread_v3`` for example.
      observations: what agents' policies see. ``global``: all that the environment's ``get_world_state`` returns (JaxNav, FACMAC);
        ``local``: every agent its own observation; ``concatenated``: all of them the observations of all, which in simple_spread determine the
        state.
      scales: c_m > 0, one per learner; None is all 1.
      discount: γ.
      env_options: further arguments of the environment, such as {"num_agents": 2, "num_landmarks": 2}.
      num_steps: T; None is the environment's ``max_steps`` (25 in MPE, where JaxMARL itself ends an episode one call later).
      shared_trajectories: whether all learners see the same episodes (one physical environment) or each samples its own.
    Raises:
      ValueError: JaxMARL is not installed, an unknown name, a world state or a time limit that the environment does not have, an action space that
        is neither discrete nor a vector, actions that are not always allowed, a wrong size.
    """
    package = _package()
    one_of("jaxmarl", env, package.registered_envs)
    with needs("jaxmarl"):  # some environments need more
        game = package.make(env, **(env_options or {}))
    _no_masks(env, game, package.environments.MultiAgentEnv)
    if observations not in ("global", "local", "concatenated"):
        raise ValueError(f"observations must be 'global', 'local' or 'concatenated', got {observations!r}.")
    if observations == "global" and not hasattr(game, "get_world_state"):
        raise ValueError(
            f"jaxmarl(observations='global') needs a world state, which {env!r} has not; use 'concatenated', the observations of all agents "
            "for everybody, or 'local'."
        )
    if num_steps is None and not hasattr(game, "max_steps"):
        raise ValueError(f"jaxmarl(num_steps=...) must be given for {env!r}, which has no max_steps of its own.")
    steps = int(game.max_steps) if num_steps is None else num_steps
    at_least("jaxmarl", num_steps=steps)
    unit_interval("jaxmarl", discount)

    tasks = make_tasks(len(game.agents), scales)
    spaces = [game.action_space(agent) for agent in game.agents]
    views = first_observation(environment(game, observations, alike=False), tasks)
    kinds = [(view.size, *_features(space)) for view, space in zip(views, spaces, strict=True)]
    alike = all(kind == kinds[0] for kind in kinds)
    show = viewer(len(game.agents), observations, alike)
    first = jax.eval_shape(lambda key: _at_hand(game, observations, *game.reset(key)), jax.random.key(0))

    def see(observation: Any, info: Any = None) -> PyTree:
        if observations == "global":
            seen = shaped(first, observation)
        else:
            own = {agent: observation[agent] for agent in game.agents if agent in table(observation, "observations")}
            seen = tuple(map(vector, shaped(first, own).values()))
        return jax.tree.map(np.asarray, show(seen))

    agents = [
        Spaces(Box((view.size,)), action_space("jaxmarl", space)) for view, space in zip(views, spaces, strict=True)
    ]
    return from_environment(
        environment(game, observations, alike),
        spaces=JointSpaces(tuple(agents), local=observations == "local" or not alike, stacked=alike),
        tasks=tasks,
        num_steps=steps,
        discount=discount,
        shared=shared_trajectories,
        joint=True,
        interface=Interface(see, lambda executed: {agent: executed[m] for m, agent in enumerate(game.agents)}),
    )


def _at_hand(game: Any, observations: Observations, seen: Mapping[str, PyTree], state: PyTree) -> PyTree:
    """What whoever steps JaxMARL gives a policy to see."""
    return game.get_world_state(state) if observations == "global" else {agent: seen[agent] for agent in game.agents}


def _package() -> Any:
    # importing it resets both streams, of which a notebook has its own
    with needs("jaxmarl"), contextlib.redirect_stdout(sys.stdout), contextlib.redirect_stderr(sys.stderr):
        import jaxmarl as package
    return package


def _no_masks(env: str, game: Any, base: type) -> None:
    """A world that masks actions does so at its start, or else tells by ``get_legal_moves``."""
    masked = hasattr(game, "get_legal_moves")
    if not masked and type(game).get_avail_actions is not base.get_avail_actions:
        allowed = game.get_avail_actions(game.reset(jax.random.key(0))[1])
        masked = not all(np.all(mask) for mask in jax.tree.leaves(allowed))
    if masked:
        raise ValueError(
            f"jaxmarl(env=...) must be an environment in which every action is always allowed, got {env!r}, which masks some; "
            "write a problem of your own around `lapg.problems.jaxmarl.environment` that says what a forbidden action does."
        )


def _features(space: Any) -> list[Any]:
    return [np.asarray(getattr(space, name, ())).tolist() for name in ("n", "shape", "low", "high")]
