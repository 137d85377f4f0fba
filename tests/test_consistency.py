"""The consistency layer: nothing is counted twice or forgotten, whatever the network does."""

import dataclasses

import jax
import numpy as np
import pytest

from faults import Network
from lapg import estimators, methods
from lapg.problems import quadratic
from lapg.runtimes import wire
from lapg.runtimes.compiled import Compiled
from lapg.runtimes.consistency import ASTRAY, PLAY, RENEW, STALE, Held, hear, judge
from lapg.runtimes.hosts import FAULTS, ControllerHost
from lapg.runtimes.join import check as check_introduction
from lapg.runtimes.join import introduction
from lapg.runtimes.sequential import Sequential

M, DIMENSION, ROUNDS = 4, 3, 25
HYPER = {"reuse": {"step_size": 0.1, "xi": 0.05}, "accumulate": {"step_size": 0.1}}
RATES = {
    "lost": 0.1,
    "doubled": 0.1,
    "late": 0.1,
    "killed": 0.01,
    "restarted": 0.01,
    "hung": 0.02,
    "nan": 0.01,
    "infinite": 0.01,
    "huge": 0.01,
    "malformed": 0.02,
    "oversized": 0.01,
}


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=M, dimension=DIMENSION, conditioning=4.0, noise=0.0)


@pytest.fixture(scope="module")
def recipes(problem):
    setting = methods.Setting(estimators.exact(problem.gradient), 2, M)
    some = setting._replace(participation=0.75)
    return {
        "reuse": lambda hyper: methods.lapg(setting, window=2, noise_weight=0.0, **hyper),
        "accumulate": lambda hyper: methods.random(some, rate=0.9, **hyper),
    }


@pytest.fixture(scope="module")
def compiled(problem, recipes):
    return {kind: Compiled(recipe, problem, HYPER[kind]) for kind, recipe in recipes.items()}


class Books:
    """Kept beside a run, from what the controller says that it took and from gradients in closed form."""

    def __init__(self, problem):
        tasks = jax.tree.map(np.asarray, problem.tasks)
        self.slope = tasks.scale[:, None] * tasks.extra["curvature"]
        self.centre = tasks.extra["centre"]
        self.gradients = np.zeros((M, DIMENSION))
        self.applied = np.zeros((M, DIMENSION))
        self.lost = np.zeros(DIMENSION)

    def gradient(self, params):
        return self.slope * (np.asarray(params) - self.centre)

    def excess(self, params):
        best = (self.slope * self.centre).sum(0) / self.slope.sum(0)
        return float((self.slope.sum(0) * (params - best) ** 2).sum())


def check(network, books, before, log, kind):
    """Reuse: aggregate == Σ shares == Σ uploaded. Accumulation, learner by learner: applied + residual == Σ gradients of the steps that were taken."""
    roster, controller = network.controller.roster, network.controller.state
    states = [network.shared_state(m) for m in range(M)]
    if kind == "reuse":
        np.testing.assert_allclose(controller.aggregate, np.sum(roster.shares, 0), atol=1e-11)
        for m in range(M):
            if roster.accepted[m] == 0:
                np.testing.assert_array_equal(roster.shares[m], 0)
            elif states[m] is not None:
                np.testing.assert_allclose(roster.shares[m], states[m].memory.uploaded, atol=1e-11)
            if log.sent[m]:
                np.testing.assert_allclose(roster.shares[m], books.gradient(before.params)[m], atol=1e-11)
        return
    answered, renewed = log.participated & (log.faults["missing"] == 0), log.faults["renewed"] > 0
    # what a learner had in hand when its life ended is lost; an answer in the same round is the first one of the next life
    books.lost += (books.gradients - books.applied)[renewed].sum(0)
    books.gradients[renewed], books.applied[renewed] = 0, 0
    books.gradients[answered] += books.gradient(before.params)[answered]
    total = np.zeros(DIMENSION)
    for m in np.flatnonzero(log.sent):
        total += books.gradients[m] - books.applied[m]
        books.applied[m] = books.gradients[m]
    np.testing.assert_allclose(controller.aggregate, total, atol=1e-11)
    for m in range(M):
        if roster.accepted[m] and states[m] is not None:
            residual = books.gradients[m] - books.applied[m]
            np.testing.assert_allclose(states[m].memory.value, residual, atol=1e-11)


def run(compiled, problem, kind, seed, rounds=ROUNDS, rates=RATES):
    """Faults for ``rounds`` rounds, checked after each; then 20 without, in which it has to get to the optimum."""
    network, books = Network(compiled[kind], HYPER[kind], seed, rates, patience=10), Books(problem)
    start = books.excess(np.asarray(network.controller.state.params))
    logs = []
    for now in range(rounds + 20):
        if now == rounds:
            network.rates = {}
        before = network.controller.state
        logs.append(network.play(now))
        check(network, books, before, logs[-1], kind)
    return network, logs, books.excess(np.asarray(network.controller.state.params)) / start


@pytest.mark.parametrize("kind", ["reuse", "accumulate"])
def test_random_schedules(compiled, problem, kind):
    """Oracle: the invariants, with gradients in closed form; the optimum of a quadratic. Every kind of trouble must have happened, and been counted."""
    happened, counted = dict.fromkeys(RATES, 0), dict.fromkeys(FAULTS, 0)
    for seed in range(15):
        network, logs, excess = run(compiled, problem, kind, seed)
        assert excess < 1e-2, f"seed {seed}"
        for name, times in network.happened.items():
            happened[name] += times
        for name in FAULTS:
            counted[name] += sum(int(log.faults[name].sum()) for log in logs)
    assert min(happened.values()) > 0
    assert min(counted.values()) > 0
    assert counted["unsound"] <= happened["nan"] + happened["infinite"] + happened["huge"]


H = wire.Header
HELD = Held(generation=2, accepted=5, state="old", proposed=7, pending="new", heard=6)


@pytest.mark.parametrize(
    ("header", "action", "after"),
    [
        (H(7, 0, 2, 7, 0), PLAY, Held(2, 7, "new", heard=7)),  # accepted: committed
        (H(7, 0, 2, 5, 0), PLAY, Held(2, 5, "old", heard=7)),  # lost: rolled back
        (H(6, 0, 2, 5, 0), PLAY, Held(2, 5, "old", heard=6)),  # the same broadcast again: played again
        (H(5, 0, 2, 5, 0), STALE, HELD),
        (H(9, 0, 1, 0, 0), STALE, HELD),
        (H(7, 0, 2, 6, 0), ASTRAY, HELD),  # a number that this learner never proposed
        (H(7, 0, 3, 0, 0), RENEW, Held(3, 0, "old", heard=7)),
        (H(2, 0, 3, 0, 0), RENEW, Held(3, 0, "old", heard=2)),  # a controller that went back to a checkpoint
        (H(7, 0, 3, 6, 0), ASTRAY, HELD),  # a life of which this learner knows nothing
    ],
)
def test_what_a_learner_makes_of_a_broadcast(header, action, after):
    """Oracle: the protocol, case by case; what is not understood changes nothing."""
    assert hear(HELD, header) == (after, action)


def test_a_new_process_in_an_old_life():
    """Oracle: the protocol. It knows nothing of number 6 and asks to start anew; where nothing was accepted yet, it just starts."""
    assert hear(Held(), H(6, 0, 1, 6, 0)) == (Held(), ASTRAY)
    assert hear(Held(), H(6, 0, 1, 0, 0)) == (Held(1, heard=6), RENEW)


@pytest.mark.parametrize(
    ("header", "answered", "reason"),
    [
        (H(8, 0, 2, 7, 9), False, None),
        (H(8, 0, 2, 7, 0), False, None),  # a skip
        (H(8, 0, 2, 7, 9), True, "duplicate"),
        (H(7, 0, 2, 7, 9), False, "late"),
        (H(9, 0, 2, 7, 9), False, "late"),
        (H(8, 0, 2, 6, 9), False, "outdated"),
        (H(8, 0, 1, 7, 9), False, "outdated"),
        (H(8, 0, 0, 7, 9), False, "outdated"),
    ],
)
def test_what_the_controller_makes_of_a_reply(header, answered, reason):
    """Oracle: the protocol, case by case; round 8, generation 2, 7 was accepted last."""
    assert judge(header, round=8, generation=2, accepted=7, answered=answered) == reason


def test_a_perfect_network_is_the_plain_loop(compiled, problem, recipes):
    """Oracle: the sequential runtime, bit for bit; state, record and the learners' own states."""
    hyper = HYPER["reuse"]
    network = Network(compiled["reuse"], hyper, 0, {})
    logs = [network.play(now) for now in range(20)]
    plain = Sequential(
        recipes["reuse"], problem, {name: np.array([value]) for name, value in hyper.items()}, [0], chunk_rounds=20
    )
    state, log = plain.advance(plain.start(), 0, 20)
    assert 0 < log.sent[0, 1:].mean() < 1
    found = network.controller.snapshot([learner.save(1, 20) for learner in network.learners])
    expected = plain.lane(state, 0)
    jax.tree.map(np.testing.assert_array_equal, found.controller, expected.controller)
    jax.tree.map(np.testing.assert_array_equal, found.learners, expected.learners)
    np.testing.assert_array_equal(found.roster.accepted, 20)
    for index, entry in enumerate(logs):
        assert not any(np.any(count) for count in entry.faults.values())
        expected = jax.tree.map(lambda leaf, i=index: leaf[0, i], log)
        jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(entry, faults={}), expected)


def test_going_on_from_a_snapshot(compiled):
    """Oracle: the same run without an interruption, bit for bit; a learner that could not be asked starts anew, its share taken out."""
    hyper = HYPER["reuse"]
    whole, network = (Network(compiled["reuse"], hyper, 0, {}) for _ in range(2))
    for now in range(12):
        whole.play(now)
        if now < 6:
            network.play(now)
    saved = [network.learners[m].save(1, 6) for m in range(M)]
    middle = network.controller.snapshot(saved)
    again = Network(compiled["reuse"], hyper, 0, {})
    again.controller = ControllerHost(compiled["reuse"], hyper, 0, middle)
    for m, state in middle.saved(range(M)).items():
        again.learners[m].load(*state)
    for now in range(6, 12):
        again.play(now)
    jax.tree.map(np.testing.assert_array_equal, again.controller.state, whole.controller.state)

    partial = network.controller.snapshot([None, *saved[1:]])
    np.testing.assert_array_equal(partial.roster.generation, [2, 1, 1, 1])
    np.testing.assert_array_equal(partial.roster.accepted, [0, 6, 6, 6])
    np.testing.assert_allclose(
        partial.controller.aggregate, np.sum(partial.learners.memory.uploaded[1:], 0), atol=1e-14
    )
    assert sorted(partial.saved(range(M))) == [1, 2, 3]
    assert network.learners[0].save(2, 0) is None


def test_silent_learners_are_given_up(compiled):
    """Oracle: by hand. After 3 silent rounds its share is out and its generation another one; when it is back it uploads the whole gradient."""
    network = Network(compiled["reuse"], HYPER["reuse"], 0, {}, patience=3)
    network.play(0)
    network.hung[2] = 5
    logs = [network.play(now) for now in range(1, 6)]
    assert [int(log.faults["missing"][2]) for log in logs] == [1, 1, 1, 1, 0]
    assert [int(log.faults["renewed"][2]) for log in logs] == [0, 0, 1, 0, 0]
    np.testing.assert_array_equal(network.controller.roster.generation, [1, 1, 2, 1])
    assert logs[-1].sent[2]
    assert np.isnan(logs[0].scores["score_scaled"][2])
    assert logs[0].learner.staleness[2] == -1
    with pytest.raises(ValueError, match="patience must be >= 1 or none, got 0"):
        Network(compiled["reuse"], HYPER["reuse"], 0, {}, patience=0)


def test_broadcasts_must_be_ones_own(compiled):
    """Oracle: the docstrings: another learner's broadcast, one that is too short."""
    network = Network(compiled["reuse"], HYPER["reuse"], 0, {})
    heads, payload = network.controller.open()
    with pytest.raises(ValueError, match="learner 1 must be given its own broadcasts, got one for 0"):
        network.learners[1].hear(heads[0] + payload)
    with pytest.raises(ValueError, match="the header announces 32 bytes of payload, got 31"):
        network.learners[0].hear(heads[0] + payload[:-1])


CONFIG = {"batch_size": 10, "problem": {"name": "quadratic", "scales": (1.0, 0.5)}}


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (introduction(CONFIG | {"batch_size": 20}), "batch_size must be 10, as at the controller, got 20"),
        (
            introduction({"batch_size": 10, "problem": {"name": "quadratic"}}),
            r"problem.scales must be \[1.0, 0.5\].*not set",
        ),
        (introduction(CONFIG).replace(b"float64", b"float32"), "precision must be float64.*got float32"),
        (introduction(CONFIG)[:-3], "must be a JSON table of settings"),
        (b"\xff\x00", "must be a JSON table of settings"),
        (b"[" * 50_000, "must be a JSON table of settings"),
        (b"3", "must be a JSON table of settings"),
        (b" " * 200_000, "must have at most 100000 bytes, got 200000"),
    ],
)
def test_strangers_are_refused_by_name(theirs, message):
    """Oracle: the setting that differs, and both its values; or what is wrong with the introduction."""
    check_introduction(introduction(CONFIG), introduction(dict(reversed(CONFIG.items()))))
    with pytest.raises(ValueError, match=message):
        check_introduction(introduction(CONFIG), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reuse", "accumulate"])
def test_many_random_schedules(compiled, problem, kind):
    """Oracle: as above; 1,000 schedules, 500 for each kind of memory, a third of them twice as bad."""
    for seed in range(1000, 1500):
        worse = 2 if seed % 3 == 0 else 1
        _, _, excess = run(compiled, problem, kind, seed, rates={name: worse * rate for name, rate in RATES.items()})
        assert excess < 1e-2, f"seed {seed}"
