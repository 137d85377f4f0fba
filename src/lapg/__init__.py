"""lapg: communication-efficient distributed reinforcement learning.

A controller and M learners train a policy together; each learner uploads its innovation only when a trigger says that it has something new to say.
"""

from importlib.metadata import version

from lapg import checks, estimators, local, methods, policies, problems, theory, types
from lapg.costs import ledger
from lapg.experiments.config import ClusterConfig, Config, EvaluationConfig
from lapg.experiments.evaluate import evaluate, render
from lapg.experiments.loop import Interrupted
from lapg.experiments.run import Run, load
from lapg.experiments.train import resume, train
from lapg.methods import Part, Preset
from lapg.record import RunError
from lapg.runtimes import Vectorised, sequential
from lapg.uplink import compressors, memories, triggers

__version__ = version("lapg")
__all__ = [
    "ClusterConfig",
    "Config",
    "EvaluationConfig",
    "Interrupted",
    "Part",
    "Preset",
    "Run",
    "RunError",
    "Vectorised",
    "checks",
    "compressors",
    "estimators",
    "evaluate",
    "ledger",
    "load",
    "local",
    "memories",
    "methods",
    "policies",
    "problems",
    "render",
    "resume",
    "sequential",
    "theory",
    "train",
    "triggers",
    "types",
]
