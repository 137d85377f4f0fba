"""Environments outside JAX, played side by side on the host: episodes from resets, or segments of environments that go on."""

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lapg.problems.contract import Misfit, failed, theirs
from lapg.problems.rows import each, not_finite, real, renewed, stack, unstack
from lapg.types import Elapsed, HostBatch

Act = Callable[[Any, int], tuple[Any, Any]]


class Host(NamedTuple):
    """One environment, one episode at a time. Observations and actions are arrays, or tuples with one entry per agent.

    ``reset: seed → observation``, with a seed below 2³¹ · ``step: action → observation, losses, terminated, truncated``, where losses are one number,
    or one per agent · ``close`` ends it. Equal seeds and actions must mean equal episodes.
    """

    reset: Callable[[int], Any]
    step: Callable[[Any], tuple[Any, Any, bool, bool]]
    close: Callable[[], None] = lambda: None


@dataclass
class _Instance:
    """An environment, and the episode that it is in: its seed, what was seen last (None: no episode has begun), and what it has come to so far."""

    host: Host
    seed: int = 0
    seen: Any = None
    steps: int = 0
    losses: np.ndarray | float = 0.0
    discounted: np.ndarray | float = 0.0


def collector(
    name: str,
    make: Callable[..., Host],
    num_learners: int,
    num_steps: int,
    *,
    discount: float,
    num_losses: int,
    shared: bool,
    differ: bool = False,
) -> tuple[Callable[..., HostBatch], Callable[..., HostBatch], Callable[[], None]]:
    """A problem's ``collect``, ``proceed`` and ``close`` (`lapg.types.Problem`).

    Environments are made when they are first needed and used again: those of ``collect`` each for one episode a round, where whoever has reached its
    end waits for the others; those of ``proceed`` by the same lane and learner, and reset where an episode ends. Where learners ``differ``, ``make`` is told
    for whom it makes one, and nobody else plays it.
    They are closed by ``close``, and at the latest when the problem is forgotten or Python ends.
    """
    pools: dict[Hashable, list[_Instance]] = {}

    def take(whose: Sequence[tuple[Hashable, int | None]], count: int) -> list[_Instance]:
        """The first ``count`` instances of each pool, whose name and learner are given."""
        taken = []
        for key, learner in whose:
            pool = pools.setdefault(key, [])
            while len(pool) < count:
                made = sum(map(len, pools.values()))
                with theirs(
                    f"{name} could not be made for the {made + 1}. time ({count * len(whose)} episodes are played side by side)"
                ):
                    pool.append(_Instance(make(learner) if differ else make()))
            taken += pool[:count]
        return taken

    def collect(act: Act, seeds: np.ndarray, num: int, learners: Sequence[int] = range(num_learners)) -> HostBatch:
        if differ:
            instances = take([(("episodes", m), m) for m in learners], num)
        else:
            instances = take([("episodes", None)], num if shared else len(learners) * num)
        return play(instances, act, seeds, num, learners, num_steps, restart=False)

    def proceed(
        act: Act, seeds: np.ndarray, num: int, learners: Sequence[int], lane: Hashable, num_steps: int
    ) -> HostBatch:
        groups = [None] if shared else learners
        instances = take([(("segments", lane, group), group) for group in groups], num)
        return play(instances, act, seeds, num, learners, num_steps, restart=True)

    def play(
        instances: list[_Instance],
        act: Act,
        seeds: np.ndarray,
        num: int,
        learners: Sequence[int],
        length: int,
        *,
        restart: bool,
    ) -> HostBatch:
        groups = 1 if shared else len(learners)
        count, dtype = len(instances), real()

        def for_learners(leaf: np.ndarray) -> np.ndarray:
            """[hosts, ...] → [M, N, ...]; where episodes are shared, all learners get the same."""
            grouped = leaf.reshape(groups, -1, *leaf.shape[1:])
            if groups == len(learners):
                return grouped
            return np.broadcast_to(grouped, (len(learners), *grouped.shape[1:]))

        def own(leaf: np.ndarray) -> np.ndarray:
            """[hosts, ..., losses] → [M, N, ...]: each learner's."""
            everyones = for_learners(leaf)
            everyones = np.broadcast_to(everyones, (*everyones.shape[:-1], num_learners))
            return everyones[np.arange(len(learners)), ..., list(learners)]

        def place(host: int, seed: int | None = None) -> str:
            who = "all learners" if shared else f"learner {learners[host // num]}"
            return f"an episode of {who} (seed {instances[host].seed if seed is None else seed})"

        def for_hosts(leaf: np.ndarray) -> np.ndarray:
            return leaf[:groups].reshape(-1, *leaf.shape[2:])

        def over_time(length: int, *steps: np.ndarray) -> np.ndarray:
            """The steps' [hosts, ...] → [hosts, length, ...]; the last one stands for those that were not played."""
            whole = np.empty((len(steps[0]), length, *steps[0].shape[1:]), steps[0].dtype)
            np.stack(steps, 1, out=whole[:, : len(steps)])
            whole[:, len(steps) :] = steps[-1][:, None]
            return whole

        def begin(hosts: Sequence[int], words: Sequence[int]) -> list[Any]:
            """Begins an episode of each of these hosts, by a random word: what they then show."""
            shown, i = [], 0
            try:
                for i, word in zip(hosts, words, strict=True):
                    instances[i].seed = int(word) % 2**31  # a C int holds it
                    shown.append(instances[i].host.reset(instances[i].seed))
            except (Exception, SystemExit) as error:
                raise failed(f"{name}, in the reset of {place(i)}", error) from error
            if shown and (row := not_finite(stack(shown, dtype))) is not None:
                where = place(hosts[row])
                raise Misfit(f"{name}, in the reset of {where}: an observation must be finite; mend it there.")
            return shown

        def carry() -> Elapsed:
            """What the rows began with; leaves the instances as the next segment finds them."""
            steps, plain, discounted = started
            before = Elapsed(for_learners(steps), own(plain), own(discounted))
            for loss, over in zip(losses, (terminated | truncated)[..., None], strict=True):
                plain, discounted = plain + loss, discounted + discount ** steps[:, None] * loss
                steps = np.where(over[:, 0], 0, steps + 1)
                plain, discounted = np.where(over, 0, plain), np.where(over, 0, discounted)
            for i, instance in enumerate(instances):
                instance.seen = each(lambda leaf, i=i: leaf[i], seen[-1])
                instance.steps, instance.losses, instance.discounted = int(steps[i]), plain[i], discounted[i]
            return before

        new = [i for i, instance in enumerate(instances) if instance.seen is None]
        words = np.concatenate([np.random.SeedSequence(int(seed)).generate_state(num) for seed in seeds[:groups]])
        shown = dict(zip(new, begin(new, words[new].tolist()), strict=True))
        seen, followed = [stack([shown.get(i, instance.seen) for i, instance in enumerate(instances)], dtype)], []
        started = (
            np.array([instance.steps for instance in instances], np.int32),
            np.array([np.broadcast_to(instance.losses, num_losses) for instance in instances], dtype),
            np.array([np.broadcast_to(instance.discounted, num_losses) for instance in instances], dtype),
        )
        for instance in instances:  # what does not come to the end of this call begins anew
            instance.seen, instance.steps, instance.losses, instance.discounted = None, 0, 0.0, 0.0
        ages = started[0].copy()
        played, whose = np.zeros((2, length, count), np.int64)  # steps of episodes after each step here, and seeds
        mask, terminated, truncated = np.zeros((3, length, count), bool)
        steps = [instance.host.step for instance in instances]
        alive, acted, charged = list(range(count)), [], []
        for t in range(length):
            recorded, executed = act(each(for_learners, seen[t]), t)
            acted.append(recorded)
            actions = unstack(each(for_hosts, executed))
            results, i = [], 0
            try:
                for i in alive:
                    results.append(steps[i](actions[i]))  # i says whose has failed
            except (Exception, SystemExit) as error:
                raise failed(f"{name}, in step {ages[i] + 1} of {place(i)}", error) from error
            after, losses, over, cut = zip(*results, strict=True)
            charged += losses
            fresh = stack(after, dtype)
            if (row := not_finite(fresh)) is not None:
                raise Misfit(
                    f"{name}, in step {ages[alive[row]] + 1} of {place(alive[row])}: an observation must be finite; mend it there."
                )
            followed.append(fresh if len(alive) == count else each(partial(renewed, where=alive), seen[t], fresh))
            ages += 1
            played[t], whose[t] = ages, [instance.seed for instance in instances]
            mask[t, alive], terminated[t, alive] = True, over
            truncated[t, alive] = cut
            truncated[t] = (truncated[t] | (ages >= num_steps)) & mask[t] & ~terminated[t]
            seen.append(followed[t])
            ended = terminated[t] | truncated[t]
            if restart and ended.any():
                who = np.flatnonzero(ended).tolist()
                fresh = stack(begin(who, [_word(seeds[i // num], i % num, t + 1) for i in who]), dtype)
                seen[-1], ages[who] = each(partial(renewed, where=who), followed[t], fresh), 0
            elif ended.any():
                alive = [i for i in alive if not ended[i]]
            if not alive:
                break

        losses = np.zeros((length, count, num_losses), dtype)
        losses[mask] = np.reshape(charged, (-1, num_losses))
        for t, i, _ in np.argwhere(~np.isfinite(losses))[:1].tolist():
            where = f"{name}, in step {played[t, i]} of {place(i, int(whose[t, i]))}"
            raise Misfit(f"{where}: a reward must be finite, got {-losses[t, i]}.")
        actions = each(partial(over_time, length), *(each(for_hosts, step) for step in acted))
        states = each(partial(over_time, length + 1), *seen)
        following = each(lambda leaf: leaf[:, 1:], states)
        if restart and (terminated | truncated).any():
            following = each(partial(over_time, length), *followed)
        return HostBatch(
            each(lambda leaf: for_learners(leaf[:, :-1]), states),
            each(for_learners, actions),
            own(losses.swapaxes(0, 1)),
            for_learners(mask.T),
            for_learners(terminated.T),
            for_learners(truncated.T),
            each(for_learners, following),
            carry() if restart else (),
        )

    def close() -> None:
        failures = _close(pools)
        if failures:
            raise failed(f"{name} could not be closed", failures[0]) from failures[0]

    weakref.finalize(collect, _close, pools)
    return collect, proceed, close


def _close(pools: dict[Hashable, list[_Instance]]) -> list[Exception]:
    """Empties pools, and goes on where one environment cannot be closed."""
    failures = []
    for pool in pools.values():
        while pool:
            try:
                pool.pop().host.close()
            except Exception as error:
                failures.append(error)
    return failures


def _word(*address: int | np.integer) -> int:
    """A random word of a seed, an environment and the number of the step after which its next episode begins."""
    return int(np.random.SeedSequence([int(part) for part in address]).generate_state(1)[0])
