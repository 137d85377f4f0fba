"""Flower: what its messages hold, without processes; and, slow, a federation on this machine against the simulation."""

import dataclasses
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed; pip install 'lapg[flower]'")

import flwr.serverapp
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from lapg.costs.ledger import downlink_bits, uplink_bits
from lapg.experiments import flower_apps
from lapg.experiments.config import Choice, ClusterConfig, Config
from lapg.experiments.flower_launch import write_app
from lapg.experiments.run import load
from lapg.experiments.train import train
from lapg.methods import Part
from lapg.record import RunError
from lapg.runtimes.flower import apps

FLOWERS_OWN = 1500
"""Bytes that Flower counts in each direction for a message and its answer, beyond what they hold: docs/federation.md has 740 to 960."""
RUN_CONFIG = {
    "experiment": """
rounds = 6
batch_size = 2
seeds = 2
chunk_rounds = 3
method = "lapg"
[problem]
name = "quadratic"
num_learners = 2
noise = 0.0
dimension = 2
[estimator]
name = "noisy"
[optimiser]
step_size = 0.1
[trigger]
xi = [0.3]
noise_weight = 0.0
"""
}


made, prepare = {}, flower_apps.prepare


def prepare_once(config):
    """Compiles once for all processes that there would be."""
    if repr(config) not in made:
        made[repr(config)] = prepare(config)
    return made[repr(config)]


class KilledError(Exception):
    """The ServerApp is no more."""


class Grid(flwr.serverapp.Grid):
    """Two nodes in this process; messages are really given to the ClientApp. Node numbers are not the learners'. ``messages``: the last one kills."""

    def __init__(self, messages=1000):
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what Flower tells its processes
        self.app = flower_apps.client_app()
        self.contexts = {700 + m: Context(1, 700 + m, {"learner": m}, RecordDict(), dict(RUN_CONFIG)) for m in range(2)}
        self.replies, self.empty, self.left = {}, 0, messages

    run = create_message = get_nodes = send_and_receive = set_run = None  # what lapg does not use

    def get_node_ids(self):
        return list(self.contexts)

    def push_messages(self, messages):
        for message in messages:
            assert message.metadata.ttl > 0
            self.left -= 1
            if not self.left:
                raise KilledError
            number = f"message {len(self.replies)}"
            message.metadata.__dict__["_message_id"] = number
            reply = self.app(message, self.contexts[message.metadata.dst_node_id])
            self.empty += not len(reply.content)
            self.replies[number] = reply
            yield number

    def pull_messages(self, message_ids):
        return [self.replies[number] for number in message_ids]


def serve(grid, out, **changes):
    """The ServerApp against those nodes."""
    config = RUN_CONFIG | {"out": str(out)} | changes
    flower_apps.server_app()(grid, Context(1, 0, {}, RecordDict(), config))
    return load(out)


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flower_apps, "prepare", prepare_once)
        yield


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A run of two seeds."""
    grid = Grid()
    return grid, serve(grid, tmp_path_factory.mktemp("flower") / "run")


def test_apps_are_the_simulation(played, tmp_path):
    """Oracle: the same settings on the runtime vectorised, diagnostics and scores included; a skip has no content."""
    grid, run = played
    simulated, apart = against_simulation(run, tmp_path / "simulated")
    assert apart <= 1e-12
    for name in ("score_scaled", "noise", "staleness"):
        np.testing.assert_allclose(run.record[name], simulated.record[name], rtol=0, atol=1e-12)
    assert 0 < grid.empty == int((~run.record["sent"]).all("seed").sum())


def test_bytes_of_frames_are_the_ledgers(played):
    """Oracle: the ledger: what messages and answers of rounds carry is what it counts, headers included, to the byte."""
    _, run = played
    record, traffic = run.record, json.loads((run.path / "flower" / "traffic.json").read_text())
    contacted, answered, sent = (record[name].values for name in ("contacted", "answered", "sent"))
    down = sum(int(bits[-1]) for bits in map(downlink_bits, record["downlink_bits"].values, contacted))
    up = sum(int(bits[-1]) for bits in map(uplink_bits, record["uplink_bits"].values, answered))
    skips = int((answered & ~sent).sum())
    assert skips > 0
    assert traffic["play"] == [12, down // 8, 12, up // 8 - 20 * skips]  # which Flower's own empty answer stands for
    assert traffic["join"][::2] == [2, 2]
    assert traffic["save"][::2] == [4, 4]
    assert "load" not in traffic


@pytest.mark.parametrize(("messages", "kept"), [(2, False), (5, True), (12, False), (12, True), (18, True)])
def test_killed_and_started_again(played, tmp_path, messages, kept):
    """Oracle: bitwise the uninterrupted run; killed at joining, before and after a checkpoint, at the last message; nodes with new contexts, or with the old."""
    _, run = played
    out = tmp_path / "run"
    first, second = Grid(messages), Grid()
    with pytest.raises(KilledError):
        serve(first, out)
    if kept:
        second.contexts = first.contexts
    again = serve(second, out)
    ours, theirs = (record.drop_vars("wall_seconds") for record in (again.record, run.record))
    assert ours.identical(theirs)
    assert serve(Grid(1), out).record.identical(again.record)
    with pytest.raises(RunError, match="other settings were played there"):
        serve(Grid(), out, experiment=RUN_CONFIG["experiment"].replace("0.3", "0.2"))


def test_state_is_bytes_and_numbers_in_the_context(played):
    """Oracle: the record's own contents: four whole numbers and two states of equal length for each seed, and nothing beside them."""
    grid, _ = played
    for context in grid.contexts.values():
        memory = apps._unpacked(context.state)
        assert sorted(memory) == [0, 1]
        for record in memory.values():
            assert sorted(record) == ["counts", "pending", "state"]
            assert record["counts"][0] == 1
            assert len(record["state"]) == len(record["pending"]) > 0


def test_nodes_that_do_not_fit_are_refused():
    """Oracle: the docstrings: two nodes that are the same learner; a node with another step size; settings that are no TOML."""
    terms = flower_apps.read_terms(RUN_CONFIG)
    grid = Grid()
    grid.contexts[701].node_config["learner"] = 0
    with pytest.raises(ValueError, match="that no other node has, got 0 from node 70"):
        apps.handshake_all(grid, terms, 30.0)
    grid = Grid()
    grid.contexts[701].run_config["experiment"] = RUN_CONFIG["experiment"].replace("step_size = 0.1", "step_size = 0.2")
    with pytest.raises(ValueError, match=r"learner refused: optimiser\.step_size must be 0\.1"):
        apps.handshake_all(grid, terms, 30.0)
    with pytest.raises(ValueError, match="experiment must be TOML text"):
        flower_apps.read_settings({"experiment": "rounds ="})


def test_settings_travel(tmp_path):
    """Oracle: equality with the configuration that was written, of numbers, words, lists, tables and what was left out."""
    problem = Part("my.module:problem", noise=0.5, text='a "b" \\ θ')
    policy = Part("my.module:net", hidden=(3, 2), width=5)
    method = Choice("lapg", trigger=Part(xi=0.5, max_age=None, strict=False), compressor=Part("top_k", bits=4))
    for config in (
        Config(),
        Config(problem=problem, policy=policy, runtime="flower", cluster=ClusterConfig(deadline=2.0)).playing(method),
    ):
        write_app(tmp_path, tmp_path / "run", config)
        app = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
        assert flower_apps.read_settings(app["config"]) == config
        assert app["config"]["out"] == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": ClusterConfig(processes=2)}, "every learner has a SuperNode of its own"),
        ({"cluster": ClusterConfig(quorum=3)}, "quorum must lie between 0 and the number of learners, 2, got 3"),
        ({"method": "lapg", "trigger": Part(xi=-1.0)}, "xi"),
    ],
)
def test_what_flower_cannot_do_is_said_before_anything_starts(tmp_path, changes, message):
    """Oracle: the docstrings; and no run directory is left."""
    config = dataclasses.replace(flower_apps.read_settings(RUN_CONFIG), runtime="flower", **changes)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def against_simulation(run, path):
    """The simulation of a run, and the largest difference of parameters; upload decisions must not differ at all."""
    config = dataclasses.replace(run.config, runtime="vectorised")
    simulated = train(config, path, show_progress=False)
    np.testing.assert_array_equal(run.record["sent"].values, simulated.record["sent"].values)
    return simulated, float(np.abs(run.record["params"].values - simulated.record["params"].values).max())


@pytest.mark.slow
def test_a_federation_on_this_machine_is_the_simulation(tmp_path):
    """Oracle: the same settings on the runtime vectorised, in float64; TLS, node keys, ten rounds; nothing that was started is left."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed; pip install 'lapg[flower]'")
    out = tmp_path / "demo"
    environment = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "lapg.cli", "flower-demo", "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    run = load(out)
    assert against_simulation(run, tmp_path / "simulated")[1] <= 1e-10
    counted = json.loads((out / "flower" / "flwr-list.json").read_text())["network-traffic"]
    traffic = json.loads((out / "flower" / "traffic.json").read_text())
    for below, name in ((1, "outbound-bytes"), (3, "inbound-bytes")):
        carried, messages = (
            sum(counts[below] for counts in traffic.values()),
            sum(counts[0] for counts in traffic.values()),
        )
        assert 0 < (counted[name] - carried) / messages < FLOWERS_OWN
    left = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert not [line for line in left if any("flower-su" in Path(word).name for word in line[:3])]


@pytest.mark.slow
def test_a_killed_command_leaves_nothing(tmp_path):
    """Oracle: the list of processes: ten seconds after SIGKILL nothing lives that the command had started, and its directory of keys is gone."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed; pip install 'lapg[flower]'")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "lapg.cli", "flower-demo", "--rounds", "200", "--out", str(tmp_path / "demo")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        ends, family = time.monotonic() + 300, []
        while time.monotonic() < ends and not any("flower-supernode" in " ".join(p.cmdline()) for p in family):
            time.sleep(1)
            family = psutil.Process(driver.pid).children(recursive=True)
        time.sleep(10)  # for SuperExecs and apps
        family = psutil.Process(driver.pid).children(recursive=True)
        print(f"{len(family)} processes")
        assert len(family) >= 4
        driver.kill()
    began = time.monotonic()
    _, alive = psutil.wait_procs(family, timeout=10)
    print(f"{len(alive)} alive after {time.monotonic() - began:.1f} s")
    assert not alive
    assert not list(tmp_path.glob("lapg-flower-*"))
