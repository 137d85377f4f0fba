"""Experiments as data: frozen dataclasses, from Python, flags or TOML."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lapg.experiments.fitting import changed, fit
from lapg.runtimes import REMOTE, RuntimeName

Options = Annotated[dict[str, Any], tyro.conf.Suppress]


def _switched(words: list[str]) -> bool | None:
    known = {"": True, "True": True, "False": False, "None": None}
    word = " ".join(words).capitalize()
    if word not in known:
        raise ValueError(f"must be True or False, or nothing for True, got {word}.")
    return known[word]


MAX_SEEDS = 2**20
"""Runs side by side, far more than fit into a computer."""
Switch = Annotated[
    bool | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[True|False]",
        instance_from_str=_switched,
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A flag that may stand alone and then says True; left out, the part's own default holds."""


@dataclass(frozen=True)
class ProblemConfig:
    """What is learned. Options left out take the problem's own defaults."""

    name: str = "cooperative_navigation"
    """A built-in problem (see `lapg list`) or your own factory as MODULE:NAME."""
    env: str | None = None
    """Environment id of an adapter (gymnasium, pettingzoo, ...), or MODULE:FACTORY."""
    observations: Literal["global", "local", "concatenated"] | None = None
    """What each agent's policy sees: the global state, its own observation, or those of all agents."""
    scale_pixels: Switch = None
    """gymnasium, pettingzoo: whether observations of bytes from 0 to 255 are divided by 255; left out: yes."""
    action_masks: Switch = None
    """gymnasium, pettingzoo: whether actions that an action_mask forbids are never taken; left out: yes."""
    num_agents: int | None = None
    """M of a multi-agent problem."""
    num_learners: int | None = None
    """M of a problem in which learners share one policy."""
    scales: tuple[float, ...] | None = None
    """Positive scale c_m of each learner's loss; left out: all 1, or spread by heterogeneity."""
    heterogeneity: float | None = None
    """How much learners differ in parallel RL: 0 is not at all, 1 strongly."""
    integrator: Literal["explicit", "semi_implicit"] | None = None
    """Physics of cooperative navigation: today's (explicit) or the 2018 code's."""
    shared_trajectories: Switch = None
    """Whether all learners see the same episodes."""
    num_steps: int | None = None
    """T, steps an episode."""
    discount: float | None = None
    """γ."""
    smoothing: float | None = None
    """σ: parameters are perturbed by σ times a normal vector once an episode, which smooths ReLU policies."""
    options: Options = field(default_factory=dict)
    """Any further arguments of the factory; from a TOML table [problem.options]."""

    def __post_init__(self) -> None:
        fit(self, "problem.")


@dataclass(frozen=True)
class PolicyConfig:
    """Who acts: each agent's policy. Options left out take the problem's defaults, or those of the policy that is named."""

    name: str | None = None
    """mlp, conv (images), linear, table (finite problems), or your own factory as MODULE:NAME; left out: the problem's default."""
    hidden: tuple[int, ...] | None = None
    """mlp, conv: widths of the hidden layers."""
    activation: Literal["relu", "softplus", "tanh"] | None = None
    """mlp, conv: activation of the network."""
    initialisation: Literal["normal", "orthogonal"] | None = None
    """mlp, conv: weights normal with variance 1/fan-in, or orthogonal as is usual for PPO."""
    std: float | None = None
    """Continuous actions: standard deviation, in units of the network's output."""
    learned_std: Switch = None
    """Continuous actions: whether it is learned."""
    options: Options = field(default_factory=dict)
    """Any further arguments of the factory; from a TOML table [policy.options]."""

    def __post_init__(self) -> None:
        fit(self, "policy.")


@dataclass(frozen=True)
class RolloutConfig:
    """What a learner's batch is made of."""

    name: str = "episodes"
    """episodes (whole ones, every round anew), segments of environments that live on from round to round, or MODULE:NAME."""
    num_steps: int | None = None
    """segments: steps of each, every round (128)."""
    options: Options = field(default_factory=dict)
    """Any further arguments; from a TOML table [rollout.options]."""

    def __post_init__(self) -> None:
        fit(self, "rollout.")


@dataclass(frozen=True)
class EstimatorConfig:
    """How a learner estimates its gradient."""

    name: str = "gpomdp"
    """gpomdp, reinforce, actor_critic, deterministic, reuse, exact (where the model is known), noisy (quadratics), or MODULE:NAME."""
    baseline: Literal["none", "leave_one_out"] | None = None
    """leave_one_out cuts the noise and stays unbiased; none is the paper's."""
    time_average: Switch = None
    """Divide the sum over time steps by T."""
    trace_decay: float | None = None
    """actor_critic, deterministic: λ."""
    critic_step_size: float | None = None
    """actor_critic, deterministic: step size of the critic's own Adam."""
    critic_steps: int | None = None
    """actor_critic, deterministic: how many steps the critic makes a batch."""
    finite_horizon: Switch = None
    """actor_critic: nothing counts after T (default), or an episode cut off at T has a future that the critic knows."""
    num_batches: int | None = None
    """reuse: how many batches, this round's included."""
    max_weight: float | None = None
    """reuse: importance weights above it are cut, which biases; left out: none are."""
    options: Options = field(default_factory=dict)
    """Any further arguments; from a TOML table [estimator.options]."""

    def __post_init__(self) -> None:
        fit(self, "estimator.")


@dataclass(frozen=True)
class MethodConfig:
    """When learners upload, and what the controller does with it. Options left out take the method's own defaults."""

    name: str = "scout"
    """A built-in method (see `lapg list`) or your own recipe as MODULE:NAME."""
    step_size: float = 0.001
    """α."""
    momentum: float | None = None
    """β of heavy ball; left out: none."""
    decay: float | None = None
    """Step sizes α/(1 + decay·k); left out: constant."""
    optimiser: str = "heavy_ball"
    """heavy_ball, any optimiser of optax by name (adam, ...), or MODULE:NAME, called with a step size (a schedule if decay is given)."""
    xi: tuple[float, ...] | None = None
    """lapg: ξ of (16), one number for all past displacements or D numbers, newest first."""
    window: int | None = None
    """lapg: D, how many past displacements count."""
    noise_weight: float | None = None
    """lapg: c, the weight of the noise in (16); 6 in the paper."""
    noise_bound: Literal["printed"] | tuple[float, ...] | None = None
    """lapg: constants σ²_m instead of the sample variance; 'printed' computes (15) from 1,000 initial trajectories."""
    average_weight: float | None = None
    """lapg, and periodic or random with memory average: η, innovations of a running average of the gradients."""
    strict: Switch = None
    """lapg: '>' (default) or the paper's '>='."""
    threshold: float | None = None
    """scout, awapg: κ; larger uploads less. scout's own is 0.3 times the rounds."""
    scale: Literal["report", "step"] | None = None
    """scout, awapg: where the scale comes from."""
    period: float | None = None
    """periodic: rounds between uploads."""
    phase: Literal["together", "staggered"] | None = None
    """periodic: whether all learners upload in the same rounds (default) or one after the other."""
    rate: float | None = None
    """random: probability of an upload."""
    memory: Literal["fresh", "lagged", "average", "accumulate"] | None = None
    """periodic, random: what is uploaded."""
    look_ahead: float | None = None
    """scout, and periodic or random with memory accumulate: learners take steps of their own between uploads, b times the controller's."""
    first_upload: float | Literal["none"] | None = None
    """scout, awapg, lena: fraction of the rounds (.1) after which the first of all learners uploads in any case, as long as nobody has; none: never for that."""
    kl_limit: float | Literal["none"] | None = None
    """Largest predicted divergence of the policy in one step, in nats an episode; every upload then carries one more number. Left out: 40 where all learners train one policy (parallel RL) with optimiser heavy_ball, else none; none: no limit."""
    limit_look_ahead: Switch = None
    """Whether steps of the learners' own are held to kl_limit as well. Left out: where kl_limit is left out, too."""
    variance_reduction: Literal["storm", "snapshot"] | None = None
    """Gradients made less noisy with importance-weighted ones at earlier parameters, before the method's own memory takes them in."""
    compressor: Literal["none", "top_k", "quantise", "qsgd", "sign"] | None = None
    """What is left of an upload; the method's own if left out. What a message does not carry stays in the method's memory."""
    compressor_fraction: float | None = None
    """top_k: fraction of the entries that travel (.05)."""
    compressor_bits: int | None = None
    """quantise, qsgd: bits of an entry (4), before codes are shortened; top_k: of an entry that travels (its own precision)."""
    compressor_block: int | None = None
    """quantise, qsgd, sign: entries that share a scale (all)."""
    downlink: Literal["dense", "replicated"] | None = None
    """What learners hear: θ every round (dense, the default), or what they need to follow the controller's steps themselves."""
    downlink_compressor: Literal["none", "uploads", "top_k", "quantise", "sign"] | None = None
    """replicated: what is left of the total that is sent down; the rest is sent later. uploads: nothing is lost, but a round's uploads travel as they came where that is shorter."""
    downlink_fraction: float | None = None
    """replicated with top_k: fraction of the entries that travel (.05)."""
    downlink_bits: int | None = None
    """replicated with quantise: bits of an entry (4); with top_k: of an entry that travels (its own precision)."""
    upload_every: int | None = None
    """Learners upload in rounds 0, R, 2R, ... alone, so that those who do come together: what goes down is then sent once for all of them; left out: any round."""
    max_age: int | Literal["none"] | None = None
    """lapg, scout, awapg: rounds after which a learner uploads in any case; none: never for its age alone."""
    options: Options = field(default_factory=dict)
    """Any further arguments of the recipe; from a TOML table [method.options]."""

    def __post_init__(self) -> None:
        fit(self, "method.")


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how θ^k is scored, for the record: by no learner, and counted apart from what they learn from."""

    every: int = 1
    """Rounds between two evaluations; 0: none, and the record has the scores of training batches alone, named as such."""
    episodes: int | None = None
    """Of every learner's task; left out: as many as a training batch has, which is then the score where it was sampled at θ^k."""
    greedy: bool = False
    """Take the most probable actions."""

    def __post_init__(self) -> None:
        fit(self, "evaluation.")
        if not 0 <= self.every < 2**31:
            raise ValueError(f"evaluation.every must be >= 0, got {self.every}; 0 is never.")
        if self.episodes is not None and self.episodes < 1:
            raise ValueError(
                f"evaluation.episodes must be >= 1, got {self.episodes}; for none at all set evaluation.every to 0."
            )
        if not self.every and (self.episodes or self.greedy):
            raise ValueError(
                "evaluation.every must be >= 1 for evaluation.episodes and evaluation.greedy, got 0; leave them out."
            )


@dataclass(frozen=True)
class ClusterConfig:
    """Where learners live and how long the controller waits for them; for runtimes ray and flower."""

    address: str | None = None
    """ray: a running cluster, as ray.init takes it (auto, HOST:PORT); flower: a SuperLink, by its name in Flower's own configuration; left out: processes on this machine, for this run alone."""
    processes: int | None = None
    """ray: among how many processes the learners are dealt out; left out: one for each, but at most one for each core."""
    deadline: float | None = None
    """Seconds after which a round does not wait any longer; left out: it waits for everybody."""
    quorum: int = 1
    """How many learners must have answered nevertheless."""
    patience: int = 100
    """Rounds without an answer after which a learner is given up and started again."""
    timeout: float = 600.0
    """Seconds after which a round that has no quorum, or no end, stops the run."""
    channels: bool | None = None
    """ray: rounds are milliseconds shorter through memory that processes share, but whoever waits keeps looking there, which takes what the processors have left; left out: yes on one machine without a deadline."""
    insecure: bool = False
    """ray: join a cluster on other machines that has neither token nor TLS."""

    def __post_init__(self) -> None:
        fit(self, "cluster.")


@dataclass(frozen=True)
class Config:
    """One experiment: a method on a problem, over several seeds."""

    problem: ProblemConfig = ProblemConfig()
    estimator: EstimatorConfig = EstimatorConfig()
    method: MethodConfig = MethodConfig()
    policy: PolicyConfig = PolicyConfig()
    rollout: RolloutConfig = RolloutConfig()
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

    def __post_init__(self) -> None:
        fit(self)
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


POLICY_SETTINGS = ("hidden", "activation", "std", "learned_std")
"""What is the policy's, and not the problem's."""


def policy_apart(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run whose problem still held those of its policy, in the form of to_dict; others as they are.

    Arguments of a factory of somebody's own stay with it, as options of the problem.
    """
    problem = dict(data.get("problem", {}))
    given = {name: problem.pop(name) for name in POLICY_SETTINGS if name in problem}
    chosen = {name: value for name, value in given.items() if value is not None}
    if not given:
        return dict(data)
    if ":" in problem.get("name", ""):
        return dict(data) | {"problem": problem | {"options": problem.get("options", {}) | chosen}}
    return dict(data) | {"problem": problem, "policy": chosen}


def to_dict(config: Config) -> dict[str, Any]:
    """Plain data, as it goes into config.json."""
    return dataclasses.asdict(config)


def from_dict(data: Mapping[str, Any], default: Any = None, where: str = "config") -> Any:
    """A configuration from plain data (JSON, TOML); what is not named keeps the value of ``default``.

    Raises:
      ValueError: an unknown name or a value of the wrong type.
    """
    problem = data.get("problem")
    for name in POLICY_SETTINGS:
        if isinstance(problem, Mapping) and name in problem:
            raise ValueError(
                f"{where}.problem.{name} must be given as policy.{name} (--policy.{name.replace('_', '-')}, table [policy]); "
                "as an argument of your own factory it goes in [problem.options]."
            )
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
    """A configuration, or whatever dataclass ``default`` is, from a TOML file; tables [problem], [policy], [estimator], [method], the rest on top.

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
