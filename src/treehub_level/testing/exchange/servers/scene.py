"""The stage of a server scenario: the server under test, and the clients that send it requests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ....errors import LevelError
from ..scenarios import UnsupportedError
from ..vectors import read_reply, read_request
from .connection import DEFAULT, Answer, HTTPConnection


@dataclass(frozen=True)
class ServerUnderTest:
    """A database of the server under test, and its settings.

    Attributes:
        url: The URL of the database, such as ``http://localhost:8421/v1/notes``. Other programs
            must not write to it during the scenarios.
        token: A token that may read and write all keys; ``None`` if the server needs none.
        read_token: A token that may read all keys, and write none.
        prefix_token: A token that may read and write the keys with the prefix ``token_prefix``.
        token_prefix: The prefix of ``prefix_token``.
        refused_prefix: The beginning of keys that a rule of the server refuses to write.
        compact: Compacts the log of the database, and forgets all deletes in it.
        patience: Seconds to wait for a response, and for the end of a long poll.
    """

    url: str
    token: str | None = None
    read_token: str | None = None
    prefix_token: str | None = None
    token_prefix: str = ""
    refused_prefix: str | None = None
    compact: Callable[[], object] | None = None
    patience: float = 60.0


class ServerScene:
    """The server, and the keys of one scenario.

    Args:
        under_test: The server.

    Attributes:
        prefix: The prefix of the scenario's keys, which no other scenario uses.
    """

    def __init__(self, under_test: ServerUnderTest) -> None:
        self.under_test = under_test
        self.prefix = f"conformance/{uuid.uuid4().hex[:8]}/"
        self.connection = HTTPConnection(under_test.url, under_test.token, under_test.patience)

    def key(self, name: str) -> str:
        """Return a key of the scenario."""
        return self.prefix + name

    def setting(self, name: str, option: str) -> Any:
        """Return a setting of the server.

        Raises:
            UnsupportedError: It is not given.
        """
        value = getattr(self.under_test, name)
        if value is None:
            raise UnsupportedError(f"needs {option}")
        return value

    def peer(self, **options: Any) -> Peer:
        """Return a new client that has all keys of the scenario, and is at the server's CID.

        Args:
            **options: See `Peer`.
        """
        peer = Peer(self, **options)
        answer = peer.ask(complete=[], why="a client that wants no key is at the head at once")
        answer.require(answer["cid"] == answer["head"], "a client that wants no key is at the head at once")
        peer.apply(answer)
        return peer

    def head(self) -> int:
        """Return the server's CID."""
        return self.peer().cid

    def entries(self) -> dict[str, Any]:
        """Return the live entries of the scenario, as a fill sends them."""
        peer = self.peer(complete=[])
        found: dict[str, Any] = {}
        for answer in peer.fill(self.prefix):
            found.update(map(tuple, answer.get("entries", [])))
        return found

    def finish(self) -> None:
        """Do nothing: each reply was checked when it arrived."""

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextmanager
    def second_connection(self) -> Iterator[HTTPConnection]:
        """Provide another connection, for a request beside a long poll."""
        connection = HTTPConnection(self.under_test.url, self.under_test.token, self.under_test.patience)
        try:
            yield connection
        finally:
            connection.close()


@dataclass
class Peer:
    """A client of the protocol: its place in the server's history, and its last push.

    Attributes:
        scene: The scene.
        token: Another bearer token than that of the scene.
        complete: The prefixes of which the client has all keys; ``None`` for the scene's prefix.
        client: The client's id.
        server: The server's id, ``None`` before the first reply.
        cid: The client's CID.
        hi: The highest head that the client has seen.
        epochs: The epochs that the client has seen.
        seq: The number of the last push.
    """

    scene: ServerScene
    token: str | None = DEFAULT
    complete: Sequence[str] | None = None
    client: str = field(default_factory=lambda: uuid.uuid4().hex)
    server: str | None = None
    cid: int = 0
    hi: int = 0
    epochs: list[list[Any]] = field(default_factory=list)
    seq: int = 0

    def request(self, **fields: Any) -> dict[str, Any]:
        """Return a request of this client with a new nonce, without a push.

        Args:
            **fields: Fields with other values.
        """
        return {
            "protocol": 2,
            "server": self.server,
            "client": self.client,
            "cid": self.cid,
            "hi": self.hi,
            "epochs": self.epochs[-32:],
            "nonce": uuid.uuid4().hex,
            "seq": self.seq,
            "push": None,
            "changes": [],
            "limit": 1000,
            "complete": [self.scene.prefix] if self.complete is None else list(self.complete),
            "partial": [],
            "fill": None,
            **fields,
        }

    def frozen(self, *changes: list[Any], groups: Sequence[Sequence[int]] = ()) -> dict[str, Any]:
        """Return the fields of a new push: its number, its nonce, its changes and their groups."""
        self.seq += 1
        push = {"seq": self.seq, "push": uuid.uuid4().hex, "changes": [*changes]}
        return {**push, "groups": [[*group] for group in groups]} if groups else push

    def send(self, request: dict[str, Any], *, why: str = "a valid request is answered", **options: Any) -> Answer:
        """Send a request, check that the reply is one that fits it, and return the answer.

        Args:
            request: The request.
            why: The rule by which it is answered.
            **options: See `HTTPConnection.exchange`.

        Raises:
            ConformanceError: It was refused, or a client would refuse the reply.
        """
        answer = self.scene.connection.exchange(request, **{"token": self.token, **options})
        answer.require(answer.status in (200, 409) and answer.get("kind"), f"{why}: a reply")
        is_page = answer["kind"] == "page"
        answer.require(is_page == (answer.status == 200), "the status 200 with a page, 409 with another reply")
        try:
            read_reply(answer.body, read_request(request))
        except LevelError as error:
            raise answer.error(f"a reply that a client accepts; it must refuse this one: {error}") from error
        return answer

    def ask(self, *, why: str = "a valid request is answered", **fields: Any) -> Answer:
        """Send a request with some fields, without applying the reply: see `request` and `send`."""
        return self.send(self.request(**fields), why=why)

    def apply(self, answer: Answer) -> Answer:
        """Move to the CID of a page, and return the answer."""
        answer.expect("a page is expected", kind="page")
        known = [*map(tuple, self.epochs)]
        self.epochs = [*self.epochs, *(epoch for epoch in answer["epochs"] if tuple(epoch) not in known)]
        self.server, self.cid, self.hi = answer["server"], answer["cid"], max(self.hi, answer["head"])
        return answer

    def push(self, *changes: list[Any], groups: Sequence[Sequence[int]] = (), **fields: Any) -> Answer:
        """Push changes, and apply the reply."""
        return self.apply(self.ask(**self.frozen(*changes, groups=groups), **fields))

    def pull(self, **fields: Any) -> list[Answer]:
        """Pull to the head, and return the pages."""
        answers = [self.apply(self.ask(**fields))]
        while answers[-1]["more"]:
            answers.append(self.apply(self.ask(**fields)))
        return answers

    def rows(self, **fields: Any) -> list[list[Any]]:
        """Pull to the head, and return the rows ``[cid, change]`` of all pages."""
        return [row for answer in self.pull(**fields) for row in answer["page"]]

    def fill(self, prefix: str, **fields: Any) -> Iterator[Answer]:
        """Fill a range, and yield the answer with each part before the next one is asked for."""
        after, ended = "", False
        while not ended:
            answer = self.apply(self.ask(fill=[prefix, after], **fields))
            part = answer.get("fill")
            answer.require(part or answer["more"], "a page at the head has the next part of the filled range")
            if part:
                after, ended = part["to"], part["end"]
            yield answer
