"""Running an experiment, and going on with it."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from lapg import record
from lapg.experiments.build import Built, build, parts
from lapg.experiments.config import Config, agreed, as_config, to_dict
from lapg.experiments.flower_launch import check_flower, federate
from lapg.experiments.loop import Callback, Interrupted, advance
from lapg.experiments.run import Run, as_run, load, read_config
from lapg.experiments.silence import silence
from lapg.experiments.size import check_size
from lapg.experiments.trust import Trust, require_trust
from lapg.record.files import expand, make_folder, usable
from lapg.runtimes import DISTRIBUTED, Runtime, RuntimeName, Sequential, distributed, runtime_of, use_all_cores


def default_out(config: Config) -> Path:
    """runs/METHOD-DATE-TIME, or the first of ...-2, ...-3 and so on that is not taken."""
    first = Path("runs") / f"{config.method.replace(':', '.')}-{time.strftime('%Y%m%d-%H%M%S')}"
    others = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], others) if not path.exists())


def _make_default_out(config: Config) -> Path:
    """Makes that directory, so that no process that starts in the same second has it."""
    while True:
        path = default_out(config)
        try:
            make_folder(path, exist_ok=False)
            return path
        except FileExistsError:
            continue


def train(
    config: Config | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    runtime: RuntimeName | None = None,
    init_from: Run | None = None,
    show_progress: bool = True,
    checkpoint_seconds: float = 20.0,
    callbacks: tuple[Callback, ...] = (),
) -> Run:
    """Runs an experiment and leaves it in a new directory.

    Args:
      out: the directory; None is runs/METHOD-DATE-TIME. One that holds something is never touched.
      runtime: in place of the configuration's.
      init_from: start from the final parameters of another run instead of the problem's own θ⁰; seeds are matched in order, and around.
      checkpoint_seconds: at most so much work and a round are lost when the process is killed; with runtime flower, and with 0,
        ``config.chunk_rounds`` rounds.
      callbacks: called after every saved stretch of rounds.
    Raises:
      ValueError: the configuration does not fit, or takes more memory than there is.
      RunError: ``out`` is taken, or cannot be used.
      DiskError: a file cannot be written; everything up to the last checkpoint is saved.
      Interrupted: by Ctrl-C, SIGTERM or SIGHUP, with everything saved.
    """
    config = as_config(config)
    config = config if runtime is None else dataclasses.replace(config, runtime=runtime)
    use_all_cores()
    built = build(config)
    check_size(config, built)
    initial = None if init_from is None else _initial_params(as_run(init_from, "init_from"), built, config)
    if config.runtime in ELSEWHERE:
        ELSEWHERE[config.runtime].check(config, built, initial is not None)
    with usable("out", Path("runs")):
        path = _make_default_out(config) if out is None else expand(out)
    record.check_free(path)
    with record.owned(path, "out"):
        record.create(path, to_dict(config), initial)
        return _play(path, config, built, initial, show_progress, checkpoint_seconds, callbacks)


def resume(
    path: str | Path,
    *,
    show_progress: bool = True,
    checkpoint_seconds: float = 20.0,
    callbacks: tuple[Callback, ...] = (),
    trust: Trust = False,
) -> Run:
    """Resumes an interrupted run, to bitwise the same end; a finished one is just loaded.

    Where the newest checkpoint is damaged, a line on stderr says so, and the rounds since the one before it are played again.

    Args:
      trust: see `load`.
    Raises:
      RunError: the directory is not a run's, is damaged, is being played, comes from another version or precision, or names code that is not trusted.
      DiskError: a file cannot be written; everything up to the last checkpoint is saved.
      Interrupted: by Ctrl-C, SIGTERM or SIGHUP, with everything saved.
    """
    path = expand(path)
    with usable("run", path):
        config = read_config(path)
        if (path / "record.nc").is_file() and not record.superseded(path):
            record.check_finished(path)
            return load(path, trust=trust)
        record.check_format(path)
    require_trust(config, path, trust, resumed=True)
    record.check_precision(path)
    use_all_cores()
    built = build(config)
    with record.owned(path):
        initial = record.read_initial(path)
        return _play(path, config, built, initial, show_progress, checkpoint_seconds, callbacks)


def make_lanes(config: Config, built: Built, initial: np.ndarray | None = None) -> Runtime:
    """One lane per seed, all with the same hyperparameters, on the configuration's runtime.

    Raises:
      ValueError: the runtime is not installed, cannot play the problem, or has no lanes in this process.
    """
    if config.runtime in ELSEWHERE:
        raise ValueError(
            f"runtime {config.runtime!r} plays in processes of its own; use lapg.train, or another runtime."
        )
    hypers = {
        name: np.full(config.seeds, value, np.asarray(jnp.zeros(())).dtype) for name, value in built.hyper.items()
    }
    common: dict[str, Any] = {"chunk_rounds": config.chunk_rounds, "initial_params": initial}
    common["evaluation"] = config.scoring
    if config.runtime in DISTRIBUTED:
        common |= {"built": (built.recipe, built.problem), "settings": agreed(config)} | vars(config.cluster)
        return distributed(config.runtime)(partial(parts, config), hypers, config.seed_list, **common)
    runtime = runtime_of(built.problem, config.runtime)
    if runtime is Sequential:
        common["heartbeat"] = config.heartbeat
    return runtime(built.recipe, built.problem, hypers, config.seed_list, **common)


def _initial_params(source: Run, built: Built, config: Config) -> np.ndarray:
    params = source.record["params"].values
    wanted = jax.eval_shape(built.problem.init, jax.random.key(0)).shape[0]
    if params.shape[1] != wanted:
        raise ValueError(
            f"init_from={source.path} has {params.shape[1]} parameters, this problem needs {wanted}; use the same problem and network."
        )
    return params[np.arange(config.seeds) % len(params)]


class Player(NamedTuple):
    """Has a run played that cannot advance in this process.

    ``check: configuration, built, whether θ⁰ is given`` raises before anything is started · ``play: path, configuration, built, θ⁰ → record``.
    """

    check: Callable[[Config, Built, bool], None]
    play: Callable[..., xr.Dataset]


ELSEWHERE = {"flower": Player(check_flower, federate)}
"""Runtimes whose controller is in another process."""


def play_here(
    path: Path, config: Config, built: Built, initial: np.ndarray | None = None, **telling: Any
) -> xr.Dataset:
    """Plays a run from where its directory stands to its end, the controller in this process; its record."""
    record.recover(path)
    with contextlib.closing(make_lanes(config, built, initial)) as lanes:
        return advance(path, config, lanes, anew=built.problem.collect is not None, **telling)


def _play(
    path: Path,
    config: Config,
    built: Built,
    initial: np.ndarray | None,
    show_progress: bool,
    checkpoint_seconds: float,
    callbacks: tuple[Callback, ...],
) -> Run:
    if show_progress:
        callbacks = (*callbacks, silence(config))
    play = ELSEWHERE[config.runtime].play if config.runtime in ELSEWHERE else play_here
    telling = {"show_progress": show_progress, "checkpoint_seconds": checkpoint_seconds, "callbacks": callbacks}
    try:
        return Run(path, config, play(path, config, built, initial, **telling), trust=True)  # its code has run already
    except KeyboardInterrupt:  # before the first round, or for the second time
        raise Interrupted(path, record.progress(path)) from None
