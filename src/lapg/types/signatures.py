"""What the functions of a method's parts take and return (those of problems and policies: `lapg.types.problem_signatures`).

Arguments are positional, their names free. A state is any PyTree of arrays whose structure, shapes and dtypes never change. All functions but those on
the host (`Encode`, `Decode`, `Collect`) are traced: pure, without Python branches on values. What goes wrong in them must become a number, not an exception.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lapg.types.messages import (
    Arrival,
    Broadcast,
    Candidate,
    ControllerState,
    Decision,
    Estimate,
    LearnerLog,
    LearnerState,
    RoundLog,
    Task,
    Upload,
)

Buffer = bytes | memoryview
"""A message, or a part of a longer one that nobody has copied."""


@runtime_checkable
class GradientAt(Protocol):
    """The raw gradient of this round's batch at any θ, by importance weights where θ is not where the batch was sampled."""

    def __call__(self, params: Float[Array, " d"], rows: Int[Array, " n"] | None = None, /) -> Estimate:
        """``rows``: which entries of the batch's leading axis N to use; None is all. Raises ValueError if the batch has no such axis."""
        ...


@runtime_checkable
class FromParams(Protocol):
    """A state before round 0, of θ⁰."""

    def __call__(self, params: Float[Array, " d"], /) -> Any: ...


# Estimators


@runtime_checkable
class EstimatorInit(Protocol):
    """The estimator's private state before round 0."""

    def __call__(self, key: Key[Array, ""], params: Float[Array, " d"], /) -> Any: ...


@runtime_checkable
class EstimatorUpdate(Protocol):
    """Takes this round's batch into the state, once a round, before it is asked for estimates."""

    def __call__(self, state: Any, task: Task, batch: Any, /) -> Any: ...


@runtime_checkable
class PrepareBatch(Protocol):
    """What estimates are made of, of the batch and the state that has taken it in: computed once a round, however many estimates there are (advantages).

    The batch was sampled at θ.
    """

    def __call__(self, state: Any, task: Task, params: Float[Array, " d"], batch: Any, /) -> Any: ...


@runtime_checkable
class EstimateGradient(Protocol):
    """The gradient at θ from the batch or, where a `Local` takes minibatches, from some of its rows."""

    def __call__(self, state: Any, task: Task, params: Float[Array, " d"], batch: Any, /) -> Estimate: ...


@runtime_checkable
class PartOfBatch(Protocol):
    """Some of the entries of what `PrepareBatch` returned. Raises ValueError if it cannot be taken apart."""

    def __call__(self, batch: Any, rows: Int[Array, " n"], /) -> Any: ...


@runtime_checkable
class Refine(Protocol):
    """This round's estimate at θ, where the learner samples, made less noisy with raw gradients at other parameters."""

    def __call__(
        self,
        state: Any,
        broadcast: Broadcast,
        params: Float[Array, " d"],
        estimate: Estimate,
        gradient_at: GradientAt,
        /,
    ) -> tuple[Any, Estimate]: ...


# The learner's own steps


@runtime_checkable
class Position(Protocol):
    """θ at which the learner samples, of θ^k and of the residual [d] that its memory holds back."""

    def __call__(self, broadcast: Broadcast, residual: Float[Array, " d"], /) -> Float[Array, " d"]: ...


@runtime_checkable
class Walk(Protocol):
    """The learner's steps from θ, where it has sampled: a new state, and the increment that the memory takes in.

    ``estimate`` is the refined gradient at θ of the whole batch; ``gradient_at`` has raw ones at any θ, of any rows of the batch; ``num``: how many of these there are.
    """

    def __call__(
        self,
        key: Key[Array, ""],
        state: Any,
        params: Float[Array, " d"],
        estimate: Estimate,
        gradient_at: GradientAt,
        num: int,
        /,
    ) -> tuple[Any, Estimate]: ...


# Memories and aggregates


@runtime_checkable
class MemoryUpdate(Protocol):
    """Takes in this round's estimate."""

    def __call__(self, state: Any, broadcast: Broadcast, estimate: Estimate, /) -> Any: ...


@runtime_checkable
class Innovation(Protocol):
    """What would be uploaded [d], and its noise, a scalar; ``age``: rounds since the last upload."""

    def __call__(self, state: Any, age: Int[Array, ""], /) -> tuple[Float[Array, " d"], Float[Array, ""]]: ...


@runtime_checkable
class MemorySettle(Protocol):
    """The state after an upload that the controller decodes as ``decoded``; called only when sent."""

    def __call__(self, state: Any, decoded: Float[Array, " d"], /) -> Any: ...


@runtime_checkable
class Residual(Protocol):
    """What a memory has taken in and not yet sent [d]."""

    def __call__(self, state: Any, /) -> Float[Array, " d"]: ...


@runtime_checkable
class Share(Protocol):
    """What the controller's next step holds of this learner [d], if it sends what decodes to ``decoded``."""

    def __call__(self, state: Any, decoded: Float[Array, " d"], /) -> Float[Array, " d"]: ...


@runtime_checkable
class Combine(Protocol):
    """What the controller steps with [d], of what it stepped with last and of what has arrived."""

    def __call__(self, held: Float[Array, " d"], arrival: Arrival, /) -> Float[Array, " d"]: ...


# Compressors


@runtime_checkable
class Compress(Protocol):
    """The message of a vector [d], a PyTree of fixed shapes."""

    def __call__(self, key: Key[Array, ""], vector: Any, /) -> Any: ...


@runtime_checkable
class Decompress(Protocol):
    """The vector [d] that a message stands for, in the vector's dtype."""

    def __call__(self, message: Any, /) -> Float[Array, " d"]: ...


@runtime_checkable
class NumBits(Protocol):
    """A message's length, an int32 scalar, a multiple of 8 and equal to 8 · len(encode(message))."""

    def __call__(self, message: Any, /) -> Any: ...


@runtime_checkable
class Encode(Protocol):
    """The message's bytes; on the host, of NumPy arrays."""

    def __call__(self, message: Any, /) -> Buffer: ...


@runtime_checkable
class Decode(Protocol):
    """The message of its bytes, in NumPy arrays shaped as ``like``. Raises ValueError, or any error of NumPy's, where the bytes are no message."""

    def __call__(self, raw: Buffer, like: Any, /) -> Any: ...


@runtime_checkable
class VarianceBound(Protocol):
    """ω of vectors of d entries: E‖C(x) − x‖² <= ω‖x‖²."""

    def __call__(self, size: int, /) -> float: ...


# Triggers


@runtime_checkable
class TriggerUpdate(Protocol):
    """Decides at learner m whether to upload the candidate.

    ``estimate`` is what the memory has taken in this round: the gradient of this round's batch at ``candidate.params``, refined where there is a variance
    reduction, or the displacement of the learner's own steps. Rules that compare gradients at other parameters ask ``gradient_at``, which is raw.
    """

    def __call__(
        self, key: Key[Array, ""], state: Any, candidate: Candidate, estimate: Estimate, gradient_at: GradientAt, /
    ) -> tuple[Any, Decision]: ...


@runtime_checkable
class TriggerSettle(Protocol):
    """The learner's state after an upload; called only when sent."""

    def __call__(self, state: Any, candidate: Candidate, /) -> Any: ...


@runtime_checkable
class FromParamsAndLearners(Protocol):
    """The controller's half before round 0, of θ⁰ and M."""

    def __call__(self, params: Float[Array, " d"], num_learners: int, /) -> Any: ...


@runtime_checkable
class TriggerWatch(Protocol):
    """Takes the controller's step θ^{k+1} − θ^k and what it was made of into the controller's half."""

    def __call__(self, state: Any, displacement: Float[Array, " d"], arrival: Arrival, /) -> Any: ...


@runtime_checkable
class Signal(Protocol):
    """What the controller's half tells all learners, a PyTree of fixed shapes."""

    def __call__(self, key: Key[Array, ""], state: Any, /) -> PyTree: ...


# The downlink and limits of steps


@runtime_checkable
class DownlinkInit(Protocol):
    """The controller's end before round 0."""

    def __call__(self, controller: ControllerState, num_learners: int, /) -> Any: ...


@runtime_checkable
class Deliver(Protocol):
    """A new state, and the bits [M] that each learner that takes part receives before it samples, without header."""

    def __call__(
        self, state: Any, controller: ControllerState, broadcast: Broadcast, participated: Any, /
    ) -> tuple[Any, Int[Array, " M"]]: ...


@runtime_checkable
class CompressArrival(Protocol):
    """A new state, and what controller and replicas step with, of what has arrived and of the messages it was made of (leading axis M)."""

    def __call__(self, key: Key[Array, ""], state: Any, arrival: Arrival, messages: PyTree, /) -> tuple[Any, Any]: ...


@runtime_checkable
class Expand(Protocol):
    """The arrival that a relay stands for."""

    def __call__(self, relay: Any, /) -> Arrival: ...


@runtime_checkable
class Resync(Protocol):
    """The state after these learners [M] have lost what they knew."""

    def __call__(self, state: Any, lost: Bool[Array, " M"], /) -> Any: ...


@runtime_checkable
class StepLength(Protocol):
    """The length of a direction [d] from θ, in the norm of the limit, measured on a batch sampled at θ; a scalar."""

    def __call__(
        self, params: Float[Array, " d"], batch: Any, direction: Float[Array, " d"], /
    ) -> Float[Array, ""]: ...


# Both sides


@runtime_checkable
class LearnerInit(Protocol):
    """Learner m before round 0."""

    def __call__(self, key: Key[Array, ""], index: Int[Array, ""], params: Float[Array, " d"], /) -> LearnerState: ...


@runtime_checkable
class Behaviour(Protocol):
    """θ to sample with in this round."""

    def __call__(self, state: LearnerState, broadcast: Broadcast, /) -> Float[Array, " d"]: ...


@runtime_checkable
class LearnerReply(Protocol):
    """Takes in the round's batch and answers the controller."""

    def __call__(
        self, key: Key[Array, ""], task: Task, state: LearnerState, broadcast: Broadcast, batch: Any, /
    ) -> tuple[LearnerState, Upload, LearnerLog]: ...


@runtime_checkable
class ControllerInit(Protocol):
    """The controller before round 0."""

    def __call__(self, params: Float[Array, " d"], num_learners: int, /) -> ControllerState: ...


@runtime_checkable
class MakeBroadcast(Protocol):
    """What all learners are told at the beginning of a round."""

    def __call__(self, key: Key[Array, ""], state: ControllerState, /) -> Broadcast: ...


@runtime_checkable
class Gather(Protocol):
    """The sum of what uploads (leading axis M) decode to, and who sent."""

    def __call__(self, uploads: Upload, /) -> Arrival: ...


@runtime_checkable
class ControllerStep(Protocol):
    """θ^{k+1} of what has arrived."""

    def __call__(self, state: ControllerState, arrival: Arrival, /) -> tuple[ControllerState, RoundLog]: ...
