"""What must hold of a server and its clients, and what is remembered beside them to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .sides import SWEPT, ClientUnderTest, Content, InvariantError, Loss, ServerUnderTest


class ExpectedClient:
    """What is remembered of a client beside it: its last write of each key, at each commit it could fall back to.

    Attributes:
        latest: Its last write of each key, but for those that lost and were dismissed.
        count: How often it wrote.
        cid: The CID at which it was seen last.
        saved: A copy of the client, and of what was remembered of it.
        is_a_stranger_to_itself: Whether it may meet its own writes as somebody else's: it was rolled back to a copy, or
            told to forget what it knows of its server.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Content] = {}
        self.count = 0
        self.cid = 0
        self.saved: tuple[Any, dict[str, Content], list[tuple[int, dict[str, Content]]]] | None = None
        self.may_conflict_with_itself = False
        self._past: list[tuple[int, dict[str, Content]]] = [(0, {})]

    def record_write(self, client: ClientUnderTest, key: str, content: Content) -> None:
        self._remember(client, {**self.latest, key: content})

    def record_dismissal(self, client: ClientUnderTest, loss: Loss) -> None:
        kept = self.latest.items() - {(loss.key, loss.local)}
        self._remember(client, dict(kept))

    def _remember(self, client: ClientUnderTest, latest: dict[str, Content]) -> None:
        self.latest = latest
        self._past.append((client.commits, latest))

    def drop_lost_commits(self, client: ClientUnderTest) -> None:
        while self._past[-1][0] > client.commits:
            self._past.pop()
        self.latest = self._past[-1][1]

    def save_copy(self, client: ClientUnderTest) -> None:
        self.saved = client.backup(), self.latest, list(self._past)

    def restore_copy(self, client: ClientUnderTest) -> None:
        assert self.saved is not None
        backup, latest, past = self.saved
        client.restore(backup)
        self._past = list(past)
        self._remember(client, latest)
        self.cid = client.cid
        self.may_conflict_with_itself = True


class Oracle:
    """Knows what happened, and says whether what is to be seen agrees with it.

    Attributes:
        ghosts: What is remembered of each client.
        history: Author and key of each CID, compacted ones too.
    """

    def __init__(self, server: ServerUnderTest, clients: Mapping[str, ClientUnderTest]) -> None:
        self._server = server
        self._clients = clients
        self.expected = {name: ExpectedClient() for name in clients}
        self.history: dict[int, tuple[str, str]] = {}
        self._logged: set[tuple[str, Content]] = set()  # whatever stood in a log, abandoned histories included
        self._history_was_lost = False

    def record_log(self, author: str | None) -> None:
        """Whatever is new in the log was written by ``author``, or where that is ``None`` by whom its content names."""
        for cid, change in self._server.log(max(self.history, default=0)).items():
            key, content = change
            self.history[cid] = author or (content[0] if content else "somebody"), key
            self._logged.add(change)

    def drop_lost_changes(self) -> None:
        """The server may have lost its last changes."""
        for cid in [cid for cid in self.history if cid > self._server.head]:
            del self.history[cid]
            self._history_was_lost = True

    def replace_history(self, history: Mapping[int, tuple[str, str]]) -> None:
        """The server was replaced by one of this history."""
        self.history = dict(history)
        self._history_was_lost = True

    def check_server_wins(self, name: str, base: int, before: int) -> None:
        """What a client at CID ``base`` has just added behind ``before`` overwrites nothing that it had not seen."""
        unseen = {self.history[cid][1] for cid in range(base + 1, before + 1)}
        for cid in range(before + 1, self._server.head + 1):
            if self.history[cid][1] in unseen:
                raise InvariantError(
                    f"the server did not win: {name} at CID {base} overwrote what it had not seen in {cid}"
                )

    def check(self, name: str) -> None:
        """What must hold of a client after whatever it did."""
        client, expected = self._clients[name], self.expected[name]
        if client.cid < expected.cid and not client.resetting:
            raise InvariantError(
                f"time ran backwards: {name} went from CID {expected.cid} to {client.cid} without a reset"
            )
        expected.cid = client.cid
        dirty, journal = client.dirty(), client.journal()
        kept = {(loss.key, loss.local) for loss in journal}
        for key, content in expected.latest.items():
            pushed = (key, content) in self._logged
            if not pushed and (key, content) not in kept and dirty.get(key, SWEPT) != content:
                raise InvariantError(f"lost: {name} wrote {content} to {key}, and it is nowhere")
        if not self._history_was_lost and not expected.may_conflict_with_itself:
            self._check_journal(name, journal)

    def _check_journal(self, name: str, journal: list[Loss]) -> None:
        told = Counter((loss.key, loss.local) for loss in journal if loss.remote != SWEPT and loss.local is not None)
        twice = [change for change, times in told.items() if times > 1]
        if twice:
            raise InvariantError(f"told twice: {name} journaled {twice}")
        for loss in journal:
            if loss.remote != SWEPT and loss.local != loss.remote and self.history.get(loss.cid, ("", ""))[0] == name:
                raise InvariantError(f"self-conflict: {name} lost {loss.local} on {loss.key} to its own {loss.remote}")

    def compare(self) -> None:
        """Once all have converged: everybody holds the same."""
        expected = self._server.live()
        for name, client in self._clients.items():
            if client.live() != expected:
                raise InvariantError(f"divergence: {name} has {client.live()}, the server {expected}")
            epoch = client.epoch()
            if epoch is not None and epoch != self._server.epoch(self._server.head):
                raise InvariantError(f"epoch: {name} takes the server's last epoch to be {epoch}")
