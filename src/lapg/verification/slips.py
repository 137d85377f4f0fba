"""The paper's slips in its statements about runs (those in the constants: `lapg.verification.constants`): each printed form on a case that refutes it, and the corrected one on the same case."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg import estimators, methods, theory
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.verification.families import centred, gradients, quadratics
from lapg.verification.play import compiled, many, play
from lapg.verification.rows import Row, compare, pair
from lapg.verification.theorems import Noise, frequency, lazily


def union(
    seed: int, num_runs: int = 3000, num_learners: int = 8, num_rounds: int = 20, failure: float = 0.1
) -> list[Row]:
    """(15)'s union bound: σ²_m at the exact quantile 1 − δ/K or 1 − δ/(MK) of real noise draws; how often does anybody ever exceed it?"""
    problem = quadratic(num_learners=num_learners, dimension=2, noise=1.0)
    noise = Noise(1.0)
    assert problem.gradient is not None
    assert problem.sample is not None
    estimator, sample = estimators.noisy(problem.gradient), problem.sample
    params = jnp.zeros(2)
    exact = gradients(problem, params)
    levels = jnp.stack(
        [noise.bound(problem, num_rounds, num_learners * failure), noise.bound(problem, num_rounds, failure)]
    )

    def exceeded(key: Any) -> Any:
        def error(task: Any, exact: Any, key: Any) -> Any:
            batch = sample(key, task, params, noise.batch_size)
            return jnp.sum((estimator.estimate((), task, params, batch).gradient - exact) ** 2)

        keys = jax.random.split(key, (num_rounds, num_learners))
        errors = jax.vmap(jax.vmap(error), (None, None, 0))(problem.tasks, exact, keys)
        return jnp.any(errors[None] > levels[:, None], (1, 2))

    happened = many(exceeded, seed, num_runs)
    rows = []
    for column, (form, kind) in enumerate((("log(2K/δ), printed", "printed"), ("log(2MK/δ), corrected", "repaired"))):
        rate, error = frequency(happened[:, column])
        rows.append(
            compare(
                f"(15), (23): {form}: P(any error beyond σ²_m) ≤ δ",
                f"{num_learners} learners, {num_rounds} rounds, {num_runs} runs, σ²_m at its exact quantile",
                rate - 4 * error,
                failure,
                kind=kind,  # pyright: ignore[reportArgumentType]
                note=f"measured {rate:.3f} ± {error:.3f}; 4 standard errors are allowed",
            )
        )
    return rows


def trigger(num_rounds: int = 30) -> list[Row]:
    """(16) with '≥': at a stationary point everybody uploads for ever, against Lemma 4."""
    case = centred(2, jnp.array([1.0, 1e-3]))
    xi = jnp.array([0.1])
    step = theory.admissible_step(xi, case.total)
    lazy = theory.laziness(
        theory.hardness(case.smoothness, case.total), theory.hardness_thresholds(xi, step, case.total, 2)
    )
    assert case.problem.gradient is not None
    setting = methods.Setting(estimators.exact(case.problem.gradient), 2, 2)
    counts, optimiser = [], Part("sgd", step_size=step)
    for strict in (False, True):
        method = methods.compose("lapg", setting, optimiser=optimiser, trigger=Part(xi=xi, window=1, strict=strict))
        path = compiled(lambda method=method: play(method, case.problem, jax.random.key(0), num_rounds, jnp.zeros(1)))()
        counts.append(jnp.sum(path.sent, 0))
    limit, premise = theory.max_uploads(lazy, num_rounds), lazy > 0
    where = "quadratic at its minimum"
    return [
        compare("(16) with '≥', printed: Lemma 4", where, counts[0], limit, kind="printed", premise=premise),
        compare("(16) with '>', corrected: Lemma 4", where, counts[1], limit, kind="repaired", premise=premise),
    ]


def sufficient_condition(num: int, seed: int) -> list[Row]:
    """Theorem 2's condition: what it certifies, against (27)'s factor."""
    refuting = np.array([1.0, 49.0]) / 64
    weights = np.linspace(0.001, 0.333, 333)

    def factors(hardness: np.ndarray, window: int) -> np.ndarray:
        one = compiled(jax.vmap(lambda xi: theory.communication_factor(hardness, jnp.full(window, xi), hardness.size)))
        return np.asarray(one(jnp.asarray(weights / window)))

    found = {
        form: np.array([theory.fewer_uploads_certified(refuting, xi, 1, form=form)[0] for xi in weights])
        for form in ("printed", "corrected")
    }
    where = "M=2, D=1, H=(1/64, 49/64), 333 values of ξ"
    factor = factors(refuting, 1)
    rows = [
        compare(
            "(69), printed: certified ⇒ (27)'s factor < 1", where, factor, 1.0, kind="printed", premise=found["printed"]
        ),
        compare(
            "(69), corrected: certifies nothing where the factor is ≥ 1",
            where,
            found["corrected"] & (factor >= 1),
            0,
            kind="repaired",
        ),
    ]
    rng = np.random.default_rng(seed)
    left, premise = [], []
    for _ in range(min(num, 50)):
        num_learners, window = rng.integers(2, 20), int(rng.integers(1, 4))
        constants = 10.0 ** rng.uniform(-4, 0, num_learners)
        hardness = (constants / constants.sum()) ** 2
        left.append(factors(hardness, window))
        premise.append([theory.fewer_uploads_certified(hardness, xi / window, window)[0] for xi in weights])
    rows.append(
        compare(
            "Theorem 2: certified ⇒ (27)'s factor < 1",
            "random smoothness constants, M=2..19, D=1..3",
            left,
            1.0,
            premise=premise,
        )
    )
    return rows


def equalities(seed: int, num_rounds: int = 30) -> list[Row]:
    """Textual slips, on one run with noise: equalities that are inequalities, and what (12) and (52a) leave out."""
    noise = Noise(0.3)
    case = quadratics(dimension=2, noise=noise.level)(jax.random.key(seed))
    xi = jnp.full(3, 0.1)
    step = theory.admissible_step(xi, case.total)
    bound = noise.bound(case.problem, num_rounds, 0.05) / 100  # low enough for some learners to upload
    method = lazily(case, xi, step, noise=noise, bound=bound)
    start = jnp.full(2, 3.0)
    path = compiled(lambda: play(method, case.problem, jax.random.key(seed), num_rounds, start))()
    before, after = path.params[:-1], path.params[1:]
    exact = jax.vmap(lambda params: gradients(case.problem, params))(before)
    held_at = jnp.where(path.sent, jnp.arange(num_rounds)[:, None], -1)
    held_at = jax.lax.associative_scan(jnp.maximum, held_at, axis=0)
    learner = jnp.arange(path.sent.shape[1])

    def squared(vectors: Any) -> Any:
        return jnp.sum(vectors**2, -1)

    error, skipped = jnp.sum(path.measured - exact, 1), jnp.sum(path.measured - path.held, 1)
    lag = 3
    far = squared(path.params[lag:] - path.params[:-lag])
    near = lag * jnp.convolve(path.squared_steps, jnp.ones(lag), "valid")
    silent = ~path.sent[..., None]
    taken = (before - after) / step - jnp.sum(path.measured, 1)  # what the step adds to everybody's fresh gradients
    lagged = jnp.sum(path.held - path.measured, 1)
    written = jnp.sum(jnp.where(silent, exact[held_at, learner[None]] - exact, 0), 1)
    where = "a noisy quadratic, LAPG"
    return [
        *_equality(
            "(42): ‖a+b+c‖² = 3‖a‖² + 3‖b‖² + 3‖c‖²",
            where,
            squared(error - skipped),
            3 * (squared(error) + squared(skipped)),
        ),
        *_equality("(59): ‖θ^{k−d} − θ^k‖² = d Σ ‖θ^{k+1−b} − θ^{k−b}‖²", where, far, near),
        *_identity("(52a): what the silent add, error", where, squared(taken - written), squared(taken - lagged)),
        *_identity("(12): all gradients at θ^k, error", where, squared(taken), squared(taken - lagged)),
    ]


def _equality(statement: str, where: str, left: Any, right: Any) -> list[Row]:
    size = 1e-12 * (left + right)
    return [
        compare(f"{statement}, printed", where, jnp.abs(left - right), 0.0, kind="printed", rounding=size),
        compare(f"{statement}, with '≤'", where, left, right, kind="repaired", rounding=size),
    ]


def _identity(statement: str, where: str, printed: Any, corrected: Any) -> list[Row]:
    return pair(statement, where, printed, 1e-20, 1e-20)[:1] + pair(statement, where, corrected, 1e-20, 1e-20)[1:]
