"""The downlink: what learners hear of the controller, θ^k itself or what it takes to follow the controller's steps."""

import struct
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lapg.costs.ledger import HEADER_BITS
from lapg.types import (
    Arrival,
    Broadcast,
    Buffer,
    Compressor,
    ControllerState,
    Downlink,
    Relay,
    check_length,
    select,
    sum_rows,
    tree_bits,
)
from lapg.uplink.compressors import identity

MOST_FORWARDED = 8
"""Uploads of a round that may travel in place of their total; with 4 bits an entry more would be longer in any case."""


def dense() -> Downlink:
    """θ^k and the trigger's signal, every round, to every learner that takes part."""
    return Downlink()


class Following(eqx.Module):
    """What compression has left over of the totals so far, and how many bits each learner has yet to hear."""

    error: Float[Array, " d"]
    owed: Int[Array, " M"]


def replicated(compressor: Compressor | None = None) -> Downlink:
    """Learners' hosts run a replica of the controller, and hear only what it stepped with; of a round in which nobody uploaded, nothing.

    Before step k the total of what arrived, and what compression has left over so far, is compressed; controller and replicas step with what this
    decodes to, and the remainder waits for the next round in which somebody uploads: Σ totals == Σ decoded + error after every round. The parameters
    are therefore the same everywhere, to the bit where the same program computes them; they are those of `dense` where the compressor is exact.

    A learner that takes part in round k is brought up to date before it samples: it hears a header, and in it one frame for each earlier round that
    it missed and in which somebody uploaded, or the controller's whole state if that is shorter. Replicas begin with θ⁰ drawn from the run's seed, which
    every host has; where θ⁰ was given, the state is what learners hear first of all.

    Args:
      compressor: of totals; one that contracts, or errors grow; None is `lapg.uplink.compressors.identity`, which loses nothing.
    Source: error feedback at the sender as in Tang et al., arXiv 1905.05957 (DoubleSqueeze); here of increments, so that parameters are never sent.
    """
    return _following(compressor or identity(), forwards=False)


def forwarded(uplink: Compressor) -> Downlink:
    """`replicated` without loss: the uploads of a round as they came, at most `MOST_FORWARDED` of them, where they are shorter together than their total.

    Args:
      uplink: the compressor that uploads have gone through.
    """
    return _following(_forwarding(uplink), forwards=True)


class Forwarded(eqx.Module):
    """The first ``count`` rows of messages; or the total, where that is 0. The other one is zeros."""

    total: Float[Array | np.ndarray, " d"]
    messages: PyTree
    count: Int[Array | np.ndarray, ""]


def _forwarding(uplink: Compressor) -> Compressor:
    """What is told of a total and the messages that it is the sum of; a byte says how many there are, and four bytes before each its length."""
    length = struct.Struct("<I")

    def used(message: Forwarded) -> Bool[Array, " rows"]:
        return jnp.arange(jax.tree.leaves(message.messages)[0].shape[0]) < message.count

    def size(message: Forwarded) -> Int[Array, ""]:
        """Bytes of the messages, lengths included; the bits of eight long ones could not be counted."""
        each = length.size + jax.vmap(uplink.num_bits)(message.messages) // 8
        return jnp.sum(jnp.where(used(message), each, 0), dtype=jnp.int32)

    def compress(key: Key[Array, ""], given: tuple[Any, PyTree, Bool[Array, " M"]]) -> Forwarded:
        total, messages, sent = given
        check_length("a total on a replicated downlink", total.size, tree_bits(total))
        first = jnp.argsort(~sent, stable=True)[:MOST_FORWARDED]
        rows, count = jax.tree.map(lambda leaf: leaf[first], messages), jnp.sum(sent, dtype=jnp.int32)
        apart = Forwarded(jnp.zeros_like(total), rows, count)
        whole = Forwarded(total, jax.tree.map(jnp.zeros_like, rows), jnp.int32(0))
        return select((count <= first.size) & (size(apart) < tree_bits(total) // 8), apart, whole)

    def decompress(message: Forwarded) -> Float[Array, " d"]:
        return jnp.asarray(message.total) + sum_rows(jax.vmap(uplink.decompress)(message.messages), used(message))

    def encode(message: Forwarded) -> bytes:
        count = int(message.count)
        rows = (jax.tree.map(lambda leaf, i=i: leaf[i], message.messages) for i in range(count))
        parts = [bytes(uplink.encode(row)) for row in rows] if count else [np.asarray(message.total).tobytes()]
        return bytes([count]) + b"".join(length.pack(len(raw)) * (count > 0) + raw for raw in parts)

    def decode(raw: Buffer, like: Forwarded) -> Forwarded:
        count, raw = raw[0], raw[1:]
        blank: Any = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        if count == 0:
            return Forwarded(identity().decode(raw, like.total), blank.messages, np.asarray(0, np.int32))
        for i in range(count):
            (end,) = length.unpack_from(raw)
            row = jax.tree.map(lambda leaf, i=i: leaf[i], blank.messages)
            read = uplink.decode(raw[length.size : length.size + end], row)
            for leaf, value in zip(jax.tree.leaves(blank.messages), jax.tree.leaves(read), strict=True):
                leaf[i] = value
            raw = raw[length.size + end :]
        if raw:
            raise ValueError(f"{len(raw)} bytes are left over.")
        return Forwarded(blank.total, blank.messages, np.asarray(count, np.int32))

    return Compressor(
        compress=compress,
        decompress=decompress,
        num_bits=lambda message: 8 + jnp.where(message.count > 0, 8 * size(message), tree_bits(message.total)),
        encode=encode,
        decode=decode,
    )


def _following(compressor: Compressor, *, forwards: bool) -> Downlink:
    """See `replicated`; ``forwards``: the compressor is given the messages that a total is made of as well."""

    def init(controller: ControllerState, num_learners: int) -> Following:
        what = "the state that a replicated downlink begins with"
        check_length(what, controller.params.size, tree_bits(controller), "or downlink 'dense'")
        return Following(jnp.zeros_like(controller.params), jnp.zeros(num_learners, jnp.int32))

    def resync(state: Following, lost: Bool[Array, " M"]) -> Following:
        return Following(state.error, jnp.where(lost, jnp.iinfo(jnp.int32).max, state.owed))

    def deliver(
        state: Following, controller: ControllerState, broadcast: Broadcast, participated: Bool[Array, " M"]
    ) -> tuple[Following, Int[Array, " M"]]:
        owed = jnp.minimum(state.owed, tree_bits(controller) + HEADER_BITS)
        return Following(state.error, jnp.where(participated, 0, owed)), jnp.where(participated, owed, 0)

    def compress(
        key: Key[Array, ""], state: Following, arrival: Arrival, messages: PyTree = None
    ) -> tuple[Following, Relay]:
        spoken = jnp.any(arrival.sent)
        value = arrival.total + state.error
        message = compressor.compress(key, (value, messages, arrival.sent) if forwards else value)
        extras = arrival.report, arrival.length
        num_learners = arrival.sent.shape[0]
        # whole bytes for the bits that say who sent, and what those learners sent along
        beside = 8 * -(-num_learners // 8) + jnp.sum(arrival.sent) * (tree_bits(extras) // num_learners)
        bits = (compressor.num_bits(message) + beside).astype(jnp.int32)
        relay = Relay(message, arrival.sent, *extras, bits)
        relay = select(spoken, relay, jax.tree.map(jnp.zeros_like, relay))
        error = jnp.where(spoken, value - compressor.decompress(message), state.error)
        due = jnp.where(spoken, bits + HEADER_BITS, 0)  # longer than the state already is long enough
        return Following(error, state.owed + jnp.minimum(due, jnp.iinfo(jnp.int32).max - state.owed)), relay

    def expand(relay: Relay) -> Arrival:
        total = jnp.where(jnp.any(relay.sent), compressor.decompress(relay.message), 0)
        return Arrival(total, relay.sent, relay.report, relay.length)

    return Downlink(init, deliver, compress, expand, resync, compressor)
