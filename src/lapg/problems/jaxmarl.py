"""Environments of JaxMARL: several agents in a world, each a learner, or all of them trained by each learner. They compile together with the learners."""

import contextlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from lapg.problems.adapters import action_space, lenient, needs, one_of, same_types, shaped, vector
from lapg.problems.builders import at_least, first_observation, from_environment, make_tasks, unit_interval
from lapg.problems.contract import table
from lapg.problems.parallel import parallel_tasks, quantities_of
from lapg.problems.worlds import Masks, Observations, by_agent, given_masks, masks_of, viewer, with_parameters
from lapg.types import Box, Discrete, Environment, Interface, JointSpaces, Problem, Spaces, Task, Transition


class State(eqx.Module):
    """JaxMARL's own state, the agents' observations and masks that came with it, as vectors, and the number of steps since the reset."""

    inner: PyTree
    observations: tuple[Float[Array, " _"], ...]
    time: Int[Array, ""]
    masks: tuple[Float[Array, " _"], ...] = ()


def environment(
    game: Any, observations: Observations, alike: bool, *, masks: Masks | None = None, team: bool = False
) -> Environment:
    """A JaxMARL environment in which learner m has minus the reward of agent m as its loss.

    JaxMARL has one flag, ``done["__all__"]``, for the end of an episode and for its time limit: from the limit on it counts as a truncation,
    before it as a termination. Flags of single agents are left to the environment's rewards.

    Args:
      alike: whether agents are equal, so that their local observations can be stacked; otherwise every agent's observation is an entry of a tuple.
      masks: JaxMARL's state → by agent, which actions are allowed; they are then the end of every agent's own observation.
      team: whether every learner has all agents of a world of its own, and minus their mean reward as its loss; its task's ``extra`` then has what the
        world's parameters are.
    """
    limit = getattr(game, "max_steps", np.inf)
    show = viewer(len(game.agents), observations, alike)

    def of(task: Task) -> Any:
        return with_parameters(game, task.extra) if team and task.extra else game

    def state(seen: Mapping[str, PyTree], inner: PyTree, time: Int[Array, ""]) -> State:
        allowed = () if masks is None else by_agent(game, masks(inner))
        return State(inner, by_agent(game, seen), time, allowed)

    def reset(key: Key[Array, ""], task: Task) -> State:
        seen, inner = of(task).reset(key)
        return state(seen, jax.tree.map(jnp.asarray, inner), jnp.int32(0))

    def observe(state: State) -> PyTree:
        seen = game.get_world_state(state.inner) if observations == "global" else state.observations
        return show(seen, state.masks)

    def step(key: Key[Array, ""], task: Task, before: State, action: Any) -> Transition:
        actions = {agent: action[m] for m, agent in enumerate(game.agents)}
        seen, inner, rewards, ended, _ = of(task).step_env(key, before.inner, actions)
        time, ended = before.time + 1, jnp.asarray(ended["__all__"], bool)
        losses = -jnp.stack([jnp.asarray(rewards[agent], float) for agent in game.agents])
        after = state(seen, same_types(inner, before.inner), time)
        loss = losses.mean() if team else losses[task.index]
        return Transition(after, loss, ended & (time < limit), ended & (time >= limit))

    def world(state: State) -> Float[Array, " n"]:
        return vector(game.get_world_state(state.inner))

    known = lenient(world) if hasattr(game, "get_world_state") else None
    return Environment(lenient(reset), lenient(observe), lenient(step), world=known)


def jaxmarl(
    *,
    env: str,
    observations: Observations = "global",
    env_options: Mapping[str, Any] | None = None,
    num_learners: int | None = None,
    share_network: bool = False,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    vary: Mapping[str, float] | None = None,
    num_steps: int | None = None,
    discount: float = 0.99,
    shared_trajectories: bool = False,
    problem_seed: int = 0,
) -> Problem:
    """A JaxMARL environment, for multi-agent collaborative RL (4) or for parallel RL (5) of the joint policy, the product of the agents' policies.

    Actions that ``get_avail_actions`` or ``get_legal_moves`` forbid (SMAX, Hanabi) are never taken.

    Args:
      env: a name that JaxMARL knows, ``MPE_simple_spread_v3`` for example.
      observations: what agents' policies see. ``global``: all that the environment's ``get_world_state`` returns (JaxNav, FACMAC);
        ``local``: every agent its own observation; ``concatenated``: all of them the observations of all, which in simple_spread determine the
        state.
      num_learners: M learners, each with worlds of its own, who train the joint policy; the loss is minus the agents' mean reward. None: one world,
        and one learner per agent, whose loss is minus that agent's reward.
      share_network: whether agents have one network, with the same weights for all, in place of one each; they must be alike and see ``local``
        observations.
      scales: c_m > 0, one per learner; None is all 1, or lets ``heterogeneity`` spread them around 1 by a factor of 4.
      heterogeneity: h, spreads by factor^±h what ``vary`` names, and the scale; only where ``num_learners`` is given.
      vary: factors of the environment's own parameters by name, {"accel": 1.5} for example.
      discount: γ.
      env_options: further arguments of the environment, such as {"num_agents": 2, "num_landmarks": 2}; of SMAX the name of a map, {"scenario": "3m"}.
      num_steps: T; None is the environment's ``max_steps`` (25 in MPE, where JaxMARL itself ends an episode one call later).
      shared_trajectories: whether all learners see the same episodes (one physical environment) or each samples its own.
      problem_seed: draws who gets what.
    Raises:
      ValueError: JaxMARL is not installed, an unknown name, a world state or a time limit that the environment does not have, an action space that
        is neither discrete nor a vector, a wrong size, a parameter that the environment does not have; an option of learners with worlds of their own
        without ``num_learners``, or one of a common world with it; agents that cannot share a network.
    """
    package = _package()
    one_of("jaxmarl", env, package.registered_envs)
    with needs("jaxmarl"):  # some environments need more
        game = package.make(env, **_options(env_options or {}))
    masks = masks_of(game, package.environments.MultiAgentEnv)
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
    at_least("jaxmarl", num_steps=steps, num_learners=1 if num_learners is None else num_learners)
    unit_interval("jaxmarl", discount)
    team = num_learners is not None
    if not team and (heterogeneity or vary):
        name, value = ("vary", vary) if vary else ("heterogeneity", heterogeneity)
        raise ValueError(
            f"jaxmarl({name}=...) is of learners with worlds of their own, got {value}; give num_learners."
        )
    if team and shared_trajectories:
        raise ValueError("jaxmarl(shared_trajectories=...) must be False where num_learners is given, got True.")

    tasks = make_tasks(len(game.agents), scales)
    if num_learners is not None:
        quantities = quantities_of("jaxmarl", env, vars(game), vary)
        key = jax.random.key(problem_seed)
        tasks = parallel_tasks(num_learners, scales, heterogeneity, key, **quantities)
    acts = [action_space("jaxmarl", game.action_space(agent)) for agent in game.agents]
    views = first_observation(environment(game, observations, alike=False, masks=masks, team=team), tasks)
    sizes = [
        view.size - (act.num if masks and isinstance(act, Discrete) else 0)
        for view, act in zip(views, acts, strict=True)
    ]
    kinds = [(size, *_features(game.action_space(agent))) for size, agent in zip(sizes, game.agents, strict=True)]
    alike = all(kind == kinds[0] for kind in kinds)
    if share_network and not (alike and observations == "local"):
        raise ValueError(
            f"jaxmarl(share_network=...) needs agents that are alike and see 'local' observations, got {observations!r} in {env!r}; set it to False."
        )
    show = viewer(len(game.agents), observations, alike)
    first = jax.eval_shape(lenient(lambda key: _at_hand(game, observations, *game.reset(key))), jax.random.key(0))

    def see(observation: Any, info: Any = None) -> PyTree:
        if observations == "global":
            seen = shaped(first, observation)
        else:
            own = {agent: observation[agent] for agent in game.agents if agent in table(observation, "observations")}
            seen = tuple(map(vector, shaped(first, own).values()))
        return jax.tree.map(np.asarray, show(seen, given_masks(game, info) if masks else ()))

    agents = tuple(Spaces(Box((size,)), act, masks is not None) for size, act in zip(sizes, acts, strict=True))
    local = observations == "local" or not alike or masks is not None
    return from_environment(
        environment(game, observations, alike, masks=masks, team=team),
        spaces=JointSpaces(agents, local, alike, share_network),
        tasks=tasks,
        num_steps=steps,
        discount=discount,
        shared=shared_trajectories,
        joint=not team,
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


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an environment; a map of SMAX may be given by its name.

    Raises:
      ValueError: SMAX has no map of that name.
    """
    name = options.get("scenario")
    if not isinstance(name, str):
        return dict(options)
    known = importlib.import_module("jaxmarl.environments.smax.smax_env").MAP_NAME_TO_SCENARIO
    one_of("jaxmarl", name, known, "env_options.scenario")
    return {**options, "scenario": known[name]}


def _features(space: Any) -> list[Any]:
    return [np.asarray(getattr(space, name, ())).tolist() for name in ("n", "shape", "low", "high")]
