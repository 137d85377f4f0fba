"""A run on disk as an object: its configuration, its record, its policy."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from lapg import record
from lapg.experiments.build import Built, build, build_problem
from lapg.experiments.config import Config, from_dict
from lapg.experiments.convert import from_format_2, from_format_3
from lapg.experiments.soundness import unsound
from lapg.experiments.trust import Trust, require_trust
from lapg.problems.adapters import interface_of
from lapg.record.files import expand, usable
from lapg.types import Problem

CONVERTED = {2: from_format_2, 3: from_format_3}
"""What today's tables are made of, by an older run's format."""


@dataclass(frozen=True)
class Run:
    """A run on disk, finished or not.

    Attributes:
      path: its directory.
      config: what was run.
      record: labelled arrays (seed × round × learner); see `lapg.record`.
      trust: whose code its configuration may name, beside lapg's (`lapg.experiments.trust`).
    """

    path: Path
    config: Config
    record: xr.Dataset
    trust: Trust = False

    @cached_property
    def built(self) -> Built:
        """The problem and the recipe.

        Raises:
          RunError: they are not lapg's, and not trusted.
        """
        require_trust(self.config, self.path, self.trust)
        return build(self.config)

    @cached_property
    def plain(self) -> Problem:
        """The problem without the perturbations of smoothing, which serve training: the one to act in with θ itself."""
        return self.built.problem if self.config.smoothing is None else build_problem(self.config, plain=True)

    def params(self, seed: int | None = None) -> np.ndarray:
        """θ after the last saved round, of one seed (the first if None)."""
        chosen = self.record["params"]
        try:
            return (chosen[0] if seed is None else chosen.sel(seed=seed)).values
        except KeyError:
            raise ValueError(f"seed must be one of {chosen['seed'].values.tolist()}, got {seed}.") from None

    @cached_property
    def _act(self) -> Callable[..., Any]:
        policy = self.plain.policy
        if policy is None:
            raise ValueError(f"problem {self.config.problem.name!r} has no policy; there is nothing to act with.")

        def act(params: Any, observation: Any, key: Any) -> Any:
            greedy = policy.mode(params, observation)
            action = greedy if key is None else policy.sample(policy.action_noise(key), params, observation)[0]
            return policy.actuate(action)

        return jax.jit(act)

    def policy(self, observation: Any, *, info: Any = None, key: Any = None, seed: int | None = None) -> Any:
        """The trained policy's action, as the problem's environment takes it: the most probable one, or a random one if a JAX key is given.

        Args:
          observation: one, as the environment returns it; with several agents and ``global`` observations, the world's state.
          info: what came with it; needed where it has an ``action_mask``.
          seed: whose θ, of the trained seeds; None is the first.
        Raises:
          ValueError: the observation is not one of the problem's, there is no such seed, or the problem has no policy.
        """
        act, (encode, decode, _) = self._act, interface_of(self.plain)
        return decode(jax.tree.map(np.asarray, act(self.params(seed), encode(observation, info), key)))

    @property
    def finished(self) -> bool:
        """Whether all rounds have been played."""
        return self.record.sizes["round"] >= self.config.rounds

    @cached_property
    def unsound(self) -> list[str]:
        """A line for each learner whose losses or gradients were not finite in some round; empty for a sound run."""
        return unsound(self.record)


def load(path: str | Path, *, trust: Trust = False) -> Run:
    """A run from its directory. Reading it imports nothing.

    Args:
      trust: whether building its parts, to act, evaluate or draw, may run code that its files name: True, or the parts themselves or their names.
    Raises:
      RunError: the directory is not a run's, is damaged, or comes from another version.
    """
    path = expand(path)
    with usable("run", path):
        return Run(path, read_config(path), record.read(path), trust)


def as_run(run: Any, name: str = "run") -> Run:
    """The run itself.

    Raises:
      ValueError: it is none.
    """
    if not isinstance(run, Run):
        raise ValueError(f"{name} must be a Run, as train and load return it, got {run!r}.")
    return run


def read_config(path: Path) -> Config:
    """What a run directory was asked to run.

    Raises:
      RunError: the directory is not a run's, is damaged, or comes from another version.
    """
    about = record.read_about(path)
    try:
        return from_dict(CONVERTED.get(about["format"], dict)(about["config"]))
    except ValueError as error:
        raise record.RunError(f"run={path} cannot be used: {error}") from error


def resume_command(path: Path) -> str:
    """What resumes a run of one's own from the shell."""
    try:
        require_trust(read_config(path), path, False, resumed=True)
    except ValueError:
        return f"lapg train --resume {path} --trust"
    return f"lapg train --resume {path}"
