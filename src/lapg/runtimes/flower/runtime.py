"""The runtime whose learners are reached over a transport (`lapg.runtimes.flower.transport`); the lanes of a round share messages."""

from typing import Any

import jax
import numpy as np

from lapg.rounds import Log
from lapg.runtimes import wire
from lapg.runtimes.base import Pause, never
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.limits import Limits
from lapg.runtimes.distributed.state import DistributedState, begin
from lapg.runtimes.evaluation import Evaluation, finish_log, make_evaluator
from lapg.runtimes.flower.transport import LOAD, SAVE, Message, Terms, Transport, ask_all, play_round
from lapg.runtimes.per_lane import BaseRuntime, stack


class TransportRuntime(BaseRuntime):
    """Plays rounds in the process that holds the controller; used like `lapg.runtimes.Vectorised`.

    `advance` fetches the learners' states, their diagnostics and the scores of their batches with one message to each. A state that it did not return last
    is sent to them first, which costs another message. A learner that does not answer uploads a full gradient when the run resumes from that state. After
    the last round no states are fetched.

    Args:
      terms: as the learners know them.
      transport: to the learners, whose sessions are new.
    """

    fetches = True

    def __init__(
        self,
        terms: Terms,
        transport: Transport,
        limits: Limits,
        *,
        chunk_rounds: int = 25,
        initial_params: np.ndarray | None = None,
        evaluation: Evaluation = Evaluation(),  # noqa: B008  (immutable)
    ) -> None:
        hypers = {name: np.full(len(terms.seeds), value) for name, value in terms.hyper.items()}
        super().__init__(hypers, terms.seeds, chunk_rounds, initial_params, evaluation)
        self._evaluator = make_evaluator(terms.compiled.problem, evaluation, terms.compiled.method)
        self._terms, self._transport, self._limits = terms, transport, limits.checked(terms.compiled.num_learners)
        self._deadline = limits.deadline or limits.timeout
        self._hosts: list[ControllerHost] = []

    def _initialise(self, index: int) -> DistributedState:
        return begin(self._terms.compiled, self._hypers[index], self._seeds[index], self._initial[index])

    def advance(
        self, state: DistributedState, first: int, until: int, pause: Pause = never
    ) -> tuple[DistributedState, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1 of all lanes; fewer where ``pause`` says so.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        Raises:
          RuntimeError: a round has no quorum in time.
        """
        if state is not self._state:
            self._deploy(state)
        everybody = self._limits.deadline is None
        quorum = self._terms.compiled.num_learners if everybody else self._limits.quorum
        round = first
        while round < min(first + self.chunk_rounds, until):
            play_round(self._hosts, self._transport, deadline=self._deadline, quorum=quorum)
            round += 1
            if pause(round):
                break
        log = stack([host.logs() for host in self._hosts])
        self._state = self._save(log, first, last=round == until)
        return self._state, finish_log(log, first, self._evaluation)

    def _deploy(self, state: DistributedState) -> None:
        """Makes the controllers, and loads the learners' states into them."""
        compiled, messages = self._terms.compiled, dict[int, Message]()
        self._hosts = []
        for lane in range(self.num_lanes):
            start = self.lane(state, lane)
            own = self._hypers[lane], int(self._seeds[lane]), start
            host = ControllerHost(
                compiled, *own, max_silent_rounds=self._limits.max_silent_rounds, evaluator=self._evaluator
            )
            self._hosts.append(host)
            for m, (raw, *number) in start.saved(range(compiled.num_learners)).items():
                messages.setdefault(m, {})[lane] = {"state": raw, "number": number}
        ask_all(self._transport, LOAD, messages, deadline=self._deadline)

    def _save(self, log: Log, first: int, *, last: bool) -> DistributedState:
        """Fetches the state to resume from, and writes the learners' notes into the log, which begins with round ``first``."""
        compiled = self._terms.compiled
        messages: dict[int, Message] = {}
        for m in range(compiled.num_learners):
            numbers = [(int(h.table.generation[m]), int(h.table.accepted[m])) for h in self._hosts]
            messages[m] = {lane: {"number": [0, 0] if last else list(number)} for lane, number in enumerate(numbers)}
        answers = ask_all(self._transport, SAVE, messages, deadline=self._deadline)
        states: list[list[bytes | None]] = [[None] * compiled.num_learners for _ in self._hosts]
        for m, message in answers.items():
            for lane in messages[m]:
                record = message.get(lane, {})
                state = record.get("state")
                if isinstance(state, bytes) and len(state) == wire.tree_size(compiled.learner):
                    states[lane][m] = state
                self._take_notes(log, lane, m, first, record.get("notes"))
        return stack([host.snapshot(raw) for host, raw in zip(self._hosts, states, strict=True)])

    def _take_notes(self, log: Log, lane: int, learner: int, first: int, raw: Any) -> None:
        """Writes a learner's notes of the rounds whose answer was accepted into the log; malformed notes are ignored."""
        like, whole = self._terms.compiled.record, (log.learner, log.training_scores, log.training_steps)
        taken = log.participated[lane, :, learner] & ~log.faults["missing"][lane, :, learner].astype(bool)
        try:
            notes = [(k - first, wire.decode_tree(note, like)) for k, note in wire.unframe_all(raw)]
        except (ValueError, TypeError):
            return
        for k, note in notes:
            if 0 <= k < len(taken) and taken[k]:
                for leaf, entry in zip(jax.tree.leaves(whole), jax.tree.leaves(note), strict=True):
                    leaf[lane, k, learner] = entry
