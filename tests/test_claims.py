"""What README.md claims is what the results say."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def schedules():
    """The script that makes the table."""
    spec = importlib.util.spec_from_file_location("schedules", ROOT / "benchmarks" / "schedules.py")
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


def test_the_reproduction_is_that_of_the_report():
    """Oracle: the sentence made of the report's numbers."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.split("<!-- reproduced -->")[1].split("<!-- end -->")[0] == schedules().reproduced()


def test_the_best_schedule_is_chosen_by_its_rule():
    """Oracle: by hand: the laziest is too slow, the next ends too low, the third lost a run; of the others 30 uploads are the fewest."""

    def point(uploads, rounds, end):
        return {"uploads": uploads, "rounds_ratio": [rounds, None, None], "difference": [end, None, None]}

    points = {"PG": point(100, 1.0, 0.0), "SCOUT": point(20, 1.2, 0.0), "slow": point(5, 1.4, 0.0)}
    points |= {"low": point(6, 1.0, -0.06), "lost": point(7, 1.0, None), "missed": point(None, None, -0.9)}
    assert schedules().chosen(points | {"more": point(40, 0.9, 0.1), "best": point(30, 1.31, -0.04)}) == "best"
    assert schedules().chosen(points) is None
