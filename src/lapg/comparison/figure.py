"""What a ready-made experiment is: a setting, and the methods that run in it."""

from dataclasses import dataclass, field
from typing import Literal

from lapg.comparison.grids import SHARED, Grid
from lapg.experiments.config import Choice, EvaluationConfig
from lapg.methods import Part

REPORTED_SEED = 30
"""First of the seeds that are reported by default. Seeds 0 to 29 were looked at while settings were chosen; `lapg tune` plays seeds from 1000."""
Preset = Literal["literal", "paper", "recommended"]
PRESETS: tuple[Preset, ...] = ("literal", "paper", "recommended")


@dataclass(frozen=True)
class Figure:
    """One experiment: a setting, and the methods that run in it."""

    name: str
    title: str
    problem: Part
    batch_size: int
    rounds: int
    """K; enough by the protocol: PG improves by less than 2 % in the last fifth."""
    tuned: dict[str, Choice] = field(repr=False)
    """Methods of preset recommended by label, tuned on seeds that are never reported."""
    step: float
    """The step size about which PG's is sought."""
    policy: Part = Part()
    rollout: Part = Part()
    estimator: Part = Part("gpomdp", baseline="leave_one_out")
    """Of preset recommended."""
    evaluation: EvaluationConfig = field(default_factory=lambda: EvaluationConfig(every=1))
    reference: str = "PG"
    """The method beside which the others are put."""
    shared: Grid = field(default_factory=lambda: SHARED, repr=False)
    """The number that every method may tune beside its step and one of its own."""
    grids: dict[str, Grid] = field(default_factory=dict, repr=False)
    """Values of methods' own numbers, where those of `lapg.comparison.grids.KNOWN` do not fit."""
    first_seed: int = REPORTED_SEED
    """First of the seeds that are reported, of which none had a part in any choice."""
    claim: str | None = None
    """The paper's word for its saving in uploads; None where the paper has no such figure."""
    momentum: float | None = None

    @property
    def presets(self) -> tuple[Preset, ...]:
        """Those that make sense here: the paper's own only where there is a figure of the paper."""
        return PRESETS if self.claim else ("recommended",)
