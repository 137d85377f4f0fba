"""What a round costs on Ray, beside a bare broadcast and gather of the same bytes among as many actors. Prints a Markdown table.

    python benchmarks/ray_rounds.py [--learners 2 8 32] [--dimensions 2000 200000] [--rounds 40] [--actors 32] [--address ADDRESS] [--idle 8]

Learners return a constant, so that next to nothing is computed. Every number is a median of rounds; the bare rounds are played before and after those of
lapg, because actors that wait at a channel keep their processors busy. There are as many actors on all sides, one for each learner but at most so many
as --actors says; a bare one is called, and returns the bytes of all learners of its counterpart. At last, what so many actors that wait at channels
leave to others: how often two busy processes get round their loops, beside how often they do alone.
"""

import argparse
import functools
import multiprocessing
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import jax.numpy as jnp
import numpy as np
import ray

from lapg import estimators, methods
from lapg.controller import heavy_ball
from lapg.problems.protocol import make_tasks
from lapg.runtimes import use_all_cores
from lapg.runtimes.actor import INLINE_BYTES, Parts
from lapg.runtimes.ray import Ray
from lapg.types import Model, Problem
from lapg.uplink import memories, triggers

WARM = 10
"""Rounds that are not counted."""


class Echo:
    """The bare actor: hears some bytes, returns as many others, or none."""

    def __init__(self, size: int) -> None:
        self._answer = bytes(size)

    def hear(self, payload: bytes) -> bytes:
        return self._answer


def constant(num_learners: int, dimension: int) -> Problem:
    """Learner m's gradient is m everywhere."""
    return Problem(
        sampler=lambda problem: lambda key, task, params, num: (),
        score=lambda task, batch: {"score_scaled": jnp.zeros(()), "score_raw": jnp.zeros(())},
        start=lambda key: jnp.zeros(dimension),
        tasks=make_tasks(num_learners, None),
        num_learners=num_learners,
        model=lambda policy: Model(
            lambda task, params: task.index * jnp.sum(params),
            lambda task, params: jnp.full(dimension, task.index, params.dtype),
        ),
    )


def parts(uploads: bool, num_learners: int, dimension: int):
    """Plain policy gradient, or the same with learners that never upload."""
    problem = constant(num_learners, dimension)
    setting = methods.Setting(estimators.exact(problem.gradient), 1, num_learners)
    trigger = triggers.always() if uploads else triggers.never()
    return lambda hyper: methods.assemble(setting, memories.fresh(), trigger, heavy_ball(hyper["step_size"])), problem


def bare(num_actors: int, size: int, answer: int) -> Callable[[], None]:
    """One round of as many bare actors."""
    actor = ray.remote(num_cpus=0)(Echo)
    actors = [actor.remote(answer) for _ in range(num_actors)]
    payload = bytes(size)

    def play() -> None:
        given = ray.put(payload) if size > INLINE_BYTES else payload
        ray.get([actor.hear.remote(given) for actor in actors])

    return play


def seconds(play: Callable[[], object], rounds: int) -> list[float]:
    """How long each round takes."""
    marks = [time.perf_counter()]
    for _ in range(rounds):
        play()
        marks.append(time.perf_counter())
    return np.diff(marks).tolist()


def ours(make: Parts, num_actors: int, rounds: int, *, channels: bool) -> float:
    """Milliseconds of a round."""
    hypers = {"step_size": np.float32([1e-3])}
    runtime = Ray(make, hypers, [0], chunk_rounds=1, processes=num_actors, channels=channels)
    runtime.advance(runtime.start(), 0, 1)
    found = 1e3 * np.median(seconds(runtime.play_round, rounds + WARM)[WARM:])
    runtime.close()
    return float(found)


def count(seconds: float) -> int:
    """How often a busy process gets round its loop."""
    ends, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        turns += 1
    return turns


def left(num_actors: int, seconds: float = 3.0) -> float:
    """What two busy processes get done beside actors that wait at channels, as a fraction of what they get done alone, before and after."""

    def busy() -> int:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            return sum(pool.map(count, [seconds] * 2))

    busy()
    alone = busy()
    make = functools.partial(parts, True, num_actors, 100)
    runtime = Ray(make, {"step_size": np.float32([1e-3])}, [0], chunk_rounds=1, processes=num_actors, channels=True)
    runtime.advance(runtime.start(), 0, 1)
    beside = busy()
    runtime.close()
    return 2 * beside / (alone + busy())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learners", type=int, nargs="*", default=[2, 8, 32])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2_000, 200_000])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--actors", type=int, default=32)
    parser.add_argument("--address")
    parser.add_argument("--idle", type=int, default=8)
    given = parser.parse_args()
    use_all_cores()
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
    ray.init(address=given.address or "local", log_to_driver=False, include_dashboard=None if given.address else False)
    print("| M | actors | d | reply | bare, ms | calls, ms | ratio | channels, ms | ratio |\n" + "|---" * 9 + "|")
    for num_learners in given.learners:
        num_actors = min(num_learners, given.actors)
        for dimension in given.dimensions:
            for uploads in (True, False):
                make = functools.partial(parts, uploads, num_learners, dimension)
                size = 4 * dimension + 20
                play = bare(num_actors, size, num_learners // num_actors * (size if uploads else 20))
                seconds(play, WARM)
                plain, both = seconds(play, given.rounds), []
                for channels in (False, True):
                    both.append(ours(make, num_actors, given.rounds, channels=channels))
                    plain += seconds(play, given.rounds)
                base = 1e3 * float(np.median(plain))
                times = [cell for each in both for cell in (f"{each:.1f}", f"{each / base:.2f}")]
                what = num_learners, num_actors, f"{dimension:,}", "upload" if uploads else "skip"
                cells = *map(str, what), f"{base:.1f}", *times
                print(f"| {' | '.join(cells)} |", flush=True)
                del play
    if given.idle:
        print(
            f"\n{given.idle} actors that wait at channels leave two busy processes {left(given.idle):.0%} of what they get done alone."
        )
    ray.shutdown()


if __name__ == "__main__":
    main()
