"""What all commands share: the terminal."""

import sys

import tyro
from rich.console import Console

Positional = tyro.conf.Positional
WIDE = 1000
"""Columns where there is no terminal, so that no table is wrapped in a file or a pipe."""
NARROWEST = 40


def make_console() -> Console:
    """A console as wide as the terminal, or, where that is none, as any table; a terminal that claims to be narrower than a word has 80 columns."""
    if not sys.stdout.isatty():
        return Console(width=WIDE)
    found = Console()
    return found if found.width >= NARROWEST else Console(width=80)


console = make_console()
