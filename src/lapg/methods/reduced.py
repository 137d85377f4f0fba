"""Methods that take local steps, or the noise out of the gradients."""

from lapg.controller import heavy_ball
from lapg.local import sgd
from lapg.methods.assembly import Optimiser, Setting, assemble, local_steps
from lapg.types import Method, Scalar
from lapg.uplink import memories, triggers, variance_reduction


def fedavg(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    period: Scalar = 10.0,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """Local policy gradient, FedAvg: every ``period`` rounds learners have taken as many steps of their own, and their models are averaged.

    Source: McMahan et al., arXiv 1602.05629.

    Args:
      step_size: α of a step along the *sum* over learners, as everywhere; local steps are M α, so that the mean of the models is θ − α Σ_m E_m.
      momentum: the controller's.
    """
    local = local_steps(setting.num_learners, step_size, 0.0, decay)
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.accumulator(), triggers.periodic(period), step, local=local)


def fedsvrpg_m(
    setting: Setting,
    *,
    step_size: Scalar,
    period: Scalar = 10.0,
    average_weight: Scalar = 0.5,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """FedSVRPG-M: local steps that follow the federation's direction, corrected with importance-weighted gradients at its last parameters.

    Source: Wang et al., arXiv 2405.19499, Algorithm 1; see `lapg.uplink.variance_reduction.federated_momentum`.

    Args:
      step_size: as in `fedavg`, whose local steps are the same.
      average_weight: β; 1 is `fedavg`.
    Raises:
      ValueError: another optimiser, under which displacements are not the federation's direction.
    """
    if optimiser is not heavy_ball:
        raise ValueError("fedsvrpg_m needs optimiser heavy_ball: it reads the federation's direction off plain steps.")
    own = setting.num_learners * step_size
    return assemble(
        setting,
        memories.accumulator(),
        triggers.periodic(period),
        optimiser(step_size, 0.0, 0.0),
        local=sgd(own),
        reduction=variance_reduction.federated_momentum(average_weight, own * period),
    )


def svrpg(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    snapshot_period: int = 10,
    num_batches: int = 5,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """SVRPG: policy gradient with snapshot variance reduction. Source: Papini et al., arXiv 1806.05618.

    Args:
      snapshot_period, num_batches: see `lapg.uplink.variance_reduction.snapshot`, which says where it departs.
    """
    reduction = variance_reduction.snapshot(snapshot_period, num_batches)
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.fresh(), triggers.always(), step, reduction=reduction)


def storm_pg(
    setting: Setting,
    *,
    step_size: Scalar,
    momentum: Scalar = 0.0,
    decay: Scalar = 0.0,
    average_weight: Scalar = 0.2,
    optimiser: Optimiser = heavy_ball,
) -> Method:
    """STORM-PG: policy gradient with recursive variance reduction. Source: Yuan et al., arXiv 2003.04302.

    Args:
      average_weight: β of `lapg.uplink.variance_reduction.storm`; 1 is PG.
    """
    reduction = variance_reduction.storm(average_weight)
    step = optimiser(step_size, momentum, decay)
    return assemble(setting, memories.fresh(), triggers.always(), step, reduction=reduction)
