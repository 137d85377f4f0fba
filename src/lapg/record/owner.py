"""A directory with one owner: whoever writes there holds a lock, which the kernel releases when the process dies."""

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from lapg.record.files import LOCK, RunError, make_folder, usable

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def owned(path: Path, name: str = "run") -> Iterator[None]:
    """Holds a directory, which is made if there is none, for as long as the block lasts. Where a file system has no locks, nothing is held.

    Args:
      name: what the user calls the directory.
    Raises:
      RunError: another process holds it, or it cannot be written to.
    """
    with usable(name, path):
        make_folder(path)
        handle = _lock(path, name)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (path / LOCK).unlink()  # while it is still held, so that it is nobody else's
        os.close(handle)


def _lock(path: Path, name: str) -> int:
    """The open lock file, which says who holds it."""
    file = path / LOCK
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _hold(handle)
            if os.path.samestat(os.fstat(handle), file.stat()):
                os.truncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
                return handle
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace") or "another process"
            os.close(handle)
            raise RunError(
                f"{name}={path} must be played by one process at a time, but {holder} does; wait for it, or stop it first."
            ) from None
        except FileNotFoundError:  # its last owner has just removed it
            pass
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _hold(handle: int) -> None:
    """Takes the lock or raises `BlockingIOError`."""
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
