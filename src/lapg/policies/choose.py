"""Policies made for a problem's spaces, and the problem with one of them beside it.

A factory is ``spaces, **options → Policy`` of one agent; its keyword arguments are the options of a configuration's table ``policy``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lapg.policies import networks, softmax
from lapg.policies.gaussian import correlated, gaussian, gaussian_linear
from lapg.policies.networks import Initialisation, Network
from lapg.policies.normalised import normalised
from lapg.policies.products import one_view, product, replicated
from lapg.types import Box, Discrete, JointSpaces, Policy, Problem, Spaces

Factory = Callable[..., Policy]
Activation = Literal["relu", "softplus", "tanh"]


def with_policy(problem: Problem, policy: Policy | Factory | None = None, **options: Any) -> Problem:
    """The problem with another policy beside it: what the runtimes play.

    Args:
      policy: one, or a factory of them, called with the problem's spaces (with each agent's own where there are several); None is the problem's
        default.
      options: of the factory.
    Raises:
      ValueError: the problem does not say what a policy has to know, or the policy does not fit it.
    """
    if isinstance(policy, Policy):
        if options:
            raise ValueError(
                f"with_policy(...) takes options for a factory, not for a policy; leave out {', '.join(options)}."
            )
        return problem._replace(policy=policy)
    factory = policy or problem.default_policy
    if problem.spaces is None or factory is None:
        raise ValueError(
            "with_policy(problem=...) needs a problem that says what is observed and done, got one without spaces; give "
            "lapg.problems.builders.from_environment its actions, or with_policy a policy."
        )
    return problem._replace(policy=make_policy(problem.spaces, factory, **options))


def make_policy(spaces: Spaces | JointSpaces, factory: Factory, **options: Any) -> Policy:
    """The policy of one agent, or the product of the agents' policies."""
    agents = spaces.agents if isinstance(spaces, JointSpaces) else (spaces,)
    for agent in agents:
        if isinstance(agent.action, Box) and len(agent.action.shape) != 1:
            raise ValueError(
                f"Spaces(action=...) must be Discrete or a Box with one axis, got shape {agent.action.shape}."
            )
    for name in ("std", "learned_std"):
        if options.get(name) not in (None, False) and all(isinstance(agent.action, Discrete) for agent in agents):
            raise ValueError(f"policy({name}=...) is of normal actions, and all actions are discrete; leave it out.")
    if isinstance(spaces, Spaces):
        return factory(spaces, **options)
    for name in ("normalise", "correlation"):
        if options.get(name):
            raise ValueError(f"policy({name}=...) must be left out where agents are several; it is of one agent alone.")
    if spaces.stacked:
        return replicated(factory(agents[0], **options), len(agents), local=spaces.local, tied=spaces.tied)
    joint = product([factory(agent, **options) for agent in agents])
    return joint if spaces.local else one_view(joint, len(agents))


def mlp(
    spaces: Spaces,
    *,
    hidden: Sequence[int] = (16,),
    activation: Activation = "tanh",
    initialisation: Initialisation = "normal",
    std: float | None = None,
    learned_std: bool = False,
) -> Policy:
    """A fully connected network; its output is the logits of discrete actions, or the mean of normal ones.

    Args:
      hidden: widths of the hidden layers.
      activation: ``relu``, ``softplus`` or ``tanh``.
      initialisation: of the weights, ``normal`` or ``orthogonal`` (`lapg.policies.networks.Initialisation`).
      std: of normal actions: standard deviation in units of the network's output (`lapg.policies.gaussian`); where it is learned, its start; None is 0.5.
      learned_std: of normal actions: whether log std is a part of θ.
    Raises:
      ValueError: a width below 1, an unknown activation or initialisation, std is not positive.
    """
    network = networks.mlp(spaces.num_inputs, hidden, spaces.num_outputs, activation, initialisation)
    flat = network._replace(apply=lambda params, seen: network.apply(params, seen.ravel()))
    return around(spaces, flat, std=std, learned_std=learned_std)


def actor(
    spaces: Spaces,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    std: float = 1.0,
    correlation: float = 0.0,
    normalise: bool | None = None,
) -> Policy:
    """The usual actor of PPO: orthogonal initial weights with small outputs, normal actions whose standard deviation is learned; images go through `conv`.

    Args:
      hidden: widths of the fully connected layers.
      activation: ``relu``, ``softplus`` or ``tanh``.
      std: of normal actions, at the start.
      correlation: of normal actions: of the noise of consecutive steps, in [0, 1), so that exploration gets somewhere (`lapg.policies.correlated`).
      normalise: whether observations are seen in units of their running moments, which are entries of θ that travel with it; None: those of outside
        environments are, and images and whole numbers never.
    Raises:
      ValueError: a width below 1, an unknown activation, std is not positive; observations that cannot be normalised shall be.
    """
    options: dict[str, Any] = {"hidden": hidden, "activation": activation, "initialisation": "orthogonal"}
    normal = isinstance(spaces.action, Box)
    if normal:
        options |= {"std": std, "learned_std": True}
    elif correlation:
        raise ValueError(
            f"actor(correlation=...) is of normal actions, and these are discrete, got {correlation}; leave it out."
        )
    image = isinstance(spaces.observation, Box) and len(spaces.observation.shape) == 3
    made = (conv if image else mlp)(spaces, **options)
    if normal:
        made = correlated(made, correlation)
    fits = isinstance(spaces.observation, Box) and not image
    if normalise and not fits:
        raise ValueError(
            f"actor(normalise=...) must be False where observations are images or whole numbers, got {spaces.observation}."
        )
    if not fits or not (spaces.raw if normalise is None else normalise):
        return made
    return normalised(made, as_numbers(spaces), spaces.num_inputs)


def conv(
    spaces: Spaces,
    *,
    channels: Sequence[int] = (8, 16),
    kernel: int = 3,
    stride: int = 2,
    hidden: Sequence[int] = (32,),
    activation: Activation = "relu",
    initialisation: Initialisation = "normal",
    std: float | None = None,
    learned_std: bool = False,
) -> Policy:
    """A small convolutional network for observations that are images [H, W, C] (`lapg.policies.networks.conv`), otherwise like `mlp`.

    Args:
      channels: of every convolution's output.
      kernel: rows and columns of every convolution.
      stride: by which every convolution divides rows and columns.
      hidden: widths of the fully connected layers after them.
      activation: ``relu``, ``softplus`` or ``tanh``.
      initialisation: of the weights, ``normal`` or ``orthogonal``.
      std: of normal actions: standard deviation, in units of the network's output; None is 0.5.
      learned_std: of normal actions: whether it is learned.
    Raises:
      ValueError: observations are not images, a size is below 1, an unknown activation or initialisation, std is not positive.
    """
    shape = spaces.observation.shape if isinstance(spaces.observation, Box) else ()
    network = networks.conv(
        shape,
        spaces.num_outputs,
        channels=channels,
        kernel=kernel,
        stride=stride,
        hidden=hidden,
        activation=activation,
        initialisation=initialisation,
    )
    return around(spaces, network, std=std, learned_std=learned_std)


def linear(spaces: Spaces, *, std: float | None = None, learned_std: bool = False) -> Policy:
    """Logits, or the mean of normal actions, that are linear in the observation, without bias; θ⁰ = 0.

    Args:
      std: of normal actions: standard deviation; None is 0.5.
      learned_std: of normal actions: whether it is learned.
    Raises:
      ValueError: std is not positive.
    """
    num_inputs, num_outputs = spaces.num_inputs, spaces.num_outputs
    box = spaces.action
    if isinstance(box, Box) and isinstance(spaces.observation, Box) and len(spaces.observation.shape) == 1:
        deviation = 0.5 if std is None else std
        return gaussian_linear(num_inputs, num_outputs, std=deviation, learned_std=learned_std, **_bounds(box))
    size = num_inputs * num_outputs

    def apply(params: Float[Array, " d"], seen: Float[Array, "..."]) -> Float[Array, " A"]:
        return params.reshape(num_outputs, num_inputs) @ seen.ravel()

    network = Network(lambda key: jnp.zeros(size), apply, size, ((num_outputs, num_inputs),))
    return around(spaces, network, std=std, learned_std=learned_std)


def table(spaces: Spaces) -> Policy:
    """Tabular softmax: a logit for every state and action (`lapg.policies.softmax_table`).

    Raises:
      ValueError: observations or actions are not discrete.
    """
    if not (isinstance(spaces.observation, Discrete) and isinstance(spaces.action, Discrete)) or spaces.masked:
        raise ValueError(
            f"table(...) needs discrete observations and actions, got {spaces.observation} and {spaces.action}; use mlp."
        )
    return softmax.softmax_table(spaces.observation.num, spaces.action.num)


def around(spaces: Spaces, network: Network, *, std: float | None = None, learned_std: bool = False) -> Policy:
    """The policy for these spaces whose logits or mean action a network returns.

    Args:
      network: of observations as numbers: of the shape that the spaces say, or one-hot; without mask.
      std: of normal actions: standard deviation in units of the network's output; None is 0.5.
      learned_std: of normal actions: whether it is learned.
    """
    see = as_numbers(spaces)
    num_outputs, action = spaces.num_outputs, spaces.action

    def apply(params: Float[Array, " d"], observation: PyTree) -> Float[Array, " A"]:
        return network.apply(params, see(observation))

    if isinstance(action, Discrete):
        allowed = (lambda observation: observation[-num_outputs:] > 0) if spaces.masked else None
        return softmax.categorical(apply, network.init, network.num_params, allowed=allowed, shapes=network.shapes)
    return gaussian(
        network._replace(apply=apply),
        num_outputs,
        std=0.5 if std is None else std,
        learned_std=learned_std,
        **_bounds(action),
    )


def _bounds(box: Box) -> dict[str, Any]:
    """Those of `gaussian`, where there are any."""
    return {name: np.asarray(bound) for name, bound in (("low", box.low), ("high", box.high)) if bound is not None}


def as_numbers(spaces: Spaces) -> Callable[[PyTree], Float[Array, "..."]]:
    """How an observation becomes what a network sees: real numbers of the space's shape, or one-hot."""
    space, size = spaces.observation, spaces.num_inputs
    if isinstance(space, Discrete):
        return lambda observation: jax.nn.one_hot(observation, space.num)

    def see(observation: PyTree) -> Float[Array, "..."]:
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(observation)]
        floats = [leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(float) for leaf in leaves]
        whole = floats[0] if len(floats) == 1 else jnp.concatenate([leaf.ravel() for leaf in floats])
        return whole if whole.shape == space.shape else whole.ravel()[:size].reshape(space.shape)

    return see
