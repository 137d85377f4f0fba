"""Flower carries the letters of `lapg.runtimes.flower.transport`: a ServerApp that holds the controller, a ClientApp that holds a learner's end.

A node says which learner it is in its configuration (``learner=0``); learners keep what they remember in the node's context, which lives as long as a
run of Flower does. Whether a node may speak at all is Flower's to decide: start the SuperLink with TLS and with the authentication of nodes.
"""

import time
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict  # pyright: ignore[reportMissingImports]
from flwr.clientapp import ClientApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp import Grid, ServerApp  # pyright: ignore[reportMissingImports]

from lapg.runtimes.distributed.handshake import check_hello, hello
from lapg.runtimes.flower.transport import LOAD, PLAY, SAVE, Letter, Terms, answer

NAME = "lapg"
HELLO = "join"
MESSAGE_TYPES = {what: f"{MessageType.QUERY}.{what}" for what in (HELLO, SAVE, LOAD)} | {PLAY: MessageType.TRAIN}
ReadTerms = Callable[[Any], Terms]
"""The run's configuration (`flwr run` and the app's ``[tool.flwr.app.config]``) to what is played; called in every process."""
Gather = Callable[[Terms, float], "Office"]
"""Waits until all learners have joined, for so many seconds, and opens the post to them."""


def client_app(read_terms: ReadTerms) -> ClientApp:
    """A learner. Every message starts a process of its own, which compiles; JAX's compilation cache on the node makes that cheap."""
    app = ClientApp()

    @app.query(HELLO)
    def handshake(message: Message, context: Context) -> Message:
        context.state.pop(NAME, None)  # whoever asks begins anew, or loads
        terms = read_terms(context.run_config)
        terms.compiled.rehearse(terms.hyper)  # fills the node's cache, so that rounds need not wait for it
        said = {"learner": [_number(context)], "introduction": hello(terms.settings)}
        return Message(_packed({0: said}), reply_to=message)

    def respond(what: str) -> Callable[[Message, Context], Message]:
        def reply(message: Message, context: Context) -> Message:
            terms, memories = read_terms(context.run_config), _unpacked(context.state)
            after, said = answer(terms, _number(context), memories, what, _unpacked(message.content))
            context.state.update(_packed(after))
            return Message(_packed(said), reply_to=message)

        return reply

    app.train()(respond(PLAY))
    app.query(SAVE)(respond(SAVE))
    app.query(LOAD)(respond(LOAD))
    return app


def server_app(play: Callable[[Any, Gather], None]) -> ServerApp:
    """The controller; ``play`` is given the run's configuration."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        play(context.run_config, lambda terms, timeout: handshake_all(grid, terms, timeout))

    return app


class Office:
    """The post to learners, of which number m lives at ``nodes[m]``.

    ``traffic`` counts, by what letters ask for: letters, the bytes in them, answers, the bytes in those. Flower's own come on top.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid, self._asked = grid, dict[Hashable, str]()
        self.nodes: dict[int, int] = {}
        self.traffic: dict[str, list[int]] = {}

    def send(self, learner: int, what: str, letter: Letter, seconds: float) -> Hashable:
        return self.write(self.nodes[learner], what, letter, seconds)

    def write(self, node: int, what: str, letter: Letter, seconds: float) -> Hashable:
        """To a node, whichever learner it may be."""
        message = Message(_packed(letter), dst_node_id=node, message_type=MESSAGE_TYPES[what], ttl=seconds)
        ticket = next(iter(self._grid.push_messages([message])))
        self._asked[ticket] = what
        self._count(what, 0, letter)
        return ticket

    def fetch(self, tickets: set[Hashable]) -> dict[Hashable, Letter | None]:
        come: dict[Hashable, Letter | None] = {}
        for reply in self._grid.pull_messages([str(ticket) for ticket in tickets]):
            ticket = reply.metadata.reply_to_message_id
            come[ticket] = None if reply.has_error() else _unpacked(reply.content)
            self._count(self._asked.pop(ticket), 2, come[ticket] or {})
        return come

    def _count(self, what: str, at: int, letter: Letter) -> None:
        counts = self.traffic.setdefault(what, [0, 0, 0, 0])
        values = [value for record in letter.values() for value in record.values()]
        counts[at] += 1
        counts[at + 1] += sum(len(value) if isinstance(value, bytes) else 8 * np.size(value) for value in values)


def handshake_all(grid: Grid, terms: Terms, timeout: float) -> Office:
    """The post, once there is a node for every learner.

    Raises:
      ValueError: a node's versions or problem are others; two nodes are the same learner.
      RuntimeError: not everybody is there within ``timeout`` seconds.
    """
    ends, office, asked = time.monotonic() + timeout, Office(grid), dict[Hashable, int]()
    num_learners = terms.compiled.num_learners
    while len(office.nodes) < num_learners:
        left = ends - time.monotonic()
        if left <= 0:
            raise RuntimeError(
                f"{num_learners} learners must join within {timeout} s, got {sorted(office.nodes)}; are all nodes up?"
            )
        for node in set(grid.get_node_ids()) - set(office.nodes.values()) - set(asked.values()):
            asked[office.write(node, HELLO, {}, left)] = node
        for ticket, letter in office.fetch(set(asked)).items() if asked else ():
            node = asked.pop(ticket)
            if letter is None:
                continue
            said = letter.get(0, {})
            check_hello(hello(terms.settings), said.get("introduction", b""))
            learner = int(np.ravel(said.get("learner", -1))[0])
            if not 0 <= learner < num_learners or learner in office.nodes:
                raise ValueError(
                    f"learner must be a number from 0 to {num_learners - 1} that no other node has, got {learner} from node {node}; "
                    "start every node with --node-config 'learner=NUMBER'."
                )
            office.nodes[learner] = node
        time.sleep(0.2)
    return office


def _number(context: Context) -> int:
    if "learner" not in context.node_config:
        raise ValueError(
            "node-config must say which learner a node is, got nothing; start it with --node-config 'learner=NUMBER'."
        )
    return int(context.node_config["learner"])


def _packed(letter: Letter) -> RecordDict:
    """One record, as each is a transfer of its own; none for a letter that says nothing."""
    values = {f"{lane}.{name}": value for lane, record in letter.items() for name, value in record.items()}
    return RecordDict({NAME: ConfigRecord(values)} if values else {})


def _unpacked(records: RecordDict) -> Letter:
    letter: Letter = {}
    for key, value in dict(records[NAME]).items() if NAME in records else ():
        lane, _, name = key.partition(".")
        letter.setdefault(int(lane) if lane.isdecimal() and len(lane) < 10 else -1, {})[name] = value
    return letter
