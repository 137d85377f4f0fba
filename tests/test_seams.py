"""Parts have typed seams: the type checker refuses what would fail in a run."""

import json
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from lapg.types import parts, problems

SNIPPETS = {  # reported or not
    "Trigger(update=lambda a: a)": True,
    "Trigger(update=lambda key, state, candidate, gradient_at: (state, None))": True,
    "Trigger(update=lambda key, state, candidate, estimate, gradient_at: (state, candidate))": True,
    "triggers.always()._replace(settle=lambda state: state)": False,  # nothing checks _replace
    "Local(position=lambda broadcast: broadcast.params)": True,
    "VarianceReduction(refine=lambda state, broadcast, estimate: (state, estimate))": True,
    "Aggregate(lambda held, arrival: held + arrival.total, keeps_shares=True)": False,
    "Trigger(update=triggers.always().update, signal=lambda key, state: state)": False,
}


@pytest.mark.slow
def test_the_type_checker_knows_the_seams(tmp_path):
    """Oracle: basedpyright: lines with functions of the wrong arity or answer are errors, sound ones are not."""
    lines = ["from lapg.types import Aggregate, Local, Trigger, VarianceReduction", "from lapg.uplink import triggers"]
    (tmp_path / "snippet.py").write_text("\n".join([*lines, *SNIPPETS]) + "\n")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "standard", "pythonVersion": "3.11"}))
    found = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    errors = [each for each in json.loads(found.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    reported = {each["range"]["start"]["line"] - len(lines) for each in errors}
    assert reported == {number for number, wrong in enumerate(SNIPPETS.values()) if wrong}


def test_no_part_takes_just_any_function():
    """Oracle: the annotations: no field of a part is a function of arguments that nobody names."""
    found = {**vars(parts), **vars(problems)}.values()
    named = [part for part in found if isinstance(part, type) and hasattr(part, "_fields")]
    assert len(named) > 12
    for part in named:
        for name, hint in get_type_hints(part).items():
            for kind in (hint, *get_args(hint)):
                arguments = get_args(kind)
                assert not (arguments and arguments[0] is ...), f"{part.__name__}.{name}"
