"""A program that ends the processes of its parent when the parent has ended, even by SIGKILL; it imports nothing of lapg.

The parent holds the other end of its standard input, and writes the number of every process that is to end with it, one a line. When the parent has ended,
the pipe is closed.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterable
from typing import Any

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


def end(processes: Iterable[Any]) -> None:
    """Ends processes (of psutil) and all their children, by force if necessary."""
    import psutil

    family = []
    for root in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += [*root.children(recursive=True), root]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(family, timeout=GRACE)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def main() -> None:
    """Reads process numbers until the pipe is closed; then ends those processes, and removes the directory that the argument names."""
    import psutil

    guarded = []
    for line in sys.stdin:
        with contextlib.suppress(psutil.NoSuchProcess):
            guarded.append(psutil.Process(int(line)))
    end(guarded)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
