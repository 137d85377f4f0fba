"""The comparison protocol, the ledger and the paper's constants, on cases whose answers are known by hand."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from scipy import stats

from lapg.comparison import plots, presets, report, tables, tune
from lapg.comparison.curves import Curve, final, smoothed, start, to_curve, trailing_mean, window
from lapg.comparison.grids import is_baseline
from lapg.comparison.statistics import Comparison, Cost, Interval, Row, compare, late_improvement
from lapg.costs import ledger
from lapg.experiments.config import Choice
from lapg.methods import Part

ROUNDS = 1000


def curve(score, per_round=2, bits=64):
    """Uploads and bits grow at a constant rate."""
    score = np.atleast_2d(np.asarray(score, float))
    uploads = np.broadcast_to(per_round * (np.arange(score.shape[1]) + 1), score.shape)
    costs = {
        "uploads": uploads,
        "uplink_bits": bits * uploads,
        "downlink_bits": 3 * uploads,
        "bits": (bits + 3) * uploads,
    }
    return Curve(score, 2 * score, costs, np.array([0.5, 0.25]), np.full(score.shape[1], 0.1))


@pytest.fixture
def two_seeds_suffice(monkeypatch):
    """Resamples of two seeds can be counted by hand; the rule that asks for more has a test of its own."""
    monkeypatch.setattr("lapg.comparison.statistics.MIN_SEEDS", 2)


def triple(*numbers):
    return Interval(*map(float, numbers))


def step(*rounds, height=1.0):
    """One seed per entry: 0 before the round, ``height`` from there on; None is never."""
    return [np.where(np.arange(ROUNDS) >= at, height, 0.0) if at is not None else np.zeros(ROUNDS) for at in rounds]


# ---------------------------------------------------------------- targets, hits, costs


def test_trailing_mean():
    """Oracle: by hand, and NumPy's mean of every window; shorter curves have one mean, of all."""
    np.testing.assert_allclose(trailing_mean(np.array([1.0, 2.0, 4.0, 8.0]), 2), [1.5, 3.0, 6.0])
    values = np.random.default_rng(0).normal(size=(2, 1010))
    expected = np.stack([[row[end - 50 : end].mean() for end in range(50, 1011)] for row in values])
    np.testing.assert_allclose(trailing_mean(values), expected, atol=1e-13)
    np.testing.assert_allclose(trailing_mean(values[:, :7], 9), values[:, :7].mean(1, keepdims=True), atol=1e-14)


@pytest.mark.parametrize("wild", [-1e18, 1e300, math.nan, math.inf, -math.inf])
def test_a_wild_value_leaves_the_mean_with_its_window(two_seeds_suffice, wild):
    """Oracle: NumPy's mean of each window by itself, and the protocol by hand.

    PG jumps from 0 to 1 in round 100, the other stays at 0.5: it never reaches 0.9, before or after a value that no window should remember. What is
    not finite is no hit, and neither is a mean over seeds that a run spoils, from which the runs without it are not spared.
    """
    values = np.full((2, ROUNDS), 0.5)
    values[0, 300] = wild
    with np.errstate(invalid="ignore", over="ignore"):
        expected = [values[0, end - 50 : end].mean() for end in range(50, ROUNDS + 1)]
    np.testing.assert_allclose(trailing_mean(values)[0], expected, rtol=1e-12)
    if wild != 1e300:  # that is a hit, if an odd one
        cost = compare({"PG": curve(step(100, 100)), "other": curve(values)}).rows["other"].costs[0.90]
        assert cost.rounds == triple(math.inf, math.inf, math.inf)
        assert cost.seed_rounds == (math.inf, math.inf)


def test_a_run_that_diverged_spoils_no_resample_without_it(two_seeds_suffice):
    """Oracle: by hand. Of two seeds the first diverges: in a quarter of the resamples it does not occur, and the target is reached there in round 145."""
    wild = np.stack(step(100, 100))
    wild[0, 50:] = np.nan
    row = compare({"PG": curve(step(100, 100)), "wild": curve(wild)}).rows["wild"]
    assert row.costs[0.90].rounds == triple(math.inf, 145, math.inf)
    assert row.costs[0.90].seed_rounds == (math.inf, 145.0)
    assert row.final == triple(-math.inf, -math.inf, 1)
    assert row.difference == triple(-math.inf, -math.inf, 0)


def test_costs_by_hand(two_seeds_suffice):
    """Oracle: by hand.

    PG jumps from 0 to 1 at round 100, so J₀ = 0, J_F = 1 and the targets are 0.9 and 0.95: 45 and 48 of the last 50 rounds
    at 1, in rounds 145 and 148 counted from 1. The rival jumps 20 rounds later and uploads half as much.
    """
    found = compare({"PG": curve(step(100, 100)), "slow": curve(step(120, 120), per_round=1, bits=32)})
    pg, slow = found.rows["PG"], found.rows["slow"]

    def exactly(value):
        return triple(value, value, value)  # equal seeds: no spread

    assert pg.costs[0.90].rounds == exactly(145)
    assert pg.costs[0.95].rounds == exactly(148)
    assert pg.costs[0.90].uploads == exactly(290)
    assert pg.costs[0.90].spent["uplink_bits"] == exactly(290 * 64)
    assert pg.final == exactly(1)
    assert (pg.raw_final, pg.totals["uploads"], pg.totals["bits"]) == (2.0, 2000.0, 2000 * 67.0)
    assert pg.seed_finals == (1.0, 1.0)
    assert slow.costs[0.90].rounds == exactly(165)
    assert slow.costs[0.95].rounds == exactly(168)
    assert slow.costs[0.90].uploads == exactly(165)
    assert slow.costs[0.90].spent["uplink_bits"] == exactly(165 * 32)
    assert slow.costs[0.90].rounds_ratio == exactly(165 / 145)
    assert slow.costs[0.90].uploads_saving == exactly(290 / 165)
    assert slow.costs[0.90].seed_rounds == (165.0, 165.0)
    assert slow.costs[0.90].seed_spent["bits"] == (165 * 35.0, 165 * 35.0)
    assert slow.costs[0.90].spent["downlink_bits"] == exactly(165 * 3)
    assert slow.costs[0.90].savings["uplink_bits"] == exactly(290 * 64 / (165 * 32))
    assert slow.difference == exactly(0)
    assert slow.not_inferior
    assert found.saving("slow", "PG") == exactly(290 / 165)
    assert found.saving("PG", "slow", 0.95) == exactly(168 / 296)
    assert found.saving("slow", "PG", cost="bits") == exactly(290 * 67 / (165 * 35))


def test_start_and_end_of_the_reference(two_seeds_suffice):
    """Oracle: by hand.

    −3 for ten rounds, then 0, then 2 in the last 50 of 1000: J₀ = −3, J_F = 2, target −3 + 0.9 · 5 = 1.5, which the 50-round mean reaches when 38 of
    its rounds are at 2, in round 988. A constant 1.5 meets it when the first 50 rounds are over; its shortfall is 0.5 of 5.
    """
    score = np.zeros(ROUNDS)
    score[:10], score[-50:] = -3, 2
    found = compare({"PG": curve([score] * 2), "constant": curve(np.full((2, ROUNDS), 1.5))})
    assert found.rows["PG"].costs[0.90].rounds.value == 988
    assert found.rows["constant"].costs[0.90].rounds.value == 50
    assert found.rows["constant"].difference == triple(-0.1, -0.1, -0.1)
    assert not found.rows["constant"].not_inferior


def test_a_reference_that_misses_its_own_target(two_seeds_suffice):
    """Oracle: by hand.

    PG scores in four rounds alone, 58 apart, of the last 175 of 3500: J_F = 4/175, but no 50 rounds hold more than one, and 1/50 < 0.9 · 4/175. There
    is nothing over which rounds could be a ratio; a constant 1 reaches the target after 50.
    """
    score = np.zeros(3500)
    score[[3325, 3383, 3441, 3499]] = 1
    found = compare({"PG": curve([score] * 2), "constant": curve(np.ones((2, 3500)))})
    cost = found.rows["constant"].costs[0.90]
    assert (cost.rounds.value, found.rows["PG"].costs[0.90].rounds.value) == (50, math.inf)
    assert all(math.isnan(value) for value in dataclasses.astuple(cost.rounds_ratio))
    assert cost.uploads_saving == triple(math.inf, math.inf, math.inf)
    assert report.verdicts(found, {"constant": None})[0].measured == "–"
    assert report.verdicts(found, {"constant": None})[0].outcome == "undecided"


@pytest.mark.parametrize("rounds", [40, 80, 300])
def test_short_runs_are_judged_like_long_ones(two_seeds_suffice, rounds):
    """Oracle: the curves themselves, which are formulas.

    PG rises to 1 − e⁻⁴ over the run; the other does the same in half the rounds and then falls back. By its curve it is at 90 % in .29 of the rounds, PG
    in .58 of them; whoever averages over all rounds sees neither.
    """
    time = np.arange(rounds) / rounds
    slow = 1 - np.exp(-4 * time)
    fast = np.where(time < 0.6, 1 - np.exp(-8 * time), 0.2)
    found = compare({"PG": curve([slow] * 2), "fast": curve([fast] * 2)}).rows
    reached = [found[label].costs[0.90].rounds.value / rounds for label in ("PG", "fast")]
    np.testing.assert_allclose(reached, [0.58, 0.29], atol=0.05)
    assert not found["fast"].not_inferior


def test_long_runs_are_judged_as_ever():
    """Oracle: the numbers of the protocol, 10 and 50 rounds and 5 %, for every K from 1000 on; and of 80, 5 % are 4."""
    for rounds in (1000, 1200, 3000, 3500):
        values = np.random.default_rng(0).normal(size=(3, rounds))
        np.testing.assert_array_equal(start(values), values[:, :10].mean(1))
        assert trailing_mean(values).shape == (3, rounds - 49)
        np.testing.assert_array_equal(final(values), values[:, -(rounds // 20) :].mean(1))
    short = np.arange(80.0)
    assert (start(short), final(short), trailing_mean(short)[0], window(80)) == (1.5, 77.5, 1.5, 4)
    assert (window(1), window(20), window(300), window(10**6)) == (1, 1, 15, 50)


def test_hits_are_of_the_seed_mean(two_seeds_suffice):
    """Oracle: by hand.

    Jumps at 100 and 120: the mean of both needs 90 ones in two windows of 50, 50 + 40, in round 120 + 40. A resample is
    the first seed twice, the second twice, or both; each has at least a quarter of the weight.
    """
    found = compare({"PG": curve(step(100, 100)), "mixed": curve(step(100, 120))})
    cost = found.rows["mixed"].costs[0.90]
    assert cost.rounds == triple(160, 145, 165)
    assert cost.uploads == triple(320, 290, 330)
    assert cost.rounds_ratio == triple(160 / 145, 1, 165 / 145)
    assert cost.uploads_saving == triple(290 / 320, 290 / 330, 1)
    assert cost.seed_rounds == (145.0, 165.0)


def test_misses_are_censored_not_dropped(two_seeds_suffice):
    """Oracle: by hand. One of two seeds never jumps: the mean never reaches 0.9, the resample of the lucky seed alone does in round 145."""
    found = compare({"PG": curve(step(100, 100)), "half": curve(step(100, None)), "none": curve(step(None, None))})
    half, none = (found.rows[label].costs[0.90] for label in ("half", "none"))
    assert half.rounds == triple(math.inf, 145, math.inf)
    assert half.uploads == triple(math.inf, 290, math.inf)
    assert half.rounds_ratio == triple(math.inf, 1, math.inf)
    assert half.uploads_saving == triple(0, 0, 1)
    assert half.seed_rounds == (145.0, math.inf)
    assert none.rounds == none.uploads == none.rounds_ratio == triple(math.inf, math.inf, math.inf)
    assert none.uploads_saving == found.saving("none", "half") == triple(0, 0, 0)
    assert found.saving("PG", "none") == triple(math.inf, math.inf, math.inf)
    assert found.rows["none"].difference == triple(-1, -1, -1)
    assert list(found.rows) == ["PG", "half", "none"]


def test_identical_methods():
    """Oracle: the limit: whatever PG does, its twin has ratio 1, saving 1 and difference 0 in every resample."""
    noisy = np.stack(step(80, 90, 110, 125, 130)) + np.random.default_rng(0).normal(size=(5, ROUNDS)) / 10
    row = compare({"twin": curve(noisy), "PG": curve(noisy)}).rows["twin"]
    for level in (0.90, 0.95):
        assert row.costs[level].rounds_ratio == triple(1, 1, 1)
        assert row.costs[level].uploads_saving == triple(1, 1, 1)
    assert row.difference == triple(0, 0, 0)
    assert row.final.low < row.final.value < row.final.high


def test_differences_are_paired(two_seeds_suffice):
    """Oracle: by hand.

    The rival is 0.1 above PG in every seed, whatever the seed's level: +0.1 of PG's improvement with a width of nothing
    but PG's own improvement; unpaired it would be about ±0.9.
    """
    levels = np.array([1.0, 2.0, 3.0, 4.0])[:, None] + np.stack(step(100, 100, 100, 100))
    row = compare({"PG": curve(levels), "better": curve(levels + np.stack(step(100, 100, 100, 100, height=0.1)))}).rows
    np.testing.assert_allclose(dataclasses.astuple(row["better"].difference), 0.1, atol=1e-12)
    assert row["better"].final.high - row["better"].final.low > 1


def test_probability_of_improvement(two_seeds_suffice):
    """Oracle: by hand, and rliable's definition.

    Finals 1, 2, 3, 4 against 2, 2, 0, 5: of 16 pairs the first wins 1 + 1 + 3 + 3 and ties in 2. By uploads, two of the first's seeds miss the target
    and three of the other's, which tie with each other and lose against those that hit.
    """
    heights, others = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 0.0, 5.0])
    pairs = [(x > y) + 0.5 * (x == y) for x in heights for y in others]
    first = curve(np.stack(step(*[100] * 4)) * heights[:, None])
    found = compare({"PG": first, "other": curve(np.stack(step(*[120] * 4)) * others[:, None])})
    chance = found.improvement("PG", "other")
    assert chance.value == np.mean(pairs) == 9 / 16
    assert 0 <= chance.low < chance.value < chance.high <= 1
    assert found.improvement("other", "PG").value == 1 - chance.value
    # the target is 2.25: seeds 2 and 3 of the first reach it, the last of the other, later
    assert found.rows["PG"].costs[0.90].seed_spent["uploads"][:2] == (math.inf, math.inf)
    by_uploads = [[0.5, 0.5, 0.5, 0.0]] * 2 + [[1.0, 1.0, 1.0, 1.0]] * 2
    assert found.improvement("PG", "other", "uploads").value == np.mean(by_uploads)


def test_probability_with_a_run_that_diverged():
    """Oracle: by hand. Half of the rival's runs end in NaN, which is worse than anything."""
    rival = np.stack(step(100, 100))
    rival[1, 150:] = np.nan
    found = compare({"PG": curve(step(100, 100, height=0.5)), "wild": curve(rival)})
    assert found.improvement("PG", "wild").value == 0.5
    assert found.improvement("wild", "PG").value == 0.5


def test_a_reference_that_gains_nothing():
    """Oracle: no improvement has no share."""
    row = compare({"PG": curve(np.ones((2, ROUNDS))), "other": curve(np.ones((2, ROUNDS)))}).rows["other"]
    assert math.isnan(row.difference.value)
    assert not row.not_inferior


def test_a_reference_that_gets_worse():
    """Oracle: what falls from 0 to -1 sets no target, so that nobody reaches one and no claim holds or fails."""
    falling = -np.minimum(np.arange(ROUNDS), 100) / 100
    curves = {"PG": curve([falling] * 3), "LAPG": curve([falling] * 3, per_round=1)}
    comparison = compare(curves)
    cost = comparison.rows["LAPG"].costs[0.90]
    assert cost.rounds.value == cost.uploads.value == math.inf
    assert math.isnan(cost.rounds_ratio.value)
    assert math.isnan(cost.uploads_saving.value)
    assert {verdict.outcome for verdict in report.verdicts(comparison, {"LAPG": "observable"})} == {"undecided"}
    assert "does not improve" in report.markdown("title", comparison, [], curves)


def test_comparable_methods_only(unchecked):
    """Oracle: the rule that methods share seeds and rounds, and that PG is there."""
    with pytest.raises(ValueError, match=r"needs 'PG' among its methods, got a, b"):
        compare({"a": curve(step(100)), "b": curve(step(100))})
    with pytest.raises(ValueError, match=r"must share seeds and rounds, got .*\(1, 1000, 1000\), \(2, 1000, 1000\)"):
        compare({"PG": curve(step(100)), "b": curve(step(100, 100))})


# ---------------------------------------------------------------- the best baseline


def test_best_baseline_is_chosen_by_cost(two_seeds_suffice):
    """Oracle: by hand.

    PG spends 290 uploads to 90 %. Baselines: 'clock' reaches it in the same 145 rounds with half an upload each, of 400 bits; 'coin' with one, of 64
    bits; 'lame' with a tenth, but ends 10 % lower; 'mute' never. Of uploads the clock is best, of bits the coin, and neither is 'lame', which would be.
    """
    curves = {
        "PG": curve(step(100, 100)),
        "new": curve(step(100, 100), per_round=0.25),
        "clock": curve(step(100, 100), per_round=0.5, bits=400),
        "coin": curve(step(100, 100), per_round=1),
        "lame": curve(step(100, 100, height=0.93), per_round=0.1),
        "mute": curve(step(None, None), per_round=0.01),
    }
    found = compare(curves, baselines=["mute", "lame", "coin", "clock"])
    assert [found.best_baseline(cost=cost) for cost in ("uploads", "bits")] == ["clock", "coin"]
    assert found.over_best_baseline("new") == triple(2, 2, 2)
    assert found.over_best_baseline("PG") == triple(0.25, 0.25, 0.25)
    assert found.over_best_baseline("clock") == triple(1, 1, 1)
    assert found.over_best_baseline("mute") == triple(0, 0, 0)
    assert found.over_best_baseline("new", cost="bits") == triple(4, 4, 4)
    # if all that reach the target end lower, they are what there is; if none reaches it, there is nothing to be better than
    only = compare(curves, baselines=["mute", "lame"])
    assert only.best_baseline() == "lame"
    none = compare(curves, baselines=["mute"])
    assert none.best_baseline() is None
    assert math.isnan(none.over_best_baseline("new").value)
    assert "none reaches it" in report.markdown("title", none, [], curves)
    with pytest.raises(ValueError, match="needs 'clack' among its methods"):
        compare(curves, baselines=["clack"])


def test_the_best_baseline_is_in_every_table(tmp_path, two_seeds_suffice):
    """Oracle: by hand, as above: 290 bits-and-uploads of PG against a quarter, a half and one of them a round."""
    curves = {
        "PG": curve(step(100, 100)),
        "new": curve(step(100, 100), per_round=0.25),
        "clock": curve(step(100, 100), per_round=0.5, bits=400),
        "coin": curve(step(100, 100), per_round=1),
    }
    for name in curves:
        curves[name].costs["steps"] = 7 * curves["PG"].uploads
        curves[name].costs["seconds"] = curves[name].costs["joules"] = curves[name].uploads
    comparison = compare(curves, baselines=["clock", "coin"])
    text = report.markdown("title", comparison, [], curves)
    parts = {part.split("\n")[0]: part for part in text.split("## ")[1:]}
    assert (
        "| new | 90% | 145 | 36.25 [36.25, 36.25] | 1 [1, 1] | 8 [8, 8] | 2 [2, 2] (clock) |"
        in parts["Rounds and uploads to the targets"]
    )
    bits = parts["Bits to the targets, headers included"]
    header = bits.splitlines()[2]
    assert header.index("Mbit both") < header.index("Mbit up") < header.index("Mbit down")
    assert header.count("than the best baseline") == 2
    assert "| 4 [4, 4] (coin) | 4 [4, 4] (coin) |" in bits
    assert "(clock) |" in parts["Environment steps to the targets, all learners together"]
    assert parts["Time and energy to the targets"].splitlines()[2].count("than the best baseline") == 2
    assert "ends higher than clock" in parts["Probability that one run beats another"]
    summary = report.summary({"first": comparison, "second": comparison})
    assert "## Factor over the best baseline, in parentheses: uploads" in summary
    assert "| new | 2 [2, 2] (clock) | 2 [2, 2] (clock) |" in summary
    report.write_json(tmp_path / "report.json", comparison, [])
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["baselines"] == ["clock", "coin"]
    assert content["best_baseline"]["0.9"]["uploads"] == "clock"
    assert content["best_baseline"]["0.9"]["bits"] == "coin"
    factor = content["rows"]["new"]["costs"]["0.9"]["over_best_baseline"]["uploads"]
    assert factor == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_baselines_are_known_by_their_recipes():
    """Oracle: the docstrings of the recipes: those that know nothing of what they carry, in every variant, and FedAvg's clock."""
    blind = [Choice(name) for name in ("periodic", "random", "never", "fedavg")]
    blind.append(
        Choice("periodic", compressor=Part("quantise"), local=Part("sgd", step_scale=1.0), trigger=Part(period=50.0))
    )
    assert all(is_baseline(method) for method in blind)
    assert not any(is_baseline(Choice(name)) for name in ("pg", "lapg", "scout", "awapg", "lag_wk", "module:periodic"))


# ---------------------------------------------------------------- bootstrap


def test_intervals_agree_with_scipy():
    """Oracle: scipy's percentile bootstrap of the final scores.

    A 2.5 % quantile of n normal resamples has standard error
    √(0.025 · 0.975 / n) / φ(1.96) = 2.67/√n of their spread; 2,000 here and 10,000 there; five of them.
    """
    values = np.random.default_rng(1).normal(size=30)
    final = compare({"PG": curve(np.stack(step(*[100] * 30)) * values[:, None])}).rows["PG"].final
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2))
    tolerance = 5 * 2.67 * math.sqrt(1 / 2000 + 1 / 10_000) * theirs.standard_error
    assert final.value == pytest.approx(values.mean())
    assert final.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert final.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def test_coverage():
    """Oracle: Student's t.

    The percentile interval of n = 20 normal values is their mean ± 1.96 s √(19/20)/√20, which covers with
    probability P(|t₁₉| < 1.96 √(19/20)) = 0.929; 300 experiments within four standard errors.
    """
    random, covered = np.random.default_rng(3), 0
    for _ in range(300):
        scores = np.zeros((20, 12)) + random.normal(size=(20, 1))
        final = compare({"PG": curve(scores)}).rows["PG"].final
        covered += final.low <= 0 <= final.high
    expected = 1 - 2 * stats.t.sf(1.96 * math.sqrt(19 / 20), 19)
    assert abs(covered / 300 - expected) < 4 * math.sqrt(expected * (1 - expected) / 300)


# ---------------------------------------------------------------- from records


def make_record():
    """Two seeds, 60 rounds, two learners; dims in another order than the code's own."""
    shape, dims = (60, 2, 2), ("round", "learner", "seed")
    sent = np.zeros(shape, bool)
    sent[0] = True
    sent[10:, 1] = True
    there = np.ones(shape, bool)
    there[:30, 0] = False
    fields = {
        "sent": sent,
        "uplink_bits": 256 * sent,
        "participated": there,
        "downlink_bits": 72 * there,
        "noise": np.full(shape, 2.0),
        "gradient_norm": np.full(shape, 6.0**0.5),
        "score_scaled": np.zeros(shape) + np.array([1.0, 3.0])[:, None] + np.array([0.0, 10.0]),
        "score_raw": np.ones(shape),
    }
    return xr.Dataset({name: (dims, value) for name, value in fields.items()}, {"seed": [3, 4]})


def test_to_curve():
    """Oracle: by hand.

    Both upload in round 0, learner 1 from round 10 on; 256 bits and a header of 160 each. Learner 0 hears nothing in the first 30 rounds, the other
    always; 72 bits and a header. ‖g‖² = 6 is 4 signal and 2 noise.
    """
    found = to_curve(make_record())
    np.testing.assert_array_equal(found.score, [[2.0] * 60, [12.0] * 60])
    np.testing.assert_array_equal(found.raw_score, np.ones((2, 60)))
    uploads = np.array([2] * 10 + list(range(3, 53)))
    np.testing.assert_array_equal(found.uploads, [uploads, uploads])
    np.testing.assert_array_equal(found.costs["uplink_bits"], 416 * found.uploads)
    np.testing.assert_array_equal(found.costs["downlink_bits"][:, [0, 29, 59]], [[232, 232 * 30, 232 * 90]] * 2)
    np.testing.assert_array_equal(found.costs["bits"], found.costs["uplink_bits"] + found.costs["downlink_bits"])
    assert list(found.costs) == ["uploads", "bits", "uplink_bits", "downlink_bits"]
    counted = make_record()
    counted["training_steps"] = 2**30 * counted["participated"].astype(np.int32)
    steps = to_curve(counted).costs["steps"]  # of one learner in the first half, of two in the other; beyond 32 bits
    np.testing.assert_array_equal(steps[:, [0, 29, 59]], [[2**30, 2**30 * 30, 2**30 * 90]] * 2)
    np.testing.assert_allclose(found.upload_rates, [1 / 60, 51 / 60])
    np.testing.assert_allclose(found.noise_to_signal, 0.5, 1e-12)
    assert 0 < len(found.noise_to_signal) <= 60


def test_noise_that_hides_the_signal():
    """Oracle: by hand. ‖g‖² = 6 with noise 7 leaves no signal to divide by; no noise at all is ratio 0."""
    record = make_record()
    assert np.isnan(to_curve(record.assign(noise=record["noise"] + 5)).noise_to_signal).all()
    assert (to_curve(record.drop_vars("noise")).noise_to_signal == 0).all()


def test_late_improvement():
    """Oracle: by hand. A line of slope 1 over 1000 rounds: ends at 974.5 (rounds 950 to 999), stood at 774.5 a fifth earlier, began at 4.5."""
    assert late_improvement(curve(np.arange(1000.0))) == pytest.approx(200 / 970)
    assert late_improvement(curve(step(100, 120))) == 0


# ---------------------------------------------------------------- verdicts and reports


def test_few_seeds_decide_nothing():
    """Oracle: the rule: below five seeds there are no intervals and no verdicts, whatever the numbers; at five, equal seeds have none but their value."""
    curves = {
        count: {"PG": curve(step(*[100] * count)), "new": curve(step(*[50] * count), per_round=0.5)}
        for count in (1, 4, 5)
    }
    for count, own in curves.items():
        comparison = compare(own, baselines=["new"])
        cost = comparison.rows["new"].costs[0.90]
        outcomes = {verdict.outcome for verdict in report.verdicts(comparison, {"new": "observable"})}
        text = report.markdown("title", comparison, [], own)
        assert cost.uploads.value == pytest.approx(0.5 * 95)
        if count == 5:
            assert outcomes == {"holds"}
            assert cost.uploads.low == cost.uploads.high == pytest.approx(0.5 * 95)
            assert "Fewer than" not in text
        else:
            assert outcomes == {"undecided"}
            for found in (
                cost.uploads,
                cost.rounds_ratio,
                comparison.saving("new", "PG"),
                comparison.improvement("new", "PG"),
            ):
                assert math.isnan(found.low)
                assert math.isnan(found.high)
            assert not comparison.rows["new"].not_inferior
            assert "Fewer than 5 seeds" in text
            assert "[95" not in text.replace("[95 %]", "")


def test_a_run_that_diverged_is_inferior():
    """Oracle: the rule: a method one of whose runs ends in NaN has no final score, which its mean without that run cannot mend."""
    wild = np.stack(step(*[100] * 6))
    wild[0, 950:] = np.nan
    comparison = compare({"PG": curve(step(*[100] * 6)), "wild": curve(wild)})
    verdict = report.verdicts(comparison, {"wild": None})[1]
    assert (verdict.outcome, verdict.measured) == ("does not hold", "diverged [diverged, 0]")
    assert not comparison.rows["wild"].not_inferior


def judged(ratio=(1.0, 1.0, 1.0), saving=(2.0, 2.0, 2.0), difference=(0.0, 0.0, 0.0)):
    """A comparison with PG and a method of these intervals."""
    flat = triple(100, 90, 110)

    def row(label, ratio, saving, difference):
        uploads, saved = {"uploads": flat}, {"uploads": triple(*saving)}
        cost = Cost(flat, triple(*ratio), uploads, saved, (100.0, math.inf), {"uploads": (200.0, math.inf)})
        finals = (0.9, 1.1)
        return Row(label, triple(1, 0.9, 1.1), 1.0, {}, finals, triple(*difference), {0.90: cost, 0.95: cost})

    rows = {"PG": row("PG", (1, 1, 1), (1, 1, 1), (0, 0, 0)), "new": row("new", ratio, saving, difference)}
    return Comparison(rows, {}, np.full((1, 2), 0.5))


@pytest.mark.parametrize(
    ("which", "measured", "outcome"),
    [  # rounds ratio at most 1.1
        (0, {"ratio": (1.0, 0.9, 1.1)}, "holds"),
        (0, {"ratio": (1.0, 0.9, 1.11)}, "undecided"),
        (0, {"ratio": (1.2, 1.11, 1.3)}, "does not hold"),
        (0, {"ratio": (math.inf, 1.0, math.inf)}, "undecided"),
        (0, {"ratio": (math.inf, math.inf, math.inf)}, "does not hold"),
        # final return within 5 % of the improvement
        (1, {"difference": (0.0, -0.049, 0.1)}, "holds"),
        (1, {"difference": (0.0, -0.05, 0.1)}, "undecided"),
        (1, {"difference": (-0.1, -0.2, -0.051)}, "does not hold"),
        (1, {"difference": (math.nan, math.nan, math.nan)}, "undecided"),
        # "significantly smaller": at least 1.5 times fewer uploads
        (2, {"saving": (1.8, 1.5, 2.0)}, "holds"),
        (2, {"saving": (1.8, 1.49, 2.0)}, "undecided"),
        (2, {"saving": (1.2, 1.0, 1.49)}, "does not hold"),
        (2, {"saving": (0.0, 0.0, 0.0)}, "does not hold"),
        # a run that diverged, and one seed
        (1, {"difference": (-math.inf, -math.inf, 0.1)}, "does not hold"),
        (1, {"difference": (-math.inf, math.nan, math.nan)}, "undecided"),
        (0, {"ratio": (1.0, math.nan, math.nan)}, "undecided"),
        (2, {"saving": (9.0, math.nan, math.nan)}, "undecided"),
    ],
)
def test_verdicts(which, measured, outcome):
    """Oracle: the rule: the whole interval on the claim's side, on the other, or neither."""
    found = report.verdicts(judged(**measured), {"new": "significantly smaller"})
    assert [verdict.label for verdict in found] == ["new"] * 3
    assert found[which].outcome == outcome


def test_words_have_their_factors():
    """Oracle: the table of our reading of the paper's words; every figure's word is in it, and 'much fewer' asks for more."""
    assert {figure.claim for figure in presets.PAPER} == set(report.SAVING_MEANT)
    for word, outcome in {"observable": "holds", "sizable": "holds", "much fewer": "does not hold"}.items():
        assert report.verdicts(judged(saving=(1.7, 1.6, 1.9)), {"new": word})[2].outcome == outcome
    assert report.verdicts(judged(), {}) == []


@pytest.mark.parametrize(
    ("momentum", "outcome"),
    [((3.0, 2.1, 4.0), "holds"), ((2.5, 1.9, 3.0), "undecided"), ((0.9, 0.8, 0.99), "does not hold")],
)
def test_momentum_verdict(momentum, outcome):
    """Oracle: the rule: disjoint intervals or undecided; without momentum the saving is 1.5 [1, 2]."""
    assert report.momentum_verdict(Interval(1.5, 1.0, 2.0), Interval(*momentum), "AWAPG").outcome == outcome


def test_reports_name_everything(tmp_path, two_seeds_suffice):
    """Oracle: every label, claim, seed and miss of the rows; misses are words in the text and null in JSON."""
    curves = {
        "PG": curve(step(100, 100)),
        "half": curve(step(100, None)),
        "periodic": curve(step(120, 120), per_round=1),
    }
    comparison = compare(curves, baselines=["periodic"])
    found = report.verdicts(comparison, {"half": "sizable"})
    text = report.markdown("A title", comparison, found, curves)
    assert text.startswith("# A title\n")
    assert "2 seeds, 1000 rounds. PG gains 0.0% " in text
    for label in curves:
        assert text.count(f"\n| {label} | ") == 6  # final scores, uploads and bits to two targets each, probabilities
    assert "- half: 145, >1000" in text
    assert "- periodic: 165, 165" in text
    assert (
        "| half | 90% | missed | missed [290, missed] | missed [1, missed] | missed [missed, 1] | missed [missed, 0.569] (periodic) |"
        in text
    )
    assert "| periodic | 90% | 0.0111 [0.0111, 0.0111] | 0.0106 [0.0106, 0.0106] | 0.000495 [" in text
    for verdict in found:
        assert f"| {verdict.claim} | half | {verdict.measured} | {verdict.outcome} |" in text
    assert "seconds" not in text
    report.write_json(tmp_path / "report.json", comparison, found)
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content["rows"].keys() == curves.keys()
    assert content["rows"]["half"]["costs"]["0.9"]["rounds"] == {"value": None, "low": 145.0, "high": None}
    assert content["verdicts"][0] == dataclasses.asdict(found[0])


def test_numbers():
    """Oracle: by hand."""
    values = [12345.6, 0.12345, 2.0, math.inf, -math.inf, math.nan]
    assert [tables.number(value) for value in values] == ["12,346", "0.123", "2", "missed", "diverged", "–"]
    assert tables.interval(Interval(1.0, 0.5, math.inf)) == "1 [0.5, missed]"
    assert tables.interval(Interval(1.0, math.nan, math.nan)) == "1"
    assert tables.times_fewer(Interval(math.inf, 2.0, math.inf)) == "∞ [2, ∞]"


def test_what_pictures_show(tmp_path, monkeypatch):
    """Oracle: the figure's own objects: lines begin in round 1, the band and the reference have their names, and the legend lies outside all panels."""
    drawn = []
    monkeypatch.setattr(plots.matplotlib().figure.Figure, "savefig", lambda figure, path: drawn.append(figure))
    curves = {"dense": curve(step(100, 100)), "SCOUT": curve(step(120, 120), per_round=0.5)}
    plots.draw("A title", curves, 0.9, tmp_path / "figure.png", "dense")
    (figure,) = drawn
    figure.draw_without_rendering()
    (by_round, by_upload), _ = np.reshape(figure.axes, (2, 2))
    assert [line.get_xdata()[0] for line in by_round.lines[:2]] == [1, 1]
    assert [line.get_xdata()[0] for line in by_upload.lines[:2]] == [2, 0.5]
    assert by_round.lines[0].get_ydata()[0] == 0
    assert "of dense's" in by_round.texts[0].get_text()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "dense",
        "SCOUT",
        "band: ± ½ standard deviation over seeds",
    ]
    assert not any(axes.get_legend() for axes in figure.axes)
    assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)


@pytest.mark.parametrize("against", ["uploads", "bits"])
def test_a_second_cost_where_noise_is_unknown(tmp_path, monkeypatch, against):
    """Oracle: the figure's own objects: noise where one curve knows it; otherwise the other of uploads and bits, whose lines are the curves' own costs."""
    drawn = []
    monkeypatch.setattr(plots.matplotlib().figure.Figure, "savefig", lambda figure, path: drawn.append(figure))
    blind = dataclasses.replace(curve(step(100, 100)), noise_to_signal=np.full(ROUNDS, np.nan))
    seeing = dataclasses.replace(blind, noise_to_signal=np.ones(ROUNDS))
    for other in (blind, seeing):
        plots.draw("A title", {"dense": blind, "SCOUT": other}, 0.9, tmp_path / "figure.png", "dense", against=against)
    (_, first, third, _), (*_, noise, _) = (figure.axes for figure in drawn)
    second = {"uploads": "bits", "bits": "uploads"}[against]
    assert [axes.get_title() for axes in (first, third)] == [f"Return against {cost}" for cost in (against, second)]
    np.testing.assert_array_equal(third.lines[0].get_xdata(), blind.spent(second))
    assert noise.get_title() == "Noise to signal of one gradient"


def test_smoothed_from_the_first_round():
    """Oracle: NumPy's mean of what there is; from the window's length on it is the trailing mean of the protocol."""
    values = np.random.default_rng(0).normal(size=(2, ROUNDS))
    found = smoothed(values)
    np.testing.assert_allclose(
        found[:, :50], [[row[: end + 1].mean() for end in range(50)] for row in values], atol=1e-12
    )
    np.testing.assert_array_equal(found[:, 49:], trailing_mean(values))


def test_a_method_looks_alike_everywhere():
    """Oracle: the rule: colour and dashes are a function of the label, whoever else is there and in whatever case; no two lines look alike."""
    alone = {
        label: plots.styles([label])[label] for label in ("PG", "SCOUT", "periodic local", "random", "LAPG c=6", "mine")
    }
    together = plots.styles(["LAPG", "awapg", *reversed(alone), "periodic", "pg"][:-1])
    assert {label: together[label] for label in alone} == alone
    assert plots.styles(["periodic-local", "scout"]) == {
        "periodic-local": alone["periodic local"],
        "scout": alone["SCOUT"],
    }
    many = plots.styles([f"method {number}" for number in range(12)])
    assert len({str(style) for style in many.values()}) == 12


def test_brackets_are_printed(two_seeds_suffice):
    """Oracle: the cells: an interval of words is not taken for markup of the terminal."""
    comparison = compare({"PG": curve(step(100, 100)), "none": curve(step(None, None))})
    console = Console(file=io.StringIO(), width=500)
    report.show("A [title]", comparison, [], console, {"PG": {"points": 6, "seeds": 5, "note": "[by hand]"}})
    printed = console.file.getvalue()
    for words in ("missed [missed, missed]", "fewer uploads than PG [95 %]", "A [title]", "[by hand]"):
        assert words in printed


def test_budgets_are_in_every_report(tmp_path):
    """Oracle: what is passed in; what is not known is a dash."""
    curves = {"PG": curve(step(*[100] * 5))}
    budgets = {"PG": {"points": 12, "seeds": 5, "chosen": "step 1"}, "SCOUT": {"points": 9, "note": "as published"}}
    comparison = compare(curves)
    text = report.markdown("title", comparison, [], curves, budgets)
    assert "| PG | 12 | 5 | step 1 | – |\n| SCOUT | 9 | – | – | as published |" in text
    report.write_json(tmp_path / "report.json", comparison, [], budgets)
    assert json.loads((tmp_path / "report.json").read_text())["budgets"] == budgets


@pytest.mark.parametrize("rounds", [20, ROUNDS])
def test_pictures_of_short_and_long_runs(tmp_path, rounds):
    """Oracle: the signature of a PNG; runs shorter than the window have one trailing mean."""
    curves = {label: curve(np.stack(step(5, 6))[:, :rounds]) for label in ("PG", "other")}
    plots.draw("A title", curves, 0.9, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_tuning_chooses_by_the_protocol():
    """Oracle: by hand.

    'cheap' uploads least but is too slow, 'fair' is admitted and uploads less than 'costly'; where nothing is admitted,
    the best final score.
    """
    curves = {
        "PG": curve(step(100, 100)),
        "cheap": curve(step(130, 130), per_round=0.1),
        "fair": curve(step(105, 105), per_round=0.5),
        "costly": curve(step(100, 100), per_round=1),
        "weak": curve(step(100, 100, height=0.92), per_round=0.2),
    }
    comparison = compare(curves)
    assert tune.choose(comparison, ["cheap", "costly", "fair", "weak"]) == "fair"
    assert tune.choose(comparison, ["weak", "cheap"]) == "cheap"


# ---------------------------------------------------------------- ledger


def test_ledger_counts():
    """Oracle: by hand: running totals over rounds, all learners together, headers of 160 bits on what travels and on nothing else."""
    sent = np.array([[True, True], [False, True], [False, False], [True, False]])
    payload = np.array([[64, 32], [0, 32], [0, 0], [64, 0]])
    np.testing.assert_array_equal(ledger.num_uploads(sent), [2, 3, 3, 4])
    np.testing.assert_array_equal(ledger.uplink_bits(payload, sent, header=False), [96, 128, 128, 192])
    np.testing.assert_array_equal(
        ledger.uplink_bits(payload, sent), [96 + 2 * 160, 128 + 3 * 160, 128 + 3 * 160, 192 + 4 * 160]
    )
    there = np.array([[True, True], [True, False], [False, False], [True, True]])
    np.testing.assert_array_equal(
        ledger.downlink_bits(payload, there), [96 + 2 * 160, 128 + 3 * 160, 128 + 3 * 160, 192 + 5 * 160]
    )
    np.testing.assert_array_equal(ledger.downlink_bits(payload, there, header=False), [96, 128, 128, 192])
    np.testing.assert_array_equal(ledger.upload_fraction(sent), [0.5, 0.5])
    stacked = np.stack([sent, ~sent])
    np.testing.assert_array_equal(ledger.num_uploads(stacked), [[2, 3, 3, 4], [0, 1, 3, 4]])
    np.testing.assert_array_equal(ledger.upload_fraction(stacked), [[0.5, 0.5], [0.5, 0.5]])


def test_ledger_does_not_overflow():
    """Oracle: Python's integers: 300 messages of 2³⁰ bits, counted in 32-bit logs."""
    payload, sent = np.full((100, 3), 2**30, np.int32), np.ones((100, 3), bool)
    assert ledger.uplink_bits(payload, sent, header=False)[-1] == 300 * 2**30
    assert ledger.downlink_bits(payload, sent, header=False)[-1] == 300 * 2**30
