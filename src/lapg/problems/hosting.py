"""Episodes of environments outside JAX, played side by side on the host."""

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from lapg.policies import mlp, with_policy
from lapg.problems.builders import score
from lapg.problems.contract import Misfit, failed, opened, theirs
from lapg.types import Interface, JointSpaces, Policy, Problem, Recorded, Spaces, Task

Act = Callable[[Any, int], tuple[Any, Any]]


class Host(NamedTuple):
    """One environment, one episode at a time. Observations and actions are arrays, or tuples with one entry per agent.

    ``reset: seed → observation``, with a seed below 2³¹ · ``step: action → observation, losses, terminated, truncated``, where losses are one number,
    or one per agent · ``close`` ends it. Equal seeds and actions must mean equal episodes.
    """

    reset: Callable[[int], Any]
    step: Callable[[Any], tuple[Any, Any, bool, bool]]
    close: Callable[[], None] = lambda: None


def from_hosts(
    name: str,
    make: Callable[[], Host],
    policy: Policy | Callable[..., Policy] | None = None,
    *,
    tasks: Task,
    num_steps: int,
    discount: float,
    spaces: Spaces | JointSpaces | None = None,
    num_losses: int = 1,
    shared: bool = False,
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
      observation: what the policy sees after a reset, for its shape; None asks an environment that is made for this, and closed.
      interface: what stands between the environment itself and the policy, where hosts translate.
    Raises:
      EnvironmentFailed: an environment cannot be made, reset or closed.
    """
    num_learners = tasks.index.shape[0]
    if observation is None:
        with opened(name, make) as host, theirs(f"{name}, in its first reset"):
            observation = host.reset(0)
    observation = _each(lambda leaf: np.asarray(leaf, real()), observation)
    collect, close = collector(name, make, num_learners, num_steps, num_losses=num_losses, shared=shared)
    problem = Problem(
        score=score(discount),
        tasks=tasks,
        num_learners=num_learners,
        shared=shared,
        collect=collect,
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


def collector(
    name: str, make: Callable[[], Host], num_learners: int, num_steps: int, *, num_losses: int, shared: bool
) -> tuple[Callable[..., Recorded], Callable[[], None]]:
    """A problem's ``collect`` and ``close`` (`lapg.types.Problem`).

    Environments are made when they are first needed and used again, each for one episode a round; whoever has reached its end waits for the others.
    They are closed by ``close``, and at the latest when the problem is forgotten or Python ends.
    """
    pool: list[Host] = []

    def collect(act: Act, seeds: np.ndarray, num: int, learners: Sequence[int] = range(num_learners)) -> Recorded:
        groups = 1 if shared else len(learners)
        count, dtype = groups * num, real()

        def for_learners(leaf: np.ndarray) -> np.ndarray:
            """[hosts, ...] → [M, N, ...]; where episodes are shared, all learners get the same."""
            grouped = leaf.reshape(groups, -1, *leaf.shape[1:])
            if groups == len(learners):
                return grouped
            return np.broadcast_to(grouped, (len(learners), *grouped.shape[1:]))

        def place(host: int) -> str:
            who = "all learners" if shared else f"learner {learners[host // num]}"
            return f"an episode of {who} (seed {starts[host]})"

        def for_hosts(leaf: np.ndarray) -> np.ndarray:
            return leaf[:groups].reshape(-1, *leaf.shape[2:])

        def over_time(*steps: np.ndarray) -> np.ndarray:
            """The steps' [hosts, ...] → [M, N, T, ...]; the last one stands for those that were not played."""
            whole = np.empty((len(steps[0]), num_steps, *steps[0].shape[1:]), steps[0].dtype)
            np.stack(steps, 1, out=whole[:, : len(steps)])
            whole[:, len(steps) :] = steps[-1][:, None]
            return for_learners(whole)

        while len(pool) < count:
            with theirs(
                f"{name} could not be made for the {len(pool) + 1}. time ({count} episodes are played side by side)"
            ):
                pool.append(make())
        words = np.concatenate([np.random.SeedSequence(int(seed)).generate_state(num) for seed in seeds[:groups]])
        starts = (words % 2**31).tolist()  # a C int holds them
        fresh, i = [], 0
        try:
            for i in range(count):
                fresh.append(pool[i].reset(starts[i]))
        except (Exception, SystemExit) as error:
            raise failed(f"{name}, in the reset of {place(i)}", error) from error
        seen = [_stack(fresh, dtype)]
        if (row := _not_finite(seen[0])) is not None:
            raise Misfit(f"{name}, in the reset of {place(row)}: an observation must be finite; mend it there.")
        steps = [host.step for host in pool[:count]]
        lengths, terminated = np.full(count, num_steps), np.zeros(count, bool)
        alive, acted, charged = list(range(count)), [], []
        for t in range(num_steps):
            recorded, executed = act(_each(for_learners, seen[t]), t)
            acted.append(recorded)
            actions = _unstack(_each(for_hosts, executed))
            results = []
            try:
                for i in alive:
                    results.append(steps[i](actions[i]))  # i says whose has failed
            except (Exception, SystemExit) as error:
                raise failed(f"{name}, in step {t + 1} of {place(i)}", error) from error
            after, losses, over, cut = zip(*results, strict=True)
            charged += losses
            fresh = _stack(after, dtype)
            if (row := _not_finite(fresh)) is not None:
                raise Misfit(
                    f"{name}, in step {t + 1} of {place(alive[row])}: an observation must be finite; mend it there."
                )
            seen.append(fresh if len(alive) == count else _each(partial(_renewed, where=alive), seen[t], fresh))
            if any(over) or any(cut):
                for i, own, outer in zip(alive, over, cut, strict=True):
                    if own or outer:
                        lengths[i], terminated[i] = t + 1, own
                alive = [i for i in alive if lengths[i] > t + 1]
            if not alive:
                break

        mask = np.arange(num_steps)[:, None] < lengths
        losses = np.zeros((num_steps, count, num_losses), dtype)
        losses[mask] = np.reshape(charged, (-1, num_losses))
        for t, i, _ in np.argwhere(~np.isfinite(losses))[:1].tolist():
            raise Misfit(f"{name}, in step {t + 1} of {place(i)}: a reward must be finite, got {-losses[t, i]}.")
        observations = _each(over_time, *seen[:num_steps])
        actions = _each(over_time, *(_each(for_hosts, step) for step in acted))
        own = np.arange(len(learners))
        everyones = np.broadcast_to(for_learners(losses.swapaxes(0, 1)), (len(learners), num, num_steps, num_learners))
        return Recorded(
            observations,
            actions,
            everyones[own, :, :, list(learners)],
            for_learners(mask.T),
            for_learners(terminated),
            _each(for_learners, seen[-1]),
        )

    def close() -> None:
        failures = _close(pool)
        if failures:
            raise failed(f"{name} could not be closed", failures[0]) from failures[0]

    weakref.finalize(collect, _close, pool)
    return collect, close


def _close(pool: list[Host]) -> list[Exception]:
    """Empties a pool, and goes on where one cannot be closed."""
    failures = []
    while pool:
        try:
            pool.pop().close()
        except Exception as error:
            failures.append(error)
    return failures


def real() -> np.dtype:
    """JAX's floating-point type."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


def _each(function: Callable[..., Any], *trees: Any) -> Any:
    """``function`` of one array, or of every agent's; at every step, so that ``jax.tree.map`` would be felt."""
    return tuple(map(function, *trees)) if isinstance(trees[0], tuple) else function(*trees)


def _stack(items: Sequence[Any], dtype: np.dtype) -> Any:
    if isinstance(items[0], tuple):
        return tuple(np.asarray(column, dtype) for column in zip(*items, strict=True))
    return np.asarray(items, dtype)


def _unstack(tree: Any) -> Any:
    if isinstance(tree, tuple):
        return list(zip(*tree, strict=True))
    return tree.tolist() if tree.ndim == 1 else tree  # numbers are quicker than arrays of one


def _renewed(old: np.ndarray, fresh: np.ndarray, where: list[int]) -> np.ndarray:
    new = old.copy()
    new[where] = fresh
    return new


def _not_finite(tree: Any) -> int | None:
    """A row in which something is NaN or infinite, if there is one."""
    for leaf in tree if isinstance(tree, tuple) else (tree,):
        if not np.isfinite(leaf).all():
            return int(np.argwhere(~np.isfinite(leaf))[0, 0])
    return None
