"""The compiled functions that both ends of a distributed run call, one set for all learners, lanes and lives in a process."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from lapg.runtimes.outside import Outside
from lapg.runtimes.protocol import (
    Reply,
    RunState,
    announce,
    initialise,
    make_relay,
    participants,
    play_learner,
    take_step,
)
from lapg.types import (
    INIT,
    Broadcast,
    ControllerState,
    LearnerState,
    Problem,
    Recipe,
    RoundLog,
    Upload,
    address,
    select,
    sum_rows,
)


class Compiled:
    """Compiles a recipe on a problem; hyperparameters and seeds are arguments, so that lanes share a compilation.

    Args:
      hyper: any lane's hyperparameters; the parts check them, and shapes are taken from them.

    ``start: hyper, seed, θ⁰ or None → RunState`` · ``announce: hyper, seed, ControllerState → Broadcast`` · ``present: hyper, seed, round → Bool[M]`` ·
    ``play: hyper, seed, m, LearnerState, Broadcast → LearnerState, Reply`` · ``renew: hyper, seed, m, θ, LearnerState or None → LearnerState`` ·
    ``collect: hyper, seed, ControllerState, shares, downlink, Uploads, heard, gone → ControllerState, shares, downlink, relay, unsound``, then
    ``step: hyper, ControllerState, relay → ControllerState, RoundLog``.
    """

    def __init__(self, recipe: Recipe, problem: Problem, hyper: dict[str, Any]) -> None:
        method = recipe(hyper)
        self.compressor, self.downlink = method.compressor, method.downlink
        self.reuses, self.num_learners = method.reuses, problem.num_learners

        @jax.jit
        def start(hyper: dict[str, Any], seed: Any, params: Any) -> RunState:
            return initialise(recipe(hyper), problem, jax.random.key(seed), params)

        @jax.jit
        def hear(hyper: dict[str, Any], seed: Any, state: ControllerState) -> Broadcast:
            return announce(recipe(hyper), jax.random.key(seed), state)

        @jax.jit
        def play(
            hyper: dict[str, Any], seed: Any, index: Any, state: LearnerState, broadcast: Broadcast
        ) -> tuple[LearnerState, Reply]:
            task = jax.tree.map(lambda leaf: leaf[index], problem.tasks)
            return play_learner(recipe(hyper), problem, jax.random.key(seed), task, state, broadcast)

        @jax.jit
        def renew(hyper: dict[str, Any], seed: Any, index: Any, params: Any, old: LearnerState | None) -> LearnerState:
            """Never uploaded, nothing remembered of it; what its estimator has learnt stays."""
            key = address(jax.random.key(seed), INIT, index, 0)
            new = recipe(hyper).learner.init(key, index, params)
            if old is None:
                return new
            return LearnerState(new.index, old.estimator, new.memory, new.trigger, new.sent_round)

        @jax.jit
        def collect(
            hyper: dict[str, Any],
            seed: Any,
            controller: ControllerState,
            shares: Float[Array, "M d"],
            downlink: PyTree,
            uploads: Upload,
            heard: Bool[Array, " M"],
            gone: Bool[Array, " M"],
        ) -> tuple[ControllerState, Float[Array, "M d"], PyTree, PyTree, Bool[Array, " M"]]:
            """What the controller is to step with; the shares of those that are gone, or whose upload is not finite, leave the aggregate first."""
            method, root = recipe(hyper), jax.random.key(seed)
            codec, broadcast = method.downlink, announce(method, root, controller)
            decoded = jax.vmap(method.compressor.decompress)(uploads.message)
            unsound = uploads.sent & ~(_finite(jnp.sum(decoded * decoded, -1)) & _finite(uploads.report))
            uploads = jax.vmap(_refuse)(unsound, uploads)
            gone = gone | unsound
            downlink, _ = codec.deliver(codec.resync(downlink, gone), controller, broadcast, heard & ~gone)
            if method.reuses:
                kept, mended = jnp.where(gone[:, None], 0, shares), jnp.any(gone)
                aggregate = jnp.where(mended, sum_rows(kept), controller.aggregate)
                shares = kept + jnp.where(uploads.sent[:, None], decoded, 0)
                controller = ControllerState(
                    controller.round, controller.params, aggregate, controller.optimiser, controller.trigger
                )
                # learners then hear the state, so that nothing is left over of what compression has held back
                downlink = select(mended, codec.init(controller, problem.num_learners), downlink)
            downlink, relayed = make_relay(method, root, broadcast, downlink, uploads)
            return controller, shares, downlink, relayed, unsound

        @jax.jit
        def step(
            hyper: dict[str, Any], controller: ControllerState, relayed: PyTree
        ) -> tuple[ControllerState, RoundLog]:
            """Compiled by itself, so that replicas compute the same to the bit."""
            return take_step(recipe(hyper), controller, relayed)

        def _refuse(refused: Bool[Array, ""], upload: Upload) -> Upload:
            """As if nothing had been sent; messages are long, and whoever was silent has none that counts."""
            report = select(refused, jax.tree.map(jnp.zeros_like, upload.report), upload.report)
            return Upload(upload.sent & ~refused, upload.message, report, upload.bits)

        def _finite(tree: Any) -> Bool[Array, " M"]:
            leaves = [jnp.isfinite(x).reshape(x.shape[0], -1).all(1) for x in jax.tree.leaves(tree)]
            return jnp.all(jnp.stack(leaves), 0) if leaves else jnp.ones(problem.num_learners, bool)

        @jax.jit
        def present(hyper: dict[str, Any], seed: Any, round: Any) -> Bool[Array, " M"]:
            return participants(recipe(hyper), jax.random.key(seed), round, problem.num_learners)

        self.start, self.announce, self.present = start, hear, present
        outside = None if problem.collect is None else Outside(recipe, problem, hyper)
        self.play, sketch = (play, play) if outside is None else (outside.play_one, outside.sketch)
        self.renew, self.collect, self.step = renew, collect, step
        self.state = jax.eval_shape(start, hyper, np.uint32(0), None)
        """Shapes of a lane's state."""
        self.learner = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.state.learners)
        broadcast = jax.eval_shape(hear, hyper, np.uint32(0), self.state.controller)
        reply = jax.eval_shape(sketch, hyper, np.uint32(0), np.int32(0), self.learner, broadcast)[1]
        self.broadcast, self.upload, self.record = zeros(broadcast), zeros(reply.upload), (reply.log, reply.scores)
        """What messages look like: zeros of their shapes."""
        everybody = jax.ShapeDtypeStruct((self.num_learners,), bool)
        uploads = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.num_learners, *leaf.shape), leaf.dtype), reply.upload
        )
        self.relay = zeros(
            jax.eval_shape(
                collect,
                hyper,
                np.uint32(0),
                self.state.controller,
                self.empty_shares(),
                self.state.downlink,
                uploads,
                everybody,
                everybody,
            )[3]
        )
        """What the controller and its replicas step with."""

    def rehearse(self, hyper: dict[str, Any]) -> None:
        """Compiles what a learner needs, so that its first round is as quick as the others."""
        broadcast, state = self.broadcast, zeros(self.learner)
        params = jnp.asarray(broadcast.params)
        fresh = self.renew(hyper, np.uint32(0), np.int32(0), params, None)
        self.play(hyper, np.uint32(0), np.int32(0), fresh, broadcast)
        self.renew(hyper, np.uint32(0), np.int32(0), params, state)
        if self.downlink.compressor is not None:
            self.announce(hyper, np.uint32(0), self.step(hyper, zeros(self.state.controller), self.relay)[0])

    def empty_shares(self) -> Float[Array, "M d"]:
        """Nobody's share; without entries where the method keeps no sum of uploads."""
        params = self.state.controller.params
        return jnp.zeros((self.num_learners, params.shape[0] if self.reuses else 0), params.dtype)


def zeros(shape: Any) -> Any:
    """NumPy zeros of a tree of shapes."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shape)
