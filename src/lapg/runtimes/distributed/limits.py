"""How long the controller of a distributed run waits for learners."""

from typing import NamedTuple


class Limits(NamedTuple):
    """How long the controller waits for answers; `checked` refuses what does not fit.

    Attributes:
      deadline: seconds after which a round ends without the missing answers; None waits for all learners, but not longer than ``timeout``.
      quorum: learners that must have answered even after the deadline.
      max_silent_rounds: rounds in a row without an answer after which a learner counts as lost.
      timeout: seconds after which a round that has no quorum, or does not end, stops the run.
    """

    deadline: float | None = None
    quorum: int = 1
    max_silent_rounds: int = 100
    timeout: float = 600.0

    def checked(self, num_learners: int) -> "Limits":
        """Returns the limits if they fit a number of learners.

        Raises:
          ValueError: the quorum is larger than that, or a limit is not positive.
        """
        if not 0 <= self.quorum <= num_learners:
            raise ValueError(
                f"quorum must lie between 0 and the number of learners, {num_learners}, got {self.quorum}."
            )
        if self.deadline is not None and not self.deadline > 0:
            raise ValueError(f"deadline must be > 0 seconds, got {self.deadline}; leave it out to wait for everybody.")
        for name, limit in {"max_silent_rounds": self.max_silent_rounds, "timeout": self.timeout}.items():
            if not limit > 0:
                raise ValueError(f"{name} must be > 0, got {limit}.")
        return self
