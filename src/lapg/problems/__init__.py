"""What learners solve. Each file is one problem; each factory returns a ``lapg.types.Problem``."""

from lapg.problems.acrobot import acrobot
from lapg.problems.cart_pole import cart_pole
from lapg.problems.cooperative_navigation import cooperative_navigation
from lapg.problems.gymnasium import gymnasium
from lapg.problems.gymnax import gymnax
from lapg.problems.jaxmarl import jaxmarl
from lapg.problems.linear_quadratic import linear_quadratic
from lapg.problems.minatar import minatar
from lapg.problems.pendulum import pendulum
from lapg.problems.pettingzoo import pettingzoo
from lapg.problems.quadratic import quadratic
from lapg.problems.simple_spread import simple_spread
from lapg.problems.simulated import half_cheetah, hopper, lunar_lander, walker2d
from lapg.problems.tabular import garnet, tabular

__all__ = [
    "acrobot",
    "cart_pole",
    "cooperative_navigation",
    "garnet",
    "gymnasium",
    "gymnax",
    "half_cheetah",
    "hopper",
    "jaxmarl",
    "linear_quadratic",
    "lunar_lander",
    "minatar",
    "pendulum",
    "pettingzoo",
    "quadratic",
    "simple_spread",
    "tabular",
    "walker2d",
]
