"""What travels between learners and the controller, what is computed on the way, and what both remember."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree


class Broadcast(eqx.Module):
    """Controller to learners, once a round, the same for every learner.

    Attributes:
      round: k, counted from 0.
      params: θ^k.
      signal: what the trigger's controller half says: a drift, a scale, ...
    """

    round: Int[Array, ""]
    params: Float[Array, " d"]
    signal: PyTree


class Upload(eqx.Module):
    """Learner to controller. Zero everywhere where nothing was sent.

    Attributes:
      sent: whether the learner uploads in this round.
      message: the compressor's fixed-shape output.
      report: the trigger's scalars; they never travel alone.
      length: of the learner's share, where a `StepLimit` asks for it; else ().
      bits: message, report and length together, whole bytes; the header is the ledger's.
    """

    sent: Bool[Array, ""]
    message: PyTree
    report: PyTree
    length: PyTree
    bits: Int[Array, ""]


class Arrival(eqx.Module):
    """All that a controller step may use: the sum of the decompressed messages, who sent, their triggers' reports, their lengths."""

    total: Float[Array, " d"]
    sent: Bool[Array, " M"]
    report: PyTree
    length: PyTree = ()


class Relay(eqx.Module):
    """What a replica of the controller is told of an `Arrival`: all of it, its total compressed. Zero everywhere where nobody sent.

    Attributes:
      message: the compressor's fixed-shape output for the total.
      sent, report, length: as they arrived; on the wire a bit for each learner, and the numbers of those that sent.
      bits: of all this, whole bytes; without header.
    """

    message: PyTree
    sent: Bool[Array, " M"]
    report: PyTree
    length: PyTree
    bits: Int[Array, ""]


class Task(eqx.Module):
    """What learner m owns: its index, the positive scale c_m of its loss, and anything a problem adds. A problem stacks M of them."""

    index: Int[Array, " *M"]
    scale: Float[Array, " *M"]
    extra: PyTree = None


class Elapsed(eqx.Module):
    """What an episode has come to so far: its steps, its losses (scaled, or raw in `HostBatch`), and its losses with γ^t. Leading axis N for several."""

    steps: Int[Array | np.ndarray, "*N"]
    losses: Float[Array | np.ndarray, "*N"]
    discounted: Float[Array | np.ndarray, "*N"]


class Trajectories(eqx.Module):
    """T steps in a row, leading axis T; a batch of N rows has a leading axis N in front of all.

    Attributes:
      observations: what the policy saw; after the end of an episode with which its row ends, the last observation again and again.
      actions: what it did (axes T, agents for a joint policy).
      log_probs: log π(a_t|s_t) of the joint action under the behaviour policy.
      losses: c_m · ℓ_m(s_t, a_t), the scaled loss.
      mask: False after the end of an episode with which its row ends; such steps have no loss and no score.
      terminated: steps with which an episode came to its own end: nothing follows.
      truncated: steps at which an episode was cut off, by T or by the environment: its last state has a future. Never both.
      following: what the policy would have seen next, before any reset; after the end, the last observation.
      before: in segments, what the episode in which the row begins had come to before it; nothing where rows are whole episodes.
      worlds: the environment's `lapg.types.Environment.world` at every step and after it, where it has one.
    """

    observations: PyTree
    actions: PyTree
    log_probs: Float[Array, "*N T"]
    losses: Float[Array, "*N T"]
    mask: Bool[Array, "*N T"]
    terminated: Bool[Array, "*N T"]
    truncated: Bool[Array, "*N T"]
    following: PyTree
    before: Elapsed | tuple[()] = ()
    worlds: PyTree = ()

    @property
    def ended(self) -> Bool[Array, "*N T"]:
        """Steps after which an episode did not go on."""
        return self.terminated | self.truncated


class HostBatch(NamedTuple):
    """Steps of all learners as a host environment leaves them: NumPy arrays, leading axes M, N, T.

    As `Trajectories`, but with raw losses ℓ_m and without log-probabilities, which the compiled reply adds.
    """

    observations: PyTree
    actions: PyTree
    losses: Any
    mask: Any
    terminated: Any
    truncated: Any
    following: PyTree
    before: Elapsed | tuple[()] = ()


class Estimate(eqx.Module):
    """A gradient estimate at one θ, or what a learner's own steps make of it.

    Attributes:
      gradient: ĝ, an estimate of ∇L_m(θ); of a `Local` in displacements, θ before its steps minus θ after.
      noise: σ̂², an estimate of tr Cov(ĝ); 0 for exact gradients, inf where one sample cannot tell, None where the rule has no estimate of it at all
        (`Estimator.knows_noise`).
      effective_samples: (Σw)²/Σw² of the importance weights; N on-policy.
      divergence: an estimate of KL(π that sampled ‖ π_θ) in nats a decision, None where the rule has none.
    """

    gradient: Float[Array, " d"]
    noise: Float[Array, ""] | None
    effective_samples: Float[Array, ""]
    divergence: Float[Array, ""] | None = None

    @property
    def noise_or_inf(self) -> Float[Array, "*N"]:
        """The noise as a number: inf where it is not known."""
        return jnp.full((), jnp.inf, self.gradient.dtype) if self.noise is None else self.noise


class Candidate(eqx.Module):
    """What a trigger decides about.

    Attributes:
      innovation: what would be uploaded, before compression.
      noise: the noise of the innovation as its memory defines it.
      decoded: the innovation as the controller would decode it.
      params: θ at which the learner sampled.
      age: rounds since the learner uploaded last; k + 1 if never.
      index: m.
      signal: the controller half's word, from the Broadcast.
    """

    innovation: Float[Array, " d"]
    noise: Float[Array, ""]
    decoded: Float[Array, " d"]
    params: Float[Array, " d"]
    age: Int[Array, ""]
    index: Int[Array, ""]
    signal: PyTree


class Weighted(eqx.Module):
    """A message that the controller multiplies by a number; with 0 the message stays at home, and its report travels alone."""

    weight: Float[Array | np.ndarray, ""]
    message: PyTree


class Decision(eqx.Module):
    """A trigger's answer: whether it fires, the two sides of its condition, and the scalars that ride on the upload.

    ``weight``: what the controller multiplies the innovation by, of a trigger that ``weighs``; with 0 the report travels alone, and is an upload as well.
    """

    fires: Bool[Array, ""]
    statistic: Float[Array, ""]
    threshold: Float[Array, ""]
    report: PyTree = ()
    weight: Float[Array, ""] | None = None


class LearnerLog(eqx.Module):
    """What a round leaves in the record, per learner."""

    innovation_norm: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    noise: Float[Array, ""]
    trigger_statistic: Float[Array, ""]
    trigger_threshold: Float[Array, ""]
    staleness: Int[Array, ""]
    non_finite: Bool[Array, ""]


class RoundLog(eqx.Module):
    """What a round leaves in the record, once: ‖aggregate‖ and ‖θ^{k+1} − θ^k‖."""

    aggregate_norm: Float[Array, ""]
    displacement_norm: Float[Array, ""]


class LearnerState(eqx.Module):
    """All that learner m remembers.

    ``sent_round`` is −1 until its first upload; ``slope`` is how far its last share would have moved the policy, per unit of its length, where a
    `StepLimit` holds for its own steps. ``rollout`` is that of its `Rollout`: the rounds carry it, the learner's own functions see nothing of it.
    """

    index: Int[Array, ""]
    estimator: PyTree
    reduction: PyTree
    local: PyTree
    memory: PyTree
    trigger: PyTree
    sent_round: Int[Array, ""]
    slope: PyTree = ()
    rollout: PyTree = ()


class ControllerState(eqx.Module):
    """All that the controller remembers."""

    round: Int[Array, ""]
    params: Float[Array, " d"]
    aggregate: Float[Array, " d"]
    optimiser: PyTree
    trigger: PyTree
