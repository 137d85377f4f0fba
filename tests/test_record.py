"""Run directories: what is saved is what is read, and nothing half-written or foreign is taken for a run."""

import errno
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from lapg import record
from lapg.costs.ledger import HEADER_BITS
from lapg.record import RunError, datasets
from lapg.record.files import DiskError
from lapg.rounds import Log, RunState
from lapg.types import ControllerState, LearnerLog, LearnerState, RoundLog

SEEDS, LEARNERS, DIMENSION = [7, 8], 3, 4
PER_LEARNER = {
    "sent", "uplink_bits", "innovation_norm", "gradient_norm", "noise", "trigger_statistic", "trigger_threshold", "staleness",
    "non_finite", "score_scaled", "score_raw", "participated", "downlink_bits", "contacted", "answered",
    "evaluated", "training_steps", "evaluation_steps", "training_score_scaled", "training_score_raw",
}  # fmt: skip
PER_ROUND = {"aggregate_norm", "displacement_norm"}


def make_log(first, until):
    """A log whose every number is a function of its name, seed, round and learner alone."""
    zero = jnp.zeros(())
    learner = LearnerLog(zero, zero, zero, zero, zero, jnp.int32(0), jnp.bool_(False))
    each = jnp.zeros(LEARNERS)
    scores = {"score_scaled": each, "score_raw": each}
    sent = each > 0, each.astype(int), each > 0, each.astype(int)
    like = Log(
        *sent,
        learner,
        RoundLog(zero, zero),
        scores,
        each.astype(int),
        scores,
        each.astype(int),
        np.zeros(LEARNERS, bool),
    )
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    values = []
    for index, (path, leaf) in enumerate(leaves):
        each = () if path[0].name == "controller" else (LEARNERS,)
        part = np.random.default_rng(index).integers(0, 1000, (len(SEEDS), 100, *each))[:, first:until]
        values.append(part % 2 == 0 if leaf.dtype == bool else part.astype(leaf.dtype))
    return jax.tree.unflatten(structure, values)


def segment(first, until):
    params = np.full((len(SEEDS), DIMENSION), float(until))
    return record.to_dataset(make_log(first, until), first=first, seeds=SEEDS, params=params, wall=float(until))


def make_state(until):
    theta = until + jnp.arange(DIMENSION, dtype=float)
    controller = ControllerState(jnp.int32(until), theta, 2 * theta, (3 * theta,), ())
    learners = LearnerState(jnp.int32(0), (), (), (), theta**2, jnp.zeros(()), jnp.int32(until - 1))
    return RunState(controller, learners)


def save(path, *ends):
    """Stretches that end at ``ends``."""
    if not (path / "config.json").exists():
        record.create(path, {})
    for first, until in zip([record.progress(path), *ends], ends, strict=False):
        record.save(path, segment(first, until), make_state(until))


def read(path, name):
    return record.read_state(path, jax.eval_shape(make_state, 0)) if name.startswith("state") else record.read(path)


def snapshot(path):
    return {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_labels():
    """Oracle: the log itself, entry by entry, under the names and dims that the records promise."""
    log, dataset = make_log(10, 16), segment(10, 16)
    for name in PER_LEARNER:
        assert dataset[name].dims == ("seed", "round", "learner"), name
    for name in PER_ROUND:
        assert dataset[name].dims == ("seed", "round"), name
    assert set(dataset.data_vars) == PER_LEARNER | PER_ROUND | {"wall_seconds", "params"}
    assert dict(dataset.sizes) == {"seed": 2, "round": 6, "learner": 3, "parameter": 4}
    np.testing.assert_array_equal(dataset["seed"], SEEDS)
    np.testing.assert_array_equal(dataset["round"], range(10, 16))
    at = {"seed": 8, "round": 12, "learner": 2}
    assert dataset["noise"].sel(at) == log.learner.noise[1, 2, 2]
    assert dataset["score_raw"].sel(at) == log.scores["score_raw"][1, 2, 2]
    training = log.training_scores["score_raw"][1, 2, 2]
    assert dataset["training_score_raw"].sel(at) == training != log.scores["score_raw"][1, 2, 2]
    assert dataset["aggregate_norm"].sel(seed=8, round=12) == log.controller.aggregate_norm[1, 2]
    assert dataset["downlink_bits"].sel(at) == log.downlink_bits[1, 2, 2] != log.uplink_bits[1, 2, 2]
    np.testing.assert_array_equal(dataset["wall_seconds"], [16.0] * 6)
    assert dataset["sent"].dtype == bool
    assert dataset.attrs["header_bits"] == HEADER_BITS


def test_segments_merge_to_the_whole(tmp_path):
    """Oracle: the same rounds saved in one stretch; all but the clock, which each stretch stamps, is identical."""
    save(tmp_path / "parts", 4, 9, 10)
    save(tmp_path / "whole", 10)
    parts, whole = record.read(tmp_path / "parts"), record.read(tmp_path / "whole")
    xr.testing.assert_identical(parts.drop_vars("wall_seconds"), whole.drop_vars("wall_seconds"))
    np.testing.assert_array_equal(parts["wall_seconds"], [4.0] * 4 + [9.0] * 5 + [10.0])
    np.testing.assert_array_equal(parts["params"], np.full((2, 4), 10.0))


def test_save_read_finish(tmp_path):
    """Oracle: what went in; the last two states are kept, and finishing changes the files but not the record."""
    assert record.progress(tmp_path) == 0
    save(tmp_path, 2, 4, 9)
    assert record.progress(tmp_path) == 9
    rounds = ["rounds-000000-000002.nc", "rounds-000002-000004.nc", "rounds-000004-000009.nc"]
    assert sorted(snapshot(tmp_path)) == ["config.json", *rounds, "state-000004.eqx", "state-000009.eqx"]
    state = record.read_state(tmp_path, jax.eval_shape(lambda: make_state(0)))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(9))
    before = record.read(tmp_path)
    xr.testing.assert_identical(record.finish(tmp_path), before)
    assert sorted(snapshot(tmp_path)) == ["config.json", "record.nc", "state-000009.eqx"]
    xr.testing.assert_identical(record.read(tmp_path), before)
    assert record.read(tmp_path)["sent"].dtype == bool
    kept = snapshot(tmp_path)
    xr.testing.assert_identical(record.finish(tmp_path), before)
    assert snapshot(tmp_path) == kept


def test_rounds_beyond_the_state_do_not_count(tmp_path):
    """Oracle: the record without them. A crash between a stretch and its state leaves such a file."""
    save(tmp_path, 4)
    expected = record.read(tmp_path)
    record.write_dataset(tmp_path / "rounds-000004-000009.nc", segment(4, 9))
    xr.testing.assert_identical(record.read(tmp_path), expected)


def test_going_on_after_such_a_crash(tmp_path):
    """Oracle: the uninterrupted record, though the new stretches end elsewhere than the one left over."""
    save(tmp_path / "crashed", 4)
    record.write_dataset(tmp_path / "crashed" / "rounds-000004-000009.nc", segment(4, 9))
    save(tmp_path / "crashed", 6, 12)
    save(tmp_path / "whole", 4, 6, 12)
    xr.testing.assert_identical(record.finish(tmp_path / "crashed"), record.finish(tmp_path / "whole"))


@pytest.mark.parametrize("lost", ["rounds-000000-000004.nc", "rounds-000004-000009.nc"])
def test_lost_rounds_are_noticed(tmp_path, lost):
    """Oracle: rounds 0 to 11 need all three stretches."""
    save(tmp_path, 4, 9, 12)
    (tmp_path / lost).unlink()
    with pytest.raises(RunError, match=r"lacks some of its rounds"):
        record.read(tmp_path)


def test_nothing_saved_yet(tmp_path):
    """Oracle: the rule that a state counts only with its rounds; none of them is no record."""
    record.create(tmp_path / "run", {})
    with pytest.raises(RunError, match=r"no saved rounds yet.*--resume"):
        record.read(tmp_path / "run")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("name", ["record.nc", "state-000009.eqx", "rounds-000000-000009.nc"])
def test_damaged_files(tmp_path, name, keep):
    """Oracle: a file cut short is not the file; the error names it and says what to do."""
    save(tmp_path, 9)
    if name == "record.nc":
        record.finish(tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    content = content[: int(keep * len(content))]
    file.write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} must be .*(restore it|start a new run)"):
        read(tmp_path, name)
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", ["record.nc", "state-000009.eqx"])
def test_garbage_instead_of_files(tmp_path, name):
    """Oracle: random bytes are no record and no state."""
    save(tmp_path, 9)
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(RunError, match=name):
        read(tmp_path, name)


def test_flipped_bits(tmp_path):
    """Oracle: a record, or a state, with any one bit flipped is refused."""
    save(tmp_path, 40)
    record.finish(tmp_path)
    for name in ("record.nc", "state-000040.eqx"):
        file = tmp_path / name
        content = np.frombuffer(file.read_bytes(), np.uint8)
        for place in np.random.default_rng(0).integers(8 * len(content), size=50):
            damaged = content.copy()
            damaged[place // 8] ^= 1 << (place % 8)
            file.write_bytes(damaged.tobytes())
            with pytest.raises(RunError, match=name):
                read(tmp_path, name)
        file.write_bytes(content.tobytes())
        read(tmp_path, name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf, closing what it never opened
def test_flipped_bytes_without_checksums(tmp_path):
    """Oracle: an older record with 30 random bytes changed is read or refused, whatever HDF5 stumbles over; most are refused."""
    content, refused = np.frombuffer(datasets.encode(segment(0, 40)), np.uint8), 0
    for seed in range(12):
        random, damaged = np.random.default_rng(seed), content.copy()
        damaged[random.integers(len(content), size=30)] ^= 255
        (tmp_path / "record.nc").write_bytes(damaged.tobytes())
        try:
            record.read(tmp_path)
        except RunError:
            refused += 1
    assert refused > 6


@pytest.mark.parametrize("kind", [OSError, KeyError, ValueError, RuntimeError])
def test_whatever_hdf5_raises(tmp_path, monkeypatch, kind):
    """Oracle: the four types that h5netcdf raised on 300 files with random bytes changed; the error keeps the first line."""

    def fail(*arguments, **options):
        raise kind("bad header\nand more")

    monkeypatch.setattr(record.datasets.h5py.File, "in_memory", fail)
    (tmp_path / "record.nc").write_bytes(b"anything")
    with pytest.raises(
        RunError, match=r"record\.nc must be a record, but it is damaged \(.*bad header.*\); restore it"
    ):
        record.read_dataset(tmp_path / "record.nc")


def test_state_of_another_run(tmp_path):
    """Oracle: shapes that differ do not fit."""
    save(tmp_path, 9)
    other = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*leaf.shape, 2), leaf.dtype), make_state(0))
    with pytest.raises(RunError, match=r"state-000009\.eqx .*start a new run"):
        record.read_state(tmp_path, other)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"3", b'{"format": 1}', b'{"config": {}}', b'{"format": 1, "config": []}'],
)
def test_damaged_configuration(tmp_path, content):
    """Oracle: none of these is what `create` writes."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match=r"config\.json must be a run's configuration, but it is damaged"):
        record.read_config(tmp_path)


def test_other_format(tmp_path):
    """Oracle: a number that is not ours; the remedy is the version that wrote it."""
    record.create(tmp_path / "run", {"rounds": 3})
    assert record.read_config(tmp_path / "run") == {"rounds": 3}
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    assert content["versions"].keys() == set(record.PACKAGES)
    file.write_text(json.dumps(content | {"format": record.FORMAT + 1}))
    with pytest.raises(
        RunError, match=rf"has format {record.FORMAT + 1}, .* reads formats 2 to {record.FORMAT}; install"
    ):
        record.read_config(tmp_path / "run")


def test_other_precision(tmp_path):
    """Oracle: the tests compute in float64, so a run that began in float32 must name what to set; one that does not say goes on."""
    record.create(tmp_path / "run", {"rounds": 3})
    record.check_precision(tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    del content["checksum"], content["initial"]
    file.write_text(json.dumps(content | {"precision": "float32"}))
    with pytest.raises(RunError, match=r"must go on in float32, .* got float64; set JAX_ENABLE_X64=0"):
        record.check_precision(tmp_path / "run")


def test_not_a_run(tmp_path):
    """Oracle: no directory, and a directory of something else."""
    with pytest.raises(RunError, match="no such directory"):
        record.read_config(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"no config\.json"):
        record.read_config(tmp_path)
    assert snapshot(tmp_path) == {"notes.txt": b"mine"}


def test_taken_places_are_left_alone(tmp_path):
    """Oracle: every byte below the place before and after; an empty directory is fine."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine too")
    save(tmp_path / "run", 4)
    before = snapshot(tmp_path)
    for name, rule in (("full", "new or empty directory"), ("file", "directory, but it is a file"), ("run", "new or")):
        with pytest.raises(RunError, match=rf"out=.*{name} must be a {rule}"):
            record.create(tmp_path / name, {})
    assert snapshot(tmp_path) == before
    (tmp_path / "empty").mkdir()
    record.create(tmp_path / "empty", {})
    assert record.read_config(tmp_path / "empty") == {}


def test_full_disk_leaves_the_old_file(tmp_path):
    """Oracle: the bytes before; a write that fails half-way leaves neither a part nor a temporary file."""
    file = tmp_path / "config.json"
    file.write_text("old")

    def write(path):
        path.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        record.replace_file(file, write)
    assert snapshot(tmp_path) == {"config.json": b"old"}
    record.replace_file(file, lambda path: path.write_text("new"))
    assert snapshot(tmp_path) == {"config.json": b"new"}


@pytest.mark.parametrize("name", ["rounds-", "state-"])
def test_full_disk_while_saving(tmp_path, monkeypatch, name):
    """Oracle: the record before; what cannot be written takes nothing with it. The error names the file, the remedy and how to resume."""
    save(tmp_path, 4)
    expected, kept = record.read(tmp_path), (tmp_path / "state-000004.eqx").read_bytes()
    write = Path.write_bytes

    def half(path, content):
        if not path.name.startswith(f".{name}"):
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(
            DiskError, match=rf"{name}.*: No space left.*; free some space, then .* --resume .* 4 rounds"
        ):
            save(tmp_path, 9)
    assert record.progress(tmp_path) == 4
    assert (tmp_path / "state-000004.eqx").read_bytes() == kept
    assert not [file for file in snapshot(tmp_path) if file.startswith(".")]
    xr.testing.assert_identical(record.read(tmp_path), expected)
    save(tmp_path, 9)
    assert record.progress(tmp_path) == 9


def test_initial_params(tmp_path):
    """Oracle: the array that went in; None where there was none; cut short it is an error."""
    params = np.random.default_rng(0).normal(size=(2, 4))
    record.create(tmp_path / "plain", {})
    record.create(tmp_path / "run", {}, params)
    assert record.read_initial(tmp_path / "plain") is None
    np.testing.assert_array_equal(record.read_initial(tmp_path / "run"), params)
    for keep in (0, 5, 100, -1):
        (tmp_path / "run" / "initial.npy").write_bytes((tmp_path / "run" / "initial.npy").read_bytes()[:keep])
        with pytest.raises(RunError, match=r"initial\.npy .*damaged .*; start a new run"):
            record.read_initial(tmp_path / "run")
