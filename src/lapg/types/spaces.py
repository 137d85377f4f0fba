"""What a problem says of its observations and actions: all that a policy has to know to be made."""

import math
from typing import NamedTuple


class Discrete(NamedTuple):
    """A whole number from 0 to ``num`` − 1."""

    num: int


class Box(NamedTuple):
    """Real numbers in an array of that ``shape``; ``low`` and ``high`` bound them, each a number or one per entry, or neither does."""

    shape: tuple[int, ...]
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None


class Spaces(NamedTuple):
    """What one agent observes and does.

    Attributes:
      observation: of what is given to its policy. A Box may arrive as a flat vector, row by row: its shape (H, W, C of an image) is what networks see.
      action: Discrete, or a Box with one axis.
      masked: whether an observation is a flat vector with one more entry per action: 1 where it is allowed, else 0.
      raw: whether nobody knows how large the numbers of an observation are; `lapg.policies.actor` normalises them then.
    """

    observation: Discrete | Box
    action: Discrete | Box
    masked: bool = False
    raw: bool = False

    @property
    def num_inputs(self) -> int:
        """How many numbers an observation has without its mask; a Discrete one as one-hot vector."""
        return self.observation.num if isinstance(self.observation, Discrete) else math.prod(self.observation.shape)

    @property
    def num_outputs(self) -> int:
        """How many numbers a network returns: logits of the actions, or the mean action."""
        return self.action.num if isinstance(self.action, Discrete) else self.action.shape[0]


class JointSpaces(NamedTuple):
    """What several agents observe and do, whose joint policy is the product of theirs.

    Attributes:
      agents: each agent's own.
      local: whether a joint observation has an entry per agent; otherwise there is one, which all see.
      stacked: whether agents are alike, so that joint actions, and local observations, are arrays with a leading axis (agent), not tuples.
      tied: whether all agents, who are then alike with local observations, have the same weights θ, not a part of θ each.
    """

    agents: tuple[Spaces, ...]
    local: bool
    stacked: bool
    tied: bool = False
