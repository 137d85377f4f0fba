"""Parallel environments of PettingZoo and mpe2: multi-agent collaborative RL, one learner per agent."""

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from lapg.problems.adapters import imported, look_beside
from lapg.problems.contract import Misfit, array, close, failed, flag, number, opened, started, stepped, table, theirs
from lapg.problems.hosting import Host, from_hosts, real
from lapg.problems.protocol import at_least, make_tasks, unit_interval
from lapg.problems.spaces import Encoder, actor, flattener, must_be_allowed, senses
from lapg.types import Box, Interface, JointSpaces, Problem, Spaces

Observations = Literal["global", "local", "concatenated"]


def pettingzoo(
    *,
    env: str,
    observations: Observations = "global",
    shared_trajectories: bool = False,
    scales: Sequence[float] | None = None,
    num_steps: int = 25,
    discount: float = 0.99,
    scale_pixels: bool = True,
    action_masks: bool = True,
    env_options: Mapping[str, Any] | None = None,
) -> Problem:
    """Any parallel environment; learner m owns agent m's loss, its negative reward, and all learn the joint policy.

    An episode lasts until no agent is left: an agent leaves with its own terminated or truncated, whether or not the environment then drops it from
    ``agents``. One that leaves before the others has no loss any more, is still seen as it was last, and its further actions are drawn but do not
    count. The episode has terminated if no agent was cut off.

    Args:
      env: a module with a ``parallel_env``, such as mpe2.simple_spread_v3, or MODULE:FACTORY for a function that returns a parallel environment.
      observations: what every agent's policy sees: the environment's own ``global`` state, its own ``local`` observation, or those of all agents
        ``concatenated``.
      shared_trajectories: whether all learners see the same N episodes or N of their own each.
      scales: c_m > 0, one per agent; None is all 1.
      num_steps: T; the environment may end before. 25 is that of mpe2.
      discount: γ.
      scale_pixels: whether observations of bytes from 0 to 255 are divided by 255.
      action_masks: whether actions that ``action_mask``, an entry of an agent's observation or info, forbids are never taken.
      env_options: further arguments of the environment.
    Raises:
      ValueError: the environment is not installed, its spaces do not fit, a setting does not fit them, or it has no global state. And during a run:
        an observation, a reward, a flag or a mask is not what it has to be.
      EnvironmentFailed: code of the environment raises.
    """
    at_least("pettingzoo", num_steps=num_steps)
    unit_interval("pettingzoo", discount)
    if observations not in ("global", "local", "concatenated"):
        raise ValueError(f"observations must be 'global', 'local' or 'concatenated', got {observations!r}.")
    owner = f"pettingzoo(env={env!r})"
    make = _maker(env, env_options or {})
    with opened(owner, make) as probe:
        agents = tuple(probe.possible_agents)
        with theirs(f"{owner}, in its first reset"):
            first, infos = started(probe.reset(seed=0))
            observed = [probe.observation_space(name) for name in agents]
            spaces = [probe.action_space(name) for name in agents]
        state = _state(owner, probe, scale_pixels) if observations == "global" else None
        first_state = None if state is None else probe.state()
    options = {"scale_pixels": scale_pixels, "action_masks": action_masks}
    eyes = {
        name: senses(owner, seen, taken, _of(infos, name), **options)
        for name, seen, taken in zip(agents, observed, spaces, strict=True)
    }
    masked, local = [eye.masked for eye in eyes.values()], observations == "local"
    everything = (sum(eye.size for eye in eyes.values()),) if state is None else state.shape
    inputs = [eye.shape if local else everything for eye in eyes.values()]
    acts, decoders = zip(*(actor(owner, space) for space in spaces), strict=True)
    alike = len(set(inputs)) == len(set(masked)) == 1 and all(space == spaces[0] for space in spaces)
    separate = local or any(masked)
    each_agent = tuple(
        Spaces(Box(shape), act, limited) for shape, act, limited in zip(inputs, acts, masked, strict=True)
    )

    blank = {
        name: (np.zeros(eye.size), np.ones(space.n) if eye.masked else None)
        for (name, eye), space in zip(eyes.items(), spaces, strict=True)
    }

    def look(names: Iterable[str], seen: Mapping[str, Any], infos: Any, before: Mapping[str, Any]) -> dict[str, Any]:
        """Every agent's observation and mask: as they are now for the agents named, as they were before for the others."""
        now = dict(before)
        for name in names:
            if name in table(seen, "observations"):
                try:
                    now[name] = eyes[name].encode(seen[name]), eyes[name].allowed(seen[name], _of(infos, name))
                except Misfit as error:
                    raise Misfit(f"agent {name!r}: {error}") from None
        return now

    def view(views: Mapping[str, Any], whole: Any) -> Any:
        """What the joint policy sees, of every agent's view and the world's state; each mask goes with its agent."""
        own, masks = zip(*(views[name] for name in agents), strict=True)
        if not local:
            own = (np.concatenate(own) if state is None else state.encode(whole),) * len(agents)
            if not separate:
                return own[0]
        seen = [each if mask is None else np.concatenate([each, mask]) for each, mask in zip(own, masks, strict=True)]
        return np.stack(seen) if alike else tuple(seen)

    def see(observation: Any, info: Any = None) -> Any:
        """`view` of what a caller has at hand: the world's state for ``global``, else the agents' observations."""
        if state is not None:
            masks = {name: (each, eyes[name].allowed(None, _of(info, name))) for name, (each, _) in blank.items()}
            return view(masks, observation)
        missing = [] if local else [name for name in agents if name not in table(observation, "observations")]
        if missing:
            raise Misfit(f"observations must be those of all agents, got none of {missing}; give their last ones.")
        return view(look(agents, observation, info, blank), None)

    def decode(executed: Any) -> dict[str, Any]:
        return {name: one(action) for name, one, action in zip(agents, decoders, executed, strict=True)}

    with theirs(f"{owner}, in its first reset"):
        example = view(look(agents, first, infos, blank), first_state)
    warned = []

    def host() -> Host:
        inner = make()
        views, gone, cut = blank, set[str](), False

        def reset(seed: int) -> Any:
            nonlocal views, gone, cut
            views, gone, cut = look(agents, *started(inner.reset(seed=seed)), blank), set(), False
            return view(views, state and inner.state())

        def step(actions: Any) -> tuple[Any, Any, bool, bool]:
            nonlocal views, cut
            present = set(inner.agents)
            playing = [name for name in agents if name in present - gone]
            chosen = {name: action for name, action in decode(actions).items() if name in present}
            for name, action in zip(agents, actions, strict=True):
                if eyes[name].masked and name in playing:
                    must_be_allowed(views[name][1], action)
            seen, rewards, terminated, truncated, infos = stepped(inner.step(chosen))
            for name in playing:
                ended = flag(table(terminated, "terminated").get(name, False), f"agent {name!r}'s terminated")
                late = flag(table(truncated, "truncated").get(name, False), f"agent {name!r}'s truncated")
                cut = cut or (late and not ended)
                if ended or late:
                    gone.add(name)
            left = set(inner.agents)
            if gone & left and not warned:
                warned.append(True)
                warnings.warn(f"{owner} leaves agents in env.agents after their end; they count as gone.", stacklevel=2)
            views, over = look(playing, seen, infos, views), not left - gone
            paid = table(rewards, "rewards")
            losses = [
                -number(paid.get(name, 0.0), f"agent {name!r}'s reward") if name in playing else 0.0 for name in agents
            ]
            return view(views, state and inner.state()), losses, over and not cut, over and cut

        return Host(reset, step, partial(close, inner))

    return from_hosts(
        owner,
        host,
        spaces=JointSpaces(each_agent, local=separate, stacked=alike),
        tasks=make_tasks(len(agents), scales),
        num_steps=num_steps,
        discount=discount,
        num_losses=len(agents),
        shared=shared_trajectories,
        observation=example,
        interface=Interface(see, decode, tuple(dict.fromkeys(note for eye in eyes.values() for note in eye.notes))),
    )


def _maker(env: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    if ":" in env:
        return partial(imported(env, f"pettingzoo(env={env!r})"), **options)
    look_beside()
    try:
        module = importlib.import_module(env)
    except ImportError as error:
        raise ValueError(
            f"pettingzoo(env=...) must be a module that can be imported, got {env!r}: {error}; "
            "pip install 'lapg[pettingzoo]' brings PettingZoo and mpe2."
        ) from error
    except (Exception, SystemExit) as error:
        raise failed(f"pettingzoo(env={env!r}) cannot be imported", error) from error
    if not hasattr(module, "parallel_env"):
        raise ValueError(f"pettingzoo(env=...) must be a module with a parallel_env, got {env!r}, which has none.")
    return lambda: module.parallel_env(**options)


def _state(owner: str, probe: Any, scale_pixels: bool) -> Encoder:
    """How the world's state becomes a vector: by the environment's ``state_space``, where it has one that fits."""
    try:
        found = np.shape(probe.state()) if hasattr(probe, "state") else None
    except NotImplementedError:
        found = None
    if found is None:
        raise Misfit(
            f"{owner} must have a state() for observations='global', and has none; use observations='concatenated'."
        )
    space = getattr(probe, "state_space", None)
    if getattr(space, "shape", None) == found:
        return flattener(owner, space, scale_pixels)
    return Encoder(lambda state: array(state, found, real(), "the state").ravel(), found or (1,))


def _of(infos: Any, name: str) -> Any:
    """An agent's info."""
    return infos.get(name) if isinstance(infos, Mapping) else None
