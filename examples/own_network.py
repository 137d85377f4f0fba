"""A policy around your own Flax network: four learners balance poles, and upload only when it matters.

python examples/own_network.py
PYTHONPATH=examples lapg train --problem.name cart_pole --policy.name own_network:net --policy.width 32 --rounds 100

Needs the extra: pip install 'lapg[flax]'. `lapg.policies.from_equinox` takes modules of Equinox, and a factory ``spaces → Policy`` anything else.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax

from lapg import Config, evaluate, train
from lapg.methods import Part
from lapg.policies import from_flax
from lapg.types import Policy, Spaces


class Residual(nn.Module):
    """A layer beside a path that passes the observation on unchanged; the output is the logits of two actions."""

    width: int = 16

    @nn.compact
    def __call__(self, seen: jax.Array) -> jax.Array:
        inner = nn.tanh(nn.Dense(self.width)(nn.LayerNorm()(seen)))
        return nn.Dense(2)(seen + nn.Dense(seen.size)(inner))


def net(spaces: Spaces, *, width: int = 16) -> Policy:
    """A residual network, whose width is an option: Part("own_network:net", width=32), --policy.width 32.

    Without options it is one line: net = from_flax(Residual()).

    Args:
      width: of the layer.
    """
    return from_flax(Residual(width))(spaces)


def main(rounds: int, num_steps: int, out: Path) -> None:
    config = Config(
        problem=Part("cart_pole", num_learners=4, num_steps=num_steps),
        policy=Part("own_network:net", width=32),
        method="scout",
        optimiser=Part("sgd", step_size=0.001),
        trigger=Part(threshold=30.0),
        rounds=rounds,
        seeds=1,
    )
    run = train(config, out)
    balanced = evaluate(run, num_episodes=20)["return_raw"].mean(("seed", "learner"))
    print(f"{run.record.sizes['parameter']} parameters")
    for mode in balanced["mode"].values:
        print(f"{mode}: balanced for {float(balanced.sel(mode=mode)):.1f} of {num_steps} steps")
    print(f"uploads: {float(run.record['sent'].mean()):.1%} of what PG sends")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--num-steps", type=int, default=200, help="T; a pole that stands so long counts as balanced")
    parser.add_argument("--out", type=Path, default=Path("runs/own-network"), help="new directory for the run")
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.num_steps, arguments.out)
