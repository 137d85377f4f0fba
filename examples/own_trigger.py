"""Your own trigger: the controller steers a threshold so that learners upload at a given rate, and they do so when they have most to say.

python examples/own_trigger.py
PYTHONPATH=examples lapg train --memory.name accumulator --trigger.name own_trigger:at_rate --trigger.rate 0.05 --rounds 50
PYTHONPATH=examples lapg train --method own_trigger:budgeted --trigger.rate 0.05 --help

Every learner has its own noisy quadratic loss; the built-in baseline `random` uploads at the same rate without looking.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lapg import Config, Part, Preset, train
from lapg.types import Arrival, Candidate, Decision, Estimate, GradientAt, Scalar, Trigger, squared_norm


def at_rate(rate: Scalar = 0.1, gain: float = 0.5) -> Trigger:
    """Fires iff ‖innovation‖ >= threshold; the controller multiplies the threshold by exp(gain · (fraction that sent − rate)) every round.

    Args:
      rate: the fraction of the rounds in which a learner is meant to upload.
      gain: how fast the threshold follows.
    """

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


budgeted = Preset(
    "Accumulated gradients, uploaded at a given rate.",
    memory=Part("accumulator"),
    trigger=Part("own_trigger:at_rate"),
)


def main(rounds: int, out: Path) -> None:
    for name in ("own_trigger:budgeted", "random"):
        config = Config(
            problem=Part("quadratic", num_learners=5, scales=(1.0, 0.5, 0.2, 0.1, 0.05)),
            estimator=Part("noisy"),
            method=name,
            optimiser=Part("sgd", step_size=0.02),
            trigger=Part(rate=0.1),
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
