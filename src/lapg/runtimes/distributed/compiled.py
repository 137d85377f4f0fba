"""The compiled functions that controller and learners of a distributed run call, one set for all learners and lanes of a process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from lapg.rollouts import rollout_of
from lapg.rounds import (
    Reply,
    RunState,
    announce,
    first_state,
    initialise,
    make_relay,
    participants,
    play_learner,
    take_step,
)
from lapg.runtimes import wire
from lapg.runtimes.host_env import HostSampler
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

    ``start: hyper, seed, θ⁰ or None → RunState`` · ``begin: hyper, seed → ControllerState`` before round 0, at θ⁰ drawn from the seed · ``announce: hyper, seed, ControllerState → Broadcast`` · ``present: hyper, seed, round → Bool[M]`` ·
    ``play: hyper, seed, m, LearnerState, Broadcast → LearnerState, message, beside``, the last of which is the rest of the `Reply`, for `unpack` ·
    ``renew: hyper, seed, m, θ, LearnerState or None → LearnerState`` · ``relay: hyper, seed, ControllerState, downlink, Uploads, replied → downlink, relay,
    unsound``, then ``step: hyper, ControllerState, relay → ControllerState, RoundLog`` and, which no learner waits for, ``share: hyper, shares, sent,
    messages, lost → shares`` · ``remove_lost: hyper, seed, ControllerState, shares, downlink, replied, lost → ControllerState, downlink`` if a learner is
    lost, or an upload not finite; then ``relay`` again without those uploads, and with nobody in ``replied``, whose deliveries are counted already.
    """

    def __init__(self, recipe: Recipe, problem: Problem, hyper: dict[str, Any]) -> None:
        self.method = method = recipe(hyper)
        self._recipe, self.problem, self.num_learners = recipe, problem, problem.num_learners
        self.compressor, self.downlink = method.compressor, method.downlink
        self.keeps_shares = method.aggregate.keeps_shares
        self.start, self.announce, self.present = jax.jit(self._start), jax.jit(self._announce), jax.jit(self._present)
        self.begin = jax.jit(lambda hyper, seed: self._start(hyper, seed, None).controller)
        self.renew, self.relay, self.share = jax.jit(self._renew), jax.jit(self._relay), jax.jit(self._share)
        self.remove_lost, self.step = jax.jit(self._remove_lost), jax.jit(self._step)
        if problem.collect is None:
            sketch, self.play = self._answer, jax.jit(lambda *given: _seal(*self._answer(*given)))
        else:
            sampler, sealed = HostSampler(recipe, problem, hyper), jax.jit(_seal)
            sketch, self.play = sampler.sketch, lambda *given: sealed(*sampler.play_one(*given))
        self._take_shapes(hyper, sketch)

    def _take_shapes(self, hyper: dict[str, Any], sketch: Callable[..., tuple[LearnerState, Reply]]) -> None:
        """Derives the shapes of states and messages without computing them."""
        seed, stacked = np.uint32(0), lambda leaf: jax.ShapeDtypeStruct((self.num_learners, *leaf.shape), leaf.dtype)
        self.state = jax.eval_shape(self.start, hyper, seed, None)
        """Shapes of a lane's state."""
        self.learner = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.state.learners)
        broadcast = jax.eval_shape(self.announce, hyper, seed, self.state.controller)
        reply = jax.eval_shape(sketch, hyper, seed, np.int32(0), self.learner, broadcast)[1]
        self.broadcast, self.upload, self.record = zeros(broadcast), zeros(reply.upload), notes(reply)
        """Zeros in the shapes of messages, for decoding."""
        self._beside = beside(self.upload)
        everybody = jax.ShapeDtypeStruct((self.num_learners,), bool)
        arrived = self.state.controller, self.state.downlink, jax.tree.map(stacked, reply.upload), everybody
        self.relayed = zeros(jax.eval_shape(self.relay, hyper, seed, *arrived)[1])
        """Zeros in the shape of what the controller and its replicas step with."""

    def _start(self, hyper: dict[str, Any], seed: Any, params: Any) -> RunState:
        return initialise(self._recipe(hyper), self.problem, jax.random.key(seed), params)

    def _announce(self, hyper: dict[str, Any], seed: Any, state: ControllerState) -> Broadcast:
        return announce(self._recipe(hyper), jax.random.key(seed), state)

    def _present(self, hyper: dict[str, Any], seed: Any, round: Any) -> Bool[Array, " M"]:
        return participants(self._recipe(hyper), jax.random.key(seed), round, self.num_learners)

    def _answer(
        self, hyper: dict[str, Any], seed: Any, index: Any, state: LearnerState, broadcast: Broadcast
    ) -> tuple[LearnerState, Reply]:
        task = jax.tree.map(lambda leaf: leaf[index], self.problem.tasks)
        return play_learner(self._recipe(hyper), self.problem, jax.random.key(seed), task, state, broadcast)

    def _renew(
        self, hyper: dict[str, Any], seed: Any, index: Any, params: Any, old: LearnerState | None
    ) -> LearnerState:
        """Makes a learner state without uploads; the states of the estimator, the local steps and the environments of ``old`` are kept."""
        task = jax.tree.map(lambda leaf: leaf[index], self.problem.tasks)
        new = first_state(self._recipe(hyper), self.problem, jax.random.key(seed), task, params)
        return new if old is None else replace(new, estimator=old.estimator, local=old.local, rollout=old.rollout)

    def _relay(
        self,
        hyper: dict[str, Any],
        seed: Any,
        controller: ControllerState,
        downlink: PyTree,
        uploads: Upload,
        replied: Bool[Array, " M"],
    ) -> tuple[PyTree, PyTree, Bool[Array, " M"]]:
        """Makes what the controller steps with; the mask is of uploads that must not be used, as they or their squares are not finite."""
        method, root = self._recipe(hyper), jax.random.key(seed)
        broadcast = announce(method, root, controller)
        downlink, _ = method.downlink.deliver(downlink, controller, broadcast, replied)
        downlink, relayed = make_relay(method, root, broadcast, downlink, uploads)
        decoded = jax.vmap(method.compressor.decompress)(uploads.message)
        squares = jax.lax.cond(
            jnp.any(uploads.sent),
            lambda: jnp.sum(decoded * decoded, -1),
            lambda: jnp.zeros(self.num_learners, decoded.dtype),
        )
        return downlink, relayed, uploads.sent & ~_finite_rows((squares, uploads.report, uploads.length))

    def _remove_lost(
        self,
        hyper: dict[str, Any],
        seed: Any,
        controller: ControllerState,
        shares: Float[Array, "M d"],
        downlink: PyTree,
        replied: Bool[Array, " M"],
        lost: Bool[Array, " M"],
    ) -> tuple[ControllerState, PyTree]:
        """Removes the shares of lost learners from the aggregate."""
        method = self._recipe(hyper)
        codec, broadcast = method.downlink, announce(method, jax.random.key(seed), controller)
        downlink, _ = codec.deliver(codec.resync(downlink, lost), controller, broadcast, replied & ~lost)
        if not method.aggregate.keeps_shares:
            return controller, downlink
        controller = eqx.tree_at(lambda state: state.aggregate, controller, sum_rows(shares, ~lost))
        return controller, self.restart(controller)

    def restart(self, controller: ControllerState) -> PyTree:
        """Makes the state of a downlink whose learners are sent the whole state next, which leaves no compression error."""
        codec = self.downlink
        return codec.resync(codec.init(controller, self.num_learners), jnp.ones(self.num_learners, bool))

    def _share(
        self,
        hyper: dict[str, Any],
        shares: Float[Array, "M d"],
        sent: Bool[Array, " M"],
        message: PyTree,
        lost: Bool[Array, " M"],
    ) -> Float[Array, "M d"]:
        """Updates the share of the aggregate that each learner has uploaded."""
        decoded = jax.vmap(self._recipe(hyper).compressor.decompress)(message)
        return jnp.where(lost[:, None], 0, shares) + jnp.where(sent[:, None], decoded, 0)

    def _step(
        self, hyper: dict[str, Any], controller: ControllerState, relayed: PyTree
    ) -> tuple[ControllerState, RoundLog]:
        """Takes the controller's step; compiled by itself, so that replicas compute the same to the bit."""
        return take_step(self._recipe(hyper), controller, relayed)

    def rehearse(self, hyper: dict[str, Any]) -> None:
        """Compiles what a learner needs, so that its first round is as fast as the others."""
        broadcast, state = self.broadcast, zeros(self.learner)
        params = jnp.asarray(broadcast.params)
        fresh = self.renew(hyper, np.uint32(0), np.int32(0), params, None)
        self.play(hyper, np.uint32(0), np.int32(0), fresh, broadcast)
        if rollout_of(self.problem).continues:
            self.problem.close()  # environments that go on begin with the run
        self.renew(hyper, np.uint32(0), np.int32(0), params, state)
        if self.downlink.compressor is not None:
            first = self.begin(hyper, np.uint32(0))
            self.announce(hyper, np.uint32(0), self.step(hyper, first, self.relayed)[0])

    def unpack(self, message: PyTree, beside: Any) -> tuple[Upload, bytes]:
        """Splits what `play` returns beside the state into the upload, in NumPy, and the learner's diagnostics for the record."""
        raw = np.asarray(beside).data
        end = wire.tree_size(self._beside)
        sent, report, length, bits = wire.decode_tree(raw[:end], self._beside)
        return wire.on_host(self.upload, sent, message, report, length, bits), bytes(raw[end:])

    def empty_shares(self) -> Float[Array, "M d"]:
        """Zeros for the shares of all learners; without entries where the method keeps no sum of uploads."""
        params = self.state.controller.params
        return jnp.zeros((self.num_learners, params.shape[0] if self.keeps_shares else 0), params.dtype)


def _seal(state: LearnerState, reply: Reply) -> tuple[LearnerState, PyTree, UInt8[Array, " n"]]:
    """Packs all small numbers into one array: fetching them one by one takes longer than computing them."""
    return state, reply.upload.message, wire.pack((beside(reply.upload), *notes(reply)))


def _finite_rows(tree: PyTree) -> Bool[Array, " M"]:
    """Tells for each learner whether all its numbers in a tree are finite."""
    rows = [jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(1) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(rows), 0)


def beside(upload: Upload) -> PyTree:
    """The fields of an upload other than its message."""
    return upload.sent, upload.report, upload.length, upload.bits


def notes(reply: Reply) -> tuple[Any, ...]:
    """The fields of a reply that are for the record alone."""
    return reply.log, reply.scores, reply.steps


def zeros(shape: Any) -> Any:
    """Makes NumPy zeros of a tree of shapes."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shape)
