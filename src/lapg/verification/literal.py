"""The paper's own trigger: (16) with the literal 6σ² of (15), and real samples."""

from typing import Any

import jax
import jax.numpy as jnp

from lapg import estimators, methods, theory
from lapg.methods import Part
from lapg.problems import garnet
from lapg.verification.families import TABLE, rescaled, spread_scales
from lapg.verification.play import many, play
from lapg.verification.rows import Row, compare


def literal_trigger(
    num: int, seed: int, num_rounds: int = 30, batch_size: int = 10, failure: float = 0.05
) -> list[Row]:
    """On MDPs, G(PO)MDP gradients: how near ‖δ‖² ever comes to the right side of (16), and how often anybody uploads after round 0."""

    def one(key: jax.Array) -> Any:
        make, scales = jax.random.split(key)
        problem = garnet(
            num_learners=3,
            num_states=3,
            num_actions=2,
            branching=2,
            num_steps=8,
            discount=0.5,
            problem_seed=jax.random.bits(make, dtype=jnp.uint32),
        )
        problem = rescaled(problem, spread_scales(scales, 3))
        assert problem.policy is not None
        assert problem.loss_bound is not None
        losses = jax.vmap(problem.loss_bound)(problem.tasks)
        deviation = theory.deviation_bound(TABLE.score, losses, 0.5, 8)
        bound = theory.concentration_bound(deviation, batch_size, num_rounds, failure)
        step = 0.7 / jnp.sum(theory.smoothness(TABLE, losses, 0.5, 8, form="sharp"))
        setting = methods.Setting(estimators.gpomdp(problem.policy, 0.5, baseline="none"), batch_size, 3)
        method = methods.compose(
            "lapg",
            setting,
            optimiser=Part("sgd", step_size=step),
            trigger=Part(xi=0.1, window=1, noise_bound=bound),
        )
        path = play(method, problem, key, num_rounds, problem.init(key))
        # whatever the samples: ‖ĝ‖ is at most half of V_m, so ‖δ‖² at most V_m²
        return jnp.sum(path.sent[1:]), path.statistic[1:] / path.threshold[1:], deviation**2 / (6 * bound)

    uploads, ratio, possible = many(one, seed, num)
    where = f"random MDPs, N={batch_size}, K={num_rounds}, δ={failure:g}"
    return [
        compare(
            "(16) with (15): nobody uploads after round 0",
            where,
            ratio,
            1.0,
            note=f"{int(uploads.sum())} uploads after round 0; even the largest possible ‖δ‖² is at most {possible.max():.2g} of 6σ²_m",
        )
    ]
