"""Time and energy under a network model, on cases whose answers are known by hand."""

import numpy as np
import pytest

from lapg.costs.ledger import HEADER_BITS
from lapg.costs.links import PROFILES, Link, LinkModel, Traffic, joules, seconds

TRAFFIC = Traffic(
    uplink_bits=np.array([[1000, 2000], [0, 1000], [0, 0]]) - HEADER_BITS,
    sent=np.array([[True, True], [False, True], [False, False]]),
    downlink_bits=np.array([[200, 200], [200, 400], [0, 200]]) - HEADER_BITS,
    contacted=np.array([[True, True], [True, True], [False, True]]),
)
"""Three rounds, two learners. With headers: up 1,000 and 2,000, then 1,000, then nothing; down 200 and 200, then 200 and 400, then 200 to one."""


def test_a_round_lasts_as_long_as_its_slowest_learner():
    """Oracle: by hand, at 1,000 bits/s up and 100 bits/s down, 0.5 s of computing.

    Round 0: 2 + 0.5 + 1 and 2 + 0.5 + 2 → 4.5. Round 1: 2 + 0.5 and 4 + 0.5 + 1 → 5.5. Round 2: absent, and 2 + 0.5 → 2.5.
    """
    network = LinkModel(Link(1000.0), Link(100.0))
    np.testing.assert_allclose(seconds(network, TRAFFIC, 0.5), [4.5, 10.0, 12.5])
    np.testing.assert_allclose(seconds(network, TRAFFIC), [4.0, 9.0, 11.0])


def test_latency_and_overhead_are_per_message():
    """Oracle: by hand. 25 bytes are 200 bits: up 1.2 and 2.2 s, then 1.2 s, each 3 s late; nothing that is not sent waits."""
    network = LinkModel(Link(1000.0, 3.0, 25.0), Link(1e12))
    np.testing.assert_allclose(seconds(network, TRAFFIC), [5.2, 9.4, 9.4], rtol=1e-6)


def test_every_learner_has_links_of_its_own():
    """Oracle: by hand. Learner 0 is ten times slower: 10 s for 1,000 bits against 2 s for 2,000; then learner 1 alone, 1 s and its own 7 s."""
    network = LinkModel(Link((100.0, 1000.0), (0.0, 7.0)), Link(1e12))
    np.testing.assert_allclose(seconds(network, TRAFFIC), [10.0, 18.0, 18.0], rtol=1e-6)


def test_energy_is_of_all_learners():
    """Oracle: by hand. Up 2 J a byte, 10 bytes and 5 J a message; down 1 J a byte.

    Round 0: up 125 + 10 and 250 + 10 bytes, 790 + 10 J; down 50 J. Round 1: up 270 + 5 J; down 25 + 50 J. Round 2: down 25 J.
    """
    network = LinkModel(Link(1.0, 0.0, 10.0, 2.0, 5.0), Link(1.0, 0.0, 0.0, 1.0))
    np.testing.assert_allclose(joules(network, TRAFFIC), [850.0, 850 + 350.0, 850 + 350 + 25.0])


def test_leading_axes():
    """Oracle: the same traffic twice."""
    twice = Traffic(*(np.stack([value, value]) for value in vars(TRAFFIC).values()))
    for measure in (seconds, joules):
        once = measure(PROFILES["lte-m"], TRAFFIC)
        np.testing.assert_array_equal(measure(PROFILES["lte-m"], twice), [once, once])


def test_profiles_in_order():
    """Oracle: common sense: for the same traffic, a sensor is slower than a robot, that than a cluster; and costs more."""
    for measure in (seconds, joules):
        spent = [measure(PROFILES[name], TRAFFIC)[-1] for name in ("lte-m", "wifi-robot", "cluster")]
        assert spent == sorted(spent, reverse=True)
    assert seconds(PROFILES["wan"], TRAFFIC)[0] == pytest.approx(0.08, rel=1e-3)  # one way down, one way up


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Link(0.0), r"Link\(bits_per_second=...\) must be a number > 0, or one for each learner, got 0.0"),
        (lambda: Link((1.0, -1.0)), r"bits_per_second=...\) must be a number > 0"),
        (lambda: Link(1.0, -1.0), r"latency_seconds=...\) must be a number >= 0"),
        (lambda: Link(1.0, overhead_bytes=float("nan")), r"overhead_bytes=...\) must be a number >= 0"),
        (lambda: seconds(PROFILES["wan"], TRAFFIC, -1.0), r"compute_seconds must be >= 0, got -1.0"),
    ],
)
def test_wrong_networks(make, message):
    """Oracle: the rules in the messages."""
    with pytest.raises(ValueError, match=message):
        make()
