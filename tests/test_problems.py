"""Problems against the engines, closed forms and counts that they must agree with."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg.problems import cooperative_navigation, garnet, quadratic, tabular
from lapg.problems.builders import make_tasks, score
from lapg.problems.cooperative_navigation import State, collisions, contact_forces, distances, environment, move
from lapg.types import Trajectories

AGENTS, SAMPLES = 3, 2000


@pytest.fixture(scope="module")
def states():
    """Random positions, velocities, landmarks [B, M, 2] and actions [B, M]; in half of them agents overlap."""
    rng = np.random.default_rng(0)
    spread = np.where(np.arange(SAMPLES) % 2, 0.2, 1.0)[:, None, None]
    positions = spread * rng.uniform(-1, 1, (SAMPLES, AGENTS, 2))
    velocities = rng.normal(size=positions.shape)
    landmarks = rng.uniform(-1, 1, positions.shape)
    return positions, velocities, landmarks, rng.integers(0, 5, (SAMPLES, AGENTS))


def simple_spread(positions, velocities, landmarks, actions):
    """One step of mpe2's engine from an injected state: positions, velocities, collisions, distances."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spread = importlib.import_module("mpe2.simple_spread_v3")
        engine = spread.raw_env(N=AGENTS, max_cycles=10 * SAMPLES)
        engine.reset(seed=0)
        world, scenario, results = engine.world, engine.scenario, []
        for one in zip(positions, velocities, landmarks, actions, strict=True):
            for agent, landmark, position, velocity, goal in zip(world.agents, world.landmarks, *one[:3], strict=True):
                agent.state.p_pos, agent.state.p_vel = position.copy(), velocity.copy()
                landmark.state.p_pos = goal.copy()
            for action in one[3]:
                engine.step(int(action))
            touched = [sum(scenario.is_collision(a, b) for b in world.agents if b is not a) for a in world.agents]
            gaps = [
                np.linalg.norm(a.state.p_pos - b.state.p_pos)
                for a, b in zip(world.agents, world.landmarks, strict=True)
            ]
            results.append(
                ([a.state.p_pos for a in world.agents], [a.state.p_vel for a in world.agents], touched, gaps)
            )
    return [np.array(each) for each in zip(*results, strict=True)]


def test_explicit_physics_is_simple_spread(states):
    """Oracle: mpe2 with injected states, float64. Forces reach 30 and k = 1e-3 divides distances: 30 · 2.2e-16 / 1e-3 · dt < 1e-12."""
    physics, tasks = environment(AGENTS, "explicit", 1.0), make_tasks(AGENTS, None)

    @jax.jit
    @jax.vmap
    def step(positions, velocities, landmarks, actions):
        state = State(positions, velocities, landmarks)
        after, losses, ended, _ = jax.vmap(lambda task: physics.step(jax.random.key(0), task, state, actions))(tasks)
        after = jax.tree.map(lambda leaf: leaf[0], after)
        return after.positions, after.velocities, collisions(after), distances(after), losses, ended

    *found, losses, ended = jax.tree.map(np.asarray, step(*(jnp.asarray(each, each.dtype) for each in states)))
    expected = simple_spread(*states)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-12, 1e-12)
    assert 0.1 < np.mean(expected[2] > 0) < 0.9
    np.testing.assert_allclose(losses, expected[3] + expected[2], 1e-12)
    assert not ended.any()


def test_semi_implicit_moves_by_the_new_velocity(states):
    """Oracle: the 2018 code's order, p' = p + v' dt, with the explicit integrator's v'."""
    state = State(*(jnp.asarray(each[1]) for each in states[:3]))
    forces = jnp.asarray(np.random.default_rng(1).normal(size=(AGENTS, 2)))
    old, new = (move(state, forces, name) for name in ("explicit", "semi_implicit"))
    np.testing.assert_allclose(new.velocities, old.velocities, 1e-14)
    np.testing.assert_allclose(new.positions, state.positions + 0.1 * new.velocities, 1e-14)
    np.testing.assert_allclose(old.positions, state.positions + 0.1 * state.velocities, 1e-14)


def test_without_forces_energy_decays():
    """Oracle: damping .25: kinetic energy falls by .75² a step while agents are far apart."""
    far = jnp.asarray([[0.0, 0.0], [5.0, 5.0]])
    state = State(far, jnp.asarray([[1.0, -2.0], [0.5, 1.0]]), far)
    after = move(state, jnp.zeros((2, 2)), "semi_implicit")
    np.testing.assert_allclose(jnp.sum(after.velocities**2), 0.75**2 * jnp.sum(state.velocities**2), 1e-14)


def test_contact_conserves_momentum_and_pushes_apart():
    """Oracle: Newton's third law, and for a pair at distance .2: 100 · (.30 − .2) outwards, as log(1 + e^100) = 100 + e^-100."""
    crowd = 0.2 * jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (AGENTS, 2)))
    forces = contact_forces(crowd)
    assert jnp.abs(forces).max() > 1
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-13)
    pair = contact_forces(jnp.asarray([[0.0, 0.0], [0.12, 0.16]]))
    np.testing.assert_allclose(pair, [[-6.0, -8.0], [6.0, 8.0]], 1e-12)


def test_coincident_agents_stay_finite():
    """Oracle: the definition's 0/0 has no direction, so nobody is pushed; both touch."""
    state = State(jnp.zeros((2, 2)), jnp.zeros((2, 2)), jnp.ones((2, 2)))
    after = move(state, jnp.zeros((2, 2)), "explicit")
    np.testing.assert_array_equal(after.velocities, 0)
    np.testing.assert_array_equal(collisions(after), 1)


def test_learners_own_scale_and_landmark():
    """Oracle: c_m (‖p_m − l_m‖ + penalty · touched) by hand for two overlapping agents at rest, which explicit steps leave where they are."""
    state = State(jnp.asarray([[0.0, 0.0], [0.1, 0.0]]), jnp.zeros((2, 2)), jnp.asarray([[0.0, 3.0], [0.1, 0.5]]))
    physics = environment(2, "explicit", 2.0)
    losses = [
        physics.step(
            jax.random.key(0), jax.tree.map(lambda leaf, m=m: leaf[m], make_tasks(2, None)), state, jnp.zeros(2, int)
        )[1]
        for m in range(2)
    ]
    np.testing.assert_allclose(losses, [3 + 2, 0.5 + 2], 1e-14)
    problem = cooperative_navigation(num_agents=2, scales=(2.0, 0.25))
    np.testing.assert_array_equal(problem.tasks.scale, [2.0, 0.25])
    np.testing.assert_array_equal(problem.tasks.index, [0, 1])


def test_reset_is_uniform_and_at_rest():
    """Oracle: moments of U(−1, 1): mean 0 and second moment 1/3, 4 standard errors; the observation is the global state."""
    physics = environment(2)
    task = jax.tree.map(lambda leaf: leaf[0], make_tasks(2, None))
    states = jax.jit(jax.vmap(lambda key: physics.reset(key, task)))(jax.random.split(jax.random.key(0), 5000))
    for places in (np.asarray(states.positions), np.asarray(states.landmarks)):
        assert np.abs(places).max() <= 1
        assert np.abs(places.mean(0) / (places.std(0) / 5000**0.5)).max() < 4
        squares = places**2
        assert np.abs((squares.mean(0) - 1 / 3) / (squares.std(0) / 5000**0.5)).max() < 4
    np.testing.assert_array_equal(states.velocities, 0)
    one = jax.tree.map(lambda leaf: leaf[0], states)
    parts = [one.positions, one.velocities, one.landmarks]
    np.testing.assert_array_equal(physics.observe(one), np.concatenate([np.ravel(part) for part in parts]))


def test_scores_by_hand():
    """Oracle: two episodes of three steps, γ = .5, scale 2, the second over after one step."""
    losses, mask = jnp.asarray([[2.0, 4.0, 8.0], [6.0, 0.0, 0.0]]), jnp.asarray([[True] * 3, [True, False, False]])
    batch = Trajectories(losses, losses, losses, losses, mask, ~mask, ~mask, losses)
    task = jax.tree.map(lambda leaf: leaf[0], make_tasks(1, [2.0]))
    found = score(0.5)(task, batch)
    expected = {"return": 10.0, "discounted_return": 6.0, "score": 10 / 3}
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"{name}_scaled"], -value, 1e-15)
        np.testing.assert_allclose(found[f"{name}_raw"], -value / 2, 1e-15)


def test_quadratic_gradient_is_the_slope_of_the_value():
    """Oracle: jax.grad of the value, and the value itself by the formula."""
    problem = quadratic(num_learners=3, dimension=4, scales=(1.0, 0.5, 3.0))
    params = problem.init(jax.random.key(1))
    gradients = jax.vmap(problem.gradient, (0, None))(problem.tasks, params)
    slopes = jax.vmap(jax.grad(problem.value, 1), (0, None))(problem.tasks, params)
    np.testing.assert_allclose(gradients, slopes, 1e-14)
    tasks = jax.tree.map(np.asarray, problem.tasks)
    away = np.asarray(params) - tasks.extra["centre"]
    values = 0.5 * tasks.scale * np.sum(tasks.extra["curvature"] * away**2, -1)
    np.testing.assert_allclose(jax.vmap(problem.value, (0, None))(problem.tasks, params), values, 1e-14)
    assert tasks.extra["curvature"].min() >= 1 / 30
    assert tasks.extra["curvature"].max() <= 1


def test_quadratic_noise_has_its_size():
    """Oracle: E‖draw‖² = (noise · c_m)² whatever d, 4 standard errors."""
    problem = quadratic(num_learners=2, dimension=6, scales=(1.0, 0.5), noise=3.0)
    task = jax.tree.map(lambda leaf: leaf[1], problem.tasks)
    draws = np.asarray(problem.sample(jax.random.key(0), task, jnp.zeros(6), 4000)["noise"])
    squared = np.sum(draws**2, -1)
    assert abs(squared.mean() - 1.5**2) / (squared.std() / 4000**0.5) < 4


def test_garnet_branches_and_samples_its_own_transitions(monkeypatch):
    """Oracle: rows sum to 1 with exactly ``branching`` successors; observed frequencies within 4.5 standard errors of them (45 cells)."""
    module, made = importlib.import_module("lapg.problems.tabular"), []
    build = module.tabular
    monkeypatch.setattr(module, "tabular", lambda *args, **more: made.append(args) or build(*args, **more))
    problem = garnet(num_learners=2, num_states=5, num_actions=3, branching=2)
    transitions, losses, initial = (np.asarray(each) for each in made[0])
    np.testing.assert_allclose(transitions.sum(-1), 1, 1e-14)
    np.testing.assert_array_equal(np.sum(transitions > 0, -1), 2)
    np.testing.assert_allclose(initial.sum(-1), 1, 1e-14)
    assert losses.min() >= 0
    assert losses.max() <= 1
    task, num = jax.tree.map(lambda leaf: leaf[1], problem.tasks), 4000

    @jax.jit
    def run(key):
        def row(state):
            def one(action, key):
                return problem.environment.step(key, task, state, action)[:2]

            keys = jax.random.split(jax.random.fold_in(key, state), (3, num))
            return jax.vmap(jax.vmap(one, (None, 0)))(jnp.arange(3), keys)

        starts = jax.vmap(lambda key: problem.environment.reset(key, task))(jax.random.split(key, num))
        return *jax.vmap(row)(jnp.arange(5)), starts

    after, cost, starts = jax.tree.map(np.asarray, run(jax.random.key(0)))
    counts = np.stack([np.sum(after == state, -1) for state in range(5)], -1)
    spread = np.sqrt(num * transitions * (1 - transitions))
    assert np.all(np.abs(counts - num * transitions) <= 4.5 * spread)
    np.testing.assert_array_equal(cost, np.broadcast_to(losses[1][..., None], cost.shape))
    counts = np.bincount(starts, minlength=5)
    assert np.all(np.abs(counts - num * initial[1]) <= 4.5 * np.sqrt(num * initial[1] * (1 - initial[1])))


ROWS = (jnp.full((2, 2, 2), 0.5), jnp.ones((1, 2, 2)), jnp.full((1, 2), 0.5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cooperative_navigation(num_agents=2, scales=(1.0,)), r"one entry per learner, 2 in all, got 1"),
        (lambda: cooperative_navigation(num_agents=2, scales=(1.0, 0.0)), r"scales must be positive and finite"),
        (
            lambda: cooperative_navigation(num_agents=2, scales=(1.0, float("nan"))),
            r"scales must be positive and finite",
        ),
        (lambda: cooperative_navigation(num_agents=0), r"num_agents=\.\.\.\) must be a whole number >= 1, got 0"),
        (lambda: cooperative_navigation(num_steps=0), r"num_steps=\.\.\.\) must be a whole number >= 1, got 0"),
        (lambda: cooperative_navigation(discount=1.5), r"discount=\.\.\.\) must lie in \(0, 1\], got 1\.5"),
        (
            lambda: cooperative_navigation(integrator="implicit"),
            r"integrator must be 'explicit' or 'semi_implicit', got 'implicit'",
        ),
        (lambda: quadratic(conditioning=0.5), r"conditioning >= 1 and noise >= 0, got 0\.5"),
        (lambda: quadratic(noise=-1.0), r"conditioning >= 1 and noise >= 0, got 30\.0 and -1\.0"),
        (lambda: garnet(num_states=3, branching=4), r"at most num_states=3, got 4"),
        (lambda: tabular(ROWS[0][:1], *ROWS[1:]), r"that agree; got \(1, 2, 2\)"),
        (lambda: tabular(0.9 * ROWS[0], *ROWS[1:]), r"transitions=\.\.\.\) rows must be non-negative and sum to 1"),
        (lambda: tabular(*ROWS[:2], 2 * ROWS[2]), r"initial=\.\.\.\) rows must be non-negative and sum to 1"),
        (lambda: tabular(*ROWS, discount=1.0), r"discount=1\) has no infinite-horizon value"),
    ],
)
def test_wrong_settings_are_refused(build, message, unchecked):
    """Oracle: the docstrings; the message names the setting, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        build()
