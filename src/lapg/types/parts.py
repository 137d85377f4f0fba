"""All parts: named tuples of pure functions, whose arguments and results `lapg.types.signatures` describes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from lapg.types import signatures as calls
from lapg.types.messages import Broadcast, ControllerState, Task
from lapg.types.spaces import JointSpaces, Spaces
from lapg.types.tools import Scalar, check_length, take_rows, tree_bits


class ScoreBounds(NamedTuple):
    """G = sup ‖∇log π(a|s)‖ and F = sup ‖∇²log π(a|s)‖ (operator norm), over all actions, states and θ: Assumption 2 of the paper."""

    score: float
    hessian: float


class Policy(NamedTuple):
    """A distribution over actions given an observation.

    ``init: key → θ`` · ``action_noise: key → noise``, the random numbers of one action, drawn for a whole episode at once · ``sample: noise, θ, observation →
    action, log-probability`` · ``log_prob: θ, observation, action → scalar`` · ``mode: θ, observation → action`` (greedy) · ``num_params``: d ·
    ``actuate: action → what the environment is given``, where that differs from what is recorded (bounds) ·
    ``entropy: θ, observation → scalar``, None where it is not known ·
    ``score_bounds``: G and F where they are known, infinite ones included · ``linear``: whether actions are normal around a mean Θs that is linear in
    the observation, with the same deviation everywhere, and executed as they are.
    """

    init: calls.InitParams
    action_noise: calls.ActionNoise
    sample: calls.SampleAction
    log_prob: calls.LogProb
    mode: calls.GreedyAction
    num_params: int
    actuate: calls.ActionMap = lambda action: action
    entropy: calls.Entropy | None = None
    score_bounds: ScoreBounds | None = None
    linear: bool = False


class Transition(NamedTuple):
    """What one step of an environment brings: the state after it, learner m's raw loss, and whether the episode is over.

    ``terminated`` is an end that belongs to the task; ``truncated`` cuts off an episode that would go on. T itself is the problem's, not the environment's.
    """

    state: PyTree
    loss: Any
    terminated: Any = False
    truncated: Any = False


class Environment(NamedTuple):
    """A Markov decision process seen by learner m through its task.

    ``reset: key, task → state`` · ``observe: state → observation``, global or one per agent (`lapg.policies.replicated`) ·
    ``step: key, task, state, action → Transition``. ``draw: axes, state → None`` paints one frame and may be None; a step lasts ``step_seconds``.
    """

    reset: Callable[[Key[Array, ""], Task], Any]
    observe: Callable[[Any], Any]
    step: Callable[[Key[Array, ""], Task, Any, Any], Transition]
    draw: Callable[[Any, Any], None] | None = None
    step_seconds: float = 0.125


class Interface(NamedTuple):
    """What stands between an outside environment and the policy that plays it.

    ``encode: observation, info → what the policy sees``, of the environment's own observation and info · ``decode: what the policy executes → what the
    environment is given`` · ``notes``: what the two change, a line each.
    """

    encode: Callable[[Any, Any], Any]
    decode: Callable[[Any], Any]
    notes: tuple[str, ...] = ()


class Model(NamedTuple):
    """What is known of the objective at a policy's θ: ``value: task, θ → L_m(θ)`` · ``gradient: task, θ → ∇L_m(θ)``."""

    value: calls.OfTaskAndParams
    gradient: calls.OfTaskAndParams


class Rollout(NamedTuple):
    """How the batches of a learner come about.

    ``init: key, task, N → state`` · ``advance: key, task, state, θ, N → state, batch``, None where a host plays (`Problem.collect`, `Problem.proceed`) ·
    ``score: task, batch → dict of scalars`` for the record · ``num_steps`` of a row · ``continues``: whether environments outlive a round, so that a row
    may begin and end within an episode, and hold pieces of several.
    """

    init: calls.RolloutInit
    advance: calls.Advance | None
    score: calls.Score
    num_steps: int = 1
    continues: bool = False


class Problem(NamedTuple):
    """What the learners solve together, and beside it the ``policy`` that solves it.

    ``score: task, batch → dict of scalars`` for the record · ``tasks``: a Task with leading axis M · ``num_learners``: M · ``shared``: whether all
    learners see the same samples · ``num_steps``: T · ``discount``: γ · ``joint``: whether the policy is one of several agents, θ a part for each
    (multi-agent), or all learners train one policy (parallel RL).

    Nothing here knows the policy; what depends on it, ``sample``, ``init``, ``value`` and ``gradient``, is derived when it is asked for, so that the
    problem with another ``policy`` is that policy's (`lapg.policies.with_policy` makes one that fits). ``spaces`` is what a policy has to know,
    None where the problem comes with a policy of its own or needs none · ``default_policy: spaces → Policy``.

    Episodes come from an ``environment``, by ``sampler: problem → sample`` (`lapg.rollouts.episodes`). An environment outside JAX has
    ``collect: act, seeds, N, learners → HostBatch`` instead: it plays N episodes for each of some learners, all M by default, asking
    ``act: observations (leading axes M, N), t → actions to record, actions to execute`` at every step; ``seeds`` are a whole number for each of
    them, and equal seeds and actions mean equal episodes. ``proceed: act, seeds, N, learners, lane, T → HostBatch`` is the same for segments of T steps of
    environments that live on, those of each lane and learner, until they are closed. ``close`` closes the environments that it has made; a later
    ``collect`` makes new ones.
    ``rollouts: problem → Rollout`` says how learners come by their batches; None is `lapg.rollouts.whole_episodes`.
    ``observation``: what one looks like, where there is no environment to ask · ``interface`` translates where what the environment returns and
    takes is not what the policy sees and does. A problem without a policy has a sampler of its own, and ``start: key → θ⁰``.

    Where known: ``model: policy → Model``, or None for a policy that it does not know · ``loss_bound: task → ℓ̄_m``, a bound on |c_m ℓ_m| ·
    ``smoothness: task → L_m``, the least Lipschitz constant of ∇L_m.
    """

    score: calls.Score
    tasks: PyTree
    num_learners: int
    shared: bool = False
    environment: Environment | None = None
    sampler: Callable[[Any], calls.SampleBatch | None] | None = None
    collect: calls.Collect | None = None
    proceed: calls.Proceed | None = None
    close: Callable[[], None] = lambda: None
    rollouts: Callable[[Any], Rollout] | None = None
    policy: Policy | None = None
    spaces: Spaces | JointSpaces | None = None
    default_policy: Callable[[Any], Policy] | None = None
    start: calls.InitParams | None = None
    model: Callable[[Policy | None], Model | None] = lambda policy: None
    loss_bound: calls.OfTask | None = None
    smoothness: calls.OfTask | None = None
    joint: bool = False
    observation: PyTree = None
    interface: Interface | None = None
    num_steps: int = 1
    discount: float = 1.0

    @property
    def sample(self) -> calls.SampleBatch | None:
        """``key, task, θ, N → batch`` (opaque to learners); None for an environment outside JAX."""
        return None if self.sampler is None else self.sampler(self)

    @property
    def rollout(self) -> Rollout | None:
        """How learners come by their batches, where it is said."""
        return None if self.rollouts is None else self.rollouts(self)

    @property
    def init(self) -> calls.InitParams:
        """``key → θ⁰``.

        Raises:
          ValueError: there is neither a policy nor a start.
        """
        found = self.start if self.policy is None else self.policy.init
        if found is None:
            raise ValueError(
                "Problem(...) must have a policy or a start, and has neither; see lapg.policies.with_policy."
            )
        return found

    @property
    def value(self) -> calls.OfTaskAndParams | None:
        """``task, θ → L_m(θ)`` where it is known of this policy."""
        model = self.model(self.policy)
        return model and model.value

    @property
    def gradient(self) -> calls.OfTaskAndParams | None:
        """``task, θ → ∇L_m(θ)`` where it is known of this policy."""
        model = self.model(self.policy)
        return model and model.gradient


def _nothing(*_: Any) -> tuple[()]:
    return ()


class Estimator(NamedTuple):
    """A learner's gradient of its batch; the state is private to the learner.

    ``init: key, θ → state`` · ``update: state, task, batch → state`` · ``estimate: state, task, θ, batch → Estimate`` · ``minimum_batch``: how
    many entries it needs at least · ``knows_noise``: False where it returns ``noise=None``, so that rules that need the noise are refused ·
    ``knows_divergence``: whether its estimates tell the divergence ·
    ``prepare: state, task, batch → data``, once a round, of which estimates are then made: the batch itself by default · ``part: data, rows → data`` of some
    of its entries, for minibatches · ``num_entries``: how many it has, None is N · ``takes_segments``: whether rows of a batch may hold pieces of several
    episodes (`Rollout`).
    """

    init: calls.EstimatorInit
    update: calls.EstimatorUpdate
    estimate: calls.EstimateGradient
    minimum_batch: int = 1
    knows_noise: bool = True
    prepare: calls.PrepareBatch = lambda state, task, batch: batch
    part: calls.PartOfBatch = take_rows
    num_entries: int | None = None
    takes_segments: bool = False
    knows_divergence: bool = False


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
    Only what has arrived, or what the controller did itself, may enter a signal. ``needs_noise``: whether the decision depends on the noise.
    """

    update: calls.TriggerUpdate
    init: calls.FromParams = _nothing
    settle: calls.TriggerSettle = lambda state, candidate: state
    controller_init: calls.FromParamsAndLearners = _nothing
    controller_update: calls.TriggerWatch = lambda state, displacement, arrival: state
    signal: calls.Signal = _nothing
    needs_noise: bool = False


def _theta_and_signal(state: Any, controller: ControllerState, broadcast: Broadcast, participated: Any) -> Any:
    bits = tree_bits((broadcast.params, broadcast.signal))
    check_length("θ on a dense downlink", broadcast.params.size, bits, "at float32 if this is float64")
    return state, jnp.where(participated, bits, 0).astype(jnp.int32)


class Downlink(NamedTuple):
    """What goes from the controller to its learners; the defaults are those of `lapg.downlink.dense`.

    ``init: ControllerState, M → state`` of the controller's end · ``deliver: state, ControllerState, Broadcast, Bool[M] → state, bits [M]`` of
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
