"""Estimators of a learner's gradient from a batch, each with its noise. Each file is one idea."""

from lapg.estimators.common import mean_and_noise, stateless
from lapg.estimators.known import exact, noisy
from lapg.estimators.likelihood_ratio import gpomdp, reinforce

__all__ = ["exact", "gpomdp", "mean_and_noise", "noisy", "reinforce", "stateless"]
