"""An environment of Gymnasium: four learners balance poles, and upload only when it matters.

python examples/gymnasium_cart_pole.py
lapg train --problem.name gymnasium --problem.env CartPole-v1 --method lapg --optimiser.step-size 0.02 --rounds 100

Any other environment goes by its id, and your own by MODULE:FACTORY; see lapg.problems.gymnasium.
"""

import argparse
from pathlib import Path

from lapg import Config, Part, evaluate, train


def main(rounds: int, num_steps: int, out: Path) -> None:
    config = Config(
        problem=Part("gymnasium", env="CartPole-v1", num_learners=4, num_steps=num_steps),
        method="lapg",
        optimiser=Part("sgd", step_size=0.02),
        trigger=Part(xi=0.05, noise_weight=1.0),
        rounds=rounds,
        seeds=1,
        chunk_rounds=5,
    )
    run = train(config, out)
    balanced = evaluate(run, num_episodes=10)["return_raw"].mean(("seed", "learner"))
    for mode in balanced["mode"].values:
        print(f"{mode}: balanced for {float(balanced.sel(mode=mode)):.1f} of {num_steps} steps")
    print(f"uploads: {float(run.record['sent'].mean()):.1%} of what PG sends")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--num-steps", type=int, default=200, help="T; a pole that stands so long counts as balanced")
    parser.add_argument("--out", type=Path, default=Path("runs/gymnasium-cart-pole"), help="new directory for the run")
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.num_steps, arguments.out)
