"""Runs on real Ray actors; in a process of its own, whose last line is what it found, as JSON. Called as ``on_ray.py WHAT``."""

import dataclasses
import json
import os
import signal
import sys
import threading
from functools import partial

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

from lapg import ClusterConfig, Config, Part, compressors, estimators, methods  # noqa: E402
from lapg.downlink import dense, replicated  # noqa: E402
from lapg.experiments.build import build  # noqa: E402
from lapg.experiments.train import make_lanes  # noqa: E402
from lapg.problems import quadratic  # noqa: E402
from lapg.runtimes import Sequential, Vectorised  # noqa: E402
from lapg.runtimes.ray.runtime import Ray  # noqa: E402

M, ROUNDS = 4, 24
HYPERS = {"optimiser.step_size": np.array([0.1, 0.05]), "trigger.noise_weight": np.array([0.5, 0.5])}
SEEDS = [3, 4]


def parts(num_learners=M, participation=0.75, downlink="dense"):
    problem = quadratic(num_learners=num_learners, dimension=5, conditioning=4.0, noise=0.2)
    codec = replicated(compressors.top_k(0.5)) if downlink == "replicated" else dense()
    noisy = estimators.noisy(problem.gradient)
    setting = methods.Setting(noisy, 2, num_learners, participation=participation)
    return lambda hyper: methods.compose("lapg", setting, downlink=codec, trigger=Part(xi=0.03), hyper=hyper), problem


def play(runtime, chunks, between=lambda number: None):
    state, logs = runtime.start(), []
    for number in range(chunks):
        between(number)
        state, log = runtime.advance(state, number * runtime.chunk_rounds, chunks * runtime.chunk_rounds)
        logs.append(log)
    return state, jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs)


def kill(runtime, number, delay=0.0):
    """Ends the process of one actor at once, or some seconds later; says whether there was one to end."""
    import ray

    try:
        pid = ray.get(runtime._pool.processes[number].actor.__ray_call__.remote(lambda self: os.getpid()))
    except ray.exceptions.RayActorError:  # an earlier one has come through
        return False
    if delay:
        threading.Timer(delay, os.kill, (pid, signal.SIGKILL)).start()
    else:
        os.kill(pid, signal.SIGKILL)
    return True


def compare(downlink="dense", channels=None):
    """As the sequential runtime, given a state back, and with an actor killed after the second of three stretches."""
    make = partial(parts, downlink=downlink)
    plain = Sequential(*make(), HYPERS, SEEDS, chunk_rounds=8)
    expected, wanted = play(plain, 3)
    runtime = Ray(make, HYPERS, SEEDS, chunk_rounds=8, processes=2, channels=channels)
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
    runtime.close()
    return found | invariants(state)


def invariants(state):
    """How far the aggregate is from the sum of the shares, and these from what the learners believe that they have uploaded."""
    uploaded = np.where(state.table.accepted[..., None] > 0, state.learners.memory.uploaded, 0)
    untold = state.downlink.error if state.downlink else 0
    return {
        "invariant": float(np.abs(state.controller.aggregate + untold - np.sum(state.table.shares, 1)).max()),
        "shares": float(np.abs(uploaded - state.table.shares).max()),
    }


def deploy():
    """Eight learners on two nodes, and in this process by both runtimes; in both precisions."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    rounds, eight = 50, partial(parts, 8, 1.0)
    found = {}
    for precision in ("float64", "float32"):
        jax.config.update("jax_enable_x64", precision == "float64")
        hypers = {
            "optimiser.step_size": np.array([0.05], precision),
            "trigger.noise_weight": np.array([4.0], precision),
        }
        on_cluster = Ray(eight, hypers, SEEDS[:1], chunk_rounds=25, processes=4, address=cluster.address)
        state, log = play(on_cluster, 2)
        nodes = {process.actor: node(process.actor) for process in on_cluster._pool.processes}
        on_cluster.close()
        entry = {"nodes": len(set(nodes.values())), "actors": len(nodes), "uploads": float(log.sent.mean())}
        for runtime in (Vectorised, Sequential):
            expected, wanted = play(runtime(*eight(), hypers, SEEDS[:1], chunk_rounds=25), 2)
            difference = np.abs(state.controller.params - expected.controller.params).max()
            entry[runtime.__name__] = {
                "decisions": wanted.sent.size,
                "differ": int(np.sum(log.sent != wanted.sent)),
                "params": float(difference),
            }
        found[precision] = entry
    ray.shutdown()
    cluster.shutdown()
    return found | {"rounds": rounds}


def node(actor):
    """Where an actor lives."""
    import ray

    return ray.get(actor.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()))


def score(params, problem):
    """−Σ L_m(θ)."""
    return -float(jax.vmap(problem.value, (0, None))(problem.tasks, params).sum())


class Mortal(Ray):
    """Kills an actor that is at work in each of the given rounds, or the next one in which there is such, about when it is asked."""

    def __init__(self, *arguments, rounds, random, **options):
        super().__init__(*arguments, **options)
        self.due, self.random, self.killed, self.round = sorted(rounds), random, 0, 0

    def play_round(self, lane=0):
        idle = [number for number, process in enumerate(self._pool.processes) if process.asked is None]
        if idle and self.killed < len(self.due) and self.round >= self.due[self.killed]:
            self.killed += kill(self, idle[self.random.integers(len(idle))], float(self.random.uniform(0, 0.002)))
        self.round += 1
        return super().play_round(lane)


def kills(num=20, rounds=300, channels=None):
    """A run in which actors are killed at random, one after the other, beside runs of other seeds where nothing happens."""
    make, seeds = partial(parts, 8, 1.0), list(range(10))
    lanes = {"optimiser.step_size": np.full(10, 0.05), "trigger.noise_weight": np.full(10, 4.0)}
    ends, plain = play(Vectorised(*make(), lanes, seeds, chunk_rounds=rounds), 1)

    random = np.random.default_rng(0)
    due = set(random.choice(np.arange(5, rounds - 5), num, replace=False).tolist())
    options = {"chunk_rounds": 25, "processes": 4, "quorum": 6, "channels": channels}
    runtime = Mortal(make, jax.tree.map(lambda leaf: leaf[:1], lanes), seeds[:1], rounds=due, random=random, **options)
    state, log = play(runtime, rounds // 25)
    runtime.close()
    return invariants(state) | {
        "killed": runtime.killed,
        "renewed": int(log.faults["renewed"].sum()),
        "missing": int(log.faults["missing"].sum()),
        "score": score(state.controller.params[0], make()[1]),
        "without": [score(params, make()[1]) for params in ends.controller.params],
        "uploads": [float(log.sent.mean()), float(plain.sent.mean())],
    }


def host():
    """Learners whose environments are outside JAX, each on its own actor, beside all of them in this process."""
    config = Config(
        problem=Part("gymnasium", env="CartPole-v1", num_learners=2, num_steps=40),
        policy=Part(hidden=4),
        method="lapg",
        optimiser=Part("sgd", step_size=0.02),
        trigger=Part(xi=0.1, noise_weight=3.0),
        batch_size=3,
        rounds=10,
        seeds=1,
        chunk_rounds=5,
    )
    ends, logs = [], []
    for options in ({}, {"runtime": "ray", "cluster": ClusterConfig(processes=2)}):
        settings = dataclasses.replace(config, **options)
        runtime = make_lanes(settings, build(settings))
        state, log = play(runtime, 2)
        runtime.close()
        ends.append(state.controller.params)
        logs.append(log)
    return {
        "sent": bool(np.array_equal(logs[0].sent, logs[1].sent)),
        "scores": bool(np.array_equal(logs[0].scores["score_raw"], logs[1].scores["score_raw"])),
        "uploads": float(logs[0].sent.mean()),
        "difference": float(np.abs(ends[0] - ends[1]).max()),
    }


def hang(channels):
    """What becomes of a round in which an actor hangs."""
    import ray

    runtime = Ray(parts, HYPERS, SEEDS, chunk_rounds=8, processes=2, timeout=60.0, channels=channels)
    runtime.advance(runtime.start(), 0, 8)
    pid = ray.get(runtime._pool.processes[1].actor.__ray_call__.remote(lambda self: os.getpid()))
    runtime._pool.timeout = 2.0
    os.kill(pid, signal.SIGSTOP)
    try:
        runtime.play_round()
        said = "nothing"
    except RuntimeError as error:
        said = str(error)
    runtime.close()
    return {"said": said}


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "compare": compare,
                "compare calls": partial(compare, channels=False),
                "follow": partial(compare, "replicated"),
                "deploy": deploy,
                "hang": partial(hang, True),
                "hang calls": partial(hang, False),
                "host": host,
                "kills": kills,
                "kills calls": partial(kills, channels=False),
            }[sys.argv[1]]()
        )
    )
