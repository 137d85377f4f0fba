"""The learners' own steps in units of the controller's, as parts."""

from collections.abc import Callable
from typing import Any

import optax

from lapg import local
from lapg.types import Local, Policy, Scalar, is_concrete

Schedule = Callable[[Any, Any], Any]
"""Round and factor to factor · step size."""


def stand() -> Local:
    """No steps of the learners' own: they sample at θ^k, and the memory takes in the gradient."""
    return local.stand()


def sgd(step_scale: Scalar = 1.0, *, foreseen_steps: Schedule) -> Local:
    """Steps along the learner's own gradients: it samples where they lead, at θ^k − step · E, E being what its memory holds back.

    Args:
      step_scale: b, in units of what the controller makes of an upload in the end, α_k/(1−β): 1 steps as far as the controller will, M as if all learners
        measured the same.
    Raises:
      ValueError: step_scale is negative.
    """
    if is_concrete(step_scale) and not float(step_scale) >= 0:
        raise ValueError(f"sgd(step_scale=...) must be >= 0, got {float(step_scale)}; local 'stand' takes no steps.")
    return local.sgd(lambda round: foreseen_steps(round, step_scale))


def averaging(*, num_learners: int, step_sizes: Schedule) -> Local:
    """Steps M α_k along the learner's own gradients, so that the controller steps to the mean of the learners' models, θ − α Σ_m E_m (FedAvg).

    Source: McMahan et al., arXiv 1602.05629.
    """
    return local.sgd(lambda round: step_sizes(round, num_learners))


def optimise(
    optimiser: optax.GradientTransformation,
    *,
    epochs: int = 1,
    minibatches: int = 1,
    max_norm: float | None = None,
    target_kl: float | None = None,
    anneal: bool = False,
    control_variates: bool = False,
    num_rounds: int | None,
    upload_rate: Scalar | None = None,
    policy: Policy | None = None,
) -> Local:
    """Several steps of an optimiser of the learner's own on a batch; what it uploads is how far they have led, in units of the parameters.

    The controller's optimiser is the outer one; ``mean`` steps to the mean over the learners.

    Args:
      optimiser: the learner's own; its moments outlive uploads and skipped rounds.
      epochs: passes over a batch.
      minibatches: parts of a batch, one step for each; must divide N, or of ppo all its steps.
      max_norm: gradients are scaled down to this norm; default: no limit.
      target_kl: skips the rest of a round's steps once the policy diverges by more than 1.5 times this from the one that sampled, in nats per decision
        (needs ppo); default: no limit.
      anneal: whether step sizes decrease linearly to 0 at the end of the run.
      control_variates: whether each step is corrected by what uploads have shown so far of the way of the others, for triggers by which all upload
        together.
    Raises:
      ValueError: a number is out of its range, anneal is asked for where the number of rounds is not known, or control variates where uploads have no rate.
    Source: McMahan et al., arXiv 1602.05629; Reddi et al., arXiv 2003.00295, for inner and outer optimisers; ProxSkip, arXiv 2202.09357, for control
      variates.
    """
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"optimise(max_norm=...) must be > 0, got {max_norm}; leave it out for no limit.")
    chain = [] if max_norm is None else [optax.clip_by_global_norm(max_norm)]
    chain.append(optimiser)
    if anneal:
        if num_rounds is None:
            raise ValueError(
                "optimise(anneal=...) needs to know the number of rounds, which it does not; set it to False."
            )
        chain.append(optax.scale_by_schedule(optax.linear_schedule(1.0, 0.0, num_rounds * epochs * minibatches)))
    whole = optimiser if len(chain) == 1 else optax.chain(*chain)
    if control_variates and upload_rate is None:
        raise ValueError(
            "optimise(control_variates=...) needs a trigger with a rate or a period, got True without; use trigger random with shared, or set it to False."
        )
    rate = upload_rate if control_variates else None
    statistics = None if policy is None else policy.statistics
    return local.optimise(
        whole,
        epochs,
        minibatches,
        target_kl=target_kl,
        control_rate=rate,
        uncontrolled=0 if statistics is None else statistics.num_entries,
    )
