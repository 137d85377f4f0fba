"""Episodes of environments outside JAX, played side by side on the host."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from lapg.problems.protocol import score
from lapg.types import Policy, Problem, Recorded, Task

Act = Callable[[Any, int], tuple[Any, Any]]


class Host(NamedTuple):
    """One environment, one episode at a time. Observations and actions are arrays, or tuples with one entry per agent.

    ``reset: seed → observation`` · ``step: action → observation, losses, terminated, truncated``, where losses are one number, or one per agent.
    Equal seeds and actions must mean equal episodes.
    """

    reset: Callable[[int], Any]
    step: Callable[[Any], tuple[Any, Any, bool, bool]]


def from_hosts(
    name: str,
    make: Callable[[], Host],
    policy: Policy,
    *,
    tasks: Task,
    num_steps: int,
    discount: float,
    num_losses: int = 1,
    shared: bool = False,
) -> Problem:
    """A problem that plays environments made by ``make`` with ``policy`` for at most ``num_steps`` steps an episode.

    Args:
      name: how errors call the environment.
      num_losses: how many losses a step has; 1, or one per learner.
      shared: whether all learners see the same N episodes, or N of their own each.
    """
    num_learners = tasks.index.shape[0]
    observation = _each(lambda leaf: np.asarray(leaf, real()), make().reset(0))
    return Problem(
        sample=None,
        score=score(discount),
        init=policy.init,
        tasks=tasks,
        num_learners=num_learners,
        shared=shared,
        collect=collector(name, make, num_learners, num_steps, num_losses=num_losses, shared=shared),
        policy=policy,
        joint=num_losses > 1,
        observation=observation,
        num_steps=num_steps,
        discount=discount,
    )


def collector(
    name: str, make: Callable[[], Host], num_learners: int, num_steps: int, *, num_losses: int, shared: bool
) -> Callable[..., Recorded]:
    """A problem's ``collect`` (`lapg.types.Problem`).

    Environments are made when they are first needed and used again, each for one episode a round; whoever has reached its end waits for the others.
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

        def for_hosts(leaf: np.ndarray) -> np.ndarray:
            return leaf[:groups].reshape(-1, *leaf.shape[2:])

        def over_time(*steps: np.ndarray) -> np.ndarray:
            """The steps' [hosts, ...] → [M, N, T, ...]; the last one stands for those that were not played."""
            whole = np.empty((len(steps[0]), num_steps, *steps[0].shape[1:]), steps[0].dtype)
            np.stack(steps, 1, out=whole[:, : len(steps)])
            whole[:, len(steps) :] = steps[-1][:, None]
            return for_learners(whole)

        pool.extend(make() for _ in range(count - len(pool)))
        starts = np.concatenate([np.random.SeedSequence(int(seed)).generate_state(num) for seed in seeds[:groups]])
        seen = [_stack([host.reset(int(seed)) for host, seed in zip(pool, starts, strict=False)], dtype)]
        _check(name, "an observation", 0, seen[0])
        steps = [host.step for host in pool[:count]]
        lengths, terminated = np.full(count, num_steps), np.zeros(count, bool)
        alive, acted, charged = list(range(count)), [], []
        for t in range(num_steps):
            recorded, executed = act(_each(for_learners, seen[t]), t)
            acted.append(recorded)
            actions = _unstack(_each(for_hosts, executed))
            after, losses, over, cut = zip(*[steps[i](actions[i]) for i in alive], strict=True)
            charged += losses
            fresh = _stack(after, dtype)
            _check(name, "an observation", t + 1, fresh)
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
        for t in np.argwhere(~np.isfinite(losses))[:1, 0].tolist():
            _check(name, "a reward", t + 1, losses[t])
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

    return collect


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


def _check(name: str, what: str, step: int, tree: Any) -> None:
    if not all(np.isfinite(leaf).all() for leaf in (tree if isinstance(tree, tuple) else (tree,))):
        raise ValueError(f"{name} must be finite, got {what} with NaN or infinity after step {step}; mend it there.")
