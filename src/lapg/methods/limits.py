"""Bounds on the controller's steps, as parts."""

from lapg.estimators import fisher_norm
from lapg.types import Policy, Scalar, StepLimit


def unlimited() -> None:
    """Steps as long as the optimiser makes them."""


def kl(limit: Scalar = 40.0, *, local: bool = False, policy: Policy) -> StepLimit:
    """Shortens steps whose predicted divergence of the policy would be larger; every upload then carries one more number.

    Args:
      limit: the largest predicted divergence of the policy in one step, in nats an episode.
      local: whether steps of the learners' own are held to it as well.
      policy: that is trained.
    """
    return StepLimit(limit, fisher_norm(policy), local)
