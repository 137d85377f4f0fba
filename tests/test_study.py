"""Studies: who competes where, running and resuming them, and what they leave behind."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lapg import RunError, cli, load
from lapg.comparison import export, presets, report, reproduce, study, sweeps, tune
from lapg.comparison.curves import Curve, to_curve
from lapg.comparison.guide import cheapest
from lapg.comparison.statistics import compare
from lapg.comparison.study import Study
from lapg.costs.ledger import HEADER_BITS
from lapg.costs.links import PROFILES
from lapg.experiments.config import Choice, from_dict, read_toml
from lapg.methods import Part

QUIET = Console(quiet=True)
FILE = """
methods = ["awapg"]
problem = ["noisy", "fig6"]
seeds = 2
tuning_seeds = 2
participation = [1.0, 0.5]

[own_method.lazy]
method = "lapg"
memory = { name = "running_average", weight = 0.2 }
[own_method.lazy.grid]
step = [0.7, 1.0]
trigger.noise_weight = [0.0, 0.5, 1.0]
optimiser.decay = [0.0, 4e-4]

[own_problem.noisy]
step = 0.05
momentum = 0.5
rounds = 60
batch_size = 2
problem = { name = "quadratic", num_learners = 3, dimension = 2 }
estimator = { name = "noisy" }
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest study: PG, accumulation and random uploads on noisy quadratics."""
    file = tmp_path_factory.mktemp("study") / "study.toml"
    file.write_text(FILE)
    return dataclasses.replace(
        read_toml(file, Study()),
        methods=("periodic",),
        own_method={},
        problem=("noisy",),
        participation=(1.0,),
        seeds=5,
    )


@pytest.fixture(scope="module")
def done(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    study.run(small, out, console=QUIET, show_progress=False)
    return out


# ---------------------------------------------------------------- who competes where


def test_cases(tmp_path):
    """Oracle: the file above: two problems at two participations each; PG first, baselines always there, and one with the memory of `lazy`."""
    file = tmp_path / "study.toml"
    file.write_text(FILE)
    found = {case.name: case for case in study.cases(read_toml(file, Study()))}
    assert list(found) == ["noisy", "noisy-0.5", "fig6", "fig6-0.5"]
    for case in found.values():
        assert [one.label for one in case.contenders] == [
            "pg",
            "awapg",
            "lazy",
            "periodic",
            "random",
            "periodic-average",
        ]
    noisy, half, six = (found[name] for name in ("noisy", "noisy-0.5", "fig6"))
    assert (noisy.step, noisy.config.rounds, noisy.config.batch_size) == (0.05, 60, 2)
    assert noisy.config.estimator == Part("noisy")
    assert half.config == dataclasses.replace(noisy.config, participation=0.5)
    assert {one.method.optimiser.options["momentum"] for one in noisy.contenders} == {0.5}
    lazy = noisy.contenders[2]
    assert lazy.method == Choice(
        "lapg", optimiser=Part("sgd", momentum=0.5), memory=Part("running_average", weight=0.2), trigger=Part(xi=0.03)
    )
    assert lazy.grid == {"step": (0.7, 1.0), "trigger.noise_weight": (0.0, 0.5, 1.0), "optimiser.decay": (0.0, 4e-4)}
    assert (six.config.rounds, six.step, six.contenders[0].method.optimiser.options["momentum"]) == (
        3500,
        pytest.approx(0.0006),
        0.6,
    )


def test_the_example():
    """Oracle: what the file says; its method has a grid of its own, as large as the others'."""
    file = Path(__file__).parents[1] / "examples" / "study.toml"
    (case,) = study.cases(read_toml(file, Study()))
    assert [one.label for one in case.contenders] == ["pg", "awapg", "lazy", "periodic", "random", "periodic-average"]
    assert (case.config.rounds, case.config.problem.options["num_learners"], case.step) == (120, 3, 0.05)


def test_controls_follow_the_memory():
    """Oracle: the protocol: a baseline has the memory of the method it accompanies; nobody is there twice."""
    labels = [one.label for one in study.cases(Study(methods=("scout", "periodic-local")))[0].contenders]
    assert labels == ["pg", "scout", "periodic-local", "periodic", "random", "random-local"]
    labels = [one.label for one in study.cases(Study(methods=("awapg",)))[0].contenders]
    assert labels == ["pg", "awapg", "periodic", "random"]


def test_grids_follow_the_rounds():
    """Oracle: by hand.

    The grids of `KNOWN` are for 3,000 rounds: 600 are a fifth as long, so that periods and thresholds are a fifth, rates and decays five times as large.
    In 60 the shortest period is 2 rounds, and rates are at most 1/2. A ready-made experiment keeps its grids at its own K, and at a third of it
    they follow; a grid of the user's is taken as it is.
    """

    def grids(rounds=None, problem="noisy", **settings):
        table = {"step": 0.05, "rounds": rounds or 60, "problem": {"name": "quadratic"}, **settings}
        asked = Study(
            ("awapg",), (problem,), own_problem={"noisy": table}, rounds=None if problem == "noisy" else rounds
        )
        return {one.label: one.grid for one in study.cases(asked)[0].contenders}

    fifth = grids(600)
    assert fifth["periodic"]["trigger.period"] == pytest.approx((4, 8, 16))
    assert fifth["random"]["trigger.rate"] == pytest.approx((1 / 16, 1 / 8, 1 / 4))
    assert fifth["awapg"]["trigger.threshold"] == pytest.approx((16, 32, 64))
    assert fifth["awapg"]["step"] == (1.0, 1.6)
    assert all(grid["optimiser.decay"] == pytest.approx((0, 4e-3)) for grid in fifth.values())
    short = grids(60)
    assert short["periodic"]["trigger.period"] == pytest.approx((2, 4, 8))
    assert short["random"]["trigger.rate"] == pytest.approx((1 / 8, 1 / 4, 1 / 2))
    assert grids(60, shared={"optimiser.decay": [0.0, 0.5]})["pg"]["optimiser.decay"] == (0.0, 0.5)
    for name, figure in presets.FIGURES.items():
        usual = {one.label: one.grid for one in presets.contenders(figure, ["pg", "awapg", "periodic", "random"])[0]}
        assert grids(problem=name) == grids(figure.rounds, name) == usual
    assert grids(1000, "fig4")["periodic"]["trigger.period"] == pytest.approx((20 / 3, 40 / 3, 80 / 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": ("fig9",)}, r"problem must be one of fig3, .*got 'fig9'"),
        ({"methods": ("wobble",)}, r"method must be one of .*got 'wobble'"),
        ({"own_method": {"mine": {"trigger": "never"}}}, r"own_method\.mine must be a table with method"),
        (
            {"own_method": {"mine": {"method": "awapg", "trigger": {"threshold": 3.0}}}},
            r"own_method\.mine fixes trigger.threshold, which is tuned",
        ),
        ({"own_method": {"mine": {"method": "pg", "grid": {"step": [1.0]}}}}, r"equally many points, got .*mine 1"),
        ({"own_method": {"mine": {"method": "pg", "wobble": 1}}}, r"own_method\.mine\.wobble is not a setting"),
        ({"own_problem": {"fig4": {"rounds": 3}}}, r"own_problem\.fig4 must have step"),
        ({"own_problem": {"fig4": {"step": 0.1, "round": 3}}}, r"own_problem\.fig4\.round is not a setting"),
    ],
)
def test_studies_that_do_not_fit(change, message):
    """Oracle: the rules in the messages."""
    with pytest.raises(ValueError, match=message):
        study.cases(dataclasses.replace(Study(), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 0}, "seeds must be >= 1, got 0"),
        ({"methods": ("pg", "pg")}, "methods must be different ones, at least one, got pg, pg"),
        ({"participation": ()}, "participation must be different ones, at least one"),
    ],
)
def test_wrong_numbers(change, message):
    """Oracle: the rules in the messages."""
    with pytest.raises(ValueError, match=message):
        Study(**change)


def test_the_command(monkeypatch, tmp_path):
    """Oracle: flags over the file over the defaults."""
    file, asked = tmp_path / "study.toml", []
    file.write_text(FILE)
    monkeypatch.setattr("lapg.cli.compare.run", lambda *given, **_: asked.append(given))
    cli.main(["compare", "--config", str(file), "--seeds", "5", "--methods", "lapg", "--out", str(tmp_path / "out")])
    cli.main(["compare", "--methods", "lapg", "awapg", "--problem", "fig4", "fig6", "--rounds", "9"])
    assert asked[0] == (dataclasses.replace(read_toml(file, Study()), seeds=5, methods=("lapg",)), tmp_path / "out")
    assert asked[1][0] == Study(methods=("lapg", "awapg"), problem=("fig4", "fig6"), rounds=9)


# ---------------------------------------------------------------- running


def test_a_study_is_tuned_on_other_seeds_than_it_reports(done):
    """Oracle: the protocol: seeds from 1000 tune, seeds from 0 are reported, with the chosen numbers."""
    tuned = json.loads((done / "noisy" / "tuning" / tune.RESULT).read_text())
    assert list(tuned) == ["pg", "periodic", "random"]
    for label, found in tuned.items():
        run = load(done / "noisy" / label)
        assert run.config.seed_list == [0, 1, 2, 3, 4]
        assert found["seeds"] == [1000, 1001]
        assert run.config.choice == from_dict(found["chosen"], Choice("scout"))
        assert run.record.sizes["round"] == 60


def test_the_report(done):
    """Oracle: the protocol on the runs' records, each number in its place; both tables for every cost."""
    content = json.loads((done / "noisy" / "report.json").read_text())["rows"]
    curves = {label: to_curve(load(done / "noisy" / label).record) for label in content}
    expected = compare(curves, "pg").rows
    for label, row in content.items():
        spent = row["costs"]["0.9"]["spent"]
        assert list(spent) == ["uploads", "bits", "uplink_bits", "downlink_bits"]
        value = expected[label].costs[0.90].spent["bits"].value
        assert spent["bits"]["value"] == (value if np.isfinite(value) else None)
    text = (done / "summary.md").read_text()
    assert "| method | noisy |" in text
    assert text.count("\n| periodic | ") == 2 * 4 + 3  # savings and factors by cost; rounds, final, probability
    assert json.loads((done / "noisy" / "report.json").read_text())["baselines"] == ["periodic", "random"]
    tuning = (done / "noisy" / "report.md").read_text().split("## Tuning")[1]
    assert "| periodic | 12 | 2 | step " in tuning
    for picture in ("figure.png", "frontier.png"):
        assert (done / "noisy" / picture).read_bytes().startswith(b"\x89PNG")


def test_time_on_a_network(done, tmp_path):
    """Oracle: PG uploads and hears the same in every round, so that its time to the target is proportional to its rounds: both ways at once."""
    shutil.copytree(done / "noisy", tmp_path / "noisy")
    cli.main(["report", str(tmp_path / "noisy"), "--network", "wifi-robot", "--compute-seconds", "0.5"])
    cost = json.loads((tmp_path / "noisy" / "report.json").read_text())["rows"]["pg"]["costs"]["0.9"]
    record = load(done / "noisy" / "pg").record
    link = PROFILES["wifi-robot"].uplink
    bits = int(record["uplink_bits"][0, 0, 0]) + int(record["downlink_bits"][0, 0, 0]) + 2 * (HEADER_BITS + 8 * 105)
    per_round = 2 * link.latency_seconds + bits / link.bits_per_second + 0.5
    assert cost["spent"]["seconds"]["value"] == pytest.approx(per_round * cost["rounds"]["value"])
    assert "| pg | 90% | " in (tmp_path / "noisy" / "report.md").read_text().split("## Time and energy")[1]
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path / "noisy"), "--network", "5g"])


def test_the_guide(done, tmp_path):
    """Oracle: `compare` on the same records: the first name of every cell is admitted and nobody admitted spends less."""
    cli.main(["guide", str(done), "--network", "wan", "--out", str(tmp_path / "guide.md")])
    header, _, row = (line for line in (tmp_path / "guide.md").read_text().splitlines() if line.startswith("|"))
    assert header == "| problem | uploads | Mbit both | Mbit up | seconds, wan | joules, wan |"
    curves = {
        label: to_curve(load(done / "noisy" / label).record, PROFILES["wan"]) for label in ("pg", "periodic", "random")
    }
    rows = compare(curves, "pg").rows
    costs = ("uploads", "bits", "uplink_bits", "seconds", "joules")
    for cost, cell in zip(costs, row.strip("| ").split(" | ")[1:], strict=True):
        spent = {label: found.costs[0.90].spent[cost].value for label, found in rows.items() if found.not_inferior}
        assert cell.startswith(f"**{min(spent, key=spent.get)}** ")


def test_ties_are_told():
    """Oracle: by hand. 'twin' uploads as PG does; 'half' half as much; 'weak' a tenth, but ends 10 % lower and does not count."""

    def one(per_round, height=1.0):
        score = np.where(np.arange(200) >= 100, height, 0.0) * np.ones((5, 1))
        return Curve(
            score, score, {"uploads": per_round * (1.0 + np.arange(200)) * np.ones((5, 1))}, np.ones(1), np.zeros(1)
        )

    comparison = compare({"pg": one(2), "twin": one(2), "weak": one(0.2, 0.9)}, "pg")
    assert cheapest(comparison, "uploads") == ["pg", "twin"]
    comparison = compare({"pg": one(2), "twin": one(2), "half": one(1)}, "pg")
    assert cheapest(comparison, "uploads") == ["half"]


def test_a_study_goes_on(small, done, tmp_path, monkeypatch):
    """Oracle: what is finished is not played again: one sweep and one run are missing, then a method is added."""
    shutil.copytree(done, tmp_path / "part")
    place, played = tmp_path / "part" / "noisy", []
    shutil.rmtree(place / "random")
    (place / "tuning" / "random.nc").unlink()

    def sweep(config, methods, *, console, label):
        played.append(f"sweep {label}")
        return tune.record.read_dataset(done / "noisy" / "tuning" / "random.nc")

    def train(config, out, *, show_progress):
        played.append(f"run {out.name}")
        shutil.copytree(done / "noisy" / "random", out)
        return load(out)

    monkeypatch.setattr(sweeps, "sweep", sweep)
    monkeypatch.setattr(reproduce, "train", train)
    study.run(small, tmp_path / "part", console=QUIET, show_progress=False)
    assert played == ["sweep random", "run random"]
    assert (place / "report.md").read_text() == (done / "noisy" / "report.md").read_text()
    more = dataclasses.replace(small, methods=("periodic", "never"))
    study.run(more, tmp_path / "part", console=QUIET, show_progress=False)
    assert played[2:] == ["sweep never", "run never"]
    with pytest.raises(RunError, match="holds another sweep"):
        study.run(dataclasses.replace(small, rounds=61), tmp_path / "part", console=QUIET, show_progress=False)


def test_a_damaged_study(tmp_path):
    """Oracle: there is none."""
    with pytest.raises(RunError, match=r"must be the directory of a study, but its study\.json cannot be read"):
        study.report_study(tmp_path, QUIET)


# ---------------------------------------------------------------- exports


def rising(at, num_seeds=2, rounds=100):
    """Seed s jumps from 1 to 3 + s in a round; one upload a round."""
    score = 1 + (np.arange(rounds) >= at) * (2.0 + np.arange(num_seeds)[:, None])
    return Curve(score, score, {"uploads": np.ones((num_seeds, 1)) * np.arange(1, rounds + 1)}, np.ones(1), np.zeros(1))


def test_rliable(tmp_path):
    """Oracle: by hand.

    PG starts at 1 and ends at 3.5 on average: seeds end at (3 − 1)/2.5 = 0.8 and (4 − 1)/2.5 = 1.2. The target is 1 + 0.9 · 2.5 = 3.25: seed 0 misses
    it, seed 1 needs 4 of 5 rounds at 4, in round at + 4. Stretches are of 2 rounds; rows are seeds, columns problems.
    """
    curves = {
        "first": {"pg": rising(20), "new": rising(40)},
        "second": {"pg": rising(30), "new": rising(40), "else": rising(1)},
    }
    comparisons = {name: compare(own, "pg") for name, own in curves.items()}
    export.rliable(tmp_path, comparisons, curves, "pg")
    matrices = {name: dict(np.load(tmp_path / f"{name}.npz")) for name in ("final", "curves", "uploads_to_90")}
    assert {name: list(found) for name, found in matrices.items()} == {name: ["pg", "new"] for name in matrices}
    np.testing.assert_allclose(matrices["final"]["new"], [[0.8, 0.8], [1.2, 1.2]])
    np.testing.assert_array_equal(matrices["uploads_to_90"]["pg"], [[np.inf, np.inf], [24, 34]])
    assert matrices["curves"]["pg"].shape == (2, 2, 50)
    np.testing.assert_allclose(matrices["curves"]["pg"][:, 1, [0, 14, 15]], [[0, 0, 0.8], [0, 0, 1.2]], atol=1e-12)
    assert json.loads((tmp_path / "about.json").read_text())["problems"] == ["first", "second"]


def test_a_cost_that_one_problem_lacks(tmp_path):
    """Oracle: the costs: steps are known of the second problem alone, so that the first has a dash and the matrices are left out."""
    curves = {"first": {"pg": rising(20), "new": rising(40)}, "second": {"pg": rising(30), "new": rising(40)}}
    for one in curves["second"].values():
        one.costs["steps"] = 10 * one.uploads
    comparisons = {name: compare(own, "pg", ["new"]) for name, own in curves.items()}
    text = report.summary(comparisons)
    for title in ("## Saving: steps\n", "## Factor over the best baseline, in parentheses: steps\n"):
        assert "| pg | – | 1" in text.split(title)[1]
    export.rliable(tmp_path, comparisons, curves, "pg")
    assert (tmp_path / "uploads_to_90.npz").is_file()
    assert not (tmp_path / "steps_to_90.npz").exists()


def test_marl_eval(tmp_path):
    """Oracle: the layout that marl-eval's manual asks for: environment, task, algorithm, run, step with its count, absolute metrics; lists throughout."""
    export.marl_eval(tmp_path / "raw.json", {"first": {"pg": rising(20), "new": rising(40)}})
    content = json.loads((tmp_path / "raw.json").read_text())
    run = content["lapg"]["first"]["new"]["seed_1"]
    assert list(run) == [*(f"step_{index}" for index in range(50)), "absolute_metrics"]
    assert run["step_19"] == {"step_count": 40, "return": [1.0], "uploads": [40.0]}
    assert run["step_20"] == {"step_count": 42, "return": [4.0], "uploads": [42.0]}
    assert run["absolute_metrics"] == {"return": [4.0], "uploads": [100.0]}
    assert list(content["lapg"]["first"]) == ["pg", "new"]


def test_short_runs_have_fewer_steps(tmp_path):
    """Oracle: by hand: 7 rounds are 7 stretches."""
    export.marl_eval(tmp_path / "raw.json", {"first": {"pg": rising(2, rounds=7)}})
    run = json.loads((tmp_path / "raw.json").read_text())["lapg"]["first"]["pg"]["seed_0"]
    assert [step["step_count"] for name, step in run.items() if name != "absolute_metrics"] == [1, 2, 3, 4, 5, 6, 7]
