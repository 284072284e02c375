"""The rules of the server, in the order of ``docs/protocol.md``, "The server"."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from treehub_level import blocking
from treehub_level.backends.base import Batch
from treehub_level.backends.memory import MemoryBackend
from treehub_level.engine.access import Access
from treehub_level.engine.modes import Server
from treehub_level.errors import CorruptionError, StoreMismatchError
from treehub_level.replication import server as server_half
from treehub_level.replication.messages import Request
from treehub_level.replication.server import exchange_step
from treehub_level.types import Mode

from .helpers import CLIENT, NONCE, OTHER_CLIENT, PUSH_NONCE, Message, Store, a_server, ask, own_record, unchanged

PADDING = "x" * (3 << 20)


def exchange_as(server: Store, principal: str | None, **fields: Any) -> Message:
    mode = server._store.strategy
    assert isinstance(mode, Server)
    return server._store.step(exchange_step(Request.from_dict(ask(**fields)), mode, Access(principal))).to_dict()


# ---------------------------------------------------------------------------------------- 1: ids


def test_a_request_for_another_server_is_refused() -> None:
    server = a_server(a=1)
    with unchanged(server), pytest.raises(StoreMismatchError, match="rebind"):
        server.exchange(ask(server="f" * 32, changes=[["b", 2]]))


def test_a_request_that_names_this_server_is_answered() -> None:
    server = a_server(a=1)
    server_id = own_record(server, "store")["id"]
    assert server.exchange(ask(server=server_id))["server"] == server_id


def test_a_client_id_belongs_to_the_first_principal_that_pushed_with_it() -> None:
    server = a_server()
    exchange_as(server, "alice", changes=[["a", 1]])
    for principal in ("mallory", None):
        for push in ({"changes": [["a", 2]]}, {"withdraw": ["a"]}):
            with unchanged(server):
                reply = exchange_as(server, principal, cid=1, seq=2, push="2" * 32, **push)
            assert reply["kind"] == "forked"
    assert exchange_as(server, "alice", cid=1, seq=2, push="2" * 32, changes=[["a", 2]])["ack"][:2] == [1, 2]


def test_a_client_id_used_in_process_belongs_to_the_first_principal_that_pushes_with_it() -> None:
    server = a_server()
    exchange_as(server, None, changes=[["a", 1]])
    exchange_as(server, "alice", cid=1, seq=2, push="2" * 32, changes=[["a", 2]])
    assert exchange_as(server, "mallory", cid=2, seq=3, push="3" * 32, changes=[["a", 3]])["kind"] == "forked"


def test_a_pull_needs_no_client_id_of_its_own() -> None:
    server = a_server()
    exchange_as(server, "alice", changes=[["a", 1]])
    for principal in ("bob", None):
        assert exchange_as(server, principal)["page"] == [[1, ["a", 1]]]


def test_the_decision_on_a_push_is_told_under_another_principal_to_its_sender_alone() -> None:
    server = a_server()
    decided = exchange_as(server, "alice", changes=[["a", 1]])
    with unchanged(server):
        assert exchange_as(server, "alice's new token", changes=[["a", 1]])["ack"] == decided["ack"]
        assert exchange_as(server, "mallory", push="2" * 32, changes=[["a", 1]])["kind"] == "forked"


# ------------------------------------------------------------------------------ 2: repeats, forks


def test_a_repeated_push_is_answered_by_its_record_and_not_applied_again() -> None:
    server = a_server(a=1)
    push = ask(cid=1, changes=[["b", 2]])
    first = server.exchange(push)
    with unchanged(server):
        again = server.exchange(push)
    assert again["ack"] == first["ack"]
    assert again["page"] == [[2, ["b", 2]]]


def test_the_reply_to_a_repeated_push_lists_the_rejected_keys_again() -> None:
    server = a_server(a=1)
    push = ask(changes=[["a", 2], ["b", 2]])
    assert server.exchange(push)["rejected"] == ["a"]
    assert server.exchange(push)["rejected"] == ["a"]


def test_the_reply_to_a_repeat_lists_rejected_keys_even_after_compaction() -> None:
    server = a_server(a=1)
    push = ask(limit=2, changes=[["a", 2], ["b", 2]])
    server.exchange(push)
    server.put("c", 1)
    server.put("a", 3)
    server.compact_log()
    again = server.exchange(push)
    assert [cid for cid, _ in again["page"]] == [2, 3]
    assert again["rejected"] == ["a"]


def test_the_reply_to_a_repeat_claims_only_changes_that_the_log_shows() -> None:
    """An accepted change that was compacted away counts as rejected: it was superseded."""
    server = a_server(a=1)
    push = ask(changes=[["a", 2], ["b", 2], ["c", 2]])
    assert server.exchange(push)["rejected"] == ["a"]
    server.put("b", 3)
    server.compact_log()
    assert server.exchange(push)["rejected"] == ["a", "b"]


def test_a_repeat_from_far_behind_gets_its_decision() -> None:
    server = a_server()
    push = ask(limit=1, changes=[["a", 1]])
    ack = server.exchange(push)["ack"]
    server.put("b", 1)
    server.put("c", 1)
    again = server.exchange(push)
    assert (again["ack"], again["more"], again["cid"]) == (ack, True, 1)


@pytest.mark.parametrize(("seq", "push"), [(2, "3" * 32), (1, PUSH_NONCE), (1, "3" * 32)])
def test_a_push_that_is_neither_newer_nor_a_repeat_is_forked(seq: int, push: str) -> None:
    server = a_server()
    server.exchange(ask(changes=[["a", 1]]))
    server.exchange(ask(cid=1, seq=2, push="2" * 32, changes=[["a", 2]]))
    with unchanged(server):
        reply = server.exchange(ask(cid=2, seq=seq, push=push, changes=[["a", 3]]))
    assert reply["kind"] == "forked"


def test_a_request_without_changes_is_never_forked() -> None:
    server = a_server()
    server.exchange(ask(seq=5, changes=[["a", 1]]))
    assert server.exchange(ask(cid=1, seq=0))["kind"] == "page"


# -------------------------------------------------------------------------------------- 3: resets


def with_history(server: Store, **fields: Any) -> Message:
    """Return the request of a client that has the server's whole history."""
    return ask(cid=server.cid, hi=server.cid, epochs=own_record(server, "epochs"), **fields)


def test_a_client_of_the_same_history_is_not_reset() -> None:
    server = a_server(a=1, b=2)
    reply = server.exchange(with_history(server))
    assert (reply["kind"], reply["page"], reply["epochs"]) == ("page", [], [])


def test_a_client_of_another_history_is_reset_to_the_common_cid() -> None:
    server = a_server(a=1)
    backup = server.raw()
    server.put("b", 2)
    request = with_history(server, changes=[["c", 3]])
    server.restore_rows(backup)
    server.put("b", "other")
    with unchanged(server):
        reply = server.exchange(request)
    assert (reply["kind"], reply["common"], reply["ack"], reply["head"]) == ("reset", 1, None, 2)


def test_a_client_of_an_unknown_history_has_nothing_in_common() -> None:
    server = a_server(a=1, b=2)
    reply = server.exchange(ask(cid=2, hi=2, epochs=[["e" * 32, 0]]))
    assert (reply["kind"], reply["common"]) == ("reset", 0)


def test_a_client_that_has_seen_lost_changes_is_reset_even_if_its_cid_is_lower() -> None:
    """A page may be read at a head far beyond its end, which ``hi`` records."""
    server = a_server(a=1)
    backup = server.raw()
    server.put("b", 2)
    request = {**with_history(server), "cid": 1}
    server.restore_rows(backup)
    reply = server.exchange(request)
    assert (reply["kind"], reply["common"]) == ("reset", 1)


def test_a_reset_never_claims_more_in_common_than_the_client_has() -> None:
    server = a_server(a=1, b=2)
    backup = server.raw()
    server.put("c", 3)
    request = {**with_history(server), "cid": 1}
    server.restore_rows(backup)
    assert server.exchange(request)["common"] == 1


def test_a_client_without_history_is_accepted_and_gets_all_epochs() -> None:
    server = a_server(a=1)
    server.reopen()
    server.put("b", 2)
    reply = server.exchange(ask(cid=2, hi=2))
    assert reply["kind"] == "page"
    assert reply["epochs"] == own_record(server, "epochs")
    assert len(reply["epochs"]) == 2


@pytest.mark.parametrize("hi", [0, 3])
def test_a_client_without_history_that_is_ahead_of_the_server_is_reset(hi: int) -> None:
    reply = a_server(a=1, b=2).exchange(ask(cid=3, hi=hi))
    assert (reply["kind"], reply["common"]) == ("reset", 0)


def forgetful() -> Store:
    """A server that has removed the delete of "a", change 2, from its log."""
    server = a_server(a=1)
    server.delete("a")
    server.put("b", 1)
    server.compact_log(drop_deletes_before=3)
    return server


@pytest.mark.parametrize("cid", [0, 1])
def test_a_client_below_the_floor_is_reset(cid: int) -> None:
    reply = forgetful().exchange(ask(cid=cid, hi=cid, changes=[["c", 1]]))
    assert (reply["kind"], reply["common"]) == ("reset", cid)


def test_a_floor_survives_a_power_cut() -> None:
    # Otherwise a push that was refused below the floor, and dropped, could be accepted when a copy
    # arrives late. Found by T2.
    class Noted(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            floors.extend((orjson.loads(value or b"")[1], durable) for key, value in batch if key == b"!!floor")
            super().write(batch, durable=durable)

    floors: list[tuple[int, bool]] = []
    with blocking.Level("server", backend=Noted, mode=Mode.SERVER) as server:
        server.put("a", 1)
        server.delete("a")
        server.put("b", 1)
        server.compact_log(drop_deletes_before=3)
    assert [durable for floor, durable in floors if floor == 2] == [True], "the batch that raises it is not durable"


def test_a_client_at_the_floor_is_not_reset() -> None:
    assert forgetful().exchange(ask(cid=2, hi=2))["kind"] == "page"


def test_a_client_that_holds_no_data_may_pull_from_below_the_floor() -> None:
    reply = forgetful().exchange(ask(complete=[], partial=[""]))
    assert (reply["kind"], reply["page"]) == ("page", [[3, ["b", 1]]])


def test_a_client_with_a_filled_part_below_the_floor_is_reset() -> None:
    assert forgetful().exchange(ask(complete=[], fill=["", ""]))["kind"] == "page"
    assert forgetful().exchange(ask(complete=[], fill=["", "a"]))["kind"] == "reset"


def test_a_push_from_below_the_floor_is_not_judged() -> None:
    server = forgetful()
    with unchanged(server):
        reply = server.exchange(ask(complete=[], changes=[["a", 5]]))
    assert (reply["cid"], reply["more"], reply["ack"]) == (3, True, None)


def test_a_reset_holds_the_decision_on_an_earlier_push() -> None:
    server = a_server(a=1)
    push = ask(changes=[["a", 2], ["b", 2]])
    ack = server.exchange(push)["ack"]
    server.delete("c")
    server.put("d", 1)
    server.compact_log(drop_deletes_before=4)
    reply = server.exchange(push)
    assert (reply["kind"], reply["ack"], reply["rejected"]) == ("reset", ack, ["a"])


# ----------------------------------------------------------------------------- 4: pages, distance


@pytest.fixture
def short_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_half, "MAX_DISTANCE", 2)


@pytest.mark.usefixtures("short_distance")
def test_a_push_from_too_far_behind_is_not_judged() -> None:
    server = a_server(a=1, b=2, c=3)
    with unchanged(server):
        reply = server.exchange(ask(limit=2, changes=[["d", 4]]))
    assert (reply["page"], reply["cid"], reply["head"]) == ([[1, ["a", 1]], [2, ["b", 2]]], 2, 3)
    assert (reply["more"], reply["ack"], reply["rejected"]) == (True, None, [])


@pytest.mark.usefixtures("short_distance")
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_push_from_exactly_the_distance_behind_is_accepted(limit: int) -> None:
    reply = a_server(a=1, b=2).exchange(ask(limit=limit, changes=[["d", 4]]))
    assert (reply["ack"][:2], reply["more"]) == ([2, 3], limit == 1)


@pytest.mark.usefixtures("short_distance")
@pytest.mark.parametrize("limits", [(2, 65_536), (65_536, 2)], ids=["greater", "less"])
def test_a_push_that_was_refused_for_its_distance_is_refused_with_another_limit(limits: tuple[int, int]) -> None:
    """A client may be upgraded between two copies of its push."""
    server = a_server(a=1, b=2, c=3)
    for limit in limits:
        with unchanged(server):
            reply = server.exchange(ask(limit=limit, changes=[["d", 4]]))
        assert (reply["more"], reply["ack"]) == (True, None)


def test_gaps_cost_no_pages() -> None:
    server = a_server()
    for n in range(50):
        server.put("a" if n % 2 else "b", n)
    server.compact_log()
    reply = server.exchange(ask(limit=2))
    assert (reply["page"], reply["cid"], reply["more"]) == ([[49, ["b", 48]], [50, ["a", 49]]], 50, False)


@pytest.mark.usefixtures("short_distance")
def test_compaction_does_not_shorten_the_distance_of_a_push() -> None:
    """A push that was refused for its distance must be refused when a late copy arrives."""
    server = a_server(a=1, b=2, c=3)
    server.put("a", 4)
    push = ask(limit=3, changes=[["d", 4]])
    assert server.exchange(push)["ack"] is None
    server.compact_log()
    with unchanged(server):
        reply = server.exchange(push)
    assert ([cid for cid, _ in reply["page"]], reply["cid"], reply["head"]) == ([2, 3, 4], 4, 4)
    assert (reply["more"], reply["ack"]) == (True, None)


def test_a_page_ends_at_8_mib() -> None:
    server = a_server(a=PADDING, b=PADDING, c=PADDING)
    reply = server.exchange(ask())
    assert ([cid for cid, _ in reply["page"]], reply["cid"], reply["more"]) == ([1, 2], 2, True)


def test_the_whole_log_after_the_base_decides_even_if_the_page_is_cut() -> None:
    server = a_server(a=PADDING, b=PADDING, c=PADDING)
    reply = server.exchange(ask(changes=[["c", 1], ["d", 1]]))
    assert (reply["cid"], reply["more"], reply["head"]) == (2, True, 4)
    assert (reply["ack"][:2], reply["rejected"]) == ([3, 4], ["c"])
    assert server.get("c") == PADDING


# ----------------------------------------------------------------------------------- 5: decisions


def test_keys_that_others_have_changed_are_rejected_and_the_rest_is_accepted() -> None:
    server = a_server(a=1)
    reply = server.exchange(ask(changes=[["a", 2], ["b", 2], ["gone"]]))
    assert reply["rejected"] == ["a"]
    assert reply["ack"] == [1, 3, own_record(server, "epochs")[0][0]]
    assert (reply["page"], reply["cid"], reply["head"], reply["more"]) == ([[1, ["a", 1]]], 3, 3, False)
    assert server.query() == [("a", 1), ("b", 2)]
    assert server.changes(1).changes == [["b", 2], ["gone"]]


def test_a_decision_is_recorded_in_the_batch_of_the_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    server = a_server(a=1)
    batches: list[tuple[list[bytes], bool]] = []
    write = MemoryBackend.write

    def record(backend: MemoryBackend, batch: Any, *, durable: bool = False) -> None:
        batches.append(([key for key, _ in batch], durable))
        write(backend, batch, durable=durable)

    monkeypatch.setattr(MemoryBackend, "write", record)
    server.exchange(ask(cid=1, changes=[["b", 2]]))
    decision = b"!!client/" + CLIENT.encode()
    assert batches == [([b"b", b"!2", b"!", decision, b"!!commit/2"], True)]
    epoch = own_record(server, "epochs")[0][0]
    assert orjson.loads(server.raw()[decision]) == [1, PUSH_NONCE, 1, 2, epoch, None]


def test_a_push_that_is_rejected_as_a_whole_writes_nothing() -> None:
    server = a_server(a=1)
    with unchanged(server):
        reply = server.exchange(ask(changes=[["a", 2]]))
    assert (reply["ack"], reply["rejected"], reply["cid"]) == ([1, 1, None], ["a"], 1)


def test_the_first_push_after_an_opening_begins_an_epoch_and_returns_it() -> None:
    server = a_server(a=1)
    server.reopen()
    reply = server.exchange(ask(cid=1, hi=1, epochs=own_record(server, "epochs"), changes=[["b", 1]]))
    epochs = own_record(server, "epochs")
    assert epochs[1:] == reply["epochs"] == [[reply["ack"][2], 1]]


def test_the_decisions_on_two_clients_do_not_mix() -> None:
    server = a_server()
    server.exchange(ask(changes=[["a", 1]]))
    reply = server.exchange(ask(client=OTHER_CLIENT, cid=1, changes=[["a", 2]]))
    assert (reply["kind"], reply["ack"][:2]) == ("page", [1, 2])


# --------------------------------------------------------------------------------------- 6: reply


def test_a_reply_has_the_fields_of_the_protocol() -> None:
    server = a_server(k=1)
    epochs = own_record(server, "epochs")
    assert server.exchange(ask()) == {
        "protocol": 2,
        "kind": "page",
        "server": own_record(server, "store")["id"],
        "nonce": NONCE,
        "base": 0,
        "cid": 1,
        "head": 1,
        "more": False,
        "epochs": epochs,
        "ack": None,
        "rejected": [],
        "count": 1,
        "page": [[1, ["k", 1]]],
    }


def test_a_long_log_is_read_in_parts_to_decide_on_a_push(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_half, "_READ", 2)
    monkeypatch.setattr(server_half, "MAX_BYTES", 1)
    server = a_server(**{f"k{n}": n for n in range(7)})
    reply = server.exchange(ask(changes=[["k6", 0], ["k7", 0]]))
    assert (reply["cid"], reply["rejected"], reply["ack"][:2]) == (1, ["k6"], [7, 8])


def test_a_damaged_decision_is_named() -> None:
    server = a_server(a=1)
    server.memory.write([(b"!!client/" + CLIENT.encode(), b"[1,2]")])
    with unchanged(server), pytest.raises(CorruptionError, match=f"the record b'!!client/{CLIENT}' is malformed"):
        server.exchange(ask(changes=[["b", 1]]))


def test_a_damaged_change_is_named_when_a_push_is_decided() -> None:
    server = a_server(a=1)
    server.memory.write([(b"!1", b"[1]")])
    with unchanged(server), pytest.raises(CorruptionError, match="of the change 1 in the log cannot be read"):
        server.exchange(ask(changes=[["b", 1]]))
