"""What the theory and a few measured batches say about a configuration before, or after, it is run."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg import theory
from lapg.experiments.build import build
from lapg.experiments.config import Config
from lapg.experiments.measure import Certainty, Constants, known_constants, measure
from lapg.experiments.run import Run
from lapg.methods import settings
from lapg.types import INIT, NOBODY, Problem, address
from lapg.uplink.triggers.lazy import past_weights

FAILURE = 0.05
"""δ of the high-probability statements."""


@dataclass(frozen=True)
class Prediction:
    """One line of a prediction.

    Attributes:
      topic: what it belongs to.
      certainty: ``exact``; ``bound``: proved; ``estimate``: from what was met on trajectories, no bound; ``measured``; ``setting``: the configuration's.
      value: a number, one per learner, or words.
      meaning: what follows from it.
    """

    topic: str
    name: str
    value: Any
    certainty: Certainty
    meaning: str = ""


def predict(config: Config, run: Run | None = None, *, seed: int = 0, num_batches: int = 16) -> list[Prediction]:
    """Constants, admissible step, uploads, momentum, noise, and the method that the noise suggests.

    Args:
      run: a run of this configuration; noise is then measured at its final parameters, and its uploads are shown beside the bounds.
      num_batches: batches per learner that the noise is measured on.
    Raises:
      ValueError: the configuration does not fit, or there are fewer than 2 batches.
    """
    if num_batches < 2:
        raise ValueError(f"batches must be >= 2, got {num_batches}; one shows no noise.")
    built = build(config) if run is None else run.built
    problem = built.problem
    params = problem.init(address(jax.random.key(seed), INIT, NOBODY, 0)) if run is None else jnp.asarray(run.params())
    trigger, optimiser = (settings(kind, config.parts[kind]) for kind in ("trigger", "optimiser"))
    constants = known_constants(problem, params, seed)
    if config.parts["estimator"].options.get("time_average"):
        share = 1 / problem.num_steps
        constants = constants._replace(
            losses=None if constants.losses is None else constants.losses * share,
            smoothness=None if constants.smoothness is None else constants.smoothness * share,
        )
    noise, signal = measure(config, problem, params, seed, num_batches)
    predictions = [*_constants(constants), *_step(optimiser, trigger, constants)]
    predictions += [*_uploads(config, optimiser, trigger, constants, run), *_momentum(optimiser)]
    predictions += _noise(config, problem, trigger, constants, noise, signal)
    return [*predictions, _suggestion(noise, signal)]


def _constants(constants: Constants) -> list[Prediction]:
    lines = []
    if constants.scores is not None:
        lines.append(
            Prediction("constants", "G, F", tuple(constants.scores), constants.certainty, "; ".join(constants.remarks))
        )
    if constants.losses is not None:
        lines.append(Prediction("constants", "ℓ̄_m", constants.losses, constants.certainty))
    if constants.smoothness is not None:
        lines.append(Prediction("constants", "L_m", constants.smoothness, constants.certainty, "L is their sum"))
        hardness = np.asarray(theory.hardness(constants.smoothness))
        lines.append(Prediction("constants", "H(m)", hardness, constants.certainty, "hardness (L_m/L)²"))
    return lines or [Prediction("constants", "L_m", "unknown", constants.certainty, "; ".join(constants.remarks))]


def _weights(trigger: dict[str, Any]) -> np.ndarray | None:
    """ξ_1..ξ_D of the trigger (16), or None for methods without it."""
    return np.asarray(past_weights(trigger["xi"], trigger["window"])) if "xi" in trigger else None


def _averages(config: Config) -> bool:
    """Whether innovations are those of a running average of gradients, about which the paper says nothing."""
    return config.parts["memory"].name == "running_average"


def _step(optimiser: dict[str, Any], trigger: dict[str, Any], constants: Constants) -> list[Prediction]:
    if optimiser.get("step_size") is None:
        return []
    step, weights = float(optimiser["step_size"]), _weights(trigger)
    total = 0.0 if weights is None else float(weights.sum())
    lines = [Prediction("step", "α", step, "setting")]
    if total >= 1 / 3:
        return [*lines, Prediction("step", "Σξ", total, "setting", "not below 1/3: Theorem 1 admits no step")]
    if constants.smoothness is None:
        return lines
    limit = float(theory.admissible_step(np.zeros(1) if weights is None else weights, constants.smoothness.sum()))
    word = "admissible" if step <= limit else f"{step / limit:.3g} times too large for Theorem 1"
    if constants.certainty == "estimate":
        word += ", as far as the estimates go (they are from below)"
    elif step > limit and constants.certainty == "bound":
        word += "; the bound on L is loose, and larger steps often work"
    return [*lines, Prediction("step", "(1 − 3Σξ)/L", limit, constants.certainty, f"the step is {word}")]


def _uploads(
    config: Config, optimiser: dict[str, Any], trigger: dict[str, Any], constants: Constants, run: Run | None
) -> list[Prediction]:
    lines, weights = [], _weights(trigger)
    if weights is None or _averages(config):
        meaning = "PG uploads always" if config.method == "pg" else "Lemma 4 is about lapg without a running average"
        lines.append(Prediction("uploads", "largest fractions", "no bound", "bound", meaning))
    elif constants.smoothness is None or (np.diff(weights) > 0).any():
        lines.append(
            Prediction(
                "uploads", "largest fractions", "no bound", "bound", "Lemma 4 needs L_m, and ξ that do not increase"
            )
        )
    else:
        total, num_learners = constants.smoothness.sum(), constants.smoothness.size
        step = trigger["displacement_scale"] or optimiser["step_size"]
        thresholds = theory.hardness_thresholds(weights, step, total, num_learners)
        lazy = np.asarray(theory.laziness(theory.hardness(constants.smoothness, total), thresholds))
        meaning = "1/(d+1) by Lemma 4, for exact gradients, or with (15) and its probability in (16)"
        if not lazy.any():
            meaning += "; vacuous: no learner is easy enough at this step"
        lines.append(Prediction("uploads", "largest fractions", 1 / (lazy + 1), constants.certainty, meaning))
    if run is not None:
        lines.append(
            Prediction("uploads", "fractions of the run", run.record["sent"].mean(("seed", "round")).values, "measured")
        )
    return lines


def _momentum(optimiser: dict[str, Any]) -> list[Prediction]:
    momentum = float(optimiser.get("momentum") or 0.0)
    if momentum == 0:
        return []
    meaning = "β lengthens displacements by 1/(1−β) and the drift of (16) by the square: it makes the trigger lazier by itself"
    return [Prediction("momentum", "drift times", 1 / (1 - momentum) ** 2, "exact", meaning)]


def _noise(
    config: Config,
    problem: Problem,
    trigger: dict[str, Any],
    constants: Constants,
    noise: np.ndarray,
    signal: np.ndarray,
) -> list[Prediction]:
    ratio = _ratio(noise, signal)
    lines = [
        Prediction("noise", "σ̂²_m", noise, "measured", f"N = {config.batch_size}"),
        Prediction(
            "noise", "σ̂²_m/‖∇L_m‖²", ratio, "measured", "noise to signal of one gradient; inf: no signal to be seen"
        ),
    ]
    if "noise_weight" in trigger and not _averages(config):
        weight = float(trigger["noise_weight"])
        # noise alone makes E‖δ‖² = 2σ²; a change Δ of the gradient adds ‖Δ‖², and fires where that exceeds (c − 2)σ²
        need = np.sqrt(np.maximum(weight - 2, 0) * ratio)
        meaning = f"a learner uploads when its gradient changes by this many of its own lengths (c = {weight:g})"
        if weight <= 2:
            meaning = f"noise alone exceeds {weight:g} σ̂² about every other round: (16) saves little"
        elif (need > 2).all():
            meaning += "; more than 2 cannot come from a shrinking gradient: (16) silences everybody, and old noise is replayed"
        lines.append(Prediction("noise", "change that (16) needs", need, "measured", meaning))
    enough = np.ceil(2 * config.batch_size * ratio)
    lines.append(
        Prediction(
            "noise",
            "N for a ratio of 1/2",
            enough,
            "measured",
            "noise falls like 1/N; then an innovation is no longer mostly noise",
        )
    )
    union = math.log(2 * noise.size * config.rounds / FAILURE)
    meaning = "below it not even the largest possible innovation exceeds 6σ² of (15)"
    lines.append(Prediction("noise", "N for (15) in (16)", math.ceil(12 * union), "bound", meaning))
    if constants.scores is not None and constants.losses is not None:
        deviation = theory.deviation_bound(
            constants.scores.score, constants.losses, problem.discount, problem.num_steps
        )
        bound = theory.concentration_bound(deviation, config.batch_size, config.rounds, FAILURE)
        lines.append(
            Prediction(
                "noise",
                "σ²_m of (15)",
                np.asarray(bound),
                constants.certainty,
                "holds with probability 0.95 in all rounds; compare σ̂²_m",
            )
        )
    return lines


def _ratio(noise: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """σ̂²/‖∇L_m‖²; a gradient smaller than its error in the mean of the batches cannot be told from none."""
    return np.divide(noise, signal, out=np.where(noise > 0, np.inf, 0.0), where=signal > 0)


def _suggestion(noise: np.ndarray, signal: np.ndarray) -> Prediction:
    if not noise.any() and not signal.any():
        return Prediction(
            "suggestion", "method", "none", "measured", "all gradients are zero here: no reward was met yet"
        )
    typical = float(np.median(_ratio(noise, signal)))
    sizes = np.sqrt(noise)
    share = 1.0 if sizes.max() == 0 else float(sizes.sum() ** 2 / (sizes.size * (sizes**2).sum()))
    if typical <= 0.5:
        return Prediction(
            "suggestion", "method", "lapg", "measured", f"noise is {typical:.2g} of the signal: innovations carry news"
        )
    meaning = f"noise is {typical:.3g} of the signal: accumulate gradients and upload seldom; the best rates need {share:.2g} of a period's uploads"
    if share > 0.8:
        meaning += ", so that periodic does about as well"
    return Prediction("suggestion", "method", "scout", "measured", meaning)
