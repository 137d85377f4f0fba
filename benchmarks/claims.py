"""What README.md and docs claim, made from docs/results: each stretch between the marks `claims NAME` and `end` in a page's source.

    python benchmarks/claims.py                  # prints all of them
    python benchmarks/claims.py --write          # writes them into the pages
    python benchmarks/claims.py --keep parallel-lqr runs/reproduce    # what lapg reproduce parallel-lqr has left there, for docs/results
    python benchmarks/claims.py --keep critics runs/critics           # plays it (two minutes), and keeps what came out; so does downlink
    python benchmarks/claims.py --keep guide runs/compare             # asks lapg guide, after lapg compare (docs/compare.md)

tests/test_claims.py compares them, and finds numbers with intervals that stand nowhere here.
"""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import schedules

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
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
OTHERS = ("reproduce-fig4", "reproduce-fig4-paper", "slow-link")
"""Results that other scripts and commands have left."""
PAIRS = ("parallel-cartpole", "parallel-lqr", "parallel-pendulum")


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


def paper_rule() -> str:
    """The paper's rule at Figure 4's recommended setting, in a sentence."""
    found, text = result("reproduce-fig4")["LAPG"], bounds
    uploads, rounds = text(found["fewer uploads than PG"]), text(found["rounds / PG"])
    return f"{uploads} times fewer uploads at {rounds} times PG's rounds, final {text(found[LAST], '+.3f')}"


def on_ppo() -> str:
    """What README says of PPO, in a phrase."""
    found = result("ppo-cartpole")["different"]["methods"]
    scout, best = found["SCOUT PPO"], found["staggered PPO"]
    fewer, rounds = bounds(scout["uploads over best"]), (f"{row['rounds']['value']:.3g}" for row in (scout, best))
    return f"SCOUT needs {fewer} times fewer uploads than the best schedule, at {' against '.join(rounds)} times the environment steps of PPO that averages every round"


# ---------------------------------------------------------------- runs of the pages' own


def setting(**changes: Any) -> Any:
    """Sixteen cart poles that are alike, PG, two episodes a batch."""
    from lapg import Config, Part

    cart_pole = Part("cart_pole", num_learners=16)
    common: dict[str, Any] = {"method": "pg", "batch_size": 2, "rounds": 200, "seeds": 10, "first_seed": 30}
    return Config(problem=cart_pole, step_limit=Part("unlimited"), **(common | changes))


def play_critics(out: Path) -> dict[str, Any]:
    """Rounds and last scores of two estimators at three steps: by name and step."""
    from lapg import Part, load, train
    from lapg.comparison.reproduce import curves_of
    from lapg.comparison.statistics import compare

    runs = {}
    for estimator in (Part("gpomdp", baseline="leave_one_out"), Part("actor_critic")):
        for step in (0.00005, 0.0001, 0.0002):
            label = f"{estimator.name} {step:.5f}"
            path, config = (
                out / label.replace(" ", "-"),
                setting(estimator=estimator, optimiser=Part("sgd", step_size=step)),
            )
            runs[label] = load(path) if path.exists() else train(config, path)
    rows = compare(curves_of(runs), next(iter(runs))).rows
    ratios = {label: schedules.plain(row.costs[0.90].rounds_ratio) for label, row in rows.items()}
    return {label: {"rounds_ratio": ratios[label], "final": schedules.plain(row.final)} for label, row in rows.items()}


def critics() -> str:
    """The table of docs/estimators.md."""
    found, text = result("critics"), schedules._interval
    steps = list(dict.fromkeys(label.split()[1] for label in found))
    lines = [
        "| step size | `gpomdp`, leave-one-out: rounds, final | `actor_critic` (λ = 0.95): rounds, final |",
        "|---|---|---|",
    ]
    for step in steps:
        cells = [found[f"{name} {step}"] for name in ("gpomdp", "actor_critic")]
        words = (f"{text(cell['rounds_ratio'])}, {text(cell['final'], '.3f')}" for cell in cells)
        lines.append(f"| {float(step):g} | {' | '.join(words)} |")
    return "\n".join(lines)


def play_downlink(out: Path) -> dict[str, Any]:
    """Figure 4 with `awapg`: a seed's uploads, bits from the controller with two downlinks, and last score."""
    from lapg import Part, load, train
    from lapg.comparison import presets
    from lapg.costs import ledger
    from lapg.experiments.config import Choice
    from lapg.experiments.soundness import mean_score

    step = Part("sgd", step_size=0.0016, momentum=0.6, decay=4e-4)
    method = Choice("awapg", optimiser=step, trigger=Part(threshold=160.0))
    config, found = replace(presets.setting(presets.FIGURES["fig4"]), seeds=10, first_seed=30), {}
    for name, downlink in (("dense", Part()), ("4 bits", Part("replicated", compressor=Part("quantise", bits=4)))):
        path = out / name.replace(" ", "-")
        record = (load(path) if path.exists() else train(config.playing(method.but(downlink=downlink)), path)).record
        sent = record.transpose("seed", "round", "learner")
        last = record.isel(round=slice(-record.sizes["round"] // 20, None))
        found[name] = {
            "uploads": float(record["sent"].sum(("round", "learner")).mean()),
            "downlink_bits": float(
                ledger.downlink_bits(sent["downlink_bits"].values, sent["contacted"].values)[:, -1].mean()
            ),
            "score": float(mean_score(last)),
        }
    return found


def downlink() -> str:
    """A sentence of docs/downlink.md."""
    dense, few = (result("downlink")[name] for name in ("dense", "4 bits"))
    return (
        f"`awapg` uploads {few['uploads']:.0f} times a seed. With totals quantised to 4 bits a seed's downlink came to {few['downlink_bits'] / 1e6:.3g} Mbit, "
        f"headers and first states included; `dense` sends {dense['downlink_bits'] / 1e6:.3g} Mbit in as many rounds. The mean reward a step of the last 5 % "
        f"of the rounds was {few['score']:.2f} against {dense['score']:.2f}"
    )


def guide() -> str:
    """The table of docs/compare.md, as lapg guide printed it."""
    return str(result("guide"))


def ask_guide(studies: Path) -> str:
    """Its table."""
    from lapg.comparison.guide import guide as make_guide
    from lapg.costs.links import PROFILES

    places = sorted(file.parent for file in studies.glob("*/study.json"))
    text = make_guide(tuple(places), {name: PROFILES[name] for name in ("lte-m", "wan")}, 0.0)
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def slow_link() -> str:
    """The table of docs/network.md."""
    import slow_link as measured

    return measured.table(result("slow-link")).split("\n\n")[0]


def played(name: str) -> Callable[[Path], Any]:
    """What lapg reproduce left, both halves."""
    return lambda out: {
        half: kept(json.loads((out / f"{name}-{word}-recommended" / "report.json").read_text("utf-8")))
        for half, word in HALVES.items()
    }


STRETCHES: dict[str, Callable[[], str]] = {
    "schedules": schedules.table,
    "reproduced": schedules.reproduced,
    "reproduced-paper": schedules.reproduced_paper,
    "paper-rule": paper_rule,
    "ppo-cartpole": lambda: table(result("ppo-cartpole"), "PPO"),
    "on-ppo": on_ppo,
    "critics": critics,
    "downlink": downlink,
    "guide": guide,
    "slow-link": slow_link,
}
STRETCHES |= {f"fresh-{name}": lambda name=name: fresh(name) for name in ("fig4", "fig6")}
STRETCHES |= {name: lambda name=name: table(result(name), "PG") for name in PAIRS}
KEPT: dict[str, Callable[[Path], Any]] = {name: played(name) for name in (*PAIRS, "ppo-cartpole")}
KEPT |= {"critics": play_critics, "downlink": play_downlink, "guide": ask_guide}


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
