"""What a round costs on Ray, beside a bare broadcast and gather of the same bytes among as many actors. Prints a Markdown table.

    python benchmarks/ray_rounds.py [--learners 2 8 32] [--dimensions 2000 200000] [--rounds 40] [--actors 8] [--address ADDRESS]

Learners return a constant, so that next to nothing is computed. Both sides take turns, and every number is a median of rounds. There are as many actors
on both sides, one for each learner but at most so many as --actors says; a bare one returns the bytes of all learners of its counterpart.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import ray

from lapg import estimators, methods
from lapg.problems.protocol import make_tasks
from lapg.runtimes.ray import INLINE_BYTES, Ray
from lapg.types import Problem


class Echo:
    """The bare actor: hears some bytes, returns as many others, or none."""

    def __init__(self, size: int) -> None:
        self._answer = bytes(size)

    def hear(self, payload: bytes) -> bytes:
        return self._answer


def constant(num_learners: int, dimension: int) -> Problem:
    """Learner m's gradient is m everywhere."""
    return Problem(
        sample=lambda key, task, params, num: (),
        score=lambda task, batch: {"score_scaled": jnp.zeros(()), "score_raw": jnp.zeros(())},
        init=lambda key: jnp.zeros(dimension),
        tasks=make_tasks(num_learners, None),
        num_learners=num_learners,
        gradient=lambda task, params: jnp.full(dimension, task.index, params.dtype),
    )


def parts(method: str, num_learners: int, dimension: int):
    problem = constant(num_learners, dimension)
    setting = methods.Setting(estimators.exact(problem.gradient), 1, num_learners)
    return lambda hyper: methods.METHODS[method](setting, **hyper), problem


def bare(num_actors: int, size: int, answer: int) -> Callable[[], None]:
    """One round of as many bare actors."""
    actor = ray.remote(num_cpus=0)(Echo)
    actors = [actor.remote(answer) for _ in range(num_actors)]
    payload = bytes(size)

    def play() -> None:
        given = ray.put(payload) if size > INLINE_BYTES else payload
        ray.get([actor.hear.remote(given) for actor in actors])

    return play


def seconds(play: Callable[[], object]) -> float:
    began = time.perf_counter()
    play()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learners", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2_000, 200_000])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--actors", type=int, default=32)
    parser.add_argument("--address")
    given = parser.parse_args()
    ray.init(address=given.address or "local", log_to_driver=False, include_dashboard=None if given.address else False)
    print("| M | actors | d | reply | bare, ms | lapg, ms | ratio |\n|---|---|---|---|---|---|---|")
    for num_learners in given.learners:
        num_actors = min(num_learners, given.actors)
        for dimension in given.dimensions:
            for method, reply in (("pg", "upload"), ("never", "skip")):
                make = functools.partial(parts, method, num_learners, dimension)
                hypers = {"step_size": np.float32([1e-3])}
                runtime = Ray(make, hypers, [0], chunk_rounds=1, processes=num_actors)
                runtime.advance(runtime.start(), 0, 1)
                size = 4 * dimension + 20
                play = bare(num_actors, size, num_learners // num_actors * (size if reply == "upload" else 20))
                play()
                both = np.array([(seconds(play), seconds(runtime.play_round)) for _ in range(given.rounds)])
                plain, ours = 1e3 * np.median(both, 0)
                print(
                    f"| {num_learners} | {num_actors} | {dimension:,} | {reply} | {plain:.1f} | {ours:.1f} | {ours / plain:.2f} |",
                    flush=True,
                )
                runtime.close()
                del play
    ray.shutdown()


if __name__ == "__main__":
    main()
