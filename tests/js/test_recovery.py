"""The JavaScript client after faults: lost messages, crashes, servers restored from a backup."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from js.clients import Database, Node, NodeError, delete, items_of, put, python_client
from js.conftest import Server

pytestmark = pytest.mark.once


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_push_without_a_reply_is_repeated_byte_for_byte(node: Node, database: Database, lost: str) -> None:
    here = node.client()
    here.sync(database)
    here.batch(put("k", 1), put("m", 1))
    with pytest.raises(NodeError, match="was lost"):
        here.sync(database, [{"lost": lost}])
    here.batch(put("k", 2), delete("m"), put("n", 2))
    here.sync(database, [{}, {"twice": True}])
    assert sorted(map(str, database.log()[:2])) == ["['k', 1]", "['m', 1]"]
    assert here.items() == database.items() == [("k", 2), ("n", 2)]
    assert (here.call("pending"), here.call("conflicts")) == (0, [])
    requests = here.call("requests")
    pushes = [(request["seq"], request["push"]) for request in requests if request["changes"]]
    assert len(set(pushes)) == 2
    assert len({request["nonce"] for request in requests}) == len(requests)
    assert len(database.log()) == 5


def test_a_late_reply_is_refused(node: Node, database: Database) -> None:
    here = node.client()
    here.batch(put("k", 1))
    here.sync(database)
    stored = here.raw()
    with pytest.raises(NodeError) as error:
        here.sync(database, [{"old": True}])
    assert error.value.code == "LEVEL_PROTOCOL"
    assert here.raw() == stored


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ('"one"', '{"a":1,"a":2}', "a"),
        ('"one"', '[{"b":[{"a\\"":1 , "\\u0061\\"" : 2}]}]', 'a\\"'),
        ('"more"', '"more":true,"more"', "more"),
    ],
)
def test_a_reply_that_names_a_member_twice_is_refused(
    node: Node, database: Database, old: str, new: str, name: str
) -> None:
    here = node.client()
    here.sync(database)
    stored = here.raw()
    with python_client() as there:
        there.put("k", "one")
        there.sync(database)
    with pytest.raises(NodeError, match="twice") as error:
        here.sync(database, [{"replace": [old, new]}])
    assert (error.value.code, f'"{name}"' in str(error.value)) == ("LEVEL_PROTOCOL", True)
    assert here.raw() == stored
    here.sync(database, [{"replace": ['"one"', '{"a":"a","b":{"a":1},"c":[{"a":":"},{"a":2}]}']}])
    assert here.items() == [("k", {"a": "a", "b": {"a": 1}, "c": [{"a": ":"}, {"a": 2}]})]


@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_a_crash_at_any_batch_loses_nothing(node: Node, server: Server, written: bool) -> None:
    crashes = 0
    while True:
        database = server.database(f"crash-{written:d}-{crashes}")
        with python_client() as there:
            there.batch([put(f"there {n}", n) for n in range(1100)])
            there.sync(database)
        here = node.client()
        here.batch(*(put(f"here {n}", n) for n in range(1100)))
        here.call("crash", batch=crashes, written=written)
        try:
            here.sync(database)
        except NodeError as error:
            assert error.code == "CRASH"  # noqa: PT017
        else:
            break
        crashes += 1
        here.reopen()
        here.sync(database)
        assert here.items() == database.items()
        assert (here.call("pending"), here.call("conflicts")) == (0, [])
    assert crashes >= 2  # a freeze and a page: all changes fit one of each


# ----------------------------------------------------------------------------------- after a backup


class Backup:
    """A server with one database, which can be restored from a backup."""

    def __init__(self, serve: Callable[..., Server]) -> None:
        self.server = serve()
        self.database: Database = self.server.database("notes")
        self._store: Path = self.server.folder / "notes"
        self._copy: Path = self.server.folder / "copy-of-notes"

    def make(self) -> None:
        """Back the database up."""
        self.server.stop()
        shutil.copytree(self._store, self._copy)
        self._start()

    def restore(self) -> None:
        """Restore the database from the backup."""
        self.server.stop()
        shutil.rmtree(self._store)
        shutil.copytree(self._copy, self._store)
        self._start()

    def _start(self) -> None:
        self.server.start()
        self.database = self.server.database("notes")


def test_a_restored_server_is_recognised_and_dirty_changes_are_pushed(node: Node, serve: Callable[..., Server]) -> None:
    backup = Backup(serve)
    here, there = node.client(), python_client()
    with there:
        here.batch(put("old", "before"), put("kept", "before"), *(put(f"many {n}", n) for n in range(1200)))
        here.sync(backup.database)
        backup.make()
        here.batch(put("old", "after"), put("new", "after"), delete("many 7"))
        here.sync(backup.database)
        there.sync(backup.database)
        here.batch(put("kept", "dirty"), put("dirty", "dirty"))
        backup.restore()
        report = here.sync(backup.database)
        assert report["reset"]
        assert (here.call("pending"), here.call("cid")) == (0, report["cid"])
        there.sync(backup.database)
        expected = {**{f"many {n}": n for n in range(1200)}, "old": "before", "kept": "dirty", "dirty": "dirty"}
        assert dict(here.items()) == dict(items_of(there)) == dict(backup.database.items()) == expected
        assert [(one["local"], one["remote"]) for one in report["conflicts"]] == [(["new", "after"], None)]
        assert here.call("conflicts") == report["conflicts"]
        assert not here.sync(backup.database)["reset"]


def test_a_reset_continues_after_a_crash_at_any_of_its_batches(node: Node, serve: Callable[..., Server]) -> None:
    backup = Backup(serve)
    clients = [node.client() for _ in range(14)]
    for number, client in enumerate(clients):
        client.batch(*(put(f"{number} {n}", n) for n in range(100)))
        client.sync(backup.database)
    backup.make()
    clients[0].batch(*(put(f"lost {n}", n) for n in range(100)))
    for client in clients:
        client.sync(backup.database)
        client.batch(put("dirty", client.name))
    backup.restore()
    crashes = 0
    for number, client in enumerate(clients):
        client.call("crash", batch=number // 2, written=bool(number % 2))
        try:
            client.sync(backup.database)
        except NodeError as error:
            assert error.code == "CRASH"  # noqa: PT017
            crashes += 1
        client.reopen()
    assert crashes >= 8
    for client in clients:
        client.sync(backup.database)
    expected = backup.database.items()
    for client in clients:
        client.sync(backup.database)
        assert client.items() == expected
        lost = [one["local"][0] for one in client.call("conflicts") if one["remote"] is None]
        assert sorted(lost) == sorted(f"lost {n}" for n in range(100))
