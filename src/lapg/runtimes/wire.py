"""Encodes messages as bytes: a fixed header, then arrays in the order of the tree. No pickle; both ends know the shapes."""

import struct
import zlib
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt8

from lapg.costs.ledger import HEADER_BITS
from lapg.types import Broadcast, Buffer, Compressor, Relay, Upload, tree_bits

HEADER = struct.Struct("<IIIII")
assert 8 * HEADER.size == HEADER_BITS


class MalformedError(ValueError):
    """Bytes that are not a message of this run: their length is wrong, they are another learner's, or the codec cannot decode them."""


class Header(NamedTuple):
    """The header of every message; `lapg.runtimes.distributed.consistency` explains the numbers.

    Attributes:
      round: k of the broadcast, and of the replies to it.
      learner: m, the receiver of a broadcast or the sender of a reply.
      generation: of that learner, from 1; 0 in a reply that requests a new one.
      base: the sequence number of the learner's last accepted reply; 0 if there is none. In a relay's frame the checksum of the state to step from.
      length: bytes of payload; a reply without any is a skip.
    """

    round: int
    learner: int
    generation: int
    base: int
    length: int


def encode_tree(tree: PyTree) -> bytes:
    """Concatenates the bytes of the leaves."""
    return b"".join(np.asarray(leaf).reshape(-1).view(np.uint8).data for leaf in jax.tree.leaves(tree))


def pack(tree: PyTree) -> UInt8[Array, " n"]:
    """Does what `encode_tree` does, inside compiled code."""
    raw = [leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf for leaf in map(jnp.asarray, jax.tree.leaves(tree))]
    return jnp.concatenate([jax.lax.bitcast_convert_type(leaf, jnp.uint8).reshape(-1) for leaf in raw])


def tree_size(tree: PyTree) -> int:
    """Returns the length of `encode_tree` in bytes; shapes suffice."""
    return tree_bits(tree) // 8


def decode_tree(raw: Buffer, like: PyTree) -> PyTree:
    """Inverse of `encode_tree`, given a tree of the same shapes and dtypes; read-only NumPy arrays.

    Raises:
      MalformedError: the length does not fit.
    """
    leaves, treedef = jax.tree.flatten(like)
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
    if sum(sizes) != len(raw):
        raise MalformedError(f"a message of {sum(sizes)} bytes was expected, got {len(raw)}.")
    arrays = [
        np.frombuffer(raw, leaf.dtype, leaf.size, end - size).reshape(leaf.shape)
        for leaf, size, end in zip(leaves, sizes, accumulate(sizes), strict=True)
    ]
    return jax.tree.unflatten(treedef, arrays)


def aligned_zeros(size: int) -> np.ndarray:
    """Allocates zero bytes, aligned so that XLA reads them without a copy."""
    raw = np.zeros(size + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + size]


def decode_rows(raw: bytes, like: PyTree, num: int) -> PyTree:
    """Decodes ``num`` concatenated results of `encode_tree` into one stacked tree."""
    leaves, treedef = jax.tree.flatten(like)
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
    rows = np.frombuffer(raw, np.uint8).reshape(num, sum(sizes))
    columns = np.split(rows, list(accumulate(sizes))[:-1], 1)
    arrays = [
        np.ascontiguousarray(column).view(leaf.dtype).reshape(num, *leaf.shape)
        for leaf, column in zip(leaves, columns, strict=True)
    ]
    return jax.tree.unflatten(treedef, arrays)


def frame(*payload: Buffer, round: int, learner: int, generation: int = 1, base: int = 0) -> bytes:
    """Puts a header before a payload, which may come in pieces."""
    return b"".join((HEADER.pack(round, learner, generation, base, sum(map(len, payload))), *payload))


def unframe(raw: Buffer) -> tuple[Header, memoryview]:
    """Splits a frame into header and payload, which is not copied.

    Raises:
      MalformedError: the frame is shorter than its header, or its payload not as long as the header says.
    """
    if len(raw) < HEADER.size:
        raise MalformedError(f"a frame has at least {HEADER.size} bytes, got {len(raw)}.")
    payload = memoryview(raw)[HEADER.size :]
    return read_header(raw, payload), payload


def read_header(raw: Buffer, payload: Buffer) -> Header:
    """Reads the header at the beginning of ``raw``.

    Raises:
      MalformedError: the payload is not as long as the header says.
    """
    header = Header(*HEADER.unpack_from(raw))
    if len(payload) != header.length:
        raise MalformedError(f"the header announces {header.length} bytes of payload, got {len(payload)}.")
    return header


def encode_broadcast(broadcast: Broadcast) -> bytes:
    """Encodes θ and the signal; the round is in the header."""
    return encode_tree((broadcast.params, broadcast.signal))


def decode_broadcast(raw: Buffer, round: int, like: Broadcast) -> Broadcast:
    """Inverse of `encode_broadcast`."""
    return on_host(like, np.asarray(round, like.round.dtype), decode_tree(raw, (like.params, like.signal)))


def encode_upload(compressor: Compressor, upload: Upload) -> tuple[Buffer, ...]:
    """Encodes an upload in two pieces: the message; report and length. Nothing for a skip."""
    if not bool(upload.sent):
        return ()
    return compressor.encode(upload.message), encode_tree((upload.report, upload.length))


def decode_upload(compressor: Compressor, raw: Buffer, like: Upload) -> Upload:
    """Inverse of `encode_upload`, in NumPy; a skip is zeros.

    Raises:
      MalformedError: it is not an upload.
    """
    if not raw:
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    scalars = like.report, like.length
    split = len(raw) - tree_size(scalars)
    message = decode_message(compressor, raw[: max(0, split)], like.message)
    return on_host(like, np.True_, message, *decode_tree(raw[split:], scalars), np.int32(8 * len(raw)))


def decode_message(compressor: Compressor, raw: Buffer, like: PyTree) -> PyTree:
    """Decodes a message of the shapes and dtypes of ``like``.

    Raises:
      MalformedError: the codec fails, or returns other shapes or dtypes.
    """
    try:
        message = compressor.decode(raw, like)
    except Exception as error:  # whatever a codec raises on untrusted bytes
        raise MalformedError(f"a message of {len(raw)} bytes cannot be decoded: {error}") from error
    for got, wanted in zip(jax.tree.leaves(message), jax.tree.leaves(like), strict=True):
        if np.shape(got) != np.shape(wanted) or got.dtype != wanted.dtype:
            raise MalformedError(
                f"a message of {wanted.dtype}{np.shape(wanted)} was expected, got {got.dtype}{np.shape(got)}."
            )
    return message


def on_host(like: PyTree, *fields: Any) -> Any:
    """Builds a message like ``like`` from NumPy arrays."""
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(fields))


def split(raw: Buffer) -> list[tuple[Header, memoryview]]:
    """Splits concatenated frames into headers and payloads.

    Raises:
      MalformedError: the last frame is not complete.
    """
    found = []
    while raw:
        end = HEADER.size + (Header(*HEADER.unpack_from(raw)).length if len(raw) >= HEADER.size else 0)
        found.append(unframe(raw[:end]))
        raw = raw[end:]
    return found


def unframe_all(raw: Buffer) -> list[tuple[int, memoryview]]:
    """Splits concatenated frames into rounds and payloads; see `split`."""
    return [(header.round, payload) for header, payload in split(raw)]


def checksum(tree: PyTree) -> int:
    """Returns the CRC-32 of `encode_tree`."""
    return zlib.crc32(encode_tree(tree))


def encode_relay(compressor: Compressor, relay: Relay) -> bytes:
    """Encodes who sent, one bit each; the reports and lengths of those learners; the message."""
    sent = np.asarray(relay.sent)
    beside = jax.tree.map(lambda leaf: np.asarray(leaf)[sent], (relay.report, relay.length))
    return np.packbits(sent).tobytes() + encode_tree(beside) + compressor.encode(relay.message)


def decode_relay(compressor: Compressor, raw: Buffer, like: Relay) -> Relay:
    """Inverse of `encode_relay`.

    Raises:
      MalformedError: it is not a relay.
    """
    num_learners = like.sent.shape[0]
    begin = -(-num_learners // 8)
    if len(raw) < begin:
        raise MalformedError(f"a relay has at least {begin} bytes, got {len(raw)}.")
    sent = np.unpackbits(np.frombuffer(raw[:begin], np.uint8), count=num_learners).astype(bool)
    rows = jax.tree.map(lambda leaf: np.zeros((sent.sum(), *leaf.shape[1:]), leaf.dtype), (like.report, like.length))
    end = begin + tree_size(rows)

    def spread(rows: Any, leaf: Any) -> Any:
        full = np.zeros(leaf.shape, leaf.dtype)
        full[sent] = rows
        return jnp.asarray(full)

    report, length = jax.tree.map(spread, decode_tree(raw[begin:end], rows), (like.report, like.length))
    message: Any = jax.tree.map(jnp.asarray, decode_message(compressor, raw[end:], like.message))
    return Relay(message, jnp.asarray(sent), report, length, jnp.int32(8 * len(raw)))
