"""Rounds by post, without an engine: records that hold a learner, empty replies, and the loop that plays a round."""

from itertools import count

import jax
import numpy as np
import pytest

from lapg import compressors, estimators, methods
from lapg.downlink import dense, replicated
from lapg.problems import quadratic
from lapg.runtimes import wire
from lapg.runtimes.compiled import Compiled
from lapg.runtimes.consistency import Held
from lapg.runtimes.deployed import begin
from lapg.runtimes.federated import MAX_TRIES, Lane, answer, as_skip, play_round, recall, remember
from lapg.runtimes.hosts import ControllerHost
from lapg.runtimes.sequential import Sequential

M, ROUNDS, SEED = 2, 12, 5
HYPER = {"step_size": 0.1, "xi": 0.3}


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=M, dimension=3, conditioning=4.0, noise=0.0)


@pytest.fixture(scope="module", params=[dense(), replicated(compressors.identity())], ids=["dense", "replicated"])
def recipe(problem, request):
    setting = methods.Setting(estimators.exact(problem.gradient), 2, M, downlink=request.param)
    return lambda hyper: methods.lapg(setting, window=2, noise_weight=0.0, **hyper)


@pytest.fixture(scope="module")
def lane(problem, recipe):
    return Lane(Compiled(recipe, problem, HYPER), HYPER, SEED, ROUNDS, {})


def new_host(lane):
    return ControllerHost(lane.compiled, lane.hyper, lane.seed, begin(lane.compiled, lane.hyper, lane.seed))


class Office:
    """A post office with learners behind it that live in records alone. ``spoil: learner, number of the letter, record → what arrives``."""

    def __init__(self, lane, spoil=lambda learner, number, record: record):
        self.lane, self.spoil, self.numbers = lane, spoil, count()
        self.memory, self.letters, self.replies = {m: {} for m in range(M)}, {}, []

    def send(self, learner, frame, seconds):
        assert seconds > 0
        number = next(self.numbers)
        self.memory[learner], record = answer(self.lane, learner, self.memory[learner], frame)
        self.replies.append(record)
        self.letters[number] = self.spoil(learner, number, record)
        return number

    def fetch(self, tickets):
        found = {ticket: self.letters.pop(ticket, "lost") for ticket in tickets}
        return {ticket: record for ticket, record in found.items() if record != "lost"}


def play(lane, office, rounds=ROUNDS, deadline=60.0):
    host = new_host(lane)
    logs = [play_round(host, office, deadline=deadline) for _ in range(rounds)]
    return host, logs


def test_rounds_by_post_are_sequential(lane, problem, recipe):
    """Oracle: the sequential runtime; as many empty records as there are skips."""
    office = Office(lane)
    host, logs = play(lane, office)
    reference = Sequential(recipe, problem, {name: np.array([x]) for name, x in HYPER.items()}, [SEED])
    state, expected = reference.advance(reference.start(), 0, ROUNDS)
    sent = np.array([log.sent for log in logs])
    np.testing.assert_array_equal(sent, expected.sent[0])
    np.testing.assert_array_equal([log.uplink_bits for log in logs], expected.uplink_bits[0])
    np.testing.assert_array_equal([log.downlink_bits for log in logs], expected.downlink_bits[0])
    np.testing.assert_allclose(host.state.params, state.controller.params[0], rtol=0, atol=1e-12)
    assert 0 < (~sent).sum() == office.replies.count({})


def test_a_learner_survives_in_a_record(lane):
    """Oracle: equality, leaf by leaf, before the first round, with a pending state and after it was committed; a record of another problem is refused."""
    assert recall({}, lane.compiled) == recall(remember(Held()), lane.compiled) == Held()
    office = Office(lane)
    play(lane, office, rounds=2)
    held = recall(office.memory[0], lane.compiled)
    assert held[:2] == (1, 1)
    assert (held.proposed, held.heard) == (2, 1)
    assert (held.replica is None) == (lane.compiled.downlink.compressor is None)
    again = recall(remember(held), lane.compiled)
    for mine, theirs in zip(jax.tree.leaves(held), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match=r"bytes was expected, got 3\."):
        recall({"counts": [1, 1, 0, 0], "state": b"abc"}, lane.compiled)


def test_an_empty_reply_names_what_it_answers():
    """Oracle: the broadcast's own header, by hand."""
    raw = wire.frame(b"theta", round=7, learner=1, generation=3, base=5)
    assert wire.unframe(as_skip(raw)) == (wire.Header(7, 1, 3, 5, 0), b"")


def test_trouble_in_the_post(lane):
    """Oracle: by hand: a reply that fails, a stranger's record and a learner that forgets are mended in their own round; aggregate == Σ shares throughout."""

    def spoil(learner, number, record):
        if number == 5:
            return None
        return {"frame": 3} if number == 9 else record

    office = Office(lane, spoil)
    host = new_host(lane)
    renewed = np.zeros(M, int)
    for k in range(ROUNDS):
        if k == 6:
            office.memory[1] = {}
        log = play_round(host, office, deadline=60.0)
        assert not log.faults["missing"].any()
        renewed += log.faults["renewed"]
        np.testing.assert_allclose(host.state.aggregate, host.roster.shares.sum(0), rtol=0, atol=1e-12)
    assert renewed.sum() == 2
    assert renewed[1] >= 1


def test_nobody_answers(lane):
    """Oracle: the docstring: a learner that fails is asked so often and not more; without a quorum the round raises."""
    office = Office(lane, lambda learner, number, record: None if learner == 1 else record)
    host, logs = play(lane, office, rounds=1)
    assert len(office.replies) == 1 + MAX_TRIES
    np.testing.assert_array_equal(logs[0].faults["missing"], [0, 1])
    silent = Office(lane, lambda learner, number, record: "lost")
    with pytest.raises(RuntimeError, match=r"round 1 must have 1 answers within 0\.2 s, got 0; are the nodes up"):
        play_round(host, silent, deadline=0.2)
