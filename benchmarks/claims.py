"""What README.md and docs claim, made from docs/results: each stretch between the marks `claims NAME` and `end` in a page's source.

    python benchmarks/claims.py                  # prints all of them
    python benchmarks/claims.py --write          # writes them into the pages
    python benchmarks/claims.py --keep parallel-lqr runs/reproduce    # what lapg reproduce parallel-lqr has left there, for docs/results

tests/test_claims.py compares them, and finds numbers with intervals that stand nowhere here.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import schedules

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(r"<!-- claims ([\w-]+) -->(.*?)<!-- end -->", re.DOTALL)
LAST = "final minus PG's"
HALVES = {"different": "heterogeneous", "alike": "homogeneous"}
HEADER = (
    "learners",
    "method",
    "fewer bits both ways than the best schedule",
    "fewer uploads",
    "environment steps / PPO",
    "fewer bits both ways than PPO",
    "fewer uploads than PPO",
    "uploads in all",
    "final − PPO's",
)
PAIRS = ("parallel-lqr",)
FRESH = ("parallel-cartpole", "parallel-pendulum")


def result(name: str) -> Any:
    """What docs/results has."""
    return json.loads((schedules.RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def keep(name: str, found: Any) -> None:
    """Puts it there."""
    (schedules.RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def kept(report: dict[str, Any]) -> dict[str, Any]:
    """By method what the table needs of a report."""
    found = {}
    for label, row in report["rows"].items():
        cost = row["costs"]["0.9"]
        found[label] = {
            "bits over best": cost["over_best_baseline"]["bits"],
            "uploads over best": cost["over_best_baseline"]["uploads"],
            "rounds": cost["rounds_ratio"],  # of equally many steps
            "bits": cost["savings"]["bits"],
            "uploads": cost["savings"]["uploads"],
            "spent": cost["spent"]["uploads"],
            "difference": row["difference"],
        }
    return {"best": report["best_baseline"]["0.9"], "methods": found}


def bounds(found: dict[str, Any], form: str = ".3g", unknown: str = "missed") -> str:
    """A value and its interval; 0 times fewer is a miss as well."""

    def text(value: float | None) -> str:
        if value is None or (form == ".3g" and value == 0):
            return unknown
        return f"{value:,.0f}" if abs(value) >= 1000 else format(value, form)

    value, low, high = (text(found[key]) for key in ("value", "low", "high"))
    return value if value == low == high == unknown else f"{value} [{low}, {high}]"


def table(halves: dict[str, Any], reference: str) -> str:
    """Costs and ends of two halves of an experiment, beside those of the reference."""
    header = [name.replace("PPO", reference) for name in HEADER]
    if reference != "PPO":
        header[4] = "rounds / " + reference
    lines = [header, ["---"] * len(HEADER)]
    for half, found in halves.items():
        for label, row in found["methods"].items():
            costs = [bounds(values) for name, values in row.items() if name != "difference"]
            lines.append([half, label, *costs, bounds(row["difference"], "+.3f", "diverged")])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fresh(name: str) -> str:
    """SCOUT and the best schedule on fresh seeds, in a sentence."""
    found, search = result(name), schedules.SEARCHES[name]
    best = schedules.chosen(found["tuning"])
    assert best is not None

    def words(label: str) -> str:
        row = found["fresh"][label]
        uploads, rounds = schedules._interval(row["savings"]["uploads"]), schedules._interval(row["rounds_ratio"])
        end = schedules._interval(row["difference"], "+.3f", "diverged")
        return f"{uploads} times fewer uploads at {rounds} times PG's rounds, final {end}"

    return f"SCOUT {words('SCOUT')}; the best schedule ({best}) {words(best)} ({search['fresh']} seeds)"


def rows(name: str) -> str:
    """The rows of README's table about one setting."""
    header, line, *body = schedules.table().splitlines()
    at = [number for number, row in enumerate(body) if row.startswith(f"| {schedules.SEARCHES[name]['words']} ")]
    return "\n".join([header, line, *body[at[0] : at[0] + 3]])


def paper_rule() -> str:
    """The paper's rule at Figure 4's recommended setting, in a sentence."""
    found, text = result("reproduce-fig4")["LAPG"], bounds
    uploads, rounds = text(found["fewer uploads than PG"]), text(found["rounds / PG"])
    return f"{uploads} times fewer uploads at {rounds} times PG's rounds, final {text(found[LAST], '+.3f')}"


def on_ppo() -> str:
    """What README says of PPO, in a phrase."""
    found = result("ppo-cartpole")["different"]["methods"]
    rare, short = found["SCOUT PPO"], found["SCOUT PPO 3 %"]

    def end(row: dict[str, Any]) -> str:
        return f"{bounds(row['rounds'])} times its environment steps (final {bounds(row['difference'], '+.3f')})"

    return (
        f"SCOUT needs {bounds(rare['uploads over best'])} times fewer uploads than the best schedule that keeps PPO's final score (a staggered period), and "
        f"{bounds(rare['uploads'])} times fewer uploads and {bounds(rare['bits'])} times fewer bits both ways than PPO averaged every round, at {end(rare)}. With "
        f"messages of 3 % of the entries it needs {bounds(short['bits'])} times fewer bits both ways than PPO, at {end(short)}; a period with the same messages "
        f"needs {bounds(found['periodic PPO 3 %']['bits'])} times fewer, at {end(found['periodic PPO 3 %'])}. Final scores are relative to PPO's, in units of its "
        "improvement"
    )


def played(name: str) -> Callable[[Path], Any]:
    """What lapg reproduce left, of the halves that have been played."""
    return lambda out: {
        half: kept(json.loads(file.read_text("utf-8")))
        for half, word in HALVES.items()
        if (file := out / f"{name}-{word}-recommended" / "report.json").is_file()
    }


def figure4(preset: str) -> Callable[[Path], Any]:
    """What lapg reproduce fig4 left of a preset, by method."""

    def read(out: Path) -> dict[str, Any]:
        place, found = out / f"fig4-{preset}", {}
        for label, row in json.loads((place / "report.json").read_text("utf-8"))["rows"].items():
            cost = row["costs"]["0.9"]
            found[label] = {
                "uploads in all": row["totals"]["uploads"],
                "rounds / PG": cost["rounds_ratio"],
                "fewer uploads than PG": cost["savings"]["uploads"],
                "fewer bits both ways than PG": cost["savings"]["bits"],
                "seeds that missed": sum(rounds is None for rounds in cost["seed_rounds"]),
                LAST: row["difference"],
            }
            if best := cost.get("over_best_baseline"):
                found[label]["fewer uploads than the best schedule"] = best["uploads"]
        late = re.search(
            r"PG gains ([\d.]+)% of its improvement in the last fifth", (place / "report.md").read_text("utf-8")
        )
        assert late is not None
        found["PG"]["gain in the last fifth"] = float(late[1]) / 100
        return found

    return read


STRETCHES: dict[str, Callable[[], str]] = {
    "schedules": schedules.table,
    "reproduced": schedules.reproduced,
    "reproduced-paper": schedules.reproduced_paper,
    "paper-rule": paper_rule,
    "ppo-cartpole": lambda: table(result("ppo-cartpole"), "PPO"),
    "on-ppo": on_ppo,
}
STRETCHES |= {f"fresh-{name}": lambda name=name: fresh(name) for name in ("fig4", "fig6")}
STRETCHES |= {name: lambda name=name: rows(f"{name}-heterogeneous") for name in FRESH}
STRETCHES |= {name: lambda name=name: table(result(name), "PG") for name in PAIRS}
KEPT: dict[str, Callable[[Path], Any]] = {name: played(name) for name in (*PAIRS, "ppo-cartpole")}
KEPT |= {"reproduce-fig4": figure4("recommended"), "reproduce-fig4-paper": figure4("paper")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the stretches into the pages")
    parser.add_argument("--keep", nargs=2, metavar=("NAME", "RUNS"), help=f"NAME is one of {', '.join(KEPT)}")
    given = parser.parse_args()
    if given.keep:
        name, runs = given.keep
        keep(name, KEPT[name](Path(runs)))
    elif given.write:
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            page.write_text(MARKED.sub(_written, text), encoding="utf-8")
    else:
        for name, make in STRETCHES.items():
            print(f"{name}:\n{make()}\n")


def _written(match: re.Match[str]) -> str:
    name, old = match.groups()
    room = "\n" if old.startswith("\n") else ""
    return f"<!-- claims {name} -->{room}{STRETCHES[name]()}{room}<!-- end -->"


if __name__ == "__main__":
    main()
