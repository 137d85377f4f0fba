"""Checks of an estimator of your own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg.checks.common import (
    Z_LIMIT,
    compiled,
    keeps_types,
    repeats,
    scalar,
    signatures,
    traced,
    vector,
    z_scores,
)
from lapg.problems.check import Checklist, CheckResult, need
from lapg.types import Estimate, Estimator, Problem


def check_estimator(
    estimator: Estimator,
    problem: Problem,
    *,
    batch_size: int = 8,
    num_batches: int = 1000,
    seed: int = 0,
    unbiased: bool = True,
) -> list[CheckResult]:
    """Checks an estimator on learner 0 of a problem that samples inside JAX: types, other θ, parts of a batch, noise, and the mean.

    Args:
      batch_size: N.
      num_batches: that mean and noise are measured on, each by a learner that knows nothing yet.
      unbiased: whether the mean is meant to be the gradient; it is compared where the problem knows its own.
    Raises:
      ValueError: the problem does not sample inside JAX.
    """
    if problem.sample is None:
        raise ValueError(
            "check_estimator(problem=...) must sample inside JAX, got one with collect; garnet is small and has a known gradient."
        )
    sample, checks = problem.sample, Checklist()
    params = problem.init(jax.random.key(seed))
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)

    def estimate(key: Any, at: Any, rows: Any = None) -> Estimate:
        batch = sample(key, task, params, batch_size)
        state = estimator.update(estimator.init(key, params), task, batch)
        part = batch if rows is None else estimator.part(batch, rows)
        return estimator.estimate(state, task, at, part)

    checks.run("functions", signatures, estimator)
    if checks.sound:
        need_batch = max(1, estimator.minimum_batch)
        checks.run(
            "minimum batch", need, batch_size >= need_batch, f"batch_size must be >= {need_batch}, got {batch_size}."
        )
    if checks.sound:
        checks.run("types", _types_stay, estimator, sample, estimate, task, params, batch_size)
    if checks.sound:
        checks.run("other parameters", _elsewhere, estimate, params, seed)
        rows = jnp.arange(max(estimator.minimum_batch, batch_size // 2))
        try:
            part = traced("part", estimate, jax.random.key(seed), params, rows)
            checks.run("parts of a batch", vector, "the gradient of a part", part.gradient, params)
        except ValueError as error:  # it cannot be taken apart, which only minibatches need
            checks.results.append(CheckResult("parts of a batch", True, note=str(error)))
        checks.run("mean and noise", _moments, estimator, estimate, problem, task, params, num_batches, seed, unbiased)
    return checks.results


def _types_stay(estimator: Estimator, sample: Any, estimate: Any, task: Any, params: Any, num: int) -> None:
    batch = traced("sample", lambda key: sample(key, task, params, num), jax.random.key(0))
    state = traced("init", estimator.init, jax.random.key(0), params)
    keeps_types("update", state, traced("update", estimator.update, state, task, batch))
    found = repeats("estimate", estimate, jax.random.key(0), params)
    need(isinstance(found, Estimate), f"estimate must return a lapg.types.Estimate, got {type(found).__name__}.")
    vector("Estimate.gradient", found.gradient, params)
    need(np.isfinite(found.gradient).all(), "Estimate.gradient must be finite; look for 0/0 and log(0).")
    scalar("Estimate.effective_samples", found.effective_samples, "f")
    need(
        (found.noise is None) != estimator.knows_noise,
        f"noise must be None if and only if knows_noise is False, got {found.noise} where it is {estimator.knows_noise}.",
    )
    if found.noise is not None:
        scalar("Estimate.noise", found.noise, "f")
        need(found.noise >= 0, f"Estimate.noise must be >= 0, got {found.noise}.")


def _elsewhere(estimate: Any, params: Any, seed: int) -> None:
    other = params + 0.1 * jax.random.normal(jax.random.key(seed), params.shape, params.dtype)
    found = compiled("estimate", estimate, jax.random.key(seed), other)
    need(np.isfinite(found.gradient).all(), "estimate must be finite at parameters other than those of the batch.")


def _moments(
    estimator: Estimator, estimate: Any, problem: Problem, task: Any, params: Any, num: int, seed: int, unbiased: bool
) -> None:
    found = jax.jit(lambda keys: jax.lax.map(lambda key: estimate(key, params), keys))(
        jax.random.split(jax.random.key(seed), num)
    )
    gradients = np.asarray(found.gradient, float)
    if unbiased and problem.gradient is not None:
        off = z_scores(gradients, problem.gradient(task, params)).max()
        need(
            off <= Z_LIMIT,
            f"the mean of {num} gradients must be the exact one, got one that is {off:.1f} standard errors off; check it with unbiased=False if it "
            "is biased on purpose.",
        )
    if found.noise is None or not np.isfinite(found.noise).all():
        return
    claimed, real = float(np.mean(found.noise)), float(gradients.var(0, ddof=1).sum())
    floor = 1e-6 * float((gradients**2).sum(1).mean())
    need(
        real / 2 - floor <= claimed <= 2 * real + floor,
        f"Estimate.noise must estimate tr Cov of the gradient, {real:.3g} by {num} batches, got {claimed:.3g}; return None, with knows_noise=False, "
        "if there is no estimate of it.",
    )
