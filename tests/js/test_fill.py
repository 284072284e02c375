"""Fills, resets and refusals of the JavaScript client, with a server whose replies are scripted.

The replies are written by hand from ``docs/protocol.md``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from js.clients import Node, NodeClient, NodeError, delete, put
from js.replies import EPOCH, reply_to

pytestmark = pytest.mark.once

OTHER_EPOCH = ["f" * 32, 5]
#: The time of a commit of the server, in milliseconds since 1970.
AT = 1_700_000_000_000


class Session:
    """Sessions of one client with a server that gives scripted replies, one for each request.

    After the last reply, the server answers as an empty one does, at the client's CID.
    """

    def __init__(self, node: Node, scripted: Any) -> None:
        self.client: NodeClient = node.client()
        self.requests: list[dict[str, Any]] = []
        self._scripted = scripted

    def sync(self, *replies: dict[str, Any] | None) -> dict[str, Any]:
        """Synchronise with the replies; ``None`` for a reply that is lost."""
        pending = iter(replies)

        def answer(request: dict[str, Any]) -> Any:
            self.requests.append(request)
            fields = next(pending, {})
            return (500, {}, b"") if fields is None else reply_to(request, **fields)

        self._scripted.answer = answer
        report: dict[str, Any] = self.client.call("syncDirectly", url=self._scripted.url)
        assert next(pending, "none") == "none"
        return report

    def interrupted_sync(self, *replies: dict[str, Any]) -> None:
        """Synchronise, and lose the connection after the replies."""
        with pytest.raises(NodeError) as error:
            self.sync(*replies, None)
        assert error.value.code == "LEVEL_TRANSPORT"

    def wanted(self) -> list[tuple[list[str], list[str], Any]]:
        """The ranges in the requests: ``complete``, ``partial`` and ``fill``."""
        return [(request["complete"], request["partial"], request["fill"]) for request in self.requests]

    def pushes(self) -> list[Any]:
        """The changes in the requests."""
        return [request["changes"] for request in self.requests]

    def following(self) -> Any:
        """The record of the progress of a fill; ``None`` if there is none."""
        record = self.client.raw().get("!!follow")
        return None if record is None else json.loads(record)

    def journal(self) -> list[tuple[str, Any, Any, int]]:
        """The kind, both changes and the CID of each conflict."""
        conflicts = self.client.call("conflicts")
        return [(one["kind"], one["local"], one["remote"], one["cid"]) for one in conflicts]


@pytest.fixture
def session(node: Node, scripted: Any) -> Session:
    return Session(node, scripted)


def at_head(cid: int, rows: Sequence[Any] = (), **fields: Any) -> dict[str, Any]:
    """A page that reaches the server's head."""
    rows = list(rows)
    return {"cid": cid, "head": cid, "epochs": [EPOCH], "page": rows, **fields}


def part(cid: int, after: str, entries: dict[str, Any], *, end: bool, **fields: Any) -> dict[str, Any]:
    """A page with a part of the fill."""
    rows = [[key, value] for key, value in entries.items()]
    fill = {"prefix": "", "after": after, "to": max(entries, default=after), "end": end, "count": len(rows)}
    return at_head(cid, fill=fill, entries=rows, **fields)


def reset(common: int) -> dict[str, Any]:
    """A reset that does not decide on the push."""
    return {"kind": "reset", "common": common, "ack": None}


# ------------------------------------------------------------------------------------------ parts


def test_a_new_client_is_filled_part_by_part_and_pulls_the_log_of_the_filled_part(session: Session) -> None:
    report = session.sync(
        part(7, "", {"a": 1, "b": 1}, end=False),
        part(9, "b", {"d": 1}, end=True, page=[[8, ["a"]], [9, ["b", 2]]]),
    )
    assert (report["filled"], report["pulled"], report["cid"], report["rounds"]) == (3, 2, 9, 2)
    assert session.client.items() == [("b", 2), ("d", 1)]
    assert session.wanted() == [([], [], ["", ""]), ([], [], ["", "b"])]
    assert [request["cid"] for request in session.requests] == [0, 7]
    assert session.following() is None
    session.sync()
    assert session.wanted()[-1] == ([""], [], None)
    assert all(request["push"] is None and request["changes"] == [] for request in session.requests)
    assert len({request["nonce"] for request in session.requests}) == 3


def test_a_fill_continues_after_its_last_part(session: Session) -> None:
    session.interrupted_sync(part(7, "", {"a": 1, "b": 1}, end=False))
    assert session.following() == {
        "ranges": [["", "unchecked"]],
        "fill": ["", "b"],
        "resetting": False,
        "evicting": False,
    }
    session.client.reopen()
    session.sync(part(7, "b", {"c": 1}, end=True))
    assert dict(session.client.items()) == {"a": 1, "b": 1, "c": 1}
    assert session.wanted()[-1] == ([], [], ["", "b"])


def test_entries_are_stored_as_they_were_written(node: Node, scripted: Any) -> None:
    here = node.client()

    def answer(request: dict[str, Any]) -> Any:
        status, headers, body = reply_to(request, **part(1, "", {"k": 0, "m": 0}, end=True))
        return status, headers, body.replace(b'["k",0]', b'[ "k" , 9007199254740993 ]').replace(b'"m",0', b'"m",1.0')

    scripted.answer = answer
    here.call("syncDirectly", url=scripted.url)
    assert {key: text for key, text in here.raw().items() if key >= '"'} == {"k": "9007199254740993", "m": "1.0"}


def test_an_entry_is_a_conflict_for_a_dirty_change_of_a_new_client(session: Session) -> None:
    session.client.batch(put("both", "here"), put("same", 1), put("only", "here"), delete("gone"))
    report = session.sync(part(4, "", {"both": "there", "gone": "there", "same": 1}, end=True))
    assert session.pushes() == [[], [["only", "here"]]]
    assert [(one["kind"], one["local"], one["remote"]) for one in report["conflicts"]] == [
        ("conflict", ["both", "here"], ["both", "there"]),
        ("conflict", ["gone"], ["gone", "there"]),
    ]
    assert report["conflicts"] == session.client.call("conflicts")
    assert report["conflicts"][0]["noticedAt"] > AT
    assert dict(session.client.items()) == {"both": "there", "gone": "there", "same": 1, "only": "here"}
    assert session.client.call("pending") == 0


def test_changes_of_the_filled_part_are_pushed_between_parts_and_others_wait(session: Session) -> None:
    session.interrupted_sync(part(5, "", {"a": 1, "b": 1}, end=False))
    session.client.batch(put("a", 2), put("c", 2))
    pushed = at_head(6, [[6, ["a", 2]]], ack=[5, 6, EPOCH[0]])
    session.requests.clear()
    session.sync(pushed, part(6, "b", {"d": 1}, end=True))
    assert session.pushes() == [[["a", 2]], [], [["c", 2]]]
    assert session.requests[0]["fill"] == ["", "b"]
    assert session.client.call("conflicts") == []
    assert dict(session.client.items()) == {"a": 2, "b": 1, "c": 2, "d": 1}


def test_pushes_and_parts_take_turns(session: Session) -> None:
    session.interrupted_sync(part(5, "", {"a": 1, "b": 1}, end=False))
    session.client.batch(put("a", 2))
    session.requests.clear()
    # The push is undecided for its distance, and would be frozen again at once.
    undecided = {"cid": 6, "head": 7, "more": True, "epochs": [EPOCH], "ack": None}
    session.sync(undecided, part(7, "b", {}, end=True))
    assert session.pushes() == [[["a", 2]], [], [["a", 2]]]


def test_a_push_of_an_earlier_version_at_cid_0_heals_by_values(session: Session) -> None:
    session.client.batch(put("k", "here"), put("m", "here"))
    push = '{"seq":1,"nonce":"%s","changes":[["k","here"],["m","here"]]}' % ("a" * 32)
    session.client.write_raw({"!!push": push, "!!id": '["%s",1]' % ("b" * 32)})
    decided: dict[str, Any] = {"ack": [4, 5, EPOCH[0]], "rejected": ["k"], "values": [["k", "there"]]}
    session.sync(at_head(5, **decided), part(5, "", {"k": "there", "m": "here"}, end=True))
    assert session.requests[0]["push"] == "a" * 32
    assert session.journal() == [("conflict", ["k", "here"], ["k", "there"], 5)]
    assert session.client.items() == [("k", "there"), ("m", "here")]
    assert session.client.call("pending") == 0


def test_more_local_keys_than_one_batch_compares_are_removed_in_steps(session: Session) -> None:
    session.sync(part(5, "", {f"k{n}": "x" * 3_000_000 for n in range(2)}, end=True))
    session.sync(at_head(10, [[6 + n, [f"m{n}", "x" * 3_000_000]] for n in range(2)]))
    session.client.batch(put("n", "x" * 3_000_000), put("o", "dirty"))
    session.sync()
    session.requests.clear()
    session.sync(reset(0), part(1, "", {"z": 1}, end=True))
    assert [request["fill"] for request in session.requests] == [None, ["", ""], ["", "m0"]]
    assert [kind for kind, *_ in session.journal()] == ["reset"] * 6
    assert dict(session.client.items()) == {}


# ---------------------------------------------------------------------------------------- resets


def test_a_reset_without_dirty_changes_fills_without_the_log(session: Session) -> None:
    session.sync(part(9, "", {"a": 1, "b": 1, "c": 1}, end=True))
    session.requests.clear()
    report = session.sync(reset(5), part(7, "", {"a": 2, "d": 1}, end=True))
    assert report["reset"]
    assert session.wanted() == [([""], [], None), ([], [], ["", ""])]
    assert [(request["cid"], request["hi"]) for request in session.requests] == [(9, 9), (5, 5)]
    assert session.journal() == [("reset", ["b", 1], None, 7), ("reset", ["c", 1], None, 7)]
    assert dict(session.client.items()) == {"a": 2, "d": 1}


def test_a_reset_with_dirty_changes_compares_them_with_the_log(session: Session) -> None:
    session.sync(part(9, "", {"early": 1, "late": 1, "lost": 1}, end=True))
    session.client.batch(put("early", 2), put("late", 2))
    session.requests.clear()
    session.sync(
        reset(5),
        {"cid": 6, "head": 7, "more": True, "epochs": [EPOCH, OTHER_EPOCH], "page": [[6, ["late", 3]]], "count": 1},
        part(7, "", {"early": 1, "late": 3}, end=True, epochs=[]),
    )
    assert session.wanted() == [([""], [], None), ([], [""], ["", ""]), ([], [""], ["", ""]), ([""], [], None)]
    assert session.journal() == [("conflict", ["late", 2], ["late", 3], 6), ("reset", ["lost", 1], None, 7)]
    assert session.pushes() == [[["early", 2], ["late", 2]], [], [], [["early", 2]]]
    assert dict(session.client.items()) == {"early": 2, "late": 3}


def test_a_write_during_a_reset_does_not_lose_to_the_value_that_it_was_made_with(session: Session) -> None:
    session.sync(part(9, "", {"a": 1, "known": 1, "other": 1, "unknown": 1}, end=True))
    session.interrupted_sync(reset(5), part(6, "", {"a": 1}, end=False))
    session.client.batch(put("known", 2), put("unknown", 2), put("new", 2))
    session.client.batch(put("known", 3))
    session.sync(part(6, "a", {"known": 1, "new": 1, "other": 1, "unknown": "there"}, end=True))
    assert session.journal() == [
        ("conflict", ["new", 2], ["new", 1], 6),
        ("conflict", ["unknown", 2], ["unknown", "there"], 6),
    ]
    assert session.pushes()[-1] == [["known", 3]]
    assert [key for key in session.client.raw() if key.startswith("!!base/")] == []


def test_only_the_base_values_of_uncompared_changes_outlive_another_reset(session: Session) -> None:
    session.sync(part(9, "", {"k": 1, "m": 1}, end=True))
    session.interrupted_sync(reset(5), part(6, "", {"j": 1}, end=False))
    session.client.batch(put("k", 2), put("m", 2))
    assert session.client.raw()["!!base/k"] == session.client.raw()["!!base/m"] == "[1,1]"
    row = at_head(7, fill={"prefix": "", "after": "j", "to": "k", "end": False, "count": 1}, entries=[["k", 1]])
    session.interrupted_sync(row, reset(2))
    assert json.loads(session.client.raw()["!!bases"]) == {"generation": 2, "kept": False}
    bases = {key: text for key, text in session.client.raw().items() if key.startswith("!!base/")}
    assert bases == {"!!base/k": "[1,1]", "!!base/m": "[2,1]"}
    session.sync(part(6, "", {"j": 1, "k": 3, "m": 1}, end=True))
    assert session.journal() == []  # the log decides on "k"
    assert session.pushes()[-1] == [["k", 2], ["m", 2]]


def test_a_change_beyond_the_filled_part_is_not_pushed(session: Session) -> None:
    session.interrupted_sync(part(9, "", {"a": 1}, end=False))
    session.client.batch(put("a", 2), put("b", 2))
    session.requests.clear()
    session.interrupted_sync()
    assert session.pushes() == [[["a", 2]]]


def test_a_change_of_a_key_that_a_reset_has_not_filled_yet_is_compared_with_the_fill(session: Session) -> None:
    session.interrupted_sync(part(9, "", {"a": 1}, end=False))
    session.client.batch(put("z", 1))
    session.interrupted_sync(reset(5))
    session.client.batch(put("a", 2), put("b", 2))
    marks = [key for key in session.client.raw() if key.startswith("!!uncompared/")]
    assert marks == ["!!uncompared/a", "!!uncompared/b", "!!uncompared/z"]
    session.requests.clear()
    session.sync(part(6, "", {"a": 1, "b": 1}, end=True))
    # The client had the value of "a", and never the one of "b".
    assert session.journal() == [("conflict", ["b", 2], ["b", 1], 6)]
    assert session.pushes()[-1] == [["a", 2], ["z", 1]]


def test_a_reset_in_the_middle_of_a_fill_remembers_the_keys_that_were_not_compared(session: Session) -> None:
    session.interrupted_sync(part(9, "", {"a": 1}, end=False))
    session.client.batch(put("a", 2), put("b", 2), put("c", 2), put("d", 2))
    session.interrupted_sync(reset(5), at_head(6, [[6, ["c", 3]]], fill=..., entries=...))
    uncompared = [key for key in session.client.raw() if key.startswith("!!uncompared/")]
    assert uncompared == ["!!uncompared/b", "!!uncompared/d"]
    assert session.following()["ranges"] == [["", "checked"]]
    session.requests.clear()
    session.sync(part(6, "", {"a": 0, "b": 1, "c": 3}, end=True))
    # The log decides on "a", and "b" was compared with nothing. The server has no "d".
    assert session.journal() == [("conflict", ["c", 2], ["c", 3], 6), ("conflict", ["b", 2], ["b", 1], 6)]
    assert session.pushes() == [[], [["a", 2], ["d", 2]]]
    assert [key for key in session.client.raw() if key.startswith("!!uncompared/")] == []


@pytest.mark.parametrize(("cid", "phase", "reached"), [(3, "A", 5), (8, "A", 8), (8, "B", 8)])
def test_a_reset_of_an_earlier_version_becomes_a_fill(session: Session, cid: int, phase: str, reached: int) -> None:
    session.sync(part(9, "", {"a": 1, "b": 1}, end=True))
    session.client.batch(put("a", 2))
    session.client.write_raw({"!": str(cid), "!!reset": json.dumps({"common": 5, "phase": phase, "cursor": "a"})})
    session.client.reopen()
    assert session.client.call("cid") == reached
    assert "!!reset" not in session.client.raw()
    assert session.following() == {"ranges": [["", "checked"]], "fill": None, "resetting": True, "evicting": False}
    session.requests.clear()
    session.sync(part(9, "", {"a": 1, "c": 1}, end=True))
    assert session.wanted()[0] == ([], [""], ["", ""])
    assert session.journal() == [("reset", ["b", 1], None, 9)]
    assert session.pushes() == [[], [["a", 2]]]


def test_a_store_that_follows_other_ranges_is_refused(session: Session) -> None:
    record = {"ranges": [["a/", "complete"]], "fill": None, "resetting": False, "evicting": False}
    session.client.write_raw({"!!follow": json.dumps(record)})
    with pytest.raises(NodeError, match=r'\["a/"\]') as error:
        session.client.reopen()
    assert error.value.code == "LEVEL_STATE"


# -------------------------------------------------------------------------------------- refusals


def refusing(cid: int, keys: list[str], values: list[Any], **fields: Any) -> dict[str, Any]:
    """A page in which a rule refuses all changes."""
    decision = {"ack": [cid, cid, None], "rejected": keys, "refused": [["too long", keys]]}
    return at_head(cid, values=values, **{**decision, **fields})


def test_a_refused_change_is_journaled_with_its_reason_and_replaced(session: Session) -> None:
    session.sync(part(5, "", {"k": 1, "m": 1}, end=True))
    session.client.batch(put("k", 2), put("l", 2), delete("m"))
    report = session.sync(refusing(5, ["k", "l", "m"], [["k", 1], ["l"], ["m", 1]]))
    assert (report["rejected"], report["refused"]) == ([], ["k", "l", "m"])
    assert all(conflict["isRead"] for conflict in report["conflicts"])
    assert [(one["kind"], one["reason"], one["local"], one["remote"]) for one in report["conflicts"]] == [
        ("refused", "too long", ["k", 2], ["k", 1]),
        ("refused", "too long", ["l", 2], ["l"]),
        ("refused", "too long", ["m"], ["m", 1]),
    ]
    assert session.client.items() == [("k", 1), ("m", 1)]
    assert (session.client.call("pending"), report["rounds"]) == (0, 1)


def test_a_refusal_before_the_head_waits_for_the_value(session: Session) -> None:
    session.sync(part(5, "", {"k": 1}, end=True))
    session.client.batch(put("k", 2))
    behind = refusing(5, ["k"], [], more=True, head=6, page=[[6, ["m", 1]]], count=1) | {"cid": 6, "head": 7}
    session.interrupted_sync(behind)
    lost = session.client.raw()["!!lost/k"]
    assert lost == '{"kind":"refused","reason":"too long","local":["k",2]}'
    assert session.client.items() == [("k", 2), ("m", 1)]
    session.client.reopen()
    session.requests.clear()
    session.sync(at_head(7, [[7, ["k", 3]]], values=[["k", 3]]))
    assert [(request["read"], request["changes"]) for request in session.requests] == [(["k"], [])]
    assert session.journal() == [("refused", ["k", 2], ["k", 3], 7)]
    assert "!!lost/k" not in session.client.raw()


def test_a_change_that_was_rewritten_since_is_judged_again(session: Session) -> None:
    session.sync(part(5, "", {"k": 1}, end=True))
    session.client.batch(put("k", 2))
    behind = refusing(5, ["k"], [], more=True, page=[[6, ["m", 1]]], count=1) | {"cid": 6, "head": 7}
    session.interrupted_sync(behind)
    session.client.batch(put("k", 3))
    session.requests.clear()
    session.sync(at_head(7, ack=[6, 7, EPOCH[0]]))
    assert session.pushes()[0] == [["k", 3]]
    assert "read" not in session.requests[0]
    assert (session.journal(), session.client.items()) == ([], [("k", 3), ("m", 1)])
    assert [key for key in session.client.raw() if key.startswith("!!lost/")] == []


def test_a_rejected_change_loses_to_the_pulled_one_with_its_author(session: Session) -> None:
    session.sync(part(5, "", {"k": 1}, end=True))
    session.client.batch(put("k", 2))
    commits = [[1, 5, None, None, None, []], [6, 7, "c" * 32, "ada", AT, [[6, 7]]]]
    rows = [[6, ["k", 3]], [7, ["m", 3]]]
    decision = {"ack": [7, 7, None], "rejected": ["k"], "values": [["k", 3]]}
    report = session.sync(at_head(7, rows, commits=commits[1:], **decision))
    (conflict,) = report["conflicts"]
    assert {name: conflict[name] for name in ("kind", "by", "at", "cid")} == {
        "kind": "conflict",
        "by": "ada",
        "at": AT,
        "cid": 6,
    }
    stored = [text for key, text in session.client.raw().items() if key.startswith("!!conflict/")]
    assert not conflict["isRead"]
    assert [*orjson.loads(stored[0])] == ["key", "local", "remote", "cid", "kind", "by", "at", "noticed_at"]


def test_a_group_that_a_python_client_has_frozen_is_sent_and_loses_as_a_whole(session: Session) -> None:
    session.sync(part(5, "", {"a": 1, "b": 1, "c": 1}, end=True))
    session.client.batch(put("a", 2), put("b", 2), put("c", 2))
    push = '{"seq":1,"nonce":"%s","changes":[["a",2],["b",2],["c",2]],"groups":[[0,2]],"last_group":1}' % ("a" * 32)
    records = {"!!push": push, "!!id": '["%s",1]' % ("b" * 32), "!!group/1": '["a","b"]'}
    session.client.write_raw(records)
    session.client.reopen()
    assert "!!group/1" not in session.client.raw()
    decision = {"ack": [6, 7, EPOCH[0]], "rejected": ["a", "b"], "values": [["a", 3], ["b", 1]]}
    session.sync(at_head(7, [[6, ["a", 3]], [7, ["c", 2]]], **decision))
    assert session.requests[1]["groups"] == [[0, 2]]
    assert session.journal() == [("conflict", ["a", 2], ["a", 3], 6), ("conflict", ["b", 2], ["b", 1], 7)]
    assert session.client.items() == [("a", 3), ("b", 1), ("c", 2)]
