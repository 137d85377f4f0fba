"""An unreliable network between real hosts: seeded random schedules, and what must hold after every round."""

from typing import Any

import jax
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.learner import LearnerHost
from lapg.runtimes.distributed.state import begin


class Network:
    """Both ends of a distributed run on one clock.

    In every round each message may be lost, doubled or late by up to four rounds; what is due arrives in a random order. Learners hang, die with or
    without the controller being told, and send what no learner should.

    Args:
      rates: probability of each kind of trouble per message or per learner and round; what is not named does not happen.
    """

    def __init__(self, compiled: Any, hyper: dict[str, Any], seed: int, rates: dict[str, float], **limits: Any) -> None:
        self.compiled, self.hyper, self.seed, self.rates = compiled, hyper, seed, rates
        self.random = np.random.default_rng(seed)
        self.controller = ControllerHost(compiled, hyper, seed, begin(compiled, hyper, seed), **limits)
        self.learners = [self.newborn(m) for m in range(compiled.num_learners)]
        self.hung = np.zeros(compiled.num_learners, int)
        self.down: list[tuple[int, int, bytes]] = []  # due, learner, message
        self.up: list[tuple[int, int, Any]] = []
        self.truth: dict[int, bytes] = {}  # the controller's state before every round
        self.happened = dict.fromkeys(rates, 0)

    def newborn(self, learner: int) -> LearnerHost:
        return LearnerHost(self.compiled, self.hyper, self.seed, learner)

    def trouble(self, kind: str) -> bool:
        happens = bool(self.random.random() < self.rates.get(kind, 0))
        if happens:
            self.happened[kind] += 1
        return happens

    def transmit(self, queue: list[Any], learner: int, message: Any, now: int) -> None:
        if self.trouble("lost"):
            return
        for _ in range(1 + self.trouble("doubled")):
            delay = int(self.random.integers(1, 5)) if self.trouble("late") else 0
            queue.append((now + delay, learner, message))

    def due(self, queue: list[Any], now: int) -> list[Any]:
        ready = [item for item in queue if item[0] <= now]
        queue[:] = [item for item in queue if item[0] > now]
        self.random.shuffle(ready)
        return ready

    def spoil(self, raw: bytes) -> bytes:
        """What a broken or hostile learner might send instead."""
        header, payload = wire.unframe(raw)
        sender = {
            "round": header.round,
            "learner": header.learner,
            "generation": header.generation,
            "base": header.base,
        }
        if not payload:
            return raw
        dtype = np.dtype(self.compiled.upload.message.dtype)
        for kind, value in (("nan", np.nan), ("infinite", np.inf), ("huge", 1e200)):
            if self.trouble(kind):
                vector = np.frombuffer(payload, dtype).copy()
                vector[self.random.integers(vector.size)] = value
                return wire.frame(vector.tobytes(), **sender)
        if self.trouble("malformed"):
            broken = (raw[:7], raw[:-3], raw + b"x", wire.frame(payload[:-5], **sender), b"")
            return broken[self.random.integers(len(broken))]
        return raw + bytes(10_000) if self.trouble("oversized") else raw

    def play(self, now: int) -> Any:
        """One round; what it leaves in the record."""
        for m in range(len(self.learners)):
            if self.trouble("killed"):
                self.learners[m] = self.newborn(m)
                self.controller.lose(m)
            if self.trouble("restarted"):  # nobody tells the controller
                self.learners[m] = self.newborn(m)
            if self.trouble("hung"):
                self.hung[m] = now + int(self.random.integers(2, 8))
        self.truth[now] = wire.encode_tree(self.controller.state)
        for m in self.controller.open():
            self.transmit(self.down, m, b"".join(self.controller.message(m)), now)
        for _, m, raw in self.due(self.down, now):
            if self.hung[m] > now:
                self.down.append((int(self.hung[m]), m, raw))
                continue
            answer = self.learners[m].hear(*wire.unframe(raw))
            if answer is None:
                continue
            session = self.learners[m].session
            if session.replica is not None and wire.unframe(answer.reply)[0].generation:  # it has played the round
                assert wire.encode_tree(session.replica) == self.truth[session.last_broadcast], (now, m)
            self.transmit(self.up, m, answer._replace(reply=self.spoil(answer.reply)), now)
        for _, m, answer in self.due(self.up, now):
            self.controller.receive(m, answer.reply, answer.record)
        self.controller.close()
        return jax.tree.map(lambda leaf: leaf[0], self.controller.logs())

    def shared_state(self, learner: int) -> Any:
        """The learner's state as the controller knows it, or None if this learner has nothing to do with that."""
        table = self.controller.table
        raw = self.learners[learner].save(int(table.generation[learner]), int(table.accepted[learner]))
        return None if raw is None else wire.decode_tree(raw, self.compiled.learner)
