"""The JavaScript client with a server that is hostile or broken, and with other programs."""

from __future__ import annotations

import gzip
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from js.clients import MODULE, PACKAGE, Node, NodeClient, NodeError, put
from js.replies import EPOCH, JSON, OURS, reply_to

pytestmark = pytest.mark.once


@pytest.fixture
def hostile(scripted: Any) -> Any:
    """A server whose answers a test decides."""
    return scripted


def sync(client: NodeClient, hostile: Any, **options: Any) -> Any:
    return client.call("syncDirectly", url=hostile.url, **options)


# ---------------------------------------------------------------------------------- other programs


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {"Content-Type": "text/html"}, b"<html>"),
        (204, {}, b""),
        (302, {"Location": "http://127.0.0.1:9/"}, b""),
        (401, {"WWW-Authenticate": "Basic"}, b"<html>"),
        (401, JSON, b'{"code":"LEVEL_UNAUTHORIZED","message":"no"}'),
        (401, OURS, b'{"code":"LEVEL_OTHER","message":"no"}'),
        (403, JSON, b'{"code":"LEVEL_FORBIDDEN","message":"no"}'),
        (404, JSON, b"null"),
        (407, {}, b""),
        (409, JSON, b'{"code":"LEVEL_STORE_MISMATCH","message":"no"}'),
        (429, JSON, b"7"),
        (503, OURS, b"no JSON"),
        (511, {"Content-Type": "text/html"}, b"<html>"),
    ],
)
def test_an_answer_of_another_program_is_an_unreachable_server(
    node: Node, hostile: Any, status: int, headers: dict[str, str], body: bytes
) -> None:
    here = node.client()
    here.batch(put("k", 1))
    hostile.answer = lambda _: (status, headers, body)
    with pytest.raises(NodeError, match="could not be reached") as error:
        sync(here, hostile)
    assert error.value.code == "LEVEL_TRANSPORT"
    assert error.value.status == (None if status in (302, 401, 407) else status)  # Node hides a 407
    assert here.call("pending") == 1


def test_only_the_servers_own_refusal_has_its_code(node: Node, hostile: Any) -> None:
    hostile.answer = lambda _: (401, OURS, b'{"code":"LEVEL_UNAUTHORIZED","message":"no"}')
    with pytest.raises(NodeError) as error:
        sync(node.client(), hostile)
    assert (error.value.code, error.value.status) == ("LEVEL_UNAUTHORIZED", 401)


def test_a_network_failure_is_a_transport_error(node: Node, hostile: Any) -> None:
    here = node.client()
    with pytest.raises(NodeError, match="could not be reached") as error:
        here.call("syncDirectly", url="http://127.0.0.1:9/v1/notes")
    assert error.value.code == "LEVEL_TRANSPORT"
    released = threading.Event()
    hostile.answer = lambda request: (released.wait(30), reply_to(request))[1]
    with pytest.raises(NodeError, match=r"no byte arrived for 0\.2 seconds"):
        sync(here, hostile, timeout=0.2)
    released.set()


# -------------------------------------------------------------------------------- sessions, no end


@pytest.fixture(scope="module")
def impatient(node_executable: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A process of Node whose clients accept 20 short pages instead of 1000."""
    folder = tmp_path_factory.mktemp("impatient")
    process = altered_node(node_executable, folder, "progress.js", {"MAX_SHORT_PAGES = 1000": "MAX_SHORT_PAGES = 20"})
    yield process
    process.stop()


def altered_node(executable: str, folder: Path, name: str, replacements: dict[str, str]) -> Node:
    """Start Node with a copy of the package in which one module is altered."""
    shutil.copytree(PACKAGE / "src", folder / "src")
    for file in (MODULE, PACKAGE / "package.json"):
        shutil.copy(file, folder)
    module = folder / "src" / name
    text = module.read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    module.write_text(text, encoding="utf-8")
    return Node(executable, module=folder / MODULE.name)


def rejects_all(request: dict[str, Any]) -> Any:
    keys = [change[0] for change in request["changes"]]
    cid = request["cid"]
    return reply_to(request, cid=cid, head=cid, ack=[cid, cid, None], rejected=keys) if keys else reply_to(request)


def refuses_without_values(request: dict[str, Any]) -> Any:
    keys = [change[0] for change in request["changes"]]
    cid = request["cid"]
    if not keys:
        return reply_to(request)
    return reply_to(request, cid=cid, head=cid, ack=[cid, cid, None], rejected=keys, refused=[["no", keys]])


def always_more(request: dict[str, Any]) -> Any:
    return reply_to(request, cid=request["cid"] + 1, head=2**53 - 1, more=True, epochs=[EPOCH])


def withholds_entries(request: dict[str, Any]) -> Any:
    return reply_to(request, fill=..., entries=...)


def one_entry_at_a_time(request: dict[str, Any]) -> Any:
    after = request["fill"][1]
    key = f"a{int(after[1:] or 0) + 1:09}"
    fill = {"prefix": "", "after": after, "to": key, "end": False, "count": 1}
    return reply_to(request, fill=fill, entries=[[key, 1]])


def resets(request: dict[str, Any]) -> Any:
    return reply_to(request, kind="reset", common=0, ack=None) if request["complete"] else reply_to(request)


def forks(request: dict[str, Any]) -> Any:
    return reply_to(request, kind="forked") if request["changes"] else reply_to(request)


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (rejects_all, 1 + 8),  # the first request fills
        (refuses_without_values, 1 + 1 + 8),
        (always_more, 20),
        (withholds_entries, 8),
        (one_entry_at_a_time, 20),
        (resets, 1 + 2 * 8 - 1),  # each reset fills
        (forks, 1 + 8),
    ],
)
def test_a_session_without_progress_ends(impatient: Node, hostile: Any, answer: Any, most: int) -> None:
    here = impatient.client()
    here.batch(put("k", 1))
    hostile.answer = answer
    with pytest.raises(NodeError, match="local changes are kept") as error:
        sync(here, hostile)
    assert error.value.code == "LEVEL_PROTOCOL"
    assert hostile.requests == most
    assert (here.call("pending"), here.call("get", key="k")) == (1, 1)


# ------------------------------------------------------------------------------ impossible replies

ROW = [1, ["k", 1]]
NESTED = b"[" * 100_000 + b"]" * 100_000


def assert_refused(here: NodeClient, hostile: Any, fault: str, **fields: Any) -> None:
    """Sync with a server that adds fields to a reply: the reply is refused, and nothing changes."""
    stored = here.raw()
    push = stored.get("!!push")
    hostile.answer = lambda request: reply_to(request, **fields)
    with pytest.raises(NodeError, match=r"Nothing of it was written|is invalid") as error:
        sync(here, hostile)
    assert error.value.code == "LEVEL_PROTOCOL"
    assert fault in str(error.value)
    after = here.raw()
    if push is None and "!!push" in after:  # frozen before it was sent
        stored |= {name: after[name] for name in ("!!push", "!!id")}
    assert after == stored


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"protocol": 1}, "version 1"),
        ({"protocol": 3}, "version 3"),
        ({"kind": "other"}, "unknown kind"),
        ({"kind": "toString"}, "unknown kind"),
        ({"kind": "keys", "after": "", "keys": ["k"], "end": True}, "unknown kind"),
        ({"server": None}, "server"),
        ({"server": 7}, "server"),
        ({"nonce": "0" * 32}, "another request"),
        ({"base": 1}, "another request"),
        ({"cid": -1}, '"cid"'),
        ({"cid": "1"}, '"cid"'),
        ({"cid": 1.5}, '"cid"'),
        ({"cid": 2**53, "head": 2**53}, '"cid"'),
        ({"cid": 1}, "above its head"),
        ({"head": 5}, "below its head"),
        ({"more": True}, "announces more changes"),
        ({"more": 1}, '"more"'),
        ({"ack": [0, 1, EPOCH[0]]}, "none was sent"),
        ({"rejected": ["other"]}, "not sent"),
        ({"epochs": [EPOCH, EPOCH]}, '"epochs"'),
        ({"epochs": [["e"]]}, '"epochs"'),
        ({"epochs": {}}, '"epochs"'),
        ({"page": [ROW]}, "ascend"),
        ({"page": [[2, ["k"]], ROW], "cid": 2, "head": 2}, "ascend"),
        ({"page": [ROW] * 2, "cid": 2, "head": 2}, "ascend"),
        ({"page": [[n, ["k"]] for n in range(1, 65_538)], "cid": 65_537, "head": 65_537}, '"page"'),
        ({"page": [[1, ["k", 1, 2]]], "cid": 1, "head": 1}, '"page"'),
        ({"page": [[1, []]], "cid": 1, "head": 1}, '"page"'),
        ({"page": [[1, [1]]], "cid": 1, "head": 1}, '"page"'),
        ({"page": [[1, ["!"]]], "cid": 1, "head": 1}, "is invalid"),
        ({"page": [1], "cid": 1, "head": 1}, '"page"'),
        ({"page": {}, "cid": 1, "head": 1}, '"page"'),
        ({"page": [[1, ["k", "x" * (4 << 20)]]], "cid": 1, "head": 1}, "larger"),
        ({"page": [[n, [f"k{n}", "x" * (3 << 20)]] for n in (1, 2, 3)], "cid": 3, "head": 3}, "larger"),
        ({"commits": [[1, 2]]}, '"commits"'),
        ({"commits": [[2, 1, None, None, None, []]]}, '"commits"'),
        ({"commits": [[1, 2, 7, None, None, []]]}, '"commits"'),
        ({"commits": [[1, 2, None, None, -1, []]]}, '"commits"'),
        ({"commits": [[1, 2, None, None, 1, []], [2, 3, None, None, 1, []]]}, '"commits"'),
        ({"values": [["k", 1], ["k"]]}, '"values"'),
        ({"values": [["k"]], "more": True, "cid": 1, "head": 2}, "values of its end"),
        ({"fill": {"prefix": "", "after": "", "to": "", "end": True}, "entries": []}, "not requested"),
        ({"entries": [["k", 1]]}, "no range"),
        ({"kind": "reset", "common": 1}, "above the CID"),
        ({"kind": "reset", "common": "0"}, '"common"'),
        ({"values": [["k", 1]]}, "values that were not requested"),
    ],
    ids=str,
)
def test_an_impossible_reply_is_refused_and_no_data_is_changed(
    node: Node, hostile: Any, fields: dict[str, Any], fault: str
) -> None:
    here = node.client()
    hostile.answer = reply_to
    sync(here, hostile)
    assert_refused(here, hostile, fault, **fields)
    hostile.answer = reply_to
    here.batch(put("k", 2))
    assert sync(here, hostile)["pushed"] == 1


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"ack": None}, "neither decides"),
        ({"ack": 1}, '"ack"'),
        ({"ack": [0, 0]}, '"ack"'),
        ({"ack": [1, 0, EPOCH[0]]}, '"ack"'),
        ({"ack": [0, 1, None]}, '"ack"'),
        ({"ack": [0, 2, EPOCH[0]]}, "more changes than were sent"),
        ({"ack": [0, 0, None]}, "neither accepts nor rejects"),
        ({"rejected": ["other"]}, "not sent"),
        ({"rejected": "k"}, '"rejected"'),
        ({"rejected": [1]}, '"rejected"'),
        ({"refused": [["no", ["k"]]]}, "does not reject"),
        ({"refused": [["", ["k"]]], "rejected": ["k"]}, '"refused"'),
        ({"refused": [["n" * 501, ["k"]]], "rejected": ["k"]}, '"refused"'),
        ({"refused": [["no", []]], "rejected": ["k"]}, '"refused"'),
        ({"refused": [["no"]], "rejected": ["k"]}, '"refused"'),
        ({"refused": {}, "rejected": ["k"]}, '"refused"'),
        ({"values": [["m", 1]]}, "values that were not requested"),
        ({"values": [["k", "x" * (4 << 20)]]}, "larger"),
    ],
    ids=str,
)
def test_an_impossible_decision_is_refused_and_the_change_is_kept(
    node: Node, hostile: Any, fields: dict[str, Any], fault: str
) -> None:
    here = node.client()
    hostile.answer = reply_to
    sync(here, hostile)
    here.batch(put("k", 2))
    assert_refused(here, hostile, fault, **fields)
    hostile.answer = reply_to
    assert sync(here, hostile)["pushed"] == 1


PART = {"prefix": "", "after": "", "to": "k", "end": False, "count": 1}
ENTRIES = [["k", 1]]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"kind": "reset", "common": 0}, "has no data"),
        ({"fill": 7}, '"fill"'),
        ({"fill": {**PART, "to": 7}}, '"fill"'),
        ({"fill": {**PART, "end": 0}}, '"fill"'),
        ({"fill": {**PART, "prefix": "k"}}, "not requested"),
        ({"fill": {**PART, "after": "a"}}, "not requested"),
        ({"fill": {**PART, "to": "j"}}, "before its last key"),
        ({"fill": {**PART, "to": "!"}, "entries": [["!", 1]]}, "is invalid"),
        ({"fill": {**PART, "to": "k" * 1025}}, "is invalid"),
        ({"fill": PART, "entries": []}, "holds none"),
        ({"fill": PART, "entries": [["k"]]}, '"entries"'),
        ({"fill": PART, "entries": [["k", 1], ["a", 1]]}, "ascend"),
        ({"fill": PART, "entries": [["k", 1], ["k", 1]]}, "ascend"),
        ({"fill": PART, "entries": [["\U0001f600", 1], ["\uff5e", 1]]}, "ascend"),  # the order of UTF-16
        ({"fill": PART, "entries": [["k", "x" * (4 << 20)]]}, "larger"),
        ({"fill": PART, "entries": ...}, "without its entries"),
        ({"fill": PART, "more": True, "cid": 1, "head": 2}, "values of its end"),
        ({"page": [ROW], "cid": 1, "head": 1, "fill": PART}, "changes that were not requested"),
    ],
    ids=str,
)
def test_an_impossible_part_of_a_fill_is_refused(node: Node, hostile: Any, fields: dict[str, Any], fault: str) -> None:
    here = node.client()
    assert_refused(here, hostile, fault, **{"entries": ENTRIES, **fields})


@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"x"', b"", b"{", NESTED, b'{"page":' + NESTED + b"}"])
def test_a_reply_that_is_no_object_is_refused(node: Node, hostile: Any, body: bytes) -> None:
    hostile.answer = lambda _: (200, OURS, body)
    with pytest.raises(NodeError) as error:
        sync(node.client(), hostile)
    assert error.value.code == "LEVEL_PROTOCOL"


def test_a_value_that_is_nested_too_deep_is_refused(node: Node, hostile: Any) -> None:
    def answer(request: dict[str, Any]) -> Any:
        fill = {"prefix": "", "after": "", "to": "k", "end": True, "count": 1}
        status, headers, body = reply_to(request, fill=fill, entries=[["k", 0]])
        return status, headers, body.replace(b'["k",0]', b'["k",' + NESTED + b"]")

    hostile.answer = answer
    with pytest.raises(NodeError, match="larger or deeper"):
        sync(node.client(), hostile)


# ------------------------------------------------------------------------------------------ memory

SIZE = 24 << 20


def growth(node: Node, hostile: Any, code: str) -> float:
    """Return the growth of the peak of Node's resident memory by a small response, in MiB."""

    def peak() -> float:
        status = Path(f"/proc/{node._process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    here = node.client()
    before = peak()
    with pytest.raises(NodeError) as error:
        sync(here, hostile)
    assert error.value.code == code
    return peak() - before


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is measured with /proc")
def test_a_few_kilobytes_of_gzip_cost_little_memory(node_executable: str, hostile: Any, tmp_path: Path) -> None:
    body = gzip.compress(b'{"epochs":[' + b"[]," * (SIZE // 3) + b"1]}", mtime=0)
    hostile.answer = lambda _: (200, {**OURS, "Content-Encoding": "gzip"}, body)
    node = Node(node_executable)
    assert growth(node, hostile, "LEVEL_TRANSPORT") < 150
    node.stop()
    # Control: without the limits the same response costs several hundred MiB.
    limits = {" = 20 << 20": " = 2 ** 40", " = 7_000_000": " = 2 ** 40", " = 400_000": " = 2 ** 40"}
    unlimited = altered_node(node_executable, tmp_path, "limits.js", limits)
    assert growth(unlimited, hostile, "LEVEL_PROTOCOL") > 250
    unlimited.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is measured with /proc")
def test_the_values_of_a_reply_are_parsed_one_by_one(node_executable: str, hostile: Any, tmp_path: Path) -> None:
    value = b"[" + (b"[" * 62 + b"]" * 62 + b",") * 160 + b"1]"
    rows = b",".join(b'["k%03d",%b]' % (number, value) for number in range(400))
    fill = {"prefix": "", "after": "", "to": "k399", "end": True, "count": 401}  # one too many: nothing is written

    def answer(request: dict[str, Any]) -> Any:
        status, headers, body = reply_to(request, fill=fill, entries=[["k", 0]])
        body = gzip.compress(body.replace(b'["k",0]', rows))
        return status, {**headers, "Content-Encoding": "gzip"}, body

    hostile.answer = answer
    node = Node(node_executable)
    assert growth(node, hostile, "LEVEL_PROTOCOL") < 150
    node.stop()
    # Control: with all values in memory the same 30 kB cost some 290 MiB.
    whole = altered_node(node_executable, tmp_path, "messages.js", {"return shorten(row)": "return row"})
    assert growth(whole, hostile, "LEVEL_PROTOCOL") > 180
    whole.stop()


@pytest.mark.parametrize(
    "body",
    [
        b'{"epochs":[' + b"1," * 1_000_000 + b"1]}",
        b"{" + b",".join(b'"%d":1' % number for number in range(200)) + b"}",
        b'{"page":[' + b"1," * 1_000_000 + b"1]}",
        b'{"page":[1}]',
        b'{"page":[]}[]',
        b'{"page"[]:1}',
        b'{1:{"page":[]}}',
        b'{"page":[],}',
    ],
    ids=range(8),
)
def test_a_reply_of_too_many_parts_or_of_other_than_json_is_refused(node: Node, hostile: Any, body: bytes) -> None:
    hostile.answer = lambda _: (200, OURS, body)
    with pytest.raises(NodeError, match=r"impossible: (it is larger|it is not JSON|its field)"):
        sync(node.client(), hostile)
