"""Plays a run in a Flower federation: writes the app, starts SuperLink and SuperNodes or uses running ones, submits the run, and follows it to its end."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from lapg import record
from lapg.experiments.build import Built
from lapg.experiments.config import Config, to_dict
from lapg.experiments.flower_apps import prepare
from lapg.experiments.loop import Callback, Interrupted, stop_signals
from lapg.experiments.progress import display
from lapg.experiments.soundness import scores
from lapg.runtimes.flower.loopback import SuperLink, loopback, program

APP = '"""The app: everything is in lapg, which is installed on every node."""\n\nfrom lapg.experiments import flower_apps\n\nclient = flower_apps.client_app()\nserver = flower_apps.server_app()\n'
LOOK_SECONDS = 20.0
"""Between two queries of the run's status at the SuperLink; each starts a program."""
ENDED = "finished:"
COMPLETED = "finished:completed"
STARTING = ("pending", "starting")


def check_flower(config: Config, built: Built, has_initial: bool = False) -> None:
    """Checks what can be checked before anything is started.

    Raises:
      ValueError: Flower is not installed, or a setting does not go with it.
    """
    program("flwr")
    cluster = config.cluster
    for name, remedy in {
        "processes": "every learner has a SuperNode of its own",
        "channels": "Flower has its own way of carrying messages",
        "insecure": "Flower's own connection says how it is secured",
    }.items():
        if getattr(cluster, name):
            raise ValueError(
                f"cluster.{name} goes with runtime ray, got {getattr(cluster, name)}; leave it out: {remedy}."
            )
    if has_initial and cluster.address is not None:
        raise ValueError(
            f"init_from must stay on this machine, got cluster.address {cluster.address!r}; leave one of them out."
        )
    prepare(config, built)


def federate(
    path: Path,
    config: Config,
    built: Built,
    initial: Any = None,
    *,
    show_progress: bool,
    callbacks: tuple[Callback, ...],
    checkpoint_seconds: float = 0.0,
) -> xr.Dataset:
    """Plays a run, or resumes it; its record. The run directory is the ServerApp's, which reads θ⁰ there and saves chunks; here it is only read.

    ``path``/flower has the app, the logs of what was started here, and Flower's own account of the run.

    Raises:
      ValueError: Flower is not installed or fails.
      RunError: the run is complete, but on another machine.
      Interrupted: by Ctrl-C or SIGTERM, with everything saved up to the last checkpoint.
    """
    own = (path / "flower").resolve()
    write_app(own / "app", path.resolve(), config)
    with stop_signals() as stopped, contextlib.ExitStack() as stack:
        if config.cluster.address is None:
            superlink = stack.enter_context(loopback(built.problem.num_learners, own, config.cluster.timeout))
        else:
            superlink = SuperLink(config.cluster.address, os.environ, own)
        run_id = str(superlink.flwr("run", str(own / "app"), superlink.name)["run-id"])
        follow = stack.enter_context(following(path, config, show_progress, callbacks))
        started, look = time.monotonic(), 0.0
        while True:
            follow()
            if stopped():
                if config.cluster.address is not None:
                    superlink.flwr("stop", run_id, superlink.name)
                raise Interrupted(path, record.progress(path))
            if time.monotonic() >= look or record.progress(path) == config.rounds:
                (entry,) = superlink.flwr("list", superlink.name, "--run-id", run_id)["runs"]
                look = time.monotonic() + LOOK_SECONDS
                if entry["status"].startswith(ENDED):
                    follow()
                    break
                if entry["status"] in STARTING and time.monotonic() > started + config.cluster.timeout:
                    raise ValueError(
                        f"the run must start within {config.cluster.timeout} s, got status {entry['status']}; see the logs in {own}."
                    )
            time.sleep(1.0)
    record.write_text(own / "flwr-list.json", json.dumps(entry, indent=1))
    if entry["status"] != COMPLETED:
        raise ValueError(
            f"the federation must complete the run, got {entry['status']} ({entry['status-details']}); see the logs in {own}, then --resume {path}."
        )
    if not (path / "record.nc").is_file():
        raise record.RunError(f"run={path} is complete, but on the machine of the ServerApp; copy it from there.")
    return record.finish(path)


@contextlib.contextmanager
def following(
    path: Path, config: Config, show_progress: bool, callbacks: tuple[Callback, ...]
) -> Iterator[Callable[[], None]]:
    """Makes the function that looks for newly saved rounds, shows them, and calls the callbacks."""
    seen = record.progress(path)
    with display(config, seen, show_progress) as report:

        def follow() -> None:
            nonlocal seen
            if record.progress(path) <= seen:
                return
            try:
                segment = record.read(path).isel(round=slice(seen, None))
            except record.RunError:
                return  # its files are being merged just now
            seen += segment.sizes["round"]
            values, known = scores(segment)
            report(segment["sent"].values, values.values[known.values], seen)
            for callback in callbacks:
                callback(segment, seen)

        yield follow


def write_app(path: Path, out: Path, config: Config) -> None:
    """Writes the app that is sent to the nodes: the settings that are not the defaults, and the directory of the run."""
    import tomli_w  # pyright: ignore[reportMissingImports]

    path.mkdir(parents=True, exist_ok=True)
    (path / "federation.py").write_text(APP, encoding="utf-8")
    settings = tomli_w.dumps(_given(to_dict(config), to_dict(Config())))
    flower = {
        "publisher": "lapg",
        "components": {"serverapp": "federation:server", "clientapp": "federation:client"},
        "config": {"out": str(out), "experiment": settings},
    }
    about = {"name": "lapg-federation", "version": "1.0.0", "description": "lapg on Flower", "license": "MIT"}
    project = {"project": about | {"dependencies": ["flwr>=1.41"]}, "tool": {"flwr": {"app": flower}}}
    (path / "pyproject.toml").write_text(tomli_w.dumps(project, multiline_strings=True), encoding="utf-8")


def _given(settings: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the settings that differ from the default, whole tables each."""
    return {name: _worded(value) for name, value in settings.items() if value != default.get(name)}


def _worded(value: Any) -> Any:
    """Converts a value to TOML, which has no None: the word stands for it."""
    if isinstance(value, Mapping):
        return {name: _worded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_worded(item) for item in value]
    return "None" if value is None else value
