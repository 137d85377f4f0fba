"""The control problems against Gymnasium's environments, which get the same states and parameters."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lapg.problems import acrobot, cart_pole, pendulum

SAMPLES = 1000  # injected states per learner
LIMITS = np.array([2.4, 2.0, 12 * np.pi / 180, 3.0])


def carts(task):
    """Gymnasium's cart pole, with the learner's parameters if there is one."""
    env = gymnasium.make("CartPole-v1").unwrapped
    if task is not None:
        env.force_mag, env.length, env.masspole = (task.extra[name] for name in ("force", "half_length", "pole_mass"))
        env.total_mass, env.polemass_length = env.masscart + env.masspole, env.masspole * env.length
    return env


def pendulums(task):
    """Gymnasium's pendulum, with the learner's parameters if there is one."""
    env = gymnasium.make("Pendulum-v1").unwrapped
    if task is not None:
        env.g, env.m, env.l = (task.extra[name] for name in ("gravity", "mass", "length"))
    return env


def acrobots(task):
    """Gymnasium's acrobot, with the learner's parameters if there is one."""
    env = gymnasium.make("Acrobot-v1").unwrapped
    if task is not None:
        length, mass, torque = (task.extra[name] for name in ("length", "mass", "torque"))
        env.LINK_LENGTH_1, env.LINK_LENGTH_2, env.LINK_MASS_1, env.LINK_MASS_2 = length, length, mass, mass
        env.LINK_COM_POS_1, env.LINK_COM_POS_2, env.AVAIL_TORQUE = length / 2, length / 2, [-torque, 0.0, torque]
    return env


def draws(name, rng):
    """Random states, up to 1.5 times the limits where there are any, and actions, up to 1.5 times the bound."""
    if name == "acrobot":
        return rng.uniform(-1, 1, (SAMPLES, 4)) * [np.pi, np.pi, 4, 9], rng.integers(0, 3, SAMPLES)
    if name == "cart":
        return 1.5 * LIMITS * rng.uniform(-1, 1, (SAMPLES, 4)), rng.integers(0, 2, SAMPLES)
    return rng.uniform(-1, 1, (SAMPLES, 2)) * [20, 8], rng.uniform(-3, 3, (SAMPLES, 1))


def state_of(name, seen):
    """The state that was observed."""
    if name == "cart":
        return seen.copy()
    angles = [np.arctan2(seen[i + 1], seen[i]) for i in ((0,) if name == "pendulum" else (0, 2))]
    return np.array([*angles, *seen[2 * len(angles) :]])


KINDS = {"cart": (cart_pole, carts), "pendulum": (pendulum, pendulums), "acrobot": (acrobot, acrobots)}
ENDS = {"cart": (0.3, 0.7), "pendulum": (0, 0), "acrobot": (0.1, 0.5)}


@pytest.mark.parametrize("name", KINDS)
def test_one_step_is_gymnasiums(name):
    """Oracle: Gymnasium with injected states, in float64: as it comes for learner 0, who is nominal, and with the parameters of four others.

    Numbers reach 150 (rad/s²), times 0.02 s, with a few roundings of 2e-16 each: 1e-13 has a margin of ten.
    """
    factory, reference = KINDS[name]
    problem, others = factory(num_learners=1), factory(num_learners=4, heterogeneity=1.0)
    tasks = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), problem.tasks, others.tasks)
    rng = np.random.default_rng(0)
    states, actions = map(np.stack, zip(*(draws(name, rng) for _ in range(5)), strict=True))

    @jax.jit
    def play(states, actions):
        def one(task, state, action):
            after = problem.environment.step(jax.random.key(0), task, state, action)
            return after.state, problem.environment.observe(after.state), -after.loss, jnp.asarray(after.terminated)

        return jax.vmap(jax.vmap(one, (None, 0, 0)))(tasks, states, actions)

    found = play(jnp.asarray(states), jnp.asarray(actions))
    expected = []
    for m in range(5):
        env = reference(jax.tree.map(lambda leaf, m=m: float(leaf[m]), tasks) if m else None)
        env.reset(seed=0)
        for state, action in zip(states[m], actions[m], strict=True):
            env.state, env.steps_beyond_terminated = state.copy(), None
            observation, reward, terminated, truncated, _ = env.step(action)
            assert not truncated
            expected.append((env.state.copy(), observation, reward, terminated))
    after, observations, rewards, terminated = (np.array(each) for each in zip(*expected, strict=True))
    flat = [np.asarray(each).reshape(5 * SAMPLES, *each.shape[2:]) for each in found]
    print(f"{name}: state {abs(flat[0] - after).max():.1e}, loss {abs(flat[2] - rewards).max():.1e}")
    np.testing.assert_allclose(flat[0], after, 1e-13, 1e-13)
    np.testing.assert_allclose(flat[1], observations, 1e-6, 1e-6)  # Gymnasium rounds observations to float32
    np.testing.assert_allclose(flat[2], rewards, 1e-13, 1e-13)
    np.testing.assert_array_equal(flat[3], terminated)
    assert ENDS[name][0] <= terminated.mean() <= ENDS[name][1]


@pytest.mark.parametrize("name", KINDS)
def test_episodes_are_gymnasiums(name):
    """Oracle: Gymnasium replays the recorded actions from the same starts; what comes after its end is masked, finite and free of loss."""
    factory, reference = KINDS[name]
    problem = factory(num_learners=3, heterogeneity=1.0, num_steps=60)
    params = problem.init(jax.random.key(1))
    keys = jax.random.split(jax.random.key(2), 3)
    batch = jax.jit(
        jax.vmap(lambda key, task: (problem.sample(key, task, params, 5), problem.sample(key, task, 1e3 * params, 5)))
    )(keys, problem.tasks)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(batch))
    batch = jax.tree.map(np.asarray, batch[0])
    starts = batch.observations[:, :, 0]
    for m in range(3):
        task = jax.tree.map(lambda leaf, m=m: float(leaf[m]), problem.tasks)
        env = reference(task)
        for n in range(5):
            env.reset(seed=0)
            start = starts[m, n]
            env.state = state_of(name, start)
            rewards, terminated, observation = [], False, start
            while len(rewards) < 60 and not terminated:
                t = len(rewards)
                np.testing.assert_allclose(batch.observations[m, n, t], observation, 1e-5, 1e-5)
                action = np.asarray(problem.policy.actuate(jnp.asarray(batch.actions[m, n, t])))
                observation, reward, terminated, _, _ = env.step(action)
                rewards.append(reward)
            lived = len(rewards)
            np.testing.assert_allclose(batch.losses[m, n, :lived], -task.scale * np.array(rewards), 1e-9)
            np.testing.assert_array_equal(batch.losses[m, n, lived:], 0)
            np.testing.assert_array_equal(batch.mask[m, n], np.arange(60) < lived)
            np.testing.assert_array_equal(batch.terminated[m, n], (np.arange(60) == lived - 1) & terminated)
            np.testing.assert_allclose(batch.following[m, n, -1], observation, 1e-5, 1e-5)
    assert batch.terminated.any() == (name == "cart")


@pytest.mark.parametrize("name", KINDS)
def test_starts_are_uniform(name):
    """Oracle: Kolmogorov-Smirnov against the documented uniform laws of every learner; p > 1e-4 for 5·4 or 5·2 tests."""
    problem = KINDS[name][0](num_learners=5, heterogeneity=1.0)
    keys = jax.random.split(jax.random.key(0), 2000)
    found = jax.vmap(lambda task: jax.vmap(lambda key: problem.environment.reset(key, task))(keys))(problem.tasks)
    widths = np.asarray(problem.tasks.extra["start"])
    if name != "pendulum":
        halves = np.tile(widths[:, None], 4)
    else:
        halves = np.stack([np.minimum(widths, np.pi), np.ones(5)], -1)
        assert np.sum(halves[:, 0] == np.pi) == 3
    for m, half in enumerate(halves):
        for values, width in zip(np.asarray(found[m]).T, half, strict=True):
            assert stats.kstest(values, stats.uniform(-width, 2 * width).cdf).pvalue > 1e-4


NOMINAL = {
    "cart": {"force": (10.0, 2.0), "half_length": (0.5, 2.0), "pole_mass": (0.1, 2.0), "start": (0.05, 4.0)},
    "pendulum": {"gravity": (10.0, 1.5), "mass": (1.0, 1.25), "length": (1.0, 1.25), "start": (np.pi, 4.0)},
    "acrobot": {"torque": (1.0, 1.5), "length": (1.0, 1.25), "mass": (1.0, 1.25), "start": (0.1, 4.0)},
}


@pytest.mark.parametrize("name", KINDS)
def test_one_knob_spreads_what_the_documentation_says(name):
    """Oracle: docs/parallel.md: nominal · factor^(h·u), u evenly spaced in [−1, 1]; every order is the seed's; nominal at h = 0 and for one learner."""
    factory = KINDS[name][0]
    documented = NOMINAL[name] | {"scale": (1.0, 4.0)}
    for heterogeneity, count in ((0.0, 3), (0.5, 5), (1.0, 5), (1.0, 1)):
        tasks = factory(num_learners=count, heterogeneity=heterogeneity).tasks
        np.testing.assert_array_equal(tasks.index, np.arange(count))
        even = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
        for quantity, (nominal, factor) in documented.items():
            values = tasks.scale if quantity == "scale" else tasks.extra[quantity]
            np.testing.assert_allclose(np.sort(values), nominal * factor ** (heterogeneity * even), 1e-14)
        assert set(tasks.extra) == set(NOMINAL[name])
    orders = [
        np.argsort(leaf)
        for seed in (0, 1)
        for leaf in jax.tree.leaves(factory(heterogeneity=1.0, problem_seed=seed).tasks)[1:]
    ]
    assert len({tuple(order) for order in orders}) == 2 * len(documented)
    given = factory(num_learners=2, heterogeneity=1.0, scales=(3.0, 0.5)).tasks
    np.testing.assert_array_equal(given.scale, [3.0, 0.5])
    np.testing.assert_allclose(np.sort(given.extra["start"]), NOMINAL[name]["start"][0] * np.array([0.25, 4.0]), 1e-14)


def test_cart_pole_returns_count_steps():
    """Oracle: the usual return of CartPole-v1 is the number of steps lived, whatever the scale."""
    problem = cart_pole(num_learners=2, scales=(0.5, 8.0), num_steps=40)
    params = problem.init(jax.random.key(0))
    task = jax.tree.map(lambda leaf: leaf[1], problem.tasks)
    batch = jax.jit(lambda key: problem.sample(key, task, params, 6))(jax.random.key(1))
    scores = problem.score(task, batch)
    np.testing.assert_allclose(scores["return_raw"], np.sum(batch.mask, -1).mean(), 1e-14)
    np.testing.assert_allclose(scores["return_scaled"], 8 * scores["return_raw"], 1e-14)


@pytest.mark.parametrize("name", ["cart", "pendulum"])
def test_drawings_point_where_the_state_says(name):
    """Oracle: Gymnasium's pictures: a rod of 1 m, upright at angle 0; a quarter turn points to the right for the cart, to the left for the pendulum."""
    from matplotlib.figure import Figure

    environment = KINDS[name][0](num_learners=1).environment
    side = 1.0 if name == "cart" else -1.0
    for angle, tip in ((0.0, (0.0, 1.0)), (np.pi / 2, (side, 0.0))):
        axes = Figure().subplots()
        state = jnp.asarray([0.7, 0.0, angle, 0.0] if name == "cart" else [angle, 0.0])
        environment.draw(axes, state)
        rods = [line.get_xydata() for line in axes.lines if line.get_color() == "C1"]
        offset = 0.7 if name == "cart" else 0.0
        np.testing.assert_allclose(rods, [[(offset, 0), (tip[0] + offset, tip[1])]], atol=1e-7)


def test_acrobot_draws_two_links():
    """Oracle: by hand: the upper link points to the right, the lower one from its end upwards."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    acrobot(num_learners=1).environment.draw(axes, jnp.asarray([np.pi / 2, np.pi / 2, 0.0, 0.0]))
    upper, lower = (line.get_xydata() for line in axes.lines if line.get_linewidth() == 8)
    np.testing.assert_allclose([upper, lower], [[(0, 0), (1, 0)], [(1, 0), (1, 1)]], atol=1e-7)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_learners": 0}, r"num_learners=\.\.\.\) must be a whole number >= 1, got 0"),
        ({"num_steps": 0}, r"num_steps=\.\.\.\) must be a whole number >= 1, got 0"),
        ({"discount": 0.0}, r"discount=\.\.\.\) must lie in \(0, 1\], got 0\.0"),
        ({"heterogeneity": -0.5}, r"heterogeneity must be >= 0 and finite, got -0\.5"),
        ({"num_learners": 3, "scales": (1.0, 2.0)}, r"one entry per learner, 3 in all, got 2"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    """Oracle: the docstrings; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        KINDS[name][0](**settings)
