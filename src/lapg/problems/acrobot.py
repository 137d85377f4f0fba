"""Swinging up two links by a torque at the joint between them: Gymnasium's Acrobot-v1, for learners whose acrobots may differ."""

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
LENGTH = 1.0
MASS = 1.0
INERTIA = 1.0
TORQUE = 1.0
SECONDS_PER_STEP = 0.2
MAX_SPEEDS = (4 * math.pi, 9 * math.pi)
START = 0.1


def reset(key: Key[Array, ""], task: Task) -> Float[Array, "4"]:
    """Angles (rad, 0 hangs; the second is that of the lower link to the upper one) and angular velocities, all uniform in ± the learner's ``start``."""
    return task.extra["start"] * jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)


def observe(state: Float[Array, "4"]) -> Float[Array, "6"]:
    """Cosine and sine of the one angle, those of the other, both angular velocities."""
    upper, lower, *spins = state
    return jnp.stack([jnp.cos(upper), jnp.sin(upper), jnp.cos(lower), jnp.sin(lower), *spins])


def rates(task: Task, state: Float[Array, "4"], torque: Float[Array, ""]) -> Float[Array, "4"]:
    """The time derivative of the state, as in Sutton and Barto's book: links of equal length and mass, centres of mass in the middle, inertia 1."""
    length, mass = task.extra["length"], task.extra["mass"]
    middle = length / 2
    upper, lower, spin_upper, spin_lower = state
    coupling, turn = mass * length * middle * jnp.cos(lower), mass * length * middle * jnp.sin(lower)
    whole = mass * middle**2 + mass * (length**2 + middle**2) + 2 * coupling + 2 * INERTIA
    mixed = mass * middle**2 + coupling + INERTIA
    pull_lower = mass * middle * GRAVITY * jnp.sin(upper + lower)
    pull = (
        -turn * spin_lower**2
        - 2 * turn * spin_lower * spin_upper
        + mass * (middle + length) * GRAVITY * jnp.sin(upper)
        + pull_lower
    )
    rest = mass * middle**2 + INERTIA - mixed**2 / whole
    faster_lower = (torque + mixed / whole * pull - turn * spin_upper**2 - pull_lower) / rest
    return jnp.stack([spin_upper, spin_lower, -(mixed * faster_lower + pull) / whole, faster_lower])


def step(key: Key[Array, ""], task: Task, state: Float[Array, "4"], action: Int[Array, ""]) -> Transition:
    """A Runge-Kutta step of 0.2 s under −1, 0 or 1 times the learner's torque. Raw loss 1 until the tip is a link's length above the pivot, which ends it."""
    torque, half = task.extra["torque"] * (action - 1), SECONDS_PER_STEP / 2
    first = rates(task, state, torque)
    second = rates(task, state + half * first, torque)
    third = rates(task, state + half * second, torque)
    fourth = rates(task, state + SECONDS_PER_STEP * third, torque)
    moved = state + SECONDS_PER_STEP / 6 * (first + 2 * second + 2 * third + fourth)
    fastest = jnp.asarray(MAX_SPEEDS)
    angles = (moved[:2] + math.pi) % (2 * math.pi) - math.pi
    after = jnp.concatenate([angles, jnp.clip(moved[2:], -fastest, fastest)])
    terminated = -jnp.cos(after[0]) - jnp.cos(after[0] + after[1]) > 1
    return Transition(after, jnp.where(terminated, 0.0, 1.0), terminated)


def draw(axes: Any, state: Float[Array, "4"]) -> None:
    """Paints both links (of the nominal length), the pivot and the height to reach."""
    upper, lower, *_ = state.tolist()
    joint = (LENGTH * math.sin(upper), -LENGTH * math.cos(upper))
    tip = (joint[0] + LENGTH * math.sin(upper + lower), joint[1] - LENGTH * math.cos(upper + lower))
    axes.axhline(LENGTH, color="black", linewidth=1)
    axes.plot((0, joint[0]), (0, joint[1]), color="C0", linewidth=8)
    axes.plot((joint[0], tip[0]), (joint[1], tip[1]), color="C1", linewidth=8)
    axes.plot(0, 0, "o", color="black")
    axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")


def acrobot(
    *,
    num_learners: int = 16,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    num_steps: int = 500,
    discount: float = 0.99,
    problem_seed: int = 0,
) -> Problem:
    """Parallel RL (5) on Acrobot-v1: M learners train one softmax policy, by default 6-16-3 with tanh.

    Physics, limits, reward and reset are Gymnasium's, and agree with it to rounding; the observation is Gymnasium's, not normalised. The raw loss is 1 in
    every step but the last, so that ``return_raw`` is minus their number, −500 for an episode that does not get there.

    Args:
      num_learners: M.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them.
      heterogeneity: h, spreads by factor^±h: torque 1 N m (1.5), length of both links 1 m (1.25), mass of both 1 kg (1.25), half width of the initial
        distribution 0.1 (4), scale 1 (4). The first three go beyond the paper, whose learners differ in ρ_m and ℓ_m alone.
      num_steps: T; the episode is cut off there.
      discount: γ.
      problem_seed: draws who gets what.
    Raises:
      ValueError: a size is not a whole number >= 1, scales do not fit, heterogeneity is negative.
    """
    at_least("acrobot", num_learners=num_learners, num_steps=num_steps)
    unit_interval("acrobot", discount)
    tasks = parallel_tasks(
        num_learners,
        scales,
        heterogeneity,
        jax.random.key(problem_seed),
        torque=(TORQUE, 1.5),
        length=(LENGTH, 1.25),
        mass=(MASS, 1.25),
        start=(START, 4.0),
    )
    return from_environment(
        Environment(reset, observe, step, draw, SECONDS_PER_STEP),
        actions=Discrete(3),
        tasks=tasks,
        num_steps=num_steps,
        discount=discount,
    )
