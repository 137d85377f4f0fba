"""The reference runtime: a plain loop over rounds and learners in which every message is encoded to bytes, header included, and none is lost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg.rounds import (
    Log,
    RunState,
    announce,
    initialise,
    make_relay,
    mask_absent,
    participants,
    play_learner,
    take_step,
)
from lapg.runtimes import wire
from lapg.runtimes.distributed.replica import Outbox, follow
from lapg.runtimes.evaluation import Evaluation, make_evaluator
from lapg.runtimes.per_lane import PerLaneRuntime, stack
from lapg.types import NOBODY, Broadcast, Buffer, ControllerState, Problem, Recipe


@dataclass
class _Ends:
    """Both ends of one lane's replicated downlink, which are kept beside its state.

    ``last_broadcast`` is the round of each learner's last broadcast, −1 where it has no replica; ``relayed`` is the last relay.
    """

    outbox: Outbox
    last_broadcast: list[int]
    replicas: list[Any]
    relayed: Any = None


class Sequential(PerLaneRuntime):
    """Plays L lanes one after the other; used like `lapg.runtimes.Vectorised`, whose arguments it takes.

    From a state that `advance` did not return last, such as a checkpoint, learners begin without replicas of the controller, unless it is the one that the
    seed begins with: with a replicated downlink the next broadcast is the controller's whole state. Only its length depends on that.

    Args:
      restarts: round → learners that lose their replica of the controller before it, with a replicated downlink.
      heartbeat: whether learners that take part are sent a header at least, and answer with one; otherwise messages without payload are not sent.

    ``carried``: bytes that went down and up so far, by lane, [L, 2].
    """

    def __init__(
        self,
        recipe: Recipe,
        problem: Problem,
        hypers: dict[str, Any],
        seeds: Sequence[int],
        *,
        chunk_rounds: int = 25,
        initial_params: np.ndarray | None = None,
        restarts: Mapping[int, Collection[int]] | None = None,
        heartbeat: bool = True,
        evaluation: Evaluation = Evaluation(),  # noqa: B008  (immutable)
    ) -> None:
        super().__init__(hypers, seeds, chunk_rounds, initial_params, evaluation)
        method, key = recipe(self._hypers[0]), jax.random.key
        self._evaluator = make_evaluator(problem, evaluation, method)
        self._num_learners, self._restarts = problem.num_learners, restarts or {}
        self._compressor, self._codec = method.compressor, method.downlink
        self._tasks = [_pick(problem.tasks, m) for m in range(problem.num_learners)]
        self._ends: list[_Ends | None] = [None] * self.num_lanes
        self._heartbeat, self.carried = heartbeat, np.zeros((self.num_lanes, 2), np.int64)

        @jax.jit
        def learn(hyper: Any, seed: Any, task: Any, state: Any, broadcast: Any, participated: Any) -> Any:
            after, answer = play_learner(recipe(hyper), problem, key(seed), task, state, broadcast)
            return mask_absent(participated, state, after, answer, broadcast)

        self._learn = learn
        self._begin = jax.jit(lambda hyper, seed, params: initialise(recipe(hyper), problem, key(seed), params))
        self._announce = jax.jit(lambda hyper, seed, state: announce(recipe(hyper), key(seed), state))
        self._deliver = jax.jit(
            lambda downlink, lost, *given: self._codec.deliver(self._codec.resync(downlink, lost), *given)
        )
        self._relay = jax.jit(lambda hyper, seed, *given: make_relay(recipe(hyper), key(seed), *given))
        self._step = jax.jit(lambda hyper, state, relayed: take_step(recipe(hyper), state, relayed))
        self._present = jax.jit(
            lambda hyper, seed, round: participants(recipe(hyper), key(seed), round, problem.num_learners)
        )

    def _initialise(self, index: int) -> RunState:
        return self._begin(self._hypers[index], self._seeds[index], self._initial[index])

    def _enter(self, state: RunState) -> RunState:
        if self._codec.compressor is None:
            return state
        self._ends = [self._new_ends(index, self.lane(state, index).controller) for index in range(self.num_lanes)]
        lost = jnp.array([[round < 0 for round in ends.last_broadcast] for ends in self._ends if ends is not None])
        downlink = jax.jit(jax.vmap(self._codec.resync))(state.downlink, lost)
        return RunState(state.controller, state.learners, downlink)

    def _new_ends(self, index: int, controller: Any) -> _Ends:
        """The ends at the beginning of a run, of which learners know the seed; or where they know nothing."""
        assert self._codec.compressor is not None
        first = self._begin(self._hypers[index], self._seeds[index], None).controller
        known = wire.encode_tree(first) == wire.encode_tree(controller)
        outbox, num = Outbox(self._codec.compressor, controller), self._num_learners
        return _Ends(outbox, [0] * num, [first] * num) if known else _Ends(outbox, [-1] * num, [None] * num)

    def _play_round(self, index: int, state: RunState) -> tuple[RunState, Log]:
        """A round of one lane.

        Raises:
          RuntimeError: an encoded message has another length than announced, or a replica differs from the controller.
        """
        hyper, seed, ends = self._hypers[index], self._seeds[index], self._ends[index]
        broadcast = self._announce(hyper, seed, state.controller)
        round = int(broadcast.round)
        participated = self._present(hyper, seed, broadcast.round)
        lost = np.isin(range(self._num_learners), list(self._restarts.get(round, ())))
        downlink, due = self._deliver(state.downlink, lost, state.controller, broadcast, participated)
        learners, uploads, rest = [], [], []
        for m, task in enumerate(self._tasks):
            if lost[m] and ends is not None:
                ends.last_broadcast[m], ends.replicas[m] = -1, None
            delivered = broadcast  # of an absent learner only the scores are used
            if participated[m]:
                if ends is None:
                    raw = wire.encode_broadcast(broadcast)
                else:
                    raw = ends.outbox.catch_up(ends.last_broadcast[m], state.controller)
                _check_length(f"the controller, to learner {m},", int(due[m]), raw)
                received = self._carry(index, 0, raw, round=round, learner=NOBODY)
                delivered = self._listen(index, m, received, round, broadcast, state.controller)
            learner, answer = self._learn(hyper, seed, task, _pick(state.learners, m), delivered, participated[m])
            raw = b"".join(wire.encode_upload(self._compressor, answer.upload))
            _check_length(f"learner {m}", int(answer.upload.bits), raw)
            received = self._carry(index, 1, raw, round=round, learner=m) if participated[m] else b""
            learners.append(learner)
            uploads.append(wire.decode_upload(self._compressor, received, answer.upload))
            rest.append((answer.log, answer.scores, answer.steps))
        arrived = jax.tree.map(jnp.asarray, stack(uploads))
        downlink, relayed = self._relay(hyper, seed, broadcast, downlink, arrived)
        if ends is not None:
            ends.outbox.add(state.controller, relayed)
            ends.relayed = relayed
        controller, round_log = self._step(hyper, state.controller, relayed)
        learner_log, scores, steps = stack(rest)
        log = Log(participated, due, arrived.sent, arrived.bits, learner_log, round_log, scores, steps)
        return RunState(controller, stack(learners), downlink), jax.tree.map(np.asarray, log)

    def _carry(self, index: int, way: int, payload: bytes, *, round: int, learner: int) -> Buffer:
        """Carries a message down (0) or up (1); the payload as it arrives, empty if nothing was sent."""
        if not payload and not self._heartbeat:
            return b""
        raw = wire.frame(payload, round=round, learner=learner)
        self.carried[index, way] += len(raw)
        return wire.unframe(raw)[1]

    def _listen(
        self, index: int, m: int, payload: Buffer, round: int, broadcast: Broadcast, controller: ControllerState
    ) -> Broadcast:
        """Decodes learner m's broadcast. A replica, which must agree with ``controller``, makes the broadcast itself."""
        hyper, seed, ends = self._hypers[index], self._seeds[index], self._ends[index]
        if ends is None or self._codec.compressor is None:
            return wire.decode_broadcast(payload, round, broadcast)
        ends.replicas[m] = follow(
            ends.replicas[m],
            payload,
            round,
            self._codec.compressor,
            lambda *given: self._step(hyper, *given)[0],
            like=(controller, ends.relayed),
        )
        ends.last_broadcast[m] = round
        if wire.encode_tree(ends.replicas[m]) != wire.encode_tree(controller):
            raise RuntimeError(f"learner {m}'s replica differs from the controller before round {round}.")
        return self._announce(hyper, seed, ends.replicas[m])


def sequential(
    recipe: Recipe,
    problem: Problem,
    hyper: dict[str, Any],
    seed: int,
    num_rounds: int,
    *,
    restarts: Mapping[int, Collection[int]] | None = None,
) -> tuple[RunState, Log]:
    """Plays ``num_rounds`` rounds of one lane of `Sequential`.

    Returns:
      The final state, and the log with leading axis (round).
    Raises:
      RuntimeError: an encoded message has another length than announced, or a replica differs from the controller.
    """
    lane = {name: np.asarray(value)[None] for name, value in hyper.items()}
    runtime = Sequential(recipe, problem, lane, [seed], chunk_rounds=num_rounds, restarts=restarts)
    state, log = runtime.advance(runtime.start(), 0, num_rounds)
    if (played := log.sent.shape[1]) < num_rounds:  # the next one has failed, and says how
        runtime.advance(state, played, num_rounds)
    return runtime.lane(state, 0), jax.tree.map(lambda leaf: leaf[0], log)


def _check_length(who: str, bits: int, raw: bytes) -> None:
    if bits != 8 * len(raw):
        raise RuntimeError(f"{who} announced {bits} bits and encoded {8 * len(raw)}.")


def _pick(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)
