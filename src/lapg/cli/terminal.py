"""What all commands share: the terminal."""

import difflib
import functools
import inspect
import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

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


@contextmanager
def one_line_errors(
    commands: Mapping[str, Callable[..., Any]], arguments: Sequence[str]
) -> Iterator[dict[str, Callable[..., Any]]]:
    """The commands, and until one of them begins, usage errors as one line in place of tyro's boxes.

    Raises:
      ValueError: the command line does not parse; with the nearest name.
    """
    real, caught = sys.stderr, io.StringIO()

    def begins(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(inspect.unwrap(command))
        def run(*args: Any, **options: Any) -> Any:
            sys.stderr = real
            real.write(caught.getvalue())
            return command(*args, **options)

        return run

    sys.stderr = caught
    try:
        yield {name: begins(command) for name, command in commands.items()}
    except SystemExit as stop:
        if sys.stderr is caught and stop.code == 2:
            typed = [word for word in arguments[:1] if word in commands]
            raise ValueError(
                f"{_one_line(caught.getvalue(), list(commands))}; see {' '.join(['lapg', *typed, '--help'])}."
            ) from None
        raise
    finally:
        sys.stderr = real


def _one_line(box: str, commands: list[str]) -> str:
    """What a box of tyro's says, as one line."""
    rows = [row.strip(" \t│|") for row in box.splitlines() if not row.startswith(("╭", "╰", "+"))]
    sections = [" ".join(part.split()) for part in re.split("[─-]{5,}", "\n".join(rows))]
    near, said = None, []
    for section in sections:
        if section.startswith("Perhaps you meant"):
            near = (re.findall(r"--[\w.-]+", section) or [None])[0]
        elif section and not section.startswith(("Argument helptext", "For full helptext")):
            said.append(section.strip(". "))
    if not box.startswith("╭"):  # in ASCII the box's title is a row
        said = said[1:]
    unknown = re.match(r"Unrecognized options: (\w+)", said[0]) if said else None
    if unknown and near is None:
        near = next(iter(difflib.get_close_matches(unknown[1], commands, 1)), None)
    meant = f" (did you mean {near}?)" if near else ""
    return f"{'; '.join(said)}{meant}" if said else box
