# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Learners as Ray actors, on this machine or on a cluster. Ray moves bytes; `lapg.runtimes.distributed.controller` sees that none of them counts twice."""

import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import ray
from ray.dag import InputNode
from ray.exceptions import GetTimeoutError, RayChannelTimeoutError, RayError, RayTaskError

from lapg.rounds import Log
from lapg.runtimes import wire
from lapg.runtimes.base import Pause, never
from lapg.runtimes.distributed.compiled import Compiled
from lapg.runtimes.distributed.controller import ControllerHost
from lapg.runtimes.distributed.handshake import check_hello, hello
from lapg.runtimes.distributed.limits import Limits
from lapg.runtimes.distributed.security import check_security
from lapg.runtimes.distributed.state import DistributedState, begin
from lapg.runtimes.evaluation import Evaluation, finish_log, make_evaluator
from lapg.runtimes.host_env import close
from lapg.runtimes.per_lane import BaseRuntime, stack
from lapg.runtimes.ray.actor import MESSAGE, Learners, Parts, as_engine_takes, unpack
from lapg.types import Problem, Recipe

CPUS = 0.001
"""What an actor asks for: next to nothing, but Ray does not spread actors that ask for nothing."""
TOO_SLOW = (GetTimeoutError, RayChannelTimeoutError)
MAX_FAILURES = 3
"""How many actors in a row may fail to start, and how often one is asked in a round."""


@dataclass
class _Process:
    """An actor as the driver sees it. It is never asked two things at once.

    ``asked`` is what it owes, ``lane`` whose round that belongs to, ``tries`` how often it was asked in this round, ``silent`` the rounds in a row that
    it has owed something at the end of, ``failures`` the actors in a row that did not get to work. ``channel`` is a way to it through memory.
    """

    learners: list[int]
    actor: Any = None
    channel: Any = None
    asked: Any = None
    starting: bool = True
    lane: int = 0
    tries: int = 0
    silent: int = 0
    failures: int = 0


class Ray(BaseRuntime):
    """Used like `lapg.runtimes.Vectorised`; lanes play each round one after the other.

    A round closes when everybody has answered, or at the deadline if there is one and a quorum has. An actor that dies, or that stays silent for
    ``max_silent_rounds`` rounds, is started again, and its learners upload a full gradient when they are back. What `advance` returns has been fetched from
    all learners, and a state that it did not return last is carried to them; that costs its size.

    Messages go by calls of actors, or by channels in shared memory (Ray's compiled graphs). These are quicker by milliseconds, but whoever waits at one
    keeps looking, which takes what the processors have left, and nobody can stop waiting for one actor alone.

    Args:
      parts: gives the recipe and the problem; called in every process.
      built: what ``parts`` would give here, where it has been built already.
      settings: what all processes must agree on (`lapg.runtimes.distributed.handshake`).
      address: of a running cluster, as `ray.init` takes it; None starts one on this machine, for this run alone.
      processes: actors, among which the learners are dealt out; None is one for each learner, but at most one for each core of the cluster.
      deadline: seconds after which a round does not wait any longer; None waits for everybody.
      quorum: learners that must have answered nevertheless.
      max_silent_rounds: silent rounds after which a learner is given up and its actor started again.
      channels: whether to use channels; None does so in a Ray on this machine alone, where everybody is waited for.
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
        self._deadline, self._quorum, self._max_silent_rounds, self._timeout = limits
        self._settings = dict(settings or {})
        self._parts = parts
        self._hosts: list[ControllerHost] = []
        self._owner = not ray.is_initialized()
        if self._owner:
            _start(address)
        here = address is None and len(ray.nodes()) == 1
        self._channels = here and deadline is None if channels is None else channels
        if self._channels:
            # or Ray prints a traceback for every actor that is gone, also for one that is ended here
            logging.getLogger("ray.dag").setLevel(logging.CRITICAL)
        self._cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        num = processes or min(num_learners, self._cores)
        self._processes = [_Process(list(range(first, num_learners, num))) for first in range(num)]
        for process in self._processes:
            self._spawn(process)

    def _spawn(self, process: _Process) -> None:
        """Starts an actor, without waiting for it."""
        self._end(process)
        options = {"num_cpus": CPUS, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        settings = {"float64": bool(jax.config.read("jax_enable_x64")), "crowded": len(self._processes) >= self._cores}
        actor = ray.remote(**options)(Learners)
        process.actor = actor.remote(self._parts, self._hypers, self._seeds.tolist(), process.learners, **settings)
        process.asked, process.starting, process.silent = process.actor.handshake.remote(self._settings), True, 0

    def _end(self, process: _Process) -> None:
        if process.actor is not None:
            ray.kill(process.actor)
        if process.channel is not None:
            process.channel.teardown()
        process.actor = process.channel = None

    def _connect(self, process: _Process) -> None:
        """Opens the channel to an actor that is up."""
        with InputNode() as told:
            graph = process.actor.listen.bind(told)
        size = 2 * wire.tree_size(self._compiled.state.controller) + 10_000  # a longer message makes it grow
        process.channel = graph.experimental_compile(_buffer_size_bytes=size, _max_inflight_executions=1)

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
          ValueError: an actor is another version.
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
        """Makes controllers and learners what the state says."""
        for process in self._processes:
            self._drain(process)
        lanes = [self.lane(state, index) for index in range(self.num_lanes)]
        self._hosts = [
            ControllerHost(self._compiled, hyper, seed, lane, max_silent_rounds=None, evaluator=self._evaluator)
            for hyper, seed, lane in zip(self._hypers, self._seeds.tolist(), lanes, strict=True)
        ]
        for index, lane in enumerate(lanes):
            for process in self._processes:
                process.asked = process.actor.load.remote(index, lane.saved(process.learners))
            for process in self._processes:
                self._drain(process)

    def _drain(self, process: _Process) -> None:
        """Waits until an actor owes nothing."""
        while process.asked is not None:
            self._wait_for(process)

    def _wait_for(self, process: _Process, waited: float | None = None) -> Any:
        """What an actor owes; None if it dies instead, or takes too long, and another one has been started. What its own code raises is raised here.

        In a round that is ``waited`` seconds old, and waits for everybody, taking too long is raised as well.
        """
        try:
            answer: Any = ray.get(process.asked, timeout=max(0.0, self._timeout - (waited or 0.0)))
            if process.starting:
                check_hello(hello(self._settings), answer)
                if self._channels:
                    self._connect(process)
        except RayTaskError:
            raise
        except RayError as error:
            if waited is not None and isinstance(error, TOO_SLOW):
                raise
            self._give_up(process, str(error))
            return None
        process.asked, process.starting, process.silent, process.failures = None, False, 0, 0
        return answer

    def _give_up(self, process: _Process, reason: str) -> None:
        """The learners start anew in another actor.

        Raises:
          RuntimeError: actors keep dying before they get to work.
        """
        process.failures += process.starting
        if process.failures >= MAX_FAILURES:
            raise RuntimeError(
                f"an actor for learners {process.learners} must start, but {MAX_FAILURES} in a row did not; is lapg installed on every node? {reason}"
            )
        for host in self._hosts:
            for m in process.learners:
                host.lose(m)
        self._spawn(process)

    def play_round(self, lane: int = 0) -> None:
        """One round of a lane, from where the last one left it; only between `advance` and its next call."""
        host, began = self._hosts[lane], time.monotonic()
        host.open()
        put: dict[int, Any] = {}
        for process in self._processes:
            process.tries = 0
        self._take_in()
        while True:
            self._ask(lane, put)
            host.flush()
            # the evaluator may have taken longer than the learners did; channels are only read below
            if self._evaluator is not None and not self._channels:
                self._take_in()
            waited = time.monotonic() - began
            enough = len(host.answered) >= min(self._quorum, len(host.answered | host.awaited))
            busy = [p for p in self._processes if p.asked is not None and not (enough and p.starting)]
            overdue = self._deadline is not None and waited >= self._deadline
            if enough and (overdue or not busy):
                break
            if waited >= self._timeout or not busy:
                raise self._endless(host)
            if self._deadline is None:
                try:
                    for process in busy:
                        self._receive(process, time.monotonic() - began)
                except TOO_SLOW as error:
                    raise self._endless(host) from error
            else:
                limit = self._timeout if overdue else self._deadline
                asked = [process.asked for process in busy]
                ray.wait(asked, num_returns=1 if overdue else len(asked), timeout=limit - waited)
                self._take_in()
        for process in self._processes:
            process.silent += process.asked is not None and not process.starting
            if process.silent >= self._max_silent_rounds:
                self._give_up(process, "silent")
        host.close()

    def _endless(self, host: ControllerHost) -> RuntimeError:
        return RuntimeError(
            f"round {int(host.state.round)} must come to a quorum of {self._quorum} and an end within {self._timeout} s, but "
            f"{len(host.answered)} have answered; give a deadline, or a smaller quorum."
        )

    def _take_in(self) -> None:
        """Hands over whatever has come to the controller that it is meant for."""
        asked = {process.asked: process for process in self._processes if process.asked is not None}
        for ref in ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else ():
            self._receive(asked[ref])

    def _receive(self, process: _Process, waited: float | None = None) -> None:
        """Waits for what an actor owes, and hands it over."""
        starting, answers = process.starting, self._wait_for(process, waited)
        if answers is not None and not starting:
            for m, reply, record in unpack(memoryview(answers)):
                self._hosts[process.lane].receive(m, reply, record)

    def _ask(self, lane: int, put: dict[int, Any]) -> None:
        """Sends the round to every idle actor, for those of its learners that have not answered; ``put`` is what the object store has been given in it."""
        host, awaited = self._hosts[lane], self._hosts[lane].awaited
        for process in self._processes:
            wanted = sorted(awaited.intersection(process.learners))
            if process.asked is None and wanted and process.tries < MAX_FAILURES:
                messages, payloads = [], {}
                for m in wanted:
                    head, payload = host.message(m)
                    _, which = payloads.setdefault(id(payload), (payload, len(payloads)))
                    messages.append(MESSAGE.pack(lane, which, head))
                for name, (payload, _) in payloads.items():
                    if name not in put:  # by identity, for to hash a long payload takes as long as to send it
                        raw = as_engine_takes(payload)
                        put[name] = raw if self._channels or raw is payload else ray.put(raw)
                told = b"".join(messages), *(put[name] for name in payloads)
                process.asked = process.channel.execute(told) if self._channels else process.actor.hear.remote(*told)
                process.lane, process.tries = lane, process.tries + 1

    def _save(self, lane: int) -> list[bytes | None]:
        """What every learner remembers; None for those that cannot be asked now."""
        table = self._hosts[lane].table
        self._take_in()
        idle = [process for process in self._processes if process.asked is None]
        for process in idle:
            wanted = {m: (int(table.generation[m]), int(table.accepted[m])) for m in process.learners}
            process.asked = process.actor.save.remote(lane, wanted)
        states: dict[int, bytes | None] = {}
        for process in idle:
            states |= self._wait_for(process) or {}
        return [states.get(m) for m in range(len(table.generation))]

    def close(self) -> None:
        """Ends the actors, and Ray if this runtime has started it; closes the environments that θ^k was scored in."""
        close(self._compiled.problem)
        for process in self._processes:
            self._end(process)
        if self._owner:
            ray.shutdown()


def _start(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    place: dict[str, Any] = {"address": address}
    if address is None:
        place = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # what Ray forks becomes another program at once
        ray.init(**quiet, **place)
