"""Plays a run to its end: stretches, progress, checkpoints, interruption."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import xarray as xr

from lapg import record
from lapg.experiments.config import Config
from lapg.experiments.progress import display
from lapg.experiments.soundness import unsound
from lapg.runtimes import Runtime

SHOW_SECONDS = 1.0
"""Between two looks at scores and uploads, where that costs nothing."""
ANEW = (
    "resumed: environments outside JAX are made anew, and what they or their wrappers kept between episodes begins anew"
)


class Interrupted(Exception):  # noqa: N818  (an outcome, not an error)
    """The run was asked to stop; everything up to ``round`` is saved in ``path``."""

    def __init__(self, path: Path, round: int) -> None:
        done = f"after {round} rounds, all saved in {path}" if round else f"before anything was saved in {path}"
        super().__init__(f"interrupted {done}")
        self.path, self.round = path, round


@runtime_checkable
class Callback(Protocol):
    """Called after every saved stretch of rounds, with its dataset and the round after it."""

    def __call__(self, segment: xr.Dataset, until: int, /) -> None: ...


def advance(
    path: Path,
    config: Config,
    lanes: Runtime,
    *,
    show_progress: bool = False,
    checkpoint_seconds: float = 0.0,
    callbacks: tuple[Callback, ...] = (),
    heed_signals: bool = True,
    anew: bool = False,
) -> xr.Dataset:
    """Plays a run from where its directory stands to its end; its record.

    Args:
      lanes: the runtime.
      checkpoint_seconds: from one checkpoint to the next, which comes with the first round after; 0 makes one after every ``config.chunk_rounds`` rounds.
      heed_signals: whether Ctrl-C, SIGTERM and SIGHUP end it, after the round at hand; where rounds are compiled, after about a second's.
      anew: whether the problem has environments whose own state is not saved; a resumed run then says so, and its record where (``resumed_at``).
    Raises:
      Interrupted: by such a signal, with everything saved.
      Exception: what a round has raised, with everything before it saved.
    """
    first = record.progress(path)
    clock, about = 0.0, dict[str, Any]()
    if first:
        before = record.read(path)
        clock = float(before["wall_seconds"][-1])
        if anew:
            about["resumed_at"] = [*np.atleast_1d(before.attrs.get("resumed_at", np.zeros(0, int))).tolist(), first]
        del before

    saved, logs, round = first, [], first
    started = last_save = last_look = time.monotonic()

    def save() -> None:
        nonlocal saved, logs, last_save
        if not logs:
            return
        log, exported = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs), lanes.export(state)
        segment = record.to_dataset(
            log,
            first=saved,
            seeds=config.seed_list,
            params=np.asarray(exported.controller.params),
            wall=clock + time.monotonic() - started,
            heartbeat=config.heartbeat,
        ).assign_attrs(about)
        record.save(path, segment, exported)
        saved, logs, last_save = round, [], time.monotonic()
        tell(segment)
        for callback in callbacks:
            callback(segment, round)

    with stop_signals(heed_signals) as stopped, display(config, first, show_progress) as shown:
        told = set[str]()

        def tell(segment: xr.Dataset) -> None:
            """Says once of each learner that its numbers are not finite."""
            for line in unsound(segment):
                who = line.split(":")[0]
                if who not in told:
                    shown.say(f"{line}; rounds {int(segment['round'][0])} to {int(segment['round'][-1])}")
                told.add(who)

        def pause(reached: int) -> bool:
            shown.reach(reached)
            now = time.monotonic()
            looks = not lanes.fetches and now - last_look >= SHOW_SECONDS
            return stopped() or (checkpoint_seconds > 0 and (looks or now - last_save >= checkpoint_seconds))

        if about:
            shown.say(ANEW)
        state = record.read_state(path, lanes.state_shape()) if first else lanes.start()
        while round < config.rounds and not stopped():
            last_look = time.monotonic()
            try:
                state, log = lanes.advance(state, round, config.rounds, pause)
            except Exception:
                with contextlib.suppress(Exception):  # or it would hide what has happened
                    save()
                raise
            round += log.sent.shape[1]
            logs.append(log)
            if round == config.rounds or time.monotonic() - last_save >= checkpoint_seconds:
                save()
            shown(log.sent, log.scores["score_scaled"][log.evaluated] if log.scores else np.zeros(0), round)
        save()
        if round < config.rounds:
            raise Interrupted(path, round)
    return record.finish(path)


@contextmanager
def stop_signals(heed: bool = True) -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM and SIGHUP ask for a stop between stretches; a second Ctrl-C stops at once. Outside the main thread signals are left alone.

    So is SIGHUP where it is ignored, as under nohup.
    """
    asked = []

    def ask(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    old = {}
    try:
        for number in wanted if heed else ():
            old[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        pass
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
