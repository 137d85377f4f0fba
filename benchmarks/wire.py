"""What crosses the wire: the record's bits beside the bytes of the frames that both ends of a distributed run exchange. Prints a Markdown table.

    python benchmarks/wire.py [--rounds 300] [--seed 0] [--figure fig4]

Both ends run in this process, at the setting of a figure, and nothing is lost on the way. Raises where a record does not account for every byte: a frame
is a header of 20 bytes and what the record counts, and a learner that skips answers with a header.
"""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from lapg.comparison.presets import FIGURES, RECOMMENDED
from lapg.costs import ledger
from lapg.experiments.build import build
from lapg.experiments.config import Choice, Config
from lapg.methods import Part
from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.learner import LearnerHost
from lapg.runtimes.distributed.state import begin


def contenders(figure: str) -> Iterator[tuple[str, Choice]]:
    """PG, and the recommended method with each downlink."""
    tuned = FIGURES[figure].tuned
    scout = tuned[RECOMMENDED]
    yield "PG", tuned["PG"]
    yield "SCOUT, θ every round", scout.but(downlink=Part("dense"))
    yield "SCOUT", scout
    yield "SCOUT, 4 bits down as well", scout.but(downlink=Part("replicated", compressor=Part("quantise", bits=4)))


class Traffic(NamedTuple):
    """Of one seed of a run, up and down; ``counted`` are the record's bits, ``carried`` the frames' bytes."""

    counted: np.ndarray
    carried: np.ndarray
    uploads: int
    turns: int
    dimension: int


def play(config: Config) -> Traffic:
    """Plays one seed between both ends, and counts.

    Raises:
      RuntimeError: the record does not account for every bit.
    """
    built, seed = build(config), config.first_seed
    hyper = {name: np.asarray(value, np.asarray(jax.numpy.zeros(())).dtype) for name, value in built.hyper.items()}
    compiled = Compiled(built.recipe, built.problem, hyper)
    controller = ControllerHost(compiled, hyper, seed, begin(compiled, hyper, seed))
    learners = [LearnerHost(compiled, hyper, seed, m) for m in range(compiled.num_learners)]
    carried = np.zeros(2, np.int64)
    for _ in range(config.rounds):
        for m in controller.open():
            message = b"".join(controller.message(m))
            answer = learners[m].hear(*wire.unframe(message))
            assert answer is not None
            carried += len(answer.reply), len(message)
            controller.receive(m, answer.reply, answer.record)
        controller.close()
    log = controller.logs()
    counted = np.array(
        [
            ledger.uplink_bits(log.uplink_bits, log.participated)[-1],
            ledger.downlink_bits(log.downlink_bits, log.participated)[-1],
        ]
    )
    unaccounted = 8 * carried - counted
    if np.any(unaccounted):
        raise RuntimeError(
            f"the record must account for every bit of the frames, but differs by {unaccounted.tolist()}."
        )
    return Traffic(counted, carried, int(log.sent.sum()), int(log.participated.sum()), controller.state.params.size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", choices=sorted(FIGURES), default="fig4")
    given = parser.parse_args()
    figure = FIGURES[given.figure]
    shared = {"batch_size": figure.batch_size, "rounds": given.rounds, "seeds": 1, "first_seed": given.seed}
    print(f"{figure.title}; {given.rounds} rounds, seed {given.seed}. A turn is a learner's round.\n")
    print(
        "| | d | turns | uploads | bits up a turn | frame, bytes | bits down a turn | frames, bytes | all bits, up and down | all frames |"
    )
    print("|---" * 10 + "|")
    for label, method in contenders(given.figure):
        found = play(
            Config(problem=figure.problem, policy=figure.policy, estimator=figure.estimator, **shared).playing(method)
        )
        turn = (
            f"{x / found.turns:,.1f}" for x in (found.counted[0], found.carried[0], found.counted[1], found.carried[1])
        )
        total = f"{found.counted.sum() / 1e6:.3f} Mbit", f"{found.carried.sum() / 1e6:.3f} MB"
        cells = label, f"{found.dimension:,}", f"{found.turns:,}", f"{found.uploads:,}", *turn, *total
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
