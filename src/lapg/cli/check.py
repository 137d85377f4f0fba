"""The command that checks a part of your own."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from lapg import checks, problems
from lapg.cli.terminal import Positional, console
from lapg.problems.adapters import imported
from lapg.problems.contract import guarded
from lapg.runtimes import use_all_cores
from lapg.types import Compressor, Estimator, Memory, Policy, Problem, Trigger

BATCH_SIZE = 8


def check(part: Positional[str], problem: str = "garnet", seed: int = 0) -> None:
    """Check your own trigger, memory, compressor, estimator, policy or problem: types, invariants, lengths, means.

    Every check that fails is one line that says what to mend; exit status 2 then.

    Args:
      part: MODULE:NAME of the part, or of a function that returns it. Such a function needs no arguments, or some of num_learners, step_size, policy,
        discount, gradient, problem, batch_size and spaces, which are filled in.
      problem: what estimators and policies are checked on, built-in or MODULE:NAME.
      seed: of all that is drawn.
    """
    use_all_cores()
    on = _made(problem, getattr(problems, problem) if problem in problems.__all__ else imported(problem, "problem"), {})
    if not isinstance(on, Problem):
        raise ValueError(f"problem must return a lapg.types.Problem, got {type(on).__name__}; see lapg list.")
    task = jax.tree.map(lambda leaf: leaf[0], on.tasks)
    offered = {
        "num_learners": on.num_learners,
        "step_size": 0.1,
        "policy": on.policy,
        "discount": on.discount,
        "gradient": on.gradient,
        "problem": on,
        "batch_size": BATCH_SIZE,
        "spaces": on.spaces,
    }
    found = _made(part, imported(part, "part"), offered)

    def seen() -> Any:
        environment = on.environment
        if environment is None:
            raise ValueError(f"problem must have an environment in JAX to check a policy on, {problem!r} has none.")
        return environment.observe(environment.reset(jax.random.key(seed), task))

    known: dict[type, Callable[[Any], list[checks.CheckResult]]] = {
        Trigger: lambda own: checks.check_trigger(own, num_learners=on.num_learners, seed=seed),
        Memory: lambda own: checks.check_memory(own, seed=seed),
        Compressor: lambda own: checks.check_compressor(own, seed=seed),
        Estimator: lambda own: checks.check_estimator(own, on, batch_size=BATCH_SIZE, seed=seed),
        Policy: lambda own: checks.check_policy(own, seen(), seed=seed),
        Problem: lambda own: checks.check_problem(own, seed=seed),
    }
    if type(found) not in known:
        kinds = ", ".join(kind.__name__ for kind in known)
        raise ValueError(f"part must be one of lapg.types' {kinds}, or return one, got {type(found).__name__}.")
    print_checks(part, known[type(found)](found))


def _made(name: str, part: Any, offered: dict[str, Any]) -> Any:
    """The part itself, or what the function returns when it is given what it asks for.

    Raises:
      ValueError: it needs something else.
    """
    if not callable(part):
        return part
    asked = inspect.signature(part).parameters.values()
    plain = [each for each in asked if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    missing = [each.name for each in plain if each.default is each.empty and offered.get(each.name) is None]
    if missing:
        raise ValueError(
            f"{name} needs {', '.join(missing)}, which cannot be filled in; name a function that needs nothing and returns the part."
        )
    given = {each.name: offered[each.name] for each in plain if offered.get(each.name) is not None}
    return guarded(part, f"{name} could not be made")(**given)


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
            f"{name} failed {failed} of {len(results)} checks; what rests on a failed one was not checked."
        )
