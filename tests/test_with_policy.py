"""Policies made for a problem's spaces, beside the problem: networks of one's own, images, defaults, and what does not fit."""

import equinox as eqx
import flax.linen as nn
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lapg import Config, estimators, methods
from lapg.experiments.build import build_problem
from lapg.experiments.train import train
from lapg.methods import Part
from lapg.policies import conv, from_equinox, from_flax, gaussian_mlp, linear, make_policy, mlp, networks, with_policy
from lapg.problems import acrobot, cart_pole, cooperative_navigation, garnet, linear_quadratic, pendulum, quadratic
from lapg.problems.builders import from_environment, make_tasks
from lapg.types import Box, Discrete, Environment, Spaces, Transition
from support import full, player

RNG = np.random.default_rng(0)


class Net(nn.Module):
    """Two layers of which the second is as wide as asked for."""

    num_outputs: int = 2

    @nn.compact
    def __call__(self, seen):
        return nn.Dense(self.num_outputs)(jnp.sin(nn.Dense(5)(seen)))


class Pixels(gym.Env):
    """A white row in a black image, 6 by 5, that actions move up or down; paid for each step at the top, where it begins or below."""

    observation_space = gym.spaces.Box(0, 255, (6, 5, 1), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def seen(self):
        image = np.zeros((6, 5, 1), np.uint8)
        image[self.row] = 255
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row = int(self.np_random.integers(6))
        return self.seen(), {}

    def step(self, action):
        self.row = int(np.clip(self.row + 2 * action - 1, 0, 5))
        return self.seen(), float(self.row == 0), False, False, {}


def image_net(spaces, *, width: int = 3):
    """A policy named as MODULE:NAME: its own convolution, by Flax."""

    class Image(nn.Module):
        @nn.compact
        def __call__(self, seen):
            return nn.Dense(spaces.num_outputs)(nn.relu(nn.Conv(width, (3, 3))(seen)).ravel())

    return from_flax(Image())(spaces)


# ---------------------------------------------------------------- a policy beside a problem


def test_another_policy_is_the_one_that_is_trained():
    """Oracle: the same training of a problem that was built with that policy; the old one's gradient would have another length."""
    old, new = cart_pole(num_learners=2, num_steps=5), gaussian_mlp(3, (2,), 1, low=-2.0, high=2.0)
    assert old._replace(policy=mlp(old.spaces, hidden=(3,))).init(jax.random.key(0)).size == 4 * 3 + 3 + 3 * 2 + 2
    swing = pendulum(num_learners=2, num_steps=5)
    ends = []
    for problem in (swing._replace(policy=new), with_policy(swing, hidden=(2,))):
        setting = methods.Setting(estimators.gpomdp(problem.policy, problem.discount), 3, 2)
        states, _ = player(
            lambda hyper, setting=setting: methods.compose("pg", setting, hyper=full(hyper)), problem, 2
        )({"step_size": 0.01})
        ends.append(states.controller.params)
    assert ends[0].shape == (3, 3 * 2 + 2 + 2 + 1)
    assert np.abs(ends[0][-1] - ends[0][0]).max() > 0
    np.testing.assert_array_equal(ends[1], ends[0])


def test_nothing_else_stays_behind():
    """Oracle: an environment whose loss is the action, replaced; and T: samples follow both."""
    tasks = make_tasks(1, None)
    world = Environment(lambda key, task: jnp.zeros(1), lambda state: state, lambda *a: Transition(a[2], jnp.ones(())))
    problem = from_environment(world, tasks=tasks, num_steps=3, discount=0.9, actions=Discrete(2))
    assert problem.spaces == Spaces(Box((1,)), Discrete(2))
    twice = world._replace(step=lambda *a: Transition(a[2], 2 * jnp.ones(())))
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    batch = problem._replace(environment=twice, num_steps=4).sample(
        jax.random.key(0), task, problem.init(jax.random.key(0)), 2
    )
    np.testing.assert_array_equal(batch.losses, np.full((2, 4), 2.0))


def test_models_know_every_policy_that_they_can():
    """Oracle: a network without hidden layers is a table of its own; a learned std at its start is a fixed one; Monte Carlo is not needed."""
    value = lambda problem: jax.jit(problem.value)  # noqa: E731
    finite = garnet(num_learners=2)
    task = jax.tree.map(lambda leaf: leaf[1], finite.tasks)
    network = with_policy(finite, mlp, hidden=())
    weights = jnp.asarray(RNG.normal(size=(5, 3)))
    bias = jnp.asarray(RNG.normal(size=3))
    theta = jnp.concatenate([weights.ravel(), bias])
    np.testing.assert_allclose(value(network)(task, theta), value(finite)(task, (weights + bias[None]).ravel()), 1e-12)
    control = linear_quadratic(num_learners=2)
    assert with_policy(control, mlp).value is None is with_policy(control, mlp).gradient
    one = jax.tree.map(lambda leaf: leaf[1], control.tasks)
    feedback = jnp.asarray(0.1 * RNG.normal(size=6))
    fixed, learned = (with_policy(control, std=0.3, learned_std=each) for each in (False, True))
    whole = jnp.concatenate([feedback, jnp.full(2, jnp.log(0.3))])
    np.testing.assert_allclose(value(learned)(one, whole), value(fixed)(one, feedback), 1e-12)
    assert abs(value(fixed)(one, feedback) / value(control)(one, feedback) - 1) > 1e-3  # std matters


@pytest.mark.parametrize(
    ("problem", "size"),
    [
        (cart_pole, 4 * 16 + 16 + 16 * 2 + 2),
        (acrobot, 6 * 16 + 16 + 16 * 3 + 3),
        (pendulum, 3 * 16 + 16 + 16 + 1),
        (cooperative_navigation, 2 * (12 * 30 + 30 + 30 * 10 + 10 + 10 * 5 + 5)),
        (linear_quadratic, 6),
        (garnet, 15),
    ],
)
def test_defaults(problem, size):
    """Oracle: the networks of docs/problems.md and docs/parallel.md, counted; a configuration changes what it names alone."""
    made = problem()
    assert made.policy.num_params == size
    if problem is cooperative_navigation:
        changed = build_problem(Config(policy=Part(hidden=4))).policy
        assert changed.num_params == 2 * (12 * 4 + 4 + 4 * 5 + 5)
        theta, seen = jnp.asarray(RNG.normal(size=changed.num_params)), jnp.asarray(RNG.normal(size=12))
        relu = with_policy(made, hidden=(4,), activation="relu").policy
        np.testing.assert_array_equal(
            changed.log_prob(theta, seen, jnp.array([0, 1])), relu.log_prob(theta, seen, jnp.array([0, 1]))
        )


def test_masks_are_no_input():
    """Oracle: the same network without a mask, and probability 0 of what the mask forbids."""
    bare = mlp(Spaces(Box((3,)), Discrete(4)))
    masked = mlp(Spaces(Box((3,)), Discrete(4), masked=True))
    assert masked.num_params == bare.num_params
    theta, seen = jnp.asarray(RNG.normal(size=bare.num_params)), jnp.asarray(RNG.normal(size=3))
    open_, shut = (jnp.concatenate([seen, jnp.asarray(mask, float)]) for mask in ([1, 1, 1, 1], [0, 1, 1, 0]))
    logs = [np.array([masked.log_prob(theta, each, jnp.int32(a)) for a in range(4)]) for each in (open_, shut)]
    free = np.array([bare.log_prob(theta, seen, jnp.int32(a)) for a in range(4)])
    np.testing.assert_allclose(logs[0], free, 1e-13)
    np.testing.assert_allclose(np.exp(logs[1][1:3]), np.exp(free[1:3]) / np.exp(free[1:3]).sum(), 1e-13)
    np.testing.assert_array_equal(np.exp(logs[1][[0, 3]]), 0)


# ---------------------------------------------------------------- networks


def test_orthogonal_starts():
    """Oracle: the definition: W Wᵀ = 2 I, or Wᵀ W where W is taller; the last layer 0.01² I; biases 0."""
    network = networks.mlp(4, (8, 8), 3, "tanh", "orthogonal")
    theta = np.asarray(jax.jit(network.init)(jax.random.key(0)))
    first, theta = theta[:32].reshape(4, 8), theta[32:]
    np.testing.assert_allclose(first @ first.T, 2 * np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(theta[:8], 0)
    last = theta[8 + 64 + 8 : -3].reshape(8, 3)
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(3), atol=1e-15)
    network = networks.conv((6, 5, 1), 2, initialisation="orthogonal")
    assert (
        np.abs(jax.jit(lambda key: network.apply(network.init(key), jnp.ones((6, 5, 1))))(jax.random.key(0))).max()
        < 0.1
    )


def test_convolutions():
    """Oracle: loops over places in NumPy: one convolution with stride 2 on a padded image, ReLU, a linear layer."""
    spaces = Spaces(Box((4, 6, 2)), Box((1,)))
    policy = conv(spaces, channels=(3,), kernel=3, stride=2, hidden=())
    assert policy.num_params == 3 * 3 * 2 * 3 + 3 + 2 * 3 * 3 + 1
    theta, image = RNG.normal(size=policy.num_params), RNG.normal(size=(4, 6, 2))
    kernel, bias, weights, offset = theta[:54].reshape(3, 3, 2, 3), theta[54:57], theta[57:75], theta[75]
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)))
    places = [
        [np.einsum("hwc,hwcd", padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel) for j in range(3)]
        for i in range(2)
    ]
    expected = np.maximum(np.array(places) + bias, 0).ravel() @ weights + offset
    for seen in (image, image.ravel()):  # adapters give it flat
        np.testing.assert_allclose(policy.mode(jnp.asarray(theta), jnp.asarray(seen)), [expected], 1e-12)


@pytest.mark.parametrize("library", ["flax", "equinox"])
def test_networks_of_ones_own(library, tmp_path):
    """Oracle: the module itself at the same weights: log-softmax of its output, and its gradient; then runs of cart_pole and of Gymnasium's."""
    make = lambda key: eqx.nn.MLP(4, 2, 5, 1, key=key)  # noqa: E731
    factory = from_flax(Net()) if library == "flax" else from_equinox(make)
    problem = with_policy(cart_pole(num_learners=2, num_steps=6), factory)
    policy, seen = problem.policy, jnp.asarray(RNG.normal(size=4))
    assert policy.num_params == 4 * 5 + 5 + 5 * 2 + 2
    key = jax.random.key(3)
    theta = policy.init(key)
    weights = Net().init(key, jnp.zeros(4)) if library == "flax" else make(key)
    call = Net().apply if library == "flax" else lambda module, seen: module(seen)
    expected = jax.nn.log_softmax(call(weights, seen))
    np.testing.assert_allclose([policy.log_prob(theta, seen, jnp.int32(a)) for a in range(2)], expected, 1e-12)
    slope = eqx.filter_grad(lambda weights: jax.nn.log_softmax(call(weights, seen))[1])(weights)
    found = jax.grad(policy.log_prob)(theta, seen, jnp.int32(1))
    np.testing.assert_allclose(found, jax.flatten_util.ravel_pytree(slope)[0], 1e-10)
    assert not np.array_equal(theta, policy.init(jax.random.key(4)))  # every seed has a start of its own
    setting = methods.Setting(estimators.gpomdp(policy, problem.discount, baseline="none"), 3, 2)
    states, logs = player(lambda hyper: methods.compose("pg", setting, hyper=full(hyper)), problem, 2)(
        {"step_size": 0.01}
    )
    assert logs.sent.all()
    assert np.abs(states.controller.params[-1] - states.controller.params[0]).max() > 0
    name = f"test_with_policy:{'flax_net' if library == 'flax' else 'equinox_net'}"
    config = Config(
        problem=Part("gymnasium", env="CartPole-v1", num_learners=2, num_steps=5),
        method="pg",
        optimiser=Part("sgd", step_size=0.01),
        policy=Part(name),
        batch_size=2,
        rounds=2,
        seeds=1,
    )
    run = train(config, tmp_path / "run", show_progress=False)
    assert run.record.sizes["parameter"] == policy.num_params
    action = run.policy(np.array([0.1, 0.2, -0.1, 0.0], np.float32))
    assert action in (0, 1)


flax_net = from_flax(Net())
equinox_net = from_equinox(lambda key: eqx.nn.MLP(4, 2, 5, 1, key=key))


def test_normal_actions_around_ones_own_network():
    """Oracle: the module's output is the mean; std is the factory's, or what is given later."""
    spaces = Spaces(Box((4,)), Box((2,), -1.0, 1.0))
    policy = from_flax(Net(), std=0.25, learned_std=True)(spaces)
    assert policy.num_params == 4 * 5 + 5 + 5 * 2 + 2 + 2
    theta, seen = policy.init(jax.random.key(0)), jnp.asarray(RNG.normal(size=4))
    np.testing.assert_allclose(np.exp(theta[-2:]), 0.25, 1e-12)
    np.testing.assert_allclose(policy.mode(theta, seen), Net().apply(Net().init(jax.random.key(0), seen), seen), 1e-12)
    np.testing.assert_allclose(policy.actuate(jnp.array([50.0, -50.0])), [1, -1])
    fixed = from_flax(Net(), std=0.25)(spaces, std=0.5)
    moved, _ = fixed.sample(jnp.ones(2), theta[:-2], seen)
    np.testing.assert_allclose(moved - fixed.mode(theta[:-2], seen), 0.5, 1e-12)


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        (Part("conv", hidden=4, channels=[2]), 9 * 2 + 2 + 3 * 3 * 2 * 4 + 4 + 4 * 2 + 2),
        (Part("test_with_policy:image_net", width=2), 9 * 2 + 2 + 6 * 5 * 2 * 2 + 2),
    ],
)
def test_images(policy, size, tmp_path):
    """Oracle: parameters counted; the run's action on an image as it comes is the policy's own on bytes divided by 255."""
    config = Config(
        problem=Part("gymnasium", env="test_with_policy:Pixels", num_learners=2, num_steps=4),
        method="pg",
        optimiser=Part("sgd", step_size=0.1),
        policy=policy,
        batch_size=2,
        rounds=2,
        seeds=1,
    )
    run = train(config, tmp_path / "run", show_progress=False)
    assert run.record.sizes["parameter"] == size
    problem, theta = run.built.problem, jnp.asarray(run.params())
    assert problem.spaces == Spaces(Box((6, 5, 1)), Discrete(2))
    env = Pixels()
    for seed in range(3):
        image, _ = env.reset(seed=seed)
        assert run.policy(image) == problem.policy.mode(theta, jnp.asarray(image / 255))


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_policy(quadratic(), mlp), "needs a problem that says what is observed and done"),
        (lambda: with_policy(cart_pole(), mlp(Spaces(Box((4,)), Discrete(2))), hidden=(3,)), "leave out hidden"),
        (lambda: with_policy(cart_pole(), std=0.3), r"policy\(std=\.\.\.\) is of normal actions"),
        (lambda: with_policy(cart_pole(), conv), r"needs observations that are images \[H, W, C\], got shape \(4,\)"),
        (lambda: with_policy(cart_pole(), from_flax(Net(3))), r"returns 2 numbers \(logits of the actions\) of an obs"),
        (
            lambda: with_policy(cart_pole(), from_flax(nn.BatchNorm(True))),
            "parameters alone, got variables of batch_stats",
        ),
        (lambda: from_flax(Net), "made but not initialised, got"),
        (lambda: from_equinox(eqx.nn.MLP(4, 2, 5, 1, key=jax.random.key(0))), "must be a function key → module"),
        (lambda: networks.mlp(2, (3,), 1, initialisation="zeros"), "initialisation must be 'normal' or 'orthogonal'"),
        (lambda: make_policy(Spaces(Box((2,)), Box((1,))), linear, std=0.0), r"gaussian\(std=\.\.\.\) must be > 0"),
        (lambda: make_policy(Spaces(Box((2,)), Box((2, 2))), mlp), r"a Box with one axis, got shape \(2, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, message, unchecked):
    """Oracle: the docstrings; the message names rule and value."""
    with pytest.raises(ValueError, match=message):
        make()


def not_a_policy(spaces):
    return 3


def bringing_its_own():
    world = Environment(lambda key, task: jnp.zeros(1), lambda state: state, lambda *a: Transition(a[2], jnp.ones(())))
    policy = mlp(Spaces(Box((1,)), Discrete(2)))
    return from_environment(world, policy, tasks=make_tasks(1, None), num_steps=3, discount=0.9)


@pytest.mark.parametrize(
    ("problem", "policy", "message"),
    [
        ("cart_pole", Part("mpl"), r"policy must be one of actor, conv, linear, mlp, table, .*did you mean 'mlp'"),
        (
            "cart_pole",
            Part(hiden=[3]),
            r"policy\.hiden is not an option of policy 'mlp'.*'hidden'",
        ),
        ("garnet", Part(hidden=3), r"policy\.hidden is not an option of policy 'table', which takes nothing"),
        ("cart_pole", Part(std=0.3), r"policy\.std is of normal actions, and all actions are discrete"),
        ("pendulum", Part(std=-1.0), r"policy\.std must be > 0"),
        ("cart_pole", Part("table"), "needs discrete observations and actions"),
        (
            "quadratic",
            Part(hidden=3),
            "policy cannot be chosen for problem 'quadratic', which needs no policy",
        ),
        (
            "test_with_policy:bringing_its_own",
            Part(hidden=3),
            "brings a policy of its own, and does not say",
        ),
        ("cart_pole", Part("test_with_policy:not_a_policy"), r"must return a lapg\.types\.Policy, got int"),
    ],
)
def test_wrong_configurations_are_refused(problem, policy, message, unchecked):
    """Oracle: the docstrings, in the words of the configuration."""
    with pytest.raises(ValueError, match=message):
        build_problem(Config(problem=Part(problem), policy=policy))


def test_a_network_that_does_not_fit_says_what_it_was_given(unchecked):
    """Oracle: cart-pole's observation has 4 entries; the network wants 7."""

    class Seven(nn.Module):
        @nn.compact
        def __call__(self, seen):
            return nn.Dense(2)(seen @ jnp.ones((7, 3)))

    with pytest.raises(Exception, match="contracting") as error:
        with_policy(cart_pole(), from_flax(Seven()))
    assert any("given an observation of shape (4,)" in note for note in error.value.__notes__)


def uncalled(spaces):
    return from_flax(Net())


def test_a_factory_that_returns_a_factory(unchecked):
    """Oracle: the message says what to call."""
    with pytest.raises(
        ValueError,
        match=r"got function; from_flax\(NETWORK\(\)\) is a factory: return from_flax\(NETWORK\(\)\)\(spaces\)",
    ):
        build_problem(Config(problem=Part("cart_pole"), policy=Part(uncalled)))
