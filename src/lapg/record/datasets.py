"""The record of a stretch of rounds as labelled arrays, and as the bytes of a NetCDF file."""

from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from xarray.backends import H5NetCDFStore

from lapg.costs import ledger
from lapg.rounds import Log

RENAMED = {"heard": "contacted", "trigger_left": "trigger_statistic", "trigger_right": "trigger_threshold"}
"""Variables of older records, and their names today."""


def to_dataset(
    log: Log, *, first: int, seeds: list[int], params: np.ndarray, wall: float, heartbeat: bool = True
) -> xr.Dataset:
    """Labels the log of a stretch of rounds, leading axes (seed, round).

    Bits are payload without headers; ``contacted`` and ``answered`` say who was sent a message, a header alone or more, and who sent one
    (`lapg.costs.ledger.messages`); what training batches scored is called ``training_*``, where that is not θ^k's score itself; ``wall_seconds`` is the run's clock at the end of the stretch; ``params`` is θ after it.
    """
    per_learner, per_round = ("seed", "round", "learner"), ("seed", "round")
    rounds = first + np.arange(log.sent.shape[1])
    messages = {name: getattr(log, name) for name in ("participated", "downlink_bits", "sent", "uplink_bits")}
    both = log.participated, log.downlink_bits, log.sent
    contacted, answered = ledger.messages(*both, heartbeat=heartbeat, missing=log.faults.get("missing", 0))
    fields = {**messages, "contacted": contacted, "answered": answered, **vars(log.learner), **log.scores}
    fields |= {name: getattr(log, name) for name in ("evaluated", "training_steps", "evaluation_steps")}
    fields |= {f"training_{name}": value for name, value in log.training_scores.items()}
    fields |= {f"fault_{name}": value for name, value in log.faults.items()}
    variables: dict[str, Any] = {name: (per_learner, np.asarray(value)) for name, value in fields.items()}
    variables |= {name: (per_round, np.asarray(value)) for name, value in vars(log.controller).items()}
    variables["wall_seconds"] = ("round", np.full(rounds.shape, wall))
    variables["params"] = (("seed", "parameter"), params)
    coordinates = {"seed": seeds, "round": rounds, "learner": np.arange(log.sent.shape[2])}
    return xr.Dataset(variables, coordinates, {"header_bits": ledger.HEADER_BITS})


def upgrade(dataset: xr.Dataset) -> xr.Dataset:
    """Brings an older record up to date: variables have today's names; what was not counted then, such as steps, is left out.

    Messages went to whoever took part, and came from whoever uploaded. θ^k was scored in every round, for all learners whose answer came.
    """
    dataset = dataset.rename({old: new for old, new in RENAMED.items() if old in dataset})
    if "contacted" not in dataset:
        dataset = dataset.assign(contacted=dataset["participated"], answered=dataset["sent"])
    if "evaluated" not in dataset:
        there = xr.ones_like(dataset["sent"], dtype=bool)
        if "fault_missing" in dataset:
            there = dataset["participated"] & (dataset["fault_missing"] == 0)
        dataset = dataset.assign(evaluated=there)
    return dataset


def concatenate(parts: list[xr.Dataset]) -> xr.Dataset:
    """Joins stretches of rounds that follow one another."""
    merged = xr.concat(
        [part.drop_vars("params") for part in parts],
        "round",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )
    return merged.assign(params=parts[-1]["params"]).assign_attrs(parts[-1].attrs)


def encode(dataset: xr.Dataset) -> bytes:
    """One NetCDF file, compressed. HDF5 makes it in its own memory: it does not survive a full disk, and through a stream it calls Python back."""
    encoding = {name: {"zlib": True, "complevel": 1} for name, value in dataset.data_vars.items() if value.ndim > 1}
    with h5py.File.in_memory(track_order=True) as file:
        with h5netcdf.File(file, "w") as netcdf:
            dataset.dump_to_store(H5NetCDFStore(netcdf), encoding=encoding)
        file.flush()
        return file.id.get_file_image()


def decode(content: bytes) -> xr.Dataset:
    """One NetCDF file.

    Raises:
      ValueError: it is damaged.
    """
    if not content:
        raise ValueError("it is empty")
    try:
        with h5py.File.in_memory(content) as file, h5netcdf.File(file, "r") as netcdf:
            return xr.open_dataset(H5NetCDFStore(netcdf)).load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # whatever HDF5 makes of a damaged file
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
