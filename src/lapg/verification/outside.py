"""Outside the premises: cases in which the statements fail, without which their checks would mean little; and what (27) does not imply."""

import jax
import jax.numpy as jnp

from lapg import theory
from lapg.verification.families import centred, gradients, quadratics, total_value
from lapg.verification.play import compiled, many, play
from lapg.verification.rows import Row, compare
from lapg.verification.theorems import ROUNDING, eagerly, lazily, until


def rising(num: int, seed: int, num_rounds: int = 60) -> list[Row]:
    """V^k outside the admissible region: Σξ = 0.5, αL = 0.7."""
    xi = jnp.array([0.5])

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        make, place = jax.random.split(key)
        case = quadratics()(make)
        step = 0.7 / case.total
        path = play(lazily(case, xi, step), case.problem, key, num_rounds, case.problem.init(place))
        values = jax.vmap(lambda params: total_value(case.problem, params))(path.params)
        potential = theory.lyapunov(values - case.infimum, path.squared_steps, xi, step)
        return jnp.diff(potential), ROUNDING * jnp.max(values)

    left, rounding = many(one, seed, num)
    note = f"it rises in {((left > rounding[:, None]).any(1)).mean():.0%} of the problems"
    where = "quadratics, Σξ=0.5, αL=0.7"
    return [compare("V^k falls in every step", where, left, 0.0, kind="outside", rounding=rounding[:, None], note=note)]


def cycle(num_rounds: int = 40) -> list[Row]:
    """M = 1, D = 1, ξ = 1.01, αL = 1 on ½θ²: 1, 0, −1, 0, 1, ... for ever."""
    case, xi = centred(1), jnp.array([1.01])
    path = compiled(lambda: play(lazily(case, xi, 1.0), case.problem, jax.random.key(0), num_rounds, jnp.ones(1)))()
    norms = path.params[:-1, 0] ** 2
    counts = jnp.arange(1, num_rounds + 1)
    right = theory.rate_bound(0.5, 1.0, counts)
    shown = ", ".join(f"{x:.0f}" for x in path.params[:6, 0])
    return [
        compare(
            "(23): rate",
            "M=1, D=1, ξ=1.01, αL=1",
            jnp.cumsum(norms) / counts,
            right,
            kind="outside",
            note=f"θ: {shown}, ...",
        )
    ]


def measured_counts(num_rounds: int = 60, accuracy: float = 1e-8) -> list[Row]:
    """(27) with PG's measured uploads in place of its bound: not implied, and false."""
    case = centred(2, dimension=2)
    xi = jnp.array([0.5 / 3])
    start = jnp.full(2, 1.0)

    def uploads(lazy: bool) -> jax.Array:
        method = lazily(case, xi, 0.5 / case.total) if lazy else eagerly(case, 1 / case.total)
        path = play(method, case.problem, jax.random.key(0), num_rounds, start)
        norms = jax.vmap(lambda params: jnp.sum(jnp.sum(gradients(case.problem, params), 0) ** 2))(path.params[:-1])
        rounds = until(norms, accuracy * norms[0])
        sent = path.sent if lazy else jnp.ones_like(path.sent)
        return jnp.sum(sent & (jnp.arange(num_rounds)[:, None] < rounds))

    lapg, pg = compiled(lambda: (uploads(True), uploads(False)))()
    factor = theory.communication_factor(theory.hardness(case.smoothness, case.total), xi, 2)
    return [
        compare(
            "(27) with measured uploads of PG",
            f"isotropic quadratic, M=2, 3Σξ=0.5, ‖∇L‖² down by {accuracy:g}",
            lapg,
            factor * pg,
            kind="shown",
            note=f"{int(pg)} uploads with PG, {int(lapg)} with LAPG; not implied by the theorem",
        )
    ]
