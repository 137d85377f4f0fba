"""Run directories on disks that fail, and between processes that do not know of one another: nothing saved is lost, nothing damaged is taken."""

import contextlib
import dataclasses
import errno
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import lapg.record.files
from disks import DAMAGE, Disk, after_power_cut
from lapg import Config, RunError, load, record, resume, train
from lapg.experiments.config import Choice
from lapg.experiments.train import default_out
from lapg.methods import Part
from lapg.record.files import DiskError, unsealed

TINY = Config(
    problem=Part("quadratic", num_learners=2, scales=(1.0, 0.5)),
    estimator=Part("noisy"),
    method="lapg",
    optimiser=Part("sgd", step_size=0.05, momentum=0.5),
    trigger=Part(xi=0.03, noise_weight=0.5),
    batch_size=2,
    rounds=8,
    seeds=2,
    chunk_rounds=2,
)
OFTEN = {"show_progress": False, "checkpoint_seconds": 0.0}
FINISHED = ["config.json", "initial.npy", "record.nc", "state-000008.eqx"]


class Stop(Exception):  # noqa: N818
    """Ends a run as abruptly as an exception can."""


def stop_after(round):
    def stop(segment, until):
        if until == round:
            raise Stop

    return stop


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, the same one stopped after 6 of 8 rounds, and both of another run; they start from a third one's parameters, and from its end."""
    folder = tmp_path_factory.mktemp("runs")
    source = train(dataclasses.replace(TINY, rounds=2), folder / "source", **OFTEN)
    for config, name in ((TINY, "own"), (dataclasses.replace(TINY, first_seed=5), "other")):
        train(config, folder / name, init_from=source, **OFTEN)
        with pytest.raises(Stop):
            train(config, folder / f"{name}-part", init_from=source, callbacks=(stop_after(6),), **OFTEN)
        source = load(folder / name)
    return folder


def names(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def same(path, whole):
    """Whether a finished run directory has the same record, clock apart, and the same last state, byte for byte."""
    mine, other = (load(each).record.drop_vars("wall_seconds") for each in (path, whole))
    state = FINISHED[-1]
    return mine.identical(other) and (path / state).read_bytes() == (whole / state).read_bytes()


# ---------------------------------------------------------------- damage


def outcome(path, whole, capfd):
    """What comes of a damaged directory: refused, healed (with a line that says so), harmless, or taken."""
    capfd.readouterr()
    try:
        with contextlib.suppress(RunError):
            load(path)
        run = resume(path, **OFTEN)
    except RunError as error:
        return "refused" if len(str(error).splitlines()) == 1 else "many lines"
    said = capfd.readouterr().err
    if run.config != TINY or not same(path, whole):
        return "TAKEN"
    assert names(path) in (FINISHED, FINISHED[:-1]) or not (path / "initial.npy").exists()
    assert len(said.splitlines()) <= 1
    return "healed" if said else "harmless"


def table(runs, tmp_path, capfd, files, ways):
    found = {}
    for folder, name in files:
        for way in ways:
            path = tmp_path / f"{len(found)}"
            shutil.copytree(runs / folder, path)
            foreign = (runs / folder.replace("own", "other") / name).read_bytes()
            content = DAMAGE[way]((path / name).read_bytes(), foreign)
            (path / name).unlink()
            if content is not None:
                (path / name).write_bytes(content)
            found[folder, name, way] = outcome(path, runs / "own", capfd)
            shutil.rmtree(path)
    return found


@pytest.mark.slow
def test_every_file_damaged_in_every_way(runs, tmp_path, capfd):
    """Oracle: the undamaged run: a directory with one damaged file is refused, or ends in the same bits."""
    files = [(folder, name) for folder in ("own-part", "own") for name in names(runs / folder)]
    found = table(runs, tmp_path, capfd, files, DAMAGE)
    with capfd.disabled():
        print()
        for folder, name in files:
            row = {way: found[folder, name, way] for way in DAMAGE}
            print(f"{'finished' if folder == 'own' else 'stopped':9} {name:24}", row)
        print({kind: list(found.values()).count(kind) for kind in sorted(set(found.values()))})
    assert set(found.values()) == {"refused", "healed", "harmless"}


def test_damage_is_noticed(runs, tmp_path, capfd):
    """Oracle: the undamaged run's end in every bit. A damaged checkpoint is healed from the one before; a damaged configuration is refused."""
    newest = [("own-part", "state-000006.eqx"), ("own-part", "rounds-000004-000006.nc")]
    found = table(runs, tmp_path, capfd, newest[:1], ["bit in middle"])
    found |= table(runs, tmp_path, capfd, newest[1:], ["another run's"])
    assert set(found.values()) == {"healed"}
    rest = [("own-part", name) for name in ("config.json", "initial.npy", "rounds-000000-000002.nc")]
    found = table(runs, tmp_path, capfd, rest, ["bit in middle", "another run's", "zeroed tail"])
    found |= table(runs, tmp_path, capfd, [("own", FINISHED[-1])], ["bit in middle", "deleted"])
    assert set(found.values()) == {"refused"}


def test_the_line_about_a_damaged_checkpoint(runs, tmp_path, capfd):
    """Oracle: the file's name, why, and the round before it; one line, and nothing where nothing is damaged."""
    shutil.copytree(runs / "own-part", tmp_path / "run")
    record.recover(tmp_path / "run")
    assert capfd.readouterr().err == ""
    file = tmp_path / "run" / "state-000006.eqx"
    file.write_bytes(file.read_bytes()[:-100])
    record.recover(tmp_path / "run")
    said = capfd.readouterr().err
    assert (
        said == f"lapg: {file} is damaged (its checksum is missing); resuming from the checkpoint before it, round 4.\n"
    )
    assert record.progress(tmp_path / "run") == 4
    (tmp_path / "run" / "state-000004.eqx").write_bytes(b"")
    before = names(tmp_path / "run")
    with pytest.raises(RunError, match=r"no whole checkpoint: .*state-000004.eqx is damaged.*start a new run"):
        record.recover(tmp_path / "run")
    assert names(tmp_path / "run") == before


def test_pickled_objects_are_refused(runs, tmp_path):
    """Oracle: a file that is written when the objects are loaded; it is never there. Without checksums, so that these do not save us."""
    made = tmp_path / "made"

    class Trap:
        def __reduce__(self):
            return Path.touch, (made,)

    for part, name in (("own-part", "initial.npy"), ("own-part", "state-000006.eqx")):
        path = tmp_path / name
        shutil.copytree(runs / part, path)
        without_checksums(path)
        for content in (pickle.dumps(Trap()), pickled_array(Trap(), tmp_path)):
            (path / name).write_bytes(content)
            with pytest.raises(RunError, match=rf"{name} must .*start a new run"):
                resume(path, **OFTEN)
    assert not made.exists()


def pickled_array(trap, folder):
    np.save(folder / "trap.npy", np.array([trap], object), allow_pickle=True)
    return (folder / "trap.npy").read_bytes()


def without_checksums(path):
    """Makes a directory one of those from before there were any: one state, no seals."""
    about = json.loads((path / "config.json").read_text())
    owner = about.pop("checksum")
    del about["initial"]
    (path / "config.json").write_text(json.dumps(about, indent=2))
    for file in path.iterdir():
        if file.suffix != ".json":
            content = unsealed(file.read_bytes(), file.name, "" if file.suffix == ".npy" else owner)
            file.write_bytes(content)
    for file in sorted(path.glob("state-*.eqx"))[:-1]:
        file.unlink()


def test_directories_without_checksums(runs, tmp_path):
    """Oracle: the same run, finished and stopped, in the layout of versions that had no checksums."""
    for part in ("own", "own-part"):
        shutil.copytree(runs / part, tmp_path / part)
        without_checksums(tmp_path / part)
        assert load(tmp_path / part).record.identical(load(runs / part).record)
        resume(tmp_path / part, **OFTEN)
        mine, whole = (load(each).record.drop_vars("wall_seconds") for each in (tmp_path / part, runs / "own"))
        xr.testing.assert_identical(mine, whole)


def test_records_are_plain_netcdf(runs):
    """Oracle: what other programs make of the file: the seal after it does not matter to them."""
    with xr.open_dataset(runs / "own" / "record.nc", engine="h5netcdf") as dataset:
        assert dataset.load().identical(load(runs / "own").record)


# ---------------------------------------------------------------- power cuts


def play_while_watched(runs, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(tmp_path / "run", patch)
        train(TINY, tmp_path / "run", init_from=load(runs / "source"), **OFTEN)
    assert same(tmp_path / "run", runs / "own")
    return disk


def continue_after(moment, random, path, runs):
    """Plays on from one state that a power cut may leave; says how far it was."""
    path.mkdir()
    after_power_cut(moment, random, path)
    if not (path / "config.json").exists():
        train(TINY, path, init_from=load(runs / "source"), **OFTEN)
        reached = "nothing"
    else:
        try:
            reached = str(load(path).record.sizes["round"])
        except RunError as error:
            reached = "0" if "no saved rounds yet" in str(error) else pytest.fail(f"unreadable: {error}")
        resume(path, **OFTEN)
    assert same(path, runs / "own")
    assert names(path) == FINISHED
    return reached


@pytest.mark.slow
def test_power_cuts(runs, tmp_path, capfd):
    """Oracle: the run without power cuts. From each state of the disk the run can be loaded, and ends in the same bits, and nothing is left over."""
    disk = play_while_watched(runs, tmp_path)
    random, reached = np.random.default_rng(0), []
    for trial in range(100):
        moment = disk.moments[random.integers(len(disk.moments))]
        reached.append(continue_after(moment, random, tmp_path / f"cut-{trial}", runs))
        shutil.rmtree(tmp_path / f"cut-{trial}")
    assert capfd.readouterr().err == ""  # no checkpoint was damaged
    with capfd.disabled():
        counts = {rounds: reached.count(rounds) for rounds in sorted(set(reached))}
        print(f"\n{len(disk.moments)} moments, {len(reached)} power cuts, all alike; rounds saved by then: {counts}")


def test_everything_that_counts_is_synced(runs, tmp_path):
    """Oracle: the model of the disk: at every moment, whichever names have reached it, their content has too, and so has a checkpoint once it was one.

    And the two worst cuts: nothing that was not synced is there, just before and just after the last state.
    """
    disk = play_while_watched(runs, tmp_path)
    states = 0
    for moment in disk.moments:
        entries = {*moment.names.items(), *((name, file) for name, file in moment.pending if file is not None)}
        assert all(moment.synced.get(file) == moment.now[file] for name, file in entries if not name.startswith(".")), (
            entries
        )
        found = sum(name.startswith("state-") for name in moment.names)
        assert found >= min(states, 1)  # one is always there, once one was
        states = max(states, found)
    assert states == 3  # for a moment: the old one goes when the new one is safe


# ---------------------------------------------------------------- kills


def play(folder, name):
    """A run in a process of its own, which saves after every two rounds."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    train(TINY, folder / name, init_from=load(folder / "source"), **OFTEN)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kills(runs, tmp_path, capfd, seed):
    """Oracle: the uninterrupted run: the same bits after SIGKILL at 50 random moments and one resumption, and nothing is left over.

    The moments are drawn evenly between the making of the directory and the end.
    """
    shutil.copytree(runs / "source", tmp_path / "source")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_durability"])
    random, reached, left, durations = np.random.default_rng(seed), [], 0, []
    trial = 0
    while len(reached) < 50:
        path = tmp_path / f"run-{trial}"
        victim = context.Process(target=play, args=(tmp_path, path.name))
        victim.start()
        while not path.exists() and victim.is_alive():
            time.sleep(0.0005)
        began = time.monotonic()
        if trial > 2:
            victim.join(float(random.uniform(0, np.median(durations[:3]))))
            with contextlib.suppress(ProcessLookupError):  # it may have come to its end
                os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        durations.append(time.monotonic() - began)
        trial += 1
        if victim.exitcode != -signal.SIGKILL:
            assert victim.exitcode == 0
            assert same(path, runs / "own")
            shutil.rmtree(path)
            continue
        left += any(name.startswith(".") and name != ".lock" for name in names(path))
        if not (path / "config.json").exists():
            train(TINY, path, init_from=load(runs / "source"), **OFTEN)
            reached.append("nothing")
        else:
            reached.append(record.progress(path))
            resume(path, **OFTEN)
        assert same(path, runs / "own")
        assert names(path) == FINISHED
        shutil.rmtree(path)
    assert capfd.readouterr().err == ""
    with capfd.disabled():
        counts = {str(rounds): reached.count(rounds) for rounds in sorted(set(reached), key=str)}
        print(
            f"\n{len(reached)} kills, all alike; {left} left temporary files, all swept; rounds saved by then: {counts}"
        )


def test_leftovers_of_killed_processes(runs, tmp_path):
    """Oracle: the file names before and after: temporary files and locks of dead processes count for nothing and go; a user's own hidden files stay."""
    leftovers = [".config.json.12345", ".rounds-000004-000008.nc.77", ".state-000008.eqx.77", ".record.nc.3", ".lock"]
    shutil.copytree(runs / "own-part", tmp_path / "part")
    (tmp_path / "new").mkdir()
    for path in (tmp_path / "part", tmp_path / "new"):
        for name in leftovers:
            (path / name).write_bytes(b"half of")
    (tmp_path / "part" / ".notes").write_text("mine")
    resume(tmp_path / "part", **OFTEN)
    assert names(tmp_path / "part") == [".notes", *FINISHED]
    shutil.copy(runs / "own" / "initial.npy", tmp_path / "new")  # killed between the first two files
    train(TINY, tmp_path / "new", init_from=load(runs / "source"), **OFTEN)
    assert same(tmp_path / "new", runs / "own")
    assert names(tmp_path / "new") == FINISHED
    (tmp_path / "own").mkdir()
    np.save(tmp_path / "own" / "initial.npy", np.zeros(3))  # not ours
    with pytest.raises(RunError, match="must be a new or empty directory"):
        train(TINY, tmp_path / "own", **OFTEN)


def test_killed_while_it_tidied_up(runs, tmp_path):
    """Oracle: the finished run: what a kill left of the stretches after record.nc was there is removed by the next resumption."""
    shutil.copytree(runs / "own", tmp_path / "run")
    for name in ("rounds-000004-000006.nc", "state-000006.eqx"):
        shutil.copy(runs / "own-part" / name, tmp_path / "run")
    assert same(tmp_path / "run", runs / "own")
    resume(tmp_path / "run", **OFTEN)
    assert names(tmp_path / "run") == FINISHED
    assert same(tmp_path / "run", runs / "own")


# ---------------------------------------------------------------- full disks

FULL = """
import sys
from lapg import cli
import lapg.cli.train as command
from functools import partial
command.train_run = partial(command.train_run, checkpoint_seconds=0.0)
cli.main(sys.argv[1:])
"""
FLAGS = "--problem.name quadratic --problem.num-learners 2 --estimator.name noisy --method pg --rounds 10 --seeds 2 --chunk-rounds 2"


def test_a_full_disk(tmp_path):
    """Oracle: exit status 1 and one line with the file, the system's words and the remedy; what was saved is whole; with room the run ends.

    The disk is a small one in memory, where that may be mounted; elsewhere files are limited to 20 kB.
    """
    place = tmp_path / "disk"
    place.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=140k", "tmpfs", place], capture_output=True
    ).returncode
    try:
        limit = None if mounted else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        command = [sys.executable, "-c", FULL, "train", *FLAGS.split(), "--out", place / "run"]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120)
        assert done.returncode == 1, done
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("lapg: ")]
        assert "Traceback" not in done.stderr
        assert os.strerror(errno.ENOSPC if mounted else errno.EFBIG) in line
        assert f"--resume {place / 'run'}" in line
        assert not [name for name in names(place / "run") if name.startswith(".")]
        if mounted:
            kept = load(place / "run").record.sizes["round"]
            assert kept >= 2
            assert f"the first {kept} rounds are saved" in line
            subprocess.run(["mount", "-o", "remount,size=10m", place], check=True)
        environment = os.environ | {"JAX_ENABLE_X64": "0"}
        again = [sys.executable, "-m", "lapg.cli", "train", "--resume", place / "run"]
        subprocess.run(again, check=True, capture_output=True, env=environment, timeout=120)
        assert load(place / "run").finished
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("prefix", ["state-", "record"])
def test_no_room_for_a_file(runs, tmp_path, monkeypatch, prefix):
    """Oracle: the uninterrupted run, after a disk that had no room for one kind of file, with what was saved before still there."""
    shutil.copytree(runs / "own-part", tmp_path / "run")
    before, write = {name: (tmp_path / "run" / name).read_bytes() for name in names(tmp_path / "run")}, Path.write_bytes

    def full(path, content):
        if not path.name.startswith(f".{prefix}"):
            return write(path, content)
        write(path, content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            DiskError, match=rf"/{prefix}.*No space left on device; free some space, then continue with"
        ):
            resume(tmp_path / "run", **OFTEN)
    kept = before if prefix != "record" else {name: before[name] for name in before if "rounds" in name}
    assert all((tmp_path / "run" / name).read_bytes() == content for name, content in kept.items())
    assert not [name for name in names(tmp_path / "run") if name.startswith(".")]
    resume(tmp_path / "run", **OFTEN)
    assert same(tmp_path / "run", runs / "own")


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("x" * 300, r"out=.* cannot be used \(File name too long\); give a shorter name"),
        ("file/run", r"out=.* cannot be used \(Not a directory.*\); give a path whose parts are directories"),
        ("file", "must be a directory, but it is a file"),
        ("/proc/nothing/run", r"cannot be used \(No such file or directory: /proc/nothing\); give a place that exists"),
    ],
)
def test_places_that_cannot_be_used(tmp_path, out, words):
    """Oracle: the operating system's word for each, with a remedy that fits; nothing is made. `load` and `resume` name the rule as well."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=words):
        train(TINY, tmp_path / out, **OFTEN)
    assert names(tmp_path) == ["file"]
    for use in (load, resume):
        with pytest.raises(
            RunError, match=r"run=.*(File name too long\); give a shorter|must be the directory of a run)"
        ):
            use(tmp_path / out)


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EROFS, "make the disk writable"), (errno.EACCES, "have its permissions changed")]
)
def test_disks_that_may_not_be_written(runs, tmp_path, monkeypatch, number, remedy):
    """Oracle: the remedy of each error; a finished run is loaded all the same."""
    original = os.open

    def refuse(path, flags, *arguments, **options):
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            raise OSError(number, os.strerror(number), str(path))
        return original(path, flags, *arguments, **options)

    shutil.copytree(runs / "own-part", tmp_path / "part")
    shutil.copytree(runs / "own", tmp_path / "own")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match=rf"run=.*part cannot be used .*{os.strerror(number)}.*; {remedy}\."):
        resume(tmp_path / "part", **OFTEN)
    with pytest.raises(RunError, match=rf"out=.*new cannot be used .*; {remedy}, or choose another --out\."):
        train(TINY, tmp_path / "new", **OFTEN)
    assert resume(tmp_path / "own", **OFTEN).finished


def test_the_home_directory(runs, tmp_path, monkeypatch):
    """Oracle: HOME, for all three; a name that is nobody's stays a name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "own", tmp_path / "own")
    assert load("~/own").path == resume("~/own", **OFTEN).path == tmp_path / "own"
    with pytest.raises(RunError, match=rf"out={tmp_path}/own must be a new or empty directory"):
        train(TINY, "~/own", **OFTEN)
    with pytest.raises(RunError, match=r"run=~nobodys-name/run must be"):
        load("~nobodys-name/run")
    assert not (tmp_path / "~").exists()


# ---------------------------------------------------------------- one owner


def test_one_process_at_a_time(runs, tmp_path):
    """Oracle: who holds it, by the process's own number; the lock of a process that was killed holds nobody up."""
    shutil.copytree(runs / "own-part", tmp_path / "run")
    words = "import sys, time, pathlib; from lapg.record.owner import owned\nwith owned(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", words, tmp_path / "run"], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        for use in (lambda: resume(tmp_path / "run", **OFTEN), lambda: record.owned(tmp_path / "run").__enter__()):
            with pytest.raises(
                RunError, match=rf"one process at a time, but process {holder.pid} on .* does; wait for it"
            ):
                use()
        assert load(tmp_path / "run").record.sizes["round"] == 6
    finally:
        holder.kill()
        holder.communicate()
    assert (tmp_path / "run" / ".lock").exists()
    resume(tmp_path / "run", **OFTEN)
    assert same(tmp_path / "run", runs / "own")
    assert names(tmp_path / "run") == FINISHED


def test_two_starts_at_once(tmp_path, monkeypatch):
    """Oracle: of starts with one ``out`` exactly one plays, and its record is its own; starts with default names in one second all play, apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")
    steps, results = [0.05, 0.01], {}

    def start(step, out):
        try:
            results[step] = train(TINY.playing(Choice("pg", optimiser=Part("sgd", step_size=step))), out, **OFTEN)
        except RunError as error:
            results[step] = error

    for out in ("one", None):
        results.clear()
        threads = [threading.Thread(target=start, args=(step, out)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        played = {step: run for step, run in results.items() if not isinstance(run, RunError)}
        assert len(played) == (1 if out else 2)
        assert len({run.path for run in played.values()}) == len(played)
        for step, run in played.items():
            assert run.path == load(run.path).path
            assert load(run.path).config.optimiser.options["step_size"] == step
            assert run.finished
        refused = " ".join(str(results[step]) for step in steps if step not in played)
        assert bool(out) == ("must be played by one process at a time" in refused or "new or empty" in refused)
    assert sorted(file.name for file in Path("runs").iterdir()) == [f"pg-20260101-000000{end}" for end in ("", "-2")]
    assert default_out(TINY) == Path("runs/lapg-20260101-000000")


def test_a_lock_removed_by_its_last_owner(tmp_path, monkeypatch):
    """Oracle: a lock on a file that is no longer there is worth nothing: whoever had opened it meanwhile takes the new one."""
    original, rounds = lapg.record.owner._hold, []

    def hold(handle):
        original(handle)
        rounds.append(handle)
        if len(rounds) == 1:
            (tmp_path / ".lock").unlink()

    monkeypatch.setattr(lapg.record.owner, "_hold", hold)
    with record.owned(tmp_path):
        assert len(rounds) == 2
        with pytest.raises(RunError, match=f"process {os.getpid()} on"), record.owned(tmp_path):
            pass
    assert names(tmp_path) == []
