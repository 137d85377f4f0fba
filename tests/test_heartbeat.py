"""What travels where there is nothing to say: the record is what the wire carries, with a heartbeat and without."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from faults import Network as Lossless
from lapg import Config, estimators, methods, record
from lapg.comparison.curves import to_curve
from lapg.costs import ledger
from lapg.costs.links import Link, LinkModel, Traffic, joules, seconds
from lapg.downlink import dense, replicated
from lapg.methods import Part
from lapg.problems import quadratic
from lapg.runtimes import Sequential
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.evaluation import Evaluation, finish_log
from lapg.runtimes.per_lane import stack
from lapg.uplink.compressors import quantise
from support import full

ROUNDS, LEARNERS = 30, 3
DOWNLINKS = {"dense": dense(), "replicated": replicated(quantise(4))}
HYPER = {"step_size": 0.02}


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=5, scales=(1.0, 0.5, 0.2), noise=0.5)


def recipe(problem, downlink, method="scout", participation=0.7):
    setting = methods.Setting(estimators.noisy(problem.gradient), 2, LEARNERS, participation=participation)
    parts = {"trigger": Part(threshold=10.0), "downlink": DOWNLINKS[downlink]}
    return lambda hyper: methods.compose(method, setting, hyper=full(hyper), **parts)


def to_dataset(log, **given):
    return record.to_dataset(log, first=0, seeds=[0], params=np.zeros((1, 5)), wall=0.0, **given)


def bits(dataset):
    """Down and up, all learners and rounds."""
    down = ledger.downlink_bits(dataset["downlink_bits"].values, dataset["contacted"].values)
    up = ledger.uplink_bits(dataset["uplink_bits"].values, dataset["answered"].values)
    return down[0, -1], up[0, -1]


@pytest.fixture(scope="module")
def played(problem):
    """What the reference runtime has carried, and its log; each kind is played once."""

    @functools.cache
    def play(downlink, heartbeat):
        lane = {name: np.array([value]) for name, value in HYPER.items()}
        runtime = Sequential(recipe(problem, downlink), problem, lane, [0], chunk_rounds=ROUNDS, heartbeat=heartbeat)
        return runtime.advance(runtime.start(), 0, ROUNDS)[1], runtime.carried[0]

    return play


@pytest.mark.parametrize(("downlink", "heartbeat"), list(itertools.product(DOWNLINKS, (True, False))))
def test_the_record_is_what_the_wire_carries(played, downlink, heartbeat):
    """Oracle: eight times the bytes that the reference runtime puts on its wire, in both directions; and by hand, what silence costs."""
    log, carried = played(downlink, heartbeat)
    dataset = to_dataset(log, heartbeat=heartbeat)
    np.testing.assert_array_equal(8 * carried, bits(dataset))
    silent = log.participated & ~log.sent
    assert silent.any()
    assert log.sent.any()
    assert (~log.participated).any()
    up = log.uplink_bits.sum() + 160 * log.sent.sum()
    assert bits(dataset)[1] == up + (160 * silent.sum() if heartbeat else 0)
    np.testing.assert_array_equal(ledger.num_uploads(dataset["sent"].values)[0], log.sent[0].sum(-1).cumsum())
    nothing = log.participated & (log.downlink_bits == 0)
    assert nothing.any() == (downlink == "replicated")
    assert bits(dataset)[0] == log.downlink_bits.sum() + 160 * (
        log.participated.sum() - (not heartbeat) * nothing.sum()
    )


@pytest.mark.parametrize("downlink", DOWNLINKS)
def test_hosts_have_a_heartbeat(problem, downlink):
    """Oracle: eight times the bytes that the hosts of the distributed runtimes hand to their engine, in both directions, where nothing is lost."""
    network = Lossless(Compiled(recipe(problem, downlink, "awapg"), problem, HYPER), HYPER, 0, {})
    carried, transmit = {id(network.down): 0, id(network.up): 0}, network.transmit

    def count(queue, learner, message, now):
        carried[id(queue)] += len(message if isinstance(message, bytes) else message.reply)
        transmit(queue, learner, message, now)

    network.transmit = count
    log = stack([network.play(now) for now in range(ROUNDS)])
    dataset = to_dataset(finish_log(jax.tree.map(lambda leaf: leaf[None], log), 0, Evaluation()))
    assert dataset["sent"].any()
    assert not dataset["sent"].all()
    assert tuple(8 * num for num in carried.values()) == bits(dataset)


def test_a_reply_that_did_not_come_is_not_counted():
    """Oracle: by hand: three learners take part, of whom one uploads, one is silent, and of one nothing came."""
    there = np.array([True, True, True, False])
    went = there, 8 * there, np.array([True, False, False, False])
    contacted, answered = ledger.messages(*went, missing=np.array([0, 0, 1, 0]))
    np.testing.assert_array_equal(contacted, there)
    np.testing.assert_array_equal(answered, [True, True, False, False])
    np.testing.assert_array_equal(ledger.messages(*went, heartbeat=False), [there, went[2]])


def test_records_from_before(played, tmp_path):
    """Oracle: what such a record counted: a header for whoever took part, and for uploads alone; also of a run that went on with this version."""
    new = to_dataset(played("replicated", False)[0], heartbeat=False)
    old = new.drop_vars(["contacted", "answered"])
    assert (new["contacted"] < new["participated"]).any()
    read = to_curve(old).costs
    header = 160 * new["participated"].sum("learner").cumsum("round")
    np.testing.assert_array_equal(read["downlink_bits"], new["downlink_bits"].sum("learner").cumsum("round") + header)
    np.testing.assert_array_equal(read["uplink_bits"], to_curve(new).costs["uplink_bits"])
    for first, part in ((0, old), (20, new)):
        part = part.isel(round=slice(first, first + 20))
        record.write_dataset(tmp_path / f"rounds-{first:06d}-{first + part.sizes['round']:06d}.nc", part)
    (tmp_path / f"state-{ROUNDS:06d}.eqx").touch()
    merged = record.read(tmp_path)
    assert merged["contacted"].dtype == merged["answered"].dtype == bool
    np.testing.assert_array_equal(merged["contacted"][:, :20], old["participated"][:, :20])
    np.testing.assert_array_equal(merged["contacted"][:, 20:], new["contacted"][:, 20:])
    np.testing.assert_array_equal(merged["answered"], old["sent"])


def test_silence_takes_no_time():
    """Oracle: by hand, 1,000 bits/s and 1 s of latency both ways, 0.5 s of computing: a header takes 1.16 s; without a heartbeat who is silent just computes."""
    quiet = np.zeros((1, 1), bool)
    fields = {"uplink_bits": np.zeros((1, 1)), "sent": quiet, "downlink_bits": np.zeros((1, 1))}
    link = Link(1000.0, 1.0, joules_per_message=3.0)
    beating = Traffic(**fields, contacted=~quiet, answered=~quiet, participated=~quiet)
    silent = Traffic(**fields, contacted=quiet, answered=quiet, participated=~quiet)
    np.testing.assert_allclose(seconds(LinkModel(link, link), beating, 0.5), [2 * 1.16 + 0.5])
    np.testing.assert_allclose(seconds(LinkModel(link, link), silent, 0.5), [0.5])
    assert (joules(LinkModel(link, link), beating), joules(LinkModel(link, link), silent)) == (6.0, 0.0)


def test_only_runtimes_with_a_clock_do_without():
    """Oracle: the rule in the message."""
    config = Config(
        problem=Part("quadratic", num_learners=2),
        estimator=Part("noisy"),
        method="pg",
        optimiser=Part("sgd", step_size=0.01),
        heartbeat=False,
    )
    for runtime in ("ray", "flower"):
        with pytest.raises(ValueError, match=f"heartbeat must be true with runtime '{runtime}'"):
            dataclasses.replace(config, runtime=runtime)
