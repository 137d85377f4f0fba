"""Policies: their parameters are one flat vector, which is taken apart nowhere else.

Factories (`mlp`, `actor`, `conv`, `linear`, `table`, and what `from_flax` and `from_equinox` return) make one for a problem's spaces; `with_policy` puts it beside
the problem.
"""

from lapg.policies.choose import actor, around, as_numbers, conv, linear, make_policy, mlp, table, with_policy
from lapg.policies.gaussian import correlated, gaussian, gaussian_linear, gaussian_mlp
from lapg.policies.modules import from_equinox, from_flax
from lapg.policies.normalised import normalised
from lapg.policies.products import one_view, product, product_bounds, replicated
from lapg.policies.softmax import categorical, softmax_mlp, softmax_table

__all__ = [
    "actor",
    "around",
    "as_numbers",
    "categorical",
    "conv",
    "correlated",
    "from_equinox",
    "from_flax",
    "gaussian",
    "gaussian_linear",
    "gaussian_mlp",
    "linear",
    "make_policy",
    "mlp",
    "normalised",
    "one_view",
    "product",
    "product_bounds",
    "replicated",
    "softmax_mlp",
    "softmax_table",
    "table",
    "with_policy",
]
