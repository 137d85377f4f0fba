"""Problems, policies and what they are made of: named tuples of pure functions, whose arguments and results `lapg.types.problem_signatures` describes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Key, PyTree

from lapg.types import problem_signatures as calls
from lapg.types.messages import Task
from lapg.types.spaces import JointSpaces, Spaces


class ScoreBounds(NamedTuple):
    """G = sup ‖∇log π(a|s)‖ and F = sup ‖∇²log π(a|s)‖ (operator norm), over all actions, states and θ: Assumption 2 of the paper."""

    score: float
    hessian: float


class Statistics(NamedTuple):
    """Entries of θ, the last ``num_entries``, that are statistics of what was observed: no gradient moves them.

    ``absorb: statistics, batch, round → statistics`` with the batch in them.
    """

    num_entries: int
    absorb: calls.Absorb


class Policy(NamedTuple):
    """A distribution over actions given an observation.

    ``init: key → θ`` · ``action_noise: key → noise``, the random numbers of one action, drawn for a whole episode at once · ``sample: noise, θ, observation →
    action, log-probability`` · ``log_prob: θ, observation, action → scalar`` · ``mode: θ, observation → action`` (greedy) · ``num_params``: d ·
    ``actuate: action → what the environment is given``, where that differs from what is recorded (bounds) ·
    ``entropy: θ, observation → scalar``, None where it is not known · ``log_probs: θ, observation, action → [agents]``, of every agent's own action, whose
    sum is ``log_prob``; None where there is one agent ·
    ``score_bounds``: G and F where they are known, infinite ones included · ``shapes`` of the arrays that θ begins with, one after the other, entries behind
    them belonging to no matrix; None where that is not known · ``linear``: whether actions are normal around a mean Θs that is linear in
    the observation, with the same deviation everywhere, and executed as they are ·
    ``statistics``: of observations, where some entries of θ are that ·
    ``correlate: noise → noise`` of the steps of a row (leading axis T), which by default are independent.
    """

    init: calls.InitParams
    action_noise: calls.ActionNoise
    sample: calls.SampleAction
    log_prob: calls.LogProb
    mode: calls.GreedyAction
    num_params: int
    actuate: calls.ActionMap = lambda action: action
    entropy: calls.Entropy | None = None
    log_probs: calls.LogProbs | None = None
    score_bounds: ScoreBounds | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    linear: bool = False
    statistics: Statistics | None = None
    correlate: calls.Correlate = lambda noise: noise


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
    ``step: key, task, state, action → Transition``. ``draw: axes, state → None`` paints one frame and may be None; a step lasts ``step_seconds`` ·
    ``world: state → vector``, the whole state where policies do not see it and critics may, or None.
    """

    reset: Callable[[Key[Array, ""], Task], Any]
    observe: Callable[[Any], Any]
    step: Callable[[Key[Array, ""], Task, Any, Any], Transition]
    draw: Callable[[Any, Any], None] | None = None
    step_seconds: float = 0.125
    world: Callable[[Any], Any] | None = None


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
