"""The examples and the documentation's code do what they say, each in a fresh interpreter as a reader would run it."""

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lapg import cli, load
from lapg.comparison.study import Study, cases
from lapg.experiments.build import build
from lapg.experiments.config import Config, read_toml
from lapg.methods import Part

ROOT = Path(__file__).parent.parent
EXAMPLES, DOCS = ROOT / "examples", ROOT / "docs"
PAGES = [
    page for page in [*sorted(DOCS.glob("*.md")), ROOT / "README.md"] if "```python" in page.read_text(encoding="utf-8")
]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def shell_lines(block):
    """The words of every call of lapg, with the block's own variables put in; not those with a gap (...) in them."""
    given = r'^(\w+)="([^"]*)"$'
    for name, value in re.findall(given, block, re.MULTILINE):
        block = block.replace(f"${name}", " ".join(value.split()))
    block = re.sub(given, "", block, flags=re.MULTILINE)
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if "lapg" in words and "..." not in words:
            yield words[words.index("lapg") + 1 :]


def python(where, *arguments, **options):
    """Standard output of a Python process; compiled without optimisation, because compiling is most of its time."""
    extra = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(EXAMPLES), "PYTHONWARNINGS": "error"} | options
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


def test_own_network(tmp_path):
    """Oracle: the run it leaves: parameters of LayerNorm and three layers, counted; nobody balances longer than T."""
    shown = python(tmp_path, EXAMPLES / "own_network.py", "--rounds", 2, "--num-steps", 12, "--out", tmp_path / "out")
    assert f"{2 * 4 + 4 * 32 + 32 + 32 * 4 + 4 + 4 * 2 + 2} parameters" in shown
    lengths = [float(found) for found in re.findall(r"for ([\d.]+) of 12", shown)]
    assert len(lengths) == 2
    assert all(0 < length <= 12 for length in lengths)


def test_own_trigger(tmp_path):
    """Oracle: its rule by hand: after round 0 who sends is who reaches the threshold, and the threshold moves by exp(gain · (fraction − rate))."""
    python(tmp_path, EXAMPLES / "own_trigger.py", "--rounds", 6, "--out", tmp_path / "out")
    record = load(tmp_path / "out" / "budgeted").record
    left, right, sent = (record[name].values for name in ("trigger_statistic", "trigger_threshold", "sent"))
    assert sent[:, 0].all()
    assert ((left >= right) == sent).all()
    growth = right[:, 2:, 0] / right[:, 1:-1, 0]
    expected = 2.718281828459045 ** (0.5 * (sent[:, 1:-1].mean(-1) - 0.1))
    assert abs(growth / expected - 1).max() < 1e-5  # float32


def test_own_parts(tmp_path):
    """Oracle: the run it leaves: its names, its own number that may vary, and 16 bits for each of 2 · (2 + 4) parameters."""
    python(tmp_path, EXAMPLES / "own_parts.py", "--rounds", 12, "--out", tmp_path / "out")
    run = load(tmp_path / "out")
    assert (run.config.method, run.config.trigger) == ("own_parts:everything", Part(factor=3.0))
    assert run.record.sizes["parameter"] == 12
    assert set(run.record["uplink_bits"].values.ravel()) <= {0, 16 * 12}
    assert run.record["sent"].any()


def test_experiment_file():
    """Oracle: what the file says, and the parameter count of two networks 12-30-10-5."""
    config = read_toml(EXAMPLES / "experiment.toml")
    assert (config.rounds, config.seeds, config.trigger.options["threshold"]) == (1000, 10, 160.0)
    assert config.downlink == Part("replicated", compressor=Part("quantise", bits=8))
    assert build(config).problem.policy.num_params == 2 * (12 * 30 + 30 + 30 * 10 + 10 + 10 * 5 + 5)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Every page's exit status and what it printed, its Python blocks one after the other; one that starts with `# NAME.py` is a module."""
    place = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        folder, script = place / page.stem, []
        folder.mkdir()
        for block in blocks(page, "python"):
            if module := re.match(r"# (\w+\.py)\n", block):
                (folder / module[1]).write_text(block, encoding="utf-8")
            else:
                script.append(block)
        (folder / "page.py").write_text("\n".join(script), encoding="utf-8")
    kept = {"JAX_COMPILATION_CACHE_DIR": str(place / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    python(place, Path(__file__).parent / "pages.py", *(page.stem for page in PAGES), **kept)
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_code_runs(page, played):
    """Oracle: the page itself: its Python raises nothing, warnings included."""
    status, printed = ((played / page.stem / name).read_text(encoding="utf-8") for name in ("status", "printed"))
    assert status == "0", printed[-4000:]


COMMANDS = [
    (page, line)
    for page in [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]
    for block in blocks(page, "sh")
    for line in shell_lines(block)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda item: getattr(item, "stem", "line"))
def test_documented_commands_are_taken(page, line, monkeypatch, unchecked):
    """Oracle: the command line: it parses, and what is to be trained or compared is built; only the work itself is left out."""

    def stop(*arguments, **options):
        for settings in arguments[:1]:
            if isinstance(settings, Config):
                build(settings)
            elif isinstance(settings, Study):
                cases(settings)
        raise Reached

    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(cli.train, "train_run", stop)
    monkeypatch.setattr(cli.train, "resume_run", stop)
    monkeypatch.setattr(cli.compare, "run", stop)
    for name in ("reproduce", "evaluate", "report", "guide", "render", "tune", "verify", "predict", "flower_demo"):
        monkeypatch.setattr(cli, name, functools.wraps(getattr(cli, name))(functools.partial(stop)))
    with pytest.raises(Reached):
        cli.main(line)


class Reached(Exception):  # noqa: N818
    """The work would begin here."""


def test_gymnasium_cart_pole(tmp_path):
    """Oracle: one seed, two rounds, four learners; nobody balances longer than T."""
    arguments = ["--rounds", 2, "--num-steps", 12, "--out", tmp_path / "out"]
    shown = python(tmp_path, EXAMPLES / "gymnasium_cart_pole.py", *arguments)
    assert load(tmp_path / "out").record["sent"].shape == (1, 2, 4)
    lengths = [float(found) for found in re.findall(r"for ([\d.]+) of 12", shown)]
    assert len(lengths) == 2
    assert all(0 < length <= 12 for length in lengths)
