"""Rounds over a transport, without an engine: records that hold a learner, empty replies, and the loop that plays a round."""

import time
from itertools import count

import jax
import numpy as np
import pytest

from lapg import compressors, estimators, methods
from lapg.downlink import dense, replicated
from lapg.experiments.config import Config
from lapg.experiments.train import train
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.consistency import LearnerSession
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.limits import Limits
from lapg.runtimes.distributed.state import begin
from lapg.runtimes.flower.runtime import TransportRuntime
from lapg.runtimes.flower.transport import MAX_TRIES, PLAY, Terms, answer, as_skip, play_round, recall, remember
from lapg.runtimes.sequential import Sequential
from support import full

M, ROUNDS, SEEDS = 2, 12, [5, 6]
LIMITS = Limits(deadline=60.0, quorum=M, max_silent_rounds=100)
HYPER = {"step_size": 0.1, "xi": 0.3}


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=M, dimension=3, conditioning=4.0, noise=0.0)


@pytest.fixture(scope="module", params=[dense(), replicated(compressors.identity())], ids=["dense", "replicated"])
def recipe(problem, request):
    setting = methods.Setting(estimators.exact(problem.gradient), 2, M)
    return lambda hyper: methods.compose(
        "lapg", setting, trigger=Part(window=2, noise_weight=0.0), hyper=full(hyper), downlink=request.param
    )


@pytest.fixture(scope="module")
def terms(problem, recipe):
    return Terms(Compiled(recipe, problem, HYPER), HYPER, SEEDS, {})


@pytest.fixture(scope="module")
def expected(problem, recipe):
    """Parameters and log of the sequential runtime."""
    reference = Sequential(recipe, problem, {name: np.array([x, x]) for name, x in HYPER.items()}, SEEDS)
    state, log = reference.advance(reference.start(), 0, ROUNDS)
    return np.asarray(state.controller.params), log


def new_host(terms, lane=0, **given):
    start = begin(terms.compiled, terms.hyper, terms.seeds[lane])
    return ControllerHost(terms.compiled, terms.hyper, terms.seeds[lane], start, **given)


class LocalTransport:
    """A transport to learners that live in records alone. ``spoil: learner, number of the message, answer → what arrives``."""

    def __init__(self, terms, spoil=lambda learner, number, message: message):
        self.terms, self.spoil, self.numbers = terms, spoil, count()
        self.memory, self.messages, self.replies = {m: {} for m in range(M)}, {}, []

    def send(self, learner, what, message, seconds):
        assert seconds > 0
        number = next(self.numbers)
        self.memory[learner], reply = answer(self.terms, learner, self.memory[learner], what, message)
        self.replies.append((what, reply))
        self.messages[number] = self.spoil(learner, number, reply)
        return number

    def fetch(self, tickets):
        found = {ticket: self.messages.pop(ticket, "lost") for ticket in tickets}
        return {ticket: message for ticket, message in found.items() if message != "lost"}


def play(terms, transport, rounds=ROUNDS, deadline=60.0):
    host = new_host(terms)
    return host, [play_one(host, transport, deadline) for _ in range(rounds)]


def play_one(host, transport, deadline=60.0):
    """A round, and what it leaves in the record."""
    play_round([host], transport, deadline=deadline)
    return jax.tree.map(lambda leaf: leaf[0], host.logs())


def test_lanes_over_a_transport_are_sequential(terms, expected):
    """Oracle: the sequential runtime, diagnostics and scores included; as many missing records in answers as there are skips; no state leaves at the end."""
    transport = LocalTransport(terms)
    runtime = TransportRuntime(terms, transport, LIMITS, chunk_rounds=ROUNDS)
    state, log = runtime.advance(runtime.start(), 0, ROUNDS)
    params, reference = expected
    np.testing.assert_array_equal(log.sent, reference.sent)
    np.testing.assert_array_equal(log.uplink_bits, reference.uplink_bits)
    np.testing.assert_array_equal(log.downlink_bits, reference.downlink_bits)
    np.testing.assert_allclose(state.controller.params, params, rtol=0, atol=1e-12)
    for mine, theirs in zip(
        jax.tree.leaves((log.learner, log.scores)), jax.tree.leaves((reference.learner, reference.scores)), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
    silences = [len(SEEDS) - len(reply) for what, reply in transport.replies if what == PLAY]
    assert 0 < (~log.sent).sum() == sum(silences)
    assert not any("state" in record for _, reply in transport.replies for record in reply.values())


def test_learners_do_not_pay_for_the_score(terms):
    """Oracle: scoring θ^k that takes longer than the whole round: what had come by the deadline is taken all the same."""
    delays = [3.5]

    def slowly(seed, params, round):
        time.sleep(delays.pop() if delays else 0)

    host, transport = new_host(terms, evaluator=slowly), LocalTransport(terms)
    logs = [play_one(host, transport), play_one(host, transport, deadline=3.0)]
    assert not delays
    assert not any(log.faults["missing"].any() for log in logs)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(quorum=M + 1), f"quorum must lie between 0 and the number of learners, {M}, got {M + 1}"),
        (Limits(deadline=0.0), r"deadline must be > 0 seconds, got 0\.0; leave it out"),
        (Limits(max_silent_rounds=0), "max_silent_rounds must be > 0, got 0"),
        (Limits(timeout=-1.0), r"timeout must be > 0, got -1\.0"),
    ],
)
def test_limits_that_do_not_fit(limits, message):
    """Oracle: the docstrings, for every runtime whose controller waits."""
    with pytest.raises(ValueError, match=message):
        limits.checked(M)


def test_a_run_goes_on_elsewhere(terms, expected):
    """Oracle: bitwise the run that was not interrupted; learners of the second half know only what they are told. Whom nobody can ask has no share."""

    def half(runtime, state, first):
        return runtime.advance(state, first, ROUNDS)

    whole = TransportRuntime(terms, LocalTransport(terms), LIMITS, chunk_rounds=ROUNDS // 2)
    middle, first = half(whole, whole.start(), 0)
    end, second = half(whole, middle, ROUNDS // 2)
    new = TransportRuntime(terms, LocalTransport(terms), LIMITS, chunk_rounds=ROUNDS // 2)
    again, log = half(new, middle, ROUNDS // 2)
    np.testing.assert_array_equal(log.sent, second.sent)
    np.testing.assert_array_equal(again.controller.params, end.controller.params)
    np.testing.assert_array_equal(np.concatenate([first.sent, second.sent], 1), expected[1].sent)

    nonsense = {0: {"state": b"abc", "notes": 3}, -1: {"state": b""}, 7: {}}
    for said in (None, nonsense):
        odd = LocalTransport(terms, lambda m, number, message, said=said: said if m == 0 else message)
        lost, _ = half(TransportRuntime(terms, odd, LIMITS._replace(quorum=1), chunk_rounds=1), middle, ROUNDS // 2)
        assert not lost.table.shares[:, 0].any()
        np.testing.assert_allclose(lost.controller.aggregate, lost.table.shares.sum(1), rtol=0, atol=1e-12)


def test_a_learner_survives_in_a_record(terms):
    """Oracle: equality, leaf by leaf, before the first round, with a pending state and after it was committed; a record of another problem is refused."""
    assert recall({}, terms.compiled) == recall(remember(LearnerSession()), terms.compiled) == LearnerSession()
    transport = LocalTransport(terms)
    play(terms, transport, rounds=2)
    session = recall(transport.memory[0][0], terms.compiled)
    assert session[:2] == (1, 1)
    assert (session.proposed, session.last_broadcast) == (2, 1)
    assert (session.replica is None) == (terms.compiled.downlink.compressor is None)
    again = recall(remember(session), terms.compiled)
    for mine, theirs in zip(jax.tree.leaves(session), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match=r"bytes was expected, got 3\."):
        recall({"counts": [1, 1, 0, 0], "state": b"abc"}, terms.compiled)


def test_an_empty_reply_names_what_it_answers():
    """Oracle: the broadcast's own header, by hand."""
    raw = wire.frame(b"theta", round=7, learner=1, generation=3, base=5)
    assert wire.unframe(as_skip(raw)) == (wire.Header(7, 1, 3, 5, 0), b"")


def test_trouble_in_transport(terms):
    """Oracle: by hand: a reply that fails, a malformed record and a learner that forgets are repaired in their own round; aggregate == Σ shares throughout."""

    def spoil(learner, number, message):
        if number == 5:
            return None
        return {0: {"frame": 3}, -1: {}, 7: {"frame": b""}} if number == 9 else message

    transport = LocalTransport(terms, spoil)
    host = new_host(terms)
    renewed = np.zeros(M, int)
    for k in range(ROUNDS):
        if k == 6:
            transport.memory[1] = {}
        log = play_one(host, transport)
        assert not log.faults["missing"].any()
        renewed += log.faults["renewed"]
        np.testing.assert_allclose(host.state.aggregate, host.table.shares.sum(0), rtol=0, atol=1e-12)
    assert renewed.sum() == 2
    assert renewed[1] >= 1


def test_nobody_answers(terms):
    """Oracle: the docstring: a learner that fails is asked so often and not more; without a quorum the round raises."""
    transport = LocalTransport(terms, lambda learner, number, message: None if learner == 1 else message)
    host, logs = play(terms, transport, rounds=1)
    assert len(transport.replies) == 1 + MAX_TRIES
    np.testing.assert_array_equal(logs[0].faults["missing"], [0, 1])
    silent = LocalTransport(terms, lambda learner, number, message: "lost")
    with pytest.raises(RuntimeError, match=r"round 1 must have 1 answers within 0\.2 s, got 0; are the nodes up"):
        play_round([host], silent, deadline=0.2)


def test_without_flower(monkeypatch, tmp_path):
    """Oracle: the documentation: the error names what is missing and the remedy; nothing is left behind."""
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(ValueError, match=r"'flower' needs the program flwr; pip install 'lapg\[flower\]'"):
        train(Config(runtime="flower"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
