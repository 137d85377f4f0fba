"""What a run leaves behind: one directory with its configuration, labelled arrays and the state to resume from.

    config.json               configuration, format and package versions
    initial.npy               θ⁰ of every seed, if it came from another run
    rounds-000000-000500.nc   records of finished stretches of rounds (merged into record.nc at the end)
    state-000500.eqx          everything needed to resume from round 500; the last two are kept

Every file is there whole or not at all, and synced (`lapg.files`). config.json has a checksum of itself and of initial.npy; the others are sealed in
its name, so that a file that was changed, or comes from another run, is noticed.
"""

import io
import re
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import xarray as xr

from lapg import datasets
from lapg.about import FORMAT, PACKAGES, check_free, check_precision, create, read_about, read_config, read_initial
from lapg.datasets import to_dataset, upgrade
from lapg.files import RunError, contents, reason, replace_file, sealed, sweep, unsealed, usable, write_text, writing
from lapg.owner import owned

__all__ = [
    "FORMAT",
    "PACKAGES",
    "RunError",
    "check_finished",
    "check_free",
    "check_precision",
    "contents",
    "create",
    "finish",
    "owned",
    "progress",
    "read",
    "read_config",
    "read_dataset",
    "read_initial",
    "read_state",
    "recover",
    "replace_file",
    "save",
    "superseded",
    "to_dataset",
    "upgrade",
    "write_dataset",
    "write_text",
]

_SEGMENT = re.compile(r"rounds-(\d{6,})-(\d{6,})\.nc")
_STATE = re.compile(r"state-(\d{6,})\.eqx")


def _owner(folder: Path) -> str | None:
    """In whose name files are sealed; None where some may be without a seal: in older directories, and in those that are no run's."""
    return read_about(folder).get("checksum") if (folder / "config.json").is_file() else None


def _write(file: Path, content: bytes) -> None:
    whole = sealed(content, file.name, _owner(file.parent) or "")
    replace_file(file, lambda temporary: temporary.write_bytes(whole))


def _read(file: Path) -> bytes:
    """Raises ValueError if it is not what was written, OSError if it cannot be read."""
    return unsealed(file.read_bytes(), file.name, _owner(file.parent))


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """One NetCDF file, compressed and sealed."""
    _write(path, datasets.encode(dataset))


def read_dataset(path: Path, remedy: str = "restore it or run again") -> xr.Dataset:
    """One NetCDF file.

    Raises:
      RunError: it is damaged.
    """
    try:
        return datasets.decode(_read(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} must be a record, but it is damaged ({reason(error)}); {remedy}.") from error


def save(path: Path, segment: xr.Dataset, state: eqx.Module) -> None:
    """Adds a stretch of rounds and the state after it; the state before it is kept as well. A state counts only together with all rounds before it.

    Raises:
      DiskError: it cannot be written; what was saved before counts.
    """
    first, until = int(segment["round"][0]), int(segment["round"][-1]) + 1
    with writing(path, f", then continue with lapg train --resume {path}; the first {first} rounds are saved"):
        for beyond in (file for _, end, file in _segments(path) if end > first):
            beyond.unlink()  # a crash after the last state may have left a stretch that ends elsewhere
        write_dataset(path / f"rounds-{first:06d}-{until:06d}.nc", segment)
        stream = io.BytesIO()
        eqx.tree_serialise_leaves(stream, state)
        _write(path / f"state-{until:06d}.eqx", stream.getvalue())
        for after, file in _states(path).items():
            if after not in (first, until):
                file.unlink()


def _states(path: Path) -> dict[int, Path]:
    """Saved states by the round they follow, the newest first."""
    found = {int(match[1]): file for file in path.iterdir() if (match := _STATE.fullmatch(file.name))}
    return dict(sorted(found.items(), reverse=True))


def _segments(path: Path) -> list[tuple[int, int, Path]]:
    """Stretches in order: their first round, the round after them, and the file."""
    matches = [(match, file) for file in path.iterdir() if (match := _SEGMENT.fullmatch(file.name))]
    return sorted((int(match[1]), int(match[2]), file) for match, file in matches)


def _chain(path: Path, until: int) -> list[Path]:
    """The files of rounds 0 to ``until``."""
    spans = [span for span in _segments(path) if span[1] <= until]
    ends = [0, *(end for _, end, _ in spans)]
    if ends[-1] != until or any(first != end for (first, _, _), end in zip(spans, ends, strict=False)):
        raise RunError(f"run={path} lacks some of its rounds-*.nc files; restore them or run again.")
    return [file for _, _, file in spans]


def progress(path: Path) -> int:
    """Rounds after which the run can be resumed; 0 if nothing was saved yet."""
    return next(iter(_states(path)), 0)


def recover(path: Path) -> None:
    """Removes what a killed process or a damaged disk has left: temporary files, and states that are not whole, up to the newest that is.

    It says so in one line; the rounds after that state are played again. Only for the directory's owner.

    Raises:
      RunError: no state is whole, or a finished run's last one is not.
    """
    with usable("run", path):
        sweep(path)
        if (path / "record.nc").is_file():
            check_finished(path)
            return
        damage = {}
        for until, file in _states(path).items():
            try:
                for part in (file, *_chain(path, until)):
                    _check(part)
                break
            except ValueError as error:
                damage[file] = error
        else:
            if damage:
                raise RunError(f"run={path} has no whole checkpoint: {next(iter(damage.values()))}")
            return
        if damage:
            first = str(next(iter(damage.values()))).split(";")[0]
            print(f"lapg: {first}; resuming from the checkpoint before it, round {until}.", file=sys.stderr)
        for file in damage:
            file.unlink()


def check_finished(path: Path) -> None:
    """Refuses a finished run whose trained parameters are damaged or gone.

    Raises:
      RunError: they are.
    """
    remedy = "its record is whole (lapg report reads it); restore the file, or start a new run for trained parameters"
    (last, *_) = [*_states(path).values(), None]
    if last is None:
        raise RunError(f"run={path} has finished, but its state-*.eqx is missing; {remedy}.")
    try:
        _read(last)
    except ValueError as error:
        raise RunError(f"{last} is damaged ({error}); {remedy}.") from error


def _check(file: Path) -> None:
    try:
        _read(file)
    except ValueError as error:
        raise RunError(f"{file} is damaged ({error}); restore it or start a new run.") from error


def _read_lanes(stream: Any, like: Any) -> Any:
    """One array of a state; earlier versions saved lanes beyond the run's own, which are cut off."""
    found = eqx.default_deserialise_filter_spec(stream, like)
    return found[: like.shape[0]] if like.shape else found


def read_state(path: Path, like: eqx.Module) -> Any:
    """The last saved state, given a tree of its shapes.

    Raises:
      RunError: there is none, or it is damaged or does not fit.
    """
    file = path / f"state-{progress(path):06d}.eqx"
    try:
        return eqx.tree_deserialise_leaves(io.BytesIO(_read(file)), like, filter_spec=_read_lanes)
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
        return upgrade(read_dataset(path / "record.nc"))
    files = _chain(path, progress(path))
    if not files:
        raise RunError(f"run={path} has no saved rounds yet; continue it with --resume {path}.")
    again = f"restore it, or play its rounds again with --resume {path}"
    return datasets.concatenate([upgrade(read_dataset(file, again)) for file in files])


def superseded(path: Path) -> list[Path]:
    """What a finished run has no use for: its stretches, and all states but the last."""
    if not (path / "record.nc").is_file():
        return []
    return [*list(_states(path).values())[1:], *(file for _, _, file in _segments(path))]


def finish(path: Path) -> xr.Dataset:
    """Merges the stretches of a finished run into record.nc.

    Raises:
      DiskError: it cannot be written; nothing that was saved is lost.
    """
    record = read(path)
    with writing(path, f", then continue with lapg train --resume {path}; all rounds are saved"):
        if not (path / "record.nc").is_file():
            write_dataset(path / "record.nc", record)
        for file in superseded(path):
            file.unlink()
    return record
