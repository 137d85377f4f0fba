"""The two apps of a Flower federation, configured by the settings in the app's own configuration."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lapg import record
from lapg.experiments.build import Built, build
from lapg.experiments.config import Config, agreed, from_dict, to_dict
from lapg.experiments.loop import advance
from lapg.experiments.run import read_config
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.limits import Limits
from lapg.runtimes.flower.runtime import TransportRuntime
from lapg.runtimes.flower.transport import Terms


def read_settings(run_config: Any) -> Config:
    """Reads the experiment of a run: TOML text, as `lapg train --config` reads it from a file, under the name ``experiment``.

    Raises:
      ValueError: it is missing, is not TOML, or has a setting that does not fit.
    """
    try:
        return from_dict(tomllib.loads(str(run_config["experiment"])))
    except KeyError as error:
        raise ValueError("[tool.flwr.app.config] must have experiment, the settings as TOML text, got none.") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"experiment must be TOML text: {error}.") from error


def read_terms(run_config: Any) -> Terms:
    """Reads what is played; called in every process."""
    return prepare(read_settings(run_config))[0]


def prepare(config: Config, built: Built | None = None) -> tuple[Terms, Limits]:
    """Builds what is played, one lane for each seed, and the limits of the controller's waiting.

    Raises:
      ValueError: a setting does not fit.
    """
    built = built or build(config)
    hyper = {name: np.asarray(value, np.asarray(jax.numpy.zeros(())).dtype)[()] for name, value in built.hyper.items()}
    terms = Terms(Compiled(built.recipe, built.problem, hyper), hyper, config.seed_list, agreed(config))
    waits = {name: getattr(config.cluster, name) for name in ("deadline", "quorum", "max_silent_rounds", "timeout")}
    return terms, Limits(**waits).checked(built.problem.num_learners)


def play(run_config: Any, gather: Any) -> None:
    """Runs the controller's side of a run, or resumes it, in the run directory ``out``; a finished one is left as it is.

    Args:
      gather: see `lapg.runtimes.flower.apps`.
    Raises:
      RunError: ``out`` is something else, or another run.
    """
    config, path = read_settings(run_config), Path(str(run_config["out"]))
    if not (path / "config.json").is_file():
        record.check_free(path)
        with record.owned(path, "out"):
            record.create(path, to_dict(config))
    elif agreed(read_config(path)) != agreed(config):
        raise record.RunError(f"out={path} must be new, or this very run, but other settings were played there.")
    if (path / "record.nc").is_file():
        print(f"nothing to do: {path} is complete", flush=True)
        return
    with record.owned(path / "flower"):  # the directory itself is held by who asked for the run, if that is here
        record.recover(path)
        _play(path, config, gather)


def _play(path: Path, config: Config, gather: Any) -> None:
    terms, limits = prepare(config)
    transport = gather(terms, config.cluster.timeout)
    start = record.read_initial(path)
    common = {"chunk_rounds": config.chunk_rounds, "evaluation": config.scoring}
    lanes = TransportRuntime(terms, transport, limits, initial_params=start, **common)

    def tell(segment: Any, until: int, /) -> None:
        record.write_text(path / "flower" / "traffic.json", json.dumps(transport.traffic, indent=1))
        sent = segment["sent"]
        print(f"{until} rounds are saved; uploads in the last ones: {int(sent.sum())} of {sent.size}", flush=True)

    advance(path, config, lanes, callbacks=(tell,), heed_signals=False)


def client_app() -> Any:
    """Makes the ClientApp; see docs/federation.md."""
    from lapg.runtimes.flower import apps

    return apps.client_app(read_terms)


def server_app() -> Any:
    """Makes the ServerApp; see docs/federation.md."""
    from lapg.runtimes.flower import apps

    return apps.server_app(play)
