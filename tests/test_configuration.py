"""Configurations: optimisers by name, whose code a run's files may name, and what values fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lapg.controller import inverse_time
from lapg.experiments.build import build
from lapg.experiments.config import Config, EstimatorConfig, MethodConfig, ProblemConfig
from lapg.experiments.names import OPTIMISERS

QUADRATIC = Config(ProblemConfig("quadratic"), EstimatorConfig("noisy"), MethodConfig("pg", step_size=0.05))


# ---------------------------------------------------------------- optimisers


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_descends(name):
    """Oracle: a quadratic: exact gradients lower it, under a decaying schedule with a traced step size, as in a run."""
    target = jnp.array([1.0, -2.0, 3.0, 0.5])

    def losses(step_size):
        steps = (step_size, 0.0, 0.01) if name == "heavy_ball" else (inverse_time(step_size, 0.01),)
        optimiser = OPTIMISERS[name](*steps)

        def step(carry, _):
            theta, state = carry
            updates, state = optimiser.update(theta - target, state, theta)
            return (optax.apply_updates(theta, updates), state), 0.5 * jnp.sum((theta - target) ** 2)

        return jax.lax.scan(step, (jnp.zeros(4), optimiser.init(jnp.zeros(4))), length=30)[1]

    found = np.asarray(jax.jit(losses)(0.05))
    assert found[-1] < 0.999 * found[0]
    if name in ("heavy_ball", "sgd"):
        factors = 1 - 0.05 / (1 + 0.01 * np.arange(29))
        assert found[-1] == pytest.approx(found[0] * np.prod(factors) ** 2)


@pytest.mark.parametrize("name", ["clip", "scale", "global_norm", "set_to_zero", "lbfgs", "lino"])
def test_other_names_of_optax_are_no_optimisers(name):
    """Oracle: the message; a name that is nearly right is put right."""
    with pytest.raises(ValueError, match="optimiser must be one of adabelief, adadelta, ") as error:
        build(with_optimiser(name))
    assert ("did you mean 'lion'" in str(error.value)) == (name == "lino")


def with_optimiser(name):
    return Config(QUADRATIC.problem, QUADRATIC.estimator, MethodConfig("pg", step_size=0.05, optimiser=name))


def test_own_optimisers_must_descend():
    """Oracle: the sign: optax's scale and clip make steps of +0.05 along ±1; one whose schedule begins at 0 is taken; what is no optimiser is named."""
    size = build(QUADRATIC).problem.init(jax.random.key(0)).size
    rise = rf"\+{10 * 0.05 * size:.3g}; end its chain"
    for name in ("scale", "clip"):  # 0.05 in every direction, ten times
        with pytest.raises(
            ValueError, match=f"method.optimiser=optax:{name} must step against the gradient, .* {rise}"
        ):
            build(with_optimiser(f"optax:{name}"))
    with pytest.raises(ValueError, match="must return an optax optimiser, got float"):
        build(with_optimiser(f"{__name__}:no_optimiser"))
    for name in ("optax:sgd", "optax:sm3", f"{__name__}:warming"):
        build(with_optimiser(name))


def warming(step_size):
    return optax.sgd(optax.linear_schedule(0.0, step_size, 100))


def no_optimiser(step_size):
    return step_size
