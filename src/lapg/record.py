"""What a run leaves behind: one directory with its configuration, labelled arrays and the state to go on from.

    config.json               configuration, format and package versions
    initial.npy               θ⁰ of every seed, if it came from another run
    rounds-000000-000500.nc   records of finished stretches of rounds (merged into record.nc at the end)
    state-000500.eqx          everything needed to go on from round 500

Every file is written beside its place and then renamed, so a killed process leaves nothing half-written under a name that counts.
"""

import json
import os
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import xarray as xr

from lapg.ledger import HEADER_BITS
from lapg.runtimes.protocol import Log

FORMAT = 2
PACKAGES = ("lapg", "jax", "jaxlib", "optax", "equinox", "numpy", "xarray")
_SEGMENT = re.compile(r"rounds-(\d{6,})-(\d{6,})\.nc$")
_STATE = re.compile(r"state-(\d{6,})\.eqx$")


class RunError(ValueError):
    """A run directory that cannot be used, and what to do about it."""


def to_dataset(log: Log, *, first: int, seeds: list[int], params: np.ndarray, wall: float) -> xr.Dataset:
    """Labels the log of a stretch of rounds, leading axes (seed, round).

    Bits are payload without headers; ``wall_seconds`` is the run's clock at the end of the stretch; ``params`` is θ after it.
    """
    per_learner, per_round = ("seed", "round", "learner"), ("seed", "round")
    rounds = first + np.arange(log.sent.shape[1])
    messages = {name: getattr(log, name) for name in ("participated", "downlink_bits", "sent", "uplink_bits")}
    fields = {**messages, **vars(log.learner), **log.scores}
    fields |= {f"fault_{name}": value for name, value in log.faults.items()}
    variables: dict[str, Any] = {name: (per_learner, np.asarray(value)) for name, value in fields.items()}
    variables |= {name: (per_round, np.asarray(value)) for name, value in vars(log.controller).items()}
    variables["wall_seconds"] = ("round", np.full(rounds.shape, wall))
    variables["params"] = (("seed", "parameter"), params)
    coordinates = {"seed": seeds, "round": rounds, "learner": np.arange(log.sent.shape[2])}
    return xr.Dataset(variables, coordinates, {"header_bits": HEADER_BITS})


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {name: metadata.version(name) for name in PACKAGES}


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Writes beside ``path`` and renames, so that readers see the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def create(path: Path, config: dict[str, Any], initial: np.ndarray | None = None) -> None:
    """Makes the directory of a new run; ``initial`` is θ⁰ [seeds, d] where the problem's own is not used.

    Raises:
      RunError: there is something at ``path`` already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"out={path} must be a new or empty directory, but there is something in it; choose another name, or --resume it."
            if path.is_dir()
            else f"out={path} must be a directory, but it is a file; choose another name."
        )
    path.mkdir(parents=True, exist_ok=True)
    if initial is not None:
        replace_file(path / "initial.npy", lambda file: _write_array(file, initial))
    content = {"format": FORMAT, "versions": versions(), "precision": _precision(), "config": config}
    write_text(path / "config.json", json.dumps(content, indent=2))


def check_precision(path: Path) -> None:
    """Refuses to go on with a run at another precision than it began with.

    Raises:
      RunError: JAX computes at another one here.
    """
    began = json.loads((path / "config.json").read_text(encoding="utf-8")).get("precision", _precision())
    if began != _precision():
        raise RunError(
            f"run={path} must go on in {began}, in which it began, got {_precision()}; set JAX_ENABLE_X64={int(began == 'float64')}."
        )


def _precision() -> str:
    return "float64" if jax.config.read("jax_enable_x64") else "float32"


def _write_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array)


def read_initial(path: Path) -> np.ndarray | None:
    """θ⁰ of a run that started from another one; None of any other run.

    Raises:
      RunError: it is damaged.
    """
    file = path / "initial.npy"
    if not file.is_file():
        return None
    try:
        return np.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(
            f"{file} must hold the parameters that this run started from, but it is damaged; start a new run."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one step (see `replace_file`)."""

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    replace_file(path, write)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
      RunError: not a run directory, a damaged one, or one of another format.
    """
    if not path.is_dir():
        raise RunError(f"run={path} must be the directory of a run, but there is no such directory.")
    file = path / "config.json"
    if not file.is_file():
        raise RunError(
            f"run={path} must be the directory of a run, but it has no config.json; is it one level up or down?"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found, config = content["format"], content["config"]
        if not isinstance(config, dict):
            raise TypeError("config must be a table")
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} must be a run's configuration, but it is damaged ({error}); restore it or start a new run."
        ) from error
    if found != FORMAT:
        raise RunError(
            f"run={path} has format {found}, this version of lapg reads format {FORMAT}; install the version named in its config.json."
        )
    return config


def save(path: Path, segment: xr.Dataset, state: eqx.Module) -> None:
    """Adds a stretch of rounds and the state after it. The state counts only together with all rounds before it."""
    first, until = int(segment["round"][0]), int(segment["round"][-1]) + 1
    for file in list(path.iterdir()):  # a crash after the last state may have left a stretch that ends elsewhere
        if (match := _SEGMENT.search(file.name)) and int(match[2]) > first:
            file.unlink()
    write_dataset(path / f"rounds-{first:06d}-{until:06d}.nc", segment)
    old = list(path.glob("state-*.eqx"))
    replace_file(path / f"state-{until:06d}.eqx", lambda file: _write_state(file, state))
    for file in old:
        if file.name != f"state-{until:06d}.eqx":
            file.unlink()


def _write_state(path: Path, state: eqx.Module) -> None:
    with path.open("wb") as stream:
        eqx.tree_serialise_leaves(stream, state)


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """One NetCDF file, compressed."""
    encoding = {name: {"zlib": True, "complevel": 1} for name, value in dataset.data_vars.items() if value.ndim > 1}
    replace_file(path, lambda file: dataset.to_netcdf(file, engine="h5netcdf", encoding=encoding))


def read_dataset(path: Path) -> xr.Dataset:
    """One NetCDF file.

    Raises:
      RunError: it is damaged.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # whatever HDF5 makes of a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} must be a record, but it is damaged ({reason}); restore it or run again.") from error


def progress(path: Path) -> int:
    """Rounds after which the run can go on; 0 if nothing was saved yet."""
    return max((int(match[1]) for file in path.iterdir() if (match := _STATE.search(file.name))), default=0)


def _read_lanes(stream: Any, like: Any) -> Any:
    """One array of a state; earlier versions saved lanes beyond the run's own, which are cut off."""
    return eqx.default_deserialise_filter_spec(stream, like)[: like.shape[0]]


def read_state(path: Path, like: eqx.Module) -> Any:
    """The last saved state, given a tree of its shapes.

    Raises:
      RunError: there is none, or it is damaged or does not fit.
    """
    file = path / f"state-{progress(path):06d}.eqx"
    try:
        with file.open("rb") as stream:
            return eqx.tree_deserialise_leaves(stream, like, filter_spec=_read_lanes)
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise RunError(
            f"{file} must be the state of this run, but it cannot be read ({type(error).__name__}); start a new run."
        ) from error


def read(path: Path) -> xr.Dataset:
    """The record of all saved rounds of a finished or unfinished run.

    Raises:
      RunError: nothing was saved, or a file is damaged or missing.
    """
    if (path / "record.nc").is_file():
        return read_dataset(path / "record.nc")
    until = progress(path)
    matches = [match for file in path.iterdir() if (match := _SEGMENT.search(file.name))]
    spans = sorted((int(match[1]), int(match[2]), match[0]) for match in matches if int(match[2]) <= until)
    if not spans:
        raise RunError(f"run={path} has no saved rounds yet; continue it with --resume {path}.")
    ends = [0, *(span[1] for span in spans)]
    if any(span[0] != end for span, end in zip(spans, ends, strict=False)):
        raise RunError(f"run={path} lacks some of its rounds-*.nc files; restore them or run again.")
    parts = [read_dataset(path / name) for _, _, name in spans]
    merged = xr.concat(
        [part.drop_vars("params") for part in parts],
        "round",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )
    return merged.assign(params=parts[-1]["params"]).assign_attrs(parts[-1].attrs)


def finish(path: Path) -> xr.Dataset:
    """Merges the stretches of a finished run into record.nc."""
    record = read(path)
    if not (path / "record.nc").is_file():
        write_dataset(path / "record.nc", record)
        for file in path.glob("rounds-*.nc"):
            file.unlink()
    return record
