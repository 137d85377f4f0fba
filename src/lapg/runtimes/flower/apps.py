"""The Flower engine: a ServerApp that holds the controller, a ClientApp that holds one learner, and the transport between them.

A node says which learner it is in its configuration (``learner=0``); a learner's session is kept in the node's context, which lives as long as a run of
Flower does. Which nodes may connect is Flower's to decide: start the SuperLink with TLS and with the authentication of nodes.
"""

import time
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, MessageType, RecordDict  # pyright: ignore[reportMissingImports]
from flwr.app import Message as FlowerMessage  # pyright: ignore[reportMissingImports]
from flwr.clientapp import ClientApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp import Grid, ServerApp  # pyright: ignore[reportMissingImports]

from lapg.runtimes.distributed.handshake import check_hello, hello
from lapg.runtimes.flower.transport import LOAD, PLAY, SAVE, Message, Terms, answer

NAME = "lapg"
HELLO = "join"
"""What a message asks for beside those of `lapg.runtimes.flower.transport`: the node's hello."""
MESSAGE_TYPES = {what: f"{MessageType.QUERY}.{what}" for what in (HELLO, SAVE, LOAD)} | {PLAY: MessageType.TRAIN}
ReadTerms = Callable[[Any], Terms]
"""Reads from the run's configuration (`flwr run` and the app's ``[tool.flwr.app.config]``) what is played; called in every process."""
Gather = Callable[[Terms, float], "FlowerTransport"]
"""Shakes hands with all learners, within a number of seconds, and returns the transport to them."""


def client_app(read_terms: ReadTerms) -> ClientApp:
    """Makes the ClientApp of a learner. Flower starts a process for every message, which compiles; JAX's compilation cache on the node makes that cheap."""
    app = ClientApp()

    @app.query(HELLO)
    def handshake(message: FlowerMessage, context: Context) -> FlowerMessage:
        context.state.pop(NAME, None)  # a run begins here: its session is new, or is loaded next
        terms = read_terms(context.run_config)
        terms.compiled.rehearse(terms.hyper)  # fills the node's compilation cache before the first round
        said = {"learner": [_number(context)], "introduction": hello(terms.settings)}
        return FlowerMessage(_packed({0: said}), reply_to=message)

    def respond(what: str) -> Callable[[FlowerMessage, Context], FlowerMessage]:
        def reply(message: FlowerMessage, context: Context) -> FlowerMessage:
            terms, memories = read_terms(context.run_config), _unpacked(context.state)
            after, said = answer(terms, _number(context), memories, what, _unpacked(message.content))
            context.state.update(_packed(after))
            return FlowerMessage(_packed(said), reply_to=message)

        return reply

    app.train()(respond(PLAY))
    app.query(SAVE)(respond(SAVE))
    app.query(LOAD)(respond(LOAD))
    return app


def server_app(play: Callable[[Any, Gather], None]) -> ServerApp:
    """Makes the ServerApp, which calls ``play`` with the run's configuration."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        play(context.run_config, lambda terms, timeout: handshake_all(grid, terms, timeout))

    return app


class FlowerTransport:
    """Carries messages to learners, learner m at the node ``nodes[m]``.

    ``traffic`` counts, by request: messages, the bytes in them, answers, the bytes in those. What Flower adds is not counted.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid, self._asked = grid, dict[Hashable, str]()
        self.nodes: dict[int, int] = {}
        self.traffic: dict[str, list[int]] = {}

    def send(self, learner: int, what: str, message: Message, seconds: float) -> Hashable:
        return self.send_to(self.nodes[learner], what, message, seconds)

    def send_to(self, node: int, what: str, message: Message, seconds: float) -> Hashable:
        """Sends to a node, whichever learner it is."""
        packed = FlowerMessage(_packed(message), dst_node_id=node, message_type=MESSAGE_TYPES[what], ttl=seconds)
        ticket = next(iter(self._grid.push_messages([packed])))
        self._asked[ticket] = what
        self._count(what, 0, message)
        return ticket

    def fetch(self, tickets: set[Hashable]) -> dict[Hashable, Message | None]:
        come: dict[Hashable, Message | None] = {}
        for reply in self._grid.pull_messages([str(ticket) for ticket in tickets]):
            ticket = reply.metadata.reply_to_message_id
            come[ticket] = None if reply.has_error() else _unpacked(reply.content)
            self._count(self._asked.pop(ticket), 2, come[ticket] or {})
        return come

    def _count(self, what: str, at: int, message: Message) -> None:
        counts = self.traffic.setdefault(what, [0, 0, 0, 0])
        values = [value for record in message.values() for value in record.values()]
        counts[at] += 1
        counts[at + 1] += sum(len(value) if isinstance(value, bytes) else 8 * np.size(value) for value in values)


def handshake_all(grid: Grid, terms: Terms, timeout: float) -> FlowerTransport:
    """Shakes hands with nodes until there is one for every learner; the transport to them.

    Raises:
      ValueError: a node has other versions or settings, or two nodes are the same learner.
      RuntimeError: learners are missing after ``timeout`` seconds.
    """
    ends, transport, asked = time.monotonic() + timeout, FlowerTransport(grid), dict[Hashable, int]()
    num_learners = terms.compiled.num_learners
    while len(transport.nodes) < num_learners:
        left = ends - time.monotonic()
        if left <= 0:
            raise RuntimeError(
                f"{num_learners} learners must join within {timeout} s, got {sorted(transport.nodes)}; are all nodes up?"
            )
        for node in set(grid.get_node_ids()) - set(transport.nodes.values()) - set(asked.values()):
            asked[transport.send_to(node, HELLO, {}, left)] = node
        for ticket, message in transport.fetch(set(asked)).items() if asked else ():
            node = asked.pop(ticket)
            if message is None:
                continue
            said = message.get(0, {})
            check_hello(hello(terms.settings), said.get("introduction", b""))
            learner = int(np.ravel(said.get("learner", -1))[0])
            if not 0 <= learner < num_learners or learner in transport.nodes:
                raise ValueError(
                    f"learner must be a number from 0 to {num_learners - 1} that no other node has, got {learner} from node {node}; "
                    "start every node with --node-config 'learner=NUMBER'."
                )
            transport.nodes[learner] = node
        time.sleep(0.2)
    return transport


def _number(context: Context) -> int:
    if "learner" not in context.node_config:
        raise ValueError(
            "node-config must say which learner a node is, got nothing; start it with --node-config 'learner=NUMBER'."
        )
    return int(context.node_config["learner"])


def _packed(message: Message) -> RecordDict:
    """Packs a message into one record, since Flower transfers records one by one; no record for an empty message."""
    values = {f"{lane}.{name}": value for lane, record in message.items() for name, value in record.items()}
    return RecordDict({NAME: ConfigRecord(values)} if values else {})


def _unpacked(records: RecordDict) -> Message:
    message: Message = {}
    for key, value in dict(records[NAME]).items() if NAME in records else ():
        lane, _, name = key.partition(".")
        message.setdefault(int(lane) if lane.isdecimal() and len(lane) < 10 else -1, {})[name] = value
    return message
