"""The default runtime: rounds under ``scan``, learners and lanes under ``vmap``, lanes spread over the machine's cores.

A lane is one run: one seed with one set of hyperparameters. All lanes advance together through compiled chunks, in stretches of as many rounds as take
about a second. Progress, checkpoints and interruptions happen between stretches, and nothing is compiled twice.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lapg.rounds import Log, RunState, initialise, play_round
from lapg.runtimes.base import Pause, never
from lapg.runtimes.evaluation import Evaluation, finish_log, score_inside, with_scores
from lapg.types import Method, Problem, Recipe

CACHE_BYTES = 4_000_000
"""Working set of one core; lanes that need more are computed one after the other instead of together."""
STRETCH_SECONDS = 0.5, 1.5
"""Shorter stretches double, longer ones halve."""


def use_all_cores(num_cores: int | None = None) -> int:
    """Makes JAX see one CPU device per core, so that lanes spread over cores. Call it before JAX is used.

    It also switches asynchronous dispatch off: handing a computation to another thread takes longer than a policy's step in an environment outside JAX,
    and chunks are waited for in any case.

    Returns:
      The number of devices that JAX sees; 1 if JAX was already running.
    Raises:
      ValueError: JAX finds none of the devices that JAX_PLATFORMS names.
    """
    with contextlib.suppress(RuntimeError):  # JAX is running already; the user's own set-up stands
        jax.config.update("jax_num_cpu_devices", num_cores or len(os.sched_getaffinity(0)))
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        return jax.local_device_count()
    except (RuntimeError, AssertionError) as error:
        asked = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
        reason = str(error).partition("\n")[0] or "there are none"
        raise ValueError(
            f"JAX_PLATFORMS must name devices that JAX can use here, got {asked!r}: {reason}; leave it out, or set it to cpu."
        ) from error


def lanes_at_once(problem: Problem, method: Method, num_lanes: int) -> int:
    """Chooses how many of a device's lanes are computed together: the largest divisor whose per-trajectory gradients fit into the cache."""
    params = jax.eval_shape(problem.init, jax.random.key(0))
    lane_bytes = problem.num_learners * method.batch_size * params.size * params.dtype.itemsize
    divisors = [num for num in range(1, num_lanes + 1) if num_lanes % num == 0]
    return max(num for num in divisors if num == 1 or num * lane_bytes <= CACHE_BYTES)


class Vectorised:
    """Compiles a method on a problem for L lanes and advances them in chunks.

    States are padded to equally many lanes on each device; `export` removes the padding, and `advance` accepts a state with or without it.

    Args:
      recipe: hyperparameters of one lane → Method; called inside the compiled function, and once before it with the first lane's values so that
        the parts can check them.
      hypers: every hyperparameter with a leading axis L.
      seeds: L seeds; lanes with equal seeds draw equal samples as long as their θ agree.
      chunk_rounds: rounds per compiled chunk, the most that are played at once.
      initial_params: θ⁰ of every lane, [L, d], instead of the problem's own.
      evaluation: when and how θ^k is scored.
    """

    fetches = False

    def __init__(
        self,
        recipe: Recipe,
        problem: Problem,
        hypers: dict[str, Any],
        seeds: Sequence[int],
        *,
        chunk_rounds: int = 25,
        initial_params: np.ndarray | None = None,
        evaluation: Evaluation = Evaluation(),  # noqa: B008  (immutable)
    ) -> None:
        self.num_lanes, self._evaluation = len(seeds), evaluation
        self.chunk_rounds = chunk_rounds
        self.num_traces, self._stretch = 0, 1
        method = recipe(jax.tree.map(lambda leaf: np.asarray(leaf)[0], hypers))
        devices = jax.local_devices()[: min(self.num_lanes, jax.local_device_count())]
        per_device = -(-self.num_lanes // len(devices))
        self._mesh, self._num_padded = Mesh(np.array(devices), ("lane",)), per_device * len(devices)
        self._hypers = self._pad(hypers)
        self._seeds = self._pad(np.asarray(seeds, np.uint32))
        self._initial = self._pad(initial_params)
        together = lanes_at_once(problem, method, per_device)
        score = score_inside(problem, evaluation, method) if evaluation.plays(problem, method) else None

        def start(hyper: dict[str, Any], seed: jax.Array, params: jax.Array | None) -> RunState:
            return initialise(recipe(hyper), problem, jax.random.key(seed), params)

        def chunk(
            hypers: dict[str, Any], seeds: jax.Array, states: RunState, first: jax.Array, until: jax.Array
        ) -> tuple[RunState, Log]:
            self.num_traces += 1

            def play(states: RunState, round: jax.Array) -> tuple[RunState, Log]:
                def lane(hyper: dict[str, Any], seed: jax.Array, state: RunState) -> tuple[RunState, Log]:
                    root = jax.random.key(seed)
                    after, log = play_round(recipe(hyper), problem, root, state)
                    if score is None:
                        return after, log
                    # the round is that of all lanes, so that this stays a branch under vmap
                    found = lambda score=score: with_scores(log, score(root, state.controller.params, round))  # noqa: E731
                    return after, jax.lax.cond(evaluation.is_due(round), found, lambda: with_scores(log, None))

                if together == per_device:
                    return jax.vmap(lane)(hypers, seeds, states)
                return jax.lax.map(lambda x: lane(*x), (hypers, seeds, states), batch_size=together)

            blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(play, states, first)[1])

            def step(states: RunState, round: jax.Array) -> tuple[RunState, Log]:
                return jax.lax.cond(round < until, play, lambda states, _: (states, blank), states, round)

            return jax.lax.scan(step, states, first + jnp.arange(chunk_rounds))

        lanes, everybody = PartitionSpec("lane"), PartitionSpec()
        # lanes keep the cores busy: threads inside an operation would only compete with them
        alone = {"xla_cpu_multi_thread_eigen": len(devices) == 1} if devices[0].platform == "cpu" else {}
        self._start = jax.jit(
            self._spread(jax.vmap(start), (lanes, lanes, lanes), lanes),
            compiler_options={"xla_backend_optimization_level": 1},  # runs once: compile it quickly
        )
        self._chunk = jax.jit(
            self._spread(chunk, (lanes, lanes, lanes, everybody, everybody), (lanes, PartitionSpec(None, "lane"))),
            compiler_options={
                "xla_backend_optimization_level": 2,
                **alone,
            },  # as fast as 3, compiled in a third of the time
        )

    def _spread(self, function: Callable[..., Any], inputs: Any, outputs: Any) -> Callable[..., Any]:
        return jax.shard_map(function, mesh=self._mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    def _pad(self, tree: Any) -> Any:
        """Repeats the last lane until all devices have equally many, and spreads lanes over the devices."""
        spread = NamedSharding(self._mesh, PartitionSpec("lane"))

        def pad(leaf: Any) -> jax.Array:
            missing = self._num_padded - leaf.shape[0]
            leaf = jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, 0)]) if missing else leaf
            return jax.device_put(leaf, spread)

        return jax.tree.map(pad, tree)

    def export(self, state: RunState) -> RunState:
        """The state as it is saved, shaped as `state_shape` says: the same whatever the number of devices."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: self.num_lanes], state)

    def start(self) -> RunState:
        """The state of all lanes before round 0."""
        return self._start(self._hypers, self._seeds, self._initial)

    def state_shape(self) -> RunState:
        """Shapes and dtypes of the state as `export` gives it, without computing it."""
        padded = jax.eval_shape(self._start, self._hypers, self._seeds, self._initial)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.num_lanes, *leaf.shape[1:]), leaf.dtype), padded)

    def lane_shape(self) -> RunState:
        """Shapes and dtypes of one lane's state."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.state_shape())

    def advance(self, state: RunState, first: int, until: int, pause: Pause = never) -> tuple[RunState, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1, a stretch of about a second at a time; fewer where ``pause`` says so.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        """
        until, state, logs, begin = min(first + self.chunk_rounds, until), self._pad(state), [], first
        while not logs or first < until:
            num, began = min(self._stretch, until - first), time.monotonic()
            state, log = self._chunk(self._hypers, self._seeds, state, jnp.int32(first), jnp.int32(first + num))
            logs.append(
                jax.tree.map(lambda leaf, num=num: np.asarray(leaf)[:num, : self.num_lanes].swapaxes(0, 1), log)
            )
            first += num
            self._pace(num, time.monotonic() - began)
            if pause(first):
                break
        log = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logs)
        return state, finish_log(log, begin, self._evaluation)

    def _pace(self, num: int, seconds: float) -> None:
        short, long = STRETCH_SECONDS
        if num == self._stretch and seconds < short:
            self._stretch = min(2 * num, self.chunk_rounds)
        elif seconds > long:
            self._stretch = max(1, self._stretch // 2)

    def temporary_bytes(self, state: RunState) -> int:
        """Returns the memory of a chunk beside its arguments and results, as the compiler plans it."""
        rounds = jnp.int32(0)
        analysis = (
            self._chunk.lower(self._hypers, self._seeds, self._pad(state), rounds, rounds).compile().memory_analysis()
        )
        return analysis.temp_size_in_bytes * self._mesh.size if analysis is not None else 0

    def lane(self, state: RunState, index: int) -> RunState:
        """The state of one lane."""
        return jax.tree.map(lambda leaf: leaf[index], state)

    def close(self) -> None:
        """Does nothing: everything is in this process."""
