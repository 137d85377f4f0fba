"""The letters of the code base: messages, states and the protocols of every part.

Everything is unbatched. ``M`` learners, ``N`` trajectories a batch, ``T`` steps a trajectory, ``K``
rounds, ``D`` window of the trigger, ``d`` parameters; ``θ`` is one flat vector of ``d`` entries and
only policies unravel it. Runtimes add axes with ``vmap``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

Scalar = int | float | Float[Array, ""]


def known(value: Any) -> bool:
    """Whether a value is concrete, so that a constructor can check it; tracers are not."""
    return not isinstance(value, Tracer)


# Purposes of random numbers: the first entry of every address.
SAMPLE, REPLY, SIGNAL, INIT, SCORE, PRESENCE, RELAY = range(7)
NOBODY = 2**32 - 1
"""The learner of an address that belongs to no learner: the controller, or a shared environment."""


def address(
    root: Key[Array, ""],
    purpose: int,
    learner: int | Int[Array, ""],
    round: int | Int[Array, ""],
    step: int | Int[Array, ""] = 0,
) -> Key[Array, ""]:
    """The key of one use of randomness; a pure function of where it is used, so no state holds a key.

    Every runtime, order of execution, restart and resume therefore sees the same samples. All four
    parts are always folded in: shortening an address would make two of them collide.
    """
    for part in (purpose, learner, round, step):
        root = jax.random.fold_in(root, part)
    return root


# ---------------------------------------------------------------- what travels


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
      report: scalars that ride on the upload, the trigger's and the length that a `StepLimit` asks for; they never travel alone.
      bits: payload and report together, whole bytes; the header is the ledger's.
    """

    sent: Bool[Array, ""]
    message: PyTree
    report: PyTree
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


# ---------------------------------------------------------------- what is computed


class Task(eqx.Module):
    """What learner m owns: its index, the positive scale c_m of its loss, and anything a problem adds. A problem stacks M of them."""

    index: Int[Array, " *M"]
    scale: Float[Array, " *M"]
    extra: PyTree = None


class Trajectories(eqx.Module):
    """One trajectory of T steps, with a leading axis T where steps are told apart; a batch of them has a leading axis N in front of all.

    Attributes:
      observations: what the policy saw; after the end of the episode, the last observation again and again.
      actions: what it did (axes T, agents for a joint policy).
      log_probs: log π(a_t|s_t) of the joint action under the behaviour policy.
      losses: c_m · ℓ_m(s_t, a_t), the scaled loss.
      mask: False after the end of the episode; such steps have no loss and no score.
      terminated: whether the episode came to its own end. If not, it was cut off, by T or by the environment, and its last state has a future.
      final_observation: what the policy would have seen next.
    """

    observations: PyTree
    actions: PyTree
    log_probs: Float[Array, "*N T"]
    losses: Float[Array, "*N T"]
    mask: Bool[Array, "*N T"]
    terminated: Bool[Array, "*N"]
    final_observation: PyTree


class Recorded(NamedTuple):
    """Episodes of all learners as a host environment leaves them: NumPy arrays, leading axes M, N, T (M, N for the last two).

    As `Trajectories`, but with raw losses ℓ_m and without log-probabilities, which the compiled reply adds.
    """

    observations: PyTree
    actions: PyTree
    losses: Any
    mask: Any
    terminated: Any
    final_observation: PyTree


class Estimate(eqx.Module):
    """A gradient estimate at one θ.

    Attributes:
      gradient: ĝ, an estimate of ∇L_m(θ).
      noise: σ̂², an estimate of tr Cov(ĝ); 0 for exact gradients, inf where one sample cannot tell.
      effective_samples: (Σw)²/Σw² of the importance weights; N on-policy.
    """

    gradient: Float[Array, " d"]
    noise: Float[Array, ""]
    effective_samples: Float[Array, ""]


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


class Decision(eqx.Module):
    """A trigger's answer: whether it fires, both sides of its condition, and what rides on the upload."""

    fires: Bool[Array, ""]
    left: Float[Array, ""]
    right: Float[Array, ""]
    report: PyTree = ()


class LearnerLog(eqx.Module):
    """What a round leaves in the record, per learner."""

    innovation_norm: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    noise: Float[Array, ""]
    trigger_left: Float[Array, ""]
    trigger_right: Float[Array, ""]
    staleness: Int[Array, ""]
    non_finite: Bool[Array, ""]


class RoundLog(eqx.Module):
    """What a round leaves in the record, once: ‖aggregate‖ and ‖θ^{k+1} − θ^k‖."""

    aggregate_norm: Float[Array, ""]
    displacement_norm: Float[Array, ""]


class LearnerState(eqx.Module):
    """All that learner m remembers. ``sent_round`` is −1 until its first upload."""

    index: Int[Array, ""]
    estimator: PyTree
    memory: PyTree
    trigger: PyTree
    sent_round: Int[Array, ""]


class ControllerState(eqx.Module):
    """All that the controller remembers."""

    round: Int[Array, ""]
    params: Float[Array, " d"]
    aggregate: Float[Array, " d"]
    optimiser: PyTree
    trigger: PyTree


# ---------------------------------------------------------------- the parts

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
    ``step: key, task, state, action → Step``. ``draw: axes, state → None`` paints one frame and may be None.
    """

    reset: Callable[..., Any]
    observe: Callable[..., Any]
    step: Callable[..., Any]
    draw: Callable[..., None] | None = None


class Problem(NamedTuple):
    """What the learners solve together.

    ``sample: key, task, θ, N → batch`` (opaque to learners) · ``score: task, batch → dict of scalars`` for the record ·
    ``init: key → θ`` · ``tasks``: a Task with leading axis M · ``num_learners``: M · ``shared``: whether all learners see the same samples.
    Optional: ``gradient: task, θ → ∇L_m(θ)`` and ``value: task, θ → L_m(θ)`` where the model is known; ``loss_bound: task → ℓ̄_m``,
    a bound on |c_m ℓ_m|, and ``smoothness: task → L_m``, the least Lipschitz constant of ∇L_m, where known; ``environment`` and ``policy``
    where there are any; ``observation``: what one looks like, where there is no environment to ask; ``num_steps``: T; ``discount``: γ.
    An environment outside JAX has ``collect: act, seeds, N → Recorded`` instead of ``sample``: it plays N episodes for each of the M learners,
    asking ``act: observations (leading axes M, N), t → actions to record, actions to execute`` at every step; ``seeds`` are M whole numbers, and equal
    seeds and actions mean equal episodes.
    """

    sample: Callable[..., Any] | None
    score: Callable[..., Any]
    init: Callable[..., Any]
    tasks: PyTree
    num_learners: int
    shared: bool = False
    collect: Callable[..., Recorded] | None = None
    gradient: Callable[..., Any] | None = None
    value: Callable[..., Any] | None = None
    loss_bound: Callable[..., Any] | None = None
    smoothness: Callable[..., Any] | None = None
    environment: Environment | None = None
    policy: Policy | None = None
    observation: PyTree = None
    num_steps: int = 1
    discount: float = 1.0


class Estimator(NamedTuple):
    """``init: key, θ → state`` · ``update: state, task, batch → state`` · ``estimate: state, task, θ, batch → Estimate``.

    The state is private to the learner. ``minimum_batch`` is the smallest N that the estimator can work with.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    estimate: Callable[..., Estimate]
    minimum_batch: int = 1


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


class Compressor(NamedTuple):
    """What a message looks like; stateless.

    ``compress: key, innovation → message`` · ``decompress: message → vector`` · ``num_bits: message → whole bytes``
    · on the host ``encode: message → bytes`` and ``decode: bytes, like → message``, with num_bits == 8·len(encode) · ``variance: d → ω``
    of an unbiased one, E‖C(x) − x‖² <= ω‖x‖²; None if the mean is not x.
    """

    compress: Callable[..., Any]
    decompress: Callable[..., Any]
    num_bits: Callable[..., Any]
    encode: Callable[..., bytes]
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
    return state, jnp.where(participated, tree_bits((broadcast.params, broadcast.signal)), 0).astype(jnp.int32)


class Downlink(NamedTuple):
    """What goes from the controller to its learners; the defaults are those of `lapg.downlink.dense`.

    ``init: ControllerState, M → state`` of the controller's end · ``deliver: state, ControllerState, Broadcast, Bool[M] → state, bits [M]`` of
    what each learner that takes part hears before it samples, without header · ``compress: key, state, Arrival → state, relay``, between gather and
    step · ``expand: relay → Arrival``, with which the controller and every replica of it step · ``resync: state, Bool[M] → state``: these learners
    have lost what they knew · ``compressor`` of the relays' totals, None where learners hold no replica and hear θ^k itself.
    """

    init: Callable[..., Any] = _nothing
    deliver: Callable[..., Any] = _theta_and_signal
    compress: Callable[..., Any] = lambda key, state, arrival: (state, arrival)
    expand: Callable[..., Arrival] = lambda relay: relay
    resync: Callable[..., Any] = lambda state, lost: state
    compressor: Compressor | None = None


class StepLimit(NamedTuple):
    """A bound on the controller's steps: the ``limit``, and how a learner measures its share of one, ``length: θ, batch, direction → scalar``."""

    limit: Scalar
    length: Callable[..., Any]


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


def tree_bits(tree: PyTree) -> int:
    """Length of a tree's leaves on the wire, each at its own precision; shapes suffice."""
    return sum(8 * leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def sum_rows(rows: Float[Array, "M d"]) -> Float[Array, " d"]:
    """Σ_m rows[m]. Long rows as a product: on CPUs XLA sums columns up to a hundred times slower than it multiplies."""
    if rows.shape[1] < 10_000:  # where a sum fuses with what is around it
        return jnp.sum(rows, 0)
    return jnp.matmul(jnp.ones(rows.shape[0], rows.dtype), rows, precision="highest")


def squared_norm(vector: Float[Array, " d"]) -> Float[Array, ""]:
    """‖x‖²."""
    return jnp.sum(vector * vector)


def select(condition: Bool[Array, ""], yes: PyTree, no: PyTree) -> PyTree:
    """``yes`` where the condition holds, else ``no``, leaf by leaf; keys included."""
    return jax.tree.map(lambda a, b: jax.lax.select(condition, a, b), yes, no)
