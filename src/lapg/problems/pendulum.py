"""Swinging up a pendulum: Gymnasium's Pendulum-v1, for learners whose pendulums may differ."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lapg.problems.builders import at_least, from_environment, unit_interval
from lapg.problems.parallel import parallel_tasks
from lapg.types import Box, Environment, Problem, Task, Transition

GRAVITY = 10.0
MASS = 1.0
LENGTH = 1.0
SECONDS_PER_STEP = 0.05
MAX_SPEED = 8.0
MAX_TORQUE = 2.0


def reset(key: Key[Array, ""], task: Task) -> Float[Array, "2"]:
    """Angle (rad, 0 is upright), uniform in ± the learner's ``start`` or the whole circle if that is less, and angular velocity, U(−1, 1)."""
    widths = jnp.stack([jnp.minimum(task.extra["start"], math.pi), jnp.ones_like(task.extra["start"])])
    return widths * jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)


def observe(state: Float[Array, "2"]) -> Float[Array, "3"]:
    """Cosine and sine of the angle, angular velocity."""
    angle, spin = state
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), spin])


def step(key: Key[Array, ""], task: Task, state: Float[Array, "2"], action: Float[Array, "1"]) -> Transition:
    """A step of 0.05 s, velocity first, under a torque cut to ±2. Raw loss: angle² + 0.1·velocity² + 0.001·torque² before the step."""
    angle, spin = state
    gravity, mass, length = (task.extra[name] for name in ("gravity", "mass", "length"))
    torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
    from_upright = (angle + math.pi) % (2 * math.pi) - math.pi
    loss = from_upright**2 + 0.1 * spin**2 + 0.001 * torque**2
    turn = 3 * gravity / (2 * length) * jnp.sin(angle) + 3 / (mass * length**2) * torque
    faster = jnp.clip(spin + turn * SECONDS_PER_STEP, -MAX_SPEED, MAX_SPEED)
    return Transition(jnp.stack([angle + faster * SECONDS_PER_STEP, faster]), loss)


def draw(axes: Any, state: Float[Array, "2"]) -> None:
    """Paints the rod (of the nominal length) and its pivot; positive angles lean to the left, as Gymnasium draws them."""
    angle, _ = state.tolist()
    tip = (-LENGTH * math.sin(angle), LENGTH * math.cos(angle))
    axes.plot((0, tip[0]), (0, tip[1]), color="C1", linewidth=8)
    axes.plot(0, 0, "o", color="black")
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")


def pendulum(
    *,
    num_learners: int = 16,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    num_steps: int = 200,
    discount: float = 0.99,
    problem_seed: int = 0,
) -> Problem:
    """Parallel RL (5) on Pendulum-v1: M learners train one normal policy, whose mean is by default a network 3-16-1 with tanh.

    Physics, cost and reset are Gymnasium's, and agree with it to rounding. The torque is 2 tanh u of the normal action u, so it keeps its bound and the
    scores stay exact (`lapg.policies.gaussian`). The raw loss lies in [0, π² + 6.404]. Episodes never terminate; T cuts them off.

    Args:
      num_learners: M.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them.
      heterogeneity: h, spreads by factor^±h: gravity 10 m/s² (1.5), mass 1 kg (1.25), length 1 m (1.25), half width of the initial angle π, at
        most π (4), scale 1 (4). The first three go beyond the paper, whose learners differ in ρ_m and ℓ_m alone.
      num_steps: T.
      discount: γ.
      problem_seed: draws who gets what.
    Raises:
      ValueError: a size is not a whole number >= 1, scales do not fit, heterogeneity is negative.
    """
    at_least("pendulum", num_learners=num_learners, num_steps=num_steps)
    unit_interval("pendulum", discount)
    tasks = parallel_tasks(
        num_learners,
        scales,
        heterogeneity,
        jax.random.key(problem_seed),
        gravity=(GRAVITY, 1.5),
        mass=(MASS, 1.25),
        length=(LENGTH, 1.25),
        start=(math.pi, 4.0),
    )
    return from_environment(
        Environment(reset, observe, step, draw, SECONDS_PER_STEP),
        actions=Box((1,), -MAX_TORQUE, MAX_TORQUE),
        tasks=tasks,
        num_steps=num_steps,
        discount=discount,
    )
