"""From an environment to a problem, and the checks that problems share."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lapg.policies import mlp, with_policy
from lapg.sampling import episodes
from lapg.types import Box, Discrete, Environment, JointSpaces, Policy, Problem, Spaces, Task, Trajectories


def make_tasks(num_learners: int, scales: Sequence[float] | None, extra: PyTree = None) -> Task:
    """Tasks of M learners, leading axis M; ``scales`` None means all 1.

    Raises:
      ValueError: ``scales`` does not have M entries, or an entry is not positive and finite.
    """
    values = np.ones(num_learners) if scales is None else np.asarray(scales, float)
    if values.shape != (num_learners,):
        raise ValueError(
            f"scales must have one entry per learner, {num_learners} in all, got {values.size} ({values.tolist()}); "
            "give one positive number per learner, or none for a homogeneous problem."
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(
            f"scales must be positive and finite, got {values.tolist()}; "
            "a learner that should not count is left out, not scaled by zero."
        )
    return Task(jnp.arange(num_learners, dtype=jnp.int32), jnp.asarray(values, float), extra)


def at_least(owner: str, **values: int | float) -> None:
    """Every named value must be a whole number >= 1."""
    for name, value in values.items():
        if value < 1 or int(value) != value:
            raise ValueError(f"{owner}({name}=...) must be a whole number >= 1, got {value}.")


def unit_interval(owner: str, discount: int | float) -> None:
    """The discount γ must lie in (0, 1]."""
    if not 0 < discount <= 1:
        raise ValueError(f"{owner}(discount=...) must lie in (0, 1], got {discount}; the paper uses 0.99.")


def spread(num_learners: int, heterogeneity: float, factor: float, key: Key[Array, ""]) -> Float[Array, " M"]:
    """How a quantity differs between learners: factor^(h·u_m), u_m evenly spaced in [−1, 1] in an order drawn from ``key``.

    All 1 at heterogeneity h = 0; from 1/factor to factor at h = 1. One learner has u = 0.

    Raises:
      ValueError: heterogeneity is negative or not finite.
    """
    if not 0 <= heterogeneity < math.inf:
        raise ValueError(
            f"heterogeneity must be >= 0 and finite, got {heterogeneity}; 0 makes all learners alike, 1 very different."
        )
    even = jnp.linspace(-1.0, 1.0, num_learners) if num_learners > 1 else jnp.zeros(1)
    return factor ** (heterogeneity * jax.random.permutation(key, even))


def score(discount: float) -> Callable[[Task, Trajectories], dict[str, Float[Array, ""]]]:
    """Returns of a batch, averaged over its trajectories; raw ones are divided by the task's scale.

    A return is the sum of rewards (negative losses) over an episode. ``score_*`` is the mean reward per step, the score of
    the comparison protocol.
    """

    def evaluate(task: Task, batch: Trajectories) -> dict[str, Float[Array, ""]]:
        losses = jnp.where(batch.mask, batch.losses, 0)
        weights = discount ** jnp.arange(losses.shape[-1], dtype=losses.dtype)
        plain, discounted = -losses.sum(-1).mean(), -(losses @ weights).mean()
        return {
            "return_scaled": plain,
            "return_raw": plain / task.scale,
            "discounted_return_scaled": discounted,
            "discounted_return_raw": discounted / task.scale,
            "score_scaled": plain / losses.shape[-1],
            "score_raw": plain / losses.shape[-1] / task.scale,
        }

    return evaluate


def first_observation(environment: Environment, tasks: Task) -> Any:
    """Shapes and dtypes of what learner 0 observes after a reset, without computing it."""
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    return jax.eval_shape(lambda key: environment.observe(environment.reset(key, task)), jax.random.key(0))


def spaces_of(environment: Environment, tasks: Task, actions: Discrete | Box) -> Spaces:
    """The spaces of an environment whose observations are real numbers, all leaves one after the other where there are several.

    Raises:
      ValueError: an observation is a whole number, of which shapes do not say the range.
    """
    leaves = jax.tree.leaves(first_observation(environment, tasks))
    if len(leaves) == 1 and leaves[0].shape == () and jnp.issubdtype(leaves[0].dtype, jnp.integer):
        raise ValueError(
            "from_environment(actions=...) is enough where observations are real numbers, got whole ones; give "
            "spaces=Spaces(Discrete(number of states), actions)."
        )
    return Spaces(Box(leaves[0].shape if len(leaves) == 1 else (sum(leaf.size for leaf in leaves),)), actions)


def from_environment(
    environment: Environment,
    policy: Policy | Callable[..., Policy] | None = None,
    *,
    tasks: Task,
    num_steps: int,
    discount: float,
    actions: Discrete | Box | None = None,
    spaces: Spaces | JointSpaces | None = None,
    shared: bool = False,
    **known: Any,
) -> Problem:
    """The problem of episodes of ``num_steps`` steps in ``environment``, and a policy beside it.

    Args:
      policy: a policy, or the default factory of one (`lapg.policies`), which a configuration can choose otherwise; None is `lapg.policies.mlp`.
      actions: what one agent can do. Its observations are looked up in the environment.
      spaces: both, in place of ``actions``: for several agents, and for observations that are whole numbers.
      known: further fields of `lapg.types.Problem`.
    Raises:
      ValueError: neither actions nor spaces, where the policy is not given as it is.
    """
    if spaces is None and actions is not None:
        spaces = spaces_of(environment, tasks, actions)
    problem = Problem(
        score=score(discount),
        tasks=tasks,
        num_learners=tasks.index.shape[0],
        shared=shared,
        environment=environment,
        sampler=episodes,
        spaces=spaces,
        default_policy=None if isinstance(policy, Policy) else policy or mlp,
        num_steps=num_steps,
        discount=discount,
        **known,
    )
    return with_policy(problem, policy if isinstance(policy, Policy) else None)
