"""The house's own rules: who may import whom, and what an import may do."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import lapg

HOUSE = Path(lapg.__file__).parent
BELOW = {  # what each room may import directly, itself and everything further below included; the costs are open to all
    "types": (),
    "costs": (),
    "drawing": (),
    "policies": ("types",),
    "rollouts": ("types",),
    "problems": ("policies", "rollouts"),
    "estimators": ("policies",),
    "uplink": ("types",),
    "downlink": ("uplink",),
    "local": ("types",),
    "learner": ("problems", "estimators", "uplink"),
    "controller": ("problems", "estimators", "uplink"),
    "rounds": ("rollouts",),
    "theory": ("problems", "estimators", "uplink"),
    "methods": ("learner", "controller", "downlink", "local"),
    "checks": ("problems", "estimators", "uplink"),
    "runtimes": ("methods", "rounds"),
    "record": ("runtimes", "theory"),
    "experiments": ("record", "checks", "drawing"),
    "comparison": ("experiments",),
    "verification": ("experiments",),
    "cli": ("comparison", "verification"),
}
GUESTS = {  # engines and environments from outside → the rooms in which one file may know them
    "gymnasium": {"problems"},
    "mpe2": {"problems"},
    "mujoco": {"problems"},
    "pettingzoo": {"problems"},
    "jaxmarl": {"problems"},
    "gymnax": {"problems"},
    "ray": {"runtimes"},
    "flwr": {"runtimes"},
    "tensorboardX": {"experiments"},
}


def imports():
    """(file, imported module) for every import statement, those inside functions included."""
    for path in sorted(HOUSE.rglob("*.py")):
        file = path.relative_to(HOUSE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: imports are absolute"
                if node.module == "lapg":
                    yield from ((file, f"lapg.{alias.name}") for alias in node.names)
                else:
                    yield file, node.module


def reach(room):
    return {room, "costs"}.union(*(reach(below) for below in BELOW[room]))


def test_imports_point_one_way():
    """Oracle: the table above."""
    for file, module in imports():
        room = file.parts[0].removesuffix(".py")
        if not module.startswith("lapg.") or room in ("__init__", "__main__"):
            continue
        assert room in BELOW, f"{file}: a new room needs its place in BELOW"
        target = module.split(".")[1]
        assert target in reach(room), f"{file} imports {module}, which is not below it"


def test_guests_are_known_in_one_file():
    """Oracle: the table above."""
    known = {}
    for file, module in imports():
        guest = module.split(".")[0]
        if guest in GUESTS:
            assert file.parts[0].removesuffix(".py") in GUESTS[guest], f"{file} imports {guest}"
            assert known.setdefault(guest, file) == file, f"{file} and {known[guest]} both import {guest}"


def test_rules_see_the_imports():
    """Oracle: three imports that exist: of a module, of a name from the package, and inside a function."""
    found = {(file.as_posix(), module) for file, module in imports()}
    assert ("learner.py", "lapg.types") in found
    assert ("methods/assembly.py", "lapg.uplink") in found
    assert ("problems/cooperative_navigation.py", "matplotlib.patches") in found


def test_imports_start_nothing(tmp_path):
    """Oracle: JAX itself: after every module's import it still gives three CPU devices, which a started backend refuses; nor is matplotlib there.

    Its import alone fails where MPLBACKEND names a notebook's backend; a picture is drawn nevertheless.
    """
    modules = [
        ".".join(["lapg", *path.relative_to(HOUSE).with_suffix("").parts]).removesuffix(".__init__")
        for path in sorted(HOUSE.rglob("*.py"))
        if path.name not in ("__main__.py", "apps.py", "flower_apps.py")  # need the extra `flower`
    ]
    assert len(modules) > 100
    script = (
        "import importlib, sys\n"
        "import lapg.cli\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from lapg.drawing import matplotlib\n"
        "matplotlib().figure.Figure().savefig(sys.argv[1])\n"
        "from lapg.runtimes import use_all_cores\n"
        "print(use_all_cores(3))"
    )
    words = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "empty.png")],
        env=words,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "3\n", done.stderr
