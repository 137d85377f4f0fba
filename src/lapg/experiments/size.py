"""How much memory a run takes, estimated before any of it is allocated."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lapg.experiments.build import Built
from lapg.experiments.config import Config
from lapg.rollouts import rollout_of
from lapg.rounds import initialise
from lapg.types import tree_bits

STATES = 3
"""Copies of the state at once: before a stretch, after it, and on its way to the disk."""
RECORDS = 2
"""Copies of the record at once, when its stretches are merged."""
LOG_NUMBERS = 23
"""What a round leaves in the record, per learner."""


def check_size(config: Config, built: Built, num_lanes: int | None = None) -> None:
    """Refuses what cannot be played here.

    Args:
      num_lanes: None is one for each seed.
    Raises:
      ValueError: rounds do not fit into 32 bits, or it takes more memory than there is.
    """
    if config.rounds >= 2**31:
        raise ValueError(f"rounds must be below 2^31, got {config.rounds}.")
    needed, there = estimate(config, built, config.seeds if num_lanes is None else num_lanes), available()
    total = sum(needed.values())
    if there is not None and total > there:
        parts = ", ".join(f"{words} {_words(size)}" for words, size in needed.items())
        raise ValueError(
            f"this run needs about {_words(total)} of memory, and {_words(there)} are available: {parts}; "
            "give it fewer --seeds, --rounds or --chunk-rounds, or a smaller --batch-size or --problem.num-steps."
        )


def estimate(config: Config, built: Built, num_lanes: int) -> dict[str, int]:
    """Bytes by what they are for, the larger parts of it alone; nothing is computed but shapes."""
    problem, real = built.problem, np.asarray(jax.numpy.zeros(())).dtype
    method = built.recipe({name: real.type(value) for name, value in built.hyper.items()})
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda key: initialise(method, problem, key), key)
    entry = problem.num_learners * LOG_NUMBERS * real.itemsize
    num = max(method.batch_size, config.evaluation.episodes or 0)
    batch = problem.num_learners * num * _sample_bytes(problem, state.controller.params, key)
    return {
        "states": STATES * num_lanes * tree_bits(state) // 8,
        "records": num_lanes * entry * (RECORDS * config.rounds + config.chunk_rounds),
        "samples": batch,
    }


def _sample_bytes(problem: Any, params: Any, key: Any) -> int:
    """Of one learner's batch of one."""
    steps = rollout_of(problem).num_steps
    if problem.sample is None:
        return steps * sum(leaf.nbytes for leaf in jax.tree.leaves(problem.observation))
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    episode = jax.eval_shape(lambda key, params: problem.sample(key, task, params, 1), key, params)
    return tree_bits(episode) // 8 * steps // problem.num_steps


def available() -> int | None:
    """Bytes of memory that this process may still take, by the system's account and its control group's; None where neither is known."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # another system; a group without a limit
        pass
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def _words(size: int) -> str:
    power = min(max(0, len(str(size)) - 1) // 3, 6)
    return f"{size / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[power]}"
