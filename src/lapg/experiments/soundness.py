"""Whether a run's numbers are finite: which learners' were not, since when, and how often."""

from typing import Any

import numpy as np
import xarray as xr


def known(record: xr.Dataset) -> Any:
    """[seed, round, learner]: whether a learner's scores are there; of one that did not answer in time they are not, and stand as NaN."""
    if "fault_missing" not in record:
        return xr.ones_like(record["sent"], dtype=bool)
    return record["participated"] & (record["fault_missing"] == 0)


def mean_score(record: xr.Dataset, *dims: str, name: str = "score_scaled") -> xr.DataArray:
    """The mean of the known scores over ``dims`` (all of them if none is named); NaN where one of these is not finite."""
    there, over = known(record), list(dims) or None
    unsound = (there & ~np.isfinite(record[name])).any(over)
    return record[name].where(there).mean(over).where(~unsound)


def unsound(record: xr.Dataset) -> list[str]:
    """A line for each learner whose innovations or scores were not finite in some round; nothing of a sound run."""
    scores = known(record) & ~np.isfinite(record["score_scaled"])
    wrong = (record["non_finite"].astype(bool) | scores).transpose("seed", "round", "learner")
    lines = []
    for learner in wrong["learner"].values[wrong.any(("seed", "round")).values]:
        own = wrong.sel(learner=learner)
        rounds, seeds = own.any("seed"), own["seed"].values[own.any("round").values]
        lines.append(
            f"learner {learner}: losses or gradients were not finite in {int(own.sum())} of {own.size} rounds, first in round "
            f"{int(own['round'][rounds.values][0])}, in {len(seeds)} of {own.sizes['seed']} seeds ({', '.join(map(str, seeds[:5]))}{', ...' * (len(seeds) > 5)})"
        )
    return lines
