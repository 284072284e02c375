"""The JavaScript client with a server that is hostile or broken, and with other programs."""

from __future__ import annotations

import gzip
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from scripted_server import ScriptedHandler, running

from js.clients import MODULE, PACKAGE, Node, NodeClient, NodeError, put

pytestmark = pytest.mark.once

JSON = {"Content-Type": "application/json"}
OURS = {**JSON, "Treehub-Level": "1"}
EPOCH = ["e" * 32, 0]


@pytest.fixture
def hostile() -> Iterator[Any]:
    """A server over a socket.

    Attributes:
        url: The URL of the database.
        answer: A function from a request to the status, the headers and the body of the response.
        requests: The number of requests.
    """

    class Handler(ScriptedHandler):
        def answer(self) -> None:
            request = orjson.loads(self.read_body())
            server.requests += 1
            self.respond(*server.answer(request))

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # the client has closed the connection

    with running(Server(("127.0.0.1", 0), Handler)) as server:
        server.requests = 0
        server.url += "/v1/notes"
        yield server


def sync(client: NodeClient, hostile: Any, **options: Any) -> Any:
    return client.call("syncDirectly", url=hostile.url, **options)


def reply_to(request: dict[str, Any], **fields: Any) -> tuple[int, dict[str, str], bytes]:
    """Return a reply of kind ``page`` that is correct but for the given fields."""
    cid = request["cid"]
    page = {"kind": "page", "cid": cid, "head": cid, "more": False, "epochs": [], "ack": None, "rejected": []}
    common = {"protocol": 2, "server": "s" * 32, "nonce": request["nonce"], "base": cid}
    return 200, OURS, orjson.dumps({**common, **page, "count": 0, "page": [], **fields})


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
    return reply_to(request, ack=[request["cid"]] * 2 + [None], rejected=keys)


def always_more(request: dict[str, Any]) -> Any:
    return reply_to(request, cid=request["cid"] + 1, head=2**53 - 1, more=True, epochs=[EPOCH])


def resets(request: dict[str, Any]) -> Any:
    return reply_to(request, kind="reset", common=0)


def forks(request: dict[str, Any]) -> Any:
    return reply_to(request, kind="forked")


@pytest.mark.parametrize(("answer", "most"), [(rejects_all, 8), (always_more, 20), (resets, 8), (forks, 8)])
def test_a_session_without_progress_ends(impatient: Node, hostile: Any, answer: Any, most: int) -> None:
    here = impatient.client()
    here.batch(put("k", 1))
    hostile.answer = answer
    with pytest.raises(NodeError, match="local changes are kept") as error:
        sync(here, hostile)
    assert error.value.code == "LEVEL_PROTOCOL"
    assert hostile.requests == most
    assert (here.call("pending"), here.items()) == (1, [("k", 1)])


# ------------------------------------------------------------------------------ impossible replies

VALUE = ["k", 1]
NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": 1},
        {"kind": "other"},
        {"kind": "toString"},
        {"server": None},
        {"server": 7},
        {"nonce": "0" * 32},
        {"base": 1},
        {"cid": -1},
        {"cid": "1"},
        {"cid": 1.5},
        {"cid": 2**53, "head": 2**53},
        {"head": 5},
        {"more": True},
        {"more": 1},
        {"ack": [0, 2, EPOCH[0]]},
        {"ack": [0, 1, None]},
        {"ack": [1, 0, EPOCH[0]]},
        {"ack": [0, 0]},
        {"ack": 1},
        {"rejected": ["other"]},
        {"rejected": "k"},
        {"rejected": [1]},
        {"epochs": [EPOCH, EPOCH]},
        {"epochs": [["e"]]},
        {"epochs": {}},
        {"page": [[1, VALUE]]},
        {"page": [[2, VALUE], [1, VALUE]], "cid": 2, "head": 2},
        {"page": [[1, VALUE]] * 2, "cid": 2, "head": 2},
        {"page": [[n, ["k"]] for n in range(1, 65_538)], "cid": 65_537, "head": 65_537},
        {"page": [[1, ["k", 1, 2]]], "cid": 1, "head": 1},
        {"page": [[1, []]], "cid": 1, "head": 1},
        {"page": [[1, [1]]], "cid": 1, "head": 1},
        {"page": [[1, ["!"]]], "cid": 1, "head": 1},
        {"page": [1], "cid": 1, "head": 1},
        {"page": {}, "cid": 1, "head": 1},
        {"page": [[1, ["k", "x" * (4 << 20)]]], "cid": 1, "head": 1},
        {"page": [[n, [f"k{n}", "x" * (3 << 20)]] for n in (1, 2, 3)], "cid": 3, "head": 3},
        {"kind": "keys", "after": "", "keys": ["k"], "end": True},
        {"kind": "reset", "common": 1},
        {"kind": "reset", "common": "0"},
    ],
    ids=",".join,
)
def test_an_impossible_reply_is_refused_and_no_data_is_changed(
    node: Node, hostile: Any, fields: dict[str, Any]
) -> None:
    here = node.client()
    here.batch(put("k", 2))
    hostile.answer = lambda request: reply_to(request, **fields)
    with pytest.raises(NodeError, match=r"Nothing of it was written|is invalid") as error:
        sync(here, hostile)
    assert error.value.code == "LEVEL_PROTOCOL"
    assert (here.call("cid"), here.call("pending"), here.items()) == (0, 1, [("k", 2)])
    hostile.answer = lambda request: reply_to(
        request, **({"cid": 1, "head": 1, "ack": [0, 1, EPOCH[0]], "epochs": [EPOCH]} if request["changes"] else {})
    )
    assert sync(here, hostile)["pushed"] == 1


@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"x"', b"", b"{", NESTED, b'{"page":' + NESTED + b"}"])
def test_a_reply_that_is_no_object_is_refused(node: Node, hostile: Any, body: bytes) -> None:
    hostile.answer = lambda _: (200, OURS, body)
    with pytest.raises(NodeError) as error:
        sync(node.client(), hostile)
    assert error.value.code == "LEVEL_PROTOCOL"


def test_a_value_that_is_nested_too_deep_is_refused(node: Node, hostile: Any) -> None:
    def answer(request: dict[str, Any]) -> Any:
        status, headers, body = reply_to(request, cid=1, head=1, count=1, page=[[1, ["k", 0]]])
        return status, headers, body.replace(b'["k",0]', b'["k",' + NESTED + b"]")

    hostile.answer = answer
    with pytest.raises(NodeError, match="larger or deeper"):
        sync(node.client(), hostile)


@pytest.mark.parametrize(
    ("after", "keys"),
    [
        ("", ["b", "a"]),
        ("", ["a", "a"]),
        ("b", ["a"]),
        ("", ["\U0001f600", "\uff5e"]),  # in the order of UTF-16
        ("", []),
        ("", [f"{n:05}" for n in range(1001)]),
    ],
)
def test_the_live_keys_of_a_reset_ascend(node: Node, hostile: Any, after: str, keys: list[str]) -> None:
    here = node.client()

    def answer(request: dict[str, Any]) -> Any:
        if request["keys_after"] is not None:
            return reply_to(request, kind="keys", after=after, keys=keys, end=False)
        if not request["reset"]:
            return reply_to(request, kind="reset", common=0)
        return reply_to(request, cid=1, head=1, page=[[1, ["z", 1]]], count=1, epochs=[EPOCH])

    hostile.answer = answer
    with pytest.raises(NodeError) as error:
        sync(here, hostile)
    assert error.value.code == "LEVEL_PROTOCOL"
    assert here.items() == [("z", 1)]


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
    body = gzip.compress(b"[" + b"[]," * (SIZE // 3) + b"1]", mtime=0)
    hostile.answer = lambda _: (200, {**OURS, "Content-Encoding": "gzip"}, body)
    node = Node(node_executable)
    assert growth(node, hostile, "LEVEL_TRANSPORT") < 150
    node.stop()
    # Control: without the limits the same response costs several hundred MiB.
    limits = {" = 20 << 20": " = 2 ** 40", " = 7_000_000": " = 2 ** 40"}
    unlimited = altered_node(node_executable, tmp_path, "messages.js", limits)
    assert growth(unlimited, hostile, "LEVEL_PROTOCOL") > 250
    unlimited.stop()
