"""When to upload. Where shares are reused, a learner that has never uploaded does so in any case; that is round 0, and it is counted."""

from lapg.uplink.triggers import measures
from lapg.uplink.triggers.age_weighted import Scale, Window, age_weighted
from lapg.uplink.triggers.budget import budget
from lapg.uplink.triggers.lazy import changed, lazy
from lapg.uplink.triggers.reported import importance, model_variance
from lapg.uplink.triggers.schedules import Phase, always, never, periodic, random

__all__ = [
    "Phase",
    "Scale",
    "Window",
    "age_weighted",
    "always",
    "budget",
    "changed",
    "importance",
    "lazy",
    "measures",
    "model_variance",
    "never",
    "periodic",
    "random",
]
