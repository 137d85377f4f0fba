"""Cooperative navigation (MPE simple_spread) as the paper modifies it.

M agents move in the plane; agent m has its own landmark m, sees the global state, and has as its loss its distance to the landmark
plus one for every other agent that it touches. Physics as in mpe2 and JaxMARL (integrator ``explicit``, tested against mpe2 with
injected states) or as in the 2018 code (``semi_implicit``: velocity first).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lapg.policies import mlp
from lapg.problems.builders import at_least, from_environment, make_tasks, unit_interval
from lapg.types import Box, Discrete, Environment, JointSpaces, Problem, Scalar, Spaces, Task, Transition

SECONDS_PER_STEP = 0.1
DAMPING = 0.25
SENSITIVITY = 5.0
RADIUS = 0.15
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
DIRECTIONS = ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
"""Unit forces of the actions: stay, left, right, down, up."""

Integrator = Literal["explicit", "semi_implicit"]


class State(eqx.Module):
    """Positions, velocities (per second) and landmark positions in the plane; agents are discs of radius 0.15."""

    positions: Float[Array, "M 2"]
    velocities: Float[Array, "M 2"]
    landmarks: Float[Array, "M 2"]


def _separations(positions: Float[Array, "M 2"]) -> tuple[Float[Array, "M M 2"], Float[Array, "M M"]]:
    """Differences p_i − p_j and their lengths; an agent is infinitely far from itself."""
    difference = positions[:, None] - positions[None, :]
    others = ~jnp.eye(positions.shape[0], dtype=bool)
    squared = jnp.where(others, jnp.sum(difference**2, -1), jnp.inf)
    return difference, jnp.sqrt(squared)


def contact_forces(positions: Float[Array, "M 2"]) -> Float[Array, "M 2"]:
    """Sum over the others of 100·Δ/‖Δ‖·k·log(1 + exp(−(‖Δ‖ − 0.30)/k)), k = 1e-3; coincident agents push nobody anywhere."""
    difference, distance = _separations(positions)
    penetration = CONTACT_MARGIN * jax.nn.softplus((2 * RADIUS - distance) / CONTACT_MARGIN)
    strength = CONTACT_FORCE * penetration / jnp.maximum(distance, jnp.finfo(distance.dtype).tiny)
    return jnp.sum(difference * jnp.where(distance > 0, strength, 0)[..., None], 1)


def move(state: State, forces: Float[Array, "M 2"], integrator: Integrator) -> State:
    """One step of 0.1 s under the agents' own forces and contacts; mass 1, damping 0.25, no speed limit."""
    total = forces + contact_forces(state.positions)
    velocities = (1 - DAMPING) * state.velocities + total * SECONDS_PER_STEP
    used = state.velocities if integrator == "explicit" else velocities
    return State(state.positions + used * SECONDS_PER_STEP, velocities, state.landmarks)


def distances(state: State) -> Float[Array, " M"]:
    """Distance of every agent to its own landmark."""
    return jnp.sqrt(jnp.sum((state.positions - state.landmarks) ** 2, -1))


def collisions(state: State) -> Int[Array, " M"]:
    """How many other agents every agent touches (centres nearer than 0.30)."""
    return jnp.sum(_separations(state.positions)[1] < 2 * RADIUS, -1)


def draw(axes: Any, state: State) -> None:
    """Paints agents (discs), landmarks (crosses) and who belongs where."""
    from matplotlib.patches import Circle

    for m, (position, landmark) in enumerate(zip(state.positions.tolist(), state.landmarks.tolist(), strict=True)):
        axes.plot(*zip(position, landmark, strict=True), ":", color=f"C{m}", linewidth=1)
        axes.plot(*landmark, "X", color=f"C{m}", markersize=10, markeredgecolor="black")
        axes.add_patch(Circle(position, RADIUS, color=f"C{m}", alpha=0.7))
        axes.annotate(f"{m + 1}", position, ha="center", va="center", color="white", fontweight="bold")
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")


def environment(num_agents: int, integrator: Integrator = "explicit", collision_penalty: Scalar = 1.0) -> Environment:
    """The physics and learner m's raw loss ‖p_m − l_m‖ + penalty · (agents touched), after the step."""
    directions = SENSITIVITY * jnp.asarray(DIRECTIONS)

    def reset(key: Key[Array, ""], task: Task) -> State:
        positions, landmarks = jax.random.uniform(key, (2, num_agents, 2), minval=-1.0, maxval=1.0)
        return State(positions, jnp.zeros_like(positions), landmarks)

    def observe(state: State) -> Float[Array, " n"]:
        return jnp.concatenate([state.positions.ravel(), state.velocities.ravel(), state.landmarks.ravel()])

    def step(key: Key[Array, ""], task: Task, state: State, action: Int[Array, " M"]) -> Transition:
        forces = jax.nn.one_hot(action, len(DIRECTIONS), dtype=directions.dtype) @ directions
        after = move(state, forces, integrator)
        losses = distances(after) + collision_penalty * collisions(after)
        return Transition(after, losses[task.index])

    return Environment(reset, observe, step, draw, SECONDS_PER_STEP)


def cooperative_navigation(
    *,
    num_agents: int = 2,
    scales: Sequence[float] | None = None,
    integrator: Integrator = "explicit",
    shared_trajectories: bool = False,
    collision_penalty: float = 1.0,
    num_steps: int = 20,
    discount: float = 0.99,
) -> Problem:
    """The paper's task (section 5): multi-agent collaborative RL on one global state with a product of softmax policies.

    Each agent's network has by default hidden layers of 30 and 10 and ReLUs, as in the paper's Figure 4.

    Args:
      num_agents: M, agents and learners.
      scales: c_m > 0, one per agent; None is the homogeneous case. The paper does not print its own.
      integrator: ``explicit`` as in mpe2 and JaxMARL, ``semi_implicit`` as in the 2018 code.
      shared_trajectories: whether all learners see the same episodes (one physical environment) or each samples its own.
      collision_penalty: loss per touched agent and step.
      num_steps: T; 20 in the paper.
      discount: γ; 0.99 in the paper.
    Raises:
      ValueError: a size is not a whole number >= 1, scales do not fit, an unknown integrator.
    """
    at_least("cooperative_navigation", num_agents=num_agents, num_steps=num_steps)
    unit_interval("cooperative_navigation", discount)
    if integrator not in ("explicit", "semi_implicit"):
        raise ValueError(f"integrator must be 'explicit' or 'semi_implicit', got {integrator!r}.")
    agent = Spaces(Box((6 * num_agents,)), Discrete(len(DIRECTIONS)))
    return from_environment(
        environment(num_agents, integrator, collision_penalty),
        partial(mlp, hidden=(30, 10), activation="relu"),
        spaces=JointSpaces((agent,) * num_agents, local=False, stacked=True),
        tasks=make_tasks(num_agents, scales),
        num_steps=num_steps,
        discount=discount,
        shared=shared_trajectories,
        joint=True,
    )
