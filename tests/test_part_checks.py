"""Checks of parts: what is shipped passes, and what is broken in one way fails with the line that mends it."""

import ast
import dataclasses
import re
from pathlib import Path

import jax.numpy as jnp
import pytest

from lapg import estimators, policies, problems
from lapg.checks import check_compressor, check_estimator, check_memory, check_policy, check_trigger
from lapg.cli import main
from lapg.types import Decision, Trigger, take_rows
from lapg.uplink import compressors, memories, triggers
from lapg.uplink.triggers import measures


def failures(results):
    assert results
    return [str(result) for result in results if not result.passed]


def lazy(**change):
    return triggers.lazy(**{"xi": jnp.ones(2) / 9, "step_size": 0.1, "num_learners": 3} | change)


SHIPPED = {
    "age weighted": lambda: check_trigger(triggers.age_weighted(3.0, num_learners=3)),
    "accumulator": lambda: check_memory(memories.accumulator()),
    "top_k": lambda: check_compressor(compressors.top_k(0.2), num_draws=9),
}
SHIPPED_TOO = {  # longer
    "lazy": lambda: check_trigger(lazy()),
    "lazy without noise": lambda: check_trigger(lazy(noise_weight=0.0)),
    "same samples": lambda: check_trigger(lazy(noise_weight=0.0, measure=measures.same_samples())),
    "snapshot": lambda: check_trigger(lazy(noise_weight=0.0, measure=measures.against_snapshot(3))),
    "quantised": lambda: check_trigger(lazy(measure=measures.quantised())),
    "step": lambda: check_trigger(triggers.age_weighted(3.0, num_learners=3, scale="step")),
    "changed": lambda: check_trigger(triggers.changed(0.5)),
    "always": lambda: check_trigger(triggers.always()),
    "never": lambda: check_trigger(triggers.never()),
    "periodic": lambda: check_trigger(triggers.periodic(3.0)),
    "staggered": lambda: check_trigger(triggers.periodic(3.0, phase="staggered")),
    "random": lambda: check_trigger(triggers.random(0.3)),
    "fresh": lambda: check_memory(memories.fresh()),
    "lagged": lambda: check_memory(memories.lagged()),
    "dasha": lambda: check_memory(memories.dasha(0.5, uplink=compressors.qsgd(7))),
    "restarting": lambda: check_memory(memories.fresh(restart=True)),
    "visible": lambda: check_memory(memories.visible()),
    "lossless": lambda: check_compressor(compressors.lossless()),
    "weighted": lambda: check_compressor(compressors.weighted(compressors.lossless())),
    "model variance": lambda: check_trigger(triggers.model_variance(0.5)),
    "importance": lambda: check_trigger(triggers.importance(0.5, num_learners=3)),
    "identity": lambda: check_compressor(compressors.identity()),
    "running average": lambda: check_memory(memories.running_average(0.3)),
    "qsgd": lambda: check_compressor(compressors.qsgd(7)),
    "top_k of few bits": lambda: check_compressor(compressors.top_k(0.2, bits=4)),
    "quantise": lambda: check_compressor(compressors.quantise(4)),
    "blocks": lambda: check_compressor(compressors.quantise(4, block=8)),
    "contractive": lambda: check_compressor(compressors.contractive(compressors.qsgd(3))),
    "sign": lambda: check_compressor(compressors.sign()),
}


@pytest.mark.parametrize("name", [*SHIPPED, *(pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED_TOO)])
def test_what_is_shipped_passes(name, unchecked):
    """Oracle: the parts' own tests."""
    assert not failures((SHIPPED | SHIPPED_TOO)[name]())


BROKEN = {
    "arity": (
        lambda: check_trigger(Trigger(update=lambda a: a)),
        r"functions: update must take \(key, state, candidate, estimate, gradient_at\), .* got \(a\)",
    ),
    "no decision": (
        lambda: check_trigger(Trigger(update=lambda *given: (given[1], True))),
        r"learner half: update must return a new state and a lapg.types.Decision",
    ),
    "python branch": (
        lambda: check_trigger(deciding(lambda c: bool(c.age > 3))),
        r"learner half: update must compile, but .* use jnp.where or jax.lax.cond",
    ),
    "state grows": (
        lambda: check_trigger(triggers.changed(0.5)._replace(init=lambda params: params[:1])),
        r"learner half: update must leave structure, shapes and dtypes",
    ),
    "secret noise": (
        lambda: check_trigger(lazy()._replace(needs_noise=False)),
        r"noise: the decision must not depend on candidate.noise, .* Trigger\(needs_noise=True\)",
    ),
    "residual lost": (
        lambda: check_memory(memories.accumulator()._replace(settle=lambda s, decoded: memories.Residual(0 * s.value, s.noise))),
        r"nothing is lost: what was sent and the residual must add up",
    ),
    "share of one message": (
        lambda: check_memory(memories.lagged()._replace(share=lambda s, decoded: decoded)),
        r"nothing is lost: share must be what the aggregate then holds",
    ),
    "length": (
        lambda: check_compressor(compressors.identity()._replace(num_bits=lambda m: jnp.int32(32 * m.size)), num_draws=9),
        r"lengths: num_bits must be 8 · len\(encode\(message\)\), 2368 of the vector 'random', got 1184",
    ),
    "bias": (
        lambda: check_compressor(compressors.sign()._replace(variance=lambda size: 9.0), num_draws=300),
        r"what is lost: the mean of C\(x\) must be x where variance is given",
    ),
}  # fmt: skip


def deciding(fires):
    def update(key, state, candidate, estimate, gradient_at):
        return state, Decision(jnp.asarray(fires(candidate)), candidate.noise, candidate.noise)

    return Trigger(update=update)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_fails(name, unchecked):
    """Oracle: each part is broken in one way, and one line says so."""
    check, message = BROKEN[name]
    (line,) = failures(check())
    assert line.startswith("FAIL")
    assert re.search(message, line), line


def test_estimators_are_checked(unchecked):
    """Oracle: a noisy gradient passes; twice the gradient is not the exact one; a thousandth of its noise is not the variance; None must be declared."""
    problem = problems.quadratic(num_learners=1, dimension=4)
    whole = estimators.noisy(problem.gradient)

    def bent(**change):
        def estimate(state, task, params, batch):
            found = whole.estimate(state, task, params, batch)
            return dataclasses.replace(found, **{name: value(found) for name, value in change.items()})

        return check_estimator(whole._replace(estimate=estimate), problem, num_batches=300)

    assert not failures(check_estimator(whole, problem, num_batches=300))
    apart = next(each for each in bent_part(whole, problem) if each.name == "parts of a batch")
    assert "give Estimator(part=...)" in apart.note
    (line,) = failures(bent(gradient=lambda found: 2 * found.gradient + 1, noise=lambda found: 4 * found.noise))
    assert "mean: the mean gradient of 300 batches must be the exact one" in line
    (line,) = failures(bent(noise=lambda found: found.noise / 1000))
    assert "Estimate.noise must estimate tr Cov of the gradient" in line
    (line,) = failures(bent(noise=lambda found: None))
    assert "noise must be None if and only if knows_noise is False" in line


def bent_part(estimator, problem):
    """Its checks with a part that indexes every array of a batch, θ included."""
    return check_estimator(estimator._replace(part=take_rows), problem, num_batches=300)


@pytest.mark.parametrize(
    ("make", "discount", "wrong", "exact"),
    [
        (estimators.reinforce, 0.5, 1.0, True),
        pytest.param(estimators.gpomdp, 0.9, 1.0, False, marks=pytest.mark.slow),
        pytest.param(estimators.gpomdp, 0.9, 0.8, True, marks=pytest.mark.slow),
        pytest.param(estimators.reinforce, 0.9, 1.0, True, marks=pytest.mark.slow),
    ],
)
def test_wrong_discounts_are_found(make, discount, wrong, exact, unchecked):
    """Oracle: the estimators' own tests: the right discount passes, a wrong one fails, whether the problem knows its gradient or not."""
    problem = problems.garnet(num_learners=1, num_states=3, num_actions=2, branching=2, num_steps=8, discount=discount)
    problem = problem if exact else problem._replace(model=lambda policy: None)
    assert not failures(check_estimator(make(problem.policy, discount), problem, num_batches=500))
    lines = failures(check_estimator(make(problem.policy, wrong), problem, num_batches=500))
    assert any("discount: losses must be discounted" in line for line in lines)


@pytest.mark.parametrize(
    ("discount", "options", "words"),
    [
        (0.9, {}, "too few to tell; take a problem with a smaller discount, or more batches"),
        pytest.param(1.0, {}, "whether losses are discounted was not looked at", marks=pytest.mark.slow),
        pytest.param(0.9, {"unbiased": False}, "nothing, as it is said to be biased", marks=pytest.mark.slow),
    ],
)
def test_what_was_compared(discount, options, words, unchecked):
    """Oracle: the note says so where a forgotten discount would not be seen: too few batches, no discount, no comparison."""
    problem = problems.garnet(num_learners=1, num_states=3, num_actions=2, branching=2, num_steps=2, discount=discount)
    found = check_estimator(estimators.reinforce(problem.policy, 1.0), problem, num_batches=10, **options)
    assert words in next(each.note for each in found if each.name == "what was compared")


def test_policies_are_checked(unchecked):
    """Oracle: a softmax policy passes; one that samples at another temperature than it says has a score whose mean is not 0."""
    whole = policies.softmax_table(2, 3)
    seen = jnp.int32(1)
    assert not failures(check_policy(whole, seen, num_draws=2000))

    def sample(noise, params, observation):
        action, _ = whole.sample(noise, params + jnp.arange(6.0), observation)
        return action, whole.log_prob(params, observation, action)

    (line,) = failures(check_policy(whole._replace(sample=sample), seen, num_draws=2000))
    assert "score: the mean of ∇log π over sampled actions must be 0" in line


EXAMPLES = ["own_parts:stride", "own_parts:accelerated", "own_parts:doubled", "own_parts:gathered", "own_parts:halves"]
EXAMPLES_TOO = [  # longer
    ("own_parts:bilinear",),
    ("own_parts:score_function",),
    ("own_parts:swings",),
    ("own_trigger:at_rate", "--part.rate", "0.2"),
    ("own_environment:slopes",),
    ("own_network:net", "--problem.name", "cart_pole", "--part.width", "4"),
]


@pytest.mark.parametrize(
    "words", [*((name,) for name in EXAMPLES), *(pytest.param(words, marks=pytest.mark.slow) for words in EXAMPLES_TOO)]
)
def test_examples_pass_their_check(words, monkeypatch, capsys, unchecked):
    """Oracle: the checks: no line fails, so that the exit status is 0."""
    if words[0].startswith("own_network"):
        pytest.importorskip("flax")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    main(["check", *words])
    printed = capsys.readouterr().out
    assert "ok " in printed
    assert "FAIL" not in printed


def test_all_examples_are_checked():
    """Oracle: the syntax trees of the examples: every function that says that it returns a part is in the lists above."""
    kinds = (
        "Trigger",
        "Memory",
        "Compressor",
        "Estimator",
        "Local",
        "Policy",
        "Problem",
        "optax.GradientTransformation",
        "Factory",
    )
    found = set()
    for file in (Path(__file__).parents[1] / "examples").glob("own_*.py"):
        for item in ast.parse(file.read_text()).body:
            if isinstance(item, ast.FunctionDef) and item.returns is not None and ast.unparse(item.returns) in kinds:
                found.add(f"{file.stem}:{item.name}")
    assert found == {*EXAMPLES, *(words[0] for words in EXAMPLES_TOO)}


@pytest.fixture
def flagged(tmp_path, monkeypatch, capsys):
    """A module with a trigger and an estimator that have options; and what a check that fails prints."""
    (tmp_path / "flagged.py").write_text(
        "from lapg.types import Scalar\n"
        "from lapg import estimators\n"
        "from lapg.uplink import triggers\n"
        "def trigger(*, period: Scalar): return triggers.periodic(period)\n"
        "def double(policy, discount, *, scale: float = 2.0):\n"
        "    whole = estimators.gpomdp(policy, discount)\n"
        "    def estimate(*given):\n"
        "        found = whole.estimate(*given)\n"
        "        return type(found)(scale * found.gradient, scale**2 * found.noise, found.effective_samples)\n"
        "    return whole._replace(estimate=estimate)\n"
    )
    monkeypatch.chdir(tmp_path)

    def fails(*words):
        with pytest.raises(SystemExit) as stop:
            main(["check", *words])
        assert stop.value.code == 2
        return " ".join("".join(capsys.readouterr()).split())

    return fails


def test_options_of_a_part_are_flags(flagged, unchecked):
    """Oracle: an option without a default is asked for by its flag, and a bad value is named by it."""
    assert "needs period, which cannot be filled in; give --part.period" in flagged("flagged:trigger")
    assert "--part.period must be >= 1, got 0.0" in flagged("flagged:trigger", "--part.period", "0")


@pytest.mark.slow
def test_flags_of_an_estimators_check(flagged, capsys, unchecked):
    """Oracle: by hand: twice the gradient fails on a problem with options, and passes where it is said to be biased or its scale is 1."""
    small = [
        "--problem.num-states",
        "2",
        "--problem.num-actions",
        "2",
        "--problem.branching",
        "1",
        "--problem.num-steps",
        "2",
        "--num-batches",
        "100",
    ]
    assert "the mean gradient of 100 batches must be the exact one" in flagged("flagged:double", *small)
    main(["check", "flagged:double", *small, "--biased"])
    assert "nothing, as it is said to be biased" in capsys.readouterr().out
    main(["check", "flagged:double", *small, "--part.scale", "1"])


def test_from_a_shell(tmp_path, monkeypatch, capsys):
    """Oracle: lines and exit status: 0 for a sound part, 2 for a broken one, or for something that is no part."""
    (tmp_path / "my_parts.py").write_text(
        "from lapg.types import Trigger\n"
        "from lapg.uplink import memories\n"
        "memory = memories.accumulator()\n"
        "def trigger(num_learners): return Trigger(update=lambda a: a)\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    main(["check", "my_parts:memory"])
    assert "ok    nothing is lost" in capsys.readouterr().out
    for name, words in (("trigger", "failed 1 of 1 checks"), ("number", "got int"), ("nothing", "has no attribute")):
        with pytest.raises(SystemExit) as stop:
            main(["check", f"my_parts:{name}"])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
