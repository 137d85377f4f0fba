"""Runs on real Ray actors; in a process of its own, whose last line is what it found, as JSON. Called as ``on_ray.py WHAT [ADDRESS of a cluster]``."""

import json
import os
import signal
import sys

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

from lapg import estimators, methods  # noqa: E402
from lapg.problems import quadratic  # noqa: E402
from lapg.runtimes import Sequential  # noqa: E402
from lapg.runtimes.ray import Ray  # noqa: E402

M, ROUNDS = 4, 24
HYPERS = {"step_size": np.array([0.1, 0.05]), "noise_weight": np.array([0.5, 0.5])}
SEEDS = [3, 4]
ADDRESS = sys.argv[2] if len(sys.argv) > 2 else None


def parts():
    problem = quadratic(num_learners=M, dimension=5, conditioning=4.0, noise=0.2)
    setting = methods.Setting(estimators.noisy(problem.gradient), 2, M, participation=0.75)
    return lambda hyper: methods.lapg(setting, xi=0.03, **hyper), problem


def play(runtime, chunks, between=lambda number: None):
    state, logs = runtime.start(), []
    for number in range(chunks):
        between(number)
        state, log = runtime.advance(state, number * runtime.chunk_rounds, chunks * runtime.chunk_rounds)
        logs.append(log)
    return state, jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs)


def kill(runtime, number):
    """Ends the process of one actor at once."""
    import ray

    actor = runtime._processes[number].actor
    os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)


def compare():
    """As the sequential runtime, given a state back, and with an actor killed after the second of three stretches."""
    plain = Sequential(*parts(), HYPERS, SEEDS, chunk_rounds=8)
    expected, wanted = play(plain, 3)
    runtime = Ray(parts, HYPERS, SEEDS, chunk_rounds=8, processes=2, address=ADDRESS)
    state, log = play(runtime, 3)
    found = {
        "sent": bool(np.array_equal(log.sent, wanted.sent)),
        "participated": bool(np.array_equal(log.participated, wanted.participated)),
        "bits": bool(
            np.array_equal(log.uplink_bits, wanted.uplink_bits)
            and np.array_equal(log.downlink_bits, wanted.downlink_bits)
        ),
        "uploads": float(log.sent.mean()),
        "difference": float(np.abs(state.controller.params - expected.controller.params).max()),
        "faults": int(sum(np.sum(count) for count in log.faults.values())),
    }
    middle, _ = runtime.advance(runtime.start(), 0, 24)
    runtime.advance(middle, 8, 24)
    again, _ = runtime.advance(middle, 8, 24)  # not the state that it returned last: carried back to the learners
    last, _ = runtime.advance(again, 16, 24)
    found["again"] = float(np.abs(last.controller.params - expected.controller.params).max())

    state, log = play(runtime, 3, lambda number: kill(runtime, 0) if number == 1 else None)
    renewed = np.argwhere(log.faults["renewed"])
    found["renewed"] = sorted({(int(lane), int(m)) for lane, _, m in renewed})
    aggregate = state.controller.aggregate - np.sum(state.roster.shares, 1)
    found["invariant"] = float(np.abs(aggregate).max())
    uploaded = np.where(state.roster.accepted[..., None] > 0, state.learners.memory.uploaded, 0)
    found["shares"] = float(np.abs(uploaded - state.roster.shares).max())
    runtime.close()
    return found


if __name__ == "__main__":
    print(json.dumps({"compare": compare}[sys.argv[1]]()))
