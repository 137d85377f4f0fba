"""What a trained policy is worth on fresh episodes, and what it looks like."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from lapg.drawing import matplotlib
from lapg.experiments.run import Run, as_run
from lapg.rollouts import rollout, rollouts
from lapg.runtimes.evaluation import greedy
from lapg.runtimes.host_env import close, sampler, to_batch
from lapg.types import NOBODY, SAMPLE, Policy, Problem, address

FRESH = 2**31
"""Fresh episodes use the seeds from here on."""


def evaluate(run: Run, num_episodes: int = 100, seed: int = 0) -> xr.Dataset:
    """Mean returns of every trained seed's policy over fresh episodes, stochastic (as in training, smoothing included) and greedy (at θ itself).

    Returns:
      Return variables (see `lapg.problems.builders.score`) with dims (mode, seed, learner).
    Raises:
      ValueError: num_episodes < 1, or the problem has no episodes.
    """
    if not isinstance(num_episodes, int | np.integer) or num_episodes < 1:
        raise ValueError(f"episodes must be a whole number >= 1, got {num_episodes!r}.")
    problem, policy, trained = as_run(run).built.problem, run.built.problem.policy, run.plain.policy
    if policy is None or trained is None or (problem.environment is None and problem.collect is None):
        raise ValueError(f"problem {run.config.problem.name!r} has no episodes; there is nothing to evaluate.")
    root, params = jax.random.key(FRESH + seed), run.record["params"].values
    measure = _in_jax if problem.collect is None else partial(_on_host, at_once=run.config.batch_size)
    modes = {"stochastic": (problem, policy), "greedy": (run.plain, greedy(trained))}
    with contextlib.ExitStack() as leaving:
        leaving.callback(close, problem)
        parts = [measure(*chosen, root, params, num_episodes) for chosen in modes.values()]
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    coordinates = {"mode": list(modes), "seed": run.record["seed"].values, "learner": run.record["learner"].values}
    return xr.Dataset({name: (("mode", "seed", "learner"), value) for name, value in stacked.items()}, coordinates)


def _in_jax(problem: Problem, policy: Policy, root: Any, params: np.ndarray, num: int) -> dict[str, Any]:
    """Scores with leading axes (seed, learner)."""
    environment = problem.environment
    assert environment is not None
    sample = rollouts(environment, policy, problem.num_steps)

    def one(params: jax.Array, lane: jax.Array, task: Any) -> Any:
        key = address(root, SAMPLE, NOBODY if problem.shared else task.index, lane)
        return problem.score(task, sample(key, task, params, num))

    per_learner = jax.vmap(one, (None, None, 0))
    everywhere = jax.jit(lambda *lanes: jax.lax.map(lambda x: per_learner(x[0], x[1], problem.tasks), lanes))
    return everywhere(jnp.asarray(params), jnp.arange(len(params)))


def _on_host(problem: Problem, policy: Policy, root: Any, params: np.ndarray, num: int, at_once: int) -> dict[str, Any]:
    """As `_in_jax`; plays no more than ``at_once`` episodes per learner side by side, as training does."""
    play = sampler(problem, policy)
    score_batch = jax.jit(
        jax.vmap(lambda task, theta, played: problem.score(task, to_batch(policy, task, theta, played)), (0, None, 0))
    )

    @jax.jit
    def keys(lane: Any) -> Any:
        return jax.vmap(lambda task: address(root, SAMPLE, NOBODY if problem.shared else task.index, lane))(
            problem.tasks
        )

    def one(lane: int, theta: np.ndarray) -> Any:
        repeated = jnp.broadcast_to(theta, (problem.num_learners, theta.size))
        return score_batch(problem.tasks, theta, play(keys(lane), repeated, num, at_once=at_once))

    return jax.tree.map(lambda *leaves: np.stack(leaves), *(one(*lane) for lane in enumerate(params)))


def render(run: Run, out: str | Path, *, seed: int | None = None, episode: int = 0, stochastic: bool = False) -> Path:
    """An animated GIF of one fresh episode under the learned policy, at the environment's own speed.

    Raises:
      ValueError: the problem cannot be drawn, or ``out`` exists.
    """
    out, problem = Path(out), as_run(run).built.problem if stochastic else as_run(run).plain
    environment, policy = problem.environment, problem.policy
    if policy is None or environment is None or environment.draw is None:
        raise ValueError(
            f"problem {run.config.problem.name!r} has no draw function; there is nothing to render. "
            "Environments outside JAX are drawn by their own packages, with the actions of run.policy."
        )
    if out.exists():
        raise ValueError(f"out={out} must be a new file, but it exists; choose another name.")
    play = rollout(environment, policy if stochastic else greedy(policy), problem.num_steps)
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    key = address(jax.random.key(FRESH), SAMPLE, NOBODY, episode)
    played, states = jax.jit(play)(key, task, jnp.asarray(run.params(seed)))
    length = int(played.mask.sum())
    mpl = matplotlib()
    figure = mpl.figure.Figure(figsize=(4, 4.2), layout="constrained")
    axes = figure.subplots()
    draw = environment.draw

    def paint(step: int) -> list[Any]:
        axes.clear()
        draw(axes, jax.tree.map(lambda leaf: leaf[step], states))
        axes.set_title(f"{run.config.method}, step {step + 1}/{length}")
        return []

    out.parent.mkdir(parents=True, exist_ok=True)
    writer = mpl.animation.PillowWriter(fps=max(1, round(1 / environment.step_seconds)))
    mpl.animation.FuncAnimation(figure, paint, frames=length).save(out, writer=writer)
    return out
