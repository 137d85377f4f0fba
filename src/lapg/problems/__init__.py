"""What learners solve. Each file is one problem; each factory returns a ``lapg.types.Problem``."""

from lapg.problems.cooperative_navigation import cooperative_navigation
from lapg.problems.quadratic import quadratic
from lapg.problems.tabular import garnet, tabular

__all__ = ["cooperative_navigation", "garnet", "quadratic", "tabular"]
