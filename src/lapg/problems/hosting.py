"""Episodes of environments outside JAX, played side by side on the host."""

import importlib
from collections.abc import Callable, Mapping
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
    observation = jax.tree.map(lambda leaf: leaf[0], _stack([make().reset(0)]))
    return Problem(
        sample=None,
        score=score(discount),
        init=policy.init,
        tasks=tasks,
        num_learners=num_learners,
        shared=shared,
        collect=collector(name, make, num_learners, num_steps, num_losses=num_losses, shared=shared),
        policy=policy,
        observation=observation,
        num_steps=num_steps,
        discount=discount,
    )


def collector(
    name: str, make: Callable[[], Host], num_learners: int, num_steps: int, *, num_losses: int, shared: bool
) -> Callable[[Act, Any, int], Recorded]:
    """A problem's ``collect`` (`lapg.types.Problem`).

    Environments are made when they are first needed and used again, each for one episode a round; whoever has reached its end waits for the others.
    """
    groups = 1 if shared else num_learners
    pool: list[Host] = []

    def collect(act: Act, seeds: np.ndarray, num: int) -> Recorded:
        count = groups * num
        pool.extend(make() for _ in range(count - len(pool)))
        starts = np.concatenate([np.random.SeedSequence(int(seed)).generate_state(num) for seed in seeds[:groups]])
        current = [host.reset(int(seed)) for host, seed in zip(pool, starts, strict=False)]

        losses = np.zeros((num_steps, count, num_losses), real())
        mask = np.zeros((num_steps, count), bool)
        terminated = np.zeros(count, bool)
        seen, acted = [_stack(current)], []
        _check(name, "an observation", 0, seen[0])
        alive = list(range(count))
        for t in range(num_steps):
            recorded, executed = act(jax.tree.map(for_learners, seen[t]), t)
            acted.append(jax.tree.map(for_hosts, recorded))
            actions = _unstack(jax.tree.map(for_hosts, executed))
            mask[t, alive] = True
            fresh, charged, over, cut = zip(*[pool[i].step(actions[i]) for i in alive], strict=True)
            for i, observation in zip(alive, fresh, strict=True):
                current[i] = observation
            losses[t, alive] = np.reshape(charged, (-1, num_losses))
            terminated[alive] = over
            alive = [i for i, *ends in zip(alive, over, cut, strict=True) if not any(ends)]
            seen.append(_stack(current))
            _check(name, "an observation", t + 1, seen[-1])
            if not alive:
                break

        for t in np.argwhere(~np.isfinite(losses))[:1, 0].tolist():
            _check(name, "a reward", t + 1, losses[t])
        observations, actions = (jax.tree.map(over_time, *steps) for steps in (seen[:num_steps], acted))
        final, ended = jax.tree.map(for_learners, seen[-1]), for_learners(terminated)
        own = np.arange(num_learners)
        each = np.broadcast_to(for_learners(losses.swapaxes(0, 1)), (num_learners, num, num_steps, num_learners))
        return Recorded(observations, actions, each[own, :, :, own], for_learners(mask.T), ended, final)

    def for_learners(leaf: np.ndarray) -> np.ndarray:
        """[hosts, ...] → [M, N, ...]; where episodes are shared, all learners get the same."""
        grouped = leaf.reshape(groups, -1, *leaf.shape[1:])
        return grouped if groups == num_learners else np.broadcast_to(grouped, (num_learners, *grouped.shape[1:]))

    def for_hosts(leaf: np.ndarray) -> np.ndarray:
        return leaf[:groups].reshape(-1, *leaf.shape[2:])

    def over_time(*steps: np.ndarray) -> np.ndarray:
        """The steps' [hosts, ...] → [M, N, T, ...]; the last one stands for those that were not played."""
        whole = np.empty((len(steps[0]), num_steps, *steps[0].shape[1:]), steps[0].dtype)
        np.stack(steps, 1, out=whole[:, : len(steps)])
        whole[:, len(steps) :] = steps[-1][:, None]
        return for_learners(whole)

    return collect


def real() -> np.dtype:
    """JAX's floating-point type."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


def _stack(items: list[Any]) -> Any:
    if isinstance(items[0], tuple):
        return tuple(np.asarray(column, real()) for column in zip(*items, strict=True))
    return np.asarray(items, real())


def _unstack(tree: Any) -> Any:
    if isinstance(tree, tuple):
        return list(zip(*tree, strict=True))
    return tree.tolist() if tree.ndim == 1 else tree  # numbers are quicker than arrays of one


def _check(name: str, what: str, step: int, tree: Any) -> None:
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)):
        raise ValueError(f"{name} must be finite, got {what} with NaN or infinity after step {step}; mend it there.")


def named_factory(owner: str, name: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    """A user's own environment from MODULE:FACTORY.

    Raises:
      ValueError: there is no such factory.
    """
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{owner}(env={name!r}) cannot be imported: {error}; is the module on PYTHONPATH, and its extra installed?"
        ) from error
    return lambda: factory(**options)
