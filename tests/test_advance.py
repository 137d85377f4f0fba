"""How a run advances in time: what is saved and when, how it is stopped, what it says, and what it is refused."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from functools import partial

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from lapg import Config, Interrupted, Vectorised, cli, load, record
from lapg.experiments import progress, size
from lapg.experiments.build import build
from lapg.experiments.soundness import mean_score, unsound
from lapg.experiments.train import make_lanes, resume, train
from lapg.methods import Part
from lapg.problems.contract import EnvironmentFailed
from lapg.record import upgrade

QUIET = {"show_progress": False, "checkpoint_seconds": 0.0}
LAZY = Config(
    problem=Part("quadratic", num_learners=2, dimension=4),
    estimator=Part("noisy"),
    method="lapg",
    optimiser=Part("sgd", step_size=0.05, momentum=0.5),
    trigger=Part(xi=0.03, noise_weight=0.5),
    batch_size=3,
    rounds=7,
    seeds=3,
    chunk_rounds=3,
)


def assert_same(one, other):
    """Bitwise, clock apart."""
    xr.testing.assert_identical(one.record.drop_vars("wall_seconds"), other.record.drop_vars("wall_seconds"))


def at_round(number, kill=signal.SIGTERM):
    """A callback that has the process signalled when so many rounds are saved."""
    return lambda segment, until: os.kill(os.getpid(), kill) if until == number else None


# ---------------------------------------------------------------- states do not depend on the machine


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three seeds on two devices, never interrupted."""
    return train(LAZY, tmp_path_factory.mktemp("runs") / "whole", **QUIET)


@pytest.mark.parametrize("began", [1, 2])
def test_another_number_of_devices(tmp_path, monkeypatch, whole, began):
    """Oracle: the run that was never interrupted on two devices, bit for bit; a state has three lanes however they were spread.

    Bit for bit holds without XLA's optimisations, which these tests switch off; with them only up to rounding.
    """
    monkeypatch.setattr(jax, "local_device_count", lambda: began)
    with pytest.raises(Interrupted):
        train(LAZY, tmp_path / "run", callbacks=(at_round(3),), **QUIET)
    built = build(LAZY)
    lanes = make_lanes(LAZY, built)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(lanes.state_shape())} == {3}
    state = record.read_state(tmp_path / "run", lanes.state_shape())
    monkeypatch.setattr(jax, "local_device_count", lambda: 3 - began)
    jax.tree.map(np.testing.assert_array_equal, lanes.export(lanes._pad(state)), state)
    assert_same(resume(tmp_path / "run", **QUIET), whole)


def test_states_of_earlier_versions(tmp_path, whole):
    """Oracle: the uninterrupted run; a state with a fourth lane, as two devices used to leave it, is cut."""
    with pytest.raises(Interrupted):
        train(LAZY, tmp_path / "run", callbacks=(at_round(3),), **QUIET)
    (file,) = (tmp_path / "run").glob("state-*3.eqx")
    state = record.read_state(tmp_path / "run", make_lanes(LAZY, build(LAZY)).state_shape())
    padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[-1:]]), state)
    record.save(tmp_path / "run", record.read(tmp_path / "run"), padded)
    assert file.is_file()
    assert_same(resume(tmp_path / "run", **QUIET), whole)


# ---------------------------------------------------------------- by time


def test_stretches_change_nothing():
    """Oracle: the same rounds at once, bit for bit; compiled once. A stretch ends where the pause says so."""
    built, asked, log = build(LAZY), [], []
    lanes = [make_lanes(dataclasses.replace(LAZY, chunk_rounds=20), built) for _ in range(2)]
    lanes[1]._stretch = 20
    state = lanes[0].start()
    for stretch in (1, 2, 4, 20):
        lanes[0]._stretch = stretch
        state, part = lanes[0].advance(state, sum(map(len, log)), 20, lambda reached: asked.append(reached) or True)
        log.append(part.sent[0])
    assert asked == [1, 3, 7, 20]
    end, whole = lanes[1].advance(lanes[1].start(), 0, 20)
    jax.tree.map(np.testing.assert_array_equal, state, end)
    np.testing.assert_array_equal(np.concatenate(log), whole.sent[0])
    assert [each.num_traces for each in lanes] == [1, 1]


def test_pace():
    """Oracle: the rule: below half a second twice as many, above one and a half half as many, never more than a chunk, never none."""
    lanes = make_lanes(LAZY, build(LAZY))
    assert isinstance(lanes, Vectorised)
    found = []
    for seconds in (0.1, 0.1, 0.1, 1.0, 2.0, 2.0, 2.0):
        lanes._pace(lanes._stretch, seconds)
        found.append(lanes._stretch)
    assert found == [2, 3, 3, 3, 1, 1, 1]


class Slow(gym.Env):
    """Takes a twentieth of a second a step; sends this process the signal in ``KILLS`` after so many episodes; breaks after ``BREAKS`` of them."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(-1, 1, (1,))
    episodes, kills, breaks = 0, None, None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Slow.episodes += 1
        if Slow.kills and Slow.kills[0] == Slow.episodes:
            os.kill(os.getpid(), Slow.kills[1])
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if Slow.breaks == Slow.episodes:
            raise BrokenPipeError(32, "Broken pipe")
        time.sleep(0.05)
        return np.zeros(1, np.float32), 1.0, False, False, {}


SLOW = Config(
    problem=Part("gymnasium", env="test_advance:Slow", num_learners=1, num_steps=2),
    policy=Part(hidden=2),
    method="pg",
    optimiser=Part("sgd", step_size=0.02),
    batch_size=2,
    rounds=6,
    seeds=1,
)


@pytest.fixture
def slow():
    Slow.episodes, Slow.kills, Slow.breaks = 0, None, None
    return Slow


def test_checkpoints_by_time(tmp_path, slow):
    """Oracle: rounds of at least 0.2 s and checkpoints every 0.25 s: at least one for every two rounds, though a chunk has 25."""
    seen = []
    watch = lambda segment, until: seen.append((until, segment.sizes["round"]))  # noqa: E731
    train(SLOW, tmp_path / "run", show_progress=False, checkpoint_seconds=0.25, callbacks=(watch,))
    assert [until for until, _ in seen] == np.cumsum([num for _, num in seen]).tolist()
    assert max(num for _, num in seen) <= 2
    assert seen[-1][0] == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_take_effect_after_the_round(tmp_path, slow, number):
    """Oracle: the signal comes with the third episode, two of which are a round: two rounds are saved, no more."""
    handler = signal.getsignal(number)
    build(SLOW)  # as `train` does, which looks at the environment first
    slow.kills, slow.episodes = (slow.episodes + 3, number), 0
    with pytest.raises(Interrupted, match="after 2 rounds, all saved"):
        train(SLOW, tmp_path / "run", show_progress=False, checkpoint_seconds=100.0)
    assert load(tmp_path / "run").record.sizes["round"] == 2
    assert signal.getsignal(number) is handler


def test_sighup_stays_ignored(tmp_path):
    """Oracle: under nohup, where it is ignored, the run comes to its end."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train(LAZY, tmp_path / "run", callbacks=(at_round(3, signal.SIGHUP),), **QUIET).finished
    finally:
        signal.signal(signal.SIGHUP, old)


def test_plain_lines(tmp_path, monkeypatch, capsys, slow):
    """Oracle: no terminal, and no time between lines: rounds, time left, score 1 and all uploads; the last line is the last round's."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    train(SLOW, tmp_path / "run", checkpoint_seconds=0.3)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pg: ")]
    assert lines[0].startswith("pg: 0 of 6 rounds")
    assert any("about 0:00:0" in line for line in lines[1:])
    assert lines[-1].startswith("pg: 6 of 6 rounds")
    assert lines[-1].endswith("score 1.000  uploads 100.0%")


def test_time_left_does_not_count_compiling(monkeypatch, capsys):
    """Oracle: a clock by hand: 30 s to the first round, then a second each: five rounds are left, and five seconds."""
    clock = [0.0]
    monkeypatch.setattr(progress, "LINE_SECONDS", 1e9)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[-1])
    shown = progress.Display(dataclasses.replace(LAZY, rounds=10), 0, None, plain=True)
    for seconds, round in ((30.0, 1), (34.0, 5)):
        clock.append(seconds)
        shown.reach(round)
        shown.line()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "lapg: 1 of 10 rounds, 0:00:30"
    assert second == "lapg: 5 of 10 rounds, 0:00:34, about 0:00:05 left"


def test_resumed_environments_begin_anew(tmp_path, capsys, slow):
    """Oracle: the line, the attribute with the rounds of both resumptions, and none of it in a run on JAX."""
    play = partial(train, SLOW)
    for stop in (2, 4):
        with pytest.raises(Interrupted):
            play(tmp_path / "run", checkpoint_seconds=0.01, callbacks=(at_round(stop),))
        play = partial(resume, trust=True)
    done = resume(tmp_path / "run", trust=True)
    assert capsys.readouterr().out.count("kept between episodes begins anew") == 2
    assert (
        load(tmp_path / "run").record.attrs["resumed_at"].tolist() == [2, 4] == done.record.attrs["resumed_at"].tolist()
    )


# ---------------------------------------------------------------- Ctrl-C before the first round

IMPORTING = """
import os, signal, sys
import lapg_command

class Stop:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stop())
lapg_command.main()
"""


@pytest.mark.parametrize("module", ["lapg", "optax", "lapg.comparison.study"])
def test_stopped_while_importing(module):
    """Oracle: status 130 and one line that says what is on disk, whatever is being imported."""
    code = [sys.executable, "-c", IMPORTING, module]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        "lapg: stopped while starting; nothing was begun, and what is on disk stays as it is"
    ]


CALLBACK = """
import os, signal, time
import lapg_command
from lapg import cli

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # here it is raised, and lost

def list_parts():
    Dying()
    time.sleep(20)

cli.list_parts = list_parts
lapg_command.main()
"""


def test_stopped_in_a_callback():
    """Oracle: status 130 and one line, where Python alone prints a traceback and goes on."""
    code = [sys.executable, "-c", CALLBACK, "list"]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines() == ["lapg: stopped; what was saved before stays as it is"]


def test_stopped_before_the_first_round(tmp_path, monkeypatch, capsys, whole):
    """Oracle: the message names the command that resumes, which plays the whole run."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lapg.experiments.train.make_lanes", stop)
        with pytest.raises(Interrupted, match="before anything was saved in") as caught:
            train(LAZY, tmp_path / "run", **QUIET)
    assert caught.value.round == 0
    assert_same(resume(tmp_path / "run", **QUIET), whole)
    with monkeypatch.context() as patch:
        patch.setattr(cli, "list_parts", stop)
        with pytest.raises(SystemExit, match="130"):
            cli.main(["list"])
    assert "lapg: stopped; what was saved before stays as it is" in capsys.readouterr().err


# ---------------------------------------------------------------- broken pipes

FLAGS = [
    "--problem.name",
    "gymnasium",
    "--problem.env",
    "test_advance:Slow",
    "--problem.num-learners",
    "1",
    "--problem.num-steps",
    "2",
]


def test_a_broken_pipe_in_a_run(tmp_path, capsys, slow):
    """Oracle: status 1, and the place in the environment."""
    slow.breaks = 3
    with pytest.raises(SystemExit, match="1"):
        cli.main(
            ["train", *FLAGS, "--batch-size", "2", "--rounds", "4", "--seeds", "1", "--out", str(tmp_path / "run")]
        )
    errors = capsys.readouterr().err
    assert "in step 1 of an episode of learner 0" in errors
    assert "BrokenPipeError: [Errno 32] Broken pipe" in errors
    assert "test_advance.py" in errors


def test_rounds_before_a_failure_are_saved(tmp_path, slow):
    """Oracle: episodes counted: two a round, and the sixth breaks, in the third round of a chunk of 25: two rounds are saved, and the run resumes from them."""
    build(SLOW)
    slow.breaks, slow.episodes = slow.episodes + 6, 0
    with pytest.raises(EnvironmentFailed, match="Broken pipe"):
        train(SLOW, tmp_path / "run", show_progress=False, checkpoint_seconds=100.0)
    assert load(tmp_path / "run").record.sizes["round"] == 2
    slow.breaks = None
    assert resume(tmp_path / "run", show_progress=False, trust=True).finished


def test_a_reader_who_has_seen_enough():
    """Oracle: status 0 and nothing said."""
    reader, writer = os.pipe()
    os.close(reader)
    code = [sys.executable, "-m", "lapg_command", "list"]
    done = subprocess.run(code, stdout=writer, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


# ---------------------------------------------------------------- what is not finite

OWN = '''
import equinox as eqx
import jax.numpy as jnp
from lapg import problems

def broken(*, num_learners):
    """The second learner's losses are not numbers."""
    whole = problems.quadratic(num_learners=num_learners, dimension=4)
    where = lambda problem: problem.tasks.extra["curvature"]
    return whole._replace(tasks=eqx.tree_at(lambda tasks: tasks.extra["curvature"], whole.tasks, where(whole).at[1].set(jnp.nan)))
'''


def test_a_learner_whose_losses_are_not_finite(tmp_path, monkeypatch, capsys):
    """Oracle: one of two learners, from round 0, in all 4 rounds of both seeds; status 3; the score is not the other one's."""
    (tmp_path / "own_nan.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--problem.name", "own_nan:broken", "--problem.num-learners", "2", "--estimator.name", "noisy"]
    flags += ["--method", "pg", "--optimiser.step-size", "0.01", "--seeds", "2", "--rounds", "4"]
    with pytest.raises(SystemExit, match="3"):
        cli.main(["train", *flags, "--out", str(tmp_path / "run")])
    out = capsys.readouterr().out
    line = "learner 1: losses or gradients were not finite in 8 of 8 rounds, first in round 0, in 2 of 2 seeds (0, 1)"
    assert out.count(line) == 2  # when it was seen first, and at the end
    assert "score nan" in out
    assert "lower the method's threshold" not in out
    assert load(tmp_path / "run").unsound == [line]


def test_scores_that_are_not_known():
    """Oracle: means by hand: a learner that did not answer counts for nothing, a NaN of one that did is the mean; no NaN, no word."""
    scores = np.array([[[1.0, np.nan], [2.0, 4.0]]])
    dims = ("seed", "round", "learner")
    fields = {
        "sent": scores > 0,
        "participated": scores == scores * 1,
        "score_scaled": scores,
        "non_finite": scores < 0,
    }
    plain = xr.Dataset(
        {name: (dims, value) for name, value in fields.items()}, {"seed": [7], "round": [5, 6], "learner": [0, 1]}
    )
    plain["participated"] = xr.ones_like(plain["sent"])
    older, plain = plain, upgrade(plain)
    assert np.isnan(mean_score(plain))
    np.testing.assert_array_equal(mean_score(plain, "learner"), [[np.nan, 3.0]])
    (line,) = unsound(plain)
    assert line.startswith("learner 1: losses or gradients were not finite in 1 of 2 rounds, first in round 5")
    missing = upgrade(older.assign(fault_missing=(dims, np.isnan(scores).astype(int))))
    assert float(mean_score(missing)) == pytest.approx(7 / 3)
    assert unsound(missing) == []


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            r"needs about .* of memory, and 1 kB are available: states .*, records .*, samples .*--seeds.*--batch-size",
        ),
        ({"rounds": 2**31}, r"rounds must be below 2\^31, got 2147483648"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, changes, message):
    """Oracle: a machine with 1,000 bytes left has room for no run; nothing is left behind."""
    monkeypatch.setattr(size, "available", lambda: 1000)
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(LAZY, **changes), tmp_path / "run", **QUIET)
    assert list(tmp_path.iterdir()) == []


def test_estimates_are_about_right(whole):
    """Oracle: the file of the state, 3 lanes; the record in memory. Both within a factor of two of the estimate's share of one copy."""
    needed = size.estimate(LAZY, build(LAZY), 3)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(make_lanes(LAZY, build(LAZY)).start())) * 3 / 4
    assert state == pytest.approx(needed["states"] / size.STATES, rel=0.01)
    assert 0.5 < whole.record.nbytes / (needed["records"] / (size.RECORDS + LAZY.chunk_rounds / LAZY.rounds)) < 2
    assert size.available() > 1e8
