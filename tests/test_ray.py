"""Learners as Ray actors: the same run as in one process, and what happens when a process dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("ray", reason="needs Ray: pip install 'lapg[ray]'")

from alone import alone
from lapg.runtimes.distributed.security import check_security
from lapg.runtimes.ray.runtime import Ray
from on_ray import HYPERS, M, parts

HERE = Path(__file__).parent


def on_ray(what, timeout=300):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}
    found = subprocess.run(
        alone(sys.executable, str(HERE / "on_ray.py"), what),
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads([line for line in found.stdout.splitlines() if line.startswith("{")][-1])  # Ray prints there too


@pytest.mark.slow
@pytest.mark.parametrize("what", ["compare", "compare calls", "follow"])
def test_ray_is_sequential(what):
    """Oracle: the sequential runtime: two lanes, three of four learners a round, two processes; then the invariant, and the learners of the killed one."""
    found = on_ray(what)
    assert found["sent"]
    assert found["participated"]
    assert found["bits"]
    assert 0.1 < found["uploads"] < 0.7
    assert found["difference"] <= 1e-12
    assert found["again"] <= 1e-12
    assert found["faults"] == 0
    assert found["renewed"] == [[0, 0], [0, 2], [1, 0], [1, 2]]
    assert found["invariant"] <= 1e-12
    assert found["shares"] <= 1e-12


@pytest.mark.slow
def test_simulation_is_deployment():
    """Oracle: both runtimes in one process: fifty rounds of eight learners on two nodes, in float64 the same decisions; in float32 they are counted."""
    found = on_ray("deploy")
    print(json.dumps(found, indent=1))
    for precision in ("float64", "float32"):
        assert (found[precision]["nodes"], found[precision]["actors"]) == (2, 4)
        assert 0.1 < found[precision]["uploads"] < 0.5
    for runtime in ("Vectorised", "Sequential"):
        assert found["float64"][runtime]["decisions"] == 400
        assert found["float64"][runtime]["differ"] == 0
        assert found["float64"][runtime]["params"] <= 1e-10


@pytest.mark.slow
def test_environments_outside_jax():
    """Oracle: the runtime that plays them in one process: the same episodes to the number, the same uploads."""
    pytest.importorskip("gymnasium")
    found = on_ray("host")
    assert found["sent"]
    assert found["scores"]
    assert 0.1 < found["uploads"] < 1
    assert found["difference"] <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("what", ["kills", "kills calls"])
def test_twenty_kills(what):
    """Oracle: the invariants of lost messages, and the 95 % prediction interval of one more run, from ten seeds where nothing happens."""
    found = on_ray(what, timeout=600)
    print(json.dumps(found, indent=1))
    assert found["killed"] == 20
    assert found["renewed"] >= 2 * 20  # two learners an actor
    assert found["missing"] > 0
    assert found["invariant"] <= 1e-12
    assert found["shares"] <= 1e-12
    others = np.array(found["without"])
    half = stats.t.ppf(0.975, others.size - 1) * others.std(ddof=1) * (1 + 1 / others.size) ** 0.5
    print(f"score {found['score']:.5f}, without kills {others.mean():.5f} ± {half:.5f}")
    assert abs(found["score"] - others.mean()) <= half


@pytest.mark.slow
@pytest.mark.parametrize("what", ["hang", "hang calls"])
def test_a_round_without_an_end(what):
    """Oracle: the documentation of ``timeout``: where everybody is waited for, an actor that hangs ends the run, quorum or not."""
    assert "must come to a quorum of 1 and an end within 2.0 s, but 2 have answered" in on_ray(what)["said"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quorum": M + 1}, "quorum must lie between 0 and the number of learners, 4, got 5"),
        ({"deadline": 0.0}, "deadline must be > 0 seconds, got 0.0; leave it out"),
        ({"channels": True, "deadline": 1.0}, "channels must be off where there is a deadline"),
        ({"processes": 5}, "processes must lie between 1 and the number of learners, 4, got 5"),
        ({"address": "10.0.0.1:6379"}, "address=10.0.0.1:6379 must be this machine, or be secured"),
    ],
)
def test_what_does_not_fit(monkeypatch, options, message):
    """Oracle: the docstring; all of it is seen before anything is started."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    with pytest.raises(ValueError, match=message):
        Ray(parts, HYPERS, [3, 4], **options)


def test_what_is_secure(monkeypatch):
    """Oracle: by hand: this machine; a token; TLS; the user's own word. An environment variable that says something else is no security."""
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for address in (None, "local", "127.0.0.1:6379", "ray://localhost:10001", "[::1]:6379"):
        check_security(address, insecure=False)
    check_security("10.0.0.1:6379", insecure=True)
    for address in ("auto", "10.0.0.1:6379", "ray://head:10001", "127.evil.example:6379", "localhost.example:6379"):
        with pytest.raises(ValueError, match="or be secured"):
            check_security(address, insecure=False)
    monkeypatch.setenv("RAY_USE_TLS", "1")
    check_security("10.0.0.1:6379", insecure=False)
