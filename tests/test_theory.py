"""Constants and bounds by hand and by definition, the statements on random problems, and whether their checks can fail."""

import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapg import theory
from lapg import verification as verification
from lapg.cli import main
from lapg.experiments.config import Choice, Config
from lapg.experiments.measure import known_constants
from lapg.experiments.predict import predict
from lapg.methods import Part
from lapg.policies import product, softmax_table, with_policy
from lapg.problems import cooperative_navigation, garnet, linear_quadratic, quadratic
from lapg.problems.quadratic import minimiser, total_smoothness
from lapg.types import ScoreBounds
from lapg.verification import constants, outside, slips
from lapg.verification.families import quadratics, tables
from lapg.verification.rows import compare
from lapg.verification.theorems import examine, judge

WEIGHTS = np.array([0.1, 0.06, 0.02])


def test_deviation_and_concentration_by_hand():
    """Oracle: by hand, γ = 1/2. Printed V = 2·2·ℓ̄·0.5/0.25 = 8ℓ̄, right: 2·2·ℓ̄/0.25 = 16ℓ̄, with T = 2 terms 4ℓ̄(1 + 2/2) = 8ℓ̄.

    Printed σ² = 2 ln(2·10/0.05) V²/4 = ln(400) V²/2; right, for two learners: ln(800) V²/2.
    """
    losses = jnp.array([1.0, 0.5])
    printed = theory.deviation_bound(2.0, losses, 0.5, form="printed")
    np.testing.assert_allclose(printed, [8.0, 4.0], 1e-14)
    np.testing.assert_allclose(theory.deviation_bound(2.0, losses, 0.5), [16.0, 8.0], 1e-14)
    np.testing.assert_allclose(theory.deviation_bound(2.0, losses, 0.5, 2), [8.0, 4.0], 1e-14)
    numbers = {"num_trajectories": 4, "num_rounds": 10, "failure_probability": 0.05}
    old = theory.concentration_bound(printed, form="printed", **numbers)
    np.testing.assert_allclose(old, [32 * math.log(400), 8 * math.log(400)], 1e-14)
    right = theory.concentration_bound(printed, **numbers)
    np.testing.assert_allclose(right, [32 * math.log(800), 8 * math.log(800)], 1e-14)
    np.testing.assert_allclose(theory.aggregate_noise(right), 2 * 40 * math.log(800), 1e-14)


def test_sums_behind_the_bounds():
    """Oracle: the sums themselves, 2,000 terms, γ = 0.9: Σ(t+1)γ^t, Σ(t+1)²γ^t, and the tail Σ_{t≥T}(t+1)γ^t."""
    count = np.arange(1.0, 2001)
    powers = 0.9 ** (count - 1)
    bounds, losses = ScoreBounds(1.5, 0.7), np.array([1.0, 3.0])
    expected = losses * (0.7 * (count @ powers) + 1.5**2 * (count**2 @ powers))
    np.testing.assert_allclose(theory.smoothness(bounds, losses, 0.9), expected, 1e-10)
    np.testing.assert_allclose(theory.smoothness(bounds, losses, 0.9, 2000), expected, 1e-10)
    sharp = losses * (0.7 + 1.5**2) * (count @ powers)
    np.testing.assert_allclose(theory.smoothness(bounds, losses, 0.9, form="sharp"), sharp, 1e-10)
    tail = 1.5 * losses.sum() * (count[7:] @ powers[7:])
    np.testing.assert_allclose(theory.truncation_bound(1.5, losses, 0.9, 7), tail, 1e-10)


def test_closed_form_score_bounds():
    """Oracle: a table is log-linear with unit vectors for features: √2 and 1/2; a product of three: √6 and 1/2. 2, 1: features 2 apart."""
    features = np.eye(6).reshape(3, 2, 6)
    for found in (theory.linear_softmax_bounds(features), softmax_table(3, 2).score_bounds):
        np.testing.assert_allclose(found, (math.sqrt(2), 0.5), 1e-14)
    np.testing.assert_allclose(product([softmax_table(2, 3)] * 3).score_bounds, (math.sqrt(6), 0.5), 1e-14)
    np.testing.assert_allclose(theory.linear_softmax_bounds(np.array([[[0.0], [2.0]]])), (2.0, 1.0))


def test_estimated_constants():
    """Oracle: a table of 3 states and 2 actions, all of whose pairs are visited in 1,000 episodes.

    ‖e_a − π(·|s)‖, the spectral norms of diag π − ππᵀ and c_m ℓ_m(s,a) at their largest; what other episodes show is never more.
    """
    scales = (1.0, 0.25)
    problem = garnet(num_learners=2, num_states=3, num_actions=2, branching=3, scales=scales, num_steps=4)
    found = theory.estimate_constants(problem, seed=5, num_hessians=50)
    table = np.asarray(problem.init(jax.random.key(5))).reshape(3, 2)
    probs = np.exp(table) / np.exp(table).sum(1, keepdims=True)
    scores = np.eye(2)[None] - probs[:, None]
    np.testing.assert_allclose(found.scores.score, np.linalg.norm(scores, axis=-1).max(), 1e-10)
    hessians = [np.linalg.norm(np.diag(row) - np.outer(row, row), 2) for row in probs]
    np.testing.assert_allclose(found.scores.hessian, max(hessians), 1e-10)
    losses = np.asarray(problem.tasks.extra["losses"]) * np.array(scales)[:, None, None]
    np.testing.assert_allclose(found.losses, losses.max((1, 2)), 1e-12)
    np.testing.assert_allclose(jax.vmap(problem.loss_bound)(problem.tasks), losses.max((1, 2)), 1e-12)
    sample = jax.jit(jax.vmap(lambda task: problem.sample(jax.random.key(99), task, jnp.zeros(6), 50).losses))
    assert (np.abs(sample(problem.tasks)).max((1, 2)) <= found.losses + 1e-12).all()
    with pytest.raises(ValueError, match="needs a problem with a policy"):
        theory.estimate_constants(quadratic(num_learners=2, dimension=3))


def test_quadratics_know_their_constants():
    """Oracle: NumPy on the matrices: spectral norms of every c_m A_m and of their sum, and the point where the sum of gradients is 0."""
    problem = quadratic(num_learners=3, dimension=4, scales=(1.0, 0.1, 2.0))
    tasks = problem.tasks
    matrices = np.asarray(tasks.scale[:, None] * tasks.extra["curvature"])
    np.testing.assert_allclose(jax.vmap(problem.smoothness)(tasks), matrices.max(1))
    np.testing.assert_allclose(total_smoothness(tasks), matrices.sum(0).max())
    total = jax.vmap(problem.gradient, (0, None))(tasks, minimiser(tasks)).sum(0)
    np.testing.assert_allclose(total, 0, atol=1e-14)


def test_lyapunov_is_its_definition():
    """Oracle: (20), summed literally."""
    rng = np.random.default_rng(0)
    gaps, moves = rng.uniform(size=9), rng.uniform(size=8)
    found = theory.lyapunov(*map(jnp.asarray, (gaps, moves, WEIGHTS)), 0.2)
    for k in range(9):
        past = [moves[k - d] if k >= d else 0.0 for d in (1, 2, 3)]  # ‖θ^{k+1−d} − θ^{k−d}‖²
        terms = [WEIGHTS[d - 1 :].sum() * past[d - 1] for d in (1, 2, 3)]
        np.testing.assert_allclose(found[k], gaps[k] + 1.5 / 0.2 * sum(terms), 1e-13)


def test_requirements_are_met_and_no_more():
    """Oracle: (23) with the T, K, N found is at most ε; with one step, one round or one trajectory less, its third is exceeded."""
    losses, numbers = np.array([1.0, 0.2]), {"score_bound": math.sqrt(2), "discount": 0.8}
    wanted = theory.requirements(0.5, 0.05, start=math.pi, step_size=0.01, loss_bound=losses, **numbers)

    def thirds(steps, rounds, trajectories):
        deviation = theory.deviation_bound(math.sqrt(2), losses, 0.8)
        noise = theory.aggregate_noise(theory.concentration_bound(deviation, trajectories, wanted.num_rounds, 0.05))
        parts = [
            theory.rate_bound(0.0, 0.01, rounds, truncation=theory.truncation_bound(math.sqrt(2), losses, 0.8, steps)),
            theory.rate_bound(math.pi, 0.01, rounds),
            theory.rate_bound(0.0, 0.01, rounds, noise=noise),
        ]
        return np.array([float(part) for part in parts])

    assert (thirds(*wanted) <= 0.5 / 3).all()
    for place in range(3):
        less = [number - (index == place) for index, number in enumerate(wanted)]
        assert thirds(*less)[place] > 0.5 / 3


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=6),
    st.lists(st.floats(0.0, 0.05), min_size=4, max_size=4),
    st.floats(0.05, 1.0),
)
def test_two_ways_to_the_saving(constants, weights, fraction):
    """Oracle: 1 − mean_m 1/(d_m + 1), d_m the largest d with H(m) ≤ ξ_d/(3dα²L²M²), found by a loop; (25) and (26) must agree."""
    xi = np.sort(weights)[::-1].copy()
    hard = np.asarray(theory.hardness(np.asarray(constants)))
    thresholds = theory.hardness_thresholds(xi, fraction, 1.0, len(constants))
    lazy = [
        max((d for d in (1, 2, 3, 4) if h <= xi[d - 1] / (3 * d * fraction**2 * len(constants) ** 2)), default=0)
        for h in hard
    ]
    np.testing.assert_array_equal(theory.laziness(hard, thresholds), lazy)
    np.testing.assert_allclose(theory.saving(hard, thresholds), 1 - np.mean([1 / (d + 1) for d in lazy]), atol=1e-14)
    np.testing.assert_array_equal(theory.max_uploads(np.asarray(lazy), 7), [math.ceil(7 / (d + 1)) for d in lazy])


def test_theorem_2_by_hand():
    """Oracle: M=2, D=1, H=(1/64, 49/64), ξ=0.07.

    Printed (69): 1/64 < 0.07/4 < (1/2)/24 holds. Corrected: 1/64 < 0.07/12 does not. γ_1 = 0.07/(12·0.79²) < 1/64, so the factor is 1/0.79.
    """
    hard = np.array([1.0, 49.0]) / 64
    assert theory.fewer_uploads_certified(hard, 0.07, 1, form="printed") == (True, 1 / 64)
    assert not theory.fewer_uploads_certified(hard, 0.07, 1)[0]
    np.testing.assert_allclose(theory.communication_factor(hard, np.array([0.07]), 2), 1 / 0.79, 1e-13)


def test_extreme_example_by_hand():
    """Oracle: M=8, c=0.27: D = ⌊8·0.3/0.19⌋ = 12, ratio (1 + 7/13)/8/0.19; every small learner is at least D lazy, and would not be at 2D."""
    found = theory.extreme_example(8, 0.27)
    assert found[:2] == (12, 0.27 / 12)
    np.testing.assert_allclose(found.ratio, (1 + 7 / 13) / 8 / 0.19, 1e-13)
    constants = np.array([1.0] * 7 + [64.0])
    for window, reached in ((12, True), (24, False)):
        xi = np.full(window, 0.27 / window)
        thresholds = theory.hardness_thresholds(xi, 0.19, 1.0, 8)
        assert (np.asarray(theory.laziness(theory.hardness(constants), thresholds))[:7] == window).all() == reached
    with pytest.raises(ValueError, match="has no window"):
        theory.extreme_example(2, 0.01)


def test_wrong_weights_are_refused():
    """Oracle: Theorem 1 wants Σξ < 1/3, Lemma 4 weights that do not increase."""
    with pytest.raises(ValueError, match="sum to less than 1/3"):
        theory.admissible_step(np.array([0.2, 0.2]), 1.0)
    with pytest.raises(ValueError, match="must not increase"):
        theory.hardness_thresholds(np.array([0.1, 0.2]), 0.1, 1.0, 2)


# ---------------------------------------------------------------- statements on runs


FAMILIES = {
    "quadratics": quadratics(num_learners=3, dimension=2),
    "MDPs": tables(discount=0.5, num_steps=4, num_learners=3),
}


@pytest.fixture(scope="module", params=FAMILIES)
def examined(request):
    """Problem, weights and step in, both sides of all statements out; one compilation a family."""
    run = jax.jit(partial(examine, FAMILIES[request.param], 30, None))
    return lambda seed, xi, fraction: run(jax.random.key(seed), jnp.asarray(xi), jnp.asarray(fraction))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3),
    st.floats(0.01, 0.99),
    st.one_of(st.just(1.0), st.floats(0.05, 1.0)),
)
def test_statements_hold_inside_the_admissible_region(examined, seed, weights, total, fraction):
    """Oracle: Lemmas 1 and 4, Theorems 1 and 2, exact gradients, any problem, any ξ that does not increase with Σξ < 1/3, any admissible step."""
    xi = np.sort(weights)[::-1] / np.sum(weights) * total / 3
    sides, _ = examined(seed, xi, fraction)
    for row in judge("", jax.tree.map(np.asarray, sides)):
        assert row.status != "violated", row


def test_runs_both_skip_and_upload(examined, request):
    """Oracle: a statement about skipping says nothing where nobody skips, or where nobody uploads again after round 0.

    On tables nobody has to: steps admissible by proved constants are short.
    """
    counts = np.stack(
        [np.asarray(examined(seed, [0.1, 0.1, 0.1], 1.0)[0]["lemma 4 counts"].left) for seed in range(12)]
    )
    assert counts.min() < 30
    if "quadratics" in request.node.name:
        assert counts.max() > 1


def test_checks_can_fail():
    """Oracle: outside their premises the statements are false: V^k rises at Σξ = 0.5, αL = 0.7; ξ = 1.01 cycles; PG's counts refute (27)."""
    for row in (*outside.rising(20, 0), *outside.cycle()):
        assert row.status == "violated", row
    (row,) = outside.measured_counts()
    assert (row.left, row.status) == (30, "violated")
    assert row.note.startswith("4 uploads with PG")


def test_slips_are_refuted_and_repaired():
    """Oracle: the counter-examples; each printed form fails on its own, each corrected one holds there."""
    rows = [*constants.slips(), *slips.trigger(), *constants.assumption(), *slips.sufficient_condition(5, 0)]
    assert {"printed", "repaired"} <= {row.kind for row in rows}
    assert [row for row in rows if not row.as_expected] == []


def test_rows_by_hand():
    """Oracle: by hand: the tightest of 1 ≤ 4, 3 ≤ 4, and what is left out: below rounding, outside the premise."""
    row = compare(
        "a", "b", [1.0, 3.0, 9.0, 1e-9], [4.0, 4.0, 4.0, 0.0], premise=[True, True, False, True], rounding=1e-8
    )
    assert (row.status, row.checks, row.vacuous, row.left, row.right, row.margin) == ("holds", 2, 1, 3.0, 4.0, 0.25)
    row = compare("a", "b", [1.0, 5.0], 4.0)
    assert (row.status, row.violations, row.margin, row.as_expected) == ("violated", 1, -0.2, False)
    assert compare("a", "b", 5.0, 4.0, kind="printed").as_expected
    assert compare("a", "b", 5.0, 4.0, premise=False).status == "vacuous"
    with pytest.raises(FloatingPointError, match="not finite"):
        compare("a", "b", math.nan, 1.0)


# ---------------------------------------------------------------- commands


def found(rows):
    fit = verification.Fit((2, 4), np.array([[0.5, 0.25]]), -1.0, -1.1, -0.9)
    return verification.Verification(7, 0, rows, {}, {"line": fit}, 1.0)


@pytest.mark.parametrize(("kind", "status"), [("statement", 2), ("printed", None)])
def test_verify_reports_what_it_finds(monkeypatch, capsys, kind, status):
    """Oracle: a violated row fails a statement (exit status 2) and is what a printed slip must be; both forms of output name it."""
    row = compare("Lemma", "somewhere", 5.0, 4.0, kind=kind)
    monkeypatch.setattr("lapg.cli.theory.run_checks", lambda problems, seed, progress: found([row]))
    for arguments in (["verify"], ["verify", "--json"]):
        if status is None:
            main(arguments)
        else:
            with pytest.raises(SystemExit) as stop:
                main(arguments)
            assert stop.value.code == status
        text = capsys.readouterr().out
        assert "Lemma" in text
        assert "violated" in text
    data = json.loads(text)
    assert data["rows"][0]["status"] == "violated"
    assert data["exponents"]["line"]["slope"] == -1.0


@pytest.mark.slow
def test_everything_comes_out_as_it_must(tmp_path, capsys):
    """Oracle: the statements; pictures and numbers are written."""
    main(["verify", "--problems", "8", "--json", "--out", str(tmp_path)])
    data = json.loads(capsys.readouterr().out)
    assert data["as_expected"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "verify.json",
        "scaling.png",
        "tightness.png",
        "iterations.png",
    }


def values(config, run=None):
    return {line.name: line for line in predict(config, run, num_batches=8)}


def test_prediction_for_a_table_by_hand():
    """Oracle: by hand: G = √2, F = 1/2, L_m = 2.5 ℓ̄_m Σ(t+1)γ^t with T = 3, γ = 1/2, i.e. 2.75; α against (1 − 0.3)/L; Lemma 4; (1 − β)⁻²."""
    problem = Part("garnet", num_learners=2, scales=(1.0, 0.01), num_steps=3, discount=0.5)
    method = Choice(
        "lapg", optimiser=Part("sgd", step_size=0.05, momentum=0.6), trigger=Part(xi=0.1, window=1, noise_weight=6.0)
    )
    lines = values(Config(problem=problem, batch_size=4, rounds=50).playing(method))
    losses = lines["ℓ̄_m"].value
    constants = losses * 2.5 * 2.75
    np.testing.assert_allclose(lines["L_m"].value, constants, 1e-6)
    np.testing.assert_allclose(lines["(1 − 3Σξ)/L"].value, 0.7 / constants.sum(), 1e-6)
    assert "is admissible" in lines["(1 − 3Σξ)/L"].meaning
    assert lines["G, F"].certainty == "bound"
    threshold = 0.1 / (3 * (0.05 * constants.sum() * 2) ** 2)
    expected = [0.5 if (c / constants.sum()) ** 2 <= threshold else 1.0 for c in constants]
    np.testing.assert_allclose(lines["largest fractions"].value, expected)
    np.testing.assert_allclose(lines["drift times"].value, 6.25)
    assert lines["N for (15) in (16)"].value == math.ceil(12 * math.log(2 * 2 * 50 / 0.05))


def test_prediction_measures_the_noise():
    """Oracle: quadratics: σ²_m = (noise · c_m)²/N and ‖∇L_m(θ⁰)‖² exactly; 8 batches of 10 in 20 dimensions leave 4 standard errors of 15 %."""
    method = Choice("lapg", optimiser=Part("sgd", step_size=0.01))
    config = Config(
        problem=Part("quadratic", num_learners=2, scales=(1.0, 0.1), noise=0.5), estimator=Part("noisy")
    ).playing(method)
    lines = values(config)
    np.testing.assert_allclose(lines["σ̂²_m"].value, np.array([1.0, 0.01]) * 0.25 / 10, 0.15)
    assert lines["L_m"].certainty == "exact"
    assert lines["method"].value == "lapg"
    noisy = values(
        Config(problem=Part("quadratic", num_learners=2, noise=500.0), estimator=Part("noisy")).playing(method)
    )
    assert noisy["method"].value == "scout"
    assert "silences everybody" in noisy["change that (16) needs"].meaning


def test_predictions_label_what_they_rest_on(tmp_path, capsys):
    """Oracle: networks and normal policies have no bounds; the command prints what the function returns."""
    network = with_policy(cooperative_navigation(num_agents=2, num_steps=2), hidden=(3,))
    normal = linear_quadratic(num_learners=2, num_steps=2)
    for problem, words in ((network, "networks have no G and F"), (normal, "normal policies have infinite G and F")):
        found = known_constants(problem, problem.init(jax.random.key(0)), 0)
        assert found.certainty == "estimate"
        assert words in "; ".join(found.remarks)
    path = tmp_path / "experiment.toml"
    path.write_text('method = "pg"\n[problem]\nname = "garnet"\n[optimiser]\nstep_size = 0.1\n')
    main(["predict", str(path), "--json", "--batches", "2"])
    data = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert data["α"]["value"] == 0.1
    assert data["largest fractions"]["meaning"] == "PG uploads always"
