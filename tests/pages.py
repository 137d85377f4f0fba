"""Runs documented pages, two at a time, each in a process of its own that begins with lapg imported; not a test."""

import os
import runpy
import sys
import traceback
from pathlib import Path

import lapg.comparison.study  # noqa: F401  (imported once, for all)

AT_ONCE = 2


def play(folder: Path) -> int:
    """A child process that runs the page of a folder, and what it prints into a file there; its id."""
    if child := os.fork():
        return child
    status = 1
    try:
        os.chdir(folder)
        sys.path[0] = str(folder)
        with Path("printed").open("w", encoding="utf-8") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            try:
                runpy.run_path("page.py", run_name="__main__")
                status = 0
            except BaseException:  # whatever it is, it fails the page
                traceback.print_exc()
        Path("status").write_text(str(status), encoding="utf-8")
    finally:
        sys.stdout.flush()
        os._exit(status)


def main(names: list[str]) -> None:
    """Plays the pages in the folders of these names below the current one."""
    waiting, running = [Path(name).resolve() for name in names], set()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.add(play(waiting.pop()))
        running.remove(os.wait()[0])


if __name__ == "__main__":
    main(sys.argv[1:])
