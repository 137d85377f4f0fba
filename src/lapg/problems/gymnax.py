"""Environments of gymnax (1.x): JAX versions of classic control, MinAtar and bsuite. They compile together with the learners."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lapg.problems.adapters import action_space, lenient, needs, one_of, same_types, shaped, vector
from lapg.problems.builders import at_least, from_environment, unit_interval
from lapg.problems.parallel import parallel_tasks, quantities_of
from lapg.types import Box, Discrete, Environment, Interface, Problem, Spaces, Task, Transition

STICKY = "sticky"
STICKY_FACTOR = 4.0


class State(eqx.Module):
    """gymnax's own state, the observation that came with it, as a vector, and the last action, where actions may stick."""

    inner: PyTree
    observation: Float[Array, " n"]
    action: PyTree = ()


def environment(game: Any, settings: Any, sticky: bool = False) -> Environment:
    """A gymnax environment with its parameters, of which a task's ``extra`` may have others; the loss is minus the reward.

    ``terminated`` is gymnax's; ``truncated`` is its time limit. The episode is not reset after its end: `lapg.rollouts` masks what follows.

    Args:
      sticky: whether the last action is repeated with the task's probability ``extra["sticky"]``, as MinAtar does; before the first one that is action 0.
    """
    see = seer(game, settings)

    def of(task: Task) -> Any:
        return settings.replace(**{name: value for name, value in (task.extra or {}).items() if name != STICKY})

    def reset(key: Key[Array, ""], task: Task) -> State:
        observation, inner = game.reset_env(key, of(task))
        return State(jax.tree.map(jnp.asarray, inner), see(observation), jnp.int32(0) if sticky else ())

    def step(key: Key[Array, ""], task: Task, state: State, action: Any) -> Transition:
        if sticky:
            key, key_stick = jax.random.split(key)
            action = jnp.where(jax.random.bernoulli(key_stick, task.extra[STICKY]), state.action, action)
        own = of(task)
        observation, inner, reward, terminated, _ = game.step_env(key, state.inner, action, own)
        return Transition(
            State(same_types(inner, state.inner), see(observation), action if sticky else ()),
            -jnp.asarray(reward, float),
            jnp.asarray(terminated, bool),
            jnp.asarray(game.is_truncated(inner, own), bool),
        )

    return Environment(lenient(reset), lambda state: state.observation, lenient(step))


def seer(game: Any, settings: Any) -> Callable[[PyTree], Float[Array, " n"]]:
    """How gymnax's observations become vectors: one-hot or raveled."""
    space = game.observation_space(settings)
    return lambda seen: jax.nn.one_hot(seen, space.n) if hasattr(space, "n") else vector(seen)


def gymnax(
    *,
    env: str,
    num_learners: int = 4,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    vary: Mapping[str, float] | None = None,
    sticky: float = 0.0,
    flat: bool = False,
    num_steps: int | None = None,
    discount: float = 0.99,
    problem_seed: int = 0,
) -> Problem:
    """Parallel RL (5) in a gymnax environment: all learners share one policy, and each samples its own episodes.

    Args:
      env: a name that gymnax knows, ``CartPole-v1`` or ``Pendulum-v1`` for example.
      num_learners: M.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them around 1 by a factor of 4.
      heterogeneity: h, spreads by factor^±h what ``vary`` names, ``sticky`` (4) and the scale (4).
      vary: factors of the environment's own parameters by name, real numbers or arrays of them, {"gravity": 1.5} for example.
      sticky: probability that the last action is repeated in place of the chosen one, in [0, 1).
      flat: whether an image is a vector to the policy.
      num_steps: T; None is the environment's own time limit (500 for CartPole-v1).
      discount: γ.
      problem_seed: draws who gets what.
    Raises:
      ValueError: gymnax is not installed, an unknown name, an action space that is neither discrete nor a vector, a wrong size, a parameter that the
        environment does not have or a factor that is not positive, a probability outside [0, 1), sticky actions that are not discrete.
    """
    package = _package()
    one_of("gymnax", env, package.registered_envs)
    game, settings = package.make(env)
    steps = int(settings.max_steps_in_episode) if num_steps is None else num_steps
    at_least("gymnax", num_learners=num_learners, num_steps=steps)
    unit_interval("gymnax", discount)
    actions = action_space("gymnax", game.action_space(settings))
    quantities = quantities_of("gymnax", env, vars(settings), vary)
    if sticky:
        if not 0 < sticky * STICKY_FACTOR**heterogeneity < 1:
            raise ValueError(
                f"gymnax(sticky=...) must lie in [0, 1), also where heterogeneity is largest, by {STICKY_FACTOR}^{heterogeneity}, got {sticky}."
            )
        if not isinstance(actions, Discrete):
            raise ValueError(
                f"gymnax(sticky=...) must be 0 where actions are not discrete, as in {env!r}, got {sticky}."
            )
        quantities[STICKY] = (sticky, STICKY_FACTOR)
    tasks = parallel_tasks(num_learners, scales, heterogeneity, jax.random.key(problem_seed), **quantities)
    shapes = jax.eval_shape(lenient(lambda key: game.reset_env(key, settings)[0]), jax.random.key(0))
    see = seer(game, settings)
    leaves = jax.tree.leaves(shapes)
    image = len(leaves) == 1 and leaves[0].ndim > 1 and not flat
    see_shape = leaves[0].shape if image else jax.eval_shape(see, shapes).shape
    return from_environment(
        environment(game, settings, sticky > 0),
        spaces=Spaces(Box(see_shape), actions),
        tasks=tasks,
        num_steps=steps,
        discount=discount,
        interface=Interface(lambda seen, info=None: np.asarray(see(shaped(shapes, seen))), lambda executed: executed),
    )


def _package() -> Any:
    with needs("gymnax"):
        import gymnax as package
    return package
