"""Sweeps: methods that differ in numbers alone, played side by side in one compiled program, and their curves in a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import track

from lapg import record
from lapg.comparison.curves import COSTS, Curve, running_costs
from lapg.costs import ledger
from lapg.costs.links import Traffic
from lapg.experiments.build import build
from lapg.experiments.config import Choice, Config, to_dict
from lapg.experiments.size import check_size
from lapg.runtimes import runtime_of


def sweep(config: Config, methods: Sequence[Choice], *, console: Console, label: str) -> xr.Dataset:
    """Plays methods that differ in numbers alone side by side: lanes are (point, seed), compiled once.

    Returns:
      Score (mean over learners), uploads, bits and steps so far with dims (point, seed, round); upload rates by learner.
    Raises:
      ValueError: θ^k is not to be scored.
    """
    if not config.scoring.every:
        raise ValueError("evaluation.every must be >= 1 to tune methods, which are chosen by their scores, got 0.")
    built = [build(config.playing(method)) for method in methods]
    check_size(config, built[0], len(methods) * config.seeds)
    num_points, seeds, dtype = len(methods), config.seed_list, np.asarray(jnp.zeros(())).dtype
    hypers = {name: np.repeat(np.array([b.hyper[name] for b in built], dtype), len(seeds)) for name in built[0].hyper}
    runtime = runtime_of(built[0].problem)
    options = {"chunk_rounds": config.chunk_rounds, "evaluation": config.scoring}
    lanes = runtime(built[0].recipe, built[0].problem, hypers, seeds * num_points, **options)
    state, logs = lanes.start(), []
    for first in track(range(0, config.rounds, config.chunk_rounds), f"{label}: {num_points} points", console=console):
        state, log = lanes.advance(state, first, config.rounds)
        scores = (log.scores["score_scaled"].mean(-1), log.scores["score_raw"].mean(-1), log.training_steps)
        went = log.participated, log.downlink_bits, log.sent
        contacted, answered = ledger.messages(*went, heartbeat=config.heartbeat)
        logs.append((*scores, log.uplink_bits, log.sent, log.downlink_bits, contacted, answered, log.participated))
    score, raw_score, steps, *messages = (np.concatenate(parts, 1) for parts in zip(*logs, strict=True))
    fields = {"score": score, "raw_score": raw_score} | running_costs(Traffic(*messages), steps=steps)
    dims, shape = ("point", "seed", "round"), (num_points, len(seeds))
    variables: dict[str, Any] = {name: (dims, value.reshape(*shape, -1)) for name, value in fields.items()}
    rates = ledger.upload_fraction(messages[1])
    variables["evaluated"] = "round", config.scoring.is_due(np.arange(config.rounds))
    variables["upload_rate"] = ("point", "seed", "learner"), rates.reshape(*shape, -1)
    return xr.Dataset(variables, {"seed": seeds})


def _curve(point: xr.Dataset) -> Curve:
    evaluated = np.flatnonzero(point["evaluated"].values)
    return Curve(
        score=point["score"].values[:, evaluated].astype(float),
        raw_score=point["raw_score"].values[:, evaluated].astype(float),
        costs={str(name): point[name].values for name in point if name in COSTS},
        upload_rates=point["upload_rate"].values.mean(0),
        noise_to_signal=np.full(point.sizes["round"], np.nan),
        evaluated=evaluated,
    )


def sweep_curves(config: Config, methods: Sequence[Choice], file: Path, *, console: Console, label: str) -> list[Curve]:
    """A sweep's curves, one for each method: from its file, or played and saved there.

    Raises:
      RunError: the file holds another sweep.
    """
    asked = json.dumps([to_dict(config.playing(method)) for method in methods])
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        played = sweep(config, methods, console=console, label=label)
        record.write_dataset(file, played.assign_attrs(asked=asked))
    data = record.read_dataset(file)
    if data.attrs.get("asked") != asked:
        raise record.RunError(
            f"{file} holds another sweep than the one asked for; choose a new directory, or ask for the same one."
        )
    return [_curve(data.isel(point=index)) for index in range(len(methods))]
