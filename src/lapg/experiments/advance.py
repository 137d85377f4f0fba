"""Playing a run to its end: chunks, progress, checkpoints, interruption."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import xarray as xr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lapg import record
from lapg.experiments.config import Config


class Interrupted(Exception):  # noqa: N818  (an outcome, not an error)
    """The run was asked to stop; everything up to ``round`` is saved in ``path``."""

    def __init__(self, path: Path, round: int) -> None:
        super().__init__(f"interrupted after {round} rounds, all saved in {path}")
        self.path, self.round = path, round


@runtime_checkable
class Watcher(Protocol):
    """Told about every finished stretch of rounds."""

    def __call__(self, segment: xr.Dataset, until: int, /) -> None: ...


def advance(
    path: Path,
    config: Config,
    lanes: Any,
    *,
    show_progress: bool = False,
    checkpoint_seconds: float = 0.0,
    watchers: tuple[Watcher, ...] = (),
    heed_signals: bool = True,
) -> xr.Dataset:
    """Plays a run from where its directory stands to its end; its record.

    Args:
      lanes: the runtime.
      heed_signals: whether Ctrl-C and SIGTERM end it at the next checkpoint.
    Raises:
      Interrupted: by such a signal, with everything saved.
    """
    first = record.progress(path)
    clock = 0.0
    if first:
        state = record.read_state(path, lanes.state_shape())
        clock = float(record.read(path)["wall_seconds"][-1])
    else:
        state = lanes.start()

    saved, logs, round = first, [], first
    started = last_save = time.monotonic()

    def save() -> None:
        nonlocal saved, logs, last_save
        if not logs:
            return
        log = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs)
        params = np.asarray(state.controller.params)[: config.seeds]
        segment = record.to_dataset(
            log,
            first=saved,
            seeds=config.seed_list,
            params=params,
            wall=clock + time.monotonic() - started,
            heartbeat=config.heartbeat,
        )
        record.save(path, segment, state)
        saved, logs, last_save = round, [], time.monotonic()
        for watcher in watchers:
            watcher(segment, round)

    with progress_bar(config, first, show_progress) as report, stop_signals(heed_signals) as stopped:
        while round < config.rounds:
            state, log = lanes.advance(state, round, config.rounds)
            round = min(round + config.chunk_rounds, config.rounds)
            logs.append(log)
            report(log.sent, log.scores["score_scaled"], round)
            if stopped() or round == config.rounds or time.monotonic() - last_save >= checkpoint_seconds:
                save()
            if stopped() and round < config.rounds:
                raise Interrupted(path, round)
    return record.finish(path)


@contextmanager
def stop_signals(heed: bool = True) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a stop between chunks; a second Ctrl-C stops at once. Outside the main thread signals are left alone."""
    asked = []

    def ask(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    old = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM) if heed else ():
            old[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        pass
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(config: Config, first: int, show: bool) -> Iterator[Callable[[Any, Any, int], None]]:
    """A progress bar with ETA, the score of the last chunk and the upload fraction so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    sent = np.zeros(2)
    with Progress(*columns, disable=not show) as bar:
        task = bar.add_task(config.method.name, total=config.rounds, completed=first, status="compiling")

        def report(uploads: Any, scores: Any, round: int) -> None:
            sent[:] += uploads.sum(), uploads.size
            status = f"score {np.nanmean(scores):.3f}  uploads {sent[0] / sent[1]:.1%}"
            bar.update(task, completed=round, status=status)

        yield report
