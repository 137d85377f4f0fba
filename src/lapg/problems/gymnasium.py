"""Environments of Gymnasium: parallel RL, every learner with episodes of its own under one common policy."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lapg.problems import varied
from lapg.problems.adapters import discrete, imported, look_beside
from lapg.problems.builders import at_least, unit_interval
from lapg.problems.contract import Misfit, close, flag, number, opened, started, stepped, theirs
from lapg.problems.hosting import Host, from_hosts
from lapg.problems.parallel import parallel_tasks
from lapg.problems.spaces import actor, must_be_allowed, package, senses
from lapg.types import Box, Interface, Problem, Spaces


def gymnasium(
    *,
    env: str,
    num_learners: int = 4,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    vary: Mapping[str, float] | None = None,
    num_steps: int | None = None,
    discount: float = 0.99,
    problem_seed: int = 0,
    scale_pixels: bool = True,
    action_masks: bool = True,
    env_options: Mapping[str, Any] | None = None,
) -> Problem:
    """Any environment of Gymnasium by its id; losses are negative rewards.

    Args:
      env: an id such as CartPole-v1 or MODULE:ID, or MODULE:FACTORY for a function that returns an environment.
      num_learners: M, learners that share one policy.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them, by a factor of 4.
      heterogeneity: h, spreads the environment's physics over the learners by factor^±h; 0 leaves it as it is.
      vary: which attributes of the environment itself are spread, by which factors, such as {"gravity": 1.5}; dots lead inside, as in
        ``model.opt.gravity``. None takes those that are known of MuJoCo's and Gymnasium's own environments (`lapg.problems.varied.KNOWN`).
      num_steps: T; None takes the environment's own limit.
      discount: γ.
      problem_seed: draws who gets what.
      scale_pixels: whether observations of bytes from 0 to 255 are divided by 255.
      action_masks: whether actions that ``action_mask``, an entry of the observation or of info, forbids are never taken.
      env_options: further arguments of the environment.
    Raises:
      ValueError: Gymnasium is missing or does not know the environment, its spaces do not fit, a setting does not fit them, or T is not known. And
        during a run: an observation, a reward, a flag or a mask is not what it has to be.
      EnvironmentFailed: code of the environment raises.
    """
    make = _maker(env, env_options or {})
    owner = f"gymnasium(env={env!r})"
    with opened(owner, make) as probe:
        if (size := getattr(probe, "num_envs", None)) is not None:
            raise Misfit(
                f"{owner} must be one environment, got a vector of {size}; return a single one: lapg makes as many as it plays side by side, and "
                "resets each itself."
            )
        limit = num_steps
        if limit is None:
            limit = getattr(getattr(probe, "spec", None), "max_episode_steps", None)
        if limit is None:
            raise ValueError(f"gymnasium(num_steps=...) must be given for {env!r}, which sets no limit of its own.")
        at_least("gymnasium", num_learners=num_learners, num_steps=limit)
        unit_interval("gymnasium", discount)
        space, actions = probe.observation_space, probe.action_space
        spread = dict(varied.quantities(probe) if vary is None else vary)
        varied.check("gymnasium", probe, spread)
        if heterogeneity > 0 and not spread:
            raise ValueError(
                f"gymnasium(heterogeneity=...) must be 0 for {env!r}, of which it is not known what could be spread, got {heterogeneity}; name "
                "attributes of the environment, and factors, in vary."
            )
        with theirs(f"{owner}, in its first reset"):
            first, info = started(probe.reset(seed=0))
    eyes = senses(owner, space, actions, info, scale_pixels=scale_pixels, action_masks=action_masks)
    acts, decode = actor(owner, actions)
    raw = not discrete(space) and getattr(space, "dtype", None) != np.uint8

    def see(observation: Any, info: Any = None) -> np.ndarray:
        seen, mask = eyes.encode(observation), eyes.allowed(observation, info)
        return seen if mask is None else np.concatenate([seen, mask])

    with theirs(f"{owner}, in its first reset"):
        example = see(first, info)

    tasks = parallel_tasks(
        num_learners,
        scales,
        heterogeneity,
        jax.random.key(problem_seed),
        **{name: (1.0, factor) for name, factor in spread.items()},
    )
    multiples = {name: np.asarray(each).tolist() for name, each in tasks.extra.items()}

    def host(learner: int | None = None) -> Host:
        inner = make()
        if learner is not None:
            varied.multiply(inner, {name: each[learner] for name, each in multiples.items()})
        advance = inner.step
        seen = np.empty(0)

        def reset(seed: int) -> np.ndarray:
            nonlocal seen
            seen = see(*started(inner.reset(seed=seed)))
            return seen

        def step(action: Any) -> tuple[Any, Any, bool, bool]:
            nonlocal seen
            if eyes.masked:
                must_be_allowed(seen[eyes.size :], action)
            observation, reward, terminated, truncated, info = stepped(advance(decode(action)))
            seen = see(observation, info)
            return seen, -number(reward), flag(terminated, "terminated"), flag(truncated, "truncated")

        return Host(reset, step, partial(close, inner))

    return from_hosts(
        owner,
        host,
        spaces=Spaces(Box(eyes.shape), acts, eyes.masked, raw),
        tasks=tasks,
        num_steps=limit,
        discount=discount,
        differ=heterogeneity > 0,
        observation=example,
        interface=Interface(see, decode, eyes.notes),
    )


def _maker(env: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    outside = package()
    if (factory := _factory(env, outside.registry)) is not None:
        return partial(factory, **options)

    def make() -> Any:
        try:
            return outside.make(env, **options)
        except (outside.error.Error, ModuleNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise Misfit(
                f"gymnasium(env=...) must be an environment that Gymnasium can make, got {env!r}: {reason}"
            ) from error

    return make


def _factory(env: str, registry: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The function that MODULE:FACTORY names; None for an id, with or without the module that registers it."""
    _, colon, name = env.rpartition(":")
    if colon:
        look_beside()
    if not colon or re.search(r"/|-v\d+$", name):
        return None
    try:
        return imported(env, f"gymnasium(env={env!r})")
    except ValueError:
        if name in registry:  # by the import
            return None
        raise
