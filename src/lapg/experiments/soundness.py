"""Whether a run's numbers are finite: which learners' were not, since when, and how often."""

import numpy as np
import xarray as xr


def scores(record: xr.Dataset, name: str = "score_scaled") -> tuple[xr.DataArray, xr.DataArray]:
    """Scores [seed, round, learner] and whether they are known: those of θ^k, or where it was never scored those of training batches."""
    if name in record:
        return record[name], record["evaluated"]
    there = record["participated"]
    return record[f"training_{name}"], there & (record["fault_missing"] == 0) if "fault_missing" in record else there


def mean_score(record: xr.Dataset, *dims: str, name: str = "score_scaled") -> xr.DataArray:
    """The mean of the known scores over ``dims`` (all of them if none is named); NaN where one of these is not finite, or none is known."""
    (values, known), over = scores(record, name), list(dims) or None
    broken = (known & ~np.isfinite(values)).any(over)
    return values.where(known).mean(over).where(~broken)


def last_score(record: xr.Dataset) -> str:
    """The mean score and raw return, where there are such, of the last 5 % of the rounds in which there are any, in words."""
    known = scores(record)[1].any(("seed", "learner"))
    rounds = record.isel(round=np.flatnonzero(known.values))
    last = rounds.isel(round=slice(-max(1, rounds.sizes["round"] // 20), None))
    what = "score" if "score_scaled" in record else "score of training batches"
    found = f"{what} {float(mean_score(last)):.4f}"
    if "return_raw" in record or "training_return_raw" in record:
        found += f", return {float(mean_score(last, name='return_raw')):.4g}"
    return f"{found} (last 5 % of {'the' if known.all() else 'the evaluated'} rounds)"


def unsound(record: xr.Dataset) -> list[str]:
    """A line for each learner whose innovations or scores were not finite in some round; nothing of a sound run."""
    values, known = scores(record)
    wrong = record["non_finite"].astype(bool) | (known & ~np.isfinite(values))
    wrong = wrong.transpose("seed", "round", "learner")
    lines = []
    for learner in wrong["learner"].values[wrong.any(("seed", "round")).values]:
        own = wrong.sel(learner=learner)
        rounds, seeds = own.any("seed"), own["seed"].values[own.any("round").values]
        lines.append(
            f"learner {learner}: losses or gradients were not finite in {int(own.sum())} of {own.size} rounds, first in round "
            f"{int(own['round'][rounds.values][0])}, in {len(seeds)} of {own.sizes['seed']} seeds ({', '.join(map(str, seeds[:5]))}{', ...' * (len(seeds) > 5)})"
        )
    return lines
