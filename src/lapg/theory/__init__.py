"""The paper's section 4 as functions: constants, convergence, communication. Corrected by default; ``form="printed"`` is what the paper prints."""

from lapg.theory.communication import (
    communication_bound,
    communication_factor,
    extreme_example,
    fewer_uploads_certified,
    hardness,
    hardness_cdf,
    hardness_thresholds,
    laziness,
    max_uploads,
    saving,
)
from lapg.theory.constants import (
    Form,
    aggregate_noise,
    concentration_bound,
    deviation_bound,
    linear_softmax_bounds,
    smoothness,
    truncation_bound,
)
from lapg.theory.convergence import (
    Requirements,
    admissible_step,
    descent_bound,
    lyapunov,
    rate_bound,
    requirements,
)
from lapg.theory.estimates import Estimated, estimate_constants

__all__ = [
    "Estimated",
    "Form",
    "Requirements",
    "admissible_step",
    "aggregate_noise",
    "communication_bound",
    "communication_factor",
    "concentration_bound",
    "descent_bound",
    "deviation_bound",
    "estimate_constants",
    "extreme_example",
    "fewer_uploads_certified",
    "hardness",
    "hardness_cdf",
    "hardness_thresholds",
    "laziness",
    "linear_softmax_bounds",
    "lyapunov",
    "max_uploads",
    "rate_bound",
    "requirements",
    "saving",
    "smoothness",
    "truncation_bound",
]
