"""The command line, end to end and against bad input."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from PIL import Image
from rich.console import Console

from lapg import RunError, cli, load
from lapg.cli import flags
from lapg.cli.terminal import make_console
from lapg.comparison import presets, reproduce
from lapg.comparison.figure import PRESETS
from lapg.costs.ledger import upload_fraction
from lapg.experiments.config import Choice, Config, read_toml
from lapg.methods import REGISTRY, Part
from support import edit_config

TINY = [
    "--problem.num-steps",
    "3",
    "--policy.hidden",
    "4",
    "--problem.scales",
    "1",
    "0.5",
    "--batch-size",
    "3",
    "--rounds",
    "30",
    "--seeds",
    "2",
    "--chunk-rounds",
    "15",
]
LAZY = ["--method", "lapg", "--optimiser.step-size", "0.05", "--trigger.noise-weight", "1", "--trigger.xi", "0.03"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two finished runs of cooperative navigation: pg and lapg."""
    place = tmp_path_factory.mktemp("cli")
    cli.main(["train", *TINY, "--method", "pg", "--optimiser.step-size", "0.05", "--out", str(place / "pg")])
    cli.main(["train", *TINY, *LAZY, "--out", str(place / "lapg")])
    return place


@pytest.fixture
def lapg(capsys):
    """Runs a command; what it prints, on one line and with single blanks, so that the terminal's width does not matter."""

    def run(*arguments):
        capsys.readouterr()
        cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert printed.err == ""
        return " ".join(printed.out.split())

    return run


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail: its exit status and what it prints."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return stop.value.code, errors

    return run


def snapshot(path):
    """Every file with its bytes and the time of its last change."""
    return {
        str(file.relative_to(path)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file()
    }


# ---------------------------------------------------------------- end to end


def test_train(place):
    """Oracle: the flags, in the saved configuration; PG uploads always, LAPG less; the saved policy acts."""
    runs = {name: load(place / name) for name in ("pg", "lapg")}
    method = Choice("lapg", optimiser=Part(step_size=0.05), trigger=Part(noise_weight=1.0))
    assert runs["lapg"].config.choice == method  # ξ = 0.03 is the default
    assert runs["pg"].config.problem.options["scales"] == (1.0, 0.5)
    assert all(run.finished for run in runs.values())
    assert runs["pg"].record["sent"].all()
    assert runs["lapg"].record["sent"][:, 0].all()
    assert not runs["lapg"].record["sent"].all()
    action = runs["pg"].policy(jnp.zeros(12))
    assert action.shape == (2,)
    assert action.dtype == np.int32


def test_nobody_uploads(lapg, tmp_path):
    """Oracle: a threshold that no innovation passes in three rounds, and one that all do; the line says what to lower."""
    tiny = ["train", *TINY, "--method", "awapg", "--trigger.first-upload", "None", "--out"]
    printed = lapg(*tiny, tmp_path / "silent", "--trigger.threshold", "1e9")
    assert "Nobody has uploaded, so nothing was learned: lower the trigger's threshold" in printed
    assert "Nobody has uploaded" not in lapg(*tiny, tmp_path / "loud", "--trigger.threshold", "1e-9")
    coins = ("--method", "random", "--trigger.rate", "1e-9", "--out", tmp_path / "coins")
    assert "Nobody has uploaded, so nothing was learned: raise --trigger.rate" in lapg("train", *TINY, *coins)


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], None), (["{}"], True), (["{}", "True"], True), (["{}", "false"], None), (["{}", "--seeds", "3"], True)],
)
def test_switches(words, expected):
    """Oracle: the words; alone, a flag means True, also in front of another one; what is the default anyway is not noted."""
    words = [word.format("--problem.shared-trajectories") for word in words]
    settings = typed(*words)
    assert settings.problem.options.get("shared_trajectories") is expected
    assert settings.seeds == (3 if "--seeds" in words else 10)


def typed(*words):
    """The configuration of a command's flags."""
    named = flags.named_by(words, Config())
    made = flags.flags_of(named)
    return flags.from_flags(tyro.cli(type(made), args=list(words), default=made), named)


def test_flags_are_those_of_the_parts_that_are_named():
    """Oracle: by hand: names first, whatever their order; parts in parts; numbers, lists, words and None; what is not said stays the method's own."""
    words = "--trigger.period 40 --trigger.name periodic --optimiser.b1 0.95 --optimiser.name=adam --method awapg --policy.hidden 8 4"
    found = typed(
        *words.split(),
        *[
            "--downlink.name",
            "replicated",
            "--downlink.compressor.name",
            "top_k",
            "--downlink.compressor.fraction",
            "0.1",
        ],
    )
    expected = Choice(
        "awapg",
        trigger=Part("periodic", period=40.0),
        optimiser=Part("adam", b1=0.95),
        downlink=Part("replicated", compressor=Part("top_k", fraction=0.1)),
    )
    assert (found.choice, found.policy) == (expected, Part(hidden=(8, 4)))
    lazy = typed(
        *[
            "--method",
            "lapg",
            "--trigger.xi",
            "0.1",
            "0.2",
            "--trigger.max-age",
            "7",
            "--trigger.measure.name",
            "staleness",
        ]
    )
    assert lazy.trigger == Part(xi=(0.1, 0.2), max_age=7, measure=Part("staleness"))
    assert typed(*["--method", "lag_ps", "--trigger.measure.smoothness", "2"]).trigger == Part(
        measure=Part(smoothness=2.0)
    )
    assert typed("--method", "awapg", "--trigger.max-age", "None").trigger == Part(max_age=None)


def test_help_of_the_parts_that_are_named(capsys):
    """Oracle: the docstrings of the factories: options of the trigger and of the optimiser that are named, with their words and defaults, and no others'."""
    with pytest.raises(SystemExit):
        cli.main(["train", "--trigger.name", "periodic", "--optimiser.name", "adam", "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--trigger.period FLOAT P, rounds; a fraction is rounded up. (default: 10.0)" in printed
    assert "--optimiser.b1 FLOAT Exponential decay rate to track the first moment" in printed
    assert "--trigger.threshold" not in printed
    assert "--optimiser.momentum" not in printed


def test_no_oldest_age(tmp_path):
    """Oracle: awapg's own cap of 200 rounds, which alone makes learners upload where nobody reaches the threshold; with none there is no cap."""
    (tmp_path / "old.toml").write_text('[trigger]\nmax_age = "none"\n')
    assert read_toml(tmp_path / "old.toml").trigger == Part(max_age=None)
    sizes = ("--rounds", "205", "--seeds", "1", "--chunk-rounds", "205", "--problem.num-learners", "2")
    late = []
    for words in ((), ("--trigger.max-age", "None")):
        parts = (
            "--problem.name",
            "quadratic",
            "--estimator.name",
            "noisy",
            "--method",
            "awapg",
            "--trigger.threshold",
            "1e9",
            "--trigger.first-upload",
            "None",
        )
        cli.main(["train", *words, *parts, *sizes, "--out", str(tmp_path / str(len(words)))])
        late.append(int(load(tmp_path / str(len(words))).record["sent"][:, 1:].sum()))
    assert late == [2, 0]


def test_train_says_what_it_did(place, lapg):
    """Oracle: the record: mean score of the last 5 % (one round), uploads of two learners in 30 rounds; a finished run is left as it is."""
    before = snapshot(place / "lapg")
    printed = lapg("train", "--resume", place / "lapg")
    assert snapshot(place / "lapg") == before
    found = load(place / "lapg").record
    score, value = (float(found[name][:, -1].mean()) for name in ("score_scaled", "return_raw"))
    assert f"score {score:.4f}, return {value:.4g} (last 5 % of the rounds)" in printed
    assert f"uploads {int(found['sent'].sum(('round', 'learner')).mean())} of 60 a seed" in printed


def test_one_seed_has_no_error(lapg, tmp_path):
    """Oracle: there is no spread of one number."""
    lapg("train", *TINY, "--seeds", "1", "--method", "pg", "--out", tmp_path / "one")
    printed = lapg("evaluate", tmp_path / "one", "--episodes", 2)
    assert "nan" not in printed
    assert "±" not in printed


def test_evaluate(place, lapg):
    """Oracle: both ways to act are there; scaled and raw returns differ by the scales (1 and 0.5: raw is more negative); same seed, same numbers."""
    printed = lapg("evaluate", place / "pg", "--episodes", 4)
    assert "4 episodes" in printed
    assert "greedy" in printed
    assert "stochastic" in printed
    greedy = printed.split("greedy")[1].split("│")
    scaled, raw = (float(cell.split("±")[0]) for cell in greedy[1:3])
    assert raw < scaled < 0
    assert lapg("evaluate", place / "pg", "--episodes", 4) == printed


def test_report_of_two_runs(place, lapg, tmp_path, fails):
    """Oracle: both labels in every table, and the picture; the reference is the run of pg, whatever its place in the list."""
    before = snapshot(place)
    printed = lapg("report", place / "lapg", place / "pg", "--out", tmp_path / "report")
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == ["figure.png", "report.json", "report.md"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert "pg gains" in text
    for label in ("pg", "lapg"):
        assert text.count(f"\n| {label} | ") == 8
        assert f"- {label}: " in text
        assert label in printed
    rows = json.loads((tmp_path / "report" / "report.json").read_text())["rows"]
    assert rows["pg"]["totals"]["uploads"] == 60
    assert rows["lapg"]["totals"]["uploads"] == float(
        load(place / "lapg").record["sent"].sum(("round", "learner")).mean()
    )
    with Image.open(tmp_path / "report" / "figure.png") as picture:
        assert picture.format == "PNG"
    assert snapshot(place) == before
    status, errors = fails("report", place / "lapg", place / "pg", "--out", tmp_path / "report")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "must be a new directory" in errors


def test_a_reference_that_is_no_run(place, fails, tmp_path):
    """Oracle: the runs' names, and where it is a method that run which plays it."""
    shutil.copytree(place / "pg", tmp_path / "dense")
    given = ("report", place / "lapg", tmp_path / "dense", "--out", tmp_path / "report", "--reference")
    rule = "--reference must name a run by its directory, lapg or dense, got"
    assert f"{rule} 'pg', a method: of dense." in fails(*given, "pg")[1]
    assert f"{rule} 'scout'." in fails(*given, "scout")[1]


def test_report_of_one_run(place, lapg, tmp_path):
    """Oracle: the record: what the run spent in all, and 1 for what it spent over its own."""
    assert "lapg gains" in lapg("report", place / "lapg", "--out", tmp_path / "alone") + (
        text := (tmp_path / "alone" / "report.md").read_text()
    )
    assert text.startswith("# lapg\n")
    row = json.loads((tmp_path / "alone" / "report.json").read_text())["rows"]["lapg"]
    assert row["totals"]["uploads"] == float(load(place / "lapg").record["sent"].sum(("round", "learner")).mean())
    assert row["difference"]["value"] in (0.0, None)  # None where it has not improved


def test_runs_that_cannot_be_compared(place, lapg, fails, tmp_path):
    """Oracle: the configurations: what differs beside the method is named with both values, and is a reason to refuse unless it is allowed for."""

    def copy(name, **changes):
        shutil.copytree(place / "pg", tmp_path / name)

        def edit(settings):
            for setting, value in changes.items():
                *tables, last = setting.split("__")
                table = settings
                for one in tables:
                    table = table.setdefault(one, {})
                table[last] = value

        edit_config(tmp_path / name, edit)
        return tmp_path / name

    other = copy("other", problem__num_steps=4, estimator__baseline="none", batch_size=5, first_seed=7)
    status, errors = fails("report", place / "pg", place / "lapg", other, "--out", tmp_path / "report")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert errors.split("got other differences: ")[1].split("; compare")[0].split("; ") == [
        "--problem.num-steps (3 in pg, 4 in other)",
        "--estimator.baseline (None in pg, 'none' in other)",
        "batch_size (3 in pg, 5 in other)",
        "first_seed (0 in pg, 7 in other)",
    ]
    assert not (tmp_path / "report").exists()
    given = ("report", place / "pg", copy("larger", batch_size=5), "--out", tmp_path / "report")
    assert "got other differences: batch_size (3 in pg, 5 in larger); compare" in fails(*given)[1]
    assert "batch_size (3 in pg, 5 in larger)" in lapg(*given, "--may-differ", "batch_size")
    assert "batch_size (3 in pg, 5 in larger)" in (tmp_path / "report" / "report.md").read_text().splitlines()[0]
    edit_config(copy("warm"), initial=np.zeros((2, 3)))
    assert "init_from (the initial" in fails("report", place / "pg", tmp_path / "warm", "--out", tmp_path / "next")[1]
    # where and how a run was played makes no difference
    lapg("report", place / "pg", copy("loop", runtime="sequential", chunk_rounds=3), "--out", tmp_path / "same")


def test_errors_of_environments_are_named(capsys, tmp_path, monkeypatch):
    """Oracle: the environment's own words and line, its name, and no advice about disks."""
    (tmp_path / "sour.py").write_text(
        "import gymnasium\n\n\nclass Sour(gymnasium.Env):\n    observation_space = gymnasium.spaces.Box(-1, 1, (2,))\n"
        "    action_space = gymnasium.spaces.Discrete(2)\n\n    def reset(self, **_):\n        raise OSError('low >= high')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--problem.env", "sour:Sour", "--problem.num-steps", "3", "--rounds", "1", "--seeds", "1"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--problem.name", "gymnasium", *arguments, "--out", str(tmp_path / "run")])
    errors = capsys.readouterr().err
    assert stop.value.code == 1
    assert "sour:Sour" in errors
    assert "raise OSError('low >= high')" in errors
    assert "--out" not in errors


@pytest.mark.parametrize("columns", [None, "0"])
def test_tables_keep_their_width_in_pipes(columns):
    """Oracle: a process of its own whose output is a pipe: a row of 300 characters is one line, whatever COLUMNS says."""
    words = "from lapg.cli.terminal import console; from rich.table import Table; t = Table(*'ab'); t.add_row('x' * 150, 'y' * 150); console.print(t)"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | (
        {"COLUMNS": columns} if columns else {}
    )
    printed = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, env=environment, check=True
    ).stdout
    assert any("x" * 150 in line and "y" * 150 in line for line in printed.splitlines())


def test_a_terminal_of_no_width(monkeypatch):
    """Oracle: the words are there: a terminal that says it has 0 columns gets 80, one of 100 has 100."""
    monkeypatch.setattr("sys.stdout", terminal := io.StringIO())
    terminal.isatty = lambda: True
    for columns, width in (("0", 80), ("3", 80), ("100", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        found = make_console()
        assert found.width == width
        found.print("a word")
    assert terminal.getvalue().count("a word") == 3


@pytest.mark.parametrize(
    ("command", "words"), [("report", "RUNS must name at least one"), ("guide", "STUDIES must name at least one")]
)
def test_nothing_to_report(fails, command, words):
    """Oracle: the message; the exit status of bad input."""
    status, errors = fails(command)
    assert status == 2
    assert words in errors


def test_render(place, lapg, tmp_path, fails):
    """Oracle: Pillow: a GIF with one frame per step, of which not all are equal; an existing file stays."""
    out = tmp_path / "pictures" / "episode.gif"
    assert str(out.name) in lapg("render", place / "pg", "--out", out, "--episode", 1)
    with Image.open(out) as picture:
        assert picture.format == "GIF"
        assert picture.n_frames == 3
        frames = []
        for step in range(3):
            picture.seek(step)
            frames.append(np.asarray(picture.convert("RGB")))
    assert not np.array_equal(frames[0], frames[2])
    with Image.open(out) as picture:
        assert picture.info["duration"] == 100  # milliseconds: the dt of its physics
    kept = out.read_bytes()
    status, errors = fails("render", place / "pg", "--out", out)
    assert status in (1, 2)
    assert len(errors.splitlines()) == 1
    assert "episode.gif" in errors
    assert "choose another" in errors
    assert out.read_bytes() == kept
    status, errors = fails("render", place / "pg", "--seed", 99)
    assert (status, errors) == (2, "lapg: seed must be one of [0, 1], got 99.\n")


def test_list(lapg):
    """Oracle: every built-in name, from the registries, and how to name one's own."""
    printed = lapg("list")
    names = [*(name for known in REGISTRY.values() for name in known), *presets.reproducible(), *PRESETS]
    assert all(f" {name} " in printed for name in names)
    assert "MODULE:NAME" in printed


def test_help_has_examples(capsys):
    """Oracle: the examples of the docstring survive; every one of them starts as a user would type it."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert "example" in printed
    assert printed.count("  lapg train --") >= 3


# ---------------------------------------------------------------- reproduce


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """Figure 4 with tiny networks and three methods, one of them at the measured rate of another."""
    four = presets.FIGURES["fig4"]
    chosen = {
        "PG": Choice("pg", optimiser=Part("sgd", step_size=0.01)),
        "SCOUT": Choice(
            "scout", optimiser=Part("sgd", step_size=0.01), local=Part(step_scale=1.0), trigger=Part(threshold=20.0)
        ),
    }
    small = replace(four, policy=Part(hidden=4), batch_size=2, tuned=chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.FIGURES, "fig4", small)
        out = tmp_path_factory.mktemp("reproduce")
        cli.main([*["reproduce", "fig4", "--seeds", "2", "--rounds", "60", "--out"], str(out)])
        yield out


def test_reproduce(reproduced):
    """Oracle: the line-up: three finished runs of 2 seeds and 60 rounds, momentum at an unchanged effective step, random at SCOUT's rate."""
    place = reproduced / "fig4-recommended"
    content = json.loads((place / "comparison.json").read_text())
    assert content["runs"] == {"PG": "pg", "SCOUT": "scout", "random": "random"}
    runs = {label: load(place / name) for label, name in content["runs"].items()}
    for run in runs.values():
        assert run.finished
        assert (run.record.sizes["seed"], run.record.sizes["round"]) == (2, 60)
        assert run.config.optimiser.options == pytest.approx({"step_size": 0.01 * 0.4, "momentum": 0.6})
    rate = upload_fraction(runs["SCOUT"].record["sent"].values).mean()
    assert runs["random"].config.trigger.options["rate"] == pytest.approx(rate)
    assert 0 < rate < 1
    text = (place / "report.md").read_text()
    assert text.startswith("# Figure 4: 2 agents, relu, heterogeneous, momentum 0.6, preset recommended")
    for label in runs:
        assert (
            text.count(f"\n| {label} | ") == 8
        )  # final scores; rounds, bits and steps to two targets each; probabilities
    assert text.count("| SCOUT | ") == 8 + 3  # and three claims about it
    assert json.loads((place / "report.json").read_text())["baselines"] == ["random"]
    assert (place / "figure.png").is_file()


def test_reproduce_again(reproduced, lapg):
    """Oracle: bytes and times of every run's files; the report is drawn again to the same text, also by `report`."""
    place = reproduced / "fig4-recommended"
    before = snapshot(reproduced)
    reports = {str((place / name).relative_to(reproduced)) for name in ("report.md", "report.json", "figure.png")}
    for command in (["reproduce", "fig4", "--seeds", 2, "--rounds", 60, "--out", reproduced], ["report", place]):
        (place / "report.md").unlink()
        printed = lapg(*command)
        assert "PG" in printed
        assert "random" in printed
        after = snapshot(reproduced)
        assert after.keys() == before.keys()
        assert all(after[name] == before[name] for name in before if name not in reports)
        assert (place / "report.md").read_bytes() == before["fig4-recommended/report.md"][0]


def test_budgets_may_be_added(reproduced, tmp_path):
    """Oracle: a comparison of which nothing was said of the tuning takes it in later, and its report has it; another title is another comparison."""
    shutil.copytree(reproduced / "fig4-recommended", tmp_path / "place")
    file = tmp_path / "place" / "comparison.json"
    before = json.loads(file.read_text())
    about = {"title": before["title"], "claims": before["claims"]}
    budgets = {"PG": {"points": 6, "seeds": 5}}
    reproduce.play([], tmp_path / "empty", about)
    reproduce.play([], tmp_path / "empty", about | {"budgets": budgets})
    assert json.loads((tmp_path / "empty" / "comparison.json").read_text())["budgets"] == budgets
    with pytest.raises(RunError, match="holds another comparison"):
        reproduce.play([], tmp_path / "empty", about | {"title": "another"})
    file.write_text(json.dumps(before | {"budgets": budgets}))
    reproduce.summarise(tmp_path / "place", Console(quiet=True))
    assert "| PG | 6 | 5 | – | – |" in (tmp_path / "place" / "report.md").read_text()


def test_reproduce_goes_on(reproduced, tmp_path, monkeypatch):
    """Oracle: the calls: what is finished is not played again, an unfinished or missing entry is, and only that."""
    shutil.copytree(reproduced, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "fig4-recommended" / "random")
    played = []

    def train(config, out, **options):
        played.append((out.name, config.choice))
        shutil.copytree(reproduced / "fig4-recommended" / "random", out)
        return load(out)

    monkeypatch.setattr(reproduce, "train", train)
    cli.main(["reproduce", "fig4", "--seeds", "2", "--rounds", "60", "--out", str(tmp_path / "part")])
    assert played == [("random", load(reproduced / "fig4-recommended" / "random").config.choice)]


def test_reproduce_something_else_in_the_same_place(reproduced, fails, tmp_path):
    """Oracle: every byte before and after; a foreign directory, a damaged comparison, and another line-up are distinguished from ours."""
    before = snapshot(reproduced)
    (tmp_path / "foreign" / "fig4-recommended").mkdir(parents=True)
    (tmp_path / "foreign" / "fig4-recommended" / "notes.txt").write_text("mine")
    status, errors = fails("reproduce", "fig4", "--seeds", 2, "--rounds", 60, "--out", tmp_path / "foreign")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "must be a new directory or an unfinished comparison" in errors
    assert [file.name for file in (tmp_path / "foreign").rglob("*.*")] == ["notes.txt"]
    shutil.copytree(reproduced, tmp_path / "damaged")
    (tmp_path / "damaged" / "fig4-recommended" / "comparison.json").write_text("{")
    status, errors = fails("reproduce", "fig4", "--seeds", 2, "--rounds", 60, "--out", tmp_path / "damaged")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "comparison.json cannot be read" in errors
    with pytest.MonkeyPatch.context() as patch:
        other = replace(presets.FIGURES["fig4"], tuned={"PG": Choice("pg", optimiser=Part("sgd", step_size=0.01))})
        patch.setitem(presets.FIGURES, "fig4", other)
        status, errors = fails("reproduce", "fig4", "--seeds", 2, "--rounds", 60, "--out", reproduced)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "holds another comparison" in errors
    assert snapshot(reproduced) == before


@pytest.mark.parametrize("changed", [["--seeds", 3, "--rounds", 60], ["--seeds", 2, "--rounds", 61]])
def test_reproduce_with_other_numbers(reproduced, fails, changed):
    """Oracle: finished runs are not what was asked for when seeds or rounds differ; nothing is overwritten, and nobody is misled."""
    before = snapshot(reproduced)
    status, errors = fails("reproduce", "fig4", *changed, "--out", reproduced)
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "fig4-recommended/pg has other settings than those asked for" in errors
    assert ("seeds = 2, not 3" if 3 in changed else "rounds = 60, not 61") in errors
    assert snapshot(reproduced) == before


# ---------------------------------------------------------------- check-env


def test_check_env(lapg, fails, tmp_path, monkeypatch):
    """Oracle: a built-in problem passes; one whose losses are not numbers fails with a line that says so, and exit status 2."""
    printed = lapg("check-env", "garnet", "--loss-bounds", 0, 1)
    assert "ok losses" in printed
    assert "FAIL" not in printed
    (tmp_path / "broken.py").write_text(
        "from lapg.problems import garnet\n"
        "def problem():\n"
        "    whole = garnet(num_learners=2)\n"
        "    import lapg.problems.builders as p\n"
        "    nowhere = whole.environment._replace(\n"
        "        step=lambda *a: whole.environment.step(*a)._replace(loss=float('nan') * whole.environment.step(*a).loss))\n"
        "    return p.from_environment(nowhere, whole.policy, tasks=whole.tasks, num_steps=3, discount=0.9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    status, errors = fails("check-env", "broken:problem")
    assert status == 2
    assert "broken:problem failed 1 of" in errors


def test_check_env_without_a_limit(lapg, fails, tmp_path, monkeypatch):
    """Oracle: an environment that never ends: the flag is named, and with it all is well."""
    (tmp_path / "endless.py").write_text(
        "import gymnasium, numpy as np\n\n\nclass Endless(gymnasium.Env):\n"
        "    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)\n\n"
        "    def reset(self, *, seed=None, options=None):\n        super().reset(seed=seed)\n        return np.zeros(1, np.float32), {}\n\n"
        "    def step(self, action):\n        return np.zeros(1, np.float32), 1.0, False, False, {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ("check-env", "endless:Endless", "--env-kind", "gymnasium")
    status, errors = fails(*words)
    assert status == 2
    assert "--num-steps must be given for 'endless:Endless', which sets no limit of its own" in errors
    assert "FAIL" not in lapg(*words, "--num-steps", 4, "--episodes", 2)


# ---------------------------------------------------------------- bad input

BAD = {
    "a step size that is no number": (
        "train --optimiser.step-size nan",
        ["--optimiser.step-size must be finite, got nan"],
    ),
    "negative heterogeneity": (
        "train --problem.name cart_pole --problem.heterogeneity -1",
        ["heterogeneity must be >= 0 and finite, got -1.0", "0 makes all learners alike"],
    ),
    "an unknown environment outside": (
        "train --problem.name gymnasium --problem.env Chess-v7",
        ["--problem.env must be an environment that Gymnasium can make, got 'Chess-v7'"],
    ),
    "a step limit without a policy": (
        "train --problem.name quadratic --estimator.name noisy --step-limit.limit 1",
        ["step_limit 'kl' needs a problem with a policy", "choose another step_limit"],
    ),
    "a step limit and Adam": (
        "train --method pg --optimiser.name adam --step-limit.limit 1",
        ["a step limit needs an optimiser that is linear in the gradients", "use optimiser sgd"],
    ),
    "negative rounds": ("train --rounds -3", ["rounds must be >= 1", "-3"]),
    "no seeds": ("train --seeds 0", ["seeds must be >= 1", "0"]),
    "seeds beyond 32 bits": ("train --first-seed 4294967290", ["first_seed must be >= 0", "2^32"]),
    "xi of the wrong length": (
        "train --method lapg --trigger.xi 0.1 0.2 --trigger.window 10",
        ["--trigger.xi must have 1 or window=10 entries, got 2", "give one weight for all, or change the window"],
    ),
    "xi that is no number": ("train --method lapg --trigger.xi nan", ["--trigger.xi must be finite", "leave it out"]),
    "a problem that is none": (
        "train --problem.name lapg.downlink:dense",
        ["problem 'lapg.downlink:dense' must return a lapg.types.Problem"],
    ),
    "negative xi": ("train --method lapg --trigger.xi -0.1", ["xi"]),
    "a batch of 1 with leave-one-out": (
        "train --batch-size 1",
        ["batch_size must be >= 2", "got 1", "raise batch_size, or use baseline 'none'"],
    ),
    "a batch of 1 with lapg": (
        "train --batch-size 1 --estimator.baseline none --method lapg",
        ["batch_size must be >= 2 for this trigger, got 1", "raise batch_size"],
    ),
    "scales of the wrong length": (
        "train --problem.scales 1 2 3",
        ["scales must have one entry per learner, 2 in all, got 3", "give one positive number per learner"],
    ),
    "scales that are not positive": (
        "train --problem.scales 1 0",
        ["scales must be positive and finite, got [1.0, 0.0]", "left out"],
    ),
    "an unknown method": ("train --method wobble", ["method must be one of a2c, awapg, clag", "MODULE:NAME", "wobble"]),
    "an unknown problem": (
        "train --problem.name chess",
        ["problem must be one of acrobot, cart_pole", "MODULE:NAME", "chess"],
    ),
    "a problem that needs arrays": (
        "train --problem.name tabular",
        ["'tabular' needs transitions", "give --problem.transitions"],
    ),
    "a module that is not there": (
        "train --problem.name no_such_module:thing",
        ["problem=no_such_module:thing cannot be imported", "PYTHONPATH"],
    ),
    "an estimator that does not fit": (
        "train --problem.name quadratic",
        ["'gpomdp' needs a problem with a policy", "choose another estimator"],
    ),
    "an unknown optimiser": ("train --optimiser.name wobble", ["optimiser must be one of", "MODULE:NAME", "wobble"]),
    "a trigger that is misspelt": (
        "train --trigger.name perodic",
        ["trigger must be one of", "did you mean 'periodic'?"],
    ),
    "an option in a file": (
        "train --config options.toml",
        ["--trigger.treshold is not an option of trigger 'age_weighted'", "did you mean 'threshold'?"],
    ),
    "a recipe as a method": (
        "train --method lapg.downlink:dense",
        ["method must be a lapg.methods.Preset", "trigger.name"],
    ),
    "hidden layers of nothing": ("train --policy.hidden 0", ["hidden layer widths must be whole numbers >= 1"]),
    "no such file": ("train --config none.toml", ["config=none.toml cannot be read: No such file"]),
    "resume with other options": (
        "train --resume pg --seeds 3",
        ["--resume takes all settings from the run", "leave the other options out"],
    ),
    "resume with --out": ("train --resume pg --out other", ["--resume takes all settings from the run"]),
    "resume nothing": ("train --resume nowhere", ["run=nowhere must be the directory of a run", "no such directory"]),
    "--out existing": (
        "train --out pg",
        ["out=pg must be a new or empty directory", "choose another name, or --resume it"],
    ),
    "start from nothing": ("train --init-from nowhere", ["run=nowhere must be the directory of a run"]),
    "start from another network": (
        "train --policy.hidden 5 --init-from pg",
        ["init_from=pg has", "use the same problem and network"],
    ),
    "no episodes": ("evaluate pg --episodes 0", ["episodes must be a whole number >= 1, got 0"]),
    "a foreign directory": ("evaluate foreign", ["run=foreign must be the directory of a run", "no config.json"]),
    "a file": ("evaluate foreign/notes.txt", ["run=foreign/notes.txt must be the directory of a run"]),
    "a damaged record": ("evaluate damaged", ["damaged/record.nc must be a record", "restore it or run again"]),
    "a damaged configuration": ("render unreadable", ["unreadable/config.json", "damaged", "restore it"]),
    "a damaged configuration, resumed": ("train --resume unreadable", ["unreadable/config.json", "damaged"]),
    "another format": ("report future", ["run=future has format 99", "install the version"]),
    "nothing saved": ("evaluate started", ["run=started has no saved rounds yet", "--resume started"]),
    "two runs of one name": ("report pg copies/pg", ["different names"]),
    "no such reference": (
        "report pg lapg --reference lag",
        ["must name a run by its directory, pg or lapg, got 'lag'"],
    ),
}


@pytest.fixture(scope="module")
def wreckage(place):
    """Directories that are not what they should be, beside the two good runs."""
    (place / "foreign").mkdir()
    (place / "foreign" / "notes.txt").write_text("mine")
    (place / "options.toml").write_text("[trigger]\ntreshold = 3.0\n")
    for name in ("damaged", "unreadable", "future", "started", "copies/pg"):
        shutil.copytree(place / "pg", place / name)
    (place / "damaged" / "record.nc").write_bytes((place / "pg" / "record.nc").read_bytes()[:5000])
    (place / "unreadable" / "config.json").write_text('{"format": 1, "con')
    content = json.loads((place / "future" / "config.json").read_text())
    (place / "future" / "config.json").write_text(json.dumps(content | {"format": 99}))
    for file in (*place.glob("started/*.nc"), *place.glob("started/*.eqx")):
        file.unlink()
    return place


@pytest.mark.parametrize("case", BAD)
def test_bad_input(wreckage, fails, monkeypatch, unchecked, case):
    """Oracle: exit status 2; one line that names the matter and the remedy; no byte changed, no directory left behind."""
    monkeypatch.chdir(wreckage)
    before = snapshot(wreckage)
    command, expected = BAD[case]
    status, errors = fails(*command.split())
    assert status == 2
    assert errors.startswith("lapg: ")
    assert len(errors.splitlines()) == 1
    for words in expected:
        assert words in errors
    assert snapshot(wreckage) == before
    assert not (wreckage / "runs").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("reproduce fig9", ["fig9", "fig3", "fig7", "all"]),
        ("reproduce fig4 --preset best", ["best", "literal", "paper", "recommended"]),
        ("train --policy.activation sigmoid", ["sigmoid", "relu", "softplus", "tanh"]),
        ("train --seeds many", ["--seeds", "many"]),
        ("train --wobble 3", ["--wobble"]),
        ("train --trigger.treshold 3", ["--trigger.treshold", "--trigger.threshold"]),
        ("train --method pg --trigger.threshold 3", ["--trigger.threshold"]),
        ("train --problem.name quadratic --problem.num-agents 2", ["--problem.num-agents"]),
        ("train --config", ["--config"]),
        ("wobble", ["wobble", "train", "reproduce"]),
        ("", ["train", "reproduce"]),
    ],
)
def test_usage_errors(fails, command, expected):
    """Oracle: exit status 2; the bad value and the choices are named."""
    status, errors = fails(*command.split())
    assert status == 2
    for words in expected:
        assert words in errors


# ---------------------------------------------------------------- disks

QUADRATIC = [
    "--problem.name",
    "quadratic",
    "--estimator.name",
    "noisy",
    "--method",
    "pg",
    "--rounds",
    "4",
    "--seeds",
    "1",
    "--chunk-rounds",
    "2",
]


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EROFS])
def test_full_and_read_only_disks(tmp_path, fails, monkeypatch, kind):
    """Oracle: exit status 1; one line with the file, the system's words and the remedy; what was there before is untouched."""
    (tmp_path / "notes.txt").write_text("mine")

    def fail(path, target):
        raise OSError(kind, os.strerror(kind), str(path))

    monkeypatch.setattr(Path, "replace", fail)
    status, errors = fails("train", *QUADRATIC, "--out", tmp_path / "run")
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert errors.startswith(f"lapg: {tmp_path / 'run' / 'config.json'}: {os.strerror(kind)}; ")
    assert "choose another --out" in errors
    assert list(snapshot(tmp_path)) == ["notes.txt"]


def test_disk_full_half_way(tmp_path, fails, monkeypatch):
    """Oracle: exit status 1 and one line; the directory is a run of which nothing is half-written, and it says how to go on."""
    original = Path.write_bytes

    def write_bytes(path, content):
        if ".nc" not in path.name:
            return original(path, content)
        original(path, b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    status, errors = fails("train", *QUADRATIC, "--out", tmp_path / "run")
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert os.strerror(errno.ENOSPC) in errors
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["config.json"]
    with pytest.raises(RunError, match="no saved rounds yet; continue it with --resume"):
        load(tmp_path / "run")
