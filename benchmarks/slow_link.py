"""Wall-clock time to the same return over a slow link: PG against SCOUT on a Ray cluster. Needs Linux, root and iproute2 (ip, tc). Prints a table.

    python benchmarks/slow_link.py [--kilobits 1000] [--repeats 3] [--learners 4] [--hidden 64 64] [--target 0.9] [--rounds 100]

The controller lives in a network namespace, the learners in another one, and all that is between them is a pair of virtual interfaces, each of which lets
through so many kilobits a second (a token bucket). The link has no delay beyond that of its queue. The problem is that of `parallel-cartpole-homogeneous`
with fewer learners and wider networks; the methods' numbers are those tuned there. The clock starts when all processes are up and compiled, and stops when
the mean score of the last five rounds reaches the target. Repeats have seeds of their own.
"""

import argparse
import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lapg.comparison.presets import FIGURES, RECOMMENDED
from lapg.costs import ledger, links
from lapg.experiments.build import build, parts
from lapg.experiments.config import Config
from lapg.methods import Part
from lapg.methods.parts import merged

FIGURE = FIGURES["parallel-cartpole-homogeneous"]
METHODS = {
    "PG": FIGURE.tuned["PG"],
    "SCOUT": FIGURE.tuned[RECOMMENDED],
    "SCOUT, 4 bits down": FIGURE.tuned[RECOMMENDED].but(
        downlink=Part("replicated", compressor=Part("quantise", bits=4))
    ),
}
HERE, THERE = (f"lapg-{end}-{os.getpid()}" for end in ("controller", "learners"))
PLACES = {HERE: "10.213.0.1", THERE: "10.213.0.2"}
CARD, PORT, SMOOTH = "slow0", 6379, 5
TCP_BYTES = 66.0
"""Ethernet 14, IPv4 20, TCP 32 with its time stamps."""


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def inside(place: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", place, *command]


@contextlib.contextmanager
def link(kilobits: int) -> Iterator[None]:
    """Two network namespaces and the slow link between them; whatever still runs in them at the end is ended."""
    try:
        for place in PLACES:
            run("ip", "netns", "add", place)
        run("ip", "link", "add", CARD, "netns", HERE, "type", "veth", "peer", "name", CARD, "netns", THERE)
        burst = max(16_000, 10 * kilobits // 8)  # bytes; at least what passes in the kernel's longest tick
        bucket = ["rate", f"{kilobits}kbit", "burst", str(burst), "latency", "400ms"]
        for place, ip in PLACES.items():
            run(*inside(place, "ip", "address", "add", f"{ip}/24", "dev", CARD))
            for card in ("lo", CARD):
                run(*inside(place, "ip", "link", "set", card, "up"))
            run(*inside(place, "tc", "qdisc", "add", "dev", CARD, "root", "tbf", *bucket))
        yield
    finally:
        for place in PLACES:
            found = subprocess.run(["ip", "netns", "pids", place], capture_output=True, text=True, check=False)
            for pid in found.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", place], check=False)


def start_ray(learners: int, directory: str) -> None:
    """A head that gives no place to actors, and a node for the learners."""
    start = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--disable-usage-stats",
        "--object-store-memory=100000000",
    ]
    head = ["--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={directory}"]
    run(*inside(HERE, *start, *head, f"--node-ip-address={PLACES[HERE]}"))
    node = [f"--address={PLACES[HERE]}:{PORT}", f"--num-cpus={learners}"]
    run(*inside(THERE, *start, *node, f"--node-ip-address={PLACES[THERE]}"))


def carried() -> np.ndarray:
    """Bytes that the link has carried, [2 (up, down)], seen from the controller's namespace."""
    counts = Path("/sys/class/net", CARD, "statistics")
    return np.array([int((counts / f"{way}_bytes").read_text()) for way in ("rx", "tx")])


def drive(given: argparse.Namespace) -> dict[str, Any]:
    """One run, from the controller's namespace."""
    from lapg.runtimes.ray.runtime import Ray

    began, before = time.monotonic(), carried()
    time.sleep(given.idle)
    idle = (carried() - before) / (time.monotonic() - began)
    problem = merged(FIGURE.problem, Part(num_learners=given.learners))
    config = Config(
        problem=problem,
        estimator=FIGURE.estimator,
        policy=Part(hidden=tuple(given.hidden)),
        batch_size=FIGURE.batch_size,
        rounds=given.rounds,
        seeds=1,
    ).playing(METHODS[given.drive])
    hypers = {name: np.asarray(value, np.float32)[None] for name, value in build(config).hyper.items()}
    options = {"chunk_rounds": 1, "processes": given.learners, "address": f"{PLACES[HERE]}:{PORT}"}
    lanes = Ray(functools.partial(parts, config), hypers, [given.seed], **options)
    lanes.advance(lanes.start(), 0, 1)  # everybody is up, and everything compiled
    began, before = time.monotonic(), carried()
    first = jax.tree.map(lambda leaf: leaf[0, 0], lanes.advance(lanes.start(), 0, 1)[1])
    logs, seconds = [first], [time.monotonic() - began]

    def score() -> float:
        return float(np.mean([log.scores["score_scaled"] for log in logs[-SMOOTH:]]))

    while len(logs) < given.rounds and (len(logs) < SMOOTH or score() < given.target):
        lanes.play_round()
        logs.append(jax.tree.map(lambda leaf: leaf[0], lanes._hosts[0].logs()))
        seconds.append(time.monotonic() - began)
    if score() < given.target:
        sys.exit(f"{given.drive} must reach {given.target} within {given.rounds} rounds, got {score():.3f}; give more.")
    moved = carried() - before
    lanes.close()
    up, sent, down, present = (
        np.stack([getattr(log, name) for log in logs])
        for name in ("uplink_bits", "sent", "downlink_bits", "participated")
    )
    contacted, answered = ledger.messages(present, down, sent)
    counted = [int(ledger.uplink_bits(up, answered)[-1]), int(ledger.downlink_bits(down, contacted)[-1])]
    each = links.Link(1e3 * given.kilobits / given.learners, overhead_bytes=TCP_BYTES)
    model = links.seconds(links.LinkModel(each, each), links.Traffic(up, sent, down, contacted, answered))
    return {
        "method": given.drive,
        "kilobits": given.kilobits,
        "seed": given.seed,
        "score": score(),
        "rounds": len(logs),
        "seconds": seconds[-1],
        "model_seconds": float(model[-1]),
        "turns": int(contacted.sum()),
        "uploads": int(sent.sum()),
        "counted_bits": counted,
        "carried_bytes": moved.tolist(),
        "idle_bytes_per_second": idle.tolist(),
    }


def measure(given: argparse.Namespace, kilobits: int) -> list[dict[str, Any]]:
    """All methods and repeats over a link of this rate."""
    found, directory = [], tempfile.mkdtemp(prefix="lapg-", dir="/tmp")
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        with link(kilobits):
            start_ray(given.learners, directory)
            for seed in range(given.repeats):
                for method in METHODS:
                    own = [*sys.argv[1:], "--drive", method, "--seed", str(seed), "--kilobits", str(kilobits)]
                    command = inside(HERE, sys.executable, __file__, *own)
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900)
                    print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
                    found.append(json.loads(done.stdout.splitlines()[-1]))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Medians, and the least and the largest."""
    lines = [
        "| link | | rounds | uploads | counted, MB | carried, MB | beside, kB a learner and round | seconds | by the network model |",
        "|---" * 9 + "|",
    ]
    for kilobits in dict.fromkeys(row["kilobits"] for row in found):
        for method in METHODS:
            rows = [row for row in found if (row["kilobits"], row["method"]) == (kilobits, method)]

            def spread(values: Any, form: str = ",.0f") -> str:
                low, middle, high = np.quantile(values, [0, 0.5, 1])
                return f"{middle:{form}} [{low:{form}}, {high:{form}}]"

            counted, carried = (
                np.array([sum(row[name]) for row in rows]) for name in ("counted_bits", "carried_bytes")
            )
            beside = (carried - counted / 8) / [row["turns"] for row in rows]
            cells = (
                f"{kilobits / 1e3:g} Mbit/s",
                method,
                spread([row["rounds"] for row in rows]),
                spread([row["uploads"] for row in rows]),
                spread(counted / 8e6, ",.2f"),
                spread(carried / 1e6, ",.2f"),
                spread(beside / 1e3, ",.1f"),
                spread([row["seconds"] for row in rows], ",.1f"),
                spread([row["model_seconds"] for row in rows], ",.1f"),
            )
            lines.append(f"| {' | '.join(cells)} |")
    idle = np.mean([row["idle_bytes_per_second"] for row in found], 0)
    return "\n".join([*lines, f"\nIdle, the link carries {idle[0]:,.0f} bytes a second up and {idle[1]:,.0f} down."])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kilobits", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--learners", type=int, default=4)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--keep", type=Path, help="a file for what was measured, run by run")
    parser.add_argument("--drive", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        (given.kilobits,) = given.kilobits
        print(json.dumps(drive(given)))
        return
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing or os.geteuid():
        sys.exit(f"slow_link.py must be run by root, with iproute2 installed; missing: {', '.join(missing) or 'root'}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up
    found = [row for kilobits in given.kilobits for row in measure(given, kilobits)]
    if given.keep:
        given.keep.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
