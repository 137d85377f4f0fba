"""Ends processes whose starter is gone, however it went; a program of its own, which imports nothing of lapg.

Whoever starts it holds the other end of its standard input, writes a line with the number of every process that is to end with it, and need not do
anything else: when it is gone, by force even, the pipe ends.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterable
from typing import Any

GRACE = 5.0
"""Seconds that processes have to end by themselves."""


def end(processes: Iterable[Any]) -> None:
    """Ends processes (of psutil) and whatever they have started, if need be by force."""
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
    """Reads numbers of processes until there is nobody left to write them; then ends those, and removes the directory that is named."""
    import psutil

    wards = []
    for line in sys.stdin:
        with contextlib.suppress(psutil.NoSuchProcess):
            wards.append(psutil.Process(int(line)))
    end(wards)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
