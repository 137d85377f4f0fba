"""Experiments as data: frozen dataclasses, from Python, flags or TOML."""

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lapg.experiments.fitting import changed, check_names, fit, fit_part
from lapg.methods import KINDS, PREFERRED, Part, choose, resolve
from lapg.methods.parts import as_table, merged
from lapg.methods.registry import DEFAULTS
from lapg.runtimes import REMOTE, RuntimeName
from lapg.runtimes.evaluation import Evaluation

MAX_SEEDS = 2**20
SCORED = 50
"""About how many rounds are scored by default where that takes episodes which nobody learns from."""
"""Runs side by side, far more than fit into a computer."""


Settings = TypeVar("Settings")


def _names_checked(cls: type[Settings]) -> type[Settings]:
    """The dataclass with settings that it does not have refused as everywhere else, with the nearest name."""
    made: Any = cls.__init__

    @functools.wraps(made)
    def init(self: Any, *args: Any, **settings: Any) -> None:
        check_names(cls, settings, cls.__name__)
        made(self, *args, **settings)

    cls.__init__ = init  # pyright: ignore[reportAttributeAccessIssue]
    return cls


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how θ^k is scored, for the record: by no learner, and counted apart from what they learn from."""

    every: int | None = None
    """Rounds between two evaluations; 0: none, and the record has the scores of training batches alone, named as such; left out: 1, but with segments, which are no score, as many as make about 50 evaluations of a run, its last round included."""
    episodes: int | None = None
    """Of every learner's task; left out: as many as a training batch has, which is then the score where it was sampled at θ^k."""
    greedy: bool = False
    """Take the most probable actions."""

    def __post_init__(self) -> None:
        fit(self, "evaluation.")
        if self.every is not None and not 0 <= self.every < 2**31:
            raise ValueError(f"evaluation.every must be >= 0, got {self.every}; 0 is never.")
        if self.episodes is not None and self.episodes < 1:
            raise ValueError(
                f"evaluation.episodes must be >= 1, got {self.episodes}; for none at all set evaluation.every to 0."
            )
        if self.every == 0 and (self.episodes or self.greedy):
            raise ValueError(
                "evaluation.every must be >= 1 for evaluation.episodes and evaluation.greedy, got 0; leave them out."
            )


@dataclass(frozen=True)
class ClusterConfig:
    """Where learners live and how long the controller waits for them; for runtimes ray and flower."""

    address: str | None = None
    """ray: a running cluster, as ray.init takes it (auto, HOST:PORT); flower: a SuperLink, by its name in Flower's own configuration; default: processes on this machine, for this run alone."""
    processes: int | None = None
    """ray: number of processes, among which the learners are dealt out; default: one for each learner, but at most one for each core."""
    deadline: float | None = None
    """Seconds after which a round ends without the missing answers; default: rounds wait for all learners."""
    quorum: int = 1
    """How many learners must have answered even after the deadline."""
    max_silent_rounds: int = 100
    """Rounds without an answer after which a learner counts as lost and is started again."""
    timeout: float = 600.0
    """Seconds after which a round that has no quorum, or does not end, stops the run."""
    channels: bool | None = None
    """ray: send messages through shared memory, which makes rounds milliseconds shorter, but waiting processes poll it, which takes idle processor time; default: yes on one machine without a deadline."""
    insecure: bool = False
    """ray: join a cluster on other machines that has neither token nor TLS."""

    def __post_init__(self) -> None:
        fit(self, "cluster.")


@_names_checked
@dataclass(frozen=True)
class Choice:
    """A method: a preset, and what is changed of it. A part without a name is the preset's with the options that are given."""

    method: str = "scout"
    """A choice of parts by its name (see `lapg list`), or your own as MODULE:NAME; each of the parts can be another one."""
    optimiser: Part = Part()
    """What the controller makes of what it hears."""
    local: Part = Part()
    """Steps of the learners' own between uploads."""
    variance_reduction: Part = Part()
    """Gradients made less noisy with importance-weighted ones at earlier parameters, before anything else sees them."""
    memory: Part = Part()
    """What a learner remembers of its gradients, and would upload."""
    trigger: Part = Part()
    """When a learner uploads."""
    compressor: Part = Part()
    """What is left of an upload. What a message does not carry stays in the memory."""
    step_limit: Part = Part()
    """Bound on the controller's steps; left out: kl, 40 nats an episode, own steps included, where all learners train one policy with optimiser sgd, else unlimited."""
    downlink: Part = Part()
    """What learners hear of the controller."""
    upload_every: int | None = None
    """Learners upload in rounds 0, R, 2R, ... alone, so that those who do come together: what goes down is then sent once for all of them; left out: any round."""
    _kinds: ClassVar[tuple[str, ...]] = KINDS

    def __post_init__(self) -> None:
        fit(self)
        own = ":" in self.method
        preset = None if own else resolve("method", self.method)
        for kind in self._kinds:
            below = None if preset is None else getattr(preset, kind)
            if own and getattr(self, kind).name is None:  # the part is known as soon as the preset is
                below = Part(":")
            object.__setattr__(self, kind, fit_part(kind, getattr(self, kind), kind, below or None))

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by kind, names and all.

        Raises:
          ValueError: there is no such method.
        """
        return choose(resolve("method", self.method), {kind: getattr(self, kind) for kind in self._kinds}, self._kinds)

    @property
    def choice(self) -> "Choice":
        """The method alone."""
        return Choice(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Choice)})

    def but(self, **changes: Any) -> Any:
        """The same with other settings; a `Part` without a name, or with the same, changes the options that it names."""
        check_names(type(self), changes, "but")
        for name, value in changes.items():
            if isinstance(old := getattr(self, name), Part) and isinstance(value, Part):
                changes[name] = merged(old, value)
        return dataclasses.replace(self, **changes)


@_names_checked
@dataclass(frozen=True)
class Config(Choice):
    """One experiment: a method on a problem, over several seeds."""

    problem: Part = Part(DEFAULTS["problem"])
    """What is learned."""
    policy: Part = Part()
    """Who acts: each agent's policy. Options left out take the problem's defaults, or those of the policy that is named."""
    rollout: Part = Part()
    """What a learner's batch is made of: whole episodes (default), or segments of environments that live on from round to round."""
    estimator: Part = Part()
    """How a learner estimates its gradient; gpomdp unless the method prefers another."""
    smoothing: float | None = None
    """σ: parameters are perturbed by σ times a normal vector once an episode, which smooths ReLU policies."""
    batch_size: int = 10
    """N, trajectories (episodes, or segments) per round and learner."""
    participation: float = 1.0
    """Fraction of the learners that takes part in a round, drawn anew in each; at least one does."""
    rounds: int = 1000
    """K."""
    seeds: int = 10
    """How many runs, side by side."""
    first_seed: int = 0
    """Runs use seeds first_seed, first_seed + 1, ..."""
    chunk_rounds: int = 25
    """Rounds between two looks at progress bar, checkpoints and Ctrl-C."""
    runtime: RuntimeName = "vectorised"
    """vectorised (compiled, default), sequential (plain loop over messages), ray or flower (learners in other processes, here or elsewhere)."""
    heartbeat: bool = True
    """Every learner that takes part in a round hears a header at least and answers with one at least, as under ray and flower; no: who has nothing to say is silent, up and down, as a common clock allows."""
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()
    _kinds: ClassVar[tuple[str, ...]] = (*KINDS, *PREFERRED)

    def __post_init__(self) -> None:
        super().__post_init__()
        part = fit_part("problem", self.problem, "problem")
        object.__setattr__(self, "problem", merged(Part(DEFAULTS["problem"]), part))
        for name in ("batch_size", "rounds", "seeds", "chunk_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}.")
            if getattr(self, name) >= 2**31:
                raise ValueError(f"{name} must be below 2^31, got {getattr(self, name)}.")
        if self.seeds > MAX_SEEDS:
            raise ValueError(
                f"seeds must be <= {MAX_SEEDS:,} in one run, got {self.seeds}; more go into further runs with another first_seed."
            )
        if not 0 < self.participation <= 1:
            raise ValueError(f"participation must lie in (0, 1], got {self.participation}; 1 is everybody.")
        if not 0 <= self.first_seed <= 2**32 - 1 - self.seeds:
            raise ValueError(
                f"first_seed must be >= 0 and leave room for {self.seeds} seeds below 2^32, got {self.first_seed}."
            )

        if self.runtime in REMOTE and not self.heartbeat:
            raise ValueError(
                f"heartbeat must be true with runtime {self.runtime!r}, whose rounds end when everybody has answered; leave it out or choose another runtime."
            )
        if self.runtime not in REMOTE and self.cluster != ClusterConfig():
            raise ValueError(
                f"cluster settings go with a runtime of {', '.join(REMOTE)}, got runtime {self.runtime!r}; leave them out or choose another."
            )

    @property
    def seed_list(self) -> list[int]:
        """The seeds of the runs."""
        return list(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def scoring(self) -> Evaluation:
        """When and how θ^k is scored."""
        asked, last = self.evaluation, None
        every = 1 if asked.every is None else asked.every
        if asked.every is None and self.parts["rollout"].name != DEFAULTS["rollout"]:
            every, last = -(-self.rounds // SCORED), self.rounds - 1
        return Evaluation(every, asked.episodes, asked.greedy, last)

    def playing(self, choice: Choice) -> "Config":
        """The same experiment with another method."""
        return dataclasses.replace(self, **vars(choice))


PARTS = (*KINDS, "problem", *PREFERRED)
"""The settings of a configuration that are parts."""


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data, as it goes into config.json: a table for each part that says anything, with its name and its options."""
    found = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, Part):
            found |= {item.name: as_table(value)} if value else {}
        else:
            found[item.name] = to_dict(value) if dataclasses.is_dataclass(value) else value
    return found


def agreed(config: Config) -> dict[str, Any]:
    """What all processes of a run must agree on."""
    own = ("chunk_rounds", "runtime", "heartbeat", "evaluation", "cluster")
    return {name: value for name, value in to_dict(config).items() if name not in own}


def from_dict(data: Mapping[str, Any], default: Any = None, where: str = "config") -> Any:
    """A configuration from plain data (JSON, TOML); what is not named keeps the value of ``default``.

    A table with the name of another part replaces that which is there; any other changes the options that it names.

    Raises:
      ValueError: an unknown name or a value of the wrong type.
    """
    return changed(Config() if default is None else default, data, where)


def as_config(config: Config | Mapping[str, Any]) -> Config:
    """A configuration, or one from a table of its settings.

    Raises:
      ValueError: it is neither, or does not fit.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return from_dict(config)
    raise ValueError(f"config must be a Config or a table of its settings, got {config!r}.")


def read_toml(path: Path, default: Any = None) -> Any:
    """A configuration, or whatever dataclass ``default`` is, from a TOML file; a table for each part, the rest on top.

    Raises:
      ValueError: no such file, not TOML, or a setting that does not fit.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config={path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config={path} must be a TOML file: {error}.") from error
    return from_dict(data, default)
