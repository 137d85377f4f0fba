"""Runs whose process is killed at any moment, whatever plays them: the same end, to the bit."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from alone import alone
from lapg import load

VICTIM = """
import sys
from functools import partial
from lapg import cli
import lapg.cli.train as command
for name in ("train_run", "resume_run"):
    setattr(command, name, partial(getattr(command, name), checkpoint_seconds=0.0))
cli.main(sys.argv[1:])
"""
SETTINGS = """
rounds = 40
chunk_rounds = 2
seeds = 2
batch_size = 3
problem = {name = "quadratic", num_learners = 3, scales = [1, 0.5, 0.2]}
estimator.name = "noisy"
method = "lapg"
optimiser.step_size = 0.05
trigger = {noise_weight = 1, xi = [0.03]}
downlink = {name = "replicated", compressor = {name = "top_k", fraction = 0.5}}
"""
STATE = "state-000040.eqx"


class Trials:
    """``lapg train`` in processes of its own, which save after every chunk."""

    def __init__(self, folder, runtime):
        self.folder, self.runtime = folder, runtime
        (folder / "settings.toml").write_text(SETTINGS)
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JAX_ENABLE_X64": "1",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "LAPG_TRIAL": str(folder),
        }

    def begin(self, *flags):
        command = [sys.executable, "-c", VICTIM, "train", *map(str, flags)]
        command = alone(*command) if self.runtime == "ray" else command
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def end(self, process):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    def start(self, name):
        """A new run; returns its process when the first rounds are saved."""
        process = self.begin(
            "--config", self.folder / "settings.toml", "--runtime", self.runtime, "--out", self.folder / name
        )
        deadline = time.monotonic() + 120
        while not list(self.folder.glob(f"{name}/state-*.eqx")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return process

    def survivors(self, seconds=120):
        """Processes that stem from these ones and do not end within so many seconds; two agents of Ray's own need one minute. They are ended."""
        mark, deadline = f"LAPG_TRIAL={self.folder}".encode(), time.monotonic() + seconds
        while found := [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark in environment(folder)]:
            if time.monotonic() > deadline:
                for pid in found:
                    os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.5)
        return found


def environment(folder):
    """What a process was given; nothing if it is gone or somebody else's."""
    try:
        return (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "kills"), [("vectorised", 20), ("sequential", 5), ("ray", 5)])
def test_killed_at_any_moment(tmp_path, runtime, kills):
    """Oracle: the uninterrupted run: every recorded number but the clock, and the last state, byte for byte. No process outlives them.

    Learners' replicas of the controller are gone with their processes, and so what they hear is longer once.

    The moments are drawn evenly between the first checkpoint and the last.
    """
    if runtime == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install 'lapg[ray]'")
    trials = Trials(tmp_path, runtime)
    process = trials.start("whole")
    began = time.monotonic()
    while process.poll() is None and not (tmp_path / "whole" / STATE).exists():
        time.sleep(0.005)
    duration = time.monotonic() - began
    trials.end(process)
    whole = load(tmp_path / "whole")
    assert 0.1 < whole.record["sent"].mean() < 0.9

    random, rounds = np.random.default_rng(0), []
    for trial in range(3 * kills):
        if len(rounds) == kills:
            break
        process = trials.start(f"run-{trial}")
        time.sleep(float(random.uniform(0, duration)))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if process.returncode != -signal.SIGKILL:  # it was quicker
            continue
        rounds.append(load(tmp_path / f"run-{trial}").record.sizes["round"])
        trials.end(trials.begin("--resume", tmp_path / f"run-{trial}"))
        run = load(tmp_path / f"run-{trial}")
        apart = ["wall_seconds"] if runtime == "vectorised" else ["wall_seconds", "downlink_bits"]
        xr.testing.assert_identical(run.record.drop_vars(apart), whole.record.drop_vars(apart))
        assert (run.path / STATE).read_bytes() == (whole.path / STATE).read_bytes()
    print(f"{runtime}: {len(rounds)} runs of 40 rounds, killed after {sorted(rounds)}, all alike")
    assert len(rounds) == kills
    assert not trials.survivors()
