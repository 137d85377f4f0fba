"""Critics: what a learner knows of its own values. They learn from its episodes and never leave it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from lapg.policies.networks import Network, mlp
from lapg.types import Problem, Trajectories

Kind = Sequence[int] | str | Network


class CriticState(eqx.Module):
    """What a critic remembers.

    Attributes:
      weights: what it knew before the present batch. Estimates use these: they owe nothing to the batch, so trajectories stay independent of
        one another and a baseline stays unbiased.
      fitted: what it knows with the present batch.
      optimiser: that of the regression.
    """

    weights: Float[Array, " p"]
    fitted: Float[Array, " p"]
    optimiser: PyTree


class Critic(NamedTuple):
    """A learned value of an input at a time.

    ``init: key → CriticState`` · ``apply: weights, input, t/T → value`` · ``values``: the same for a batch, inputs with leading axes N, T and
    times [T] · ``fit: CriticState, inputs, times, targets, mask → CriticState``, where targets and mask are [N, T].
    """

    init: Callable[..., CriticState]
    apply: Callable[..., Any]
    values: Callable[..., Any]
    fit: Callable[..., CriticState]


def make_critic(owner: str, network: Network, *, step_size: float, num_steps: int, trace_decay: float) -> Critic:
    """A critic that takes ``num_steps`` full-batch steps of Adam on its mean squared error over the steps that count.

    Raises:
      ValueError: step_size is not positive, num_steps is below 1, or trace_decay is outside [0, 1].
    """
    if step_size <= 0:
        raise ValueError(f"{owner}(critic_step_size=...) must be > 0, got {step_size}.")
    if num_steps < 1:
        raise ValueError(f"{owner}(critic_steps=...) must be a whole number >= 1, got {num_steps}.")
    if not 0 <= trace_decay <= 1:
        raise ValueError(f"{owner}(trace_decay=...) must lie in [0, 1], got {trace_decay}; 1 leaves bootstrapping out.")
    optimiser = optax.adam(step_size)
    values = jax.vmap(jax.vmap(network.apply, (None, 0, 0)), (None, 0, None))

    def init(key: Key[Array, ""]) -> CriticState:
        weights = network.init(key)
        return CriticState(weights, weights, optimiser.init(weights))

    def fit(
        state: CriticState,
        inputs: PyTree,
        times: Float[Array, " T"],
        targets: Float[Array, "N T"],
        mask: Bool[Array, "N T"],
    ) -> CriticState:
        def error(weights: Float[Array, " p"]) -> Float[Array, ""]:
            return jnp.sum(jnp.where(mask, values(weights, inputs, times) - targets, 0) ** 2) / jnp.sum(mask)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            weights, memory = carry
            change, memory = optimiser.update(jax.grad(error)(weights), memory)
            return (weights + change, memory), None

        (fitted, memory), _ = jax.lax.scan(step, (state.fitted, state.optimiser), length=num_steps)
        return CriticState(state.fitted, fitted, memory)

    return Critic(init, network.apply, values, fit)


def make_network(owner: str, kind: Kind, example: Callable[[], PyTree], num_times: int) -> Network:
    """The network of a critic whose inputs look like ``example()``, which is not asked where the network is given.

    Args:
      kind: hidden widths of a tanh network on input and time; ``quadratic`` for all products of up to two entries of the input, with weights of
        their own at each of ``num_times`` times and 0 at the start; or a network, ``apply: weights, input, t/T → value``.
    Raises:
      ValueError: another word, or an input that is not made of real numbers.
    """
    if isinstance(kind, Network):
        return kind
    if isinstance(kind, str) and kind != "quadratic":
        raise ValueError(f"{owner}(critic=...) must be hidden widths, 'quadratic' or a Network, got {kind!r}.")
    leaves = jax.tree.leaves(example())
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"{owner}(critic=...) must be a Network of your own where an input is {leaf.dtype}; a table of values is "
                "Network(lambda key: jnp.zeros(S), lambda weights, state, time: weights[state], S)."
            )
    size = sum(leaf.size for leaf in leaves)
    if isinstance(kind, str):
        return _quadratic(size, num_times)
    inner = mlp(size + 1, kind, 1, "tanh")

    def apply(weights: Float[Array, " p"], inputs: PyTree, time: Float[Array, ""]) -> Float[Array, ""]:
        return inner.apply(weights, jnp.append(ravel_pytree(inputs)[0], time))[0]

    return Network(inner.init, apply, inner.num_params)


def _quadratic(size: int, num_times: int) -> Network:
    rows, columns = np.triu_indices(size + 1)

    def apply(weights: Float[Array, " p"], inputs: PyTree, time: Float[Array, ""]) -> Float[Array, ""]:
        entries = jnp.append(ravel_pytree(inputs)[0], 1)
        now = jnp.round(time * num_times).astype(jnp.int32)
        return weights.reshape(num_times, rows.size)[now] @ (entries[rows] * entries[columns])

    return Network(lambda key: jnp.zeros(num_times * rows.size), apply, num_times * rows.size)


def observation_of(owner: str, problem: Problem) -> PyTree:
    """What one observation looks like: shapes and types.

    Raises:
      ValueError: the problem does not say.
    """
    if problem.observation is not None:
        return problem.observation
    environment = problem.environment
    if environment is None:
        raise ValueError(
            f"{owner}(critic=...) must be a Network of your own where the problem does not say what an observation looks like."
        )
    task = jax.tree.map(lambda leaf: leaf[0], problem.tasks)
    return jax.eval_shape(lambda key: environment.observe(environment.reset(key, task)), jax.random.key(0))


def td_errors(
    batch: Trajectories, discount: float, values: Float[Array, "N T"], following: Float[Array, "N T"]
) -> Float[Array, "N T"]:
    """δ_t = ℓ_t + γ·following_t − values_t; 0 after the end."""
    return jnp.where(batch.mask, batch.losses + discount * following - values, 0)


def decayed_sums(
    terms: Float[Array, "T *rest"], decay: float, first: Bool[Array, "T *rest"]
) -> Float[Array, "T *rest"]:
    """S_t = x_t + decay · S_{t−1}, and S_t = x_t in the first step of an episode."""

    def step(before: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        term, first = now
        return (total := term + jnp.where(first, 0, decay * before)), total

    return jax.lax.scan(step, jnp.zeros_like(terms[0]), (terms, first))[1]


def sums_ahead(terms: Float[Array, "N T"], decay: float, ended: Bool[Array, "N T"]) -> Float[Array, "N T"]:
    """S_t = x_t + decay · S_{t+1} within each episode."""
    return decayed_sums(terms.T[::-1], decay, ended.T[::-1])[::-1].T
