"""Environments of Gymnasium: parallel RL, every learner with episodes of its own under one common policy."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lapg.problems.adapters import discrete, imported, needs, no_std_for, policy_for
from lapg.problems.contract import Misfit, array, close, flag, number, opened, started, stepped, theirs
from lapg.problems.hosting import Host, from_hosts, real
from lapg.problems.protocol import at_least, make_tasks, unit_interval
from lapg.types import Interface, Policy, Problem

MASK = "action_mask"


def gymnasium(
    *,
    env: str,
    num_learners: int = 4,
    scales: Sequence[float] | None = None,
    hidden: Sequence[int] = (16,),
    activation: str = "tanh",
    num_steps: int | None = None,
    discount: float = 0.99,
    std: float | None = None,
    learned_std: bool = False,
    scale_pixels: bool = True,
    action_masks: bool = True,
    env_options: Mapping[str, Any] | None = None,
) -> Problem:
    """Any environment of Gymnasium by its id; losses are negative rewards.

    Args:
      env: an id such as CartPole-v1 or MODULE:ID, or MODULE:FACTORY for a function that returns an environment.
      num_learners: M, learners that share one policy.
      scales: c_m > 0, one per learner; None is all 1.
      hidden: widths of the hidden layers of the policy's network.
      activation: ``relu``, ``softplus`` or ``tanh``.
      num_steps: T; None takes the environment's own limit.
      discount: γ.
      std: standard deviation of continuous actions in units of the network's output (see `lapg.policies.gaussian`); None is 0.5.
      learned_std: whether it is learned.
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
        limit = num_steps
        if limit is None:
            limit = getattr(getattr(probe, "spec", None), "max_episode_steps", None)
        if limit is None:
            raise ValueError(f"gymnasium(num_steps=...) must be given for {env!r}, which sets no limit of its own.")
        at_least("gymnasium", num_learners=num_learners, num_steps=limit)
        unit_interval("gymnasium", discount)
        space, actions = probe.observation_space, probe.action_space
        with theirs(f"{owner} failed in its first reset"):
            first, info = started(probe.reset(seed=0))
    eyes = senses(owner, space, actions, info, scale_pixels=scale_pixels, action_masks=action_masks)
    no_std_for(owner, [actions], std, learned_std)
    network = {"hidden": hidden, "activation": activation, "std": std, "learned_std": learned_std}
    policy, decode = actor(owner, actions, eyes.size, masked=eyes.masked, **network)

    def see(observation: Any, info: Any = None) -> np.ndarray:
        seen, mask = eyes.encode(observation), eyes.allowed(observation, info)
        return seen if mask is None else np.concatenate([seen, mask])

    def host() -> Host:
        inner = make()
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
        policy,
        tasks=make_tasks(num_learners, scales),
        num_steps=limit,
        discount=discount,
        observation=see(first, info),
        interface=Interface(see, decode, eyes.notes),
    )


def _maker(env: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    outside = _package()
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
    if not colon or re.search(r"/|-v\d+$", name):
        return None
    try:
        return imported(env, f"gymnasium(env={env!r})")
    except ValueError:
        if name in registry:  # by the import
            return None
        raise


def _package() -> Any:
    with needs("gymnasium"):
        import gymnasium as outside
    return outside


class Encoder(NamedTuple):
    """How observations become vectors of ``size`` numbers; ``scaled``: whether there are bytes among them that are divided by 255."""

    encode: Callable[[Any], np.ndarray]
    size: int
    scaled: bool = False


def flattener(owner: str, space: Any, scale_pixels: bool = True) -> Encoder:
    """How observations of a space become flat vectors: Box raveled, Discrete one-hot, products joined, entry by entry.

    Raises:
      ValueError: they do not.
    """
    spaces, dtype = _package().spaces, real()
    if isinstance(space, spaces.Dict | spaces.Tuple):
        keys = list(space.spaces) if isinstance(space, spaces.Dict) else list(range(len(space.spaces)))
        if not keys:
            raise ValueError(f"{owner} must have observations, got {space}.")
        entries = [flattener(owner, space[key], scale_pixels) for key in keys]

        def join(observation: Any) -> np.ndarray:
            try:
                own = [observation[key] for key in keys]
            except (KeyError, IndexError, TypeError):
                raise Misfit(
                    f"an observation must have the entries {keys} of its space, got {observation!r}."
                ) from None
            return np.concatenate([entry.encode(part) for entry, part in zip(entries, own, strict=True)])

        return Encoder(join, sum(entry.size for entry in entries), any(entry.scaled for entry in entries))
    if isinstance(space, spaces.Box):
        scaled = scale_pixels and space.dtype == np.uint8 and bool((space.low == 0).all() and (space.high == 255).all())
        factor = 1 / 255 if scaled else 1

        def ravel(observation: Any) -> np.ndarray:
            flat = array(observation, space.shape, dtype, "an observation").ravel()
            return flat * factor if scaled else flat

        return Encoder(ravel, int(np.prod(space.shape)), scaled)
    if isinstance(space, spaces.Discrete):

        def one_hot(observation: Any) -> np.ndarray:
            place = array(observation, (), dtype, "an observation") - space.start
            if not (0 <= place < space.n and place == int(place)):
                raise Misfit(f"an observation must lie in {space}, got {observation}.")
            return np.eye(1, space.n, int(place), dtype)[0]

        return Encoder(one_hot, int(space.n))
    try:
        flat = spaces.flatten_space(space)
    except NotImplementedError:
        flat = None
    if not isinstance(flat, spaces.Box):
        raise ValueError(
            f"{owner} must have observations of fixed size, got {space}; name a factory that wraps it as MODULE:FACTORY."
        )

    def flatten(observation: Any) -> np.ndarray:
        if not space.contains(observation):
            raise Misfit(f"an observation must lie in {space}, got {observation!r}.")
        return np.asarray(spaces.flatten(space, observation), dtype)

    return Encoder(flatten, spaces.flatdim(space))


class Senses(NamedTuple):
    """What an agent's policy gets to see of an observation: ``size`` numbers, and which actions are allowed then, if the environment says so.

    ``encode: observation → vector`` · ``allowed: observation, info → 1 or 0 for every action``, None where nothing is ``masked`` · ``notes``: what
    is changed.
    """

    encode: Callable[[Any], np.ndarray]
    size: int
    allowed: Callable[[Any, Any], np.ndarray | None]
    masked: bool
    notes: tuple[str, ...]


def senses(owner: str, space: Any, actions: Any, info: Any, *, scale_pixels: bool, action_masks: bool) -> Senses:
    """An agent's senses, by its spaces and the info of a first reset.

    Raises:
      ValueError: the spaces do not fit.
    """
    inside = hasattr(space, "spaces") and MASK in space.spaces
    masked = action_masks and (inside or MASK in (info or {}))
    if masked and not discrete(actions):
        raise ValueError(
            f"{owner} must have Discrete actions for its {MASK} to limit, got {actions}; action_masks=False leaves it out."
        )
    if masked and inside:
        space = type(space)({key: each for key, each in space.spaces.items() if key != MASK})
    encode, size, scaled = flattener(owner, space, scale_pixels)

    def allowed(observation: Any, info: Any) -> np.ndarray | None:
        at_hand = inside and observation is not None
        where, source = ("an observation", observation) if at_hand else ("info", info or {})
        if not masked:
            if action_masks and MASK in (info or {}):
                raise Misfit(
                    f"info has an {MASK}, which it had not after the first reset; give it always, or set action_masks=False."
                )
            return None
        if MASK not in source:
            raise Misfit(f"{where} must always have an {MASK}, got none.")
        return (array(source[MASK], (int(actions.n),), real(), MASK) != 0).astype(real())

    notes = ["observations from 0 to 255 are divided by 255; scale_pixels=False leaves them"] if scaled else []
    if masked:
        notes.append(f"actions that {MASK} forbids are never taken; action_masks=False allows all")
    return Senses(encode, size, allowed, masked, tuple(notes))


def must_be_allowed(mask: np.ndarray, action: Any) -> None:
    """Policies take an action that the mask forbids only where it forbids all.

    Raises:
      Misfit: it does.
    """
    if not mask[int(action)]:
        raise Misfit(f"{MASK} must allow an action as long as the episode goes on, got none that it allows.")


def actor(owner: str, space: Any, num_inputs: int, **network: Any) -> tuple[Policy, Callable[[Any], Any]]:
    """The policy for an action space (`lapg.problems.adapters.policy_for`), and how its actions become the environment's.

    Raises:
      ValueError: another space than Discrete or a real Box, or a Box bounded on one side only.
    """
    spaces = _package().spaces
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return policy_for(owner, space, num_inputs, **network), (lambda action: start + int(action)) if start else int
    if not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)):
        raise ValueError(
            f"{owner} must have Discrete or real Box actions, got {space}; name a factory that wraps it as MODULE:FACTORY."
        )
    low, high = space.low.ravel(), space.high.ravel()

    def decode(action: Any) -> np.ndarray:  # rounding may leave the bounds by one unit in the last place
        return np.minimum(np.maximum(action.astype(space.dtype), low), high).reshape(space.shape)

    return policy_for(owner, spaces.Box(low, high, dtype=space.dtype), num_inputs, **network), decode
