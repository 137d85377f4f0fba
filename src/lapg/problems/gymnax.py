"""Environments of gymnax (1.x): JAX versions of classic control, MinAtar and bsuite. They compile together with the learners."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lapg.problems.adapters import action_space, needs, one_of, same_types, shaped, vector
from lapg.problems.builders import at_least, from_environment, make_tasks, unit_interval
from lapg.types import Box, Environment, Interface, Problem, Spaces, Task, Transition


class State(eqx.Module):
    """gymnax's own state, and the observation that came with it, as a vector."""

    inner: PyTree
    observation: Float[Array, " n"]


def environment(game: Any, settings: Any) -> Environment:
    """A gymnax environment with its parameters; the loss is minus the reward.

    ``terminated`` is gymnax's; ``truncated`` is its time limit. The episode is not reset after its end: `lapg.rollouts` masks what follows.
    """
    see = seer(game, settings)

    def reset(key: Key[Array, ""], task: Task) -> State:
        observation, inner = game.reset_env(key, settings)
        return State(jax.tree.map(jnp.asarray, inner), see(observation))

    def step(key: Key[Array, ""], task: Task, state: State, action: Any) -> Transition:
        observation, inner, reward, terminated, _ = game.step_env(key, state.inner, action, settings)
        return Transition(
            State(same_types(inner, state.inner), see(observation)),
            -jnp.asarray(reward, float),
            jnp.asarray(terminated, bool),
            jnp.asarray(game.is_truncated(inner, settings), bool),
        )

    return Environment(reset, lambda state: state.observation, step)


def seer(game: Any, settings: Any) -> Callable[[PyTree], Float[Array, " n"]]:
    """How gymnax's observations become vectors: one-hot or raveled."""
    space = game.observation_space(settings)
    return lambda seen: jax.nn.one_hot(seen, space.n) if hasattr(space, "n") else vector(seen)


def gymnax(
    *,
    env: str,
    num_learners: int = 4,
    scales: Sequence[float] | None = None,
    num_steps: int | None = None,
    discount: float = 0.99,
) -> Problem:
    """Parallel RL (5) in a gymnax environment: all learners share one policy, and each samples its own episodes.

    Args:
      env: a name that gymnax knows, ``CartPole-v1`` or ``Pendulum-v1`` for example.
      scales: c_m > 0, one per learner; None is all 1.
      discount: γ.
      num_learners: M.
      num_steps: T; None is the environment's own time limit (500 for CartPole-v1).
    Raises:
      ValueError: gymnax is not installed, an unknown name, an action space that is neither discrete nor a vector, a wrong size.
    """
    package = _package()
    one_of("gymnax", env, package.registered_envs)
    game, settings = package.make(env)
    steps = int(settings.max_steps_in_episode) if num_steps is None else num_steps
    at_least("gymnax", num_learners=num_learners, num_steps=steps)
    unit_interval("gymnax", discount)
    outside, tasks = environment(game, settings), make_tasks(num_learners, scales)
    shapes = jax.eval_shape(lambda key: game.reset_env(key, settings)[0], jax.random.key(0))
    see = seer(game, settings)
    leaves = jax.tree.leaves(shapes)
    image = len(leaves) == 1 and leaves[0].ndim > 1
    see_shape = leaves[0].shape if image else jax.eval_shape(see, shapes).shape
    return from_environment(
        outside,
        spaces=Spaces(Box(see_shape), action_space("gymnax", game.action_space(settings))),
        tasks=tasks,
        num_steps=steps,
        discount=discount,
        interface=Interface(lambda seen, info=None: np.asarray(see(shaped(shapes, seen))), lambda executed: executed),
    )


def _package() -> Any:
    with needs("gymnax"):
        import gymnax as package
    return package
