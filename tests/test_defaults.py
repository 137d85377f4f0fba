"""What a run does whose user has given no numbers: the pace of uploads, the limit of steps, and what is said while nobody uploads."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from lapg import Config, estimators, methods
from lapg.comparison.presets import FIGURES, lineup
from lapg.experiments.build import KL, build, build_problem, step_limit
from lapg.experiments.config import Choice
from lapg.experiments.silence import silence
from lapg.methods import Part
from lapg.problems import quadratic
from support import player

LEARNERS, STEP = 5, 0.02
QUADRATIC = Config(
    problem=Part("quadratic", num_learners=3),
    estimator=Part("noisy"),
    method="scout",
    optimiser=Part("sgd", step_size=STEP),
)


@pytest.fixture(scope="module")
def problem():
    return quadratic(num_learners=LEARNERS, dimension=4, noise=0.5)


@pytest.fixture(scope="module")
def setting(problem):
    return methods.Setting(estimators.noisy(problem.gradient), 2, LEARNERS, num_rounds=60)


@pytest.mark.parametrize(
    "recipe",
    [
        lambda setting: methods.compose(
            "scout", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(threshold=1e9)
        ),
        lambda setting: methods.compose(
            "scout", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(threshold=1e9, scale="step")
        ),
        lambda setting: methods.compose(
            "awapg", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(threshold=1e9)
        ),
        lambda setting: methods.compose(
            "lena", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(threshold=1e9)
        ),
    ],
)
def test_somebody_uploads_within_a_tenth_of_the_rounds(problem, setting, recipe):
    """Oracle: with a threshold that nobody reaches one upload, in round 5, the last of the first tenth of 60, and then the rule alone, which is silent.

    It is learner 4's, whose fractional part of (m + 1)(√5 − 1)/2 is the least of five (.09).
    """
    _, logs = player(lambda hyper: recipe(setting), problem, 30)({})
    assert np.argwhere(logs.sent).tolist() == [[5, 4]]


@pytest.mark.parametrize("change", [{"first_upload": None}, {"num_rounds": None}])
def test_nobody_is_made_to_speak_where_that_is_off(problem, setting, change):
    """Oracle: the same threshold without the fraction, or without a number of rounds to take it of: silence."""
    rounds = {name: value for name, value in change.items() if name == "num_rounds"}
    own = {name: value for name, value in change.items() if name == "first_upload"}
    recipe = lambda hyper: methods.compose(  # noqa: E731
        "scout",
        setting._replace(**rounds),
        optimiser=Part("sgd", step_size=STEP),
        trigger=Part(threshold=1e9, **own),
    )
    assert not player(recipe, problem, 30)({})[1].sent.any()


def test_explicit_thresholds_are_as_they_were(problem, setting):
    """Oracle: where uploads come before a tenth of the rounds anyway, the same numbers to the last bit with and without the fraction."""
    chosen = {"optimiser": Part("sgd", step_size=STEP), "trigger": Part(threshold=3.0)}
    found = [
        player(lambda hyper, s=s: methods.compose("scout", s, **chosen), problem, 30)({})
        for s in (setting, setting._replace(num_rounds=None))
    ]
    assert np.argmax(found[1][1].sent.any(1)) < 5
    np.testing.assert_array_equal(found[0][1].sent, found[1][1].sent)
    np.testing.assert_array_equal(found[0][0].controller.params, found[1][0].controller.params)


@pytest.mark.parametrize(("num_rounds", "threshold"), [(60, 18.0), (None, 2560.0)])
def test_the_default_threshold_follows_the_rounds(problem, setting, num_rounds, threshold):
    """Oracle: right over scale in round 0, where the scale is M ‖g‖ times the learner's fraction: κ = 0.3 K, or 2,560 where K is not known."""
    recipe = lambda hyper: methods.compose(  # noqa: E731
        "scout", setting._replace(num_rounds=num_rounds), optimiser=Part("sgd", step_size=STEP)
    )
    log = player(recipe, problem, 1)({})[1].learner
    fractions = (np.arange(LEARNERS) + 1) * (5**0.5 - 1) / 2 % 1
    np.testing.assert_allclose(
        log.trigger_threshold[0] / (LEARNERS * log.gradient_norm[0] * fractions), threshold, 1e-12
    )


def test_first_upload_is_a_fraction(setting):
    """Oracle: the message names the setting, the rule and the value."""
    with pytest.raises(
        ValueError, match=r"trigger\.first_upload must lie in \(0, 1\], a fraction of the rounds, got 1\.5"
    ):
        methods.compose("scout", setting, optimiser=Part("sgd", step_size=STEP), trigger=Part(first_upload=1.5))


@pytest.mark.parametrize(
    ("name", "parts"), [("scout", {}), ("fedavg", {}), ("periodic", {"local": Part("sgd", step_scale=1.0)})]
)
def test_local_steps_need_steps_in_proportion_to_gradients(setting, name, parts):
    """Oracle: a learner's own step foresees α_k/(1−β) of its gradient, which Adam does not make of it: refused, with the remedy; plain steps are not."""
    adam, plain = Part("adam", step_size=STEP), Part("sgd", step_size=STEP)
    with pytest.raises(ValueError, match=r"local .*linear in the gradients.*use optimiser sgd, no local steps"):
        methods.compose(name, setting, optimiser=adam, **parts)
    methods.compose(name, setting, optimiser=plain, **parts)
    methods.compose("awapg", setting, optimiser=adam)


PG = Choice("pg")


def limit(name="garnet", method=PG, **problem):
    config = Config(problem=Part(name, **problem)).playing(method)
    chosen = step_limit(config, build_problem(config))
    return chosen.options["limit"] if chosen.name == "kl" else None


def test_steps_are_limited_where_learners_share_a_policy():
    """Oracle: the rule: parallel RL with plain steps, by default; not where the policy is one of several agents, or there is none."""
    assert limit() == limit("cart_pole") == KL.options["limit"]
    assert limit(method=Choice("pg", step_limit=Part("kl", limit=5.0))) == 5
    assert limit(method=Choice("pg", step_limit=Part("unlimited"))) is None
    assert limit(method=Choice("pg", optimiser=Part("adam"))) is None
    assert limit("cooperative_navigation") is None
    assert limit(method=Choice("fedsvrpg_m")) is None
    assert limit("quadratic") is None


@pytest.mark.parametrize(
    ("given", "local"),
    [
        ({}, True),
        ({"step_limit": Part("kl", limit=5.0)}, False),
        ({"step_limit": Part(limit=5.0, local=True)}, True),
        ({"step_limit": Part("kl")}, False),
        ({"step_limit": Part("unlimited")}, False),
    ],
)
def test_own_steps_are_limited_where_the_limit_is_the_default(given, local):
    """Oracle: a learner keeps a slope exactly where steps of its own are limited: by default with the default limit, else as told."""
    built = build(Config(problem=Part("garnet"), method="scout", **given))
    learner = built.recipe({name: float(value) for name, value in built.hyper.items()}).learner
    params = built.problem.init(jax.random.key(0))
    assert bool(jax.tree.leaves(learner.init(jax.random.key(0), jnp.int32(0), params).slope)) == local


def test_ready_made_experiments_say_what_they_take():
    """Oracle: no entry of any ready-made experiment leaves a default that depends on the problem or on the rounds to be filled in."""
    for figure in FIGURES.values():
        for entry in lineup(figure, "recommended"):
            shares = figure.name.startswith("parallel")
            assert not shares or entry.config.step_limit.name, (figure.name, entry.label)
            assert entry.config.method != "scout" or "threshold" in entry.config.trigger.options, (
                figure.name,
                entry.label,
            )


def stretch(first, sent, left, right):
    """A segment of a record: one seed, one learner."""
    axes = ("seed", "round", "learner")
    values = {
        "sent": np.asarray(sent, bool),
        "trigger_statistic": np.asarray(left),
        "trigger_threshold": np.asarray(right),
    }
    found = {name: (axes, value[None, :, None]) for name, value in values.items()}
    return xr.Dataset(found, {"round": first + np.arange(len(sent))})


def told(config, *segments):
    words = []
    watch = silence(config, words.append)
    for segment in segments:
        watch(segment, int(segment["round"][-1]) + 1)
    return words


def test_silence_is_told_with_the_threshold_that_would_have_fired():
    """Oracle: by hand: K = 400, so after 40 rounds; the largest ratio since the last upload is .21 of κ = 500: 105, rounded down 100; said again at 80."""
    config = replace(QUADRATIC, trigger=Part(threshold=500.0), rounds=400)
    ones = np.ones(20)
    start = stretch(0, [False] * 9 + [True] + [False] * 10, np.where(np.arange(20) < 9, 0.9, 0.1), ones)
    quiet = [stretch(20 * (k + 1), [False] * 20, 0.21 * ones if k == 0 else 0.05 * ones, ones) for k in range(5)]
    assert told(config, start, quiet[0]) == []  # 30 rounds
    (first,) = told(config, start, *quiet[:2])
    assert "Nobody has uploaded in 50 rounds" in first
    assert "is 0.21, so --trigger.threshold 100 in place of 500 would have fired" in first
    assert len(told(config, start, *quiet)) == 2
    loud = [stretch(20 * k, [k % 2 == 0] + [False] * 19, ones, ones) for k in range(20)]
    assert told(config, *loud) == []


@pytest.mark.parametrize(
    ("method", "ratio", "words"),
    [
        (Choice("scout"), 0.5, "--trigger.threshold 60 in place of 120 would have fired"),
        (Choice("lapg"), 0.5, "a smaller --trigger.xi or --trigger.noise-weight"),
        (Choice("lapg"), 0.0, "the noise is not known (inf)"),
        (Choice("periodic", trigger=Part(period=300.0)), 0.5, None),
        (Choice("never"), 0.0, None),
    ],
)
def test_silence_is_told_in_the_method_s_own_terms(method, ratio, words):
    """Oracle: the remedy is a setting that the method has (κ = 0.3 · 400 by default); schedules are silent as they were asked."""
    right = np.ones(60) if ratio else np.full(60, np.inf)
    found = told(replace(QUADRATIC, rounds=400).playing(method), stretch(0, [False] * 60, np.full(60, ratio), right))
    assert (words is None and not found) or (len(found) == 1 and words in found[0])
