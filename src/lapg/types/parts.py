"""The protocols of all parts: named tuples of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from lapg.types.data import (
    Arrival,
    Broadcast,
    ControllerState,
    Decision,
    Estimate,
    LearnerLog,
    LearnerState,
    Recorded,
    RoundLog,
    Upload,
)
from lapg.types.tools import Scalar, check_length, tree_bits

GradientAt = Callable[[Float[Array, " d"]], Estimate]


class ScoreBounds(NamedTuple):
    """G = sup ‖∇log π(a|s)‖ and F = sup ‖∇²log π(a|s)‖ (operator norm), over all actions, states and θ: Assumption 2 of the paper."""

    score: float
    hessian: float


class Policy(NamedTuple):
    """A distribution over actions given an observation.

    ``init: key → θ`` · ``noise: key → noise`` of one action, drawn for a whole episode at once · ``sample: noise, θ, observation →
    action, log-probability`` · ``log_prob: θ, observation, action → scalar`` · ``mode: θ, observation → action`` (greedy) · ``num_params``: d ·
    ``actuate: action → what the environment is given``, where that differs from what is recorded (bounds) ·
    ``score_bounds``: G and F where they are known, infinite ones included.
    """

    init: Callable[..., Any]
    noise: Callable[..., Any]
    sample: Callable[..., Any]
    log_prob: Callable[..., Any]
    mode: Callable[..., Any]
    num_params: int
    actuate: Callable[..., Any] = lambda action: action
    score_bounds: ScoreBounds | None = None


class Step(NamedTuple):
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
    ``step: key, task, state, action → Step``. ``draw: axes, state → None`` paints one frame and may be None; a step lasts ``step_seconds``.
    """

    reset: Callable[..., Any]
    observe: Callable[..., Any]
    step: Callable[..., Any]
    draw: Callable[..., None] | None = None
    step_seconds: float = 0.125


class Interface(NamedTuple):
    """What stands between an outside environment and the policy that plays it.

    ``encode: observation, info → what the policy sees``, of the environment's own observation and info · ``decode: what the policy executes → what the
    environment is given`` · ``notes``: what the two change, a line each.
    """

    encode: Callable[..., Any]
    decode: Callable[..., Any]
    notes: tuple[str, ...] = ()


class Rollout(NamedTuple):
    """How the batches of a learner come about.

    ``init: key, task, N → state`` · ``advance: key, task, state, θ, N → state, batch``, None where a host plays (`Problem.proceed`) · ``score: task, batch
    → dict of scalars`` for the record · ``num_steps`` of a row · ``continues``: whether environments outlive a round, so that a row may begin and
    end within an episode, and hold pieces of several.
    """

    init: Callable[..., Any]
    advance: Callable[..., tuple[Any, Any]] | None
    score: Callable[..., Any]
    num_steps: int = 1
    continues: bool = False


class Problem(NamedTuple):
    """What the learners solve together.

    ``sample: key, task, θ, N → batch`` (opaque to learners) · ``score: task, batch → dict of scalars`` for the record ·
    ``init: key → θ`` · ``tasks``: a Task with leading axis M · ``num_learners``: M · ``shared``: whether all learners see the same samples.
    Optional: ``gradient: task, θ → ∇L_m(θ)`` and ``value: task, θ → L_m(θ)`` where the model is known; ``loss_bound: task → ℓ̄_m``,
    a bound on |c_m ℓ_m|, and ``smoothness: task → L_m``, the least Lipschitz constant of ∇L_m, where known; ``environment`` and ``policy``
    where there are any; ``joint``: whether the policy is one of several agents, θ a part for each (multi-agent), or all learners train one policy (parallel RL); ``observation``: what one looks like, where there is no environment to ask; ``num_steps``: T; ``discount``: γ.
    An environment outside JAX has ``collect: act, seeds, N, learners → Recorded`` instead of ``sample``: it plays N episodes for each of some learners, all M
    by default, asking ``act: observations (leading axes M, N), t → actions to record, actions to execute`` at every step; ``seeds`` are a whole number
    for each of them, and equal seeds and actions mean equal episodes. ``close`` closes the environments that it has made; a later ``collect`` makes new ones.
    ``proceed: act, seeds, N, learners, lane, T → Recorded`` is the same for segments of T steps of environments that live on: those of each lane (a name, hashable) and
    learner begin with episodes of those seeds, and go on from call to call until they are closed.
    ``rollout``: how learners' batches come about; None is `lapg.sampling.episodes`.
    ``interface`` translates where what the environment returns and takes is not what the policy sees and does.
    """

    sample: Callable[..., Any] | None
    score: Callable[..., Any]
    init: Callable[..., Any]
    tasks: PyTree
    num_learners: int
    shared: bool = False
    collect: Callable[..., Recorded] | None = None
    close: Callable[[], None] = lambda: None
    proceed: Callable[..., Recorded] | None = None
    rollout: Rollout | None = None
    gradient: Callable[..., Any] | None = None
    value: Callable[..., Any] | None = None
    loss_bound: Callable[..., Any] | None = None
    smoothness: Callable[..., Any] | None = None
    environment: Environment | None = None
    policy: Policy | None = None
    joint: bool = False
    observation: PyTree = None
    interface: Interface | None = None
    num_steps: int = 1
    discount: float = 1.0


class Estimator(NamedTuple):
    """``init: key, θ → state`` · ``update: state, task, batch → state`` · ``estimate: state, task, θ, batch → Estimate``.

    The state is private to the learner. ``minimum_batch`` is the smallest N that the estimator can work with; ``takes_segments``: whether rows may
    hold pieces of several episodes (`Rollout`).
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    estimate: Callable[..., Estimate]
    minimum_batch: int = 1
    takes_segments: bool = False


class Memory(NamedTuple):
    """What a learner remembers of its gradients, and what it would upload: the innovation.

    ``init: θ → state`` · ``update: state, broadcast, θ, gradient_at → state`` · ``innovation: state, age → value, its noise`` ·
    ``settle: state, decoded → state`` (only when sent) · ``behaviour: state, broadcast → θ`` to sample with, where that is not θ^k itself. ``reuses`` says what the controller
    does with an upload: add it to a running aggregate (True) or apply it once (False) · ``share: state, decoded → what its next step then holds of
    this learner`` · ``forgets``: whether what a message does not carry is gone, so
    that messages must be unbiased.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    innovation: Callable[..., Any]
    settle: Callable[..., Any]
    reuses: bool
    behaviour: Callable[..., Any] | None = None
    share: Callable[..., Any] = lambda state, decoded: decoded
    forgets: bool = False


Buffer = bytes | memoryview
"""A message, or a part of a longer one that nobody has copied."""


class Compressor(NamedTuple):
    """What a message looks like; stateless.

    ``compress: key, innovation → message`` · ``decompress: message → vector`` · ``num_bits: message → whole bytes``
    · on the host ``encode: message → buffer`` and ``decode: buffer, like → message``, with num_bits == 8·len(encode) · ``variance: d → ω``
    of an unbiased one, E‖C(x) − x‖² <= ω‖x‖²; None if the mean is not x.
    """

    compress: Callable[..., Any]
    decompress: Callable[..., Any]
    num_bits: Callable[..., Any]
    encode: Callable[..., Buffer]
    decode: Callable[..., Any]
    variance: Callable[[int], float] | None = None


def _nothing(*_: Any) -> tuple[()]:
    return ()


class Trigger(NamedTuple):
    """When to upload. The learner half decides, the controller half informs.

    Learner: ``init: θ → state`` · ``update: key, state, Candidate, gradient_at → state, Decision`` · ``settle: state, Candidate → state``.
    Controller: ``controller_init: θ, M → state`` · ``controller_update: state, displacement, Arrival → state`` · ``signal: key, state → PyTree``.
    Only what has arrived, or what the controller did itself, may enter a signal.
    """

    update: Callable[..., tuple[Any, Decision]]
    init: Callable[..., Any] = _nothing
    settle: Callable[..., Any] = lambda state, candidate: state
    controller_init: Callable[..., Any] = _nothing
    controller_update: Callable[..., Any] = lambda state, displacement, arrival: state
    signal: Callable[..., Any] = _nothing


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

    init: Callable[..., Any] = _nothing
    deliver: Callable[..., Any] = _theta_and_signal
    compress: Callable[..., Any] = lambda key, state, arrival, messages: (state, arrival)
    expand: Callable[..., Arrival] = lambda relay: relay
    resync: Callable[..., Any] = lambda state, lost: state
    compressor: Compressor | None = None


class StepLimit(NamedTuple):
    """A bound on the controller's steps: the ``limit``, and how a learner measures its share of one, ``length: θ, batch, direction → scalar``.

    ``local``: whether it holds for steps of the learners' own, too.
    """

    limit: Scalar
    length: Callable[..., Any]
    local: bool = False


class Learner(NamedTuple):
    """The learner's side.

    ``init: key, index, θ → LearnerState`` · ``behaviour: LearnerState, Broadcast → θ to sample with`` ·
    ``absorb: key, task, LearnerState, Broadcast, batch → LearnerState`` (inner steps before the last) ·
    ``reply: key, task, LearnerState, Broadcast, batch → LearnerState, Upload, LearnerLog``.
    """

    init: Callable[..., LearnerState]
    behaviour: Callable[..., Any]
    absorb: Callable[..., LearnerState]
    reply: Callable[..., tuple[LearnerState, Upload, LearnerLog]]


class Controller(NamedTuple):
    """The controller's side.

    ``init: θ, M → ControllerState`` · ``broadcast: key, ControllerState → Broadcast`` · ``gather: Uploads (leading axis M) → Arrival`` ·
    ``step: ControllerState, Arrival → ControllerState, RoundLog``.
    """

    init: Callable[..., ControllerState]
    broadcast: Callable[..., Broadcast]
    gather: Callable[..., Arrival]
    step: Callable[..., tuple[ControllerState, RoundLog]]


class Method(NamedTuple):
    """A choice of parts. ``batches``: trajectories per inner step, static; ``(N,)`` for one gradient a round.

    ``local``: learners sample at parameters of their own; θ^k is then scored on episodes that nobody learns from. ``participation``: the fraction of
    the learners that takes part in a round, static. ``reuses``: the controller keeps the sum of what everybody has uploaded (`Memory`), of which every
    learner has a share.
    """

    learner: Learner
    controller: Controller
    compressor: Compressor
    batches: tuple[int, ...]
    local: bool = False
    downlink: Downlink = Downlink()
    participation: float = 1.0
    reuses: bool = False


Recipe = Callable[[dict[str, Any]], Method]
"""Hyperparameters (scalars, possibly traced) to a Method. Called inside the compiled function."""
