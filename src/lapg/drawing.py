"""What all pictures share: the library, imported when one is drawn, and the style."""

import contextlib
import os
import sys
from typing import Any

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def matplotlib() -> Any:
    """Imports matplotlib, which nothing but a drawing needs, with its figures; these go to files without a backend.

    MPLBACKEND is about windows and notebooks. Where it names a backend that is not installed here (a notebook's, handed down to its shell), the import
    itself would fail; it keeps its say otherwise.
    """
    first, backend = "matplotlib" not in sys.modules, os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.animation
        import matplotlib.figure
        import matplotlib.patches
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if first and backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib
