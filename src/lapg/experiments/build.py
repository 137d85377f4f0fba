"""From a configuration to the problem, the estimator and the recipe."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lapg import theory
from lapg.experiments.config import PARTS, Config
from lapg.experiments.fitting import fit_options, fit_part
from lapg.experiments.own import check_own
from lapg.methods import KINDS, PREFERRED, Part, Setting, assemble, compose, make, make_parts, resolve
from lapg.methods.making import as_typed, check_options, numbers
from lapg.methods.optimisers import check_descent
from lapg.methods.signatures import signature
from lapg.policies import with_policy
from lapg.problems.contract import guarded
from lapg.problems.smoothed import smoothed
from lapg.rollouts import rollout_of
from lapg.runtimes.evaluation import as_evaluated
from lapg.types import Arrival, Method, Policy, Problem, Recipe, Rollout


class Built(NamedTuple):
    """A configuration come to life. ``hyper`` holds the numbers that may vary between lanes without recompiling, by their full names."""

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
    config = with_own_parts(config)
    parts = config.parts
    problem = with_rollout(build_problem(config), parts["rollout"])
    as_evaluated(problem, config.scoring)
    if config.evaluation.greedy and config.smoothing is not None:
        raise ValueError(
            "evaluation.greedy must be false with smoothing, under which every episode has parameters of its own, got true; "
            "lapg evaluate measures the greedy policy of the parameters themselves."
        )
    if problem.shared and config.participation < 1 and rollout_of(problem).continues:
        raise ValueError(
            f"participation must be 1 with rollout {parts['rollout'].name!r} where all learners see the same samples, got {config.participation}: "
            "those of a learner that stays away would fall behind; leave it out, or use rollout 'episodes'."
        )
    estimator = build_estimator(config, problem)
    changes = {kind: getattr(config, kind) for kind in KINDS} | {"step_limit": step_limit(config, problem)}
    hyper = _hyper(config, {kind: parts[kind] for kind in KINDS} | {"step_limit": changes["step_limit"]})
    setting = Setting(
        estimator, config.batch_size, problem.num_learners, config.participation, num_rounds=config.rounds
    )
    bound = functools.cache(lambda: printed_noise_bound(problem, config))
    about = {"policy": problem.policy, "printed_noise_bound": bound}
    preset = resolve("method", config.method)

    def recipe(hyper: Mapping[str, Any]) -> Method:
        own = dict(hyper)
        here = setting._replace(upload_every=own.pop("upload_every", None))
        return compose(preset, here, about=about, hyper=own, **changes)

    values = {name: float(value) for name, value in hyper.items()}
    every = values.pop("upload_every", None)
    for name, value in values.items():
        if name.endswith("optimiser.step_size") and not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}; a negative one goes uphill.")
    made = make_parts(preset, setting, about=about, hyper=values, **changes)
    optimiser = parts["optimiser"]
    if ":" in optimiser.name:
        check_descent(optimiser.name, made["optimiser"], jax.eval_shape(problem.init, jax.random.key(0)).size)
    names = {kind: part.name for kind, part in parts.items()}
    beside = {"problem": problem, "policy": problem.policy, "rollout": problem.rollout, "estimator": estimator}
    check_own(parts | {"problem": config.problem}, made | beside, problem, config.batch_size)
    method = assemble(setting._replace(upload_every=every), **made, names=names)
    _check_lengths(method, problem)
    return Built(problem, recipe, hyper)


def with_own_parts(config: Config) -> Config:
    """The configuration with the options of parts from outside lapg brought into the form that their factories want, which imports them.

    Raises:
      ValueError: there is no such part, or an option does not fit.
    """
    preset = resolve("method", config.method)
    below = {kind: getattr(preset, kind) or None for kind in (*KINDS, *PREFERRED)}
    fitted = {kind: fit_part(kind, getattr(config, kind), kind, below.get(kind), own=True) for kind in PARTS}
    return dataclasses.replace(config, **fitted)


def _hyper(config: Config, parts: Mapping[str, Part]) -> dict[str, np.ndarray]:
    """The hyperparameters that the configuration itself gives; what a preset or a factory says stays as it is."""
    found: dict[str, float] = {}
    for kind, part in parts.items():
        found |= numbers(kind, part, getattr(config, kind), kind)
    if config.upload_every is not None:
        found["upload_every"] = float(config.upload_every)
    return {name: np.asarray(value, float) for name, value in found.items()}


def _check_lengths(method: Method, problem: Problem) -> None:
    """Has every message's length computed of shapes alone: what compiled code could not count is refused here."""

    def once(key: Any) -> Any:
        params = problem.init(key)
        controller = method.controller.init(params, problem.num_learners)
        downlink = method.downlink.init(controller, problem.num_learners)
        everybody = jax.numpy.ones(problem.num_learners, bool)
        downlink_bits = method.downlink.deliver(
            downlink, controller, method.controller.broadcast(key, controller), everybody
        )
        message = method.compressor.compress(key, params)
        messages = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * problem.num_learners), message)
        relay = method.downlink.compress(key, downlink, Arrival(params, everybody, ()), messages)
        return downlink_bits, method.compressor.num_bits(message), relay

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


def build_problem(config: Config, *, plain: bool = False) -> Problem:
    """The problem of a configuration, with its policy beside it.

    Args:
      plain: without the perturbations of smoothing.
    Raises:
      ValueError: there is no such problem or policy, or an option does not fit it.
      EnvironmentFailed: its factory, or code that this calls, raises.
    """
    part = fit_part("problem", config.problem, "problem", own=True)
    factory = guarded(resolve("problem", part.name), f"problem {part.name!r} could not be made")
    problem = make("problem", part, {}, factory=factory)
    if not isinstance(problem, Problem):
        raise ValueError(
            f"problem {part.name!r} must return a lapg.types.Problem, got {type(problem).__name__}; "
            "lapg.problems.builders.from_environment makes one of an Environment."
        )
    asked = config.policy if problem.spaces is None else config.parts["policy"]
    problem = choose_policy(asked, problem, part.name)
    return problem if config.smoothing is None or plain else smoothed(problem, config.smoothing)


def with_rollout(problem: Problem, part: Part) -> Problem:
    """The problem, with how its learners come by their batches.

    Raises:
      ValueError: there is no such rollout, or it does not fit the problem.
    """

    def rollouts(problem: Problem) -> Rollout:
        return make("rollout", part, {"problem": problem})

    rollouts(problem)
    return problem._replace(rollouts=rollouts)


def choose_policy(part: Part, problem: Problem, owner: str) -> Problem:
    """The problem with the policy of a configuration beside it; its own where nothing is asked for.

    Args:
      owner: the problem's name, for messages.
    Raises:
      ValueError: there is no such policy, it does not fit the problem, or the problem leaves no choice.
    """
    if not part:
        return problem
    if problem.spaces is None:
        reason = (
            "needs no policy"
            if problem.policy is None
            else "brings a policy of its own, and does not say for which spaces"
        )
        raise ValueError(f"policy cannot be chosen for problem {owner!r}, which {reason}; leave its options out.")
    default = problem.default_policy
    plain = getattr(default, "func", default)
    factory = plain if part.name is None else resolve("policy", part.name)
    if factory is None:
        raise ValueError(
            f"policy.name must be given for problem {owner!r}, whose own policy has no options; mlp for example."
        )
    name = part.name or getattr(factory, "__name__", "")
    found = signature("policy", factory)
    check_options(found, Part(name, **part.options), "policy", "policy")
    options = fit_options(found, part.options, {}, "policy", own=True)
    preferred: Any = default if factory is plain else factory  # with what it prefers for this problem
    with as_typed("policy", found):
        made = with_policy(problem, guarded(preferred, f"policy {name!r} could not be made"), **options)
    if not isinstance(made.policy, Policy):
        call = (
            "; from_flax(NETWORK()) is a factory: return from_flax(NETWORK())(spaces)" if callable(made.policy) else ""
        )
        raise ValueError(f"policy {name!r} must return a lapg.types.Policy, got {type(made.policy).__name__}{call}.")
    return made


KL = Part("kl", limit=40.0, local=True)
"""The limit of steps in parallel RL where none is given."""


def step_limit(config: Config, problem: Problem) -> Part:
    """As given; left out, `KL` in parallel RL, where episodes can be measured and the optimiser and the method allow for it."""
    asked = config.parts["step_limit"]
    if config.step_limit or resolve("method", config.method).step_limit:
        return asked
    episodes = problem.environment is not None or problem.collect is not None
    parallel = problem.policy is not None and episodes and not problem.joint
    return KL if parallel and config.parts["optimiser"].name == "sgd" else Part("unlimited")


def build_estimator(config: Config, problem: Problem) -> Any:
    """The estimator of a configuration, given what it needs of the problem.

    Raises:
      ValueError: there is no such estimator, the problem lacks what it needs, or an option does not fit.
    """
    offered = {
        "policy": problem.policy,
        "discount": problem.discount,
        "gradient": problem.gradient,
        "problem": problem,
        "batch_size": config.batch_size,
    }
    estimator = make("estimator", fit_part("estimator", config.parts["estimator"], "estimator", own=True), offered)
    if rollout_of(problem).continues and not estimator.takes_segments:
        raise ValueError(
            f"estimator {config.parts['estimator'].name!r} needs whole episodes, got segments; use rollout 'episodes', or estimator 'actor_critic' with "
            "finite_horizon false."
        )
    if problem.policy is not None and problem.policy.statistics is not None and estimator.statistics is None:
        raise ValueError(
            f"policy.normalise must be False with estimator {config.parts['estimator'].name!r}, whose gradients would move the statistics; use ppo, "
            "whose learners upload displacements."
        )
    return estimator
