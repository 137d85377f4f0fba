"""The compiled functions that both ends of a distributed run call, one set for all learners, lanes and lives in a process."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from lapg.runtimes import wire
from lapg.runtimes.outside import Outside
from lapg.runtimes.protocol import (
    Reply,
    RunState,
    announce,
    first_state,
    initialise,
    make_relay,
    participants,
    play_learner,
    rollout_of,
    take_step,
)
from lapg.types import (
    Broadcast,
    ControllerState,
    LearnerState,
    Problem,
    Recipe,
    RoundLog,
    Upload,
    sum_rows,
)


class Compiled:
    """Compiles a recipe on a problem; hyperparameters and seeds are arguments, so that lanes share a compilation.

    Args:
      hyper: any lane's hyperparameters; the parts check them, and shapes are taken from them.

    ``start: hyper, seed, θ⁰ or None → RunState`` · ``announce: hyper, seed, ControllerState → Broadcast`` · ``present: hyper, seed, round → Bool[M]`` ·
    ``play: hyper, seed, m, LearnerState, Broadcast → LearnerState, message, beside``, the last of which is the rest of the `Reply`, for `unpack` ·
    ``renew: hyper, seed, m, θ, LearnerState or None → LearnerState`` · ``relay: hyper, seed, ControllerState, downlink, Uploads, heard → downlink, relay,
    unsound``, then ``step: hyper, ControllerState, relay → ControllerState, RoundLog`` and, which nobody has to wait for, ``share: hyper, shares, sent,
    messages, gone → shares`` · ``mend: hyper, seed, ControllerState, shares, downlink, heard, gone → ControllerState, downlink`` if somebody is lost, or
    an upload unsound; then ``relay`` without those, and with nobody that has heard anything more.
    """

    def __init__(self, recipe: Recipe, problem: Problem, hyper: dict[str, Any]) -> None:
        method = recipe(hyper)
        self.compressor, self.downlink = method.compressor, method.downlink
        self.keeps_shares, self.num_learners = method.aggregate.keeps_shares, problem.num_learners

        @jax.jit
        def start(hyper: dict[str, Any], seed: Any, params: Any) -> RunState:
            return initialise(recipe(hyper), problem, jax.random.key(seed), params)

        @jax.jit
        def hear(hyper: dict[str, Any], seed: Any, state: ControllerState) -> Broadcast:
            return announce(recipe(hyper), jax.random.key(seed), state)

        def answer(
            hyper: dict[str, Any], seed: Any, index: Any, state: LearnerState, broadcast: Broadcast
        ) -> tuple[LearnerState, Reply]:
            task = jax.tree.map(lambda leaf: leaf[index], problem.tasks)
            return play_learner(recipe(hyper), problem, jax.random.key(seed), task, state, broadcast)

        def seal(state: LearnerState, reply: Reply) -> tuple[LearnerState, PyTree, UInt8[Array, " n"]]:
            """All small numbers as one array: they take longer to fetch one by one than to compute."""
            upload = reply.upload
            return state, upload.message, wire.pack((beside(upload), reply.log, reply.scores))

        @jax.jit
        def renew(hyper: dict[str, Any], seed: Any, index: Any, params: Any, old: LearnerState | None) -> LearnerState:
            """Never uploaded, nothing remembered of it; what its estimator and its own steps have learnt stays, and so do its environments."""
            task = jax.tree.map(lambda leaf: leaf[index], problem.tasks)
            new = first_state(recipe(hyper), problem, jax.random.key(seed), task, params)
            return new if old is None else replace(new, estimator=old.estimator, local=old.local, rollout=old.rollout)

        @jax.jit
        def relay(
            hyper: dict[str, Any],
            seed: Any,
            controller: ControllerState,
            downlink: PyTree,
            uploads: Upload,
            heard: Bool[Array, " M"],
        ) -> tuple[PyTree, PyTree, Bool[Array, " M"]]:
            """What the controller is to step with, and whose upload it must not step with because that is not finite, nor its square."""
            method, root = recipe(hyper), jax.random.key(seed)
            broadcast = announce(method, root, controller)
            downlink, _ = method.downlink.deliver(downlink, controller, broadcast, heard)
            downlink, relayed = make_relay(method, root, broadcast, downlink, uploads)
            decoded = jax.vmap(method.compressor.decompress)(uploads.message)
            squares = jax.lax.cond(
                jnp.any(uploads.sent),
                lambda: jnp.sum(decoded * decoded, -1),
                lambda: jnp.zeros(problem.num_learners, decoded.dtype),
            )
            sound = _finite(squares) & _finite((uploads.report, uploads.length))
            return downlink, relayed, uploads.sent & ~sound

        @jax.jit
        def mend(
            hyper: dict[str, Any],
            seed: Any,
            controller: ControllerState,
            shares: Float[Array, "M d"],
            downlink: PyTree,
            heard: Bool[Array, " M"],
            gone: Bool[Array, " M"],
        ) -> tuple[ControllerState, PyTree]:
            """The controller without the shares of those that are gone."""
            method = recipe(hyper)
            codec, broadcast = method.downlink, announce(method, jax.random.key(seed), controller)
            downlink, _ = codec.deliver(codec.resync(downlink, gone), controller, broadcast, heard & ~gone)
            if not method.aggregate.keeps_shares:
                return controller, downlink
            aggregate = sum_rows(shares, ~gone)
            controller = ControllerState(
                controller.round, controller.params, aggregate, controller.optimiser, controller.trigger
            )
            # learners then hear the state, so that nothing is left over of what compression has held back
            return controller, codec.init(controller, problem.num_learners)

        @jax.jit
        def share(
            hyper: dict[str, Any],
            shares: Float[Array, "M d"],
            sent: Bool[Array, " M"],
            message: PyTree,
            gone: Bool[Array, " M"],
        ) -> Float[Array, "M d"]:
            """What the aggregate then holds of each."""
            decoded = jax.vmap(recipe(hyper).compressor.decompress)(message)
            return jnp.where(gone[:, None], 0, shares) + jnp.where(sent[:, None], decoded, 0)

        @jax.jit
        def step(
            hyper: dict[str, Any], controller: ControllerState, relayed: PyTree
        ) -> tuple[ControllerState, RoundLog]:
            """Compiled by itself, so that replicas compute the same to the bit."""
            return take_step(recipe(hyper), controller, relayed)

        def _finite(tree: Any) -> Bool[Array, " M"]:
            leaves = [jnp.isfinite(x).reshape(x.shape[0], -1).all(1) for x in jax.tree.leaves(tree)]
            return jnp.all(jnp.stack(leaves), 0) if leaves else jnp.ones(problem.num_learners, bool)

        @jax.jit
        def present(hyper: dict[str, Any], seed: Any, round: Any) -> Bool[Array, " M"]:
            return participants(recipe(hyper), jax.random.key(seed), round, problem.num_learners)

        self.start, self.announce, self.present = start, hear, present
        outside = None if problem.collect is None else Outside(recipe, problem, hyper)
        sketch, sealed = answer if outside is None else outside.sketch, jax.jit(seal)
        play = jax.jit(lambda *given: seal(*answer(*given)))
        self._forget = problem.close if outside is not None and rollout_of(problem).continues else lambda: None
        self.play = play if outside is None else lambda *given: sealed(*outside.play_one(*given))
        self.renew, self.relay, self.mend, self.step, self.share = renew, relay, mend, step, share
        self.state = jax.eval_shape(start, hyper, np.uint32(0), None)
        """Shapes of a lane's state."""
        self.learner = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.state.learners)
        broadcast = jax.eval_shape(hear, hyper, np.uint32(0), self.state.controller)
        reply = jax.eval_shape(sketch, hyper, np.uint32(0), np.int32(0), self.learner, broadcast)[1]
        self.broadcast, self.upload, self.record = zeros(broadcast), zeros(reply.upload), (reply.log, reply.scores)
        """What messages look like: zeros of their shapes."""
        self._beside = beside(self.upload)
        everybody = jax.ShapeDtypeStruct((self.num_learners,), bool)
        uploads = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.num_learners, *leaf.shape), leaf.dtype), reply.upload
        )
        parts = self.state.controller, self.state.downlink, uploads, everybody
        self.relayed = zeros(jax.eval_shape(relay, hyper, np.uint32(0), *parts)[1])
        """What the controller and its replicas step with."""

    def rehearse(self, hyper: dict[str, Any]) -> None:
        """Compiles what a learner needs, so that its first round is as quick as the others."""
        broadcast, state = self.broadcast, zeros(self.learner)
        params = jnp.asarray(broadcast.params)
        fresh = self.renew(hyper, np.uint32(0), np.int32(0), params, None)
        self.play(hyper, np.uint32(0), np.int32(0), fresh, broadcast)
        self._forget()  # environments that go on begin with the run
        self.renew(hyper, np.uint32(0), np.int32(0), params, state)
        if self.downlink.compressor is not None:
            self.announce(hyper, np.uint32(0), self.step(hyper, zeros(self.state.controller), self.relayed)[0])

    def unpack(self, message: PyTree, beside: Any) -> tuple[Upload, bytes]:
        """What `play` returns beside the state: the upload in NumPy, and what the learner leaves for the record."""
        raw = np.asarray(beside).data
        end = wire.tree_size(self._beside)
        sent, report, length, bits = wire.decode_tree(raw[:end], self._beside)
        return wire.on_host(self.upload, sent, message, report, length, bits), bytes(raw[end:])

    def empty_shares(self) -> Float[Array, "M d"]:
        """Nobody's share; without entries where the method keeps no sum of uploads."""
        params = self.state.controller.params
        return jnp.zeros((self.num_learners, params.shape[0] if self.keeps_shares else 0), params.dtype)


def beside(upload: Upload) -> PyTree:
    """What an upload has besides its message."""
    return upload.sent, upload.report, upload.length, upload.bits


def zeros(shape: Any) -> Any:
    """NumPy zeros of a tree of shapes."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shape)
