"""What the controller makes of uploads; a memory says which of these it is made for."""

from lapg.types import Aggregate


def running_sum() -> Aggregate:
    """∇̂^k = ∇̂^{k−1} + Σ δ_m (12), (13): an upload changes a learner's share, which stands until its next one; aggregate == Σ shares."""
    return Aggregate(lambda held, arrival: held + arrival.total, keeps_shares=True)


def arrivals() -> Aggregate:
    """This round's uploads alone, each applied once: Σ applied + Σ residuals == Σ of what the memories took in."""
    return Aggregate(lambda held, arrival: arrival.total, keeps_shares=False)
