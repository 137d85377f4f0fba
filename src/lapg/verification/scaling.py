"""The O(1/M) example as it holds, on quadratics of one parameter, and on tabular MDPs, where it does not show."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from lapg import estimators, methods, theory
from lapg.methods import Part
from lapg.problems import garnet
from lapg.types import Method, Problem
from lapg.verification.families import TABLE, centred, rescaled
from lapg.verification.play import many, play
from lapg.verification.rows import Row, compare
from lapg.verification.theorems import until

SIZES = tuple(2**power for power in range(1, 9))
SIZES_TABULAR = SIZES[:6]
ACCURACY = 1e-24
"""Of ‖∇L‖², relative to the start; the running sum at the controller ends at the square of float64's 1e-16."""


class Regime(NamedTuple):
    """c = Σξ and αL."""

    total_weight: float
    step: float


PRESCRIBED = Regime(0.3, 1 - 3 * 0.3)
"""α = (1 − 3Σξ)/L, as in Theorem 2."""
SLOW = Regime(5e-4, 0.015)
"""PG needs some 1,800 rounds to the accuracy, 7 times the largest M, and the big learner has something to say in every round: αL > √c/2."""


class Fit(NamedTuple):
    """Uploads of LAPG over those of PG, [repetitions, sizes], and the slope of their logarithms with its 95 % interval."""

    sizes: tuple[int, ...]
    ratios: np.ndarray
    slope: float
    low: float
    high: float


def _fit(sizes: tuple[int, ...], ratios: np.ndarray) -> Fit:
    """Least squares on log-log scales; the interval is Student's over the repetitions' own slopes and over the residuals, the wider one."""
    x = np.log(sizes)
    line: Any = stats.linregress(np.tile(x, len(ratios)), np.log(ratios).ravel())
    own = [float(cast(Any, stats.linregress(x, np.log(each))).slope) for each in ratios]
    half = max(
        stats.t.ppf(0.975, ratios.size - 2) * line.stderr,
        stats.t.ppf(0.975, len(own) - 1) * np.std(own, ddof=1) / len(own) ** 0.5,
    )
    return Fit(sizes, ratios, float(line.slope), float(line.slope - half), float(line.slope + half))


class Example(NamedTuple):
    """The settings of one M among problems padded to the largest: learners beyond M have loss 0, upload once and are not counted."""

    weights: jax.Array
    num_learners: jax.Array


def _examples(sizes: tuple[int, ...], regime: Regime) -> Example:
    found = [theory.extreme_example(size, *regime) for size in sizes]
    window = max(each.window for each in found)
    weights = [np.where(np.arange(window) < each.window, each.weight, 0.0) for each in found]
    return Example(jnp.asarray(np.stack(weights)), jnp.asarray(sizes))


def _extreme(key: Any, padded: int, num_learners: Any) -> Any:
    """1, ..., 1, M², the ones lowered by up to a half, then zeros."""
    place = jnp.arange(padded)
    small = 1 - 0.5 * jax.random.uniform(key, (padded,))
    return jnp.where(place < num_learners - 1, small, jnp.where(place == num_learners - 1, 1.0 * num_learners**2, 0.0))


def _lapg(problem: Problem, example: Example, step: Any) -> Method:
    assert problem.gradient is not None
    setting = methods.Setting(estimators.exact(problem.gradient), 2, problem.num_learners)
    # (16) divides by α·(number of learners): α M / padded makes that α M
    scale = step * example.num_learners / problem.num_learners
    return methods.compose(
        "lapg",
        setting,
        optimiser=Part("sgd", step_size=step),
        trigger=Part(xi=example.weights, displacement_scale=scale),
    )


def quadratic_ratios(regime: Regime, repetitions: int, seed: int, num_rounds: int) -> tuple[Fit, list[Row]]:
    """LAPG on one-parameter quadratics, from θ⁰ = 1 to θ = 0, against PG at the same step, which uploads M times a round."""
    examples, padded = _examples(SIZES, regime), SIZES[-1]

    def one(key: jax.Array) -> Any:
        def sized(example: Example) -> Any:
            case = centred(padded, _extreme(key, padded, example.num_learners))
            step = regime.step / case.total
            method = _lapg(case.problem, example, step)
            path = play(method, case.problem, jax.random.key(0), num_rounds, jnp.ones(1))
            counted = path.sent & (jnp.arange(padded) < example.num_learners)[None]
            rounds = until(path.params[:-1, 0] ** 2, ACCURACY)
            lazy = theory.laziness(
                theory.hardness(case.smoothness, case.total),
                theory.hardness_thresholds(example.weights, step, case.total, example.num_learners),
            )
            limit = jnp.where(jnp.any(counted, 0), theory.max_uploads(lazy, num_rounds), 0)
            inside = jnp.arange(num_rounds)[:, None] < rounds
            return jnp.sum(counted & inside), rounds, jnp.sum(counted), jnp.sum(limit)

        return jax.lax.map(sized, examples)

    uploads, rounds, total, limits = many(one, seed, repetitions)
    if not rounds.all():
        raise ValueError(f"num_rounds={num_rounds} are too few to reach the accuracy.")
    sizes = np.asarray(SIZES)
    found = [theory.extreme_example(size, *regime) for size in SIZES]
    # ⌈log ε / log (1 − αL)²⌉ rounds of PG, and the round that is counted first
    plain = np.ceil(np.log(ACCURACY) / (2 * np.log1p(-regime.step))) + 1
    lemma = np.array([(1 + (m - 1) / (e.window + 1)) / m for m, e in zip(SIZES, found, strict=True)])
    where = f"quadratics, L_m ∝ (1, …, 1, M²), M=2..{SIZES[-1]}, c={regime.total_weight:g}, αL={regime.step:.3g}"
    # PG's bound 2L V¹/ε at its own step 1/L: V¹ = L/2, ε = ACCURACY · L² for θ⁰ = 1
    promised = np.array([each.ratio for each in found]) * sizes * np.ceil(1 / ACCURACY) + sizes
    return _fit(SIZES, uploads / (sizes * plain)), [
        compare("O(1/M): uploads to ε ≤ (1/M)(1+(M−1)/(D+1))/(αL) of PG's bound", where, uploads, promised),
        compare(
            "O(1/M): at equal rounds ≤ (1/M)(1+(M−1)/(D+1)) of PG's uploads",
            where,
            total / (sizes * num_rounds),
            lemma + (sizes - 1) / (sizes * num_rounds),  # every learner's last window may be cut off
        ),
        compare("O(1/M): uploads ≤ Σ_m ⌈K/(d_m+1)⌉", where, total, limits),
    ]


def tabular_ratios(repetitions: int, seed: int, num_rounds: int = 1024) -> Fit:
    """The same at equal rounds on random MDPs, with ℓ̄_m ∝ (1, …, 1, M²) and the prescribed step for the proved L."""
    examples, padded = _examples(SIZES_TABULAR, PRESCRIBED), SIZES_TABULAR[-1]

    def one(key: jax.Array) -> Any:
        make, scales, place = jax.random.split(key, 3)
        problem = garnet(
            num_learners=padded,
            num_states=3,
            num_actions=2,
            branching=2,
            num_steps=8,
            discount=0.5,
            problem_seed=jax.random.bits(make, dtype=jnp.uint32),
        )

        def sized(example: Example) -> Any:
            here = rescaled(problem, _extreme(scales, padded, example.num_learners))
            assert here.loss_bound is not None
            constants = theory.smoothness(TABLE, jax.vmap(here.loss_bound)(here.tasks), 0.5, 8, form="sharp")
            method = _lapg(here, example, PRESCRIBED.step / jnp.sum(constants))
            path = play(method, here, jax.random.key(0), num_rounds, problem.init(place))
            return jnp.sum(path.sent & (jnp.arange(padded) < example.num_learners)[None])

        return jax.lax.map(sized, examples)

    uploads = many(one, seed, repetitions)
    return _fit(SIZES_TABULAR, uploads / (np.asarray(SIZES_TABULAR) * num_rounds))
