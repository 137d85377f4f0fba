"""Lemma 1, Theorem 1, Lemma 4 and Theorem 2 on runs of PG and LAPG over random problems, one compilation a family."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lapg import estimators, methods, theory
from lapg.methods import Part
from lapg.types import Method, Problem
from lapg.verification.families import Case, Family, gradients, random_fraction, random_weights, total_value
from lapg.verification.play import Path, many, play
from lapg.verification.rows import Row, compare

ROUNDING = 1e-12
"""Relative error of a loss or gradient: sums of a few thousand float64 operations. Differences of losses inherit it, absolutely."""
FLOOR = 1e-20
"""Of a squared gradient norm, relative to the start: safely above where the running sum at the controller ends."""
WINDOW = 6
FAILURE = 0.05


class Noise(NamedTuple):
    """Gradient noise of quadratics in two dimensions, where the quantiles are known: N draws of ``level``."""

    level: float
    batch_size: int = 2

    def bound(self, problem: Problem, num_rounds: int, failure: float) -> Float[Array, " M"]:
        """σ²_m that a learner's ‖ĝ_m − ∇L_m‖² exceeds in any of K rounds with probability δ/M at most.

        It is level² c_m²/(2N) times a χ²_2, which exceeds x with probability exp(−x/2).
        """
        tail = jnp.log(problem.num_learners * num_rounds / failure)
        return (self.level * problem.tasks.scale) ** 2 / self.batch_size * tail


class Sides(NamedTuple):
    """``left ≤ right`` where ``premise``, up to ``rounding``."""

    left: Any
    right: Any
    premise: Any = True
    rounding: Any = 0.0


class Facts(eqx.Module):
    """What is shown, not promised: rounds and uploads until ‖∇L‖² ≤ ε, of LAPG, of PG at its own step 1/L, of PG at LAPG's step; 0 if not reached."""

    rounds: Float[Array, "three E"]
    uploads: Float[Array, "three E"]
    iterations_factor: Float[Array, ""]
    communication_factor: Float[Array, ""]


def lazily(case: Case, xi: Any, step_size: Any, *, noise: Noise | None = None, bound: Any = None) -> Method:
    """LAPG on exact gradients, or noisy ones with constants σ²_m in (16)."""
    problem = case.problem
    assert problem.gradient is not None
    estimator = (estimators.exact if noise is None else estimators.noisy)(problem.gradient)
    setting = methods.Setting(estimator, noise.batch_size if noise else 2, problem.num_learners)
    return methods.compose(
        "lapg", setting, optimiser=Part("sgd", step_size=step_size), trigger=Part(xi=xi, noise_bound=bound)
    )


def eagerly(case: Case, step_size: Any) -> Method:
    """PG on exact gradients."""
    assert case.problem.gradient is not None
    setting = methods.Setting(estimators.exact(case.problem.gradient), 1, case.problem.num_learners)
    return methods.compose("pg", setting, optimiser=Part("sgd", step_size=step_size))


def until(norms: Float[Array, " K"], accuracy: Any) -> Any:
    """Rounds until the first squared gradient norm at most ε, counted from 1; 0 if there is none."""
    reached = norms <= accuracy
    return jnp.where(jnp.any(reached), jnp.argmax(reached) + 1, 0)


def examine(
    family: Family,
    num_rounds: int,
    noise: Noise | None,
    key: Key[Array, ""],
    xi: Float[Array, " D"],
    fraction: Float[Array, ""],
) -> tuple[dict[str, Sides], Facts | None]:
    """Both sides of every statement for one random problem at ``fraction`` of the largest admissible step."""
    keys = jax.random.split(key, 3)
    case = family(keys[0])
    step = fraction * theory.admissible_step(xi, case.total)
    start = case.problem.init(keys[1])
    bound = None if noise is None else noise.bound(case.problem, num_rounds, FAILURE)
    path = play(lazily(case, xi, step, noise=noise, bound=bound), case.problem, keys[2], num_rounds, start)
    sides, norms = _promises(case, xi, step, path, bound)
    if noise is not None:
        return sides, None

    reached = jax.lax.cummin(norms)[jnp.array([num_rounds // 10, num_rounds // 4, num_rounds // 2])]
    accuracies = jnp.maximum(reached, FLOOR * norms[0])
    plain = [
        play(eagerly(case, size), case.problem, keys[2], num_rounds, start).params[:-1]
        for size in (1 / case.total, step)
    ]
    rounds = jnp.stack([jax.vmap(until, (None, 0))(each, accuracies) for each in (norms, *map(_norms(case), plain))])
    uploads = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(jnp.sum(path.sent, -1))])[rounds[0]]
    num_learners = case.problem.num_learners
    hardness = theory.hardness(case.smoothness, case.total)
    opening = total_value(case.objective, start) - case.infimum
    sides["theorem 2"] = Sides(
        uploads,
        theory.communication_bound(hardness, xi, case.total, opening, accuracies, num_learners),
        premise=(fraction == 1) & (jnp.asarray(case.truncation) == 0),
    )
    factor = theory.communication_factor(hardness, xi, num_learners)
    everything = jnp.stack([uploads, *(num_learners * rounds[1:])]).astype(float)
    return sides, Facts(
        rounds.astype(float), everything, 1 / (1 - 3 * jnp.sum(xi)), jnp.where(fraction == 1, factor, jnp.nan)
    )


def _norms(case: Case) -> Any:
    return jax.vmap(lambda params: jnp.sum(jnp.sum(gradients(case.objective, params), 0) ** 2))


def _promises(case: Case, xi: Any, step: Any, path: Path, bound: Any) -> tuple[dict[str, Sides], Float[Array, " K"]]:
    """Every statement about a run. With noise they are about the runs in which no error exceeds its bound."""
    before = path.params[:-1]
    values = jax.vmap(lambda params: total_value(case.objective, params))(path.params)
    seen = jax.vmap(lambda params: gradients(case.problem, params))(before)  # ∇_T L_m, what the learners estimate
    true = jax.vmap(lambda params: gradients(case.objective, params))(before)
    errors = path.measured - seen
    norms, skipped, error, truncation = (
        jnp.sum(jnp.sum(each, 1) ** 2, -1) for each in (true, path.measured - path.held, errors, seen - true)
    )
    num_rounds, num_learners = path.sent.shape
    quiet = jnp.bool_(True) if bound is None else jnp.all(jnp.sum(errors**2, -1) <= bound[None])
    noise = 0.0 if bound is None else theory.aggregate_noise(bound)
    potential = theory.lyapunov(values - case.infimum, path.squared_steps, xi, step)
    rounding = ROUNDING * jnp.max(jnp.abs(values))

    counts = jnp.arange(1, num_rounds + 1)
    hardness = theory.hardness(case.smoothness, case.total)
    lazy = theory.laziness(hardness, theory.hardness_thresholds(xi, step, case.total, num_learners))
    # uploads of what rounding has left of an innovation are no evidence
    resolved = ROUNDING**2 * jnp.max(jnp.sum(path.measured**2, -1), 0)
    sent = path.sent & ((path.statistic > resolved[None]) | (counts == 1)[:, None])
    age = jax.lax.associative_scan(jnp.maximum, jnp.where(sent, counts[:, None], 0), axis=0)
    gaps = jnp.where(sent[1:], counts[1:, None] - age[:-1], num_rounds)  # rounds since the upload before this one
    sides = {
        "lemma 1": Sides(
            jnp.diff(values), theory.descent_bound(norms, skipped, error, truncation, step), rounding=rounding
        ),
        "descent": Sides(
            jnp.diff(potential),
            theory.descent_bound(norms, 0.0, error, truncation, step) + 9 * step * noise,
            premise=quiet,
            rounding=rounding,
        ),
        "theorem 1": Sides(
            jnp.cumsum(norms) / counts,
            theory.rate_bound(potential[0], step, counts, truncation=case.truncation, noise=noise),
            premise=quiet,
        ),
        "lemma 4 gaps": Sides(lazy + 1, jnp.min(gaps, 0), premise=(lazy > 0) & quiet),
        "lemma 4 counts": Sides(jnp.sum(sent, 0), theory.max_uploads(lazy, num_rounds), premise=(lazy > 0) & quiet),
    }
    if bound is not None:
        sides["noise"] = Sides(jnp.any(jnp.sum(errors**2, -1) > bound[None]), True)
    return sides, norms


TITLES = {
    "lemma 1": "Lemma 1, (14): descent in every step",
    "descent": "Theorem 1, (55): V^k falls in every step",
    "theorem 1": "Theorem 1, (23): rate, at every K",
    "lemma 4 gaps": "Lemma 4: rounds between uploads ≥ d+1",
    "lemma 4 counts": "Lemma 4: uploads ≤ ⌈K/(d+1)⌉",
    "theorem 2": "Theorem 2, (27) as implied: uploads to ε",
}


def check(
    family: Family, where: str, num: int, seed: int, *, num_rounds: int, noise: Noise | None = None
) -> tuple[list[Row], Facts | None]:
    """All statements on ``num`` random problems of a family."""

    def one(key: Key[Array, ""]) -> Any:
        make, weights, less = jax.random.split(key, 3)
        return examine(family, num_rounds, noise, make, random_weights(weights, WINDOW), random_fraction(less))

    sides, facts = many(one, seed, num)
    return judge(where, sides, noise), facts


def judge(where: str, sides: dict[str, Sides], noise: Noise | None = None) -> list[Row]:
    """One row a statement; sides have leading axes for problems, then rounds, learners or accuracies."""
    rows = []
    for name, title in TITLES.items():
        if name not in sides:
            continue
        left, right, premise, rounding = (np.asarray(each) for each in sides[name])
        lift = [each.reshape(each.shape + (1,) * (left.ndim - each.ndim)) for each in (premise, rounding)]
        # accuracies are a matter of the family: where no run reaches one, there is nothing to check
        reached = name != "theorem 2" or premise.any()
        how: dict[str, Any] = {} if reached else {"kind": "shown", "note": "no run reached an accuracy"}
        rows.append(compare(title, where, left, right, premise=lift[0], rounding=lift[1], **how))
    if noise is not None:
        rate, error = frequency(sides["noise"].left)
        rows.append(
            compare(
                "(15) with the union over learners: any error beyond its σ²_m",
                where,
                rate - 4 * error,
                FAILURE,
                note=f"measured in {rate:.3f} of the runs ± {error:.3f}; 4 standard errors are allowed",
            )
        )
    return rows


def frequency(happened: Any) -> tuple[float, float]:
    """A measured frequency and its standard error."""
    happened = np.asarray(happened, float)
    rate = float(happened.mean())
    return rate, float(np.sqrt(rate * (1 - rate) / happened.size))
