"""What README.md and docs claim is what the results say."""

import importlib
import math
import re
import sys
from pathlib import Path

import pytest

from lapg.comparison import presets

ROOT = Path(__file__).parents[1]
INTERVAL = re.compile(r"(?<![\w.])[+−-]?[\d,.]+(?:\*\*)? \[[^\[\]`]*\d[^\[\]`]*\](?!\()")
"""A number and its interval, as '1.13 [1.03, 1.56]'."""
FACTOR = re.compile(
    r"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)(?: %)? times (?:fewer|less|PG's|those of|the (?:rounds|uploads|bits))"
)
MEASURED = re.compile(r"^\|.*\| `python benchmarks/[^`]*` \|$", re.MULTILINE)
CODE = re.compile(r"```.*?```", re.DOTALL)


def script(name):
    """A module of benchmarks/."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def schedules():
    """The script that makes README's table."""
    return script("schedules")


def loose(text):
    """What a page says outside code, its marked stretches, and rows of tables that name the command by which they are measured again."""
    return MEASURED.sub("", script("claims").MARKED.sub("", CODE.sub("", text)))


PAGES = script("claims").PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_marked_stretches_are_made_of_the_results(page):
    """Oracle: the script's own output, from docs/results, to the letter; no mark is misspelt or left open."""
    text, claims = page.read_text(encoding="utf-8"), script("claims")
    found = claims.MARKED.findall(text)
    assert len(found) == text.count("<!-- claims ") == text.count("<!-- end -->")
    for name, stretch in found:
        assert stretch.strip() == claims.STRETCHES[name](), name


def test_every_stretch_is_claimed_and_every_result_is_used():
    """Oracle: the pages' marks, and the files of docs/results."""
    claims = script("claims")
    marks = {name for page in PAGES for name, _ in claims.MARKED.findall(page.read_text(encoding="utf-8"))}
    assert marks == set(claims.STRETCHES)
    used = {f"{name}.json" for name in (*schedules().SEARCHES, *claims.KEPT)}
    assert used == {file.name for file in schedules().RESULTS.iterdir()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_result_stands_outside(page):
    """Oracle: the marked stretches of all pages: a number with an interval, or a factor over PG, that is not in one is in none of them."""
    known = " ".join(make() for make in script("claims").STRETCHES.values())
    text = loose(page.read_text(encoding="utf-8"))
    assert [words for words in INTERVAL.findall(text) if words.replace("−", "-") not in known] == []
    numbers = set(re.findall(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?", known))
    assert [number for number in FACTOR.findall(text) if number not in numbers] == []


def test_results_outside_are_found():
    """Oracle: sentences of earlier pages, by hand."""
    page = "SCOUT saves 62.8 [47.1, 70.7] or **42.9** [37.9, 48.9], 27 times fewer uploads; `x [1, 2]`, see 3 [pages](a.md)."
    assert INTERVAL.findall(loose(page)) == ["62.8 [47.1, 70.7]", "42.9** [37.9, 48.9]"]
    assert FACTOR.findall(loose(page)) == ["27"]
    assert loose("```\n1 [0, 2]\n```<!-- claims x -->1 [0, 2]<!-- end -->") == ""


def test_what_is_said_of_ppo():
    """Oracle: the results: which schedule is the best, and that it alone surely ends less than 5 % lower."""
    page = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8")
    found = script("claims").result("ppo-cartpole")["different"]
    assert "The best schedule of the table is the staggered period at 4 bits" in page
    assert {found["best"][cost] for cost in ("uploads", "bits")} == {"staggered PPO"}
    surely = {label for label, row in found["methods"].items() if row["difference"]["low"] > -0.05}
    assert surely == {"PPO", "staggered PPO"}
    tuned = presets.reproducible()["ppo-cartpole-heterogeneous"].tuned
    assert set(tuned) == set(found["methods"])


def test_what_readme_says_of_the_table():
    """Oracle: the results: where SCOUT is decided to need less, by what factors, and more; its ends on tuning seeds; points of the grids."""
    readme, module = (ROOT / "README.md").read_text(encoding="utf-8"), schedules()
    uploads, bits = module.decided("uploads"), module.decided("bits")
    assert set(uploads["less"]) == {"scales-apart", "parallel-lqr-heterogeneous", "fig6"}
    assert set(uploads["more"]) == {"fig4", "parallel-pendulum-heterogeneous"}
    assert (set(bits["less"]), bits["more"]) == (set(uploads["less"]), ["parallel-pendulum-heterogeneous"])
    assert "better in three (Figure 6, linear systems, quadratics), worse in one (pendulum), and undecided" in readme
    factors, ends, points = {}, {}, {}
    for name, search in module.SEARCHES.items():
        found = script("claims").result(name)
        factors[name] = found["fresh"][module.chosen(found["tuning"])]["behind_scout"]["uploads"][0]
        ends[name] = found["tuning"]["SCOUT"]["difference"][0]
        points[name] = sum(math.prod(map(len, grid.values())) for *_, grid in search["sweeps"].values())
        assert len(found["tuning"]) == 2 + points[name]
    less = sorted(factors[name] for name in uploads["less"])
    assert f"factors {less[0]:.1f} to {less[-1]:.1f})" in readme
    scout = (ROOT / "docs" / "scout.md").read_text(encoding="utf-8")
    assert f"is worth a factor of {less[0]:.1f} to {less[-1]:.1f} where" in scout
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


def test_what_docs_reproduction_says_of_the_results():
    """Oracle: the results: who ends lower, who saves how much more, and what the paper's rule saves."""
    claims = script("claims")
    four, six, paper = claims.result("fig4"), claims.result("fig6"), claims.result("reproduce-fig4")
    best = {name: found["fresh"][schedules().chosen(found["tuning"])] for name, found in (("4", four), ("6", six))}
    assert four["fresh"]["SCOUT"]["difference"][2] < 0  # SCOUT ends lower
    assert 1.9 < 1 / best["4"]["behind_scout"]["uploads"][0] < 2.3  # a schedule saves twice as much
    assert best["6"]["difference"][2] < 0  # the schedule ends lower
    saved = paper["LAPG"]["fewer uploads than PG"]
    assert saved["low"] < 1 < saved["high"]  # the paper's rule saves nothing
    assert paper["LAPG average"]["fewer uploads than PG"]["value"] == 0  # missed


def test_the_best_schedule_is_chosen_by_its_rule():
    """Oracle: by hand: the laziest is too slow, the next ends too low, the third lost a run; of the others 30 uploads are the fewest."""

    def point(uploads, rounds, end):
        return {"uploads": uploads, "rounds_ratio": [rounds, None, None], "difference": [end, None, None]}

    points = {"PG": point(100, 1.0, 0.0), "SCOUT": point(20, 1.2, 0.0), "slow": point(5, 1.4, 0.0)}
    points |= {"low": point(6, 1.0, -0.06), "lost": point(7, 1.0, None), "missed": point(None, None, -0.9)}
    assert schedules().chosen(points | {"more": point(40, 0.9, 0.1), "best": point(30, 1.31, -0.04)}) == "best"
    assert schedules().chosen(points) is None
