"""Estimators of a learner's gradient from a batch, each with its noise. Each file is one idea."""

from lapg.estimators.actor_critic import actor_critic
from lapg.estimators.common import mean_and_noise, stateless
from lapg.estimators.deterministic import deterministic
from lapg.estimators.fisher import fisher_norm
from lapg.estimators.known import exact, noisy
from lapg.estimators.likelihood_ratio import gpomdp, reinforce
from lapg.estimators.ppo import ppo
from lapg.estimators.reuse import reuse

__all__ = [
    "actor_critic",
    "deterministic",
    "exact",
    "fisher_norm",
    "gpomdp",
    "mean_and_noise",
    "noisy",
    "ppo",
    "reinforce",
    "reuse",
    "stateless",
]
