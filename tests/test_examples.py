"""The examples and the documentation's code do what they say, each in a fresh interpreter as a reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lapg import load
from lapg.experiments.build import build
from lapg.experiments.config import read_toml

ROOT = Path(__file__).parent.parent
EXAMPLES, DOCS = ROOT / "examples", ROOT / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md") if "```python" in page.read_text(encoding="utf-8"))


def python(where, *arguments):
    """Standard output of a Python process; compiled without optimisation, because compiling is most of its time."""
    extra = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(EXAMPLES), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=where, env=os.environ | extra, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_quickstart(tmp_path):
    """Oracle: pg uploads 2 learners × 4 rounds a seed; scout what its record says, which is less."""
    shown = python(tmp_path, EXAMPLES / "quickstart.py", "--rounds", 4, "--out", tmp_path / "out").splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in shown if re.match(r"(pg|scout) +-", line)}
    assert float(rows["pg"][2]) == 2 * 4
    sent = {name: load(tmp_path / "out" / name).record["sent"] for name in rows}
    assert sent["pg"].all()
    assert float(rows["scout"][2]) == float(sent["scout"].sum(("round", "learner")).mean()) < 2 * 4


def test_own_environment(tmp_path):
    """Oracle: the run it leaves: three learners, whose config names the module."""
    shown = python(tmp_path, EXAMPLES / "own_environment.py", "--rounds", 3, "--out", tmp_path / "out")
    record = load(tmp_path / "out").record
    assert record.sizes == {"seed": 4, "round": 3, "learner": 3, "parameter": 2 * 16 + 16 + 16 * 3 + 3}
    assert len(re.findall(r"learner \d: return -", shown)) == 3


def test_own_trigger(tmp_path):
    """Oracle: its rule by hand: after round 0 who sends is who reaches the threshold, and the threshold moves by exp(gain · (fraction − rate))."""
    python(tmp_path, EXAMPLES / "own_trigger.py", "--rounds", 6, "--out", tmp_path / "out")
    record = load(tmp_path / "out" / "budgeted").record
    left, right, sent = (record[name].values for name in ("trigger_left", "trigger_right", "sent"))
    assert sent[:, 0].all()
    assert ((left >= right) == sent).all()
    growth = right[:, 2:, 0] / right[:, 1:-1, 0]
    expected = 2.718281828459045 ** (0.5 * (sent[:, 1:-1].mean(-1) - 0.1))
    assert abs(growth / expected - 1).max() < 1e-5  # float32


def test_experiment_file():
    """Oracle: what the file says, and the parameter count of two networks 12-30-10-5."""
    config = read_toml(EXAMPLES / "experiment.toml")
    assert (config.rounds, config.seeds, config.method.threshold) == (1000, 10, 160.0)
    assert config.problem.options == {"collision_penalty": 1.0}
    assert build(config).problem.policy.num_params == 2 * (12 * 30 + 30 + 30 * 10 + 10 + 10 * 5 + 5)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_documented_code_runs(page, tmp_path):
    """Oracle: the page itself; its Python blocks, one after the other, raise nothing. A block that starts with `# NAME.py` is a module."""
    script = []
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
        if module := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / module[1]).write_text(block, encoding="utf-8")
        else:
            script.append(block)
    (tmp_path / "page.py").write_text("\n".join(script), encoding="utf-8")
    python(tmp_path, "page.py")


def test_gymnasium_cart_pole(tmp_path):
    """Oracle: one seed, two rounds, four learners; nobody balances longer than T."""
    arguments = ["--rounds", 2, "--num-steps", 12, "--out", tmp_path / "out"]
    shown = python(tmp_path, EXAMPLES / "gymnasium_cart_pole.py", *arguments)
    assert load(tmp_path / "out").record["sent"].shape == (1, 2, 4)
    lengths = [float(found) for found in re.findall(r"for ([\d.]+) of 12", shown)]
    assert len(lengths) == 2
    assert all(0 < length <= 12 for length in lengths)
