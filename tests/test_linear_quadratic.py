"""Linear-quadratic control: its closed form, and the likelihood-ratio estimators on continuous actions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import estimators
from lapg.methods import Setting, pg
from lapg.problems import linear_quadratic
from oracles.markov import difference_quotient
from support import player

STEPS, NUM, BATCHES = 3, 2, 20_000
KINDS = [(rule, baseline) for rule in ("reinforce", "gpomdp") for baseline in ("none", "leave_one_out")]
RNG = np.random.default_rng(0)
THETA = 0.3 * RNG.normal(size=6)


@pytest.fixture(scope="module")
def problem():
    return linear_quadratic(num_learners=3, heterogeneity=1.0, num_steps=STEPS, process_noise=0.2)


@pytest.fixture(scope="module")
def task(problem):
    """Learner 1, whose dynamics, start, loss and scale are its own; with six times the inputs the gradient stands out of the noise."""
    own = jax.tree.map(lambda leaf: leaf[1], problem.tasks)
    return eqx.tree_at(lambda task: task.extra["inputs"], own, 6 * own.extra["inputs"])


@pytest.fixture(scope="module")
def elsewhere(task):
    """A θ at distance .2 from the behaviour's, where the gradient is another."""
    slope = true_gradient(THETA, task)
    return THETA - 0.2 * slope / np.linalg.norm(slope)


def true_value(theta, task):
    """The loss of an episode is a quadratic form in the standard normal noise e of start, actions and dynamics, so its mean is Σ_i loss(e_i)."""
    gain, own = theta.reshape(2, 3), jax.tree.map(np.asarray, task.extra)
    draws = np.eye(3 + STEPS * (2 + 3))  # one at a time
    state, total = own["start"] ** 0.5 * draws[:, :3], 0.0
    for t in range(STEPS):
        noise = draws[:, 3 + 5 * t : 8 + 5 * t]
        action = state @ gain.T + 0.5 * noise[:, :2]
        total += 0.95**t * (own["state_weight"] * np.sum(state**2) + 0.1 * np.sum(action**2))
        state = state @ own["dynamics"].T + action @ own["inputs"].T + 0.2 * noise[:, 2:]
    return float(task.scale) * total


def true_gradient(theta, task):
    return difference_quotient(lambda at: true_value(at, task), theta, 1e-5)


def z_scores(draws, expected):
    return (draws.mean(0) - expected) / (draws.std(0, ddof=1) / len(draws) ** 0.5)


@pytest.fixture(scope="module")
def drawn(problem, task, elsewhere):
    """Mean loss of many batches, and (rule, baseline) → estimates at the behaviour policy and elsewhere, all on the same samples."""

    @jax.jit
    @jax.vmap
    def run(key):
        batch = problem.sample(key, task, jnp.asarray(THETA), NUM)
        made = [getattr(estimators, rule)(problem.policy, 0.95, baseline=baseline) for rule, baseline in KINDS]
        gradients = [[e.estimate((), task, jnp.asarray(at), batch).gradient for at in (THETA, elsewhere)] for e in made]
        return -problem.score(task, batch)["discounted_return_scaled"], gradients

    losses, gradients = jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(4), BATCHES)))
    return losses, dict(zip(KINDS, gradients, strict=True))


def test_value_and_gradient_are_exact(problem, task):
    """Oracle: the mean of a quadratic form, noise by noise, in NumPy; central differences of it, h²|f'''| + eps |f|/h < 1e-8 at h = 1e-5."""
    value, gradient = jax.jit(lambda at: (problem.value(task, at), problem.gradient(task, at)))(jnp.asarray(THETA))
    np.testing.assert_allclose(value, true_value(THETA, task), 1e-13)
    np.testing.assert_allclose(gradient, true_gradient(THETA, task), 1e-7, 1e-8)


def test_episodes_have_the_mean_loss_of_the_closed_form(problem, task, drawn):
    """Oracle: the closed form, 4 standard errors, which are below 1 % of it."""
    expected = problem.value(task, jnp.asarray(THETA))
    assert abs(z_scores(drawn[0], expected)) < 4
    assert drawn[0].std() / BATCHES**0.5 < 0.01 * expected


@pytest.mark.parametrize("kind", KINDS)
def test_estimators_are_unbiased(drawn, task, kind):
    """Oracle: the exact gradient; 6 entries within 4 standard errors, which are below 5 % of its length."""
    gradients, exact = drawn[1][kind][0], true_gradient(THETA, task)
    assert np.abs(z_scores(gradients, exact)).max() < 4
    assert (gradients.std(0) / BATCHES**0.5).max() < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("kind", KINDS)
def test_importance_weights_give_the_gradient_elsewhere(drawn, task, elsewhere, kind):
    """Oracle: the exact gradient at another θ, 4 standard errors; unweighted, the mean would be the one at the behaviour's θ."""
    gradients = drawn[1][kind][1]
    assert np.abs(z_scores(gradients, true_gradient(elsewhere, task))).max() < 4
    assert np.abs(z_scores(gradients, true_gradient(THETA, task))).max() > 8


@pytest.mark.slow
def test_error_falls_with_the_square_root_of_the_batch(problem, task):
    """Oracle: independence: log rms error against log N, N = 16..1024, has slope −1/2 within 4 of its standard errors, which are below .06."""
    made = [getattr(estimators, rule)(problem.policy, 0.95, baseline=baseline) for rule, baseline in KINDS]
    exact, repeats, sizes = true_gradient(THETA, task), 64, 4 ** np.arange(2, 6)
    logs, variances = [], []
    for size in sizes:

        @jax.jit
        @jax.vmap
        def run(key, size=size):
            batch = problem.sample(key, task, jnp.asarray(THETA), int(size))
            return jnp.stack([each.estimate((), task, jnp.asarray(THETA), batch).gradient for each in made])

        squared = np.sum((np.asarray(run(jax.random.split(jax.random.key(2), repeats))) - exact) ** 2, -1)
        logs.append(0.5 * np.log(squared.mean(0)))
        variances.append(0.25 * squared.var(0, ddof=1) / repeats / squared.mean(0) ** 2)  # of that log, to first order
    away = np.log(sizes) - np.log(sizes).mean()
    slopes = away @ np.array(logs) / (away @ away)
    errors = np.sqrt(away**2 @ np.array(variances)) / (away @ away)
    print(*(f"{kind}: {slope:.3f} ± {error:.3f}" for kind, slope, error in zip(KINDS, slopes, errors, strict=True)))
    assert errors.max() < 0.06
    assert np.all(np.abs(slopes + 0.5) < 4 * errors)


@pytest.mark.slow
def test_policy_gradient_learns_to_control():
    """Oracle: from Θ = 0, 100 exact steps lower the loss of all learners below a third, and monotonically (step below 1/curvature), to a smaller slope."""
    problem = linear_quadratic(num_learners=4, heterogeneity=1.0)
    setting = Setting(estimators.exact(problem.gradient), 1, 4)
    states, _ = player(lambda hyper: pg(setting, **hyper), problem, 100)({"step_size": 1e-3})
    loss = jax.jit(jax.vmap(lambda at: jax.vmap(problem.value, (0, None))(problem.tasks, at).sum()))
    losses = np.asarray(loss(jnp.asarray(states.controller.params)))
    assert np.all(np.diff(losses) < 0)
    assert losses[-1] < losses[0] / 3


@pytest.mark.slow
def test_policy_gradient_learns_from_samples():
    """Oracle: the closed form: 300 rounds of 16 episodes come within a tenth of what exact gradients reach in as many rounds."""
    problem = linear_quadratic(num_learners=4, heterogeneity=1.0)
    loss = jax.jit(lambda at: jax.vmap(problem.value, (0, None))(problem.tasks, at).sum())
    finals = []
    for estimator in (estimators.exact(problem.gradient), estimators.gpomdp(problem.policy, problem.discount)):
        setting = Setting(estimator, 16, 4)
        states, _ = player(lambda hyper, setting=setting: pg(setting, **hyper), problem, 300)({"step_size": 3e-4})
        finals.append(loss(jnp.asarray(states.controller.params[-1])))
    assert abs(finals[1] / finals[0] - 1) < 0.1


def test_heterogeneity_spreads_what_it_names():
    """Oracle: the docstring's factors: at 0 everybody has the nominal system, at 1 each quantity reaches from 1/factor to factor of it."""
    factors = {"dynamics": 1.05, "inputs": 1.5, "state_weight": 2.0, "start": 2.0}
    alike, apart = (linear_quadratic(num_learners=5, heterogeneity=h).tasks for h in (0.0, 1.0))
    for name, factor in factors.items():
        nominal, own = np.asarray(alike.extra[name]), np.asarray(apart.extra[name])
        np.testing.assert_array_equal(nominal, np.broadcast_to(nominal[0], nominal.shape))
        ratio = (own / nominal).reshape(5, -1)
        np.testing.assert_allclose(ratio, ratio[:, :1].repeat(ratio.shape[1], 1), 1e-13)
        np.testing.assert_allclose(np.sort(ratio[:, 0]), factor ** np.linspace(-1, 1, 5), 1e-13)
    np.testing.assert_array_equal(alike.scale, 1)
    np.testing.assert_allclose(np.sort(apart.scale), 4 ** np.linspace(-1, 1, 5), 1e-13)
    given = linear_quadratic(num_learners=2, heterogeneity=1.0, scales=(1.0, 3.0)).tasks.scale
    np.testing.assert_array_equal(given, [1.0, 3.0])


def test_nominal_system():
    """Oracle: A/radius is orthogonal; 300 normal entries of B have variance 0.1/10 within 4 standard errors."""
    own = jax.tree.map(
        np.asarray, linear_quadratic(num_learners=1, num_states=10, num_actions=30, radius=0.9).tasks.extra
    )
    np.testing.assert_allclose(own["dynamics"][0] @ own["dynamics"][0].T, 0.81 * np.eye(10), atol=1e-13)
    assert abs(own["inputs"].var() / 0.01 - 1) < 4 * (2 / 300) ** 0.5
    np.testing.assert_array_equal([own["state_weight"][0], own["start"][0]], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_states": 0}, r"linear_quadratic\(num_states=\.\.\.\) must be a whole number >= 1, got 0"),
        ({"num_steps": 0}, r"linear_quadratic\(num_steps=\.\.\.\) must be a whole number >= 1, got 0"),
        ({"discount": 0.0}, r"discount=\.\.\.\) must lie in \(0, 1\], got 0\.0"),
        ({"radius": -1.0}, r"radius >= 0 and process_noise >= 0, both finite, got -1\.0 and 0\.1"),
        ({"process_noise": float("inf")}, r"both finite, got 1\.0 and inf"),
        ({"heterogeneity": -0.5}, r"heterogeneity must be >= 0 and finite, got -0\.5"),
        ({"num_learners": 2, "scales": (1.0,)}, r"one entry per learner, 2 in all, got 1"),
    ],
)
def test_wrong_settings_are_refused(options, message, unchecked):
    """Oracle: the docstring; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        linear_quadratic(**options)
