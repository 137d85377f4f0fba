"""Plays a method with the real learner and controller code, many problems at once, and keeps every state."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from lapg.rounds import initialise, play_round
from lapg.types import Method, Problem

AT_ONCE = 25
"""Cases side by side: enough for long vector operations, few enough for the cache. Being inside a loop also keeps XLA from spreading
batches of small linear solves over threads, which has been seen to hang on machines with two cores (jaxlib 0.10.2)."""


class Path(eqx.Module):
    """A run of K rounds.

    Attributes:
      params: θ^0, ..., θ^K.
      sent: who uploaded.
      measured: every learner's own gradient of the round, exact or estimated.
      held: what the controller believes it to be after the round.
      statistic, threshold: both sides of the trigger's condition.
    """

    params: Float[Array, "n d"]
    sent: Bool[Array, "K M"]
    measured: Float[Array, "K M d"]
    held: Float[Array, "K M d"]
    statistic: Float[Array, "K M"]
    threshold: Float[Array, "K M"]

    @property
    def squared_steps(self) -> Float[Array, " K"]:
        """‖θ^{k+1} − θ^k‖²."""
        return jnp.sum(jnp.diff(self.params, axis=0) ** 2, -1)


def play(method: Method, problem: Problem, key: Key[Array, ""], num_rounds: int, params: Float[Array, " d"]) -> Path:
    """Plays a method from θ⁰ = ``params``. Scores are dropped, and with them samples that nobody needs.

    ``measured`` and ``held`` are those of lagged memories; others leave nothing there that could be used.
    """

    def step(state: Any, _: None) -> Any:
        after, log = play_round(method, problem, key, state)
        memory = after.learners.memory
        return after, (
            after.controller.params,
            log.sent,
            memory.value,
            getattr(memory, "uploaded", memory.value),
            log.learner.trigger_statistic,
            log.learner.trigger_threshold,
        )

    _, (path, *rest) = jax.lax.scan(step, initialise(method, problem, key, params), length=num_rounds)
    return Path(jnp.concatenate([params[None], path]), *rest)


def many(one: Callable[[Key[Array, ""]], Any], seed: int, num: int) -> Any:
    """One compilation for ``num`` random cases, some at a time: ``one`` takes a key; results are NumPy arrays with a leading axis."""
    turns = -(-num // AT_ONCE)
    at_once = -(-num // turns)  # equal turns: a shorter last one would be compiled again
    keys = jax.random.split(jax.random.key(seed), turns * at_once)
    results = compiled(lambda keys: jax.lax.map(one, keys, batch_size=at_once))(keys)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:num], results)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jit`` for what runs once: compiling is most of the time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
