"""How fast training is, beside what it should be compared with; all ratios come from one run, measured in turn.

    python benchmarks/throughput.py [--repeats 7] [--figures fig4 fig6] [--methods PG SCOUT] [--seeds 10] [--learners 1024]

1. End-to-end training (sampling and gradients) at the settings of figures, PG and the recommended method, in joint environment steps per second; against a loop over mpe2
   with NumPy forward passes and one jitted gradient per batch; and as a share of JAX's own float32 product rate, counting 8 floating-point operations
   per multiply-add of a joint forward pass.
2. Cost per learner and round on a tabular problem against the number of learners, 16 and up to as many as are given, with the memory of state and
   temporaries; the same for navigation, with up to 16.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from rich.console import Console
from rich.table import Table

from lapg import estimators, methods, problems
from lapg.comparison.presets import FIGURES, RECOMMENDED, lineup
from lapg.experiments.build import build
from lapg.experiments.train import make_lanes
from lapg.runtimes import Vectorised, use_all_cores
from lapg.types import Problem, Trajectories

FLOP_PER_MULTIPLY_ADD = 8  # sampling forward 2, gradient forward 2, backward 4
console = Console()


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def multiply_adds(problem: Problem, hidden: tuple[int, ...]) -> int:
    """Of one joint forward pass: every agent's network on the global state."""
    num_agents = problem.num_learners
    widths = (6 * num_agents, *hidden, 5)
    return num_agents * sum(a * b for a, b in pairwise(widths))


def product_rate() -> Callable[[], float]:
    """FLOP/s of one 1024×1024 float32 product per device, all devices at once."""
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices), ("device",))
    spec = PartitionSpec("device")

    def chain(a, b):  # 20 products in a row, so that dispatch does not count
        return jax.lax.fori_loop(0, 20, lambda _, x: (x[0] @ b[0])[None] * 1e-3, a)

    run = jax.jit(jax.shard_map(chain, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False))
    a = jnp.ones((len(devices), 1024, 1024), jnp.float32)
    jax.block_until_ready(run(a, a))
    return lambda: 20 * len(devices) * 2 * 1024**3 / seconds(lambda: run(a, a))


def training_rate(figure: str, label: str, seeds: int) -> tuple[Callable[[], float], Problem]:
    """Joint environment steps per second of the vectorised runtime with so many seeds."""
    entry = {entry.label: entry for entry in lineup(FIGURES[figure], "recommended", seeds=seeds)}[label]
    built = build(entry.config)
    lanes = make_lanes(entry.config, built)
    state = lanes.start()
    chunk = entry.config.chunk_rounds
    jax.block_until_ready(lanes.advance(state, 0, 2 * chunk))
    steps = chunk * entry.config.seeds * built.problem.num_learners * entry.config.batch_size * built.problem.num_steps
    return lambda: steps / seconds(lambda: lanes.advance(state, 0, 2 * chunk)), built.problem


def mpe2_rate(figure: str, num_rounds: int) -> Callable[[], float]:
    """The same work as people do it without a compiler: loop over mpe2, NumPy networks, one jitted gradient per batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mpe2 import simple_spread_v3
    setting = FIGURES[figure]
    config = lineup(setting, "recommended")[0].config
    problem = build(config).problem
    num_agents, num_steps = problem.num_learners, problem.num_steps
    estimator = estimators.gpomdp(problem.policy, problem.discount)
    gradient = jax.jit(lambda task, params, batch: estimator.estimate((), task, params, batch).gradient)
    env = simple_spread_v3.parallel_env(N=num_agents, max_cycles=num_steps + 5)
    generator = np.random.default_rng(0)
    params = np.array(problem.init(jax.random.key(0)))
    widths = (6 * num_agents, *setting.policy.options["hidden"], 5)
    tasks = [jax.tree.map(lambda leaf, m=m: leaf[m], problem.tasks) for m in range(num_agents)]

    def layers(flat):
        found, offset = [], 0
        for a, b in pairwise(widths):
            found.append((flat[offset : offset + a * b].reshape(a, b), flat[offset + a * b : offset + a * b + b]))
            offset += a * b + b
        return found

    def episode(networks):
        env.reset(seed=int(generator.integers(2**31)))
        world = env.unwrapped.world
        observations, actions, log_probs, losses = [], [], [], []
        for _ in range(num_steps):
            parts = [
                [a.state.p_pos for a in world.agents],
                [a.state.p_vel for a in world.agents],
                [x.state.p_pos for x in world.landmarks],
            ]
            state = np.concatenate([np.ravel(part) for part in parts])
            chosen, total = [], 0.0
            for network in networks:
                value = state
                for depth, (weight, bias) in enumerate(network):
                    value = (np.maximum(value, 0) if depth else value) @ weight + bias
                probs = np.exp(value - value.max())
                probs /= probs.sum()
                chosen.append(int(generator.choice(5, p=probs)))
                total += np.log(probs[chosen[-1]])
            env.step(dict(zip(env.agents, chosen, strict=True)))
            positions = np.array([a.state.p_pos for a in world.agents])
            targets = np.array([x.state.p_pos for x in world.landmarks])
            apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 9 * np.eye(num_agents)
            losses.append(np.linalg.norm(positions - targets, axis=1) + (apart < 0.3).sum(1))
            observations.append(state)
            actions.append(chosen)
            log_probs.append(total)
        return (
            np.array(observations, np.float32),
            np.array(actions, np.int32),
            np.array(log_probs, np.float32),
            np.array(losses, np.float32),
        )

    def run():
        nonlocal params
        for _ in range(num_rounds):
            networks = [layers(flat) for flat in params.reshape(num_agents, -1)]
            total = np.zeros_like(params)
            for m, task in enumerate(tasks):
                obs, actions, log_probs, losses = (
                    np.stack(x) for x in zip(*(episode(networks) for _ in range(config.batch_size)), strict=True)
                )
                batch = Trajectories(
                    observations=obs,
                    actions=actions,
                    log_probs=log_probs,
                    losses=losses[..., m] * np.float32(task.scale),
                    mask=np.ones(losses.shape[:2], bool),
                    terminated=np.zeros(losses.shape[:2], bool),
                    truncated=np.zeros(losses.shape[:2], bool),
                    following=obs,
                )
                total += np.asarray(gradient(task, params, jax.tree.map(jnp.asarray, batch)))
            params = params - 0.001 * total
        return params

    run()
    steps = num_rounds * num_agents * config.batch_size * num_steps
    return lambda: steps / seconds(run)


def throughput(figures: list[str], labels: list[str], seeds: int, repeats: int) -> None:
    table = Table(
        "setting", "method", "lapg, steps/s", "mpe2 loop, steps/s", "ratio", "product rate, GFLOP/s", "share of it"
    )
    product = product_rate()
    for figure in figures:
        baseline = mpe2_rate(figure, 1)
        for label in labels:
            ours, problem = training_rate(figure, label, seeds)
            work = FLOP_PER_MULTIPLY_ADD * multiply_adds(problem, FIGURES[figure].policy.options["hidden"])
            rows = [(ours(), baseline(), product()) for _ in range(repeats)]  # in turn
            rate, slow, peak = (median(column) for column in zip(*rows, strict=True))
            ratio = median(r[0] / r[1] for r in rows)
            share = median(r[0] * work / r[2] for r in rows)
            table.add_row(
                figure, label, f"{rate:,.0f}", f"{slow:,.0f}", f"{ratio:,.0f}", f"{peak / 1e9:.0f}", f"{share:.1%}"
            )
    console.print(table)


def scaling_point(problem: Problem, hidden_batch: int, seeds: int = 2) -> tuple[Callable[[], float], int, int]:
    """Seconds per learner and round, bytes of state, bytes of temporaries."""
    setting = methods.Setting(estimators.gpomdp(problem.policy, problem.discount), hidden_batch, problem.num_learners)
    lanes = Vectorised(
        partial(recipe, setting),
        problem,
        {"optimiser.step_size": np.full(seeds, 0.001, np.float32)},
        range(seeds),
        chunk_rounds=20,
    )
    state = lanes.start()
    jax.block_until_ready(lanes.advance(state, 0, 20))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) // seeds
    temporaries = lanes.temporary_bytes(state) // seeds
    return lambda: seconds(lambda: lanes.advance(state, 0, 20)) / (20 * seeds * problem.num_learners), size, temporaries


def recipe(setting, hyper):
    return methods.compose("awapg", setting, hyper=hyper)


def scaling(title: str, make: Callable[[int], Problem], sizes: list[int], batch: int, repeats: int) -> None:
    points = [(m, *scaling_point(make(m), batch)) for m in sizes]
    rows = [[measure() for _, measure, _, _ in points] for _ in range(repeats)]  # in turn
    first = points[0][0]
    table = Table(
        "learners",
        "µs per learner and round",
        f"relative to M={first}",
        "state, kB per learner",
        "temporaries, kB per learner",
        title=title,
    )
    for index, (m, _, size, temporaries) in enumerate(points):
        cost, relative = median(row[index] for row in rows), median(row[index] / row[0] for row in rows)
        table.add_row(
            f"{m}", f"{cost * 1e6:.2f}", f"{relative:.2f}", f"{size / m / 1e3:.2f}", f"{temporaries / m / 1e3:.2f}"
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--figures", nargs="*", choices=[name for name in FIGURES if name.startswith("fig")], default=["fig4", "fig6"]
    )
    parser.add_argument("--methods", nargs="+", default=["PG", RECOMMENDED])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--learners", type=int, default=1024)
    given = parser.parse_args()
    use_all_cores()
    throughput(given.figures, given.methods, given.seeds, given.repeats)
    for title, make, sizes in (
        ("tabular (garnet, d = 15)", lambda m: problems.garnet(num_learners=m), (16, 64, 256, 1024)),
        (
            "cooperative navigation (d grows with M)",
            lambda m: problems.cooperative_navigation(num_agents=m),
            (2, 4, 8, 16),
        ),
    ):
        scaling(title, make, [m for m in sizes if m <= max(given.learners, sizes[0])], 8, given.repeats)


if __name__ == "__main__":
    main()
