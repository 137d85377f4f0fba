"""What the functions of problems and policies take and return; what `lapg.types.signatures` says of arguments and states holds here."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key, PyTree

from lapg.types.messages import (
    HostBatch,
    Task,
)


@runtime_checkable
class InitParams(Protocol):
    """θ⁰, one flat vector, of a key."""

    def __call__(self, key: Key[Array, ""], /) -> Float[Array, " d"]: ...


@runtime_checkable
class ActionNoise(Protocol):
    """The random numbers of one action; drawn for a whole episode at once."""

    def __call__(self, key: Key[Array, ""], /) -> PyTree: ...


@runtime_checkable
class Correlate(Protocol):
    """The random numbers of a row's actions, leading axis T, from independent ones; those of each action by itself stay as they are distributed."""

    def __call__(self, noise: Any, /) -> Any: ...


@runtime_checkable
class SampleAction(Protocol):
    """An action under π_θ and its log-probability, a deterministic function of the noise."""

    def __call__(self, noise: Any, params: Float[Array, " d"], observation: Any, /) -> tuple[Any, Any]: ...


@runtime_checkable
class LogProb(Protocol):
    """log π_θ(a|s), a scalar, differentiable in θ; of the joint action where there are several agents."""

    def __call__(self, params: Float[Array, " d"], observation: Any, action: Any, /) -> Any: ...


@runtime_checkable
class LogProbs(Protocol):
    """Of several agents with independent actions each one's log π_m(a_m|o_m), [agents], differentiable in θ; `LogProb` is their sum."""

    def __call__(self, params: Float[Array, " d"], observation: Any, action: Any, /) -> Any: ...


@runtime_checkable
class GreedyAction(Protocol):
    """The most probable action, in the form that `SampleAction` returns."""

    def __call__(self, params: Float[Array, " d"], observation: Any, /) -> Any: ...


@runtime_checkable
class Entropy(Protocol):
    """The entropy of the action's distribution at an observation, in nats, a scalar differentiable in θ."""

    def __call__(self, params: Float[Array, " d"], observation: Any, /) -> Any: ...


@runtime_checkable
class Absorb(Protocol):
    """Statistics [s] of observations, with those of a batch in them; ``round``: k."""

    def __call__(self, statistics: Float[Array, " s"], batch: Any, round: Int[Array, ""], /) -> Float[Array, " s"]: ...


@runtime_checkable
class ActionMap(Protocol):
    """From an action as it is recorded to what an environment is given."""

    def __call__(self, action: Any, /) -> Any: ...


@runtime_checkable
class SampleBatch(Protocol):
    """N trajectories (leading axis N) or other samples of learner m's task at θ; the same under the same key."""

    def __call__(self, key: Key[Array, ""], task: Task, params: Float[Array, " d"], num: int, /) -> Any: ...


@runtime_checkable
class Collect(Protocol):
    """N episodes for each of some learners, played on the host, leading axes M, N, T.

    ``act: observations (leading axes M, N), t → actions to record, actions to execute`` is asked at every step; ``seeds`` are a whole number for each
    learner, and equal seeds and actions mean equal episodes. ``learners``: whom they are for; all M by default. Raises `EnvironmentFailed`.
    """

    def __call__(self, act: Any, seeds: Any, num: int, /, learners: Sequence[int] | None = None) -> HostBatch: ...


@runtime_checkable
class Proceed(Protocol):
    """As `Collect`, N segments of T steps of environments that live on from call to call, those of each lane and learner by themselves.

    ``lane``: any name for a run. ``seeds`` begin what has not begun, and whatever begins in the segment.
    """

    def __call__(
        self, act: Any, seeds: Any, num: int, /, learners: Sequence[int], lane: Hashable, num_steps: int
    ) -> HostBatch: ...


@runtime_checkable
class RolloutInit(Protocol):
    """The state of N environments that live on; () where nothing does."""

    def __call__(self, key: Key[Array, ""], task: Task, num: int, /) -> Any: ...


@runtime_checkable
class Advance(Protocol):
    """The next batch of learner m at θ, N rows, and the state after it; the same under the same key and state."""

    def __call__(
        self, key: Key[Array, ""], task: Task, state: Any, params: Float[Array, " d"], num: int, /
    ) -> tuple[Any, Any]: ...


@runtime_checkable
class Score(Protocol):
    """Scalars for the record, by name, of a learner's batch: ``score_scaled`` and ``score_raw`` at least."""

    def __call__(self, task: Task, batch: Any, /) -> dict[str, Any]: ...


@runtime_checkable
class OfTask(Protocol):
    """A number that belongs to learner m: ℓ̄_m, L_m."""

    def __call__(self, task: Task, /) -> Any: ...


@runtime_checkable
class OfTaskAndParams(Protocol):
    """L_m(θ), a scalar, or ∇L_m(θ), a vector [d]."""

    def __call__(self, task: Task, params: Float[Array, " d"], /) -> Any: ...
