"""The invariants of a server and its clients, and the state that is expected of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from .configuration import BASE, Configuration
from .sides import SWEPT, UNKNOWN, ClientUnderTest, Content, InvariantError, Loss, ServerUnderTest, weigh
from .versions import Commit, Logged, Versions, check_base_values

_NEVER: Final = Logged("", "", None)


class ExpectedClient:
    """The expected state of a client: its last write of each key, after each of its commits.

    A crash may roll the client back to an earlier commit.

    Attributes:
        latest: The last write of each key, except writes that lost and were dismissed.
        count: The number of writes.
        cid: The CID at the last check.
        saved: A copy of the client, and of the expectations at that time.
        may_conflict_with_itself: True if the client may pull its own writes as those of another
            client: it was rolled back to a copy, or has been told to rebind.
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
    """Compares the visible state of the server and the clients with the recorded events.

    Attributes:
        expected: The expected state of each client.
        history: The change of each CID, including compacted ones.

    Args:
        server: The server.
        clients: The clients, by name.
        configuration: The limits of a page. With manual sync, the base values are not checked: it
            does not guarantee them.
    """

    def __init__(
        self,
        server: ServerUnderTest,
        clients: Mapping[str, ClientUnderTest],
        configuration: Configuration = BASE,
    ) -> None:
        self._server = server
        self._configuration = configuration
        self._clients = clients
        self.expected = {name: ExpectedClient() for name in clients}
        self.history: dict[int, Logged] = {}
        self._versions = Versions()
        self._checks_base_values = not configuration.manual_sync
        self._checked_losses: dict[str, set[Loss]] = {name: set() for name in clients}
        self._logged: set[tuple[str, Content]] = set()  # all changes that any log ever held
        self._history_was_lost = False

    def record_log(self, author: str | None, *, together: bool = False) -> None:
        """Record the new changes in the log.

        Args:
            author: The author of the changes; ``None`` if their contents name it.
            together: True if the changes are one commit. The changes of a push are not.
        """
        new = self._server.log(max(self.history, default=0))
        whole = Commit(min(new, default=0), max(new, default=0), sum(weigh(content) for _, content in new.values()))
        for cid, change in new.items():
            key, content = change
            commit = whole if together else Commit(cid, cid, weigh(content))
            self.history[cid] = Logged(author or (content[0] if content else UNKNOWN), key, content, commit)
            self._versions.record(cid, key, content)
            self._logged.add(change)

    def drop_lost_changes(self) -> None:
        """Forget the changes that the server has lost in a crash."""
        for cid in [cid for cid in self.history if cid > self._server.head]:
            del self.history[cid]
            self._history_was_lost = True
        self._versions.follow(self.history)

    def replace_history(self, history: Mapping[int, Logged]) -> None:
        """Replace the history: the server was restored or replaced."""
        self.history = dict(history)
        self._versions.follow(self.history)
        self._history_was_lost = True

    def check_server_wins(self, name: str, base: int, before: int) -> None:
        """Check that a push has overwritten no change that its client had not pulled.

        Args:
            name: The client.
            base: The CID of its request.
            before: The server's CID before the request.
        """
        unseen = {self.history[cid].key for cid in range(base + 1, before + 1)}
        for cid in range(before + 1, self._server.head + 1):
            if self.history[cid].key in unseen:
                raise InvariantError(
                    f"the server did not win: {name} at CID {base} overwrote what it had not seen in {cid}"
                )

    def check(self, name: str) -> None:
        """Check the invariants of a client."""
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
                raise InvariantError(
                    f"lost: {name} wrote {content} to {key}, and it is not in the dirty set, the log or the journal"
                )
        if not self._history_was_lost:
            self._check_commits(name, client.cid)
        if not self._history_was_lost and not expected.may_conflict_with_itself:
            self._check_journal(name, journal)
        if self._checks_base_values:
            self._check_base_values(name, journal)

    def _check_base_values(self, name: str, journal: list[Loss]) -> None:
        for loss in {*journal} - self._checked_losses[name]:
            self._versions.check_conflict(name, loss)
        self._checked_losses[name] = {*journal}
        if not self._history_was_lost:
            check_base_values(name, self._clients[name], self.history, lambda: self._server.log(0))

    def _check_commits(self, name: str, cid: int) -> None:
        """Check that a client has not pulled a part of a commit that fits a page."""
        if cid not in self.history:
            return
        first, last, weight = self.history[cid].commit
        options = self._configuration
        if options.change_limit or options.lost_weight < BASE.lost_weight:
            return  # a client asks for shorter pages, or applies a part of one
        fits = last - first < options.limit and weight <= options.page_weight
        rest = [left for left in self._server.log(cid) if left <= last] if cid < last and fits else []
        if rest:
            raise InvariantError(
                f"a part of a commit: {name} is at CID {cid}, but the commit {first} to {last} goes on"
            )

    def _check_journal(self, name: str, journal: list[Loss]) -> None:
        reported = Counter(
            (loss.key, loss.local) for loss in journal if loss.remote != SWEPT and loss.local is not None
        )
        twice = [change for change, times in reported.items() if times > 1]
        if twice:
            raise InvariantError(f"reported twice: {name} journaled {twice}")
        for loss in journal:
            if loss.remote != SWEPT and loss.local != loss.remote and self.history.get(loss.cid, _NEVER).author == name:
                raise InvariantError(f"self-conflict: {name} lost {loss.local} on {loss.key} to its own {loss.remote}")

    def compare(self) -> None:
        """Check that all data is equal after convergence."""
        expected = self._server.live()
        for name, client in self._clients.items():
            if client.live() != expected:
                raise InvariantError(f"divergence: {name} has {client.live()}, the server {expected}")
            epoch = client.epoch()
            if epoch is not None and epoch != self._server.epoch(self._server.head):
                raise InvariantError(f"epoch: {name} has {epoch} as the server's last epoch")
