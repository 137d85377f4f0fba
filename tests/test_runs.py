"""Whole runs: what they leave behind, how they are stopped and continued, and where their parts come from."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from lapg import Config, Interrupted, RunError, cli, record
from lapg.comparison import presets
from lapg.experiments.build import build
from lapg.experiments.config import from_dict, read_toml, to_dict
from lapg.experiments.run import Run, load
from lapg.experiments.train import resume, train
from lapg.methods import Part, settings

QUIET = {"show_progress": False, "checkpoint_seconds": 0.0}
LAZY = Config(
    problem=Part("quadratic", num_learners=3, scales=(1.0, 0.5, 0.2), dimension=4),
    estimator=Part("noisy"),
    method="lapg",
    optimiser=Part("sgd", step_size=0.05, momentum=0.5),
    trigger=Part(xi=0.03, noise_weight=0.5),
    downlink=Part("dense"),
    batch_size=3,
    rounds=11,
    seeds=2,
    first_seed=4,
    chunk_rounds=2,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Never interrupted."""
    return train(LAZY, tmp_path_factory.mktemp("runs") / "whole", **QUIET)


def assert_same(run, other):
    """Bitwise, clock apart."""
    clock = "wall_seconds"
    xr.testing.assert_identical(run.record.drop_vars(clock), other.record.drop_vars(clock))


def snapshot(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# ---------------------------------------------------------------- what is left behind


def test_a_finished_run(whole):
    """Oracle: the configuration's own numbers; and whoever uploads has sent."""
    assert sorted(snapshot(whole.path)) == ["config.json", "record.nc", "state-000011.eqx"]
    again = load(whole.path)
    assert again.config == LAZY
    assert again.finished
    assert dict(again.record.sizes) == {"seed": 2, "round": 11, "learner": 3, "parameter": 4}
    np.testing.assert_array_equal(again.record["seed"], [4, 5])
    assert again.record["sent"][:, 0].all()
    assert not again.record["sent"].all()
    np.testing.assert_array_equal(again.record["uplink_bits"], 64 * 4 * again.record["sent"])
    # θ: 4 float64; the lazy trigger's signal: one
    np.testing.assert_array_equal(again.record["downlink_bits"], np.full((2, 11, 3), 64 * (4 + 1)))
    assert again.record["participated"].all()
    assert (np.diff(again.record["wall_seconds"]) >= 0).all()
    assert_same(again, whole)
    np.testing.assert_array_equal(again.params(5), whole.record["params"].values[1])
    np.testing.assert_array_equal(again.params(), again.params(4))
    with pytest.raises(ValueError, match=r"seed must be one of \[4, 5\], got 6"):
        again.params(6)


def test_scores_are_those_of_the_recorded_path(whole):
    """Oracle: −½ c_m (θ − b_m)ᵀ A_m (θ − b_m) at the initial θ, by NumPy; and at the end θ is better."""
    problem = build(LAZY).problem
    tasks = jax.tree.map(np.asarray, problem.tasks)
    first = whole.record["score_raw"].sel(seed=4, round=0).values
    theta = np.asarray(_start(4))
    losses = 0.5 * (tasks.extra["curvature"] * (theta - tasks.extra["centre"]) ** 2).sum(-1)
    np.testing.assert_allclose(first, -losses, 1e-12)
    np.testing.assert_allclose(whole.record["score_scaled"].sel(seed=4, round=0), -tasks.scale * losses, 1e-12)
    assert whole.record["score_scaled"][:, -1].mean() > whole.record["score_scaled"][:, 0].mean()


def _start(seed):
    from lapg.types import INIT, NOBODY, address

    return build(LAZY).problem.init(address(jax.random.key(seed), INIT, NOBODY, 0))


def test_policy_greedy_and_stochastic():
    """Oracle: the most probable entry of the softmax table, by NumPy; frequencies of 2,000 samples within 5 standard errors."""
    tables = np.random.default_rng(0).normal(size=(2, 4 * 3))
    params = xr.Dataset({"params": (("seed", "parameter"), tables)}, {"seed": [0, 1]})
    run = Run(Path("nowhere"), Config(problem=Part("garnet", num_states=4)), params)
    table = run.params(1).reshape(4, 3)
    for state in range(4):
        assert run.policy(jnp.int32(state), seed=1) == table[state].argmax()
    keys = jax.random.split(jax.random.key(0), 2000)
    actions = np.array([run.policy(jnp.int32(2), key=key, seed=1) for key in keys[:20]])
    again = np.array([run.policy(jnp.int32(2), key=key, seed=1) for key in keys[:20]])
    np.testing.assert_array_equal(actions, again)
    drawn = np.asarray(jax.vmap(lambda key: run._act(jnp.asarray(run.params(1)), jnp.int32(2), key))(keys))
    np.testing.assert_array_equal(drawn[:20], actions)
    probs = np.exp(table[2]) / np.exp(table[2]).sum()
    frequencies = np.bincount(drawn, minlength=3) / 2000
    assert (abs(frequencies - probs) < 5 * np.sqrt(probs * (1 - probs) / 2000)).all()


def test_problems_without_policy(whole):
    """Oracle: a quadratic has none; the error says so."""
    with pytest.raises(ValueError, match="'quadratic' has no policy"):
        whole.policy(jnp.int32(0))


def test_existing_places_are_never_touched(whole):
    """Oracle: every byte before and after."""
    before = snapshot(whole.path)
    with pytest.raises(RunError, match="must be a new or empty directory"):
        train(LAZY, whole.path, **QUIET)
    assert snapshot(whole.path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 3}, r"run=.*whole cannot be used: config\.speed is not a setting.*another version of lapg"),
        (
            {"trigger": {"name": "lazy", "wobble": 1}},
            r"trigger\.wobble is not an option of trigger",
        ),
        ({"rounds": "many"}, r"rounds must be a whole number, got 'many'"),
        ({"rounds": 0}, r"rounds must be >= 1"),
    ],
)
def test_configurations_of_another_version(tmp_path, whole, changes, message):
    """Oracle: a setting that this version does not know, or of another type, is an error, not ignored; nothing changes."""
    path = tmp_path / "whole"
    shutil.copytree(whole.path, path)
    content = json.loads((path / "config.json").read_text())
    content["config"] |= changes
    del content["checksum"], content["initial"]  # of this version
    (path / "config.json").write_text(json.dumps(content))
    before = snapshot(path)
    for use in (load, resume):
        with pytest.raises(RunError, match=message):
            use(path)
    assert snapshot(path) == before


# ---------------------------------------------------------------- stopped and continued


def test_sigterm_and_resume(tmp_path, whole):
    """Oracle: the uninterrupted run, bit for bit; the old signal handler is back."""
    handler = signal.getsignal(signal.SIGTERM)

    def stop(segment, until):
        if until == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"interrupted after 6 rounds, all saved in") as caught:
        train(LAZY, tmp_path / "run", callbacks=(stop,), **QUIET)
    assert (caught.value.path, caught.value.round) == (tmp_path / "run", 6)
    assert signal.getsignal(signal.SIGTERM) is handler
    part = load(tmp_path / "run")
    assert not part.finished
    assert part.record.sizes["round"] == 6
    (last,) = (tmp_path / "run").glob("rounds-000004-*.nc")
    stretch = record.read_dataset(last)
    record.write_dataset(last, stretch.assign(wall_seconds=stretch["wall_seconds"] + 1000))  # as if it had taken long
    seen = []
    done = resume(tmp_path / "run", callbacks=(lambda segment, until: seen.append(until),), **QUIET)
    assert seen == [8, 10, 11]
    assert_same(done, whole)
    assert_same(load(tmp_path / "run"), whole)
    clock = done.record["wall_seconds"].values
    assert clock[3] < 1000 < clock[5] < clock[6] <= clock[10]
    before = snapshot(tmp_path / "run")
    assert_same(resume(tmp_path / "run", **QUIET), whole)
    assert snapshot(tmp_path / "run") == before


VICTIM = """
import sys, time, jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 2)
jax.devices()
from lapg import cli
import lapg.cli.train
from lapg.experiments.train import train
def slowly(*arguments, **options):
    wait = lambda segment, until: time.sleep(0.3)
    return train(*arguments, **options | {"checkpoint_seconds": 0.0, "callbacks": (wait,)})
lapg.cli.train.train_run = slowly
cli.main(sys.argv[1:])
"""
FLAGS = [
    "train",
    "--problem.name",
    "quadratic",
    "--problem.num-learners",
    "3",
    "--problem.scales",
    "1",
    "0.5",
    "0.2",
    "--estimator.name",
    "noisy",
    "--batch-size",
    "3",
    "--rounds",
    "11",
    "--method",
    "lapg",
    "--optimiser.step-size",
    "0.05",
    "--optimiser.momentum",
    "0.5",
    "--trigger.xi",
    "0.03",
    "--trigger.noise-weight",
    "0.5",
    "--seeds",
    "2",
    "--first-seed",
    "4",
    "--downlink.name",
    "dense",
    "--chunk-rounds",
    "2",
]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_killed_processes(tmp_path, whole, capsys, number, status):
    """Oracle: the uninterrupted run, bit for bit, after `kill -9` and after Ctrl-C at the first checkpoint, and `lapg train --resume`."""
    (tmp_path / "options.toml").write_text('[problem]\nname = "quadratic"\ndimension = 4\n')
    command = [sys.executable, "-c", VICTIM, *FLAGS, "--config", tmp_path / "options.toml", "--out", tmp_path / "run"]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("run/state-*.eqx")):
            assert victim.poll() is None, victim.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        victim.send_signal(number)
        _, errors = victim.communicate(timeout=60)
    finally:
        victim.kill()
        victim.wait()
    assert victim.returncode == status
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert len(errors.splitlines()) == 1
        assert f"continue with lapg train --resume {tmp_path / 'run'}" in errors
    part = load(tmp_path / "run")
    assert 2 <= part.record.sizes["round"] < 11
    for kind, own in part.config.parts.items():  # options at their defaults may be left out
        assert own.name == LAZY.parts[kind].name
        if own.name is not None:  # a policy of the problem's own
            assert settings(kind, own) == settings(kind, LAZY.parts[kind])
    assert part.config.but(**{kind: getattr(LAZY, kind) for kind in LAZY.parts}) == LAZY
    capsys.readouterr()
    cli.main(["train", "--resume", str(tmp_path / "run")])
    assert "uploads" in capsys.readouterr().out
    assert_same(load(tmp_path / "run"), whole)


# ---------------------------------------------------------------- starting from another run


def test_init_from(tmp_path, whole):
    """Oracle: the value of the quadratic at the other run's θ, by NumPy; three seeds take the other's two in turn.

    A process killed before its first checkpoint has left only the first two files; going on from them is the same run.
    """
    config = dataclasses.replace(LAZY, seeds=3, rounds=2)
    run = train(config, tmp_path / "next", init_from=load(whole.path), **QUIET)
    tasks = jax.tree.map(np.asarray, build(config).problem.tasks)
    theta = whole.record["params"].values[[0, 1, 0]][:, None]
    losses = 0.5 * tasks.scale * (tasks.extra["curvature"] * (theta - tasks.extra["centre"]) ** 2).sum(-1)
    np.testing.assert_allclose(run.record["score_scaled"].isel(round=0), -losses, 1e-12)
    (tmp_path / "killed").mkdir()
    for name in ("initial.npy", "config.json"):
        shutil.copy(tmp_path / "next" / name, tmp_path / "killed")
    assert_same(resume(tmp_path / "killed", **QUIET), run)


def test_init_from_must_fit(tmp_path, whole):
    """Oracle: 5 parameters are not 4; nothing is created."""
    other = dataclasses.replace(LAZY, problem=Part("quadratic", num_learners=3, scales=(1.0, 0.5, 0.2), dimension=5))
    with pytest.raises(ValueError, match=r"init_from=.* has 4 parameters, this problem needs 5; use the same problem"):
        train(other, tmp_path / "next", init_from=whole, **QUIET)
    assert not (tmp_path / "next").exists()


# ---------------------------------------------------------------- parts of one's own

OWN = '''
"""A user's module."""
import optax
from lapg import Part, Preset, estimators, problems
from lapg.types import Scalar
from lapg.uplink import compressors, memories, triggers

USED = []

def problem(*, num_learners, scales, dimension):
    USED.append("problem")
    return problems.quadratic(num_learners=num_learners, scales=scales, dimension=dimension)

def estimator(gradient):
    USED.append("estimator")
    return estimators.noisy(gradient)

def trigger(*, c: Scalar, xi: Scalar = 0.1, step_size, num_learners):
    USED.append("trigger")
    return triggers.lazy(xi, noise_weight=c, step_size=step_size, num_learners=num_learners)

def memory():
    USED.append("memory")
    return memories.lagged()

def compressor():
    USED.append("compressor")
    return compressors.identity()

def optimiser(step_size):
    USED.append("optimiser")
    return optax.sgd(step_size, 0.5)

method = Preset("LAPG of parts of one's own.", memory=Part(memory), trigger=Part(trigger, c=6.0), compressor=Part(compressor))

class Thing:
    pass
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: sys.modules["own_parts"].USED
    sys.modules.pop("own_parts", None)


def test_own_parts(tmp_path, whole, own):
    """Oracle: the built-in parts that the module wraps: the same run, bit for bit; a fresh process finds them by the saved names."""
    config = dataclasses.replace(
        LAZY,
        problem=Part("own_parts:problem", **LAZY.problem.options),
        estimator=Part("own_parts:estimator"),
        method="own_parts:method",
        trigger=Part(c=0.5, xi=0.03),
        optimiser=Part("own_parts:optimiser", step_size=0.05),
    )
    run = train(config, tmp_path / "run", **QUIET)
    assert {"problem", "estimator", "memory", "trigger", "compressor", "optimiser"} == set(own())
    assert_same(run, whole)
    again = load(tmp_path / "run", trust=True)
    assert again.config == config
    assert again.built.problem.num_learners == 3


@pytest.mark.parametrize(
    "kind", ["problem", "estimator", "method", "memory", "trigger", "compressor", "local", "downlink"]
)
@pytest.mark.parametrize("name", ["own_parts:nothing", "no_such_module:thing"])
def test_own_parts_that_are_not_there(own, kind, name):
    """Oracle: the import fails; the error names the part and where it is looked for."""
    config = dataclasses.replace(LAZY, **{kind: name if kind == "method" else Part(name)})
    with pytest.raises(
        ValueError, match=rf"{kind}={name} cannot be imported: .*(on PYTHONPATH\?|has no attribute 'nothing')"
    ):
        build(config)


def test_own_optimisers_take_their_own_options(own):
    """Oracle: the signatures: momentum is sgd's; and optax's own names work."""
    for optimiser in ("own_parts:optimiser", "adam"):
        with pytest.raises(ValueError, match=r"optimiser\.momentum is not an option of optimiser"):
            build(dataclasses.replace(LAZY, optimiser=Part(optimiser, momentum=0.5)))
        build(dataclasses.replace(LAZY, optimiser=Part(optimiser)))
    with pytest.raises(ValueError, match=r"optimiser must be one of adabelief, .*'wobble'"):
        dataclasses.replace(LAZY, optimiser=Part("wobble"))


def test_parts_that_need_more():
    """Oracle: `tabular` has no defaults for its arrays; the error names the first, whatever type it has."""
    with pytest.raises(ValueError, match=r"problem 'tabular' needs transitions; give problem\.transitions"):
        build(Config(problem=Part("tabular")))


def test_estimators_need_what_they_need():
    """Oracle: a quadratic has no policy, cooperative navigation no gradient."""
    with pytest.raises(ValueError, match="'gpomdp' needs a problem with a policy"):
        build(dataclasses.replace(LAZY, estimator=Part("gpomdp")))
    with pytest.raises(ValueError, match="'exact' needs a problem with a known gradient"):
        build(Config(estimator=Part("exact")))


# ---------------------------------------------------------------- settings as data

TOML = """
rounds = 12
seeds = 3
method = "lapg"

[problem]
name = "quadratic"
scales = [1, 0.5]
num_learners = 2
dimension = 6
noise = 0.25

[estimator]
name = "noisy"

[optimiser]
step_size = 1

[trigger]
xi = 0.04
noise_bound = "printed"
strict = false
displacement_scale = 0.5
"""
FROM_TOML = Config(
    problem=Part("quadratic", num_learners=2, scales=(1.0, 0.5), dimension=6, noise=0.25),
    estimator=Part("noisy"),
    method="lapg",
    optimiser=Part(step_size=1.0),
    trigger=Part(xi=0.04, noise_bound="printed", strict=False, displacement_scale=0.5),
    rounds=12,
    seeds=3,
)


@pytest.fixture
def settings_of(monkeypatch):
    """What `lapg train` would run, without running it."""

    class Stop(Exception):  # noqa: N818
        pass

    def stop(settings, *arguments, **options):
        raise Stop(settings)

    monkeypatch.setattr("lapg.cli.train.train_run", stop)

    def settings(*arguments):
        with pytest.raises(Stop) as caught:
            cli.main(["train", *map(str, arguments)])
        return caught.value.args[0]

    return settings


def test_flags_override_the_file(tmp_path, settings_of):
    """Oracle: the same dataclass by hand; a flag changes its own setting and nothing else, wherever --config stands."""
    file = tmp_path / "experiment.toml"
    file.write_text(TOML)
    assert settings_of("--config", file) == FROM_TOML
    assert settings_of(f"--config={file}") == FROM_TOML
    changed = FROM_TOML.but(
        seeds=5,
        optimiser=Part(step_size=0.25),
        trigger=Part(xi=(0.01, 0.02), noise_bound=(2.0, 3.0)),
        problem=Part(scales=None),
    )
    flags = [
        "--seeds",
        "5",
        "--optimiser.step-size",
        "0.25",
        "--trigger.xi",
        "0.01",
        "0.02",
        "--trigger.noise-bound",
        "2",
        "3",
        "--problem.scales",
        "None",
    ]
    assert settings_of("--config", file, *flags) == changed
    assert settings_of(*flags, "--config", file) == changed
    assert settings_of(*flags[:2]) == Config(seeds=5)


def test_options_reach_their_parts(unchecked):
    """Oracle: the sizes in the tables, and the recipe's own arguments; numbers may vary between lanes, the rest is fixed."""
    config = FROM_TOML.but(trigger=Part(noise_bound=(2.0, 3.0)))
    built = build(config)
    assert built.problem.init(jax.random.key(0)).shape == (6,)
    np.testing.assert_array_equal(built.problem.tasks.scale, [1.0, 0.5])
    assert {name: float(value) for name, value in built.hyper.items()} == {
        "optimiser.step_size": 1.0,
        "trigger.xi": 0.04,
        "trigger.displacement_scale": 0.5,
    }
    with pytest.raises(
        ValueError, match=r"problem\.num_agents is not an option of problem 'quadratic', which takes num_learners"
    ):
        dataclasses.replace(config, problem=Part("quadratic", num_agents=3))


def test_round_trip():
    """Oracle: the configurations themselves, through JSON: every line-up of every figure and one of everything else."""
    lineups = [
        presets.lineup(figure, preset) for figure in presets.reproducible().values() for preset in figure.presets
    ]
    for config in (Config(), LAZY, FROM_TOML, *(entry.config for entries in lineups for entry in entries)):
        assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rounds = "ten"', r"rounds must be a whole number, got 'ten'"),
        ("rounds = 2.5", r"rounds must be a whole number, got 2\.5"),
        ("rounds = true", r"rounds must be a whole number, got True"),
        ("rounds = 0", r"rounds must be >= 1, got 0"),
        ("first_seed = -1", r"first_seed must be >= 0"),
        ("problem = 3", r"problem must be a name, a factory or a table of settings, got 3"),
        ("optimiser.step_size = true", r"optimiser\.step_size must be a number, got True"),
        ('method = "lapg"\ntrigger.xi = "0.1"', r"trigger\.xi must be .*got '0\.1'"),
        ('method = "lapg"\ntrigger.xi = [0.1, "a"]', r"trigger\.xi must be a number, got 'a'"),
        ('method = "lapg"\ntrigger.noise_bound = "guess"', r"trigger\.noise_bound must be .*printed.*got 'guess'"),
        ("policy.hidden = [4.5]", r"policy\.hidden must be a whole number, got 4\.5"),
        ('policy.activation = "sigmoid"', r"policy\.activation must be .*relu.*got 'sigmoid'"),
        ("problem.wobble = [1]", r"problem\.wobble is not an option of problem"),
        ("[methods]\nname = 'pg'", r"config\.methods is not a setting; known are method, optimiser, .*another version"),
        ("rounds = ", r"config=.*bad\.toml must be a TOML file"),
        ("rounds = '\xff'".encode("latin-1"), r"config=.*bad\.toml must be a TOML file"),
    ],
)  # fmt: skip
def test_wrong_settings(tmp_path, text, message):
    """Oracle: the types in the dataclasses; the error names setting, rule and value."""
    file = tmp_path / "bad.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=message):
        read_toml(file)


def test_missing_file(tmp_path):
    """Oracle: there is none."""
    with pytest.raises(ValueError, match=r"config=.*none\.toml cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")
