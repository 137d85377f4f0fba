"""An actor: some learners, of all lanes, and the bytes in which one call of it carries the messages of several of them."""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.handshake import hello
from lapg.runtimes.distributed.learner import LearnerHost
from lapg.runtimes.vectorised import use_all_cores
from lapg.types import Buffer, Problem, Recipe

Parts = Callable[[], tuple[Recipe, Problem]]
"""Returns the recipe and the problem; called in every process."""
MESSAGE = struct.Struct(f"<II{wire.HEADER.size}s")
"""Of one learner: its lane, the index of its payload, the broadcast's header."""
INLINE_BYTES = 100_000
"""Longer messages go through the engine's object store, a broadcast once per machine."""
_ANSWER = struct.Struct("<III")
"""Before one learner's answer: its number, and the lengths of its reply and its record."""


class Learners:
    """Hosts some learners, of all lanes.

    Args:
      crowded: whether there are as many actors as cores, so that each computes with one thread.
    """

    def __init__(
        self,
        parts: Parts,
        hypers: list[dict[str, Any]],
        seeds: list[int],
        learners: list[int],
        *,
        float64: bool,
        crowded: bool,
    ) -> None:
        if crowded:  # read when JAX begins
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        jax.config.update("jax_enable_x64", float64)
        use_all_cores(1)
        recipe, problem = parts()
        self._compiled, self._learners = Compiled(recipe, problem, hypers[0]), learners
        self._lanes = list(zip(hypers, seeds, strict=True))
        self._hosts = [self._newborn(lane) for lane in range(len(self._lanes))]
        self._compiled.rehearse(hypers[0])

    def _newborn(self, lane: int) -> dict[int, LearnerHost]:
        return {m: LearnerHost(self._compiled, *self._lanes[lane], m) for m in self._learners}

    def handshake(self, settings: Mapping[str, Any]) -> bytes:
        """Returns the hello of this process, once everything is compiled."""
        return hello(settings)

    def hear(self, messages: bytes, *payloads: bytes | np.ndarray) -> bytes | np.ndarray:
        """Hands a round's broadcasts to some learners, and returns their answers, for `unpack`."""
        answers: list[Buffer] = []
        for lane, which, head in MESSAGE.iter_unpack(messages):
            payload = np.frombuffer(payloads[which], np.uint8).data
            header = wire.read_header(head, payload)
            answer = self._hosts[lane][header.learner].hear(header, payload)
            if answer is not None:
                answers += (_ANSWER.pack(header.learner, len(answer.reply), len(answer.record)), *answer)
        return as_engine_takes(b"".join(answers))

    def listen(self, told: tuple[bytes | np.ndarray, ...]) -> bytes | np.ndarray:
        """Does what `hear` does for a channel, whose memory is overwritten by the next call."""
        messages, *payloads = told
        kept = [wire.aligned_zeros(len(payload)) for payload in payloads]
        for copy, payload in zip(kept, payloads, strict=True):
            copy[:] = np.frombuffer(payload, np.uint8)
        return self.hear(bytes(messages), *kept)

    def save(self, lane: int, wanted: dict[int, tuple[int, int]]) -> dict[int, bytes | None]:
        """Encodes the states of learners by generation and sequence number; see `LearnerHost.save`."""
        return {m: self._hosts[lane][m].save(*number) for m, number in wanted.items()}

    def load(self, lane: int, states: dict[int, tuple[bytes, int, int]]) -> None:
        """Loads saved states into new hosts; learners without one start new sessions."""
        self._hosts[lane] = self._newborn(lane)
        for m, state in states.items():
            self._hosts[lane][m].load(*state)


def as_engine_takes(message: bytes) -> bytes | np.ndarray:
    """Returns short messages as bytes, which is fastest, and long ones as arrays, which both ends read in place in the object store."""
    return message if len(message) <= INLINE_BYTES else np.frombuffer(message, np.uint8)


def unpack(raw: Buffer) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Splits what `Learners.hear` returned into learner, reply and record of each answer."""
    begin, raw = 0, memoryview(raw)
    while begin < len(raw):
        m, reply, record = _ANSWER.unpack_from(raw, begin)
        begin += _ANSWER.size
        yield m, raw[begin : begin + reply], raw[begin + reply : begin + reply + record]
        begin += reply + record
