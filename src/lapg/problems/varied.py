"""Environments on the host whose physics differs between learners: attributes of the environment itself, multiplied."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

KNOWN: dict[str, dict[str, float]] = {
    "MujocoEnv": {"model.opt.gravity": 1.5, "model.body_mass": 1.5},
    "LunarLander": {"gravity": 1.2},
    "CartPoleEnv": {"force_mag": 2.0, "gravity": 1.5},
    "AcrobotEnv": {"LINK_MASS_1": 1.5, "LINK_MASS_2": 1.5},
    "PendulumEnv": {"g": 1.5, "m": 1.5, "l": 1.2},
    "MountainCarEnv": {"force": 1.2, "gravity": 1.2},
    "Continuous_MountainCarEnv": {"power": 1.2},
}
"""By class of Gymnasium's, also of those that descend from it: which attributes are spread, and by what factor."""


def quantities(env: Any) -> Mapping[str, float]:
    """The attributes of an environment that are known to be physics, with their factors; none of a stranger's."""
    return next((KNOWN[kind.__name__] for kind in type(env.unwrapped).__mro__ if kind.__name__ in KNOWN), {})


def check(owner: str, env: Any, attributes: Mapping[str, float]) -> None:
    """Refuses what cannot be multiplied.

    Raises:
      ValueError: a factor is below 1, or the environment has no such attribute, or it is not made of numbers.
    """
    for name, factor in attributes.items():
        if not factor >= 1:
            raise ValueError(
                f"{owner}(vary=...) must have factors >= 1, got {factor} for {name!r}; 2 spreads from half to twice."
            )
        try:
            kind = np.asarray(_owner(env, name)[1]).dtype.kind
        except AttributeError as error:
            raise ValueError(
                f"{owner}(vary=...) must name attributes of the environment itself, got {name!r}: {error}."
            ) from error
        if kind not in "iuf":
            raise ValueError(f"{owner}(vary=...) must name attributes that are numbers, got {name!r}, which is not.")


def multiply(env: Any, by: Mapping[str, float]) -> None:
    """Multiplies attributes of an environment; MuJoCo then derives what depends on them."""
    for name, number in by.items():
        holder, value = _owner(env, name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            value *= number  # MuJoCo's arrays are views of its model
        else:
            setattr(holder, name.rpartition(".")[2], value * number)
    inner = env.unwrapped
    if any(kind.__name__ == "MujocoEnv" for kind in type(inner).__mro__):
        import mujoco

        mujoco.mj_setConst(inner.model, inner.data)  # pyright: ignore[reportAttributeAccessIssue]


def _owner(env: Any, path: str) -> tuple[Any, Any]:
    """What holds an attribute, and the attribute."""
    *way, name = path.split(".")
    holder = reduce(getattr, way, env.unwrapped)
    return holder, getattr(holder, name)
