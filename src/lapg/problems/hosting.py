"""Problems of environments outside JAX."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lapg.policies import mlp, with_policy
from lapg.problems.builders import score
from lapg.problems.contract import opened, theirs
from lapg.problems.playing import Host, collector
from lapg.problems.rows import each, real
from lapg.types import Interface, JointSpaces, Policy, Problem, Spaces, Task

__all__ = ["Host", "from_hosts", "real"]


def from_hosts(
    name: str,
    make: Callable[..., Host],
    policy: Policy | Callable[..., Policy] | None = None,
    *,
    tasks: Task,
    num_steps: int,
    discount: float,
    spaces: Spaces | JointSpaces | None = None,
    num_losses: int = 1,
    shared: bool = False,
    differ: bool = False,
    observation: Any = None,
    interface: Interface | None = None,
) -> Problem:
    """The problem of episodes of at most ``num_steps`` steps in environments made by ``make``, and a policy beside it.

    Args:
      name: how errors call the environment.
      policy: a policy, or the default factory of one (`lapg.policies`), which a configuration can choose otherwise; None is `lapg.policies.mlp`.
      spaces: what an agent observes and does, which a factory has to know.
      num_losses: how many losses a step has; 1, or one per learner.
      shared: whether all learners see the same N episodes, or N of their own each.
      differ: whether learners' environments do, so that ``make`` is called with the learner's index; not where they share episodes.
      observation: what the policy sees after a reset, for its shape; None asks an environment that is made for this, and closed.
      interface: what stands between the environment itself and the policy, where hosts translate.
    Raises:
      EnvironmentFailed: an environment cannot be made, reset or closed.
    """
    num_learners = tasks.index.shape[0]
    if observation is None:
        with opened(name, partial(make, 0) if differ else make) as host, theirs(f"{name}, in its first reset"):
            observation = host.reset(0)
    observation = each(lambda leaf: np.asarray(leaf, real()), observation)
    collect, proceed, close = collector(
        name, make, num_learners, num_steps, discount=discount, num_losses=num_losses, shared=shared, differ=differ
    )
    problem = Problem(
        score=score(discount),
        tasks=tasks,
        num_learners=num_learners,
        shared=shared,
        collect=collect,
        proceed=proceed,
        close=close,
        spaces=spaces,
        default_policy=None if isinstance(policy, Policy) else policy or mlp,
        joint=num_losses > 1,
        observation=observation,
        interface=interface,
        num_steps=num_steps,
        discount=discount,
    )
    return with_policy(problem, policy if isinstance(policy, Policy) else None)
