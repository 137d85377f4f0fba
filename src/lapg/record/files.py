"""Files that survive a kill, a power cut and a full disk: the old one or the new one, never half of it; and a seal that says what was written.

A sealed file ends in a line ``sha256 ...`` after its content. It covers the content, the file's own name, and the owner that it belongs to, so that
neither a changed byte nor another file in its place is taken for it.
"""

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.(json|md|npy|npz|nc|eqx)\.\d+")
_SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n\Z")
_SEAL_BYTES = len("\nsha256 \n") + 64
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make the disk writable",
    errno.EACCES: "have its permissions changed",
    errno.EPERM: "have its permissions changed",
    errno.EIO: "have the disk checked",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "give a path whose parts are directories",
    errno.EEXIST: "give a path whose parts are directories",
    errno.ELOOP: "give a path whose links do not lead in a circle",
    errno.ENOENT: "give a place that exists",
}


class RunError(ValueError):
    """A run directory that cannot be used, and what to do about it."""


class DiskError(OSError):
    """A file that could not be written, and what to do about it; what was saved before is whole."""

    def __init__(self, error: OSError, path: Path, after: str) -> None:
        super().__init__(error.errno, reason(error), str(error.filename or path))
        self.after = after

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}; {remedy(self)}{self.after}."


@contextmanager
def writing(path: Path, after: str) -> Iterator[None]:
    """Says what to do when the disk fails, and what comes ``after`` that.

    Raises:
      DiskError: it did.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(error, path, after) from error


def reason(error: Exception) -> str:
    """What an error says, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def remedy(error: OSError) -> str:
    """What to do about an error of the operating system."""
    return _REMEDIES.get(error.errno or 0, "see what the system says")


@contextmanager
def usable(name: str, path: Path) -> Iterator[None]:
    """Turns what the operating system says of a place into a `RunError` that names it, the rule and the remedy."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename and str(error.filename) != str(path) else ""
        other = ", or choose another --out" if name == "out" else ""
        raise RunError(f"{name}={path} cannot be used ({reason(error)}{where}); {remedy(error)}{other}.") from error


def expand(path: str | Path) -> Path:
    """The place that a user means: ``~`` is the home directory.

    Raises:
      ValueError: it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"a directory must be given as a path, got {path!r}; a Run has its own as run.path.")
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user, so it is a name like any other
        return Path(path)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Writes beside ``path``, syncs and renames: readers see the old file or the new one, also after a power cut.

    Raises:
      OSError: it cannot be written; the old file is whole, and nothing lies beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, reason(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one step (see `replace_file`)."""
    replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))


def _sync(path: Path) -> None:
    """Waits until a file's content, or the names in a folder, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # such systems do not open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # some file systems sync no folders
            raise
    finally:
        os.close(handle)


def make_folder(path: Path, exist_ok: bool = True) -> None:
    """Makes a folder and those above it, on the disk when this returns.

    Raises:
      FileExistsError: it is there already, and must not be; or it is a file.
    """
    if exist_ok and path.is_dir():
        return
    if not path.parent.exists():
        make_folder(path.parent)
    path.mkdir(exist_ok=exist_ok)
    _sync(path.parent)


def contents(folder: Path) -> list[Path]:
    """What counts in a folder: neither its lock nor temporary files, of this process or of killed ones."""
    return [item for item in folder.iterdir() if item.name != LOCK and not _TEMPORARY.fullmatch(item.name)]


def sweep(folder: Path) -> None:
    """Removes the temporary files of killed processes. Only for the folder's owner."""
    for item in list(folder.iterdir()):
        if _TEMPORARY.fullmatch(item.name):
            item.unlink(missing_ok=True)


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sealed(content: bytes, name: str, owner: str) -> bytes:
    """Content with the seal of a file of this name and owner."""
    return content + f"\nsha256 {checksum(f'{owner}/{name}/'.encode() + content)}\n".encode()


def unsealed(content: bytes, name: str, owner: str | None) -> bytes:
    """Content without its seal; without an owner files may be without one, as older versions left them.

    Raises:
      ValueError: it is not what was written.
    """
    match = _SEAL.search(content, max(0, len(content) - _SEAL_BYTES))
    if match is None:
        if owner is None:
            return content
        raise ValueError("its checksum is missing")
    inner = content[: match.start()]
    if sealed(inner, name, owner or "") != content:
        raise ValueError("its checksum does not match")
    return inner
