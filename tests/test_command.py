"""The command line as it starts: what a shell, its folder and its environment variables make of it."""

import errno
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lapg import Config, cli
from lapg.experiments.progress import Display
from lapg.methods import REGISTRY
from lapg.problems import adapters

OWN = """
from lapg.problems import quadratic
def problem():
    return quadratic(num_learners=2)
def broken():
    raise ValueError("broken on purpose")
def missing():
    open("/nonexistent/file")
"""
TRAIN = ["train", "--problem.name", "quadratic", "--estimator.name", "noisy", "--rounds", "2", "--seeds", "1", "--out"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with modules of one's own, and Python's own path without it."""
    (tmp_path / "mine_here.py").write_text(OWN)
    (tmp_path / "wrong_here.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [item for item in sys.path if item])
    monkeypatch.setattr(adapters, "BESIDE", adapters.BESIDE)
    yield tmp_path
    for name in ("mine_here", "wrong_here"):
        sys.modules.pop(name, None)


def lapg(*arguments, capsys):
    """Exit status and what is printed on both streams."""
    try:
        cli.main([str(argument) for argument in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    out, err = capsys.readouterr()
    return status, " ".join((out + err).split())


def test_version(capsys):
    """Oracle: the installed package's metadata."""
    assert lapg("--version", capsys=capsys) == (0, f"lapg {version('lapg')}")


def test_modules_of_the_current_folder(here, capsys):
    """Oracle: the folder's module, which Python itself would not look for; and what is wrong: module, name or code."""
    status, words = lapg("check-env", "mine_here:problem", capsys=capsys)
    assert (status, "ok score" in words) == (0, True)
    for name, message in {
        "mine_her:problem": "No module named 'mine_her'; is the module in the current folder or on PYTHONPATH?",
        "mine_here:problme": "module 'mine_here' has no attribute 'problme'; did you mean 'problem'?",
    }.items():
        status, words = lapg("check-env", name, capsys=capsys)
        assert status == 2
        assert message in words
    for name, message in {
        "wrong_here:problem": "ModuleNotFoundError: No module named 'no_such_package'",
        "mine_here:broken": "ValueError: broken on purpose",
        "mine_here:missing": "FileNotFoundError",
    }.items():
        status, words = lapg("check-env", name, capsys=capsys)
        assert status == 1
        assert "Traceback" in words
        assert message in words


def test_one_s_own_run_from_the_shell(here, capsys):
    """Oracle: exit status 0 with the word that the refusal names, in another process as well."""
    arguments = ["train", "--problem.name", "mine_here:problem", *TRAIN[3:], "mine"]
    assert lapg(*arguments, capsys=capsys)[0] == 0
    status, words = lapg("predict", "mine", capsys=capsys)
    assert status == 2
    assert "config.problem.name = mine_here:problem. If you trust it, repeat the command with --trust" in words
    command = [sys.executable, "-m", "lapg.cli", "predict", "mine", "--trust"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "noise" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["CartPole-v1"], ("gymnasium", "CartPole-v1")),
        (["package:Env-v0"], ("gymnasium", "package:Env-v0")),
        (["mpe2.simple_spread_v3"], ("pettingzoo", "mpe2.simple_spread_v3")),
        (["CartPole-v1", "--env-kind", "gymnax"], ("gymnax", "CartPole-v1")),
        (["module:make", "--env-kind", "gymnasium"], ("gymnasium", "module:make")),
        (["garnet"], ("garnet", None)),
        (["module:problem"], ("module:problem", None)),
    ],
)
def test_check_env_takes_environments(arguments, problem, monkeypatch, capsys):
    """Oracle: the adapter that the name's form, or --env-kind, says."""
    asked = []
    monkeypatch.setattr(
        cli.parts,
        "build_problem",
        lambda config: asked.append((config.problem.name, config.problem.options.get("env"))),
    )
    monkeypatch.setattr(cli.parts, "check_problem", lambda problem, **options: [])
    assert lapg("check-env", *arguments, capsys=capsys)[0] == 0
    assert asked == [problem]


def test_list_names_all_parts(capsys):
    """Oracle: the registry: what the configuration takes, kind by kind."""
    _, words = lapg("list", capsys=capsys)
    for name in (f"{kind} │ {name}" for kind, parts in REGISTRY.items() for name in parts):
        assert name in words
    assert "│ Window │" not in words


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--method awapg --optimiser.step-size 0", "--optimiser.step-size must be > 0, got 0.0"),
        ("--method pg --optimiser.step-size -1", "--optimiser.step-size must be > 0, got -1.0"),
        ("--method clag --trigger.weight -1", "--trigger.weight must be >= 0, got -1.0"),
        ("--optimiser.momentum 1", "--optimiser.momentum must lie in [0, 1), got 1.0"),
        ("--method pg --optimiser.momentum 1.5", "--optimiser.momentum must lie in [0, 1), got 1.5"),
        ("--optimiser.decay -1", "--optimiser.decay must be >= 0, got -1.0"),
        ("--method pg --optimiser.name adam --optimiser.decay -1", "--optimiser.decay must be >= 0, got -1.0"),
        ("--local.step-scale -1", "--local.step-scale must be >= 0, got -1.0"),
        ("--method periodic --trigger.period 0", "--trigger.period must be"),
        ("--rounds 1000000000000", "rounds must fit into 32 bits"),
        ("--seeds 1000000000", "seeds must be <= 1,048,576"),
    ],
)
def test_numbers_out_of_range(flags, message, capsys, tmp_path, monkeypatch, unchecked):
    """Oracle: exit status 2 and the flag that was typed, whichever part found it out; nothing is made."""
    monkeypatch.chdir(tmp_path)
    status, words = lapg(*TRAIN, "run", *flags.split(), capsys=capsys)
    assert status == 2
    assert message in words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "permissions"), (errno.ENAMETOOLONG, "shorter")],
)
def test_errors_of_the_system(kind, remedy, capsys, monkeypatch, tmp_path):
    """Oracle: the system's words, each with a remedy of its own."""

    def fail(*_, **__):
        raise OSError(kind, os.strerror(kind), "some/file")

    monkeypatch.setattr(cli, "list_parts", fail)
    monkeypatch.setattr(cli, "_others", lambda error: False)
    status, words = lapg("list", capsys=capsys)
    assert status == 1
    assert f"some/file: {os.strerror(kind)}; " in words
    assert remedy in words
    assert ("free some space" in words) == (kind == errno.ENOSPC)


def test_errors_that_are_not_ours_keep_their_traceback(capsys, monkeypatch):
    """Oracle: they leave main as they are: a ValueError raised outside lapg, and a missing file of somebody else's code."""

    def not_ours(*_, **__):
        int("three")
        raise AssertionError

    for error in (not_ours, lambda: (lambda path: Path(path).read_text())("/nonexistent/file")):
        monkeypatch.setattr(cli, "list_parts", error)
        with pytest.raises((ValueError, FileNotFoundError)):
            cli.main(["list"])


@pytest.mark.parametrize(
    ("words", "options", "status", "message"),
    [
        ({}, ["-OO"], 0, ""),
        ({"JAX_PLATFORMS": "cuda"}, [], 2, "JAX_PLATFORMS must name devices that JAX can use here, got 'cuda'"),
        ({"JAX_NUMPY_DTYPE_PROMOTION": "strict"}, [], 2, "JAX_NUMPY_DTYPE_PROMOTION must be standard for lapg"),
        ({"JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_DEBUG_NANS": "1", "JAX_ENABLE_X64": "1"}, [], 0, ""),
    ],
)
def test_python_and_jax_set_otherwise(words, options, status, message, tmp_path):
    """Oracle: a short run as without them, in a process of its own, or one line that names the variable."""
    command = [sys.executable, *options, "-m", "lapg.cli", *TRAIN, str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status:
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    else:
        assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["rounds"] == 2
        listed = [sys.executable, *options, "-m", "lapg.cli", "list"]
        assert subprocess.run(listed, capture_output=True, timeout=120).returncode == 0


OWN_PARTS = """
import jax.numpy as jnp
import numpy as np
import optax
from lapg.types import Compressor, Trigger
def arity(): return Trigger(update=lambda state: state)
def undecided(): return Trigger(update=lambda key, state, candidate, estimate, gradient_at: (state, True))
def number(): return 3
def broken(): return 1 / 0
def liar():
    return Compressor(
        compress=lambda key, x: x.astype(jnp.float16), decompress=lambda message: message.astype(jnp.zeros(()).dtype),
        num_bits=lambda message: jnp.int32(8 * message.size), encode=lambda message: np.asarray(message).tobytes(),
        decode=lambda raw, like: np.frombuffer(raw, np.float16),
    )
def adam(step_size, b1: float = 0.5): return optax.adam(step_size, b1=b1)
def named(name: str = "x"): return Trigger(update=None)
made = Trigger(update=None)
class Net:
    name: str = "x"
"""


@pytest.fixture
def own(here):
    (here / "own_here.py").write_text(OWN_PARTS)
    yield here
    sys.modules.pop("own_here", None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--trigger.name own_here:arity", "--trigger.name 'own_here:arity' does not fit, functions: update must take (key,"),
        ("--trigger.name own_here:undecided", "update must return a new state and a lapg.types.Decision"),
        ("--trigger.name own_here:number", "trigger 'own_here:number' must return a lapg.types.Trigger, got int"),
        ("--compressor.name own_here:liar", "--compressor.name 'own_here:liar' does not fit, lengths: num_bits must be 8"),
        ("--downlink.name replicated --downlink.compressor.name own_here:liar", "--downlink.compressor.name 'own_here:liar'"),
        ("--optimiser.name own_here:adam", "got 'own_here:adam', which turns 1 and 2 into"),
        ("--optimiser.name own_here:adam", "no local steps (--local.name stand), or a method without them (--method awapg)"),
        ("--policy.name own_here:Net", "policy must be a factory, spaces → lapg.types.Policy, got the class Net; put net ="),
        ("--trigger.name own_here:made", "trigger=own_here:made must be a factory, a function that returns the part, got Trigger"),
        ("--trigger.name own_here:named", "trigger 'named' must not have an option called name"),
    ],
)  # fmt: skip
def test_own_parts_that_do_not_fit(flags, message, own, capsys, unchecked):
    """Oracle: one line with the setting, the rule, what was found and the remedy; exit status 2; no directory is made."""
    before = set(own.iterdir())
    status, words = lapg(*TRAIN, "run", *flags.split(), capsys=capsys)
    assert (status, message in words) == (2, True), words
    assert words.startswith("lapg: ")
    assert set(own.iterdir()) - before <= {own / "__pycache__"}


def test_own_part_that_raises(own, capsys, unchecked):
    """Oracle: the traceback has the user's line and none of lapg's; no directory is made."""
    status, words = lapg(*TRAIN, "run", "--trigger.name", "own_here:broken", capsys=capsys)
    assert status == 1
    assert "trigger 'own_here:broken' could not be made: ZeroDivisionError" in words
    assert "making.py" not in words
    assert not (own / "run").exists()


def test_short_help_and_long(capsys):
    """Oracle: the registry: the short one has the parts that are chosen or named, the long one all; both parse."""

    def kinds(*words):
        _, printed = lapg("train", *words, capsys=capsys)
        return {kind for kind in REGISTRY if f"--{kind.replace('_', '-')}.name" in printed}

    everything = set(REGISTRY) - {"method", "measure"}
    assert kinds("--help-all") - {"measure"} == everything
    short = everything - {"variance_reduction", "step_limit", "rollout"}
    assert kinds("--help") == short
    assert kinds("--rollout.name", "segments", "--help") == short | {"rollout"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --trigger.treshold 3", "Unrecognized options: --trigger.treshold, 3 (did you mean --trigger.threshold?); see lapg train --help."),
        ("train --seeds many", "Error parsing --seeds: invalid literal for int() with base 10: 'many'; see lapg train --help."),
        ("trian", "(did you mean train?)"),
        ("reproduce fig9", "Expected one of ('fig3', 'fig4'"),
    ],
)  # fmt: skip
def test_usage_errors_are_one_line(words, message, capsys):
    """Oracle: the style of all other errors: one line, with the nearest name."""
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert errors.startswith("lapg: ")
    assert len(errors.splitlines()) == 1
    assert message in errors


COMMANDS = [
    "reproduce",
    "train",
    "compare",
    "evaluate",
    "report",
    "guide",
    "render",
    "tune",
    "verify",
    "predict",
    "check",
    "check-env",
    "flower-demo",
    "list",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command, capsys):
    """Oracle: its --help: a line that a user would type."""
    status, printed = lapg(command, "--help", capsys=capsys)
    assert status == 0
    assert f"For example: lapg {command}" in printed


def test_progress_after_the_first_round(capsys):
    """Oracle: the lines: before a round is done no time is left to tell, from the first one on nothing is being compiled, and the second one took time."""
    shown = Display(Config(rounds=10), 0, None, plain=True)
    shown.line()
    for round in (1, 2):
        shown.reach(round)
        shown.line()
    words = [("compiling" in line, "left" in line) for line in capsys.readouterr().out.splitlines()]
    assert words == [(True, False), (False, False), (False, True)]
