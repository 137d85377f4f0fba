"""MinAtar's games through gymnax: Atari in miniature, for learners whose actions stick more or less often."""

from collections.abc import Sequence
from typing import Literal

from lapg.problems.gymnax import gymnax
from lapg.types import Problem

Game = Literal["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]


def minatar(
    *,
    env: Game = "Breakout",
    num_learners: int = 8,
    scales: Sequence[float] | None = None,
    heterogeneity: float = 0.0,
    sticky: float = 0.1,
    images: bool = False,
    num_steps: int | None = None,
    discount: float = 0.99,
    problem_seed: int = 0,
) -> Problem:
    """Parallel RL (5) in a game of MinAtar: M learners train one policy on screens of 10 x 10 pixels with a channel for each kind of object.

    Args:
      env: the game.
      num_learners: M.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them.
      heterogeneity: h, spreads by factor^±h: the probability ``sticky`` (4), scale 1 (4).
      sticky: probability that the last action is repeated in place of the chosen one; 0.1 is MinAtar's.
      images: whether the policy sees a screen as an image, which a convolutional network takes, or as a vector, which is quicker without an accelerator.
      num_steps: T; None is gymnax's time limit.
      discount: γ.
      problem_seed: draws who gets what.
    Raises:
      ValueError: gymnax is not installed or has no such game; otherwise as `lapg.problems.gymnax`.
    Source: Young and Tian, arXiv 1903.03176.
    """
    return gymnax(
        env=f"{env}-MinAtar",
        num_learners=num_learners,
        scales=scales,
        heterogeneity=heterogeneity,
        sticky=sticky,
        flat=not images,
        num_steps=num_steps,
        discount=discount,
        problem_seed=problem_seed,
    )
