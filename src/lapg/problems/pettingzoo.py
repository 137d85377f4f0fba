"""Parallel environments of PettingZoo and mpe2: multi-agent collaborative RL, one learner per agent."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from lapg.policies import product, replicated
from lapg.problems.adapters import imported
from lapg.problems.gymnasium import actor, flattener
from lapg.problems.hosting import Host, from_hosts
from lapg.problems.protocol import at_least, make_tasks, unit_interval
from lapg.types import Policy, Problem

Observations = Literal["global", "local", "concatenated"]


def pettingzoo(
    *,
    env: str,
    observations: Observations = "global",
    shared_trajectories: bool = False,
    scales: Sequence[float] | None = None,
    hidden: Sequence[int] = (16,),
    activation: str = "tanh",
    num_steps: int = 25,
    discount: float = 0.99,
    std: float = 0.5,
    learned_std: bool = False,
    env_options: Mapping[str, Any] | None = None,
) -> Problem:
    """Any parallel environment; learner m owns agent m's loss, its negative reward, and all learn the joint policy.

    An episode lasts until no agent is left. An agent that leaves before has no loss any more, is still seen as it was last, and its further actions
    are drawn but not executed. The episode has terminated if no agent was cut off.

    Args:
      env: a module with a ``parallel_env``, such as mpe2.simple_spread_v3, or MODULE:FACTORY for a function that returns a parallel environment.
      observations: what every agent's policy sees: the environment's own ``global`` state, its own ``local`` observation, or those of all agents
        ``concatenated``.
      shared_trajectories: whether all learners see the same N episodes or N of their own each.
      scales: c_m > 0, one per agent; None is all 1.
      hidden: widths of the hidden layers of each agent's network.
      activation: ``relu``, ``softplus`` or ``tanh``.
      num_steps: T; the environment may end before. 25 is that of mpe2.
      discount: γ.
      std: standard deviation of continuous actions in units of the network's output (see `lapg.policies.gaussian`).
      learned_std: whether it is learned.
      env_options: further arguments of the environment.
    Raises:
      ValueError: the environment is not installed, its spaces do not fit, or it has no global state. And during a run: an observation or a reward is
        not finite.
    """
    at_least("pettingzoo", num_steps=num_steps)
    unit_interval("pettingzoo", discount)
    if observations not in ("global", "local", "concatenated"):
        raise ValueError(f"observations must be 'global', 'local' or 'concatenated', got {observations!r}.")
    owner = f"pettingzoo(env={env!r})"
    make = _maker(env, env_options or {})
    probe = make()
    agents = tuple(probe.possible_agents)
    encoders, sizes = zip(*(flattener(owner, probe.observation_space(name)) for name in agents), strict=True)
    if observations == "global":
        inputs = (_state_size(owner, probe),) * len(agents)
    else:
        inputs = sizes if observations == "local" else (sum(sizes),) * len(agents)
    spaces = [probe.action_space(name) for name in agents]
    network = {"hidden": hidden, "activation": activation, "std": std, "learned_std": learned_std}
    actors = [actor(owner, *each, **network) for each in zip(spaces, inputs, strict=True)]
    policies, decoders = zip(*actors, strict=True)
    probe.close()

    local = observations == "local"
    alike = len(set(inputs)) == 1 and all(space == spaces[0] for space in spaces)
    if alike:
        policy = replicated(policies[0], len(agents), local=local)
    else:
        policy = product(policies) if local else _one_view(product(policies), len(agents))

    def host() -> Host:
        inner = make()
        last: dict[str, np.ndarray] = {}
        cut = False

        def view(fresh: Mapping[str, Any]) -> Any:
            last.update(
                (name, encode(fresh[name])) for name, encode in zip(agents, encoders, strict=True) if name in fresh
            )
            if observations == "global":
                return np.ravel(inner.state())
            parts = tuple(last[name] for name in agents)
            if not local:
                return np.concatenate(parts)
            return np.stack(parts) if alike else parts

        def reset(seed: int) -> Any:
            nonlocal cut
            cut = False
            last.update((name, np.zeros(size)) for name, size in zip(agents, sizes, strict=True))
            return view(inner.reset(seed=seed)[0])

        def step(actions: Any) -> tuple[Any, Any, bool, bool]:
            nonlocal cut
            present = set(inner.agents)
            chosen = {
                name: decode(action)
                for name, decode, action in zip(agents, decoders, actions, strict=True)
                if name in present
            }
            fresh, rewards, terminated, truncated, _ = inner.step(chosen)
            cut = cut or any(truncated[name] and not terminated[name] for name in truncated)
            over = not inner.agents
            return view(fresh), [-rewards.get(name, 0.0) for name in agents], over and not cut, over and cut

        return Host(reset, step)

    return from_hosts(
        owner,
        host,
        policy,
        tasks=make_tasks(len(agents), scales),
        num_steps=num_steps,
        discount=discount,
        num_losses=len(agents),
        shared=shared_trajectories,
    )


def _maker(env: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    if ":" in env:
        return partial(imported(env, f"pettingzoo(env={env!r})"), **options)
    try:
        module = importlib.import_module(env)
    except ImportError as error:
        raise ValueError(
            f"pettingzoo(env=...) must be a module that can be imported, got {env!r}: {error}; "
            "pip install 'lapg[pettingzoo]' brings PettingZoo and mpe2."
        ) from error
    if not hasattr(module, "parallel_env"):
        raise ValueError(f"pettingzoo(env=...) must be a module with a parallel_env, got {env!r}, which has none.")
    return lambda: module.parallel_env(**options)


def _state_size(owner: str, probe: Any) -> int:
    probe.reset(seed=0)
    try:
        return int(np.size(probe.state()))
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"{owner} must have a state() for observations='global', and has none; use observations='concatenated'."
        ) from error


def _one_view(policy: Policy, num_agents: int) -> Policy:
    """A product policy whose agents all see one observation."""
    return policy._replace(
        sample=lambda noise, params, observation: policy.sample(noise, params, (observation,) * num_agents),
        log_prob=lambda params, observation, action: policy.log_prob(params, (observation,) * num_agents, action),
        mode=lambda params, observation: policy.mode(params, (observation,) * num_agents),
    )
