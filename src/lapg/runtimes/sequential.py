"""The reference runtime: a plain loop over rounds and learners in which every message really becomes bytes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lapg.runtimes import wire
from lapg.runtimes.protocol import Log, RunState, announce, initialise, play_learner
from lapg.types import NOBODY, Problem, Recipe


def sequential(
    recipe: Recipe, problem: Problem, hyper: dict[str, Any], seed: int, num_rounds: int
) -> tuple[RunState, Log]:
    """Plays ``num_rounds`` rounds of one lane.

    Returns:
      The final state, and the log with leading axis (round).
    Raises:
      RuntimeError: an encoded upload is not as long as its learner says.
    """
    method, root = recipe(hyper), jax.random.key(seed)
    compressor = method.compressor
    speak = jax.jit(lambda hyper, state: announce(recipe(hyper), root, state))
    play = jax.jit(lambda hyper, task, state, heard: play_learner(recipe(hyper), problem, root, task, state, heard))
    gather = jax.jit(lambda hyper, uploads: recipe(hyper).controller.gather(uploads))
    step = jax.jit(lambda hyper, state, arrival: recipe(hyper).controller.step(state, arrival))

    start = jax.jit(lambda hyper: initialise(recipe(hyper), problem, root))(hyper)
    controller = start.controller
    each = range(problem.num_learners)
    learners = [_pick(start.learners, m) for m in each]
    tasks = [_pick(problem.tasks, m) for m in each]
    logs = []
    for round in range(num_rounds):
        broadcast = speak(hyper, controller)
        sent = wire.frame(wire.encode_broadcast(broadcast), round=round, learner=NOBODY)
        uploads, rest = [], []
        for m in each:
            heard_round, _, _, payload = wire.unframe(sent)
            heard = wire.decode_broadcast(payload, heard_round, broadcast)
            learners[m], answer = play(hyper, tasks[m], learners[m], heard)
            upload = answer.upload
            raw = wire.encode_upload(compressor, upload)
            if raw is not None and 8 * len(raw) != int(upload.bits):
                raise RuntimeError(f"learner {m} announced {int(upload.bits)} bits and encoded {8 * len(raw)}.")
            uploads.append(wire.decode_upload(compressor, raw, upload))
            rest.append((answer.log, answer.scores))
        arrived = _stack(uploads)
        controller, round_log = step(hyper, controller, gather(hyper, arrived))
        learner_log, scores = _stack(rest)
        logs.append(jax.tree.map(np.asarray, Log(arrived.sent, arrived.bits, learner_log, round_log, scores)))
    return RunState(controller, _stack(learners)), jax.tree.map(lambda *leaves: np.stack(leaves), *logs)


def _pick(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
