"""What a run shows while it is played: a bar on a terminal, elsewhere a plain line from time to time."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lapg.experiments.config import Config

LINE_SECONDS = 10.0
"""Between two plain lines."""
STARTING = "first round: compiling and playing"
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
    TextColumn("{task.fields[status]}"),
)


class Display:
    """Says how far a run is. What nobody can read any more is left out, for the run does not need it."""

    def __init__(self, config: Config, first: int, bar: Progress | None, *, plain: bool) -> None:
        self._name, self._total, self._first, self._round = config.method, config.rounds, first, first
        self._status, self._sent, self._score = STARTING, np.zeros(2), ""
        self._bar, self._plain = bar, plain
        self._began = self._said = time.monotonic()
        self._running: tuple[int, float] | None = None
        """After the first rounds of all, which are compiled: their number, and when."""
        self._task = None if bar is None else bar.add_task(self._name, total=self._total, completed=first, status="")
        self.reach(first)

    def __call__(self, uploads: Any, scores: Any, round: int) -> None:
        """Uploads of the rounds up to ``round``, and the scores that are known of them."""
        self._sent += uploads.sum(), uploads.size
        if scores.size:
            self._score = f"score {np.nanmean(scores) if np.isfinite(scores).any() else np.nan:.3f}  "
        self._status = f"{self._score}uploads {self._sent[0] / self._sent[1]:.1%}"
        self.reach(round)

    def reach(self, round: int) -> None:
        """So many rounds are done."""
        self._round = round
        if round > self._first and self._running is None:
            self._running = round, time.monotonic()
        if round > self._first and self._status == STARTING:
            self._status = ""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=round, status=self._status)
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self.line()

    def line(self) -> None:
        """The plain line, whenever it was said last."""
        self._said = now = time.monotonic()
        after, since = self._running or (self._round, now)
        done, left = self._round - after, self._total - self._round
        words = f", about {_clock((now - since) / done * left)} left" if done else ""
        spent = _clock(now - self._began)
        self.say(f"{self._name}: {self._round} of {self._total} rounds, {spent}{words}  {self._status}".rstrip())

    def say(self, text: str) -> None:
        """A line of its own."""
        try:
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif self._plain:
                print(text, flush=True)
        except OSError:
            self._plain = False
            with suppress(OSError, ValueError):  # or what is left to write fails again when the program ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def display(config: Config, first: int, show: bool) -> Iterator[Display]:
    """Shows nothing unless ``show``."""
    console = Console()
    if not show or not (console.is_terminal or console.is_jupyter):
        shown = Display(config, first, None, plain=show)
        yield shown
        if show:
            shown.line()
        return
    bar = Progress(*COLUMNS, console=console)
    bar.start()
    try:
        yield Display(config, first, bar, plain=False)
    finally:
        with suppress(OSError):  # a terminal that was closed
            bar.stop()
