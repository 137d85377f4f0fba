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
from lapg.estimators import gpomdp
from lapg.problems.checklist import Checklist, CheckResult, need
from lapg.types import Estimate, Estimator, Problem, Trajectories

DISCOUNT_LIMIT = 4.0
"""Standard errors by which the mean may be off in the one direction in which a forgotten discount would move it."""


def check_estimator(
    estimator: Estimator,
    problem: Problem,
    *,
    batch_size: int = 8,
    num_batches: int = 2000,
    seed: int = 0,
    unbiased: bool = True,
    quick: bool = False,
) -> list[CheckResult]:
    """Checks an estimator on learner 0 of a problem that samples inside JAX: types, other θ, parts of a batch, mean, discount, and noise.

    The mean is compared with the problem's exact gradient where it is known, else with that of `lapg.estimators.gpomdp` on the same batches; a note says
    with which, and what was not compared.

    Args:
      batch_size: N.
      num_batches: that mean and noise are measured on, each by a learner that knows nothing yet.
      unbiased: whether the mean is meant to be the gradient.
      quick: functions and types alone; nothing is computed.
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
        data = estimator.prepare(state, task, params, batch)
        part = data if rows is None else estimator.part(data, rows)
        return estimator.estimate(state, task, at, part)

    checks.run("functions", signatures, estimator)
    if checks.sound:
        need_batch = max(1, estimator.minimum_batch)
        checks.run(
            "minimum batch", need, batch_size >= need_batch, f"batch_size must be >= {need_batch}, got {batch_size}."
        )
    if checks.sound:
        checks.run("types", _types_stay, estimator, sample, estimate, task, params, batch_size)
    if quick:
        return checks.results
    if checks.sound:
        checks.run("repeats itself", _repeats, estimate, params)
    if checks.sound:
        checks.run("other parameters", _elsewhere, estimate, params, seed)
        rows = jnp.arange(max(estimator.minimum_batch, batch_size // 2))
        try:
            part = traced("part", estimate, jax.random.key(seed), params, rows)
            checks.run("parts of a batch", vector, "the gradient of a part", part.gradient, params)
        except ValueError as error:  # it cannot be taken apart, which only minibatches need
            checks.results.append(CheckResult("parts of a batch", True, note=str(error)))
        measured = checks.run("batches", _measured, estimate, problem, task, params, batch_size, num_batches, seed)
        if measured is not None:
            checks.results.pop()  # they are drawn for the checks that follow
            found, own, undiscounted = measured
            _mean(checks, found, own, undiscounted, problem, task, params, unbiased)
            checks.run("noise", _noise, found)
    return checks.results


def _types_stay(estimator: Estimator, sample: Any, estimate: Any, task: Any, params: Any, num: int) -> None:
    batch = traced("sample", lambda key: sample(key, task, params, num), jax.random.key(0))
    state = traced("init", estimator.init, jax.random.key(0), params)
    keeps_types("update", state, traced("update", estimator.update, state, task, batch))
    found = traced("estimate", estimate, jax.random.key(0), params)
    need(isinstance(found, Estimate), f"estimate must return a lapg.types.Estimate, got {type(found).__name__}.")
    vector("Estimate.gradient", found.gradient, params)
    scalar("Estimate.effective_samples", found.effective_samples, "f")
    need(
        (found.noise is None) != estimator.knows_noise,
        f"noise must be None if and only if knows_noise is False, got {found.noise} where it is {estimator.knows_noise}.",
    )
    if found.noise is not None:
        scalar("Estimate.noise", found.noise, "f")


def _repeats(estimate: Any, params: Any) -> None:
    found = repeats("estimate", estimate, jax.random.key(0), params)
    need(np.isfinite(found.gradient).all(), "Estimate.gradient must be finite; look for 0/0 and log(0).")
    need(found.noise is None or found.noise >= 0, f"Estimate.noise must be >= 0, got {found.noise}.")


def _elsewhere(estimate: Any, params: Any, seed: int) -> None:
    other = params + 0.1 * jax.random.normal(jax.random.key(seed), params.shape, params.dtype)
    found = compiled("estimate", estimate, jax.random.key(seed), other)
    need(np.isfinite(found.gradient).all(), "estimate must be finite at parameters other than those of the batch.")


def _measured(
    estimate: Any, problem: Problem, task: Any, params: Any, batch_size: int, num_batches: int, seed: int
) -> tuple[Estimate, Any, Any]:
    """The estimates of many batches, and on the same batches G(PO)MDP's gradients with the problem's discount and without; () where it has none."""
    policy, sample = problem.policy, problem.sample
    assert sample is not None
    batch = jax.eval_shape(lambda key: sample(key, task, params, batch_size), jax.random.key(0))
    discounts = (problem.discount, 1.0) if policy is not None and isinstance(batch, Trajectories) else ()

    baseline = "leave_one_out" if batch_size > 1 else "none"

    def one(key: Any) -> Any:
        plain = [gpomdp(policy, discount, baseline=baseline) for discount in discounts if policy is not None]
        batch = sample(key, task, params, batch_size)
        return estimate(key, params), [each.estimate((), task, params, batch).gradient for each in plain]

    keys = jax.random.split(jax.random.key(seed), num_batches)
    found, plain = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=50))(keys)
    own, undiscounted = (np.asarray(each, float) for each in plain) if plain else ((), ())
    return found, own, undiscounted


def _mean(
    checks: Checklist,
    found: Estimate,
    own: Any,
    undiscounted: Any,
    problem: Problem,
    task: Any,
    params: Any,
    unbiased: bool,
) -> None:
    """Compares the mean with the gradient, entry by entry and in the direction of a forgotten discount, and says what was compared."""
    gradients, exact, episodic = np.asarray(found.gradient, float), problem.gradient, len(own) > 0
    discount, num, limit = problem.discount, len(gradients), DISCOUNT_LIMIT
    about = "nothing"
    if not unbiased:
        about += ", as it is said to be biased; a wrong discount, sign or scale would not show"
    elif exact is None and not episodic:
        about += ": the problem neither knows its gradient nor has episodes; choose another one, such as garnet"
    else:
        reference = "G(PO)MDP's on the same batches" if exact is None else "the exact one"
        errors = gradients - (own if exact is None else np.asarray(exact(task, params)))
        checks.run("mean", _unbiased, errors, gradients, reference)
        about = f"the mean gradient of {num} batches with {reference}, for learner 0 at θ⁰, γ = {discount:g}"
        if episodic and discount < 1:
            shift = (undiscounted - own).mean(0)
            weights = shift / np.maximum(errors.var(0), 1e-12 * (1e-30 + (gradients**2).max(0)))
            unit = max((errors @ weights).std(ddof=1) / num**0.5, 1e-30)
            checks.run("discount", _discounted, errors.mean(0) @ weights / unit, discount)
            power = float(shift @ weights / unit)
            about += f"; without the discount it would be {min(power, 999):.0f} standard errors off, where {limit:g} are refused"
            if power < 2 * limit and checks.sound:
                about += ": too few to tell; take a problem with a smaller discount, or more batches"
        else:
            about += "; whether losses are discounted was not looked at, as nothing is discounted here"
        about += ". Not compared: other θ, other learners"
    checks.results.append(CheckResult("what was compared", True, note=about))


def _unbiased(errors: np.ndarray, gradients: np.ndarray, reference: str) -> None:
    slack = 1e-4 * np.abs(gradients).max(0)  # rounding
    off = z_scores(np.sign(errors) * np.maximum(np.abs(errors) - slack, 0), np.zeros(errors.shape[1])).max()
    need(
        off <= Z_LIMIT,
        f"the mean gradient of {len(errors)} batches must be {reference}, got one that is {off:.1f} standard errors off; look at discount, sign and scale, or say "
        "that it is biased on purpose (--biased, unbiased=False).",
    )


def _discounted(off: float, discount: float) -> None:
    need(
        abs(off) <= DISCOUNT_LIMIT,
        f"losses must be discounted by γ^t with the problem's γ = {discount:g}, which batch.losses are not, got a mean that is {off:+.1f} standard errors off "
        "in the direction of no discount; ask for the argument discount, or say that it is biased on purpose (--biased, unbiased=False).",
    )


def _noise(found: Estimate) -> None:
    if found.noise is None or not np.isfinite(found.noise).all():
        return
    gradients = np.asarray(found.gradient, float)
    claimed, real = float(np.mean(found.noise)), float(gradients.var(0, ddof=1).sum())
    floor = 1e-6 * float((gradients**2).sum(1).mean())
    need(
        real / 2 - floor <= claimed <= 2 * real + floor,
        f"Estimate.noise must estimate tr Cov of the gradient, {real:.3g} by {len(gradients)} batches, got {claimed:.3g}; return None, with knows_noise=False, "
        "if there is no estimate of it.",
    )
