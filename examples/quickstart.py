"""Train policy gradient (pg) and the recommended method (scout) on cooperative navigation, and count their uploads.

python examples/quickstart.py
python examples/quickstart.py --rounds 50 --out runs/quickstart-short

The two runs stay in the directory given by --out (docs/records.md says what is in them).
"""

import argparse
from pathlib import Path

from lapg import Config, Part, train

METHODS = {"pg": Part(), "scout": Part(threshold=160.0)}
"""By name what of its trigger is not the method's own."""


def main(rounds: int, out: Path) -> None:
    print(f"{'method':8}{'first score':>12}{'last score':>12}{'uploads':>10}{'Mbit up':>10}")
    for name, trigger in METHODS.items():
        config = Config(
            problem=Part("cooperative_navigation", num_agents=2, scales=(1.0, 0.5)),
            estimator=Part("gpomdp", baseline="leave_one_out"),
            method=name,
            trigger=trigger,
            optimiser=Part("sgd", step_size=0.002),
            batch_size=10,
            rounds=rounds,
            seeds=4,
        )
        record = train(config, out / name).record
        tenth = max(1, rounds // 10)
        score = record["score_scaled"].mean(("seed", "learner"))  # per step; 0 is the best that there could be
        uploads = record["sent"].sum(("round", "learner")).mean()  # a seed; pg sends rounds × learners
        answers = record["answered"].sum(("round", "learner")).mean()  # a header each, also without an upload
        payload, header = record["uplink_bits"].sum(("round", "learner")).mean(), answers * record.attrs["header_bits"]
        print(
            f"{name:8}{float(score[:tenth].mean()):12.3f}{float(score[-tenth:].mean()):12.3f}"
            f"{float(uploads):10.1f}{float(payload + header) / 1e6:10.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="new directory for the two runs")
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.out)
