"""Tells during a run that nobody uploads."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from rich import get_console

from lapg.experiments.config import Config
from lapg.experiments.loop import Callback
from lapg.methods import settings
from lapg.uplink.triggers.age_weighted import default_threshold

FRACTION, LEAST = 0.1, 20
"""Rounds without an upload before the first warning: this fraction of K, and at least so many."""


LOUDER = {
    "threshold": "lower the trigger's threshold",
    "xi": "lower --trigger.xi or --trigger.noise-weight",
    "rate": "raise --trigger.rate",
    "period": "lower --trigger.period",
}
"""What to do by the option that a trigger has."""


def louder(config: Config) -> str:
    """What to do about a run in which nobody has uploaded."""
    options = settings("trigger", config.parts["trigger"])
    return f"{next((words for name, words in LOUDER.items() if name in options), 'choose another trigger')}, or give it more rounds."


def silence(config: Config, tell: Callable[[str], None] | None = None) -> Callback:
    """A callback that tells when nobody, in any seed, has uploaded for a tenth of the rounds, and again each time that this has doubled.

    It says how near the trigger came to firing, max statistic/threshold since, and which threshold would have fired by then. Only for methods whose trigger compares
    (they have an option ``threshold`` or ``xi``); a period or a rate is silent as it was asked.

    Args:
      tell: what to do with the words; None prints them where the progress bar is.
    """
    options = settings("trigger", config.parts["trigger"])
    compares = "threshold" in options or "xi" in options
    say = tell or (lambda words: get_console().print(words, style="yellow", markup=False, soft_wrap=True))
    since, ratio = 0, 0.0
    limit = max(LEAST, FRACTION * config.rounds)

    def watch(segment: xr.Dataset, until: int, /) -> None:
        nonlocal since, ratio, limit
        uploaded = np.flatnonzero(segment["sent"].any(("seed", "learner")).values)
        if uploaded.size:
            since, ratio, limit = int(segment["round"][uploaded[-1]]) + 1, 0.0, max(LEAST, FRACTION * config.rounds)
            segment = segment.isel(round=slice(int(uploaded[-1]) + 1, None))
        ratio = max(ratio, _largest(segment))
        if compares and until - since >= limit:
            limit = 2 * (until - since)
            say(f"Nobody has uploaded in {until - since} rounds; {_remedy(config.rounds, options, ratio)}")

    return watch


def _largest(segment: xr.Dataset) -> float:
    """The largest statistic/threshold of the trigger; 0 where the threshold is infinite, or nothing was compared."""
    statistic, threshold = segment["trigger_statistic"].values, segment["trigger_threshold"].values
    ratios = np.divide(
        statistic, threshold, out=np.zeros_like(statistic), where=(threshold > 0) & np.isfinite(statistic)
    )
    return float(np.max(ratios, initial=0.0))


def _remedy(rounds: int, options: dict[str, Any], ratio: float) -> str:
    if ratio == 0:
        return "their triggers could not fire: the noise is not known (inf), or there is nothing to upload."
    near = f"the largest trigger ratio (statistic over threshold; above 1 it fires) since then is {ratio:.2g}"
    if "threshold" not in options:
        return f"{near}; a smaller --trigger.xi or --trigger.noise-weight, or --trigger.max-age, makes learners upload."
    threshold = default_threshold(rounds) if options["threshold"] is None else options["threshold"]
    if not isinstance(threshold, int | float):
        return f"{near}; lower the trigger's threshold."
    number = threshold * ratio
    digits = 10.0 ** (math.floor(math.log10(number)) - 1)
    return f"{near}, so --trigger.threshold {math.floor(number / digits) * digits:.6g} in place of {threshold:g} would have fired."
