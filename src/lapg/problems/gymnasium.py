"""Environments of Gymnasium: parallel RL, every learner with episodes of its own under one common policy."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lapg.problems.adapters import imported, needs, policy_for
from lapg.problems.hosting import Host, from_hosts
from lapg.problems.protocol import at_least, make_tasks, unit_interval
from lapg.types import Policy, Problem


def gymnasium(
    *,
    env: str,
    num_learners: int = 4,
    scales: Sequence[float] | None = None,
    hidden: Sequence[int] = (16,),
    activation: str = "tanh",
    num_steps: int | None = None,
    discount: float = 0.99,
    std: float = 0.5,
    learned_std: bool = False,
    env_options: Mapping[str, Any] | None = None,
) -> Problem:
    """Any environment of Gymnasium by its id; losses are negative rewards.

    Args:
      env: an id such as CartPole-v1, or MODULE:FACTORY for a function that returns an environment.
      num_learners: M, learners that share one policy.
      scales: c_m > 0, one per learner; None is all 1.
      hidden: widths of the hidden layers of the policy's network.
      activation: ``relu``, ``softplus`` or ``tanh``.
      num_steps: T; None takes the environment's own limit.
      discount: γ.
      std: standard deviation of continuous actions in units of the network's output (see `lapg.policies.gaussian`).
      learned_std: whether it is learned.
      env_options: further arguments of the environment.
    Raises:
      ValueError: Gymnasium is missing or does not know the environment, its spaces do not fit, or T is not known. And during a run: an observation or
        a reward is not finite.
    """
    make = _maker(env, env_options or {})
    probe = make()
    limit = num_steps if num_steps is not None else getattr(probe.spec, "max_episode_steps", None)
    if limit is None:
        raise ValueError(f"gymnasium(num_steps=...) must be given for {env!r}, which sets no limit of its own.")
    at_least("gymnasium", num_learners=num_learners, num_steps=limit)
    unit_interval("gymnasium", discount)
    owner = f"gymnasium(env={env!r})"
    encode, num_inputs = flattener(owner, probe.observation_space)
    network = {"hidden": hidden, "activation": activation, "std": std, "learned_std": learned_std}
    policy, decode = actor(owner, probe.action_space, num_inputs, **network)
    probe.close()

    def host() -> Host:
        inner = make()
        advance = inner.step

        def step(action: Any) -> tuple[Any, Any, bool, bool]:
            observation, reward, terminated, truncated, _ = advance(decode(action))
            return encode(observation), -reward, terminated, truncated

        return Host(lambda seed: encode(inner.reset(seed=seed)[0]), step)

    return from_hosts(owner, host, policy, tasks=make_tasks(num_learners, scales), num_steps=limit, discount=discount)


def _maker(env: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    if ":" in env:
        return partial(imported(env, f"gymnasium(env={env!r})"), **options)
    outside = _package()

    def make() -> Any:
        try:
            return outside.make(env, **options)
        except (outside.error.Error, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"gymnasium(env=...) must be an environment that Gymnasium can make, got {env!r}: {reason}"
            ) from error

    return make


def _package() -> Any:
    with needs("gymnasium"):
        import gymnasium as outside
    return outside


def flattener(owner: str, space: Any) -> tuple[Callable[[Any], np.ndarray], int]:
    """How observations of a space become flat vectors (Box raveled, Discrete one-hot, products joined), and their length.

    Raises:
      ValueError: they do not.
    """
    spaces = _package().spaces
    try:
        flat = spaces.flatten_space(space)
    except NotImplementedError:
        flat = None
    if not isinstance(flat, spaces.Box):
        raise ValueError(
            f"{owner} must have observations of fixed size, got {space}; name a factory that wraps it as MODULE:FACTORY."
        )
    if isinstance(space, spaces.Box):
        return (np.asarray if len(space.shape) == 1 else np.ravel), int(np.prod(space.shape))
    return lambda observation: spaces.flatten(space, observation), spaces.flatdim(space)


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
