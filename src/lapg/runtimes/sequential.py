"""The reference runtime: a plain loop over rounds and learners in which every message really becomes bytes."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.protocol import (
    Log,
    RunState,
    announce,
    excuse,
    initialise,
    make_relay,
    participants,
    play_learner,
    take_step,
)
from lapg.runtimes.replicas import Outbox, follow
from lapg.types import NOBODY, Broadcast, Problem, Recipe


def sequential(
    recipe: Recipe,
    problem: Problem,
    hyper: dict[str, Any],
    seed: int,
    num_rounds: int,
    *,
    restarts: Mapping[int, Collection[int]] | None = None,
) -> tuple[RunState, Log]:
    """Plays ``num_rounds`` rounds of one lane.

    Args:
      restarts: round → learners whose hosts have lost their replica of the controller before it; matters to a replicated downlink.
    Returns:
      The final state, and the log with leading axis (round).
    Raises:
      RuntimeError: an encoded message is not as long as was announced, or a replica is not where the controller is.
    """
    method, root = recipe(hyper), jax.random.key(seed)
    compressor, codec = method.compressor, method.downlink
    each = range(problem.num_learners)

    @jax.jit
    def play(hyper: Any, task: Any, state: Any, heard: Any, participated: Any) -> Any:
        after, answer = play_learner(recipe(hyper), problem, root, task, state, heard)
        return excuse(participated, state, after, answer, heard)

    speak = jax.jit(lambda hyper, state: announce(recipe(hyper), root, state))
    relay = jax.jit(lambda hyper, *given: make_relay(recipe(hyper), root, *given))
    step = jax.jit(lambda hyper, state, relayed: take_step(recipe(hyper), state, relayed))

    start = jax.jit(lambda hyper: initialise(recipe(hyper), problem, root))(hyper)
    controller, downlink = start.controller, start.downlink
    learners = [_pick(start.learners, m) for m in each]
    tasks = [_pick(problem.tasks, m) for m in each]
    outbox = None if codec.compressor is None else Outbox(codec.compressor, problem.num_learners)
    nothing = jax.tree.map(jnp.zeros_like, controller)
    replicas, relayed = [nothing for _ in each], None

    def listen(m: int, raw: bytes, like: Broadcast) -> Broadcast:
        round, _, _, payload = wire.unframe(raw)
        if codec.compressor is None:
            return wire.decode_broadcast(payload, round, like)
        replicas[m] = follow(
            replicas[m], payload, round, codec.compressor, lambda *given: step(hyper, *given)[0], like=relayed
        )
        if wire.encode_tree(replicas[m]) != wire.encode_tree(controller):
            raise RuntimeError(f"learner {m}'s replica is not where the controller is before round {round}.")
        return speak(hyper, replicas[m])

    logs = []
    for round in range(num_rounds):
        broadcast = speak(hyper, controller)
        participated = participants(method, root, broadcast.round, problem.num_learners)
        lost = np.isin(each, list((restarts or {}).get(round, ())))
        downlink, due = codec.deliver(codec.resync(downlink, jnp.asarray(lost)), controller, broadcast, participated)
        uploads, rest = [], []
        for m in each:
            if lost[m] and outbox is not None:
                outbox.resync(m)
                replicas[m] = nothing
            heard = broadcast  # of a learner that is absent only the scores count
            if participated[m]:
                raw = wire.encode_broadcast(broadcast) if outbox is None else outbox.take(m, controller)
                _check_length(f"the controller, to learner {m},", int(due[m]), raw)
                heard = listen(m, wire.frame(raw, round=round, learner=NOBODY), broadcast)
            learners[m], answer = play(hyper, tasks[m], learners[m], heard, participated[m])
            raw = wire.encode_upload(compressor, answer.upload)
            if raw is not None:
                _check_length(f"learner {m}", int(answer.upload.bits), raw)
            uploads.append(wire.decode_upload(compressor, raw, answer.upload))
            rest.append((answer.log, answer.scores))
        arrived = _stack(uploads)
        downlink, relayed = relay(hyper, broadcast, downlink, arrived)
        if outbox is not None:
            outbox.add(round, relayed)
        controller, round_log = step(hyper, controller, relayed)
        learner_log, scores = _stack(rest)
        log = Log(participated, due, arrived.sent, arrived.bits, learner_log, round_log, scores)
        logs.append(jax.tree.map(np.asarray, log))
    end = RunState(controller, _stack(learners), downlink)
    return end, jax.tree.map(lambda *leaves: np.stack(leaves), *logs)


def _check_length(who: str, bits: int, raw: bytes) -> None:
    if bits != 8 * len(raw):
        raise RuntimeError(f"{who} announced {bits} bits and encoded {8 * len(raw)}.")


def _pick(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
