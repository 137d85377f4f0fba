"""What a run directory was asked to run: config.json, and θ⁰ if it came from another run.

config.json has a checksum of what it says, that of initial.npy included; in its name the other files are sealed.
"""

import io
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lapg.record.files import (
    RunError,
    checksum,
    contents,
    make_folder,
    reason,
    replace_file,
    sealed,
    sweep,
    unsealed,
    usable,
    writing,
)

FORMAT = 4
READABLE = (2, FORMAT)
"""Formats of runs that can be read; only those of this one can be resumed."""
INITIAL = "initial.npy"
PACKAGES = ("lapg", "jax", "jaxlib", "optax", "equinox", "numpy", "xarray")
_BEFORE_CHECKSUMS = {"format", "versions", "precision", "config"}
"""All that config.json may have where it has no checksum."""


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {name: metadata.version(name) for name in PACKAGES}


def check_free(path: Path) -> None:
    """Refuses a place where a new run cannot be.

    Raises:
      RunError: there is something at ``path`` already, or nothing can be there.
    """
    with usable("out", path):
        if path.exists() and not path.is_dir():
            raise RunError(f"out={path} must be a directory, but it is a file; choose another name.")
        if path.exists() and not _is_empty(path):
            raise RunError(
                f"out={path} must be a new or empty directory, but there is something in it; choose another name, or --resume it."
            )


def _is_empty(path: Path) -> bool:
    """Whether nothing counts there; a process killed between its first two files has left θ⁰ without a configuration."""
    (*others, last) = contents(path) or [None]
    if others or last is None or last.name != INITIAL:
        return last is None
    try:
        return bool(unsealed(last.read_bytes(), INITIAL, ""))
    except ValueError:  # not one of ours
        return False


def create(path: Path, config: dict[str, Any], initial: np.ndarray | None = None) -> None:
    """Makes the directory of a new run; ``initial`` is θ⁰ [seeds, d] where the problem's own is not used.

    Raises:
      RunError: there is something at ``path`` already, or nothing can be there.
      DiskError: it cannot be written.
    """
    check_free(path)
    with usable("out", path):
        make_folder(path)
        sweep(path)
    content = {"format": FORMAT, "versions": versions(), "precision": _precision(), "initial": None, "config": config}
    with writing(path, ", or choose another --out"):
        if initial is not None:
            stream = io.BytesIO()
            np.save(stream, initial)
            array = sealed(stream.getvalue(), INITIAL, "")
            content["initial"] = checksum(array)
            replace_file(path / INITIAL, lambda file: file.write_bytes(array))
        text = json.dumps(content | {"checksum": _checksum(content)}, indent=2)
        replace_file(path / "config.json", lambda file: file.write_text(text, encoding="utf-8"))


def _checksum(content: dict[str, Any]) -> str:
    """Of what config.json says, however it is laid out."""
    return checksum(json.dumps(content, sort_keys=True).encode())


def read_about(path: Path) -> dict[str, Any]:
    """All that config.json says.

    Raises:
      RunError: not a run directory, a damaged one, or one of another format.
    """
    file = path / "config.json"
    with usable("run", path):
        if not path.is_dir():
            raise RunError(f"run={path} must be the directory of a run, but there is no such directory.")
        if not file.is_file():
            raise RunError(
                f"run={path} must be the directory of a run, but it has no config.json; is it one level up or down?"
            )
        text = file.read_bytes()
    try:
        content = json.loads(text.decode())
        found, config = content["format"], content["config"]
        if found in READABLE and "checksum" not in content and not content.keys() <= _BEFORE_CHECKSUMS:
            raise ValueError("its checksum is missing")
        said = {name: value for name, value in content.items() if name != "checksum"}
        if found in READABLE and "checksum" in content and _checksum(said) != content["checksum"]:
            raise ValueError("its checksum does not match")
        if not isinstance(config, dict):
            raise TypeError("config must be a table")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file} must be a run's configuration, but it is damaged ({error}); restore it or start a new run."
        ) from error
    if found not in READABLE:
        raise RunError(
            f"run={path} has format {found}, this version of lapg reads formats {READABLE[0]} to {FORMAT}; install the version named in its config.json."
        )
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
      RunError: not a run directory, a damaged one, or one of another format.
    """
    return read_about(path)["config"]


def check_format(path: Path) -> None:
    """Refuses to resume a run of an older format, whose saved state is another one.

    Raises:
      RunError: it is one.
    """
    found = read_about(path)["format"]
    if found != FORMAT:
        raise RunError(
            f"run={path} must be of format {FORMAT} to be resumed, got {found}: an earlier version of lapg began it; what is there can be read, and a new run "
            f"can start from its parameters with --init-from {path}."
        )


def check_precision(path: Path) -> None:
    """Refuses to resume a run at another precision than it began with.

    Raises:
      RunError: JAX computes at another one here.
    """
    began = read_about(path).get("precision", _precision())
    if began != _precision():
        raise RunError(
            f"run={path} must go on in {began}, in which it began, got {_precision()}; set JAX_ENABLE_X64={int(began == 'float64')}."
        )


def _precision() -> str:
    return "float64" if jax.config.read("jax_enable_x64") else "float32"


def read_initial(path: Path) -> np.ndarray | None:
    """θ⁰ of a run that started from another one; None of any other run.

    Raises:
      RunError: it is damaged or missing.
    """
    file, known = path / INITIAL, read_about(path)
    if not (known["initial"] if "initial" in known else file.is_file()):
        return None
    try:
        content = file.read_bytes()
        if "initial" in known and checksum(content) != known["initial"]:
            raise ValueError("its checksum does not match")
        return np.load(io.BytesIO(content))
    except (OSError, ValueError, EOFError) as error:
        raise RunError(
            f"{file} must hold the parameters that this run started from, but it is damaged ({reason(error)}); start a new run."
        ) from error
