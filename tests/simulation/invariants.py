"""The invariants of a server and its clients, and the state that is expected of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .configuration import BASE, Configuration
from .sides import JOURNAL, SWEPT, UNKNOWN, ClientUnderTest, Content, InvariantError, Loss, ServerUnderTest, weigh
from .versions import Commit, Logged, Versions, check_base_values

_NEVER: Final = Logged("", "", None)
#: The changes of the log by CID, including compacted ones.
History = dict[int, Logged]


class _Past(NamedTuple):
    """The attributes of an `ExpectedClient` of these names, after a number of commits."""

    commits: int
    latest: dict[str, Content]
    batches: list[dict[str, Content]]
    accepted_deletes: frozenset[str]
    merged_with: dict[tuple[str, Content], Content | str]


class ExpectedClient:
    """The expected state of a client: its last write of each key, after each of its commits.

    A crash may roll the client back to an earlier commit.

    Attributes:
        latest: The last write of each key, except writes that lost and were dismissed.
        count: The number of writes.
        cid: The CID at the last check.
        saved: A copy of the client, and of the expectations at that time.
        batches: The local batches, in order.
        seen: The CID of the last change of each key that the client has had in its data.
        had: All that the client has ever had in its data.
        compared: The dirty keys that were in a complete range at some time since they are dirty.
        unfollowed: The other dirty keys that the client did not follow at some time since then.
        merged_with: The server's content with which a merger was asked, of each merged change.
        accepted_deletes: The keys whose last write is a delete that the server has accepted.
        may_conflict_with_itself: True if the client may pull its own writes as those of another
            client: it was rolled back to a copy, or has been told to rebind.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Content] = {}
        self.count = 0
        self.cid = 0
        self.saved: tuple[Any, dict[str, Content], list[_Past]] | None = None
        self.may_conflict_with_itself = False
        self.batches: list[dict[str, Content]] = []
        self.seen: dict[str, int] = {}
        self.had: set[tuple[str, Content]] = set()
        self.compared: set[str] = set()
        self.unfollowed: set[str] = set()
        self.merged_with: dict[tuple[str, Content], Content | str] = {}
        self.accepted_deletes: frozenset[str] = frozenset()
        self._written: defaultdict[str, list[Content]] = defaultdict(list)
        self._past: list[_Past] = []
        self._remember(0)

    def record_write(self, client: ClientUnderTest, key: str, content: Content) -> None:
        self._write({key: content})
        self._remember(client.commits)

    def record_batch(self, client: ClientUnderTest, changes: dict[str, Content]) -> None:
        self._write(changes)
        self.batches = [*self.batches, changes]
        self._remember(client.commits)

    def record_restoration(self, client: ClientUnderTest, loss: Loss) -> None:
        """Record that a lost change was written again, alone: it replaces that of each batch."""
        self._write({loss.key: loss.local})
        self.batches = [batch for batch in self.batches if loss.key not in batch]
        self._remember(client.commits)

    def record_dismissal(self, client: ClientUnderTest, loss: Loss) -> None:
        self.latest = dict(self.latest.items() - {(loss.key, loss.local)})
        self._remember(client.commits)

    def record_settlement(self, commit: int, loss: Loss, answer: Content | str) -> None:
        """Record the answer of a merger to a loss that is not in the journal.

        Args:
            commit: The number of the commit that has written it.
            loss: The loss.
            answer: The content that was written instead; `KEEP_SERVER` if the loss was dropped.
        """
        if isinstance(answer, str) or answer == loss.remote:
            self.batches = [
                {key: content for key, content in batch.items() if key != loss.key} for batch in self.batches
            ]
            self.latest = dict(self.latest.items() - {(loss.key, loss.local)})
        else:
            if loss.kind == "reset":  # the batch of the lost value was accepted long ago
                self.batches = [batch for batch in self.batches if batch.get(loss.key, SWEPT) != answer]
            self._write({loss.key: answer})
            self.merged_with = {**self.merged_with, (loss.key, answer): loss.remote}
        self._remember(commit)

    def forget_needless_deletes(self, client: ClientUnderTest, dirty: dict[str, Content]) -> None:
        """Forget the deletes of keys that the server did not have: a merged group drops them.

        The rest of the group is pushed without them, also if such a key is written again meanwhile.
        """
        gone = {key for key, content in self.latest.items() if content is None and key not in dirty}
        gone -= client.live().keys()
        if gone:
            self.latest = {key: content for key, content in self.latest.items() if key not in gone}
            dropped = gone - self.accepted_deletes
            self.batches = [{key: batch[key] for key in batch.keys() - dropped} for batch in self.batches]
            self._remember(client.commits)

    def forget_settled_deletes(self, client: ClientUnderTest, keys: set[str]) -> None:
        """Forget the deletes of keys that neither side has: the log does not show all of them."""
        if keys:
            self.latest = {key: content for key, content in self.latest.items() if key not in keys}
            self._remember(client.commits)

    def record_push(self, pushed: dict[str, Content]) -> None:
        """Record the changes of a push that the server has accepted."""
        self.accepted_deletes |= {key for key in pushed if pushed[key] is None and self.latest.get(key, SWEPT) is None}

    def written_after(self, key: str, content: Content) -> set[tuple[str, Content]]:
        """Return the changes of a key that were written after a content of it."""
        contents = self._written[key]
        return {(key, later) for later in contents[len(contents) - contents[::-1].index(content) :]}

    def _write(self, changes: Mapping[str, Content]) -> None:
        for key, content in changes.items():
            self._written[key].append(content)
        self.latest = {**self.latest, **changes}
        self.accepted_deletes -= changes.keys()

    def _remember(self, commits: int) -> None:
        self._past.append(_Past(commits, self.latest, self.batches, self.accepted_deletes, self.merged_with))

    def drop_lost_commits(self, client: ClientUnderTest) -> None:
        """Go back to the last commit that a crash has left.

        The client may then have compared less than before.
        """
        if self._past[-1].commits > client.commits:
            while self._past[-1].commits > client.commits:
                self._past.pop()
            _, self.latest, self.batches, self.accepted_deletes, self.merged_with = self._past[-1]
        self.compared = set()
        self.seen = {}

    def save_copy(self, client: ClientUnderTest) -> None:
        self.saved = client.backup(), self.latest, list(self._past)

    def restore_copy(self, client: ClientUnderTest) -> None:
        assert self.saved is not None
        backup, latest, past = self.saved
        client.restore(backup)
        self._past = list(past)
        self.seen = {}
        self.latest = latest
        self._remember(client.commits)
        self.cid = client.cid
        self.may_conflict_with_itself = True


class Oracle:
    """Compares the visible state of the server and the clients with the recorded events.

    Attributes:
        expected: The expected state of each client.
        history: The changes of the log, including compacted ones.

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
        self.history: History = {}
        #: The server's data at each CID of the history.
        self._data: dict[int, dict[str, Content]] = {0: {}}
        self._cids: dict[tuple[str, Content], list[int]] = {}  # of each change of the history
        self._versions = Versions()
        self._checks_base_values = not configuration.manual_sync
        self._checked_losses: dict[str, set[Loss]] = {name: set() for name in clients}
        #: The refused changes in the journal of each client that no log had held before.
        self._refused: dict[str, set[Loss]] = {name: set() for name in clients}
        self._logged: set[tuple[str, Content]] = set()  # all changes that any log ever held
        self._history_was_lost = False
        self._compacted: set[int] = set()  # the CIDs that a log lacked; a crash may bring them back

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
            self._data[cid] = _with_change(self._data.get(cid - 1, {}), key, content)
            self._cids.setdefault(change, []).append(cid)

    def record_compaction(self) -> None:
        """Record the CIDs that the log lacks: a client that pulls it now is not shown them."""
        self._compacted |= self.history.keys() - self._server.log(0).keys()

    def drop_lost_changes(self) -> None:
        """Forget the changes that the server has lost in a crash."""
        for cid in [cid for cid in self.history if cid > self._server.head]:
            del self.history[cid], self._data[cid]
            self._history_was_lost = True
        self._versions.follow(self.history)

    def replace_history(self, history: History) -> None:
        """Replace the history: the server was restored or replaced."""
        self.history = dict(history)
        self._versions.follow(self.history)
        self._history_was_lost = True
        self._data = {0: {}}
        for cid, (_, key, content, _) in sorted(history.items()):
            self._data[cid] = _with_change(self._data[cid - 1], key, content)

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

    def check_knowledge(self, name: str, before: int) -> None:
        """Check that a push has overwritten no value that its client has never had.

        It may have, if the client did not follow the key before it became dirty.

        Args:
            name: The client.
            before: The server's CID before the request.
        """
        expected = self.expected[name]
        if self._history_was_lost or expected.may_conflict_with_itself:
            return
        for cid in range(before + 1, self._server.head + 1):
            key = self.history[cid].key
            content = self._data.get(before, {}).get(key)
            if content is not None and (key, content) not in expected.had and key not in expected.unfollowed:
                raise InvariantError(f"the server did not win: {name} overwrote {content} of {key}, which it never had")

    def check_groups(self, name: str, before: int) -> None:
        """Check that a push has brought each batch of its client as a whole, or nothing of it.

        A change of the batch may have been written again since: the newer one comes with the batch.
        If its content equals that of an older push, it may have been accepted with that push.

        Args:
            name: The client.
            before: The server's CID before the request.
        """
        expected = self.expected[name]
        pushed = {self.history[cid].key: self.history[cid].content for cid in range(before + 1, self._server.head + 1)}
        if not pushed or expected.may_conflict_with_itself or self._history_was_lost:
            return
        expected.record_push(pushed)
        for batch in expected.batches:
            if any(pushed.get(key) == content for key, content in batch.items()):
                live = self._server.live()
                as_there = {key for key in batch if live.get(key) == expected.latest.get(key)}
                missing = {key for key, content in batch.items() if not _is_as_new(pushed.get(key, ()), content)}
                missing -= as_there
                missing -= {key for key in missing if self._logged & expected.written_after(key, batch[key])}
                if missing:
                    raise InvariantError(
                        f"torn: {name} wrote {batch} in one batch, and it was pushed without {missing}"
                    )

    def record_settlements(self, name: str, settled: Sequence[tuple[Loss, Content | str]], commit: int) -> None:
        """Record the answers of a client's merger while it took a reply, in the order of the calls.

        Args:
            name: The client.
            settled: The losses, each with the answer.
            commit: The number of the commit that has taken the reply.
        """
        client, expected = self._clients[name], self.expected[name]
        journal = {*client.journal()}
        is_history_known = not self._history_was_lost and not expected.may_conflict_with_itself
        for loss, answer in settled:
            assert not isinstance(loss.local, str)
            if loss.remote != SWEPT:
                expected.had.add((loss.key, None if isinstance(loss.remote, str) else loss.remote))
            if is_history_known:
                self._check_question(name, loss)
            if loss not in journal and answer != JOURNAL:
                expected.record_settlement(commit, loss, answer)

    def _check_question(self, name: str, loss: Loss) -> None:
        """Check that a merger is asked about changes of others that it has not seen yet."""
        author, *change, _ = self.history.get(loss.cid, _NEVER)
        if loss.kind == "conflict" and change == [loss.key, loss.remote]:
            if author == name:
                raise InvariantError(f"self-conflict: {name} is asked to merge {loss.local} with its own {loss.remote}")
            if self._checks_base_values:
                self._versions.check_conflict(name, loss)
        seen = self.expected[name].merged_with.get((loss.key, loss.local), SWEPT)
        if loss.kind in ("filled", "checked", "unknown") and loss.remote == seen != SWEPT:
            raise InvariantError(f"merged twice: {name} is asked to merge {loss.local} with {loss.remote} again")

    def check(self, name: str) -> None:
        """Check the invariants of a client."""
        client, expected = self._clients[name], self.expected[name]
        if client.cid < expected.cid and not client.resetting:
            raise InvariantError(
                f"time ran backwards: {name} went from CID {expected.cid} to {client.cid} without a reset"
            )
        expected.cid = client.cid
        expected.had.update(client.live().items())
        dirty, journal = client.dirty(), client.journal()
        followed, complete = tuple(client.followed()), tuple(client.complete())
        expected.compared |= {key for key in dirty if key.startswith(complete)} - expected.unfollowed
        expected.unfollowed |= {key for key in dirty if not key.startswith(followed)} - expected.compared
        expected.compared &= dirty.keys()
        expected.unfollowed &= dirty.keys()
        kept = {(loss.key, loss.local) for loss in journal}
        for key, content in expected.latest.items():
            pushed = (key, content) in self._logged or (content is None and key not in client.live())
            if not pushed and (key, content) not in kept and dirty.get(key, SWEPT) != content:
                raise InvariantError(
                    f"lost: {name} wrote {content} to {key}, and it is not in the dirty set, the log or the journal"
                )
        if self._configuration.merges:
            expected.forget_needless_deletes(client, dirty)
        present = self._data.get(self._server.head, {}).keys() | client.live().keys() | dirty.keys()
        settled = {key for key, content in expected.latest.items() if content is None and key not in present}
        expected.forget_settled_deletes(client, settled)
        if not self._history_was_lost:
            self._check_commits(name, client.cid)
        if not self._history_was_lost and not expected.may_conflict_with_itself:
            self._check_journal(name, journal)
            self._check_refused(name, journal)
            self._check_lost_groups(name, dirty, kept)
        if self._checks_base_values:
            self._check_base_values(name, journal)
        self._checked_losses[name] = {*journal}
        if client.is_consistent:
            self._check_data(name, dirty)
        if client.resetting or self._history_was_lost:
            expected.seen = {}
        else:
            self._check_order(name, dirty)

    def _check_base_values(self, name: str, journal: list[Loss]) -> None:
        for loss in {*journal} - self._checked_losses[name]:
            if loss.kind == "conflict" and self.history.get(loss.cid, _NEVER)[1:3] == (loss.key, loss.remote):
                self._versions.check_conflict(name, loss)
        if not self._history_was_lost:
            check_base_values(
                name, self._clients[name], self.history, lambda: self._server.log(0).keys() - self._compacted
            )

    def _check_refused(self, name: str, journal: list[Loss]) -> None:
        """Check that no change was accepted after its client had journaled it as refused."""
        new = {loss for loss in {*journal} - self._checked_losses[name] if loss.kind == "refused" and loss.local}
        refused = self._refused[name] & {*journal}
        for loss in refused:
            if (loss.key, loss.local) in self._logged:
                raise InvariantError(f"accepted late: {loss.local} of {loss.key}, which {name} journaled as refused")
        self._refused[name] = refused | {loss for loss in new if (loss.key, loss.local) not in self._logged}

    def _check_lost_groups(self, name: str, dirty: dict[str, Content], kept: set[tuple[str, Content]]) -> None:
        """Check that a batch of which one change has lost, without a push, has lost as a whole."""
        if self._configuration.page_weight < BASE.page_weight:
            return  # the server's values of a batch may be more than a page
        for batch in self.expected[name].batches:
            lost = [change for change in batch.items() if change in kept and change not in self._logged]
            left = [key for key, content in batch.items() if dirty.get(key) == content]
            if lost and left:
                raise InvariantError(f"torn: {name} lost {lost} of the batch {batch}, and still has {left}")

    def _check_order(self, name: str, dirty: dict[str, Content]) -> None:
        """Check that no key of a client has gone back to an earlier change."""
        live, seen = self._clients[name].live(), self.expected[name].seen
        for key in [key for key in seen if key not in live or key in dirty]:
            del seen[key]
        for key in live.keys() - dirty.keys():
            cids = self._cids.get((key, live[key]), [])
            if cids and max(cids) < seen.get(key, 0):
                raise InvariantError(f"time ran backwards: {name} has {live[key]} of CID {cids} for {key} again")
            seen[key] = min((cid for cid in cids if cid >= seen.get(key, 0)), default=seen.get(key, 0))

    def _check_data(self, name: str, dirty: dict[str, Content]) -> None:
        """Check that a client which says that it is consistent has the server's data of its CID."""
        client = self._clients[name]
        theirs, ours = self._data.get(client.cid), client.live()
        if theirs is None or self._history_was_lost:
            return
        for key in sorted((theirs.keys() | ours.keys()) - dirty.keys()):
            if theirs.get(key) != ours.get(key):
                raise InvariantError(
                    f"inconsistent: {name} at CID {client.cid} has {ours.get(key)} for {key}, not {theirs.get(key)}"
                )

    def _check_commits(self, name: str, cid: int) -> None:
        """Check that a client has not pulled a part of a commit that fits a page."""
        if cid not in self.history:
            return
        first, last, weight = self.history[cid].commit
        options = self._configuration
        if options.change_limit or options.lost_weight < BASE.lost_weight:
            return  # a client asks for shorter pages, or applies a part of one
        fits = last - first < min(options.limit, options.reads) and weight <= options.page_weight
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
            if loss.kind in ("checked", "filled") and isinstance(loss.remote, tuple) and loss.remote[0] == name:
                raise InvariantError(f"self-conflict: {name} lost {loss.local} on {loss.key} to its own {loss.remote}")
            is_pulled = loss.kind == "conflict" and loss.remote != SWEPT and loss.local != loss.remote
            author, *change, _ = self.history.get(loss.cid, _NEVER)
            if is_pulled and author == name and change == [loss.key, loss.remote]:
                raise InvariantError(f"self-conflict: {name} lost {loss.local} on {loss.key} to its own {loss.remote}")

    def compare(self) -> None:
        """Check that all data is equal after convergence."""
        for name, client in self._clients.items():
            followed = client.followed()
            live = self._server.live().items()
            expected = {key: content for key, content in live if any(map(key.startswith, followed))}
            if client.live() != expected:
                raise InvariantError(f"divergence: {name} has {client.live()}, the server {expected}")
            epoch = client.epoch()
            if epoch is not None and epoch != self._server.epoch(self._server.head):
                raise InvariantError(f"epoch: {name} has {epoch} as the server's last epoch")


def _with_change(data: dict[str, Content], key: str, content: Content) -> dict[str, Content]:
    """Return a copy of the data after a change."""
    copy = {**data, key: content}
    if content is None:
        del copy[key]
    return copy


def _is_as_new(content: Any, other: Content) -> bool:
    """Return True if a pushed content is another one, or a newer one of the same client."""
    if not content or not other:
        return content is None  # a later delete has no number
    return bool(content[1] >= other[1])
