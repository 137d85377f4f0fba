"""Critics: what a learner knows of its own values. They learn from its episodes and never leave it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lapg.policies.networks import Network, mlp
from lapg.types import Problem, Trajectories, select

Kind = Sequence[int] | str | Network


class Units(eqx.Module):
    """Mean and mean square deviation of all batches so far, and their number: of the targets, in whose units a critic's network answers, or of the inputs."""

    mean: Float[Array, "*shape"]
    variance: Float[Array, "*shape"]
    count: Float[Array, ""]

    @property
    def std(self) -> Float[Array, "*shape"]:
        """Standard deviation; 1 as long as there is none."""
        return jnp.where(self.variance > 0, jnp.sqrt(self.variance), 1)


class CriticState(eqx.Module):
    """What a critic remembers.

    Attributes:
      weights: what it knew before the present batch. Estimates use these: they owe nothing to the batch, so trajectories stay independent of
        one another and a baseline stays unbiased.
      fitted: what it knows with the present batch.
      optimiser: that of the regression.
      seen: of the inputs, with the present batch; () where they are seen as they are.
      units, fitted_units: of the answers, before and with the present batch; () where they are those of the targets.
    """

    weights: Float[Array, " p"]
    fitted: Float[Array, " p"]
    optimiser: PyTree
    units: Units | tuple[()] = ()
    fitted_units: Units | tuple[()] = ()
    seen: Units | tuple[()] = ()


class Critic(NamedTuple):
    """A learned value of an input at a time.

    ``init: key → CriticState`` · ``apply: weights, input, t/T → value``, and for a batch ``values: weights, inputs (leading axes N, T), times [T] →
    values``, in the network's own units (`in_units`) · ``fit: CriticState, inputs, times, targets, mask → CriticState``, where targets and mask are [N, T].
    """

    init: Callable[..., CriticState]
    apply: Callable[..., Any]
    values: Callable[..., Any]
    fit: Callable[..., CriticState]


def make_critic(
    owner: str,
    network: Network,
    *,
    step_size: float,
    num_steps: int,
    trace_decay: float,
    minibatches: int = 1,
    max_norm: float | None = None,
    value_clip: float | None = None,
    standardise: bool = False,
) -> Critic:
    """A critic that makes ``num_steps`` passes over a batch, each a step of Adam on the mean squared error of every one of ``minibatches`` equal parts of its steps.

    A fit that does not come out finite is dropped.

    Args:
      minibatches: must divide N · T; the division differs from pass to pass and is the same for every batch.
      max_norm: gradients are scaled down to this norm; None leaves them.
      value_clip: predictions further than this from those before the batch have no gradient towards their targets; None has no limit.
      standardise: whether the network answers in units of the targets that it has seen (`Units`), so that Adam's steps fit rewards of any size.
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
    if max_norm is not None:
        optimiser = optax.chain(optax.clip_by_global_norm(max_norm), optimiser)

    values = jax.vmap(jax.vmap(network.apply, (None, 0, 0)), (None, 0, None))
    answers = jax.vmap(network.apply, (None, 0, 0))

    def init(key: Key[Array, ""]) -> CriticState:
        start = network.init(key)
        units = Units(*jnp.zeros((3,), start.dtype)) if standardise else ()
        return CriticState(start, start, optimiser.init(start), units, units)

    def fit(
        state: CriticState,
        inputs: PyTree,
        times: Float[Array, " T"],
        targets: Float[Array, "N T"],
        mask: Bool[Array, "N T"],
    ) -> CriticState:
        before, units, goals = state.fitted, state.fitted_units, targets
        if isinstance(units, Units):
            units = with_batch(units, targets, mask)
            goals = (targets - units.mean) / units.std
        entries = jax.tree.map(lambda leaf: leaf.reshape(mask.size, *leaf.shape[2:]), (inputs, goals, mask))
        entries = (*entries, jnp.tile(times, mask.shape[0]))
        held = answers(before, entries[0], entries[3])

        def error(weights: Float[Array, " p"], rows: Int[Array, " n"] | None) -> Float[Array, ""]:
            part = (*entries, held)
            seen, goal, counts, time, old = part if rows is None else jax.tree.map(lambda leaf: leaf[rows], part)
            value = answers(weights, seen, time)
            wrong = (value - goal) ** 2
            if value_clip is not None:
                near = old + jnp.clip(value - old, -value_clip, value_clip)
                wrong = jnp.maximum(wrong, (near - goal) ** 2)
            return jnp.sum(jnp.where(counts, wrong, 0)) / jnp.maximum(jnp.sum(counts), 1)

        def step(carry: Any, rows: Int[Array, " n"] | None) -> tuple[Any, None]:
            weights, memory = carry
            change, memory = optimiser.update(jax.grad(error)(weights, rows), memory)
            return (weights + change, memory), None

        rows = jnp.asarray(_parts(mask.size, num_steps, minibatches)) if minibatches > 1 else None
        (fitted, memory), _ = jax.lax.scan(step, (before, state.optimiser), rows, length=num_steps * minibatches)
        after = CriticState(before, fitted, memory, state.fitted_units, units, state.seen)
        kept = CriticState(before, before, state.optimiser, state.fitted_units, state.fitted_units, state.seen)
        return select(jnp.all(jnp.isfinite(fitted)), after, kept)

    return Critic(init, network.apply, values, fit)


def in_units(units: Units | tuple[()], values: Float[Array, "..."]) -> Float[Array, "..."]:
    """A critic's answers in the units of its targets."""
    return units.mean + units.std * values if isinstance(units, Units) else values


@functools.cache
def _parts(size: int, passes: int, parts: int) -> np.ndarray:
    """The entries of each of passes · parts steps."""
    draw = np.random.default_rng(0)
    return np.stack([draw.permutation(size) for _ in range(passes)]).astype(np.int32).reshape(passes * parts, -1)


def with_batch(units: Units, values: Float[Array, "N T *shape"], mask: Bool[Array, "N T"]) -> Units:
    """The units with those of another batch (Chan, Golub, LeVeque)."""
    num = jnp.sum(mask).astype(units.count.dtype)
    counts = mask.reshape(mask.shape + (1,) * (values.ndim - 2))
    mean = jnp.sum(jnp.where(counts, values, 0), (0, 1)) / jnp.maximum(num, 1)
    variance = jnp.sum(jnp.where(counts, (values - mean[None, None]) ** 2, 0), (0, 1)) / jnp.maximum(num, 1)
    total = jnp.maximum(units.count + num, 1)
    apart, share = mean - units.mean, num / total
    together = units.variance * (1 - share) + variance * share + apart**2 * share * (1 - share)
    return Units(units.mean + apart * share, together, units.count + num)


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
