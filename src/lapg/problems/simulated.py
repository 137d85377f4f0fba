"""Ready-made parallel RL in simulators on the host: MuJoCo's bodies and the lunar lander, for learners whose physics may differ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lapg.problems.adapters import needs
from lapg.problems.gymnasium import gymnasium
from lapg.types import Problem


def _task(name: str, env: str, extra: str, module: str, about: str) -> Callable[..., Problem]:
    def make(
        *,
        num_learners: int = 8,
        scales: Sequence[float] | None = None,
        heterogeneity: float = 0.0,
        num_steps: int = 1000,
        discount: float = 0.99,
        problem_seed: int = 0,
        env_options: Mapping[str, Any] | None = None,
    ) -> Problem:
        with needs(extra):
            __import__(module)
        return gymnasium(
            env=env,
            num_learners=num_learners,
            scales=scales,
            heterogeneity=heterogeneity,
            num_steps=num_steps,
            discount=discount,
            problem_seed=problem_seed,
            env_options=env_options,
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"""{about}, Gymnasium's {env}; `lapg.problems.gymnasium` with this environment.

    Args:
      num_learners: M.
      scales: c_m > 0, one per learner; None lets ``heterogeneity`` spread them.
      heterogeneity: h, spreads by factor^±h what `lapg.problems.varied.KNOWN` names, and the scale 1 (4).
      num_steps: T; the episode is cut off there.
      discount: γ.
      problem_seed: draws who gets what.
      env_options: further arguments of the environment.
    Raises:
      ValueError: the extra {extra} is not installed, a size is not a whole number >= 1, scales do not fit, heterogeneity is negative.
    """
    return make


_BODY = "gravity and the masses of the body differ between learners (1.5)"
hopper = _task("hopper", "Hopper-v5", "mujoco", "mujoco", f"A leg that hops forwards; {_BODY}")
half_cheetah = _task("half_cheetah", "HalfCheetah-v5", "mujoco", "mujoco", f"Half a cheetah that runs; {_BODY}")
walker2d = _task("walker2d", "Walker2d-v5", "mujoco", "mujoco", f"Two legs that walk; {_BODY}")
lunar_lander = _task(
    "lunar_lander", "LunarLander-v3", "box2d", "Box2D", "A rocket lands; gravity differs between learners (1.2)"
)
