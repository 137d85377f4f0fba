"""Flower: what its messages hold, without processes; and, slow, a federation on this machine against the simulation."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed; pip install 'lapg[flower]'")

import flwr.serverapp
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from lapg.experiments import federation
from lapg.experiments.run import load, train
from lapg.runtimes import flower

RUN_CONFIG = {
    "experiment": """
rounds = 6
batch_size = 2
[problem]
name = "quadratic"
num_learners = 2
options = {noise = 0.0, dimension = 2}
[estimator]
name = "noisy"
[method]
name = "lapg"
step_size = 0.1
xi = [0.3]
noise_weight = 0.0
"""
}


compiled_once = functools.cache(lambda experiment: federation.open_lane({"experiment": experiment}))


def open_lane(run_config):
    """Compiles once for all processes that there would be."""
    return compiled_once(run_config["experiment"])


class Grid(flwr.serverapp.Grid):
    """Two nodes in this process; messages are really given to the ClientApp. Node numbers are not the learners'."""

    def __init__(self):
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what Flower tells its processes
        self.app = flower.client_app(open_lane)
        self.contexts = {700 + m: Context(1, 700 + m, {"learner": m}, RecordDict(), dict(RUN_CONFIG)) for m in range(2)}
        self.replies, self.empty = {}, 0

    run = create_message = get_nodes = send_and_receive = set_run = None  # what lapg does not use

    def get_node_ids(self):
        return list(self.contexts)

    def push_messages(self, messages):
        for message in messages:
            assert message.metadata.ttl > 0
            number = f"letter {len(self.replies)}"
            message.metadata.__dict__["_message_id"] = number
            reply = self.app(message, self.contexts[message.metadata.dst_node_id])
            self.empty += not len(reply.content)
            self.replies[number] = reply
            yield number

    def pull_messages(self, message_ids):
        return [self.replies[number] for number in message_ids]


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A run of the ServerApp against those nodes."""
    out = tmp_path_factory.mktemp("flower") / "run"
    grid = Grid()
    config = RUN_CONFIG | {"out": str(out), "deadline": 60.0, "timeout": 60.0}
    flower.server_app(open_lane, federation.begin, federation.finish)(grid, Context(1, 0, {}, RecordDict(), config))
    return grid, load(out)


def test_apps_are_the_simulation(played, tmp_path):
    """Oracle: the same settings on the runtime vectorised; a skip is a message without content."""
    grid, run = played
    assert agree(run, tmp_path / "simulated") <= 1e-12
    skips = int((~run.record["sent"].values).sum())
    assert 0 < skips == grid.empty


def test_state_is_bytes_and_numbers_in_the_context(played):
    """Oracle: the record's own contents: four whole numbers and two states of equal length, and nothing beside them."""
    grid, _ = played
    for context in grid.contexts.values():
        record = context.state[flower.NAME]
        assert sorted(record) == ["counts", "pending", "state"]
        assert record["counts"][0] == 1
        assert len(record["state"]) == len(record["pending"]) > 0


def test_nodes_that_do_not_fit_are_refused():
    """Oracle: the docstrings: two nodes that are the same learner; a node with another step size; settings that are no TOML."""
    lane = open_lane(RUN_CONFIG)
    grid = Grid()
    grid.contexts[701].node_config["learner"] = 0
    with pytest.raises(ValueError, match="that no other node has, got 0 from node 70"):
        flower._join(grid, lane, 30.0)
    grid = Grid()
    grid.contexts[701].run_config["experiment"] = RUN_CONFIG["experiment"].replace("step_size = 0.1", "step_size = 0.2")
    with pytest.raises(ValueError, match=r"learner refused: method\.step_size must be 0\.1"):
        flower._join(grid, lane, 30.0)
    with pytest.raises(ValueError, match="experiment must be TOML text"):
        federation.open_lane({"experiment": "rounds ="})


def agree(run, path):
    """The largest difference of parameters between a run and its simulation; upload decisions must not differ at all."""
    config = dataclasses.replace(run.config, runtime="vectorised")
    simulated = train(config, path, show_progress=False)
    np.testing.assert_array_equal(run.record["sent"].values, simulated.record["sent"].values)
    return float(np.abs(run.record["params"].values - simulated.record["params"].values).max())


@pytest.mark.slow
def test_a_federation_on_this_machine_is_the_simulation(tmp_path):
    """Oracle: the same settings on the runtime vectorised, in float64; TLS, node keys, ten rounds; nothing that was started is left."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed; pip install 'lapg[flower]'")
    out = tmp_path / "demo"
    environment = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "lapg.cli", "flower-demo", "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert agree(load(out / "run"), tmp_path / "simulated") <= 1e-10
    left = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert not [line for line in left if any("flower-su" in Path(word).name for word in line[:3])]
