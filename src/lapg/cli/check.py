"""The command that checks a part of your own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import optax
import tyro

from lapg import checks
from lapg.cli.flags import flags_of_options, flags_of_part, named_by, part_from_flags
from lapg.cli.terminal import Positional, console
from lapg.experiments.build import build_problem
from lapg.experiments.config import Config
from lapg.methods import Part
from lapg.methods.making import as_typed
from lapg.methods.optimisers import check_descent
from lapg.methods.parts import merged
from lapg.methods.registry import no_network
from lapg.methods.signatures import RUN, SUPPLIED, signature
from lapg.problems.adapters import imported
from lapg.problems.checklist import Checklist
from lapg.problems.contract import theirs
from lapg.runtimes import use_all_cores
from lapg.types import Compressor, Estimator, Local, Memory, Policy, Problem, Trigger
from lapg.uplink import compressors

BATCH_SIZE, STEP_SIZE = 8, 0.1
SMALL = Part("garnet")
"""Small, and its gradient is known."""
OTHER_DISCOUNT = 0.5
"""Estimators are looked at with this one as well, or one that has the first by chance, or by heart, would pass."""
KNOWN = {*RUN, *(name for names in SUPPLIED.values() for name in names), "learning_rate"}
"""Arguments of a factory that are no options."""


def check_command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command, with flags for the options of the part and of the problem that its arguments name."""
    start = named_by(arguments, Config(problem=SMALL)).problem
    name = next((word for before, word in zip(["", *arguments], arguments, strict=False) if _is_part(before, word)), "")
    found = imported(name, "part") if name else None
    options = {}
    if callable(found):
        options = {
            key: option for key, option in signature("part", no_network(found)).options.items() if key not in KNOWN
        }
    own, where = flags_of_options(options), flags_of_part("problem", start)

    def check(
        name: Positional[str],
        part: type(own) = own,  # pyright: ignore[reportInvalidTypeForm]
        problem: Annotated[type(where), tyro.conf.arg(help="what estimators and policies are checked on")] = where,  # pyright: ignore[reportInvalidTypeForm]
        num_batches: int = 2000,
        biased: bool = False,
        seed: int = 0,
    ) -> None:
        """Check your own trigger, memory, compressor, estimator, local steps, optimiser, policy or problem: types, invariants, lengths, means.

        Every check that fails is one line that says what to mend; exit status 2 then. Arguments of a factory that a run supplies (num_learners, policy,
        discount, ...) are filled in; its options are flags.

        For example:
          lapg check mine:cosine --part.level 0.3
          lapg check mine:score --num-batches 5000              (an estimator, on garnet at two discounts)
          lapg check mine:score --problem.name cart_pole --problem.discount 0.9 --biased
          lapg check mine:net --problem.name cart_pole          (a policy, for what is observed there)

        Args:
          name: MODULE:NAME of the part, or of its factory.
          part: options of the factory.
          problem: what estimators and policies are checked on.
          num_batches: of an estimator: batches whose mean is compared with the gradient; more find smaller errors.
          biased: the estimator is biased on purpose, so that its mean is not compared.
          seed: of all that is drawn.
        """
        use_all_cores()
        on = merged(start, part_from_flags("problem", start, problem))
        given = {key: value for key in options if (value := getattr(part, key, None)) is not None}
        results = run_checks(name, found, given, on, num_batches=num_batches, biased=biased, seed=seed)
        print_checks(name, results)

    return check


def _is_part(before: str, word: str) -> bool:
    return ":" in word and not word.startswith("-") and not before.startswith("--")


def run_checks(
    name: str, found: Any, options: Mapping[str, Any], on: Part, *, num_batches: int, biased: bool, seed: int
) -> list[checks.CheckResult]:
    """The checks of a part, or of what its factory returns.

    Raises:
      ValueError: there is no such problem, or the part is of no kind that can be checked.
    """
    world = build_problem(Config(problem=on))
    own = _made(name, found, options, world)

    def observation() -> Any:
        if world.environment is None:
            raise ValueError(
                f"problem.name must have an environment in JAX to check a policy on, {on.name!r} has none."
            )
        task = jax.tree.map(lambda leaf: leaf[0], world.tasks)
        return world.environment.observe(world.environment.reset(jax.random.key(seed), task))

    def estimator(own: Estimator) -> list[checks.CheckResult]:
        options: dict[str, Any] = {"num_batches": num_batches, "unbiased": not biased, "seed": seed}
        results = checks.check_estimator(own, world, batch_size=BATCH_SIZE, **options)
        if on == SMALL and not biased and callable(found) and all(result.passed for result in results):
            other = build_problem(Config(problem=Part(SMALL.name, discount=OTHER_DISCOUNT)))
            again = checks.check_estimator(_made(name, found, given, other), other, batch_size=BATCH_SIZE, **options)
            results += [each._replace(name=f"{each.name} (discount {OTHER_DISCOUNT})") for each in again]
        return results

    given = options
    known: dict[type, Callable[[Any], list[checks.CheckResult]]] = {
        Trigger: lambda own: checks.check_trigger(own, num_learners=world.num_learners, seed=seed),
        Memory: lambda own: checks.check_memory(own, seed=seed),
        Compressor: lambda own: checks.check_compressor(own, seed=seed),
        Estimator: estimator,
        Local: lambda own: checks.check_local(own, seed=seed),
        optax.GradientTransformation: lambda own: _descends(name, own),
        Policy: lambda own: checks.check_policy(own, observation(), seed=seed),
        Problem: lambda own: checks.check_problem(own, seed=seed),
    }
    for kind, run in known.items():
        if isinstance(own, kind):
            return run(own)
    kinds = ", ".join(kind.__name__ for kind in known)
    raise ValueError(f"{name} must be one of {kinds}, or a function that returns one, got {type(own).__name__}.")


def _descends(name: str, optimiser: Any) -> list[checks.CheckResult]:
    found = Checklist()
    found.run("goes downhill", check_descent, name, optimiser, 4)
    return found.results


def _made(name: str, part: Any, options: Mapping[str, Any], world: Problem) -> Any:
    """The part itself, or what the function returns when it is given its options, and what it asks to know.

    Raises:
      ValueError: it needs something else.
    """
    if not callable(part):
        return part
    offered = {
        "num_learners": world.num_learners,
        "num_rounds": 1000,
        "batch_size": BATCH_SIZE,
        "learning_rate": STEP_SIZE,
        "step_size": STEP_SIZE,
        "plain_step_size": STEP_SIZE,
        "step_sizes": lambda round, factor: factor * STEP_SIZE,
        "foreseen_steps": lambda round, factor: factor * STEP_SIZE,
        "uplink": compressors.identity(),
        "policy": world.policy,
        "discount": world.discount,
        "gradient": world.gradient,
        "problem": world,
        "spaces": world.spaces,
    }
    asked = [
        each
        for each in inspect.signature(part).parameters.values()
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    given = {each.name: offered[each.name] for each in asked if offered.get(each.name) is not None} | dict(options)
    missing = [each.name for each in asked if each.default is each.empty and each.name not in given]
    if missing:
        flags = " or ".join(f"--part.{one.replace('_', '-')}" for one in missing)
        raise ValueError(
            f"{name} needs {', '.join(missing)}, which cannot be filled in; give {flags}, or give it a default."
        )
    with as_typed("part", signature("part", part)), theirs(f"{name} could not be made", ValueError):
        return part(**given)


def print_checks(name: str, results: Sequence[checks.CheckResult]) -> None:
    """Prints a line for each check.

    Raises:
      ValueError: one has failed.
    """
    for result in results:
        console.print(str(result), soft_wrap=True, highlight=False, markup=False)
    failed = sum(not result.passed for result in results)
    if failed:
        raise ValueError(
            f"{name} failed {failed} of {len(results)} checks; checks that need what has failed were skipped: mend it and check again."
        )
