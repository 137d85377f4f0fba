"""The parts of a method: named tuples of pure functions, whose arguments and results `lapg.types.signatures` describes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from lapg.types import signatures as calls
from lapg.types.messages import Broadcast, ControllerState
from lapg.types.problems import Statistics
from lapg.types.tools import Scalar, check_length, take_rows, tree_bits


def _nothing(*_: Any) -> tuple[()]:
    return ()


class Estimator(NamedTuple):
    """A learner's gradient of its batch; the state is private to the learner.

    ``init: key, θ → state`` · ``update: state, task, batch → state`` · ``estimate: state, task, θ, batch → Estimate`` · ``minimum_batch``: how
    many entries it needs at least · ``knows_noise``: False where it returns ``noise=None``, so that rules that need the noise are refused ·
    ``knows_divergence``: whether its estimates tell the divergence ·
    ``prepare: state, task, θ, batch → data``, once a round, of which estimates are then made, where the batch was sampled at θ: the batch itself by default · ``part: data, rows → data`` of some
    of its entries, for minibatches · ``num_entries``: how many it has, None is N · ``takes_segments``: whether rows of a batch may hold pieces of several
    episodes (`Rollout`) · ``statistics``: those of its policy, where gradients leave them as they are.
    """

    init: calls.EstimatorInit
    update: calls.EstimatorUpdate
    estimate: calls.EstimateGradient
    minimum_batch: int = 1
    knows_noise: bool = True
    prepare: calls.PrepareBatch = lambda state, task, params, batch: batch
    part: calls.PartOfBatch = take_rows
    num_entries: int | None = None
    takes_segments: bool = False
    knows_divergence: bool = False
    statistics: Statistics | None = None


class VarianceReduction(NamedTuple):
    """What takes noise out of a learner's gradients before anything else sees them; by default it leaves them as they are.

    ``init: θ → state`` · ``refine: state, broadcast, θ, estimate, gradient_at → state, Estimate``.
    """

    init: calls.FromParams = _nothing
    refine: calls.Refine = lambda state, broadcast, params, estimate, gradient_at: (state, estimate)


class Local(NamedTuple):
    """The learner's own steps; the defaults are those of `lapg.local.stand`.

    ``init: θ → state``, which uploads leave as it is · ``position: broadcast, residual → θ`` to sample at · ``walk: key, state, θ, estimate, gradient_at, N →
    state, Estimate``, the increment that the memory takes in · ``moves``: whether the position differs from θ^k, which needs a memory with a residual ·
    ``increment``: ``gradient``, out of which the controller's optimiser makes a step, or ``displacement``, in units of the parameters, which has no
    noise that anybody knows · ``num_steps``: of a round · ``minibatches``: of a step's gradient each takes one of so many equal parts of the batch ·
    ``needs_divergence``: whether it looks at the divergence of estimates.
    """

    init: calls.FromParams = _nothing
    position: calls.Position = lambda broadcast, residual: broadcast.params
    walk: calls.Walk = lambda key, state, params, estimate, gradient_at, num: (state, estimate)
    moves: bool = False
    increment: Literal["gradient", "displacement"] = "gradient"
    num_steps: int = 1
    minibatches: int = 1
    needs_divergence: bool = False


class Aggregate(NamedTuple):
    """What the controller makes of uploads.

    ``combine: what it stepped with last, Arrival → what it steps with`` · ``keeps_shares``: whether an upload stands until the learner's next one. The
    controller then steps with Σ shares; it needs a first one of every learner, and those of lost learners leave.
    """

    combine: calls.Combine
    keeps_shares: bool


class Memory(NamedTuple):
    """What a learner remembers of its gradients, and what it would upload: the innovation.

    ``init: θ → state`` · ``update: state, broadcast, estimate → state`` · ``innovation: state, age → value, its noise`` ·
    ``settle: state, decoded → state`` (only when sent) · ``aggregate``: what the controller makes of its uploads · ``share: state, decoded → what the
    controller's next step then holds of this learner`` · ``residual: state → what was taken in and not sent``, None where nothing is held back for later ·
    ``forgets``: whether what a message does not carry is gone, so that messages must be unbiased · ``needs_noise``: whether it looks at the noise.
    """

    init: calls.FromParams
    update: calls.MemoryUpdate
    innovation: calls.Innovation
    settle: calls.MemorySettle
    aggregate: Aggregate
    share: calls.Share = lambda state, decoded: decoded
    residual: calls.Residual | None = None
    forgets: bool = False
    needs_noise: bool = False


class Compressor(NamedTuple):
    """What a message looks like; stateless.

    ``compress: key, innovation → message`` · ``decompress: message → vector`` · ``num_bits: message → whole bytes``
    · on the host ``encode: message → buffer`` and ``decode: buffer, like → message``, with num_bits == 8·len(encode) · ``variance: d → ω``
    of an unbiased one, E‖C(x) − x‖² <= ω‖x‖²; None if the mean is not x.
    """

    compress: calls.Compress
    decompress: calls.Decompress
    num_bits: calls.NumBits
    encode: calls.Encode
    decode: calls.Decode
    variance: calls.VarianceBound | None = None


class Trigger(NamedTuple):
    """When to upload. The learner half decides, the controller half informs.

    Learner: ``init: θ → state`` · ``update: key, state, Candidate, estimate, gradient_at → state, Decision`` · ``settle: state, Candidate → state``.
    Controller: ``controller_init: θ, M → state`` · ``controller_update: state, displacement, Arrival → state`` · ``signal: key, state → PyTree``.
    Only what has arrived, or what the controller did itself, may enter a signal. ``needs_noise``: whether the decision depends on the noise ·
    ``weighs``: whether it says what uploads weigh (`Decision`).
    """

    update: calls.TriggerUpdate
    init: calls.FromParams = _nothing
    settle: calls.TriggerSettle = lambda state, candidate: state
    controller_init: calls.FromParamsAndLearners = _nothing
    controller_update: calls.TriggerWatch = lambda state, displacement, arrival: state
    signal: calls.Signal = _nothing
    needs_noise: bool = False
    weighs: bool = False


def _theta_and_signal(state: Any, controller: ControllerState, broadcast: Broadcast, participated: Any) -> Any:
    bits = tree_bits((broadcast.params, broadcast.signal))
    check_length("θ on a dense downlink", broadcast.params.size, bits, "at float32 if this is float64")
    return state, jnp.where(participated, bits, 0).astype(jnp.int32)


class Downlink(NamedTuple):
    """What goes from the controller to its learners; the defaults are those of `lapg.downlink.dense`.

    ``init: ControllerState, M → state`` of the controller's end, where every learner knows the ControllerState · ``deliver: state, ControllerState, Broadcast, Bool[M] → state, bits [M]`` of
    what each learner that takes part hears before it samples, without header · ``compress: key, state, Arrival, messages that it was made of (leading axis M) → state, relay``, between gather and
    step · ``expand: relay → Arrival``, with which the controller and every replica of it step · ``resync: state, Bool[M] → state``: these learners
    have lost what they knew · ``compressor`` of the relays' totals, None where learners hold no replica and hear θ^k itself.
    """

    init: calls.DownlinkInit = _nothing
    deliver: calls.Deliver = _theta_and_signal
    compress: calls.CompressArrival = lambda key, state, arrival, messages: (state, arrival)
    expand: calls.Expand = lambda relay: relay
    resync: calls.Resync = lambda state, lost: state
    compressor: Compressor | None = None


class StepLimit(NamedTuple):
    """A bound on the controller's steps: the ``limit``, and how a learner measures its share of one, ``length: θ, batch, direction → scalar``.

    ``local``: whether it holds for steps of the learners' own, too.
    """

    limit: Scalar
    length: calls.StepLength
    local: bool = False


class Learner(NamedTuple):
    """The learner's side.

    ``init: key, index, θ → LearnerState`` · ``behaviour: LearnerState, Broadcast → θ to sample with`` ·
    ``reply: key, task, LearnerState, Broadcast, batch → LearnerState, Upload, LearnerLog``.
    """

    init: calls.LearnerInit
    behaviour: calls.Behaviour
    reply: calls.LearnerReply


class Controller(NamedTuple):
    """The controller's side.

    ``init: θ, M → ControllerState`` · ``broadcast: key, ControllerState → Broadcast`` · ``gather: Uploads (leading axis M) → Arrival`` ·
    ``step: ControllerState, Arrival → ControllerState, RoundLog``.
    """

    init: calls.ControllerInit
    broadcast: calls.MakeBroadcast
    gather: calls.Gather
    step: calls.ControllerStep


class Method(NamedTuple):
    """A choice of parts, put together.

    ``batch_size``: N, trajectories of a learner and round, static · ``local``: the learners' own steps; where it ``moves``, they sample at parameters of
    their own · ``aggregate``: what the controller makes of uploads · ``participation``: the fraction of the learners that takes part in a round, static.
    """

    learner: Learner
    controller: Controller
    compressor: Compressor
    batch_size: int
    aggregate: Aggregate
    local: Local = Local()
    downlink: Downlink = Downlink()
    participation: float = 1.0


Recipe = Callable[[dict[str, Any]], Method]
"""Hyperparameters (scalars, possibly traced) to a Method. Called inside the compiled function."""
