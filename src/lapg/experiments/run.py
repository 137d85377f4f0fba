"""Running an experiment, and going on with it; and the finished run as an object."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from lapg import record
from lapg.experiments.build import Built, build, build_problem, parts
from lapg.experiments.config import Config, agreed, as_config, from_dict, to_dict
from lapg.experiments.convert import from_format_2, renamed
from lapg.experiments.flower_launch import check_flower, federate
from lapg.experiments.loop import Callback, Interrupted, advance
from lapg.experiments.silence import silence
from lapg.experiments.size import check_size
from lapg.experiments.soundness import unsound
from lapg.experiments.trust import Trust, require_trust
from lapg.problems.adapters import interface_of
from lapg.record.files import expand, make_folder, usable
from lapg.runtimes import DISTRIBUTED, Runtime, RuntimeName, Sequential, distributed, runtime_of, use_all_cores
from lapg.runtimes.evaluation import Evaluation
from lapg.types import Problem


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
        return from_dict((from_format_2 if about["format"] == 2 else renamed)(about["config"]))
    except ValueError as error:
        raise record.RunError(f"run={path} cannot be used: {error}") from error


def resume_command(path: Path) -> str:
    """What resumes a run of one's own from the shell."""
    try:
        require_trust(read_config(path), path, False, resumed=True)
    except ValueError:
        return f"lapg train --resume {path} --trust"
    return f"lapg train --resume {path}"


def default_out(config: Config) -> Path:
    """runs/METHOD-DATE-TIME, or the first of ...-2, ...-3 and so on that is not taken."""
    first = Path("runs") / f"{config.method.replace(':', '.')}-{time.strftime('%Y%m%d-%H%M%S')}"
    others = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], others) if not path.exists())


def _make_default_out(config: Config) -> Path:
    """Makes that directory, so that no process that starts in the same second has it."""
    while True:
        path = default_out(config)
        try:
            make_folder(path, exist_ok=False)
            return path
        except FileExistsError:
            continue


def train(
    config: Config | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    runtime: RuntimeName | None = None,
    init_from: Run | None = None,
    show_progress: bool = True,
    checkpoint_seconds: float = 20.0,
    callbacks: tuple[Callback, ...] = (),
) -> Run:
    """Runs an experiment and leaves it in a new directory.

    Args:
      out: the directory; None is runs/METHOD-DATE-TIME. One that holds something is never touched.
      runtime: in place of the configuration's.
      init_from: start from the final parameters of another run instead of the problem's own θ⁰; seeds are matched in order, and around.
      checkpoint_seconds: at most so much work and a round are lost when the process is killed; with runtime flower, and with 0,
        ``config.chunk_rounds`` rounds.
      callbacks: called after every saved stretch of rounds.
    Raises:
      ValueError: the configuration does not fit, or takes more memory than there is.
      RunError: ``out`` is taken, or cannot be used.
      DiskError: a file cannot be written; everything up to the last checkpoint is saved.
      Interrupted: by Ctrl-C, SIGTERM or SIGHUP, with everything saved.
    """
    config = as_config(config)
    config = config if runtime is None else dataclasses.replace(config, runtime=runtime)
    use_all_cores()
    built = build(config)
    check_size(config, built)
    initial = None if init_from is None else _initial_params(as_run(init_from, "init_from"), built, config)
    if config.runtime in ELSEWHERE:
        ELSEWHERE[config.runtime].check(config, built, initial is not None)
    with usable("out", Path("runs")):
        path = _make_default_out(config) if out is None else expand(out)
    record.check_free(path)
    with record.owned(path, "out"):
        record.create(path, to_dict(config), initial)
        return _play(path, config, built, initial, show_progress, checkpoint_seconds, callbacks)


def resume(
    path: str | Path,
    *,
    show_progress: bool = True,
    checkpoint_seconds: float = 20.0,
    callbacks: tuple[Callback, ...] = (),
    trust: Trust = False,
) -> Run:
    """Resumes an interrupted run, to bitwise the same end; a finished one is just loaded.

    Where the newest checkpoint is damaged, a line on stderr says so, and the rounds since the one before it are played again.

    Args:
      trust: see `load`.
    Raises:
      RunError: the directory is not a run's, is damaged, is being played, comes from another version or precision, or names code that is not trusted.
      DiskError: a file cannot be written; everything up to the last checkpoint is saved.
      Interrupted: by Ctrl-C, SIGTERM or SIGHUP, with everything saved.
    """
    path = expand(path)
    with usable("run", path):
        config = read_config(path)
        if (path / "record.nc").is_file() and not record.superseded(path):
            record.check_finished(path)
            return load(path, trust=trust)
        record.check_format(path)
    require_trust(config, path, trust, resumed=True)
    record.check_precision(path)
    use_all_cores()
    built = build(config)
    with record.owned(path):
        initial = record.read_initial(path)
        return _play(path, config, built, initial, show_progress, checkpoint_seconds, callbacks)


def make_lanes(config: Config, built: Built, initial: np.ndarray | None = None) -> Runtime:
    """One lane per seed, all with the same hyperparameters, on the configuration's runtime.

    Raises:
      ValueError: the runtime is not installed, cannot play the problem, or has no lanes in this process.
    """
    if config.runtime in ELSEWHERE:
        raise ValueError(
            f"runtime {config.runtime!r} plays in processes of its own; use lapg.train, or another runtime."
        )
    hypers = {
        name: np.full(config.seeds, value, np.asarray(jnp.zeros(())).dtype) for name, value in built.hyper.items()
    }
    common: dict[str, Any] = {"chunk_rounds": config.chunk_rounds, "initial_params": initial}
    common["evaluation"] = Evaluation(**vars(config.evaluation))
    if config.runtime in DISTRIBUTED:
        common |= {"built": (built.recipe, built.problem), "settings": agreed(config)} | vars(config.cluster)
        return distributed(config.runtime)(partial(parts, config), hypers, config.seed_list, **common)
    runtime = runtime_of(built.problem, config.runtime)
    if runtime is Sequential:
        common["heartbeat"] = config.heartbeat
    return runtime(built.recipe, built.problem, hypers, config.seed_list, **common)


def _initial_params(source: Run, built: Built, config: Config) -> np.ndarray:
    params = source.record["params"].values
    wanted = jax.eval_shape(built.problem.init, jax.random.key(0)).shape[0]
    if params.shape[1] != wanted:
        raise ValueError(
            f"init_from={source.path} has {params.shape[1]} parameters, this problem needs {wanted}; use the same problem and network."
        )
    return params[np.arange(config.seeds) % len(params)]


class Player(NamedTuple):
    """Has a run played that cannot advance in this process.

    ``check: configuration, built, whether θ⁰ is given`` raises before anything is started · ``play: path, configuration, built, θ⁰ → record``.
    """

    check: Callable[[Config, Built, bool], None]
    play: Callable[..., xr.Dataset]


ELSEWHERE = {"flower": Player(check_flower, federate)}
"""Runtimes whose controller is in another process."""


def play_here(
    path: Path, config: Config, built: Built, initial: np.ndarray | None = None, **telling: Any
) -> xr.Dataset:
    """Plays a run from where its directory stands to its end, the controller in this process; its record."""
    record.recover(path)
    with contextlib.closing(make_lanes(config, built, initial)) as lanes:
        return advance(path, config, lanes, anew=built.problem.collect is not None, **telling)


def _play(
    path: Path,
    config: Config,
    built: Built,
    initial: np.ndarray | None,
    show_progress: bool,
    checkpoint_seconds: float,
    callbacks: tuple[Callback, ...],
) -> Run:
    if show_progress:
        callbacks = (*callbacks, silence(config))
    play = ELSEWHERE[config.runtime].play if config.runtime in ELSEWHERE else play_here
    telling = {"show_progress": show_progress, "checkpoint_seconds": checkpoint_seconds, "callbacks": callbacks}
    try:
        return Run(path, config, play(path, config, built, initial, **telling), trust=True)  # its code has run already
    except KeyboardInterrupt:  # before the first round, or for the second time
        raise Interrupted(path, record.progress(path)) from None
