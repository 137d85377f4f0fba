"""What README.md claims is what the results say."""

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest

from lapg.comparison import presets

ROOT = Path(__file__).parents[1]


def schedules(name="schedules"):
    """The script that makes the table."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_results():
    """Oracle: the script's own output, from docs/results, line by line."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("<!-- python benchmarks/schedules.py --table -->\n")[1].split("\n<!-- end -->")[0]
    assert table == schedules().table()


def test_the_table_of_ppo_is_that_of_the_results():
    """Oracle: the script's own output, and what is said of it."""
    page = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8")
    table = page.split("<!-- python benchmarks/ppo.py --table -->\n")[1].split("\n<!-- end -->")[0]
    module = schedules("ppo")
    assert table == module.table()
    found, readme = (
        json.loads(module.RESULT.read_text(encoding="utf-8")),
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )
    different, alike = (found[half]["methods"] for half in ("different", "alike"))
    scout, staggered, together = (different[label] for label in ("SCOUT PPO", "staggered PPO", "periodic PPO"))
    assert {half["best"][cost] for half in found.values() for cost in ("uploads", "bits")} == {"staggered PPO"}
    over = f"{module.bounds(scout['uploads over best'])} times fewer uploads"
    assert over in page
    assert over in readme
    for half in (different, alike):  # undecided in bits
        assert half["SCOUT PPO"]["bits over best"]["low"] < 1 < half["SCOUT PPO"]["bits over best"]["high"]
    assert alike["SCOUT PPO"]["uploads over best"]["low"] < 1 < alike["SCOUT PPO"]["uploads over best"]["high"]
    steps = [
        f"{half[label]['rounds']['value']:.3g}"
        for half in (different, alike)
        for label in ("SCOUT PPO", "staggered PPO")
    ]
    assert "{} against {} times those of `ppo` ({} against {} where".format(*steps) in page
    assert "at {} against {} times the environment steps".format(*steps) in readme
    assert f"{module.bounds(scout['uploads'])} times for SCOUT and {module.bounds(staggered['uploads'])}" in page
    assert (
        f"needs {together['rounds']['value']:.3g} times those of `ppo` and saves {together['uploads']['value']:.0f}"
        in page
    )


def test_the_reproduction_is_that_of_the_report():
    """Oracle: the sentence made of the report's numbers."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.split("<!-- reproduced -->")[1].split("<!-- end -->")[0] == schedules().reproduced()


def test_docs_reproduction_is_that_of_the_results():
    """Oracle: the sentences made of the report of the preset paper; Figure 4's and 6's numbers on fresh seeds as the table has them."""
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    module = schedules()
    assert page.split("<!-- reproduced -->")[1].split("<!-- end -->")[0] == module.reproduced_paper()
    for name in ("fig4", "fig6"):
        scout = json.loads((module.RESULTS / f"{name}.json").read_text(encoding="utf-8"))["fresh"]["SCOUT"]
        fewer, rounds = module._interval(scout["savings"]["uploads"]), module._interval(scout["rounds_ratio"])
        assert f"{fewer} in uploads at {rounds} times the rounds" in page
        assert module._interval(scout["difference"], "+.3f").replace("-", "−") in page


def test_what_readme_says_of_the_table():
    """Oracle: the results: where SCOUT is decided to need less, by what factors, and more; its ends on tuning seeds; points of the grids."""
    readme, module = (ROOT / "README.md").read_text(encoding="utf-8"), schedules()
    uploads, bits = module.decided("uploads"), module.decided("bits")
    assert set(uploads["less"]) == {"scales-apart", "parallel-lqr-heterogeneous", "fig6"}
    assert set(uploads["more"]) == {"fig4", "parallel-pendulum-heterogeneous"}
    assert (set(bits["less"]), len(bits["more"])) == ({"parallel-lqr-heterogeneous", "scales-apart"}, 3)
    assert "better in two (linear systems, quadratics) and worse in three" in readme
    factors, ends, points = {}, {}, {}
    for name, search in module.SEARCHES.items():
        found = json.loads((module.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        factors[name] = found["fresh"][module.chosen(found["tuning"])]["behind_scout"]["uploads"][0]
        ends[name] = found["tuning"]["SCOUT"]["difference"][0]
        points[name] = sum(math.prod(map(len, grid.values())) for *_, grid in search["sweeps"].values())
        assert len(found["tuning"]) == 2 + points[name]
    less = sorted(factors[name] for name in uploads["less"])
    assert f"factors {less[0]:.1f} to {less[-1]:.1f})" in readme
    assert all(0.3 < factors[name] < 0.5 for name in uploads["more"])
    assert f"{-ends['fig4']:.1%} lower at Figure 4 and {-ends['fig6']:.1%} at Figure 6".replace("%", " %") in readme
    assert "schedules had {fig4}, {parallel-cartpole-heterogeneous} and {fig6};".format(**points) in readme


def test_scouts_example_is_the_tuned_one():
    """Oracle: Figure 4's line-up, every setting that the command names."""
    page = (ROOT / "docs" / "scout.md").read_text(encoding="utf-8")
    words = re.search(r"`lapg train --method scout (.*)`", page)[1].split()
    tuned = presets.methods(presets.FIGURES["fig4"], "recommended")[1]["SCOUT"]
    for flag, value in zip(words[::2], words[1::2], strict=True):
        kind, name = flag.removeprefix("--").replace("-", "_").split(".")
        found = getattr(tuned, kind).options[name]
        assert type(found)(value) == (pytest.approx(found) if isinstance(found, float) else found), flag


def test_the_best_schedule_is_chosen_by_its_rule():
    """Oracle: by hand: the laziest is too slow, the next ends too low, the third lost a run; of the others 30 uploads are the fewest."""

    def point(uploads, rounds, end):
        return {"uploads": uploads, "rounds_ratio": [rounds, None, None], "difference": [end, None, None]}

    points = {"PG": point(100, 1.0, 0.0), "SCOUT": point(20, 1.2, 0.0), "slow": point(5, 1.4, 0.0)}
    points |= {"low": point(6, 1.0, -0.06), "lost": point(7, 1.0, None), "missed": point(None, None, -0.9)}
    assert schedules().chosen(points | {"more": point(40, 0.9, 0.1), "best": point(30, 1.31, -0.04)}) == "best"
    assert schedules().chosen(points) is None
