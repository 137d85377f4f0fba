"""Parts from outside lapg: what can be found out before anything is played."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from lapg import checks
from lapg.checks.common import signatures
from lapg.methods import Part
from lapg.problems.checklist import Checklist
from lapg.rollouts import rollout_of
from lapg.types import Problem


def check_own(chosen: Mapping[str, Part], made: Mapping[str, Any], problem: Problem, batch_size: int) -> None:
    """Refuses parts from outside lapg that do not fit, by the checks of `lapg.checks` that compute next to nothing.

    Functions must take what they will be given and return what they must, and a message must be as long as its compressor says.

    Args:
      chosen: the configuration's parts by kind.
      made: what their factories have returned.
    Raises:
      ValueError: one is of this kind; the message says what to mend.
    """
    size = jax.eval_shape(problem.init, jax.random.key(0)).size

    def estimator(own: Any) -> list[checks.CheckResult]:
        if problem.sample is None or rollout_of(problem).continues:
            return _functions(own)
        return checks.check_estimator(own, problem, batch_size=batch_size, quick=True)

    known: dict[str, Callable[[Any], list[checks.CheckResult]]] = {
        "trigger": lambda own: checks.check_trigger(own, num_learners=problem.num_learners, size=size, quick=True),
        "memory": lambda own: checks.check_memory(own, size=size, quick=True),
        "compressor": lambda own: checks.check_compressor(own, size=size, quick=True),
        "estimator": estimator,
    }
    for where, kind, name, own in _from_outside(chosen, made):
        for result in known.get(kind, _functions)(own):
            if not result.passed:
                raise ValueError(
                    f"{where} {name!r} does not fit, {result.name}: {result.remedy.removesuffix('.')}; lapg check {name} says more."
                )


def _from_outside(chosen: Mapping[str, Part], made: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """Where a part from outside lapg is named, its kind, its name, and itself; optimisers are looked at elsewhere."""
    for kind, part in chosen.items():
        if ":" in (part.name or "") and kind != "optimiser":
            yield f"{kind}.name", kind, part.name, made[kind]
    inner = chosen["downlink"].options.get("compressor")
    if isinstance(inner, Part) and ":" in (inner.name or ""):
        yield "downlink.compressor.name", "compressor", inner.name, made["downlink"].compressor


def _functions(part: Any) -> list[checks.CheckResult]:
    found = Checklist()
    found.run("functions", signatures, part)
    return found.results
