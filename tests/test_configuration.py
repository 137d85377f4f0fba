"""Configurations: optimisers by name, whose code a run's files may name, and what values fit."""

import json
import pickle
import sys
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lapg import RunError, cli, evaluate, load, policies, problems, record, render, resume, train
from lapg.comparison.reproduce import read_contents
from lapg.comparison.study import read_cases
from lapg.controller import inverse_time
from lapg.experiments.build import build
from lapg.experiments.config import ClusterConfig, Config, from_dict, to_dict
from lapg.experiments.predict import predict
from lapg.methods import REGISTRY, Part, make
from lapg.record import about
from lapg.record.files import sealed, unsealed
from lapg.uplink import triggers

QUADRATIC = Config(
    problem=Part("quadratic"), estimator=Part("noisy"), method="pg", optimiser=Part("sgd", step_size=0.05)
)


# ---------------------------------------------------------------- optimisers


@pytest.mark.parametrize("name", REGISTRY["optimiser"])
def test_every_optimiser_descends(name):
    """Oracle: a quadratic: exact gradients lower it, under a decaying schedule with a traced step size, as in a run."""
    target = jnp.array([1.0, -2.0, 3.0, 0.5])

    def losses(step_size):
        decay = {} if name == "rmsprop" else {"decay": 0.01}  # which has a decay of its own
        decay = {"num_learners": 2} if name == "mean" else decay
        decay = {"policy": policies.softmax_table(2, 2)} if name == "muon" else decay
        optimiser = REGISTRY["optimiser"][name](step_size=step_size, **decay)

        def step(carry, _):
            theta, state = carry
            updates, state = optimiser.update(theta - target, state, theta)
            return (optax.apply_updates(theta, updates), state), 0.5 * jnp.sum((theta - target) ** 2)

        return jax.lax.scan(step, (jnp.zeros(4), optimiser.init(jnp.zeros(4))), length=30)[1]

    found = np.asarray(jax.jit(losses)(0.05))
    assert found[-1] < 0.999 * found[0]
    if name == "sgd":
        factors = 1 - 0.05 / (1 + 0.01 * np.arange(29))
        assert found[-1] == pytest.approx(found[0] * np.prod(factors) ** 2)


@pytest.mark.parametrize("name", ["clip", "scale", "global_norm", "set_to_zero", "lbfgs", "lino"])
def test_other_names_of_optax_are_no_optimisers(name):
    """Oracle: the message; a name that is nearly right is put right."""
    with pytest.raises(ValueError, match="optimiser must be one of adabelief, adadelta, ") as error:
        with_optimiser(name)
    assert ("did you mean 'lion'" in str(error.value)) == (name == "lino")


def with_optimiser(name):
    return replace(QUADRATIC, optimiser=Part(name, step_size=0.05))


def test_own_optimisers_must_descend():
    """Oracle: the sign: optax's scale and clip make steps of +0.05 along ±1; one whose schedule begins at 0 is taken; what is no optimiser is named."""
    size = build(QUADRATIC).problem.init(jax.random.key(0)).size
    rise = rf"\+{10 * 0.05 * size:.3g}; end its chain"
    for name in ("scale", "clip"):  # 0.05 in every direction, ten times
        with pytest.raises(ValueError, match=f"optimiser 'optax:{name}' must step against the gradient, .* {rise}"):
            build(with_optimiser(f"optax:{name}"))
    with pytest.raises(ValueError, match="must return an optax optimiser, got float"):
        build(with_optimiser(f"{__name__}:no_optimiser"))
    for name in ("optax:sgd", "optax:sm3", f"{__name__}:warming"):
        build(with_optimiser(name))


def test_options_of_an_optimiser_are_its_own(unchecked):
    """Oracle: optax.adam with the same numbers, by the schedule α/(1 + decay · k), which may all be traced; a wrong one is refused with the nearest."""
    config = replace(QUADRATIC, optimiser=Part("adam", step_size=0.1, decay=0.5, b1=0.5), rounds=3, seeds=1)
    built = build(config)
    assert set(built.hyper) == {"optimiser.step_size", "optimiser.decay", "optimiser.b1"}
    ours = make("optimiser", config.optimiser, {}, {name: jnp.asarray(value) for name, value in built.hyper.items()})
    theirs, theta = optax.adam(inverse_time(0.1, 0.5), b1=0.5), jnp.ones(2)
    one, other = ours.init(theta), theirs.init(theta)
    for slope in (1.0, -2.0, 0.5):
        (step, one), (expected, other) = ours.update(slope * theta, one), theirs.update(slope * theta, other)
        np.testing.assert_array_equal(step, expected)
    with pytest.raises(ValueError, match=r"optimiser.epps is not an option of optimiser 'adam'.*did you mean 'eps'"):
        replace(QUADRATIC, optimiser=Part("adam", epps=0.5))


def warming(step_size):
    return optax.sgd(optax.linear_schedule(0.0, step_size, 100))


def no_optimiser(step_size):
    return step_size


# ---------------------------------------------------------------- a run that somebody else made

MARKER = """
import pathlib
pathlib.Path({marker!r}).touch()
from lapg import estimators, methods, problems
from lapg.uplink import triggers
quadratic, noisy, pg, always = problems.quadratic, estimators.noisy, methods.PRESETS["pg"], triggers.always
environment = None
"""
FOREIGN = {
    "problem.name": {"problem": {"name": "foreign:quadratic"}},
    "estimator.name": {"estimator": {"name": "foreign:noisy"}},
    "policy.name": {"policy": {"name": "foreign:net"}},
    "method": {"method": "foreign:pg"},
    "trigger.name": {"trigger": {"name": "foreign:always"}},
    "optimiser.name": {"optimiser": {"name": "foreign:pg"}},
    "downlink.compressor.name": {"downlink": {"name": "replicated", "compressor": {"name": "foreign:pg"}}},
    "problem.env": {"problem": {"name": "gymnasium", "env": "foreign:Env-v0"}},
    "problem.env_options.inner": {
        "problem": {"name": "gymnasium", "env": "CartPole-v1", "env_options": {"inner": ["foreign:Env-v0"]}}
    },
    "problem.env, a module": {"problem": {"name": "pettingzoo", "env": "foreign"}},
    "the shell": {"problem": {"name": "os:system", "command": "touch {marker}"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of built-in parts, and the same unfinished."""
    place = tmp_path_factory.mktemp("trust")
    train(replace(QUADRATIC, rounds=2, seeds=1), place / "run", show_progress=False)
    return place / "run"


@pytest.fixture
def theirs(finished, tmp_path, monkeypatch):
    """Somebody's run with other words in its config.json; importing the module foreign leaves a mark, and so does what it does with a shell."""
    marker = tmp_path / "marker"
    (tmp_path / "foreign.py").write_text(MARKER.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)

    def make(change, done=True):
        path = tmp_path / "theirs"
        whole = about.read_about(finished)
        config = whole["config"]
        for name, value in json.loads(json.dumps(change).replace("{marker}", str(marker))).items():
            config[name] = config.get(name, {}) | value if isinstance(value, dict) else value
        about.create(path, config)
        if done:  # a seal says that nothing broke, not who wrote it
            plain = unsealed((finished / "record.nc").read_bytes(), "record.nc", whole["checksum"])
            owner = about.read_about(path)["checksum"]
            (path / "record.nc").write_bytes(sealed(plain, "record.nc", owner))
        return path

    yield make, marker
    sys.modules.pop("foreign", None)


@pytest.mark.parametrize("where", FOREIGN)
def test_a_run_of_others_runs_no_code(theirs, where, capsys):
    """Oracle: importing leaves a mark; none is there after every way to use a run, each of which is refused by a line that names the setting."""
    make, marker = theirs
    path = make(FOREIGN[where])
    run = load(path)
    uses = {
        "evaluate": lambda: evaluate(run, 1),
        "render": lambda: render(run, path / "episode.gif"),
        "predict": lambda: predict(run.config, run),
        "policy": lambda: run.policy(0.0),
    }
    word = where.split(",")[0].replace("the shell", "problem.name")
    for use in uses.values():
        with pytest.raises(
            RunError, match=f"names code that is not lapg's.*{word} = .*repeat the command with --trust"
        ):
            use()
    (path / "record.nc").unlink()
    with pytest.raises(RunError, match=r"repeat the command with --trust \(in Python trust=True\)"):
        resume(path, show_progress=False)
    assert not marker.exists()
    assert capsys.readouterr().out == ""


def test_reading_and_reporting_runs_no_code(theirs, finished, tmp_path):
    """Oracle: the mark; records of foreign parts are compared and drawn, and their θ starts another run."""
    make, marker = theirs
    path = make(FOREIGN["trigger.name"])
    cli.main(["report", str(finished), str(path), "--out", str(tmp_path / "report")])
    assert (tmp_path / "report" / "figure.png").is_file()
    begun = train(replace(QUADRATIC, rounds=1, seeds=1), tmp_path / "next", init_from=load(path), show_progress=False)
    assert begun.finished
    assert not marker.exists()


def test_one_s_own_run_needs_a_word(theirs, capsys):
    """Oracle: the mark is there once it is trusted, by flag, by True, by name; a name that is not among those trusted is refused."""
    make, marker = theirs
    path = make(FOREIGN["problem.name"])
    assert load(path, trust=["foreign:quadratic"]).built.problem.num_learners == 4
    assert marker.exists()
    with pytest.raises(SystemExit):
        cli.main(["predict", str(path)])
    assert "repeat the command with --trust" in capsys.readouterr().err
    cli.main(["predict", str(path), "--trust"])
    assert "noise" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"problem\.name = foreign:quadratic"):
        _ = load(path, trust=problems.quadratic).built
    (path / "record.nc").unlink()
    assert resume(path, trust=True, show_progress=False).built.problem.num_learners == 4


def test_a_cluster_of_others_is_not_joined(theirs):
    """Oracle: the message: whoever resumes would connect to an address that the run names."""
    make, _ = theirs
    path = make({"cluster": {"address": "203.0.113.1:6379"}, "runtime": "ray"}, done=False)
    with pytest.raises(RunError, match=r"cluster.address = 203.0.113.1:6379"):
        resume(path, show_progress=False)


class Payload:
    def __reduce__(self):
        return (open, ("/nonexistent/unpickled", "w"))


def test_pickles_are_refused(finished, tmp_path, unchecked):
    """Oracle: NumPy's own refusal, as the error of a damaged file, where unpickling would be the system's error for a missing folder."""
    path = tmp_path / "pickled"
    path.mkdir()
    content = {name: value for name, value in about.read_about(finished).items() if name not in ("checksum", "initial")}
    (path / "config.json").write_text(json.dumps(content))  # as older versions left it, when nothing had a seal
    np.save(path / "initial.npy", np.array([Payload()], object), allow_pickle=True)
    with pytest.raises(RunError, match=r"initial.npy must hold the parameters .*allow_pickle"):
        resume(path, show_progress=False)
    (path / "initial.npy").unlink()
    with (path / "state-000001.eqx").open("wb") as stream:
        np.save(stream, np.array([Payload()], object), allow_pickle=True)
    with pytest.raises(RunError, match=r"state-000001.eqx must be the state of this run"):
        record.read_state(path, jnp.zeros(1))
    (path / "state-000001.eqx").unlink()
    (path / "record.nc").write_bytes(pickle.dumps([1]))
    with pytest.raises(RunError, match=r"record.nc must be a record"):
        load(path)


@pytest.mark.parametrize("name", ["../run", "/etc", "..", "", 3])
def test_contents_stay_in_their_directory(tmp_path, name):
    """Oracle: the message; a study's and a comparison's files name only what is in their own directory."""
    (tmp_path / "study.json").write_text(json.dumps({"cases": [name]}))
    with pytest.raises(RunError, match="is not the name of a directory in it"):
        read_cases(tmp_path)
    (tmp_path / "comparison.json").write_text(json.dumps({"runs": {"PG": name}}))
    with pytest.raises(RunError, match="is not the name of a directory in it"):
        read_contents(tmp_path)


# ---------------------------------------------------------------- values


def test_values_from_python(unchecked):
    """Oracle: the same configuration in plain numbers; every one of them goes through JSON and comes back equal."""
    plain = Config(
        problem=Part(f"{__name__}:own_problem", a=[1.0, 2.0], b={"c": 3}),
        policy=Part("mlp", hidden=(64,)),
        estimator=Part("noisy"),
        method="lapg",
        optimiser=Part("adam", step_size=0.5),
        trigger=Part(xi=0.25, strict=True, measure=Part("staleness", smoothness=(1.0, 0.5))),
        rounds=7,
    )
    given = Config(
        problem=Part(own_problem, a=np.array([1.0, 2.0]), b={"c": np.int64(3)}),
        policy=Part(policies.mlp, hidden=64),
        estimator="noisy",
        method="lapg",
        optimiser=Part(optax.adam, step_size=np.float32(0.5)),
        trigger={"xi": 0.25, "strict": np.True_, "measure": {"name": "staleness", "smoothness": jnp.array([1.0, 0.5])}},
        rounds=np.int32(7),
    )
    assert given == plain
    assert from_dict(json.loads(json.dumps(to_dict(given)))) == plain
    assert Config(trigger="periodic").trigger == Config(trigger={"name": "periodic"}).trigger == Part("periodic")
    assert Config(optimiser=Part(step_size=1)).optimiser == Part(step_size=1.0)
    assert type(given.rounds) is int
    assert type(given.optimiser.options["step_size"]) is float


def own_problem(*, a, b):
    return problems.quadratic(num_learners=len(a), noise=float(b["c"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(rounds=10.5), "rounds must be a whole number, got 10.5"),
        (lambda: Config(rounds=10 ** 12), "rounds must fit into 32 bits, got 1000000000000"),
        (lambda: Config(rounds=2 ** 31), r"rounds must be below 2\^31"),
        (lambda: Config(seeds=10 ** 9), "seeds must be <= 1,048,576 in one run, got 1000000000"),
        (lambda: Config(seeds=True), "seeds must be a whole number, got True"),
        (lambda: Config(optimiser=Part(step_size="0.1")), "optimiser.step_size must be a number, got '0.1'"),
        (lambda: Config(optimiser=Part(step_size=10 ** 400)), "optimiser.step_size must fit into 32 bits"),
        (lambda: Config(optimiser=Part(step_size=float("inf"))), "optimiser.step_size must be finite, got inf"),
        (lambda: Config(optimiser=optax.adam(0.1)), "optimiser must be a name, a factory or a table of settings, got"),
        (lambda: Config(problem=problems.quadratic()), "problem must be a name, a factory or a table of settings, got something of type Problem"),
        (lambda: Config(problem=lambda: 3), "problem must be a name, or a function at the top of a module"),
        (lambda: Config(problem=Part(own_problem, a=[object()])), "problem.a must be plain data"),
        (lambda: Config(policy=Part(hidden="wide")), "policy.hidden must be a list of whole numbers, got 'wide'"),
        (lambda: Config(problem=Part(hidden=3)), r"problem.hidden is not an option .*it is the policy's: policy.hidden"),
        (lambda: ClusterConfig(timeout="soon"), "cluster.timeout must be a number, got 'soon'"),
        (lambda: Config(runtime="vectorized"), "did you mean 'vectorised'"),
        (lambda: train("pg"), "config must be a Config or a table of its settings, got 'pg'"),
        (lambda: train(QUADRATIC, init_from="runs/pg"), "init_from must be a Run, .* got 'runs/pg'"),
        (lambda: evaluate("runs/pg"), "run must be a Run, as train and load return it, got 'runs/pg'"),
        (lambda: render("runs/pg", "episode.gif"), "run must be a Run, as train and load return it"),
        (lambda: evaluate(None, 2.5), "episodes must be a whole number >= 1, got 2.5"),
        (lambda: Config(memory="fersh"), "memory must be one of accumulator, .* got 'fersh' .did you mean 'fresh'"),
        (lambda: Config(method="pg", trigger=Part(period=3)), "trigger.period is not an option of trigger 'always', which takes nothing"),
        (lambda: Config(downlink=Part("replicated", compressor=Part("top_k", bit=3))), "downlink.compressor.bit is not .*did you mean 'bits'"),
        (lambda: from_dict({"optimiser": {"step_sise": 1}}), "did you mean 'step_size'"),
        (lambda: Config(method="sct"), "did you mean 'scout'"),
        (lambda: from_dict({"optimizer": {}}), "did you mean 'optimiser'"),
        (lambda: build(replace(QUADRATIC, problem=Part(own_problem, a=[1.0]))), "problem .* needs b; give problem.b"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(make, message, unchecked):
    """Oracle: the type hints, the same for Python, flags and files; one line that names the setting."""
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(triger="periodic"), r"Config\(triger=...\) is not a setting \(did you mean 'trigger'\?\); known are"),
        (lambda: Config().but(triger=Part()), r"but\(triger=...\) is not a setting \(did you mean 'trigger'\?\)"),
        (lambda: Config(trigger=triggers.periodic(3.0)), r"trigger must be .*got something of type Trigger; that part is made already: give its factory"),
        (lambda: Config(trigger=Part(triggers.periodic(3.0))), r"got something of type Trigger; that part is made already"),
        (lambda: Config(policy=eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0))), r"policy must be a factory, .* got a network, MLP; put net ="),
        (lambda: load(None), r"a directory must be given as a path, got None"),
    ],
)  # fmt: skip
def test_slips_in_python_are_named(make, message, unchecked):
    """Oracle: one line with the name that was meant, or with what to give instead, and a ValueError like all others."""
    with pytest.raises(ValueError, match=message):
        make()
