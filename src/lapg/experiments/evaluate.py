"""What a trained policy is worth on fresh episodes, and what it looks like."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from lapg.experiments.run import Run
from lapg.problems.protocol import score
from lapg.sampling import rollout, rollouts
from lapg.types import NOBODY, SAMPLE, Environment, Policy, Problem, address

FRESH = 2**31
"""Fresh episodes use the seeds from here on."""


def _acting(problem: Problem, run: Run) -> tuple[Environment, Policy]:
    if problem.environment is None or problem.policy is None:
        raise ValueError(f"problem {run.config.problem.name!r} has no episodes; nothing to evaluate or to render.")
    return problem.environment, problem.policy


def greedy(policy: Policy) -> Policy:
    """The policy that always takes its most probable action."""

    def sample(noise: Any, params: Any, observation: Any) -> Any:
        action = policy.mode(params, observation)
        return action, policy.log_prob(params, observation, action)

    return policy._replace(sample=sample)


def evaluate(run: Run, num_episodes: int = 100, seed: int = 0) -> xr.Dataset:
    """Mean returns of every trained seed's policy over fresh episodes, stochastic and greedy.

    Returns:
      Return variables (see `lapg.problems.protocol.score`) with dims (mode, seed, learner).
    Raises:
      ValueError: num_episodes < 1, or the problem has no episodes.
    """
    if num_episodes < 1:
        raise ValueError(f"episodes must be >= 1, got {num_episodes}.")
    problem = run.built.problem
    environment, policy = _acting(problem, run)
    root = jax.random.key(FRESH + seed)

    def measure(policy: Policy) -> Any:
        sample, judge = rollouts(environment, policy, problem.num_steps), score(problem.discount)

        def one(params: jax.Array, lane: jax.Array, task: Any) -> Any:
            key = address(root, SAMPLE, NOBODY if problem.shared else task.index, lane)
            return judge(task, sample(key, task, params, num_episodes))

        per_learner = jax.vmap(one, (None, None, 0))
        return jax.jit(lambda ps, lanes: jax.lax.map(lambda x: per_learner(x[0], x[1], problem.tasks), (ps, lanes)))

    params = jnp.asarray(run.record["params"].values)
    lanes = jnp.arange(params.shape[0])
    modes = {"stochastic": policy, "greedy": greedy(policy)}
    parts = [measure(chosen)(params, lanes) for chosen in modes.values()]
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    coordinates = {"mode": list(modes), "seed": run.record["seed"].values, "learner": run.record["learner"].values}
    return xr.Dataset({name: (("mode", "seed", "learner"), value) for name, value in stacked.items()}, coordinates)


def render(run: Run, out: Path, *, seed: int | None = None, episode: int = 0, stochastic: bool = False) -> Path:
    """An animated GIF of one fresh episode under the learned policy.

    Raises:
      ValueError: the problem cannot be drawn, or ``out`` exists.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure

    problem = run.built.problem
    environment, policy = _acting(problem, run)
    if environment.draw is None:
        raise ValueError(f"problem {run.config.problem.name!r} has no draw function; there is nothing to render.")
    if out.exists():
        raise ValueError(f"out={out} must be a new file, but it exists; choose another name.")
    play = rollout(environment, policy if stochastic else greedy(policy), problem.num_steps)
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    key = address(jax.random.key(FRESH), SAMPLE, NOBODY, episode)
    _, states = jax.jit(play)(key, task, jnp.asarray(run.params(seed)))
    figure = Figure(figsize=(4, 4.2), layout="constrained")
    axes = figure.subplots()
    draw = environment.draw

    def paint(step: int) -> list[Any]:
        axes.clear()
        draw(axes, jax.tree.map(lambda leaf: leaf[step], states))
        axes.set_title(f"{run.config.method.name}, step {step + 1}/{problem.num_steps}")
        return []

    out.parent.mkdir(parents=True, exist_ok=True)
    FuncAnimation(figure, paint, frames=problem.num_steps).save(out, writer=PillowWriter(fps=8))
    return out
