"""The runtime whose learners are Ray actors, on this machine or on a cluster. Ray moves bytes; `lapg.runtimes.distributed` keeps both ends consistent."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lapg.rounds import Log
from lapg.runtimes import wire
from lapg.runtimes.base import Pause, never
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.limits import Limits
from lapg.runtimes.distributed.security import check_security
from lapg.runtimes.distributed.state import DistributedState, begin
from lapg.runtimes.evaluation import Evaluation, finish_log, make_evaluator
from lapg.runtimes.host_env import close
from lapg.runtimes.per_lane import BaseRuntime, stack
from lapg.runtimes.ray.actor import MESSAGE, Parts, unpack
from lapg.runtimes.ray.pool import MAX_FAILURES, TOO_SLOW, ActorPool, Process
from lapg.types import Problem, Recipe


class Ray(BaseRuntime):
    """Plays rounds with learners in actors, lanes one after the other in each round; used like `lapg.runtimes.Vectorised`.

    A round ends when all participants have answered, or, with a deadline, when that has passed and a quorum has answered. An actor that dies, or that is
    silent for ``max_silent_rounds`` rounds, is replaced, and its learners upload a full gradient when they are back. `advance` fetches the state that it
    returns from all learners, and sends them a state that it did not return last; that costs the size of a state.

    Messages are calls of actors, or go through channels in shared memory (Ray's compiled graphs). Channels save milliseconds a round, but a process that
    waits at one polls it, which takes idle processor time, and the wait for a single actor cannot be given up.

    Args:
      parts: returns the recipe and the problem; called in every process.
      built: the result of ``parts``, where it has been called in this process already.
      settings: what all processes must agree on (`lapg.runtimes.distributed.handshake`).
      address: of a running cluster, as `ray.init` takes it; None starts one on this machine, for this run alone.
      processes: actors, among which the learners are dealt out; None is one for each learner, but at most one for each core of the cluster.
      deadline: seconds after which a round ends without the missing answers; None waits for all learners.
      quorum: learners that must have answered even after the deadline.
      max_silent_rounds: silent rounds after which an actor is replaced.
      channels: whether to use channels; None uses them on one machine without a deadline.
      timeout: seconds after which a round without a quorum, or an actor that does not start, ends the run.
      insecure: whether to join a cluster on another machine without token or TLS.
    Raises:
      ValueError: an argument does not fit, or the cluster is neither local nor secured.
    """

    fetches = True

    def __init__(
        self,
        parts: Parts,
        hypers: dict[str, Any],
        seeds: Sequence[int],
        *,
        chunk_rounds: int = 25,
        initial_params: np.ndarray | None = None,
        evaluation: Evaluation = Evaluation(),  # noqa: B008  (immutable)
        built: tuple[Recipe, Problem] | None = None,
        settings: Mapping[str, Any] | None = None,
        address: str | None = None,
        processes: int | None = None,
        deadline: float | None = None,
        quorum: int = 1,
        max_silent_rounds: int = 100,
        timeout: float = 600.0,
        channels: bool | None = None,
        insecure: bool = False,
    ) -> None:
        super().__init__(hypers, seeds, chunk_rounds, initial_params, evaluation)
        recipe, problem = built or parts()
        num_learners = problem.num_learners
        limits = Limits(deadline, quorum, max_silent_rounds, timeout).checked(num_learners)
        if processes is not None and not 1 <= processes <= num_learners:
            raise ValueError(
                f"processes must lie between 1 and the number of learners, {num_learners}, got {processes}."
            )
        if channels and deadline is not None:
            raise ValueError("channels must be off where there is a deadline; leave one of them out.")
        check_security(address, insecure)
        self._compiled = Compiled(recipe, problem, self._hypers[0])
        self._evaluator = make_evaluator(problem, evaluation, self._compiled.method)
        self._deadline, self._quorum, self._max_silent_rounds, _ = limits
        self._hosts: list[ControllerHost] = []
        self._pool = ActorPool(
            (parts, self._hypers, self._seeds.tolist()),
            num_learners,
            settings or {},
            self._lose,
            address=address,
            processes=processes,
            channels=channels if deadline is None else False,
            channel_bytes=2 * wire.tree_size(self._compiled.state.controller) + 10_000,
            timeout=timeout,
        )

    def _lose(self, learners: list[int]) -> None:
        for host in self._hosts:
            for m in learners:
                host.lose(m)

    def _initialise(self, index: int) -> DistributedState:
        return begin(self._compiled, self._hypers[index], self._seeds[index], self._initial[index])

    def advance(
        self, state: DistributedState, first: int, until: int, pause: Pause = never
    ) -> tuple[DistributedState, Log]:
        """Plays the rounds first, ..., min(first + chunk_rounds, until) − 1, of all lanes round by round; fewer where ``pause`` says so.

        Returns:
          The new state, and the log on the host with leading axes (lane, round).
        Raises:
          RuntimeError: a round does not come to a quorum or an end; actors do not start.
          ValueError: an actor has another version or other settings.
        """
        if state is not self._state:
            self._deploy(state)
        for round in range(first, min(first + self.chunk_rounds, until)):
            for lane in range(self.num_lanes):
                self.play_round(lane)
            if pause(round + 1):
                break
        logs = finish_log(stack([host.logs() for host in self._hosts]), first, self._evaluation)
        self._state = stack([host.snapshot(self._save(lane)) for lane, host in enumerate(self._hosts)])
        return self._state, logs

    def _deploy(self, state: DistributedState) -> None:
        """Makes the controllers, and loads the learners' states into the actors."""
        for process in self._pool.processes:
            self._pool.drain(process)
        lanes = [self.lane(state, index) for index in range(self.num_lanes)]
        self._hosts = [
            ControllerHost(self._compiled, hyper, seed, lane, max_silent_rounds=None, evaluator=self._evaluator)
            for hyper, seed, lane in zip(self._hypers, self._seeds.tolist(), lanes, strict=True)
        ]
        for index, lane in enumerate(lanes):
            for process in self._pool.processes:
                process.asked = process.actor.load.remote(index, lane.saved(process.learners))
            for process in self._pool.processes:
                self._pool.drain(process)

    def play_round(self, lane: int = 0) -> None:
        """Plays one round of a lane; outside `advance` only after a call of it."""
        host, began = self._hosts[lane], time.monotonic()
        host.open()
        put: dict[int, Any] = {}
        for process in self._pool.processes:
            process.tries = 0
        self._take_in()
        while True:
            self._ask(lane, put)
            host.flush()
            # the evaluator may have taken longer than the learners did; channels are only read below
            if self._evaluator is not None and not self._pool.channels:
                self._take_in()
            waited = time.monotonic() - began
            enough = len(host.answered) >= min(self._quorum, len(host.answered | host.awaited))
            busy = [p for p in self._pool.processes if p.asked is not None and not (enough and p.starting)]
            overdue = self._deadline is not None and waited >= self._deadline
            if enough and (overdue or not busy):
                break
            if waited >= self._pool.timeout or not busy:
                raise self._endless(host)
            if self._deadline is None:
                try:
                    for process in busy:
                        self._receive(process, time.monotonic() - began)
                except TOO_SLOW as error:
                    raise self._endless(host) from error
            else:
                limit = self._pool.timeout if overdue else self._deadline
                self._pool.wait(busy, 1 if overdue else len(busy), limit - waited)
                self._take_in()
        for process in self._pool.processes:
            process.silent += process.asked is not None and not process.starting
            if process.silent >= self._max_silent_rounds:
                self._pool.replace(process, "silent")
        host.close()

    def _endless(self, host: ControllerHost) -> RuntimeError:
        return RuntimeError(
            f"round {int(host.state.round)} must come to a quorum of {self._quorum} and an end within {self._pool.timeout} s, but "
            f"{len(host.answered)} have answered; give a deadline, or a smaller quorum."
        )

    def _take_in(self) -> None:
        """Hands the answers that have arrived to their controllers, without waiting."""
        for process in self._pool.arrived():
            self._receive(process)

    def _receive(self, process: Process, waited: float | None = None) -> None:
        """Waits for what an actor owes, and hands it to its controller."""
        starting, answers = process.starting, self._pool.wait_for(process, waited)
        if answers is not None and not starting:
            for m, reply, record in unpack(memoryview(answers)):
                self._hosts[process.lane].receive(m, reply, record)

    def _ask(self, lane: int, put: dict[int, Any]) -> None:
        """Sends the round to every idle actor, for those of its learners that have not answered; ``put`` caches the round's payloads in the object store."""
        host, awaited = self._hosts[lane], self._hosts[lane].awaited
        for process in self._pool.processes:
            wanted = sorted(awaited.intersection(process.learners))
            if process.asked is None and wanted and process.tries < MAX_FAILURES:
                messages, payloads = [], {}
                for m in wanted:
                    head, payload = host.message(m)
                    _, which = payloads.setdefault(id(payload), (payload, len(payloads)))
                    messages.append(MESSAGE.pack(lane, which, head))
                for name, (payload, _) in payloads.items():
                    if name not in put:  # by identity, as hashing a long payload takes as long as sending it
                        put[name] = self._pool.share(payload)
                self._pool.ask(process, lane, b"".join(messages), *(put[name] for name in payloads))

    def _save(self, lane: int) -> list[bytes | None]:
        """Fetches the state of every learner; None for those that cannot be asked now."""
        table = self._hosts[lane].table
        self._take_in()
        idle = [process for process in self._pool.processes if process.asked is None]
        for process in idle:
            wanted = {m: (int(table.generation[m]), int(table.accepted[m])) for m in process.learners}
            process.asked = process.actor.save.remote(lane, wanted)
        states: dict[int, bytes | None] = {}
        for process in idle:
            states |= self._pool.wait_for(process) or {}
        return [states.get(m) for m in range(len(table.generation))]

    def close(self) -> None:
        """Ends the actors, and Ray if this runtime has started it; closes the environments that θ^k was scored in."""
        close(self._compiled.problem)
        self._pool.close()
