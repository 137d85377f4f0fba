"""Your own trigger: the controller steers a threshold so that learners upload at a given rate, and they do so when they have most to say.

python examples/own_trigger.py
PYTHONPATH=examples lapg train --method.name own_trigger:budgeted --method.rate 0.05 --rounds 50

Every learner has its own noisy quadratic loss; the built-in control `random` uploads at the same rate without looking.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lapg import Config, EstimatorConfig, MethodConfig, ProblemConfig, memories, train
from lapg.controller import heavy_ball
from lapg.methods import Optimiser, Setting, assemble
from lapg.types import Arrival, Candidate, Decision, Estimate, GradientAt, Method, Scalar, Trigger, squared_norm


def at_rate(rate: Scalar, gain: float = 0.5) -> Trigger:
    """Fires iff ‖innovation‖ >= threshold; the controller multiplies the threshold by exp(gain · (fraction that sent − rate)) every round."""

    def update(
        key: jax.Array, state: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt
    ) -> tuple[Any, Decision]:
        size = jnp.sqrt(squared_norm(candidate.innovation))
        return state, Decision(size >= candidate.signal, statistic=size, threshold=candidate.signal)

    def controller_update(threshold: jax.Array, displacement: jax.Array, arrival: Arrival) -> jax.Array:
        first = (
            jnp.sqrt(squared_norm(arrival.total)) / arrival.sent.size
        )  # round 0, when everybody uploads, sets the scale
        steered = threshold * jnp.exp(gain * (jnp.mean(arrival.sent) - rate))
        return jnp.where(threshold == 0, first, steered).astype(threshold.dtype)

    return Trigger(
        update=update,
        controller_init=lambda params, num_learners: jnp.zeros((), params.dtype),
        controller_update=controller_update,
        signal=lambda key, threshold: threshold,
    )


def budgeted(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    rate: Scalar = 0.1,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Accumulated gradients, uploaded at a given rate."""
    return assemble(setting, memories.accumulator(), at_rate(rate), optimiser(step_size, momentum, decay))


def main(rounds: int, out: Path) -> None:
    for name in ("own_trigger:budgeted", "random"):
        config = Config(
            problem=ProblemConfig("quadratic", num_learners=5, scales=(1.0, 0.5, 0.2, 0.1, 0.05)),
            estimator=EstimatorConfig("noisy"),
            method=MethodConfig(name, step_size=0.02, rate=0.1),
            rounds=rounds,
            seeds=4,
        )
        record = train(config, out / name.split(":")[-1]).record
        rates = ", ".join(f"{value:.1%}" for value in record["sent"].mean(("seed", "round")).values)
        score = float(record["score_scaled"][:, -max(1, rounds // 10) :].mean())
        print(f"{name}: uploads in {rates} of the rounds by learner, last score {score:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/own-trigger"), help="new directory for the two runs")
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.out)
