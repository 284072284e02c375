"""The JavaScript client with a server and Python clients, without faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from js.clients import Database, Node, NodeClient, NodeError, delete, items_of, put, python_client
from treehub_level import Level, blocking

pytestmark = pytest.mark.once

#: Keys in the order of their UTF-8 bytes. In the order of UTF-16 the last two would be swapped.
KEYS = ['"', "0", "a", "a!", "aa", "ä", "日本", "\uff5e", "\U0001f600"]
# fmt: off
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, -2.25e-7, 1e300, 2**53 - 1, "", "text", [], {},
    "é日本\U0001f600", "\\ud800", '"\\\n\t\x00\x1f\x7f\u2028', {"": [1, {"b": None}], "\U0001f600": "\uff5e"},
]
# fmt: on
#: Numbers that JavaScript does not keep: integers that it rounds, and floats that it writes as
#: integers.
INEXACT = [2**53 + 1, -(2**63), 2**64 - 1, 1.0, -0.0, {"deep": [[9007199254740993]]}]


def test_thousands_of_changes_go_both_ways(node: Node, database: Database) -> None:
    here = node.client()
    here.batch(*(put(f"here {n}", {"n": n}) for n in range(2600)))
    with python_client() as there:
        there.batch([put(f"there {n}", {"n": n}) for n in range(2600)])
        there.sync(database)
        report = here.sync(database)
        assert (report["filled"], report["pulled"], report["pushed"], report["conflicts"]) == (2600, 0, 2600, [])
        assert (here.call("pending"), here.call("cid"), report["cid"]) == (0, 5200, 5200)
        there.sync(database)
        assert here.items() == items_of(there) == database.items()
        assert len(here.items()) == 5200
        there.batch([put(f"there {n}", 0) for n in range(2600)])
        there.sync(database)
        report = here.sync(database)
        assert (report["filled"], report["pulled"]) == (0, 2600)
        assert here.items() == database.items()


def test_deletes_go_both_ways(node: Node, database: Database) -> None:
    here = node.client()
    here.batch(*(put(key, key) for key in KEYS))
    here.sync(database)
    with python_client() as there:
        there.sync(database)
        there.batch([delete(key) for key in KEYS[::2]])
        here.batch(*(delete(key) for key in KEYS[1::2]), delete("never there"))
        for _ in range(2):
            there.sync(database)
            here.sync(database)
        assert here.items() == items_of(there) == []


def test_a_second_sync_transfers_no_change(node: Node, database: Database) -> None:
    here = node.client()
    here.batch(put("k", 1))
    here.sync(database)
    stored = here.raw()
    report = here.sync(database)
    assert (report["rounds"], report["pulled"], report["pushed"]) == (1, 0, 0)
    assert here.raw() == stored


def test_calls_of_sync_may_overlap(node: Node, database: Database) -> None:
    here = node.client()
    with python_client() as there:
        there.batch([put(f"there {n}", n) for n in range(1500)])
        there.sync(database)
    here.batch(*(put(f"here {n}", n) for n in range(1500)))
    reports = here.call("syncTwice", url=database.url, token=database.token)
    assert sum(report["filled"] for report in reports) == sum(report["pushed"] for report in reports) == 1500
    assert here.items() == database.items()
    assert len(database.log()) == 3000
    assert (here.call("pending"), here.call("conflicts")) == (0, [])


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_keys_come_in_the_order_of_their_bytes(node: Node, where: str, tmp_path: Path) -> None:
    here = node.client(tmp_path / "store" if where == "disk" else None)
    here.batch(*(put(key, 0) for key in reversed(KEYS)))
    assert [key for key, _ in here.items()] == KEYS
    assert [key for key, _ in here.items(gt="a", lte="\uff5e")] == KEYS[3:8]
    assert [key for key, _ in here.items(gte="!", reverse=True, limit=2)] == KEYS[:-3:-1]
    assert here.items(lt="!z") == []
    here.close()


def test_values_are_equal_in_all_clients(node: Node, database: Database) -> None:
    here = node.client()
    here.batch(*(put(f"here {n}", value) for n, value in enumerate(VALUES)))
    with python_client() as there:
        there.batch([put(f"there {n}", value) for n, value in enumerate(VALUES)])
        there.sync(database)
        here.sync(database)
        there.sync(database)
        assert here.items() == items_of(there)
        assert [value for _, value in items_of(there)] != []
        assert sorted(map(repr, dict(here.items()).values())) == sorted(map(repr, VALUES * 2))


def test_numbers_that_javascript_cannot_represent_pass_through_unaltered(
    node: Node, database: Database, tmp_path: Path
) -> None:
    with blocking.Level(str(tmp_path / "store"), mode=Level.CLIENT) as author:
        author.batch([put(f"k{n}", value) for n, value in enumerate(INEXACT)])
    carrier = node.client(tmp_path / "store")
    carrier.sync(database)
    carrier.close()
    assert [repr(change[1]) for change in database.log()] == [*map(repr, INEXACT)]
    reader = node.client()
    reader.sync(database)
    stored = reader.raw()
    assert [stored[f"k{n}"].encode() for n in range(len(INEXACT))] == [*map(orjson.dumps, INEXACT)]


def test_a_conflict_is_won_by_the_server_and_journaled(node: Node, database: Database) -> None:
    here = node.client()
    here.sync(database)
    with python_client() as there:
        there.sync(database)
        here.batch(put("both", "here"), put("same", 1), put("gone", "here"))
        there.batch([put("both", "there"), put("same", 1), delete("gone")])
        there.sync(database)
        report = here.sync(database)
        there.sync(database)
        assert here.items() == items_of(there) == [("both", "there"), ("same", 1)]
    both, gone = report["conflicts"]
    assert (both["local"], both["remote"], both["cid"]) == (["both", "here"], ["both", "there"], 1)
    assert (gone["local"], gone["remote"], gone["key"]) == (["gone", "here"], ["gone"], "gone")
    assert (both["kind"], both["by"]) == ("conflict", "tests")
    assert 0 < both["at"] <= both["noticedAt"]
    assert here.call("conflicts") == [both, gone]
    assert here.call("pending") == 0


def test_a_conflict_of_a_python_client_with_one_in_javascript_is_journaled_there(
    node: Node, database: Database
) -> None:
    here = node.client()
    with python_client() as there:
        here.batch(put("both", "here"))
        there.batch([put("both", "there")])
        here.sync(database)
        (conflict,) = there.sync(database).conflicts
        assert (conflict.local, conflict.remote) == (("both", "there"), ("both", "here"))


def test_a_conflict_is_dismissed_once_and_its_id_is_not_reused(node: Node, database: Database) -> None:
    here = node.client()
    with python_client() as there:
        conflicts = []
        for _ in range(2):
            here.batch(put("k", "here"))
            there.batch([put("k", "there")])
            there.sync(database)
            conflicts += here.sync(database)["conflicts"]
            here.call("dismiss", conflict=conflicts[0])
    assert here.call("conflicts") == conflicts[1:]


def test_a_write_during_an_exchange_is_kept_and_pushed(node: Node, database: Database) -> None:
    here = node.client()
    here.sync(database)
    here.batch(put("k", "old"))
    here.sync(database, [{"edit": put("k", "new")}])
    assert here.items() == [("k", "new")]
    assert database.log() == [["k", "old"], ["k", "new"]]
    assert here.call("pending") == 0


def test_large_values_are_pushed_and_pulled_a_few_at_a_time(node: Node, database: Database) -> None:
    here, there = node.client(), node.client()
    here.batch(*(put(f"k{n}", "x" * 3_500_000) for n in range(5)))
    here.sync(database)
    pushes = [len(request["changes"]) for request in here.call("requests")]
    assert [count for count in pushes if count] == [2, 2, 1]
    there.sync(database)
    assert there.items() == here.items()


@pytest.mark.parametrize("key", ["", "!", "!a", " ", "\ud800", "k" * 1025, "é" * 513, None, 7])
def test_an_invalid_key_is_refused(node: Node, key: Any) -> None:
    here = node.client()
    before = here.raw()
    with pytest.raises(NodeError) as error:
        here.batch(put("fine", 1), put(key, 1))
    assert error.value.code == "LEVEL_INVALID_KEY"
    assert here.raw() == before


NESTED: Any = 0
for _ in range(65):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "value", ["x" * (4 << 20), "\\" * (6 << 20), "\ud800", {"\udc00": 1}, ["\\\ud800"], NESTED], ids=range(6)
)
def test_an_invalid_value_is_refused(node: Node, value: Any) -> None:
    here = node.client()
    before = here.raw()
    with pytest.raises(NodeError) as error:
        here.batch(put("fine", 1), put("k", value))
    assert error.value.code == "LEVEL_INVALID_VALUE"
    assert here.raw() == before


def test_an_undefined_value_is_refused(node: Node) -> None:
    with pytest.raises(NodeError) as error:
        node.client().batch({"type": "put", "key": "k"})
    assert error.value.code == "LEVEL_INVALID_VALUE"


def test_keys_and_values_of_the_maximum_size_are_accepted(node: Node, database: Database) -> None:
    here = node.client()
    here.batch(put("k" * 1024, "x" * ((4 << 20) - 2)), put("nested", NESTED[0]))
    assert here.sync(database)["pushed"] == 2


def test_a_refusal_has_the_status_of_the_server_and_changes_no_data(node: Node, database: Database) -> None:
    here = node.client()
    here.batch(put("k", 1))
    with pytest.raises(NodeError) as error:
        here.sync(replace(database, token="not a token"))
    assert error.value.status == 401
    with pytest.raises(NodeError) as error:
        here.sync(replace(database, url=database.url + "-not-there"))
    assert error.value.status == 404
    assert here.sync(database)["pushed"] == 1


def test_the_page_of_a_captive_portal_is_not_read_as_a_reply(node: Node, database: Database) -> None:
    here = node.client()
    with pytest.raises(NodeError) as error:
        here.sync(database, [{"portal": True}])
    assert error.value.code == "LEVEL_TRANSPORT"


def test_another_server_is_refused_and_no_data_is_changed(node: Node, server: Any, database: Database) -> None:
    here = node.client()
    here.batch(put("k", 1))
    here.sync(database)
    here.batch(put("k", 2))
    other = server.database(database.url.rpartition("/")[2] + "-other")
    with pytest.raises(NodeError) as error:
        here.sync(other)
    assert error.value.code == "LEVEL_STORE_MISMATCH"
    assert other.log() == []
    assert here.sync(database)["pushed"] == 1


# ------------------------------------------------------------------------------------------ on disk


def test_a_python_client_opens_a_store_of_a_javascript_client(node: Node, database: Database, tmp_path: Path) -> None:
    here = node.client(tmp_path / "store")
    here.batch(*(put(key, key) for key in KEYS))
    here.sync(database)
    here.batch(put("a", "newer"), delete("aa"))
    with pytest.raises(NodeError):
        here.sync(database, [{"lost": "reply"}])
    (frozen,) = [request for request in here.call("requests") if request["changes"]][1:]
    here.close()
    with blocking.Level(str(tmp_path / "store"), mode=Level.CLIENT) as level:
        assert (level.cid, level.pending()) == (len(KEYS), 2)
        assert sorted(dict(items_of(level))) == sorted({*KEYS} - {"aa"})
        report = level.sync(database)
        assert (report.pushed, report.conflicts) == (2, [])
        assert items_of(level) == database.items()
    assert len(database.log()) == len(KEYS) + len(frozen["changes"])


def test_a_javascript_client_opens_a_store_of_a_python_client(node: Node, database: Database, tmp_path: Path) -> None:
    class LosesReplies:
        def exchange(self, request: dict[str, Any], /) -> dict[str, Any]:
            reply = database.exchange(request)
            if request["changes"]:
                raise ConnectionError("the reply was lost")
            return reply

    with blocking.Level(str(tmp_path / "store"), mode=Level.CLIENT) as level:
        level.batch([put(key, key) for key in KEYS])
        level.sync(database)
        level.batch([put("a", "newer"), delete("aa")])
        with pytest.raises(Exception, match="lost"):
            level.sync(LosesReplies())
    here = node.client(tmp_path / "store")
    assert (here.call("cid"), here.call("pending")) == (len(KEYS), 2)
    report = here.sync(database)
    assert (report["pushed"], report["conflicts"], here.call("pending")) == (2, [], 0)
    assert here.items() == database.items()
    assert len(database.log()) == len(KEYS) + 2
    here.close()


def test_python_reads_and_empties_a_journal_of_javascript(node: Node, database: Database, tmp_path: Path) -> None:
    with python_client() as there:
        there.batch([put("k", "there"), put("m", "there")])
        there.sync(database)
    here = node.client(tmp_path / "store")
    here.batch(put("k", "here"), delete("m"))
    here.sync(database)
    here.close()
    with blocking.Level(str(tmp_path / "store"), mode=Level.CLIENT) as level:
        restored, dismissed = level.conflicts()
        assert (restored.local, restored.remote, dismissed.local) == (("k", "here"), ("k", "there"), ("m",))
        level.restore(restored)
        level.dismiss(dismissed)
        level.sync(database)
    here = node.client(tmp_path / "store")
    assert here.items() == [("k", "here"), ("m", "there")]
    assert here.call("conflicts") == []
    here.close()


@pytest.mark.parametrize("mode", [Level.NORMAL, Level.SERVER], ids=lambda mode: mode.value)
def test_a_store_of_another_mode_is_refused(node: Node, mode: Any, tmp_path: Path) -> None:
    with blocking.Level(str(tmp_path / "store"), mode=mode) as level:
        level.put("k", 1)
    with pytest.raises(NodeError) as error:
        node.client(tmp_path / "store")
    assert error.value.code == "LEVEL_MODE_MISMATCH"


def test_two_copies_of_one_store_fork_without_loss(node: Node, database: Database, tmp_path: Path) -> None:
    here = node.client(tmp_path / "store")
    here.batch(put("k", "both"))
    here.sync(database)
    here.close()
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "store").iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    copies: list[NodeClient] = [node.client(tmp_path / "store"), node.client(tmp_path / "copy")]
    for number, copy in enumerate(copies):
        copy.batch(put(f"only {number}", number))
        copy.sync(database)
    copies[0].sync(database)
    assert copies[0].items() == copies[1].items() == [("k", "both"), ("only 0", 0), ("only 1", 1)]
    assert len({copy.raw()["!!id"] for copy in copies}) == 2
    for copy in copies:
        copy.close()
