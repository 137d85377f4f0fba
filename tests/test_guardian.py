"""What was started ends with whoever started it, even if that one is killed by force."""

import os
import signal
import subprocess
import sys

import pytest

psutil = pytest.importorskip("psutil", reason="psutil is not installed; pip install 'lapg[flower]'")

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
SERVICE = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', '{STUBBORN}'], start_new_session=True); time.sleep(600)"
DRIVER = f"""
import os, sys, time
from pathlib import Path
from lapg.runtimes.flower.loopback import guarded, running
home = Path(sys.argv[1])
command = [sys.executable, "-c", {SERVICE!r}]
with guarded(home) as guard, running(command, os.environ, home, home.parent / "log") as process:
    guard(process.pid)
    print(process.pid, flush=True)
    time.sleep(600 if sys.argv[2] == "stay" else 1)
"""


@pytest.mark.parametrize("how", ["killed", "leaves"])
def test_services_end_with_their_driver(tmp_path, how):
    """Oracle: by hand: a service and what it has started in a session of its own, deaf to SIGTERM, are gone within ten seconds, and so is the directory."""
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", DRIVER, str(home), "stay" if how == "killed" else "leave"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None
        service = psutil.Process(int(driver.stdout.readline()))
        guardian = [child for child in psutil.Process(driver.pid).children() if child != service]
        assert len(guardian) == 1
        while len(family := [service, *service.children(recursive=True)]) < 2:
            pass
        if how == "killed":
            os.kill(driver.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs([*family, *guardian], timeout=10)
    assert len(gone) == 3
    assert not alive
    assert not home.exists()
