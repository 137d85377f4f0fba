"""MPE's simple_spread through JaxMARL: agents who share landmarks out among themselves, for learners whose worlds differ."""

from collections.abc import Sequence

from lapg.problems.jaxmarl import jaxmarl
from lapg.types import Problem


def simple_spread(
    *,
    num_agents: int = 3,
    num_learners: int = 8,
    share_network: bool = True,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    num_steps: int = 25,
    discount: float = 0.95,
    problem_seed: int = 0,
) -> Problem:
    """Parallel RL (5) of a joint policy: each of M learners has worlds of its own, in which all agents act, each by its local observation.

    As many landmarks as agents; the loss is minus the agents' mean reward, half the distances of landmarks to the nearest agent and half the collisions.

    Args:
      num_agents: of a world.
      num_learners: M.
      share_network: whether agents have one network, with the same weights for all, or one each.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them.
      heterogeneity: h, spreads by factor^±h: the agents' acceleration 5 (1.5), the damping of their speed 0.25 in a step (1.5), scale 1 (4).
      num_steps: T.
      discount: γ.
      problem_seed: draws who gets what.
    Raises:
      ValueError: JaxMARL is not installed, a wrong size; otherwise as `lapg.problems.jaxmarl`.
    """
    return jaxmarl(
        env="MPE_simple_spread_v3",
        observations="local",
        env_options={"num_agents": num_agents, "num_landmarks": num_agents},
        num_learners=num_learners,
        share_network=share_network,
        scales=scales,
        heterogeneity=heterogeneity,
        vary={"accel": 1.5, "damping": 1.5},
        num_steps=num_steps,
        discount=discount,
        problem_seed=problem_seed,
    )
