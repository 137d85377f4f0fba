"""Learners as Ray actors: the same run as in one process, and what happens when a process dies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs Ray: pip install 'lapg[ray]'")

from lapg.runtimes.ray import Ray, check_security
from on_ray import HYPERS, M, parts

HERE = Path(__file__).parent


def alone(*command):
    """The command, in a network of its own where the system allows that: Ray listens on all interfaces."""
    inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if (
        shutil.which("unshare")
        and shutil.which("ip")
        and not subprocess.call([*inside, "true"], stderr=subprocess.DEVNULL)
    ):
        return [*inside, *command]
    return list(command)


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
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.slow
def test_ray_is_sequential():
    """Oracle: the sequential runtime: two lanes, three of four learners a round, two processes; then the invariant, and the learners of the killed one."""
    found = on_ray("compare")
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quorum": M + 1}, "quorum must lie between 0 and the number of learners, 4, got 5"),
        ({"deadline": 0.0}, "deadline must be > 0 seconds, got 0.0; leave it out"),
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
