# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""The actors of a run: starts them, waits for what they owe, and replaces those that die or hang."""

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import ray
from ray.dag import InputNode
from ray.exceptions import GetTimeoutError, RayChannelTimeoutError, RayError, RayTaskError

from lapg.runtimes.distributed.handshake import check_hello, hello
from lapg.runtimes.ray.actor import Learners, as_engine_takes

CPUS = 0.001
"""What an actor requests: almost nothing, but Ray does not spread actors that request nothing."""
TOO_SLOW = (GetTimeoutError, RayChannelTimeoutError)
MAX_FAILURES = 3
"""How many actors in a row may fail to start, and how often one is asked in a round."""


@dataclass
class Process:
    """An actor as the driver sees it, which is asked one thing at a time.

    ``asked`` is what it owes, ``lane`` the lane whose round that belongs to, ``tries`` how often it was asked in this round, ``silent`` the rounds in a row
    at whose end it still owed something, ``failures`` the actors in a row that died before the handshake, which it is ``starting`` until. ``channel`` is its
    channel in shared memory.
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


class ActorPool:
    """Actors among which the learners are dealt out.

    Args:
      arguments: of every `Learners`: parts, hyperparameters of the lanes, seeds.
      settings: what all processes must agree on (`lapg.runtimes.distributed.handshake`).
      lose: called with the learners of an actor that is replaced.
      address: of a running cluster, as `ray.init` takes it; None starts Ray on this machine.
      processes: number of actors; None is one for each learner, but at most one for each core of the cluster.
      channels: whether rounds use channels in shared memory; None does on one machine alone.
      channel_bytes: of a channel's buffer; a longer message makes it grow.
      timeout: seconds that an actor may take.
    """

    def __init__(
        self,
        arguments: tuple[Any, ...],
        num_learners: int,
        settings: Mapping[str, Any],
        lose: Callable[[list[int]], None],
        *,
        address: str | None,
        processes: int | None,
        channels: bool | None,
        channel_bytes: int,
        timeout: float,
    ) -> None:
        self._arguments, self._settings, self._lose = arguments, dict(settings), lose
        self._channel_bytes, self.timeout = channel_bytes, timeout
        self._owner = not ray.is_initialized()
        if self._owner:
            _start(address)
        self.channels = address is None and len(ray.nodes()) == 1 if channels is None else channels
        if self.channels:
            # or Ray prints a traceback for every actor that has ended, also for one that was ended here
            logging.getLogger("ray.dag").setLevel(logging.CRITICAL)
        self._cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        num = processes or min(num_learners, self._cores)
        self.processes = [Process(list(range(first, num_learners, num))) for first in range(num)]
        for process in self.processes:
            self._spawn(process)

    def _spawn(self, process: Process) -> None:
        """Starts an actor, without waiting for it."""
        self._end(process)
        options = {"num_cpus": CPUS, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        modes = {"float64": bool(jax.config.read("jax_enable_x64")), "crowded": len(self.processes) >= self._cores}
        process.actor = ray.remote(**options)(Learners).remote(*self._arguments, process.learners, **modes)
        process.asked, process.starting, process.silent = process.actor.handshake.remote(self._settings), True, 0

    def _end(self, process: Process) -> None:
        if process.actor is not None:
            ray.kill(process.actor)
        if process.channel is not None:
            process.channel.teardown()
        process.actor = process.channel = None

    def _connect(self, process: Process) -> None:
        """Opens the channel to an actor that has started."""
        with InputNode() as told:
            graph = process.actor.listen.bind(told)
        process.channel = graph.experimental_compile(_buffer_size_bytes=self._channel_bytes, _max_inflight_executions=1)

    def wait_for(self, process: Process, waited: float | None = None) -> Any:
        """Returns what an actor owes; None if it died or took too long, and was replaced. Raises what its own code raises.

        In a round that is ``waited`` seconds old and waits for all learners, taking too long is raised as well.
        """
        try:
            answer: Any = ray.get(process.asked, timeout=max(0.0, self.timeout - (waited or 0.0)))
            if process.starting:
                check_hello(hello(self._settings), answer)
                if self.channels:
                    self._connect(process)
        except RayTaskError:
            raise
        except RayError as error:
            if waited is not None and isinstance(error, TOO_SLOW):
                raise
            self.replace(process, str(error))
            return None
        process.asked, process.starting, process.silent, process.failures = None, False, 0, 0
        return answer

    def wait(self, processes: Sequence[Process], num: int, seconds: float) -> None:
        """Waits until ``num`` of some busy actors have answered, or for so many seconds."""
        ray.wait([process.asked for process in processes], num_returns=num, timeout=seconds)

    def arrived(self) -> list[Process]:
        """The actors whose answers have arrived."""
        asked = {process.asked: process for process in self.processes if process.asked is not None}
        return [asked[ref] for ref in ray.wait(list(asked), num_returns=len(asked), timeout=0)[0]] if asked else []

    def share(self, payload: bytes) -> Any:
        """Puts a long payload into the object store, once for all actors; returns what `ask` takes for it."""
        raw = as_engine_takes(payload)
        return raw if self.channels or raw is payload else ray.put(raw)

    def ask(self, process: Process, lane: int, *told: Any) -> None:
        """Calls `Learners.hear` of an idle actor, without waiting."""
        process.asked = process.channel.execute(told) if self.channels else process.actor.hear.remote(*told)
        process.lane, process.tries = lane, process.tries + 1

    def drain(self, process: Process) -> None:
        """Waits until an actor owes nothing."""
        while process.asked is not None:
            self.wait_for(process)

    def replace(self, process: Process, reason: str) -> None:
        """Starts another actor for the same learners, which start again.

        Raises:
          RuntimeError: actors keep dying before the handshake.
        """
        process.failures += process.starting
        if process.failures >= MAX_FAILURES:
            raise RuntimeError(
                f"an actor for learners {process.learners} must start, but {MAX_FAILURES} in a row did not; is lapg installed on every node? {reason}"
            )
        self._lose(process.learners)
        self._spawn(process)

    def close(self) -> None:
        """Ends the actors, and Ray if it was started here."""
        for process in self.processes:
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
