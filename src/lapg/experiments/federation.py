"""The two apps of a Flower federation, from settings in the app's own configuration."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lapg import record
from lapg.experiments.build import build
from lapg.experiments.config import Config, from_dict, to_dict
from lapg.runtimes import deployed
from lapg.runtimes.compiled import Compiled
from lapg.runtimes.federated import Lane
from lapg.runtimes.hosts import ControllerHost
from lapg.runtimes.protocol import Log

AGREED = ("problem", "estimator", "method", "batch_size", "rounds", "first_seed")


def read_settings(run_config: Any) -> Config:
    """The experiment of a run: TOML text, as `lapg train --config` reads it from a file, under the name ``experiment``.

    Raises:
      ValueError: it is missing, is not TOML, or has a setting that does not fit.
    """
    try:
        config = from_dict(tomllib.loads(str(run_config["experiment"])))
    except KeyError as error:
        raise ValueError("[tool.flwr.app.config] must have experiment, the settings as TOML text, got none.") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"experiment must be TOML text: {error}.") from error
    return dataclasses.replace(config, seeds=1)


def open_lane(run_config: Any) -> Lane:
    """What is played: one seed, the first."""
    config = read_settings(run_config)
    built = build(config)
    hyper = {name: np.asarray(value, np.asarray(jax.numpy.zeros(())).dtype)[()] for name, value in built.hyper.items()}
    agreed = {name: to_dict(config)[name] for name in AGREED}
    return Lane(Compiled(built.recipe, built.problem, hyper), hyper, config.first_seed, config.rounds, agreed)


def begin(lane: Lane) -> ControllerHost:
    """The controller before round 0."""
    start = deployed.begin(lane.compiled, lane.hyper, lane.seed)
    return ControllerHost(lane.compiled, lane.hyper, lane.seed, start)


def finish(run_config: Any, host: ControllerHost, logs: list[Log]) -> None:
    """Leaves a run directory like that of any other run, at ``out``; a learner's diagnostics and scores stay with it, and are missing there."""
    path, config = Path(str(run_config["out"])), read_settings(run_config)
    log = jax.tree.map(lambda *leaves: np.stack(leaves)[None], *logs)
    params = np.asarray(host.state.params)[None]
    record.create(path, to_dict(config), None)
    segment = record.to_dataset(log, first=0, seeds=config.seed_list, params=params, wall=0.0)
    record.write_dataset(path / "record.nc", segment)


def client_app() -> Any:
    """The ClientApp; see docs/federation.md."""
    from lapg.runtimes import flower

    return flower.client_app(open_lane)


def server_app() -> Any:
    """The ServerApp; see docs/federation.md."""
    from lapg.runtimes import flower

    return flower.server_app(open_lane, begin, finish)
