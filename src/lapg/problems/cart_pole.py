"""Balancing a pole on a cart: Gymnasium's CartPole-v1, for learners whose carts may differ."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lapg.problems.builders import at_least, from_environment, unit_interval
from lapg.problems.parallel import parallel_tasks
from lapg.types import Discrete, Environment, Problem, Task, Transition

GRAVITY = 9.8
CART_MASS = 1.0
POLE_MASS = 0.1
HALF_LENGTH = 0.5
FORCE = 10.0
SECONDS_PER_STEP = 0.02
POSITION_LIMIT = 2.4
ANGLE_LIMIT = 12 * 2 * math.pi / 360
START = 0.05


def reset(key: Key[Array, ""], task: Task) -> Float[Array, "4"]:
    """Cart position (m) and velocity, pole angle (rad, 0 is upright) and angular velocity, all uniform in ± the learner's ``start``."""
    return task.extra["start"] * jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)


def step(key: Key[Array, ""], task: Task, state: Float[Array, "4"], action: Int[Array, ""]) -> Transition:
    """An explicit Euler step of 0.02 s under ± the learner's force (action 1 pushes to the right). Raw loss −1; ends beyond the limits."""
    _, velocity, angle, spin = state
    pole_mass, half_length = task.extra["pole_mass"], task.extra["half_length"]
    force = jnp.where(action == 1, task.extra["force"], -task.extra["force"])
    mass, moment = CART_MASS + pole_mass, pole_mass * half_length
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    push = (force + moment * spin**2 * sine) / mass
    turn = (GRAVITY * sine - cosine * push) / (half_length * (4.0 / 3.0 - pole_mass * cosine**2 / mass))
    rates = jnp.stack([velocity, push - moment * turn * cosine / mass, spin, turn])
    after = state + SECONDS_PER_STEP * rates
    terminated = (jnp.abs(after[0]) > POSITION_LIMIT) | (jnp.abs(after[2]) > ANGLE_LIMIT)
    return Transition(after, -jnp.ones_like(angle), terminated)


def draw(axes: Any, state: Float[Array, "4"]) -> None:
    """Paints cart, pole (of the nominal length) and the ends of the track."""
    from matplotlib.patches import Rectangle

    position, _, angle, _ = state.tolist()
    tip = (position + 2 * HALF_LENGTH * math.sin(angle), 2 * HALF_LENGTH * math.cos(angle))
    axes.axhline(0, color="black", linewidth=1)
    for end in (-POSITION_LIMIT, POSITION_LIMIT):
        axes.axvline(end, linestyle=":", color="black")
    axes.add_patch(Rectangle((position - 0.25, -0.15), 0.5, 0.3, color="C0"))
    axes.plot((position, tip[0]), (0, tip[1]), color="C1", linewidth=5, solid_capstyle="round")
    axes.set(xlim=(-1.1 * POSITION_LIMIT, 1.1 * POSITION_LIMIT), ylim=(-1.3, 1.3), aspect="equal")


def cart_pole(
    *,
    num_learners: int = 16,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    num_steps: int = 500,
    discount: float = 0.999,
    problem_seed: int = 0,
) -> Problem:
    """Parallel RL (5) on CartPole-v1: M learners train one softmax policy, by default 4-16-2 with tanh, that pushes left or right.

    Physics, limits and reset are Gymnasium's, and agree with it to rounding; the observation is the state, not normalised. The raw loss is −1 in every
    step lived, so ``return_raw`` is the usual length of an episode. Losses are thus negative, where the paper's theory has them in [0, ℓ̄_m].

    Args:
      num_learners: M.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them.
      heterogeneity: h, spreads by factor^±h: force 10 N (2), half length of the pole 0.5 m (2), mass of the pole 0.1 kg (2), half width of the
        initial distribution 0.05 (4), scale 1 (4). The first three go beyond the paper, whose learners differ in ρ_m and ℓ_m alone.
      num_steps: T; the episode is cut off there.
      discount: γ.
      problem_seed: draws who gets what.
    Raises:
      ValueError: a size is not a whole number >= 1, scales do not fit, heterogeneity is negative.
    """
    at_least("cart_pole", num_learners=num_learners, num_steps=num_steps)
    unit_interval("cart_pole", discount)
    tasks = parallel_tasks(
        num_learners,
        scales,
        heterogeneity,
        jax.random.key(problem_seed),
        force=(FORCE, 2.0),
        half_length=(HALF_LENGTH, 2.0),
        pole_mass=(POLE_MASS, 2.0),
        start=(START, 4.0),
    )
    return from_environment(
        Environment(reset, lambda state: state, step, draw, SECONDS_PER_STEP),
        actions=Discrete(2),
        tasks=tasks,
        num_steps=num_steps,
        discount=discount,
    )
