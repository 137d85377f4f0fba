"""Does a part of your own keep its promises? One function for each kind, a list of `CheckResult` from each; a failed one says what to mend."""

from lapg.checks.compressors import check_compressor
from lapg.checks.estimators import check_estimator
from lapg.checks.local import check_local
from lapg.checks.memories import check_memory
from lapg.checks.policies import check_policy
from lapg.checks.triggers import check_trigger
from lapg.problems.check import check_problem
from lapg.problems.checklist import CheckResult

__all__ = [
    "CheckResult",
    "check_compressor",
    "check_estimator",
    "check_local",
    "check_memory",
    "check_policy",
    "check_problem",
    "check_trigger",
]
