"""Bytes that are no messages: one kind of exception, nobody's state moves, and the controller's sums hold."""

import numpy as np
import pytest

from lapg import compressors, estimators, methods
from lapg.downlink import dense, forwarded, replicated
from lapg.problems import quadratic
from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.learner import MOST_ROUNDS, LearnerHost
from lapg.runtimes.distributed.state import begin
from support import full

M = 3
KINDS = {
    "reuse, dense": ("lapg", dense(), compressors.identity(), {"step_size": 0.05, "xi": 0.05}),
    "reuse, replicated": (
        "lapg",
        replicated(compressors.top_k(0.5)),
        compressors.identity(),
        {"step_size": 0.05, "xi": 0.05},
    ),
    "rounded, forwarded": (
        "random",
        forwarded(compressors.quantise(5)),
        compressors.quantise(5),
        {"step_size": 0.05, "rate": 0.7},
    ),
    "rounded, replicated": (
        "random",
        replicated(compressors.quantise(4)),
        compressors.quantise(5),
        {"step_size": 0.05, "rate": 0.7},
    ),
}


@pytest.fixture(scope="module")
def compiled():
    """Compiled once for every kind."""
    problem = quadratic(num_learners=M, dimension=4, noise=0.5)

    def make(method, downlink, compressor, hyper):
        setting = methods.Setting(estimators.noisy(problem.gradient), 2, M)
        parts = {"downlink": downlink, "compressor": compressor}
        return Compiled(
            lambda hyper: methods.compose(method, setting, hyper=full(hyper), **parts), problem, hyper
        ), hyper

    return {name: make(*kind) for name, kind in KINDS.items()}


def mutate(draw, raw, other):
    """What may become of a frame: a field of the header, its length, bits of the payload; cut off, glued together, or nothing but noise."""
    raw = bytearray(raw)
    kind = draw.integers(7)
    if kind == 0:
        at = 4 * int(draw.integers(5))
        raw[at : at + 4] = int(draw.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, int(draw.integers(2**32))])).to_bytes(
            4, "little"
        )
    elif kind == 1:
        raw[16:20] = int(draw.integers(64)).to_bytes(4, "little")
    elif kind == 2:
        for _ in range(int(draw.integers(1, 9))):
            raw[draw.integers(20, len(raw)) if len(raw) > 20 else 0] ^= 1 << int(draw.integers(8))
    elif kind == 3:
        raw = raw[: draw.integers(len(raw))]
    elif kind == 4:
        raw = raw + other
    elif kind == 5:
        raw[:] = draw.bytes(int(draw.integers(200)))
    else:  # a header that fits, and noise for a payload
        noise = draw.bytes(int(draw.integers(120)))
        raw[16:] = len(noise).to_bytes(4, "little") + noise
    return bytes(raw)


def play(compiled, hyper, num, seed):
    """Rounds in which every message and every reply comes as it should, after mutated ones; what came of those."""
    draw = np.random.default_rng(seed)
    controller = ControllerHost(compiled, hyper, 0, begin(compiled, hyper, 0))
    learners = [LearnerHost(compiled, hyper, 0, m) for m in range(M)]
    outcome = {
        "frames": 0,
        "refused by learners": 0,
        "played": 0,
        "passed over": 0,
        "refused by the controller": 0,
        "taken": 0,
    }
    other = wire.frame(b"", round=0, learner=0)
    while outcome["frames"] < num:
        for m in controller.open():
            message = b"".join(controller.message(m))
            for _ in range(3):
                outcome["frames"] += 1
                mutated = LearnerHost(
                    compiled, hyper, 0, m, learners[m].session
                )  # it must not be deaf to what comes later
                before = wire.encode_tree(mutated.session.state)
                try:
                    said = mutated.hear(*wire.unframe(mutate(draw, message, other)))
                except wire.MalformedError:
                    outcome["refused by learners"] += 1
                    assert mutated.session == learners[m].session
                    assert wire.encode_tree(mutated.session.state) == before
                else:
                    outcome["passed over" if said is None else "played"] += 1
            answer = learners[m].hear(*wire.unframe(message))
            if answer is None:
                continue
            outcome["frames"] += 1
            reason = controller.receive(m, mutate(draw, answer.reply, other), answer.record)
            outcome["taken" if reason is None else "refused by the controller"] += 1
            other = answer.reply
            controller.receive(m, answer.reply, answer.record)
        controller.close()
        state, table, downlink = controller.state, controller.table, controller.downlink
        if compiled.keeps_shares:
            held = state.aggregate + (downlink.error if downlink else 0)
            size = max(1.0, float(np.abs(table.shares).max()))
            np.testing.assert_allclose(held, np.sum(table.shares, 0), rtol=0, atol=1e-9 * size)
        assert np.isfinite(state.params).all()
    faults = controller.logs().faults
    assert sum(int(faults[name].sum()) for name in ("malformed", "late", "outdated")) > 0
    return outcome


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_frames(compiled, kind):
    """Oracle: the invariants, after some 350 frames of each kind: only `MalformedError` comes out, and a learner that refuses is where it was."""
    outcome = play(*compiled[kind], 350, 0)
    assert min(outcome.values()) > 0, outcome


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_frames(compiled, kind):
    """Oracle: as above; 20,000 frames altogether."""
    print(kind, play(*compiled[kind], 20_000 // len(KINDS) + 1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learner": 1}, "learner 0 must be given its own broadcasts, got one for 1"),
        ({"round": 2**31}, f"must be at most {MOST_ROUNDS}, got {2**31}"),
        ({"round": 2**32 - 1}, f"must be at most {MOST_ROUNDS}"),
    ],
)
def test_what_a_learner_refuses_is_counted(compiled, change, message):
    """Oracle: by hand."""
    host = LearnerHost(*compiled["reuse, dense"], 0, 0)
    controller = ControllerHost(*compiled["reuse, dense"], 0, begin(*compiled["reuse, dense"], 0))
    controller.open()
    header, payload = wire.unframe(b"".join(controller.message(0)))
    with pytest.raises(wire.MalformedError, match=message):
        host.hear(header._replace(**change), payload)
    with pytest.raises(wire.MalformedError, match="a message of 40 bytes was expected, got 39"):
        host.hear(header, payload[:-1])
    assert host.malformed == 2
    assert host.hear(header, payload) is not None


def test_a_replica_does_not_run_for_ever(compiled):
    """Oracle: by hand: from round 1 to one ten thousand rounds later at once; later still it asks for the state, with a reply of generation 0."""
    made = compiled["rounded, replicated"]
    controller, host = ControllerHost(*made, 0, begin(*made, 0)), LearnerHost(*made, 0, 0)
    controller.open()
    header, payload = wire.unframe(b"".join(controller.message(0)))
    host.hear(header, payload)
    far = header._replace(round=10_001, generation=1, base=1, length=0)
    answer = host.hear(far, b"")
    assert wire.unframe(answer.reply)[0].generation == 0
    near = wire.unframe(host.hear(far._replace(round=300), b"").reply)[0]
    assert (near.generation, near.round) == (1, 300)
