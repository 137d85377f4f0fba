"""The theorems, checked by running the real code: `verify` returns one row per statement, every figure's numbers, and says whether all came out right."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lapg.verification import bounds, constants, outside, scaling, slips
from lapg.verification.families import quadratics, tables
from lapg.verification.literal import literal_trigger
from lapg.verification.rows import Row, compare
from lapg.verification.scaling import Fit
from lapg.verification.theorems import Facts, Noise, check


class Verification(NamedTuple):
    """What `verify` found.

    Attributes:
      problems: random problems of each family.
      facts: by family, what is shown and not promised.
      fits: by name, uploads over PG's against M.
    """

    problems: int
    seed: int
    rows: list[Row]
    facts: dict[str, Facts]
    fits: dict[str, Fit]
    seconds: float

    @property
    def as_expected(self) -> bool:
        """No corrected statement violated, every slip and every case outside the premises shown violated."""
        return all(row.as_expected for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for machines."""
        return {
            "problems": self.problems,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "as_expected": self.as_expected,
            "rows": [row.as_dict() for row in self.rows],
            "exponents": {
                name: {"slope": fit.slope, "low": fit.low, "high": fit.high, "ratios": fit.ratios.mean(0).tolist()}
                for name, fit in self.fits.items()
            },
        }


FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "quadratics, L exact": (quadratics(), {"num_rounds": 150}),
    "noisy quadratics": (quadratics(dimension=2, noise=0.3), {"num_rounds": 150, "noise": Noise(0.3)}),
    "MDPs, γ=0.5, objective of T=8": (tables(discount=0.5, num_steps=8), {"num_rounds": 150}),
    "MDPs, γ=0.9, infinite horizon, gradients of T=40": (
        tables(discount=0.9, num_steps=40, infinite=True),
        {"num_rounds": 40},
    ),
}


def verify(problems: int = 200, seed: int = 0, progress: Callable[[float, str], None] | None = None) -> Verification:
    """Checks every statement of the paper's section 4 on random problems, in double precision.

    Args:
      problems: random problems of each family.
      progress: told the fraction done and what comes next.
    Raises:
      ValueError: fewer than 2 problems.
    """
    if problems < 2:
        raise ValueError(f"problems must be >= 2, got {problems}.")
    began, rows = time.perf_counter(), []
    facts: dict[str, Facts] = {}
    fits: dict[str, Fit] = {}

    def on_runs(where: str) -> list[Row]:
        family, options = FAMILIES[where]
        found, shown = check(family, where, problems, seed, **options)
        if shown is not None:
            facts[where] = shown
            found += _shown(where, shown)
        return found

    def on_sizes() -> list[Row]:
        fits["quadratics, slow step"], found = scaling.quadratic_ratios(scaling.SLOW, 8, seed, 2048)
        fits["quadratics, prescribed step"], more = scaling.quadratic_ratios(scaling.PRESCRIBED, 8, seed, 4096)
        fits["MDPs, prescribed step"] = scaling.tabular_ratios(8, seed)
        return found + more

    stages: dict[str, Callable[[], list[Row]]] = {
        "Assumption 2": lambda: bounds.assumption(problems, seed),
        "Lemma 5": lambda: bounds.deviations(problems, seed),
        "Lemma 2": lambda: bounds.concentration(problems, seed),
        "Lemma 3": lambda: bounds.smoothness(problems, seed),
        "Lemma 6": lambda: bounds.truncation(problems, seed),
        **{f"runs: {where}": lambda where=where: on_runs(where) for where in FAMILIES},
        "1/M": on_sizes,
        "Theorem 2's condition": lambda: slips.sufficient_condition(problems, seed),
        "slips": lambda: [*constants.slips(), *slips.trigger(), *slips.equalities(seed), *constants.assumption()],
        "slips: union bound": lambda: slips.union(seed),
        "outside": lambda: [*outside.rising(problems, seed), *outside.cycle(), *outside.measured_counts()],
        "literal trigger": lambda: literal_trigger(problems, seed),
    }
    with jax.enable_x64(True):
        for done, (name, stage) in enumerate(stages.items()):
            if progress is not None:
                progress(done / len(stages), name)
            rows += stage()
    if progress is not None:
        progress(1.0, "done")
    return Verification(problems, seed, rows, facts, fits, time.perf_counter() - began)


def ratios(facts: Facts, reference: int) -> tuple[np.ndarray, np.ndarray]:
    """LAPG's rounds over PG's (reference 1: at PG's step 1/L; 2: at LAPG's step), and 1/(1 − 3Σξ); where both reached ε."""
    both = (facts.rounds[:, 0] > 0) & (facts.rounds[:, reference] > 0)
    factor = np.broadcast_to(np.asarray(facts.iterations_factor)[:, None], both.shape)
    rounds = np.asarray(facts.rounds)
    return rounds[:, 0][both] / rounds[:, reference][both], factor[both]


def _shown(where: str, facts: Facts) -> Iterator[Row]:
    for reference, text in ((1, "PG's at 1/L"), (2, "PG's at the same step")):
        ratio, factor = ratios(facts, reference)
        yield compare(
            f"LAPG's rounds to ε over {text} ≤ 1/(1−3Σξ)",
            where,
            ratio,
            factor,
            kind="shown",
            note=f"median ratio {np.median(ratio):.2f}, median factor {np.median(factor):.2f}, exceeded in {np.mean(ratio > factor):.0%}",
        )
    reached = (facts.uploads[:, 0] > 0) & (facts.uploads[:, 1] > 0) & np.isfinite(facts.communication_factor)[:, None]
    left = facts.uploads[:, 0] / np.where(reached, facts.uploads[:, 1], 1)
    right = np.broadcast_to(np.nan_to_num(facts.communication_factor)[:, None], left.shape)
    yield compare(
        "(27) with measured uploads of PG at 1/L",
        where,
        left,
        right,
        kind="shown",
        premise=reached,
        note=f"median ratio {np.median(left[reached]):.2f}, median factor {np.median(right[reached]):.2f}; not implied",
    )
