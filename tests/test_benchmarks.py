"""Benchmarks and the Makefile still run: each script for a moment, each target as far as its commands exist."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alone import alone

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SHORT = {  # arguments for a moment, and a word of the last table
    "throughput": ("--repeats 1 --figures fig4 --methods PG --seeds 1 --learners 2", "cooperative navigation"),
    "wire": ("--rounds 2 --figure scales-apart", "SCOUT, 4 bits down"),
    "claims": ("", "reproduced-paper:"),
    "schedules": ("scales-apart --rounds 25 --seeds 1", "staggered period 130 step 1.4"),
    "ppo": ("CartPole-v1 --steps 1024 --seeds 1", "steps / second"),
    "ppo_tuning": ("ppo-cartpole --rounds 4 --seeds 1 --rules DiLoCo", "period 16"),
    "host": ("--rounds 2 --repeats 1 --environments 8", "env.step"),
    "ray_rounds": ("--learners 1 --dimensions 10 --rounds 1 --idle 0", "| skip |"),
    "slow_link": (
        "--repeats 1 --kilobits 100000 --learners 1 --hidden 4 --rounds 6 --target -9 --idle 0",
        "SCOUT, 4 bits down",
    ),
}
"""A negative target is reached in the fifth round."""
NEEDS = {"throughput": "mpe2", "ppo": "gymnasium", "host": "gymnasium", "ray_rounds": "ray", "slow_link": "ray"}


def namespaces():
    """Whether this process may make network namespaces."""
    if os.geteuid() or any(shutil.which(tool) is None for tool in ("ip", "tc")):
        return False
    name = f"lapg-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    return made and subprocess.run(["ip", "netns", "delete", name], check=False).returncode == 0


ALL = sorted({*SHORT, *(path.stem for path in BENCHMARKS.glob("*.py"))})


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n == "slow_link" else []) for n in ALL])
def test_benchmark_runs(name):
    """Oracle: exit status 0, and its table; a script without short arguments here fails."""
    arguments, words = SHORT[name]
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}")
    if name == "slow_link" and not namespaces():
        pytest.skip("needs Linux, root, iproute2 and network namespaces")
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments.split()]
    done = subprocess.run(
        alone(*command) if name == "ray_rounds" else command,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_ENABLE_X64": "0", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert words in done.stdout


def recipes():
    """Every target of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    return phony.split()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", recipes())
def test_makefile_s_commands_exist(target):
    """Oracle: what make would run: every program, module and script of it is there. (Programs of .venv/bin are looked for beside this Python.)"""
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    shown = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=alone, capture_output=True, text=True, check=True
    ).stdout
    assert shown
    lines = [shlex.split(line) for line in shown.splitlines() if not line.startswith("make: ")]  # nothing to be done
    here = Path(sys.executable).parent
    for program, *rest in lines:
        found = (here / Path(program).name).exists() if "/" in program else shutil.which(program)
        assert found, program
        if rest[:1] == ["-m"]:
            assert importlib.util.find_spec(rest[1]), rest[1]
        for script in (word for word in rest if word.endswith(".py")):
            assert (ROOT / script).is_file(), script
