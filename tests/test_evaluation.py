"""Measuring is not learning: θ^k is scored beside the rounds, by nobody who learns, and every step of an environment is counted once."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from faults import Network
from lapg import Config, cli, estimators, methods, train
from lapg.comparison import plots, report
from lapg.comparison.curves import Curve, to_curve
from lapg.comparison.statistics import compare
from lapg.experiments.build import build
from lapg.experiments.config import Choice, EvaluationConfig
from lapg.experiments.soundness import last_score
from lapg.methods import Part
from lapg.policies import softmax_mlp, with_policy
from lapg.problems import cart_pole, quadratic
from lapg.problems.builders import from_environment, make_tasks
from lapg.problems.hosting import Host, from_hosts
from lapg.runtimes import Hosted, Sequential, Vectorised, wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.evaluation import Evaluation, finish_log, make_evaluator
from lapg.types import SCORE, Environment, Transition, address
from support import full, player

NUM, ROUNDS, LEARNERS, STEPS = 3, 7, 2, 12
HYPER = {"step_size": np.array([0.05, 0.1])}
SEEDS = [3, 4]


def local(setting, hyper):
    """Learners take steps of their own, and upload in every second round."""
    parts = {"local": Part("sgd", step_scale=1.0), "trigger": Part(period=2.0)}
    return methods.compose("periodic", setting, hyper=full(hyper), **parts)


def pg(setting, hyper):
    return methods.compose("pg", setting, hyper=full(hyper))


def recipe(problem, method=local, **options):
    setting = methods.Setting(estimators.gpomdp(problem.policy, 0.9), NUM, LEARNERS, **options)
    return lambda hyper: method(setting, hyper)


@pytest.fixture(scope="module")
def pole():
    return with_policy(cart_pole(num_learners=LEARNERS, num_steps=STEPS, heterogeneity=1.0), hidden=(4,))


def play(runtime, problem, made, evaluation, **options):
    lanes = runtime(made, problem, HYPER, SEEDS, chunk_rounds=4, evaluation=evaluation, **options)
    state, first = lanes.advance(lanes.start(), 0, ROUNDS)
    state, rest = lanes.advance(state, 4, ROUNDS)
    if runtime is Vectorised:
        assert lanes.num_traces == 1
    return state, jax.tree.map(lambda *parts: np.concatenate(parts, 1), first, rest)


def test_learners_with_steps_of_their_own_are_scored_at_the_controller_s_parameters(pole):
    """Oracle: the problem's own sample at θ^k with the keys of purpose SCORE, N episodes, round by round.

    Training episodes are others, at other parameters.
    """
    states, _ = player(recipe(pole), pole, ROUNDS, SEEDS[1])({"step_size": 0.1})
    _, log = play(Vectorised, pole, recipe(pole), Evaluation())

    @jax.jit
    def expected(params):
        def one(k, theta):
            key = lambda task: address(jax.random.key(SEEDS[1]), SCORE, task.index, k)  # noqa: E731
            return jax.vmap(lambda task: pole.score(task, pole.sample(key(task), task, theta, NUM)))(pole.tasks)

        return jax.vmap(one)(jnp.arange(ROUNDS), params)

    for name, values in expected(jnp.asarray(states.controller.params[:-1])).items():
        np.testing.assert_allclose(log.scores[name][1], values, 1e-12)
        assert not np.allclose(log.training_scores[name][1], values)
    assert log.evaluated.all()
    assert not log.sent.all()


@pytest.mark.parametrize("method", [local, pytest.param(pg, marks=pytest.mark.slow)])
def test_only_some_rounds_are_scored(pole, method):
    """Oracle: the run that is scored in every round: the same scores in rounds 0, 4 and the last, none in the others, and the very same learning."""
    whole, expected = play(Vectorised, pole, recipe(pole, method), Evaluation())
    for every, evaluated in ((4, [0, 4, ROUNDS - 1]), (0, [])):
        state, log = play(Vectorised, pole, recipe(pole, method), Evaluation(every, last=ROUNDS - 1))
        jax.tree.map(np.testing.assert_array_equal, state.controller, whole.controller)
        np.testing.assert_array_equal(log.sent, expected.sent)
        assert np.flatnonzero(log.evaluated.all((0, 2))).tolist() == evaluated
        np.testing.assert_array_equal(log.training_steps, expected.training_steps)
        assert set(log.scores) == (set(expected.scores) if every else set())
        for name, values in log.scores.items():
            np.testing.assert_array_equal(np.isnan(values), ~log.evaluated)
            np.testing.assert_allclose(values[:, evaluated], expected.scores[name][:, evaluated], 1e-12)
        trained = expected.training_scores if method is local else expected.scores
        for name, values in log.training_scores.items():
            np.testing.assert_allclose(values, trained[name], 1e-12)
        assert log.training_scores
        assert log.evaluation_steps[:, evaluated].any() == (method is local and every > 0)
        assert not np.delete(log.evaluation_steps, evaluated, 1).any()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "evaluation"), [(local, Evaluation(2)), (pg, Evaluation(2, 7))])
def test_the_plain_loop_scores_alike(pole, method, evaluation):
    """Oracle: the vectorised runtime, all of the log."""
    made = recipe(pole, method, participation=0.5)
    _, fast = play(Vectorised, pole, made, evaluation)
    _, plain = play(Sequential, pole, made, evaluation)
    assert fast.evaluated.any()
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, 1e-9, 1e-9), fast, plain)


# ---------------------------------------------------------------- counted steps

PLAYED = collections.Counter()


def walk(*, outside):
    """A walker at 1 has as its loss its distance to 0.3 and stops beyond ±2 or below −0.4; every step in Python is counted."""

    def moved(place, action):
        return place + jnp.asarray([-0.5, 0.25, 0.5])[action]

    def step(key, task, state, action):
        after = moved(state, action)
        return Transition(after, jnp.abs(after[0] - 0.3), jnp.abs(after[0]) >= 2, after[0] < -0.4)

    def make():
        place = [1.0]

        def reset(seed):
            place[0] = 1.0
            return np.array(place)

        def step(action):
            PLAYED["outside"] += 1
            place[0] += (-0.5, 0.25, 0.5)[action]
            return np.array(place), abs(place[0] - 0.3), abs(place[0]) >= 2, place[0] < -0.4

        return Host(reset, step)

    policy = softmax_mlp(1, (3,), 3, "tanh")
    common = {"tasks": make_tasks(LEARNERS, (1.0, 0.5)), "num_steps": 6, "discount": 0.9}
    if outside:
        return from_hosts("walk", make, policy, **common)
    return from_environment(
        Environment(lambda key, task: jnp.full(1, 1.0), lambda state: state, step), policy, **common
    )


@pytest.mark.parametrize(
    ("method", "evaluation"),
    [
        (local, Evaluation(3)),
        pytest.param(local, Evaluation(0), marks=pytest.mark.slow),
        pytest.param(pg, Evaluation(), marks=pytest.mark.slow),
        (pg, Evaluation(2, 8, True)),
    ],
)
def test_recorded_steps_are_those_that_were_played(method, evaluation):
    """Oracle: the environment's own count, in Python; the same walk inside JAX says the same of every learner and round."""
    problem = walk(outside=True)
    PLAYED.clear()
    _, log = play(Hosted, problem, recipe(problem, method), evaluation)
    assert log.training_steps.sum() + log.evaluation_steps.sum() == PLAYED["outside"]
    assert log.training_steps.min() >= NUM
    assert log.training_steps.max() <= NUM * 6
    assert 0 < (log.training_steps < NUM * 6).mean() < 1  # some episodes end early
    inside = walk(outside=False)
    _, expected = play(Vectorised, inside, recipe(inside, method), evaluation)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, 1e-9, 1e-9), log, expected)


def episodes(jaxpr, depth=0):
    """How many branches deep each loop over 6 steps stands in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan" and equation.params["length"] == 6:
            yield depth
        inside = depth + (equation.primitive.name == "cond")
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            program = getattr(inner, "jaxpr", inner)
            if hasattr(program, "eqns"):
                yield from episodes(program, inside)


def test_rounds_that_are_not_scored_cost_nothing_inside_jax():
    """Oracle: JAX's own program: training's episodes stand in the branch of rounds that are played, those of evaluation in one more, vmap or not."""
    inside = walk(outside=False)
    depths = {}
    for every in (0, 1, 5):
        lanes = Vectorised(recipe(inside), inside, HYPER, SEEDS, evaluation=Evaluation(every))
        program = lanes._chunk.trace(lanes._hypers, lanes._seeds, lanes.start(), jnp.int32(0), jnp.int32(4))
        depths[every] = set(episodes(program.jaxpr))
    assert depths == {0: {1}, 1: {1, 2}, 5: {1, 2}}


def test_absent_learners_learn_from_nothing(pole):
    """Oracle: by hand. Half of the learners take part: the others' steps are not training; where they were played for the score, they count as that."""
    _, log = play(Vectorised, pole, recipe(pole, pg, participation=0.5), Evaluation(2))
    away = ~log.participated
    assert away.mean() == 0.5
    assert not log.training_steps[away].any()
    assert np.isnan(log.training_scores["score_raw"][away]).all()
    np.testing.assert_array_equal(log.evaluation_steps > 0, away & log.evaluated)


def test_learners_elsewhere_never_play_for_the_score():
    """Oracle: the environment's own count while learners play, and the hosted runtime's scores, made by the controller's process."""
    problem = walk(outside=True)
    made, evaluation = recipe(problem), Evaluation(3)
    hyper = {"step_size": 0.1}
    compiled = Compiled(made, problem, hyper)
    network = Network(compiled, hyper, SEEDS[1], {}, evaluator=make_evaluator(problem, evaluation, compiled.method))
    logs = []
    for now in range(ROUNDS):
        PLAYED.clear()
        network.controller.open()
        for m, learner in enumerate(network.learners):
            answer = learner.hear(*wire.unframe(b"".join(network.controller.message(m))))
            network.controller.receive(m, answer.reply, answer.record)
        played = PLAYED["outside"]
        network.controller.close()
        logs.append(finish_log(jax.tree.map(lambda leaf: leaf[None], network.controller.logs()), now, evaluation))
        assert logs[-1].training_steps.sum() == played
        assert logs[-1].evaluation_steps.sum() == PLAYED["outside"] - played
    found = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs)
    _, expected = play(Hosted, problem, made, evaluation)
    expected = jax.tree.map(lambda leaf: leaf[1:], expected)
    found = dataclasses.replace(found, faults={})
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, 1e-9, 1e-9), found, expected)


# ---------------------------------------------------------------- records, comparisons, pictures

CONFIG = Config(
    problem=Part("cart_pole", num_learners=2, num_steps=8),
    estimator=Part("gpomdp", baseline="leave_one_out"),
    method="scout",
    optimiser=Part("sgd", step_size=0.05),
    trigger=Part(threshold=1.0),
    batch_size=3,
    rounds=12,
    seeds=2,
    evaluation=EvaluationConfig(every=5),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs by how often θ^k was scored."""
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run(every, method="scout"):
        rule = Choice(method, optimiser=Part("sgd", step_size=0.05)) if method == "pg" else CONFIG.choice
        config = dataclasses.replace(CONFIG.playing(rule), evaluation=EvaluationConfig(every=every))
        return train(config, folder / f"{method}-{every}", show_progress=False)

    return lambda every, method="scout": run(every, method)


def test_records_say_what_was_scored(trained):
    """Oracle: the run that was scored in every round; the words of the summary, by hand."""
    whole, some, none = (trained(every).record for every in (1, 5, 0))
    assert np.flatnonzero(some["evaluated"].all(("seed", "learner"))).tolist() == [0, 5, 10]
    xr.testing.assert_allclose(some["score_scaled"][:, ::5], whole["score_scaled"][:, ::5])
    assert np.isnan(some["score_raw"][:, 1]).all()
    assert "score_scaled" not in none
    xr.testing.assert_allclose(none["training_score_scaled"], whole["training_score_scaled"])
    for name in ("params", "sent", "uplink_bits", "training_steps"):
        np.testing.assert_array_equal(none[name], whole[name])
    np.testing.assert_array_equal(whole["training_steps"], 3 * whole["training_return_raw"])  # 1 a step lived
    np.testing.assert_array_equal(whole["evaluation_steps"], 3 * whole["return_raw"])
    last = {every: trained(every).record for every in (0, 1, 5)}
    for every, round, words in ((5, 10, "the evaluated rounds"), (1, 11, "the rounds")):
        score, total = (float(last[1][name][:, round].mean()) for name in ("score_scaled", "return_raw"))
        assert last_score(last[every]) == f"score {score:.4f}, return {total:.4g} (last 5 % of {words})"
    assert last_score(last[0]).startswith("score of training batches ")


def test_a_batch_sampled_there_is_the_score(trained):
    """Oracle: PG's learners sample at θ^k: no further steps are played, and the record has these scores once."""
    record = trained(1, "pg").record
    assert not record["evaluation_steps"].any()
    assert not [name for name in record if str(name).startswith("training_score")]
    np.testing.assert_array_equal(record["training_steps"], 3 * record["return_raw"])


def test_curves_with_gaps():
    """Oracle: by hand. Scores of rounds 0, 4, 8, ... of 400: means are of 5 evaluated rounds, costs those of the rounds in which they end.

    The reference rises from 0 to 1 in round 200, so that 90 % are reached by the fifth evaluation there, in round 216: 217 rounds.
    """
    rounds = np.arange(0, 400, 4)
    every = np.arange(1.0, 401)[None]
    costs = {"uploads": 2 * every, "bits": 10 * every, "uplink_bits": every, "downlink_bits": every, "steps": 7 * every}
    jump = Curve((rounds >= 200.0)[None] * 1.0, (rounds >= 200.0)[None] * 1.0, costs, np.ones(2), np.ones(400), rounds)
    row = compare({"PG": jump}).rows["PG"]
    cost = row.costs[0.90]
    assert (cost.rounds.value, cost.uploads.value, cost.spent["steps"].value) == (217, 434, 7 * 217)
    assert cost.seed_rounds == (217,)
    assert row.totals["uploads"] == 800
    np.testing.assert_array_equal(jump.spent("steps"), 7 * (rounds + 1))
    with pytest.raises(
        ValueError,
        match=r"share seeds and rounds, got \(seeds, rounds, evaluated\) \[\(1, 400, 100\), \(1, 400, 400\)\]",
    ):
        compare({"PG": jump, "new": dataclasses.replace(jump, score=np.ones((1, 400)), evaluated=None)})


def test_steps_are_a_cost(trained, tmp_path):
    """Oracle: the record's steps of training added up in 64 bits; tables and the picture's axis name them, whether or not all rounds were scored."""
    curves = {name: to_curve(trained(5, name).record) for name in ("pg", "scout")}
    steps = trained(5).record["training_steps"].sum("learner").cumsum("round").transpose("seed", "round")
    np.testing.assert_array_equal(curves["scout"].costs["steps"], steps)
    assert curves["scout"].costs["steps"].dtype == np.int64
    comparison = compare(curves, "pg")
    assert comparison.rows["scout"].totals["steps"] == pytest.approx(float(steps[:, -1].mean()))
    assert "Environment steps to the targets" in report.markdown("title", comparison, [], curves)
    plots.draw("title", curves, 0.5, tmp_path / "figure.png", "pg", against="steps")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match=r"against must be one of uploads, bits, .*steps, got 'seconds'"):
        plots.draw("title", curves, 0.5, tmp_path / "figure.png", "pg", against="seconds")
    quiet = to_curve(
        trained(5).record.assign(
            training_steps=0 * steps.astype(np.int32) + xr.zeros_like(trained(5).record["training_steps"])
        )
    )
    assert "steps" not in quiet.costs


def test_reports_of_runs(trained, tmp_path, capsys):
    """Oracle: the messages: runs are compared by θ^k's score, taken alike; and the flag of the axis."""
    names = [str(trained(5, name).path) for name in ("pg", "scout")]
    cli.main(["report", *names, "--against", "steps", "--out", str(tmp_path / "both")])
    assert "steps" in (tmp_path / "both" / "report.md").read_text()
    for other, message in ((trained(1), "evaluation.every"), (trained(0), "evaluation.every = 0")):
        runs = [names[0], str(other.path)] if other is trained(1) else [str(other.path)]
        with pytest.raises(SystemExit):
            cli.main(["report", *runs, "--out", str(tmp_path / "other")])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": -1}, r"evaluation\.every must be >= 0, got -1"),
        ({"episodes": 0}, r"evaluation\.episodes must be >= 1, got 0"),
        (
            {"every": 0, "greedy": True},
            r"evaluation\.every must be >= 1 for evaluation\.episodes and evaluation\.greedy, got 0",
        ),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    """Oracle: the rules in the docstrings."""
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**changes)


@pytest.mark.parametrize(
    ("rounds", "every", "num"), [(1, 1, 1), (50, 1, 50), (51, 2, 26), (1000, 20, 51), (1001, 21, 49)]
)
def test_how_often_is_scored_by_default(rounds, every, num):
    """Oracle: the docstring, counted: about 50 rounds of segments, the first and the last among them; every round of whole episodes; what was asked for."""
    found = Config(method="ppo", rounds=rounds).scoring
    due = np.flatnonzero(found.is_due(np.arange(rounds)))
    assert (found.every, due[0], due[-1], len(due)) == (every, 0, rounds - 1, num)
    assert Config(method="scout", rounds=rounds).scoring == Evaluation()
    asked = EvaluationConfig(every=7)
    assert Config(method="ppo", rounds=rounds, evaluation=asked).scoring == Evaluation(7)
    assert Config(method="ppo", rounds=rounds, evaluation=EvaluationConfig(every=0)).scoring.every == 0


def test_greedy_needs_episodes_of_the_policy_itself():
    """Oracle: the messages: a quadratic has none, and smoothing perturbs the policy in each."""
    greedy = EvaluationConfig(greedy=True)
    noisy = {
        "estimator": Part("noisy"),
        "method": "pg",
        "evaluation": greedy,
    }
    with pytest.raises(ValueError, match=r"evaluation\.greedy needs a problem with a policy and episodes"):
        build(Config(problem=Part("quadratic"), **noisy))
    with pytest.raises(ValueError, match=r"evaluation\.greedy must be false with smoothing"):
        build(dataclasses.replace(CONFIG, smoothing=0.1, evaluation=greedy))


def test_greedy_scores_by_hand():
    """Oracle: the policy's own most probable actions from the walk's only start, followed by hand; all episodes are alike."""
    problem = walk(outside=False)
    _, log = play(Vectorised, problem, recipe(problem), Evaluation(1, greedy=True))
    theta = player(recipe(problem), problem, ROUNDS, SEEDS[0])({"step_size": 0.05})[0].controller.params
    for k in range(ROUNDS):
        place, total, steps = np.array([1.0]), 0.0, 0
        while steps < 6 and abs(place[0]) < 2 and place[0] >= -0.4:
            place = place + (-0.5, 0.25, 0.5)[int(problem.policy.mode(jnp.asarray(theta[k]), jnp.asarray(place)))]
            total, steps = total - abs(place[0] - 0.3), steps + 1
        np.testing.assert_allclose(log.scores["return_raw"][0, k], total, 1e-12)
        np.testing.assert_array_equal(log.evaluation_steps[0, k], NUM * steps)


def test_problems_without_environments_have_no_steps():
    """Oracle: the docstring: a quadratic's samples are none."""
    problem = quadratic(num_learners=LEARNERS, dimension=3)
    setting = methods.Setting(estimators.noisy(problem.gradient), NUM, LEARNERS)
    _, log = play(Vectorised, problem, lambda hyper: local(setting, hyper), Evaluation())
    assert not log.training_steps.any()
    assert not log.evaluation_steps.any()
    assert np.isfinite(log.scores["score_raw"]).all()
