"""Flower carries the records of `lapg.runtimes.federated`: a ServerApp that holds the controller, a ClientApp that holds a learner's end.

A node says which learner it is in its configuration (``learner=0``); learners keep what they remember in the node's context. Whether a node may speak
at all is Flower's to decide: start the SuperLink with TLS and with the authentication of nodes.
"""

import time
from collections.abc import Callable, Hashable
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict  # pyright: ignore[reportMissingImports]
from flwr.clientapp import ClientApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp import Grid, ServerApp  # pyright: ignore[reportMissingImports]

from lapg.runtimes.federated import Lane, Record, answer, play_round
from lapg.runtimes.hosts import ControllerHost
from lapg.runtimes.join import check, introduction
from lapg.runtimes.protocol import Log

NAME = "lapg"
OpenLane = Callable[[dict[str, Any]], Lane]
"""The run's configuration (`flwr run` and the app's ``[tool.flwr.app.config]``) to what is played; called in every process."""


def client_app(open_lane: OpenLane) -> ClientApp:
    """A learner. Every message starts a process of its own, which compiles; JAX's compilation cache on the node makes that cheap."""
    app = ClientApp()

    @app.query()
    def join(message: Message, context: Context) -> Message:
        said = {"learner": [_number(context)], "introduction": introduction(open_lane(context.run_config).settings)}
        return Message(_packed(said), reply_to=message)

    @app.train()
    def play(message: Message, context: Context) -> Message:
        lane = open_lane(context.run_config)
        memory, reply = answer(lane, _number(context), _unpacked(context.state), _unpacked(message.content)["frame"])
        context.state[NAME] = ConfigRecord(memory)
        return Message(_packed(reply), reply_to=message)

    return app


def server_app(
    open_lane: OpenLane,
    begin: Callable[[Lane], ControllerHost],
    finish: Callable[[Any, ControllerHost, list[Log]], None],
) -> ServerApp:
    """The controller: waits for all learners, plays all rounds, hands the logs over.

    The run's configuration has ``deadline`` and ``timeout`` (seconds, for a round and for the nodes to join) and ``quorum``.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = context.run_config
        lane = open_lane(config)
        host = begin(lane)
        nodes = _join(grid, lane, float(config.get("timeout", 600.0)))
        limits: dict[str, Any] = {
            "deadline": float(config.get("deadline", 120.0)),
            "quorum": int(config.get("quorum", 1)),
        }
        post = Office(grid, nodes)
        logs = []
        for round in range(lane.rounds):
            logs.append(play_round(host, post, **limits))
            senders = logs[-1].sent.nonzero()[0].tolist()
            print(f"round {round}: uploads from {senders}", flush=True)  # flwr log shows it
        finish(config, host, logs)

    return app


class Office:
    """The post of `play_round`: learner m lives at ``nodes[m]``."""

    def __init__(self, grid: Grid, nodes: dict[int, int], kind: str = MessageType.TRAIN) -> None:
        self._grid, self._nodes, self._kind = grid, nodes, kind

    def send(self, learner: int, frame: bytes, seconds: float) -> Hashable:
        letter = Message(
            _packed({"frame": frame}), dst_node_id=self._nodes[learner], message_type=self._kind, ttl=seconds
        )
        return next(iter(self._grid.push_messages([letter])))

    def fetch(self, tickets: set[Hashable]) -> dict[Hashable, Record | None]:
        return {
            reply.metadata.reply_to_message_id: None if reply.has_error() else _unpacked(reply.content)
            for reply in self._grid.pull_messages([str(ticket) for ticket in tickets])
        }


def _join(grid: Grid, lane: Lane, timeout: float) -> dict[int, int]:
    """Learner → node, once there is one for everybody.

    Raises:
      ValueError: a node's versions or problem are others; two nodes are the same learner.
      RuntimeError: not everybody is there in time.
    """
    ends, nodes, asked = time.monotonic() + timeout, {}, {}
    num_learners = lane.compiled.num_learners
    while len(nodes) < num_learners:
        left = ends - time.monotonic()
        if left <= 0:
            raise RuntimeError(
                f"{num_learners} learners must join within {timeout} s, got {sorted(nodes)}; are all nodes up?"
            )
        office = Office(grid, {node: node for node in grid.get_node_ids()}, MessageType.QUERY)
        for node in set(office._nodes) - set(nodes.values()) - set(asked.values()):
            asked[office.send(node, b"", left)] = node
        for ticket, said in office.fetch(set(asked)).items() if asked else ():
            node = asked.pop(ticket)
            if said is None:
                continue
            check(introduction(lane.settings), said["introduction"])
            learner = int(said["learner"][0])
            if not 0 <= learner < num_learners or learner in nodes:
                raise ValueError(
                    f"learner must be a number from 0 to {num_learners - 1} that no other node has, got {learner} from node {node}; "
                    "start every node with --node-config 'learner=NUMBER'."
                )
            nodes[learner] = node
        time.sleep(0.2)
    return nodes


def _number(context: Context) -> int:
    if "learner" not in context.node_config:
        raise ValueError(
            "node-config must say which learner a node is, got nothing; start it with --node-config 'learner=NUMBER'."
        )
    return int(context.node_config["learner"])


def _packed(record: Record) -> RecordDict:
    return RecordDict({NAME: ConfigRecord(record)} if record else {})


def _unpacked(records: RecordDict) -> Record:
    return dict(records[NAME]) if NAME in records else {}
