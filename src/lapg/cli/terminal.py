"""What all commands share: the terminal."""

import os
import select
import sys
from contextlib import suppress

import tyro
from rich.console import Console

Positional = tyro.conf.Positional
WIDE = 1000
"""Columns where there is no terminal, so that no table is wrapped in a file or a pipe."""
NARROWEST = 40


class _Console(Console):
    """Leaves it to the command line what becomes of a reader who has gone."""

    def on_broken_pipe(self) -> None:
        raise


def reader_has_gone() -> bool:
    """Whether our output is a pipe that nobody reads any more; what is left to write is dropped then."""
    with suppress(OSError, ValueError, AttributeError):  # no file, or a system without poll, or without such pipes
        output, poll = sys.stdout.fileno(), select.poll()
        poll.register(output, select.POLLOUT)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
            return True
    return False


def make_console() -> Console:
    """A console as wide as the terminal, or, where that is none, as any table; a terminal that claims to be narrower than a word has 80 columns."""
    if not sys.stdout.isatty():
        return _Console(width=WIDE)
    found = _Console()
    return found if found.width >= NARROWEST else _Console(width=80)


console = make_console()
