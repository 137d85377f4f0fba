"""The consistency layer: nothing is counted twice or forgotten, whatever the network does."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faults import Network
from lapg import compressors, estimators, methods
from lapg.downlink import dense, replicated
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.consistency import OUT_OF_SYNC, PLAY, RENEW, STALE, LearnerSession, hear, validate_reply
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.handshake import check_hello, hello
from lapg.runtimes.distributed.history import FAULTS
from lapg.runtimes.evaluation import Evaluation, finish_log
from lapg.runtimes.per_lane import stack
from lapg.runtimes.sequential import Sequential
from support import full

M, DIMENSION, ROUNDS = 4, 3, 25
HYPER = {"reuse": {"step_size": 0.1, "xi": 0.05}, "accumulate": {"step_size": 0.1}}
DOWNLINKS = {"dense": dense(), "replicated": replicated(compressors.top_k(0.5))}
DOWNLINKS["together"] = DOWNLINKS["replicated"]  # and learners upload in every third round alone
PLAIN = "reuse", "dense"
KINDS = [(memory, downlink) for memory in HYPER for downlink in DOWNLINKS]
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
SPOILT = "nan", "infinite", "huge", "malformed", "oversized"
"""Of uploads, of which there are fewer where they come together."""


@pytest.fixture(scope="module")
def problems():
    """Learners want different things where their gradients are reused; where these accumulate and some are absent, that alone would keep θ moving."""
    apart = quadratic(num_learners=M, dimension=DIMENSION, conditioning=4.0, noise=0.0)
    shared = jnp.broadcast_to(apart.tasks.extra["centre"][0], (M, DIMENSION))
    tasks = eqx.tree_at(lambda tasks: tasks.extra["centre"], apart.tasks, shared)
    return {"reuse": apart, "accumulate": apart._replace(tasks=tasks)}


@pytest.fixture(scope="module")
def recipes(problems):
    def recipe(memory, downlink):
        setting = methods.Setting(estimators.exact(problems[memory].gradient), 2, M)
        setting = setting._replace(upload_every=3 if downlink == "together" else None)
        if memory == "reuse":
            return lambda hyper: methods.compose(
                "lapg",
                setting,
                trigger=Part(window=2, noise_weight=0.0),
                hyper=full(hyper),
                downlink=DOWNLINKS[downlink],
            )
        return lambda hyper: methods.compose(
            "random",
            setting._replace(participation=0.75),
            trigger=Part(rate=0.9),
            hyper=full(hyper),
            downlink=DOWNLINKS[downlink],
        )

    return {kind: recipe(*kind) for kind in KINDS}


@pytest.fixture(scope="module")
def compiled(problems, recipes):
    return {kind: Compiled(recipe, problems[kind[0]], HYPER[kind[0]]) for kind, recipe in recipes.items()}


class Books:
    """Kept beside a run, from what the controller says that it took and from gradients in closed form."""

    def __init__(self, problem):
        tasks = jax.tree.map(np.asarray, problem.tasks)
        self.slope = tasks.scale[:, None] * tasks.extra["curvature"]
        self.centre = tasks.extra["centre"]
        self.gradients = np.zeros((M, DIMENSION))
        self.applied = np.zeros((M, DIMENSION))
        self.lost = np.zeros(DIMENSION)
        self.untold = np.zeros(DIMENSION)

    def gradient(self, params):
        return self.slope * (np.asarray(params) - self.centre)

    def excess(self, params):
        best = (self.slope * self.centre).sum(0) / self.slope.sum(0)
        return float((self.slope.sum(0) * (params - best) ** 2).sum())


def check(network, books, before, log, memory):
    """Reuse: aggregate == Σ shares == Σ uploaded. Accumulation, learner by learner: applied + residual == Σ gradients of the steps that were taken.

    What compression on the way down holds back is in neither aggregate.
    """
    table, controller = network.controller.table, network.controller.state
    downlink = network.controller.downlink
    untold = downlink.error if downlink else np.zeros(DIMENSION)
    states = [network.shared_state(m) for m in range(M)]
    if memory == "reuse":
        np.testing.assert_allclose(controller.aggregate + untold, np.sum(table.shares, 0), atol=1e-11)
        for m in range(M):
            if table.accepted[m] == 0:
                np.testing.assert_array_equal(table.shares[m], 0)
            elif states[m] is not None:
                np.testing.assert_allclose(table.shares[m], states[m].memory.uploaded, atol=1e-11)
            if log.sent[m]:
                np.testing.assert_allclose(table.shares[m], books.gradient(before.params)[m], atol=1e-11)
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
    np.testing.assert_allclose(controller.aggregate + untold, total + books.untold, atol=1e-11)
    books.untold = np.asarray(untold)
    for m in range(M):
        if table.accepted[m] and states[m] is not None:
            residual = books.gradients[m] - books.applied[m]
            np.testing.assert_allclose(states[m].memory.value, residual, atol=1e-11)


def run(compiled, problems, kind, seed, rounds=ROUNDS, rates=RATES):
    """Faults for ``rounds`` rounds, checked after each; then 20 without, in which it has to get to the optimum."""
    memory, _ = kind
    network, books = Network(compiled[kind], HYPER[memory], seed, rates, max_silent_rounds=10), Books(problems[memory])
    start = books.excess(np.asarray(network.controller.state.params))
    logs = []
    for now in range(rounds + 20):
        if now == rounds:
            network.rates = {}
        before = network.controller.state
        logs.append(network.play(now))
        check(network, books, before, logs[-1], memory)
    return network, logs, books.excess(np.asarray(network.controller.state.params)) / start


@pytest.mark.parametrize("kind", KINDS)
def test_random_schedules(compiled, problems, kind):
    """Oracle: the invariants, with gradients in closed form; replicas are where the controller was, bitwise; the optimum of a quadratic.

    Every kind of trouble must have happened, and been counted.
    """
    happened, counted = dict.fromkeys(RATES, 0), dict.fromkeys(FAULTS, 0)
    rates = RATES | {name: (3 if kind[1] == "together" else 1) * RATES[name] for name in SPOILT}
    for seed in range(8):
        network, logs, excess = run(compiled, problems, kind, seed, rates=rates)
        assert excess < 1e-2, f"seed {seed}"
        for name, times in network.happened.items():
            happened[name] += times
        for name in FAULTS:
            counted[name] += sum(int(log.faults[name].sum()) for log in logs)
    assert min(happened.values()) > 0
    assert min(counted.values()) > 0
    assert counted["unsound"] <= happened["nan"] + happened["infinite"] + happened["huge"]


H = wire.Header
SESSION = LearnerSession(generation=2, accepted=5, state="old", proposed=7, pending="new", last_broadcast=6)


@pytest.mark.parametrize(
    ("header", "action", "after"),
    [
        (H(7, 0, 2, 7, 0), PLAY, LearnerSession(2, 7, "new", last_broadcast=7)),  # accepted: committed
        (H(7, 0, 2, 5, 0), PLAY, LearnerSession(2, 5, "old", last_broadcast=7)),  # lost: rolled back
        (
            H(6, 0, 2, 5, 0),
            PLAY,
            LearnerSession(2, 5, "old", last_broadcast=6),
        ),  # the same broadcast again: played again
        (H(5, 0, 2, 5, 0), STALE, SESSION),
        (H(9, 0, 1, 0, 0), STALE, SESSION),
        (H(7, 0, 2, 6, 0), OUT_OF_SYNC, SESSION),  # a number that this learner never proposed
        (H(7, 0, 3, 0, 0), RENEW, LearnerSession(3, 0, "old", last_broadcast=7)),
        (
            H(2, 0, 3, 0, 0),
            RENEW,
            LearnerSession(3, 0, "old", last_broadcast=2),
        ),  # a controller that went back to a checkpoint
        (H(7, 0, 3, 6, 0), OUT_OF_SYNC, SESSION),  # a life of which this learner knows nothing
    ],
)
def test_what_a_learner_makes_of_a_broadcast(header, action, after):
    """Oracle: the protocol, case by case; what is not understood changes nothing."""
    assert hear(SESSION, header) == (after, action)


def test_a_new_process_in_an_old_life():
    """Oracle: the protocol. It knows nothing of number 6 and asks to start anew; where nothing was accepted yet, it just starts."""
    assert hear(LearnerSession(), H(6, 0, 1, 6, 0)) == (LearnerSession(), OUT_OF_SYNC)
    assert hear(LearnerSession(), H(6, 0, 1, 0, 0)) == (LearnerSession(1, last_broadcast=6), RENEW)


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
    assert validate_reply(header, round=8, generation=2, accepted=7, answered=answered) == reason


@pytest.mark.parametrize("downlink", DOWNLINKS)
def test_a_perfect_network_is_the_plain_loop(compiled, problems, recipes, downlink):
    """Oracle: the sequential runtime, bit for bit; state, record with downlink bits, and the learners' own states."""
    hyper, kind = HYPER["reuse"], ("reuse", downlink)
    network = Network(compiled[kind], hyper, 0, {})
    logs = [network.play(now) for now in range(20)]
    lane = {name: np.array([value]) for name, value in hyper.items()}
    plain = Sequential(recipes[kind], problems["reuse"], lane, [0], chunk_rounds=20)
    state, log = plain.advance(plain.start(), 0, 20)
    assert 0 < log.sent[0, 1:].mean() < 1
    found = network.controller.snapshot([learner.save(1, 20) for learner in network.learners])
    expected = plain.lane(state, 0)
    for part in ("controller", "learners", "downlink"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, part), getattr(expected, part))
    np.testing.assert_array_equal(found.table.accepted, 20)
    found = finish_log(jax.tree.map(lambda leaf: leaf[None], stack(logs)), 0, Evaluation())
    assert not any(np.any(count) for count in found.faults.values())
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(found, faults={}), log)


@pytest.mark.parametrize("kind", [PLAIN, ("accumulate", "replicated")])
def test_going_on_from_a_snapshot(compiled, kind):
    """Oracle: the same run without an interruption, bit for bit, but for what has to be sent again."""
    hyper = HYPER[kind[0]]
    whole, network, again = (Network(compiled[kind], hyper, 0, {}) for _ in range(3))
    logs = [whole.play(now) for now in range(12)]
    for now in range(6):
        network.play(now)
    table = network.controller.table
    saved = [learner.save(1, int(table.accepted[m])) for m, learner in enumerate(network.learners)]
    middle = network.controller.snapshot(saved)
    again.controller = ControllerHost(compiled[kind], hyper, 0, middle)
    for m, state in middle.saved(range(M)).items():
        again.learners[m].load(*state)
    state_bits, anew = 8 * (20 + wire.tree_size(middle.controller)), np.full(M, kind[1] == "replicated")
    for now in range(6, 12):
        log = again.play(now)
        np.testing.assert_array_equal(log.sent, logs[now].sent)
        np.testing.assert_array_equal(
            log.downlink_bits, np.where(log.participated & anew, state_bits, logs[now].downlink_bits)
        )
        anew &= ~log.participated
    ends = again.controller, whole.controller
    jax.tree.map(np.testing.assert_array_equal, *((end.state, end.downlink) for end in ends))


def test_learners_that_cannot_be_asked_are_left_out(compiled):
    """Oracle: by hand: it starts anew, its share taken out of the aggregate."""
    network = Network(compiled[PLAIN], HYPER["reuse"], 0, {})
    for now in range(6):
        network.play(now)
    saved = [learner.save(1, 6) for learner in network.learners]
    partial = network.controller.snapshot([None, *saved[1:]])
    np.testing.assert_array_equal(partial.table.generation, [2, 1, 1, 1])
    np.testing.assert_array_equal(partial.table.accepted, [0, 6, 6, 6])
    np.testing.assert_allclose(
        partial.controller.aggregate, np.sum(partial.learners.memory.uploaded[1:], 0), atol=1e-14
    )
    assert sorted(partial.saved(range(M))) == [1, 2, 3]
    assert network.learners[0].save(2, 0) is None


def test_replicas_that_drift_are_found_out(compiled):
    """Oracle: by hand: a replica that differs in the last bit of one number is not stepped with; its learner asks to start anew, and hears the state."""
    kind = "reuse", "replicated"
    network = Network(compiled[kind], HYPER["reuse"], 0, {})
    assert network.play(0).sent.all()
    learner = network.learners[2]
    params = np.nextafter(learner.session.replica.params, np.inf)
    drifted = eqx.tree_at(lambda state: state.params, learner.session.replica, params)
    learner.session = learner.session._replace(replica=drifted)
    np.testing.assert_array_equal(network.play(1).faults["renewed"], [0, 0, 1, 0])
    log = network.play(2)
    assert not log.faults["missing"].any()
    assert log.downlink_bits[2] == 8 * (20 + wire.tree_size(network.controller.state))


def test_silent_learners_are_given_up(compiled):
    """Oracle: by hand. After 3 silent rounds its share is out and its generation another one; when it is back it uploads the whole gradient."""
    network = Network(compiled[PLAIN], HYPER["reuse"], 0, {}, max_silent_rounds=3)
    network.play(0)
    network.hung[2] = 5
    logs = [network.play(now) for now in range(1, 6)]
    assert [int(log.faults["missing"][2]) for log in logs] == [1, 1, 1, 1, 0]
    assert [int(log.faults["renewed"][2]) for log in logs] == [0, 0, 1, 0, 0]
    np.testing.assert_array_equal(network.controller.table.generation, [1, 1, 2, 1])
    assert logs[-1].sent[2]
    assert np.isnan(logs[0].training_scores["score_scaled"][2])
    assert logs[0].learner.staleness[2] == -1
    with pytest.raises(ValueError, match="max_silent_rounds must be >= 1 or none, got 0"):
        Network(compiled[PLAIN], HYPER["reuse"], 0, {}, max_silent_rounds=0)


def test_broadcasts_must_be_ones_own(compiled):
    """Oracle: the docstrings: another learner's broadcast, one that is too short."""
    network = Network(compiled[PLAIN], HYPER["reuse"], 0, {})
    network.controller.open()
    head, payload = network.controller.message(0)
    with pytest.raises(ValueError, match="learner 1 must be given its own broadcasts, got one for 0"):
        network.learners[1].hear(*wire.unframe(head + payload))
    with pytest.raises(ValueError, match="the header announces 32 bytes of payload, got 31"):
        network.learners[0].hear(*wire.unframe(head + payload[:-1]))


CONFIG = {"batch_size": 10, "problem": {"name": "quadratic", "scales": (1.0, 0.5)}}


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (hello(CONFIG | {"batch_size": 20}), "batch_size must be 10, as at the controller, got 20"),
        (
            hello({"batch_size": 10, "problem": {"name": "quadratic"}}),
            r"problem.scales must be \[1.0, 0.5\].*not set",
        ),
        (hello(CONFIG).replace(b"float64", b"float32"), "precision must be float64.*got float32"),
        (hello(CONFIG)[:-3], "must be a JSON table of settings"),
        (b"\xff\x00", "must be a JSON table of settings"),
        (b"[" * 50_000, "must be a JSON table of settings"),
        (b"3", "must be a JSON table of settings"),
        (b" " * 200_000, "must have at most 100000 bytes, got 200000"),
    ],
)
def test_strangers_are_refused_by_name(theirs, message):
    """Oracle: the setting that differs, and both its values; or what is wrong with the hello."""
    check_hello(hello(CONFIG), hello(dict(reversed(CONFIG.items()))))
    with pytest.raises(ValueError, match=message):
        check_hello(hello(CONFIG), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_schedules(compiled, problems, kind):
    """Oracle: as above; 500 schedules for each kind of memory and of downlink, a third of them twice as bad."""
    worst = 0.0
    for seed in range(1000, 1500):
        worse = 2 if seed % 3 == 0 else 1
        _, _, excess = run(compiled, problems, kind, seed, rates={name: worse * rate for name, rate in RATES.items()})
        assert excess < 1e-2, f"seed {seed}"
        worst = max(worst, excess)
    print(f"500 schedules, {' and '.join(kind)}: what was left of the initial distance is at most {worst:.1e}")
