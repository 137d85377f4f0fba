"""What an actor does: some learners, of all lanes, and the parcels of bytes in which an engine hands several of them their letters at once."""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from lapg.runtimes import wire
from lapg.runtimes.compiled import Compiled
from lapg.runtimes.hosts import LearnerHost
from lapg.runtimes.join import introduction
from lapg.types import Problem, Recipe

Parts = Callable[[], tuple[Recipe, Problem]]
"""Gives the recipe and the problem; called in every process."""
LETTER = struct.Struct(f"<II{wire.HEADER.size}s")
"""For one learner: its lane, which of the payloads is meant for it, the broadcast's header."""
_ANSWER = struct.Struct("<III")
"""Before one learner's answer: who it is, and the lengths of its reply and of what it leaves for the record."""


class Learners:
    """Some learners, of all lanes."""

    def __init__(
        self, parts: Parts, hypers: list[dict[str, Any]], seeds: list[int], learners: list[int], float64: bool
    ) -> None:
        jax.config.update("jax_enable_x64", float64)
        recipe, problem = parts()
        self._compiled, self._learners = Compiled(recipe, problem, hypers[0]), learners
        self._lanes = list(zip(hypers, seeds, strict=True))
        self._hosts = [self._newborn(lane) for lane in range(len(self._lanes))]
        self._compiled.rehearse(hypers[0])

    def _newborn(self, lane: int) -> dict[int, LearnerHost]:
        return {m: LearnerHost(self._compiled, *self._lanes[lane], m) for m in self._learners}

    def join(self, settings: Mapping[str, Any]) -> bytes:
        """Compiled and ready."""
        return introduction(settings)

    def hear(self, letters: bytes, *payloads: bytes) -> bytes:
        """A round's broadcast to some learners: their answers, for `unpack`. Bytes alone, because an engine is slower with anything else."""
        answers: list[bytes] = []
        for lane, which, head in LETTER.iter_unpack(letters):
            m = wire.Header(*wire.HEADER.unpack(head)).learner
            answer = self._hosts[lane][m].hear(head + payloads[which])
            if answer is not None:
                answers += (_ANSWER.pack(m, len(answer.reply), len(answer.record)), *answer)
        return b"".join(answers)

    def save(self, lane: int, wanted: dict[int, tuple[int, int]]) -> dict[int, bytes | None]:
        """The states of learners as the controller knows them, by generation and sequence number."""
        return {m: self._hosts[lane][m].save(*number) for m, number in wanted.items()}

    def load(self, lane: int, states: dict[int, tuple[bytes, int, int]]) -> None:
        """States to go on from; learners without one know nothing."""
        self._hosts[lane] = self._newborn(lane)
        for m, state in states.items():
            self._hosts[lane][m].load(*state)


def unpack(answers: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Learner, reply and record, of everyone whose answer is in what `Learners.hear` returned."""
    begin = 0
    while begin < len(answers):
        m, reply, record = _ANSWER.unpack_from(answers, begin)
        begin += _ANSWER.size
        yield m, answers[begin : begin + reply], answers[begin + reply : begin + reply + record]
        begin += reply + record
