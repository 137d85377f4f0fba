"""Plays a method round by round and keeps every state, which the runtimes do not."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg.policies import softmax_table
from lapg.problems.builders import from_environment, make_tasks
from lapg.record.about import _checksum
from lapg.record.files import checksum, sealed, unsealed
from lapg.rollouts import segments
from lapg.rounds import initialise, play_round, sample_batch
from lapg.types import Environment, Problem, Transition


def player(recipe: Any, problem: Any, num_rounds: int, seed: int = 0) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    """Compiles once; hyper → states before every round and after the last (leading axis K + 1), logs (leading axis K)."""
    root = jax.random.key(seed)

    @jax.jit
    def run(hyper: dict[str, Any]) -> tuple[Any, Any]:
        method = recipe(hyper)

        def step(state: Any, _: None) -> tuple[Any, Any]:
            after, log = play_round(method, problem, root, state)
            return after, (after, log)

        start = initialise(method, problem, root)
        _, (states, logs) = jax.lax.scan(step, start, length=num_rounds)
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, states), logs

    return lambda hyper: jax.tree.map(np.asarray, run(hyper))


def full(hyper: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters by their full names: of the optimiser, or else of the trigger."""
    ours = ("step_size", "momentum", "decay")
    return {f"{'optimiser' if name in ours else 'trigger'}.{name}": value for name, value in hyper.items()}


def quadratic_gradients(problem: Any, params: np.ndarray, num: int, seed: int = 0, step: int = 0) -> np.ndarray:
    """What every learner of a quadratic measures at θ^0, ..., θ^{K-1}: [K, d] → [K, M, d], from the addressed draws, in NumPy."""
    root = jax.random.key(seed)

    @jax.jit
    def draws(params: Any) -> Any:
        def one(k: Any, theta: Any) -> Any:
            return jax.vmap(lambda task: sample_batch(problem, root, task, theta, k, step, num)["noise"])(problem.tasks)

        return jax.vmap(one)(jnp.arange(params.shape[0]), params)

    noise = np.asarray(draws(jnp.asarray(params))).mean(2)
    tasks = jax.tree.map(np.asarray, problem.tasks)
    slope = tasks.extra["curvature"] * (params[:, None] - tasks.extra["centre"])
    return tasks.scale[:, None] * slope + noise


def edit_config(
    folder: Path, edit: Callable[[dict[str, Any]], Any] = lambda settings: None, initial: np.ndarray | None = None
) -> None:
    """Changes the configuration of a run directory, or θ⁰, as if it had been written so: all its files are sealed anew."""
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    before = content.pop("checksum")
    edit(content["config"])
    if initial is not None:
        np.save(folder / "initial.npy", initial)
        content["initial"] = checksum((folder / "initial.npy").read_bytes())
    after = _checksum(content)
    file.write_text(json.dumps(content | {"checksum": after}), encoding="utf-8")
    for other in (*folder.glob("*.nc"), *folder.glob("*.eqx")):
        inner = unsealed(other.read_bytes(), other.name, before)
        other.write_bytes(sealed(inner, other.name, after))


def four_states(discount: float) -> Problem:
    """Segments of six steps in an environment of four states and two actions, with a policy that is a table; batches of it are made by hand."""
    environment = Environment(
        lambda key, task: jnp.int32(0), lambda state: state, lambda key, task, state, action: Transition(state, 0.0)
    )
    problem = from_environment(
        environment, softmax_table(4, 2), tasks=make_tasks(1, None), num_steps=9, discount=discount
    )
    return problem._replace(rollouts=partial(segments, num_steps=6))
