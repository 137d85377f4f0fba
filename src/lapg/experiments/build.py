"""From a configuration to the problem, the estimator and the recipe."""

import contextlib
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lapg import estimators, theory
from lapg.downlink import dense, forwarded, replicated
from lapg.experiments.config import Config, EstimatorConfig, MethodConfig, PolicyConfig, ProblemConfig, RolloutConfig
from lapg.experiments.names import ESTIMATORS, POLICIES, PROBLEMS, ROLLOUTS, Part, meant, resolve
from lapg.experiments.optimisers import make_optimiser
from lapg.methods import METHODS, REDUCTIONS, Setting, make_compressor
from lapg.policies import with_policy
from lapg.problems.contract import guarded
from lapg.problems.smoothed import smoothed
from lapg.runtimes.evaluation import Evaluation, as_evaluated
from lapg.sampling import rollout_of
from lapg.types import Arrival, Compressor, Downlink, Method, Policy, Problem, Recipe, StepLimit

SHARED = (
    "kl_limit",
    "limit_look_ahead",
    "variance_reduction",
    "compressor",
    "compressor_fraction",
    "compressor_bits",
    "compressor_block",
    "downlink",
    "downlink_compressor",
    "downlink_fraction",
    "downlink_bits",
    "upload_every",
)
"""Fields of a method that are not its own arguments, but go into every method's `Setting`."""
KL_LIMIT = 40.0
"""Nats an episode, the limit of steps in parallel RL where none is given."""
READS_STEPS = ("fedsvrpg_m",)
"""Methods that read the federation's direction off its steps, which must then not be shortened unasked."""


class Built(NamedTuple):
    """A configuration come to life. ``hyper`` holds the numbers that may vary between lanes without recompiling."""

    problem: Problem
    recipe: Recipe
    hyper: dict[str, np.ndarray]


def build(config: Config) -> Built:
    """Builds the problem and the recipe of a configuration, and checks it by building the method once.

    Raises:
      ValueError: anything in the configuration does not fit; the message says what and how to mend it.
    """
    if jax.config.jax_numpy_dtype_promotion != "standard":  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "JAX_NUMPY_DTYPE_PROMOTION must be standard for lapg, which computes with whole numbers and fractions together, got strict; leave it out."
        )
    problem = with_rollout(build_problem(config.problem, config.policy), config.rollout)
    as_evaluated(problem, Evaluation(**vars(config.evaluation)))
    if config.evaluation.greedy and config.problem.smoothing is not None:
        raise ValueError(
            "evaluation.greedy must be false with problem.smoothing, under which every episode has parameters of its own, got true; "
            "lapg evaluate measures the greedy policy of the parameters themselves."
        )
    estimator = build_estimator(config.estimator, problem, config.batch_size)
    if problem.shared and config.participation < 1 and rollout_of(problem).continues:
        raise ValueError(
            f"participation must be 1 with rollout {config.rollout.name!r} where all learners see the same samples, got {config.participation}: "
            "those of a learner that stays away would fall behind; leave it out, or use rollout 'episodes'."
        )
    method = config.method
    local = method.kl_limit is None if method.limit_look_ahead is None else method.limit_look_ahead
    method = dataclasses.replace(method, kl_limit=_kl_limit(method, problem), limit_look_ahead=local)
    setting = Setting(
        estimator,
        config.batch_size,
        problem.num_learners,
        _step_limit(method, problem),
        None if method.variance_reduction is None else REDUCTIONS[method.variance_reduction](),
        downlink=_downlink(method),
        participation=config.participation,
        num_rounds=config.rounds,
    )
    if method.noise_bound == "printed":
        method = dataclasses.replace(method, noise_bound=printed_noise_bound(problem, config))
    factory = resolve("method", method.name, METHODS)
    given = arguments("method", factory, dataclasses.replace(method, **dict.fromkeys(SHARED)))
    given["optimiser"] = make_optimiser(method, jax.eval_shape(problem.init, jax.random.key(0)).size)
    given |= {name: None for name in ("max_age", "first_upload") if getattr(method, name) == "none"}
    shared = {name: getattr(method, name) for name in ("compressor_fraction", "kl_limit", "upload_every")}
    given |= {name: float(value) for name, value in shared.items() if value is not None}
    for name, value in given.items():
        numbers = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(number, float) and not np.isfinite(number) for number in numbers):
            raise ValueError(f"method.{name} must be finite, got {value}; leave it out for the method's own default.")
    floats = {name: np.asarray(value, float) for name, value in given.items() if isinstance(value, float)}
    static = {name: value for name, value in given.items() if name not in floats}

    def recipe(hyper: dict[str, Any]) -> Any:
        own = dict(hyper)
        limit = setting.step_limit and setting.step_limit._replace(limit=own.pop("kl_limit"))
        compressor = _compressor(method, own.pop("compressor_fraction", None))
        changes = {"step_limit": limit, "compressor": compressor, "upload_every": own.pop("upload_every", None)}
        return factory(setting._replace(**changes), **static, **own)

    with as_typed("method", method):
        _check_lengths(recipe({name: float(value) for name, value in floats.items()}), problem)
    return Built(problem, recipe, floats)


def _check_lengths(method: Method, problem: Problem) -> None:
    """Has every message's length computed of shapes alone: what compiled code could not count is refused here."""

    def once(key: Any) -> Any:
        params = problem.init(key)
        controller = method.controller.init(params, problem.num_learners)
        downlink = method.downlink.init(controller, problem.num_learners)
        everybody = jax.numpy.ones(problem.num_learners, bool)
        heard = method.downlink.deliver(downlink, controller, method.controller.broadcast(key, controller), everybody)
        message = method.compressor.compress(key, params)
        messages = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * problem.num_learners), message)
        relay = method.downlink.compress(key, downlink, Arrival(params, everybody, ()), messages)
        return heard, method.compressor.num_bits(message), relay

    jax.eval_shape(once, jax.random.key(0))


def parts(config: Config) -> tuple[Recipe, Problem]:
    """The recipe and the problem, for processes that are given the configuration."""
    built = build(config)
    return built.recipe, built.problem


def printed_noise_bound(problem: Problem, config: Config, failure_probability: float = 0.05) -> tuple[float, ...]:
    """σ²_m of (15) with the printed V_m of (31); G and ℓ̄_m are estimates, the maxima over 1,000 initial trajectories."""
    found = theory.estimate_constants(problem)
    deviation = theory.deviation_bound(found.scores.score, found.losses, problem.discount, form="printed")
    bound = theory.concentration_bound(deviation, config.batch_size, config.rounds, failure_probability, form="printed")
    return tuple(bound.tolist())


def build_problem(config: ProblemConfig, policy: PolicyConfig | None = None) -> Problem:
    """The problem of a configuration, with its policy beside it.

    Raises:
      ValueError: there is no such problem or policy, or an option does not fit it.
      EnvironmentFailed: its factory, or code that this calls, raises.
    """
    plain = dataclasses.replace(config, smoothing=None)
    factory = resolve("problem", config.name, PROBLEMS)
    problem = call("problem", guarded(factory, f"problem {config.name!r} could not be made"), plain)
    if not isinstance(problem, Problem):
        raise ValueError(
            f"problem {config.name!r} must return a lapg.types.Problem, got {type(problem).__name__}; "
            "lapg.problems.protocol.from_environment makes one of an Environment."
        )
    problem = choose_policy(policy or PolicyConfig(), problem, config.name)
    return problem if config.smoothing is None else smoothed(problem, config.smoothing)


def with_rollout(problem: Problem, config: RolloutConfig) -> Problem:
    """The problem, with how its learners come by their batches.

    Raises:
      ValueError: there is no such rollout, or it does not fit the problem.
    """
    factory = resolve("rollout", config.name, ROLLOUTS)
    options = arguments("rollout", factory, config)
    with as_typed("rollout", config):
        factory(problem, **options)
    return problem._replace(rollouts=functools.partial(factory, **options))


def choose_policy(config: PolicyConfig, problem: Problem, owner: str) -> Problem:
    """The problem with the policy of a configuration beside it; its own where nothing is asked for.

    Args:
      owner: the problem's name, for messages.
    Raises:
      ValueError: there is no such policy, it does not fit the problem, or the problem leaves no choice.
    """
    if config == PolicyConfig():
        return problem
    if problem.spaces is None:
        reason = (
            "needs no policy"
            if problem.policy is None
            else "brings a policy of its own, and does not say for which spaces"
        )
        raise ValueError(f"policy cannot be chosen for problem {owner!r}, which {reason}; leave its options out.")
    default = problem.default_policy
    factory = default if config.name is None else resolve("policy", config.name, POLICIES)
    if factory is None:
        raise ValueError(
            f"policy.name must be given for problem {owner!r}, whose own policy has no options; mlp for example."
        )
    if default is not None and factory is getattr(default, "func", default):
        factory = default  # with what it prefers for this problem
    plain = getattr(factory, "func", factory)
    names = {part: name for name, part in POLICIES.items()}
    name = config.name or names.get(plain, getattr(plain, "__name__", "of the problem"))
    given = arguments("policy", factory, dataclasses.replace(config, name=name))
    guard = guarded(factory, f"policy {name!r} could not be made")
    with as_typed("policy", config):
        found = with_policy(problem, guard, **given)
    if not isinstance(found.policy, Policy):
        raise ValueError(f"policy {name!r} must return a lapg.types.Policy, got {type(found.policy).__name__}.")
    return found


def _compressor(config: MethodConfig, fraction: Any) -> Compressor | None:
    if config.compressor is None:
        for name in ("compressor_fraction", "compressor_bits", "compressor_block"):
            if getattr(config, name) is not None:
                raise ValueError(f"method.{name} needs a compressor; give method.compressor, or leave it out.")
        return None
    return make_compressor(
        config.compressor, fraction=fraction, bits=config.compressor_bits, block=config.compressor_block
    )


def _downlink(config: MethodConfig) -> Downlink | Callable[[Compressor], Downlink]:
    if config.downlink in (None, "dense"):
        for name in ("downlink_compressor", "downlink_fraction", "downlink_bits"):
            if getattr(config, name) is not None:
                raise ValueError(
                    f"method.{name} goes with downlink 'replicated'; set method.downlink, or leave it out."
                )
        return dense()
    if config.downlink_compressor == "uploads":
        for name in ("downlink_fraction", "downlink_bits"):
            if getattr(config, name) is not None:
                raise ValueError(f"method.{name} does not go with downlink_compressor 'uploads'; leave it out.")
        return forwarded
    try:
        compressor = make_compressor(
            config.downlink_compressor or "none", fraction=config.downlink_fraction, bits=config.downlink_bits
        )
    except ValueError as error:
        raise ValueError(f"method.downlink_compressor: {error}") from error
    return replicated(compressor)


def _kl_limit(config: MethodConfig, problem: Problem) -> float | None:
    """As given; left out, `KL_LIMIT` in parallel RL, where episodes can be measured and the optimiser and the method allow for it."""
    if config.kl_limit is not None:
        return None if config.kl_limit == "none" else config.kl_limit
    episodes = problem.environment is not None or problem.collect is not None
    parallel = problem.policy is not None and episodes and not problem.joint
    return KL_LIMIT if parallel and config.optimiser == "heavy_ball" and config.name not in READS_STEPS else None


def _step_limit(config: MethodConfig, problem: Problem) -> StepLimit | None:
    if config.kl_limit is None or config.kl_limit == "none":
        return None
    if problem.policy is None:
        raise ValueError("kl_limit needs a problem with a policy, which this one has not; leave it out.")
    return StepLimit(config.kl_limit, estimators.fisher_norm(problem.policy), bool(config.limit_look_ahead))


def build_estimator(config: EstimatorConfig, problem: Problem, batch_size: int) -> Any:
    """The estimator of a configuration, given what it needs of the problem.

    Raises:
      ValueError: there is no such estimator, the problem lacks what it needs, or an option does not fit.
    """
    factory = resolve("estimator", config.name, ESTIMATORS)
    offered = {
        "policy": problem.policy,
        "discount": problem.discount,
        "gradient": problem.gradient,
        "problem": problem,
        "batch_size": batch_size,
    }
    wanted = {name: offered[name] for name in offered if name in inspect.signature(factory).parameters}
    for name, value in wanted.items():
        if value is None:
            raise ValueError(
                f"estimator {config.name!r} needs a problem with a known {name}, which this one has not; choose another estimator."
            )
    estimator = call("estimator", functools.partial(factory, **wanted), config)
    if rollout_of(problem).continues and not estimator.takes_segments:
        raise ValueError(
            f"estimator {config.name!r} needs whole episodes, got segments; use rollout 'episodes', or estimator 'actor_critic' with "
            "finite_horizon false."
        )
    return estimator


def arguments(kind: str, factory: Callable[..., Any], config: Any) -> dict[str, Any]:
    """Those fields of a part's configuration that were given, checked against what the factory takes.

    Raises:
      ValueError: the factory has no such argument.
    """
    fields = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    given = {name: value for name, value in fields.items() if name not in ("name", "options") and value is not None}
    given |= config.options
    signature = inspect.signature(factory).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values()):
        taken = [name for name, parameter in signature.items() if parameter.kind is parameter.KEYWORD_ONLY]
        for name in given:
            if name not in signature:
                raise ValueError(
                    f"{kind}.{name} is not an option of {kind} {config.name!r}; it takes {', '.join(taken)}{meant(name, taken)}."
                )
    return given


INNER = {
    ("running_average", "weight"): "average_weight",
    ("changed", "weight"): "threshold",
    ("against_snapshot", "period"): "snapshot_period",
    ("top_k", "fraction"): "compressor_fraction",
    ("quantise", "bits"): "compressor_bits",
    ("federated_momentum", "weight"): "average_weight",
}
"""Settings that the part which checks them calls otherwise."""


@contextlib.contextmanager
def as_typed(kind: str, config: Any) -> Iterator[None]:
    """What an inner part says of its argument, ``part(name=...)``, in the words of the configuration: ``method.name``.

    Raises:
      ValueError: the same, with the setting that was typed.
    """

    def typed(match: re.Match[str]) -> str:
        name = INNER.get((match[1], match[2]), match[2])
        inside = f"{kind}.{name}" if hasattr(config, name) else f"{kind}.options.{name}"
        return inside if hasattr(config, name) or name in config.options else match[0]

    try:
        yield
    except ValueError as error:
        text = re.sub(r"\b(\w+)\((\w+)=\.\.\.\)", typed, str(error))
        if text == str(error):
            raise
        raise ValueError(text) from error


def call(kind: str, factory: Callable[..., Part], config: Any) -> Part:
    """Calls a factory with the given fields of its configuration.

    Raises:
      ValueError: it needs an argument that is not given.
    """
    given = arguments(kind, factory, config)
    for name, parameter in inspect.signature(factory).parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if name not in given and parameter.default is parameter.empty and not variadic:
            raise ValueError(
                f"{kind} {config.name!r} needs {name}; give it in a TOML table [{kind}.options], or write a factory of your own that needs "
                "nothing and name it as MODULE:NAME."
            )
    with as_typed(kind, config):
        return factory(**given)
