"""Spaces of Gymnasium, which PettingZoo uses too: observations as vectors, masks of allowed actions, actions as they are executed."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lapg.problems.adapters import action_space, discrete, needs
from lapg.problems.contract import Misfit, array
from lapg.problems.hosting import real
from lapg.types import Box, Discrete

MASK = "action_mask"


def package() -> Any:
    """Gymnasium.

    Raises:
      ValueError: it is not installed.
    """
    with needs("gymnasium"):
        import gymnasium as outside
    return outside


class Encoder(NamedTuple):
    """How observations become flat vectors.

    ``shape``: how a network sees the vector's numbers, rows, columns and channels of an image for example · ``scaled``: whether there are bytes among
    them that are divided by 255.
    """

    encode: Callable[[Any], np.ndarray]
    shape: tuple[int, ...]
    scaled: bool = False

    @property
    def size(self) -> int:
        """Of the vector."""
        return math.prod(self.shape)


def flattener(owner: str, space: Any, scale_pixels: bool = True) -> Encoder:
    """How observations of a space become flat vectors: Box raveled, Discrete one-hot, products joined, entry by entry.

    Raises:
      ValueError: they do not.
    """
    spaces, dtype = package().spaces, real()
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

        return Encoder(join, (sum(entry.size for entry in entries),), any(entry.scaled for entry in entries))
    if isinstance(space, spaces.Box):
        scaled = scale_pixels and space.dtype == np.uint8 and bool((space.low == 0).all() and (space.high == 255).all())
        factor = 1 / 255 if scaled else 1

        def ravel(observation: Any) -> np.ndarray:
            return (
                factor * array(observation, space.shape, dtype, "an observation").ravel()
            )  # a copy: the environment may reuse its own

        return Encoder(ravel, tuple(space.shape) or (1,), scaled)
    if isinstance(space, spaces.Discrete):

        def one_hot(observation: Any) -> np.ndarray:
            place = array(observation, (), dtype, "an observation") - space.start
            if not (0 <= place < space.n and place == int(place)):
                raise Misfit(f"an observation must lie in {space}, got {observation}.")
            return np.eye(1, space.n, int(place), dtype)[0]

        return Encoder(one_hot, (int(space.n),))
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

    return Encoder(flatten, (spaces.flatdim(space),))


class Senses(NamedTuple):
    """What an agent's policy gets to see of an observation: as many numbers as ``shape`` says, and which actions are allowed then, if the environment says so.

    ``encode: observation → vector`` · ``allowed: observation, info → 1 or 0 for every action``, None where nothing is ``masked`` · ``notes``: what
    is changed.
    """

    encode: Callable[[Any], np.ndarray]
    shape: tuple[int, ...]
    allowed: Callable[[Any, Any], np.ndarray | None]
    masked: bool
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)


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
    encode, shape, scaled = flattener(owner, space, scale_pixels)

    def allowed(observation: Any, info: Any) -> np.ndarray | None:
        at_hand = inside and observation is not None
        where = "an observation" if at_hand else "info"
        source: Any = observation if at_hand else info or {}
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
    return Senses(encode, shape, allowed, masked, tuple(notes))


def must_be_allowed(mask: Any, action: Any) -> None:
    """Policies take an action that the mask forbids only where it forbids all.

    Raises:
      Misfit: it does.
    """
    if not mask[int(action)]:
        raise Misfit(f"{MASK} must allow an action as long as the episode goes on, got none that it allows.")


def actor(owner: str, space: Any) -> tuple[Discrete | Box, Callable[[Any], Any]]:
    """What a policy has to know of an action space, and how its actions become the environment's.

    Raises:
      ValueError: another space than Discrete or a real Box, or a Box bounded on one side only.
    """
    spaces = package().spaces
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return action_space(owner, space), (lambda action: start + int(action)) if start else int
    if not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)):
        raise ValueError(
            f"{owner} must have Discrete or real Box actions, got {space}; name a factory that wraps it as MODULE:FACTORY."
        )
    low, high = space.low.ravel(), space.high.ravel()

    def decode(action: Any) -> np.ndarray:  # rounding may leave the bounds by one unit in the last place
        return np.minimum(np.maximum(action.astype(space.dtype), low), high).reshape(space.shape)

    return action_space(owner, spaces.Box(low, high, dtype=space.dtype)), decode
