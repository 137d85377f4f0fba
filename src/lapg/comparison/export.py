"""Results in the layouts of rliable and marl-eval, for further analysis there."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lapg import record
from lapg.comparison.curves import Curve, final, start
from lapg.comparison.statistics import Comparison

FRAMES = 50
"""Points in time at which curves are exported, evenly spaced over the rounds of each problem."""


def _stretches(values: np.ndarray) -> np.ndarray:
    """Means over `FRAMES` stretches of about equal length: [..., K] → [..., FRAMES or K, if that is less]."""
    parts = np.array_split(values, min(FRAMES, values.shape[-1]), -1)
    return np.stack([part.mean(-1) for part in parts], -1)


def rliable(
    path: Path,
    comparisons: Mapping[str, Comparison],
    curves: Mapping[str, Mapping[str, Curve]],
    reference: str,
) -> None:
    """Score matrices [seeds, problems] by method, one npz for each measure, as rliable's functions take them.

    ``final.npz`` and ``curves.npz`` [seeds, problems, frames] are normalised: 0 is the reference's start, 1 its end. ``uploads_to_90.npz`` and the
    like are what each seed spent to 90 %, inf where it missed; less is better there; costs that are not known of all problems are left out. ``about.json`` names the problems. Methods that are not in all
    problems are left out.
    """
    path.mkdir(parents=True, exist_ok=True)
    methods = [
        label
        for label in next(iter(comparisons.values())).rows
        if all(label in each.rows for each in comparisons.values())
    ]
    scales = {}
    for name, own in curves.items():
        base = own[reference].score.mean(0)
        scales[name] = start(base), final(own[reference].score).mean() - start(base)

    def normalised(name: str, scores: np.ndarray) -> np.ndarray:
        begin, improvement = scales[name]
        return (scores - begin) / improvement

    def write(measure: str, matrices: dict[str, np.ndarray]) -> None:
        record.replace_file(path / f"{measure}.npz", lambda file: _write(file, matrices))

    write(
        "final",
        {
            label: np.stack([normalised(name, final(own[label].score)) for name, own in curves.items()], 1)
            for label in methods
        },
    )
    frames = {
        label: [normalised(name, _stretches(own[label].score)) for name, own in curves.items()] for label in methods
    }
    write("curves", {label: np.stack(parts, 1) for label, parts in frames.items()})
    every = [each.rows[methods[0]].totals for each in comparisons.values()]
    for cost in (cost for cost in every[0] if all(cost in each for each in every)):
        spent = {
            label: np.stack(
                [np.array(each.rows[label].costs[0.90].seed_spent[cost]) for each in comparisons.values()], 1
            )
            for label in methods
        }
        write(f"{cost}_to_90", spent)
    about = {"problems": list(comparisons), "methods": methods, "reference": reference}
    record.write_text(path / "about.json", json.dumps(about, indent=2))


def _write(path: Path, matrices: dict[str, np.ndarray]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **matrices)


def marl_eval(path: Path, curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """The raw-data layout of marl-eval: environment → task → algorithm → run → step → metrics.

    Steps are `FRAMES` stretches of evaluated rounds; ``step_count`` is the rounds until the end of each, metrics are the mean score and running costs there,
    one number each. The absolute metrics are those of the end.
    """
    tasks = {
        name: {
            label: {f"seed_{seed}": _run(curve, seed) for seed in range(len(curve.score))}
            for label, curve in own.items()
        }
        for name, own in curves.items()
    }
    record.write_text(path, json.dumps({"lapg": tasks}))


Metrics = dict[str, int | list[float]]


def _run(curve: Curve, seed: int) -> dict[str, Metrics]:
    parts = np.array_split(np.arange(curve.score.shape[1]), min(FRAMES, curve.score.shape[1]))
    scores = _stretches(curve.score[seed])
    steps: dict[str, Metrics] = {}
    for index, part in enumerate(parts):
        last = int(curve.rounds[part[-1]])
        costs = {name: [float(total[seed, last])] for name, total in curve.costs.items()}
        steps[f"step_{index}"] = {"step_count": last + 1, "return": [float(scores[index])], **costs}
    totals = {name: [float(total[seed, -1])] for name, total in curve.costs.items()}
    steps["absolute_metrics"] = {"return": [float(final(curve.score)[seed])], **totals}
    return steps
