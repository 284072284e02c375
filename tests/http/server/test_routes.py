"""The routes, for authorized requests."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import zstandard
from replication.helpers import ask as request
from served import Served, asyncio_timeout

from treehub_level import Level
from treehub_level.engine.access import Access
from treehub_level.replication.endpoint import answer

LINES = {"accept": "application/x-ndjson"}
DECODERS: dict[str | None, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    None: bytes,
}


class Forwarder:
    """A server for ``Level.sync`` that sends each exchange to the application."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def exchange(self, message: Any) -> Any:
        return (await self._client.post("/v1/notes/exchange", json=message)).json()


def lines(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.content.splitlines()]


async def test_a_database_reports_its_store_id_cid_floor_and_mode(served: Served) -> None:
    await served.levels["notes"].put("a", 1)
    response = await served.client.get("/v1/notes")
    info = await served.levels["notes"].info()
    assert response.json() == {"server": info["store"], "cid": 1, "floor": 0, "mode": "server"}


# --------------------------------------------------------------------------------------- exchange


async def test_clients_sync_until_they_are_equal(served: Served) -> None:
    server, remote = served.levels["notes"], Forwarder(served.client)
    for number in range(2500):
        await server.put(f"s/{number}", {"n": number, "😀": "ü"})
    async with (
        Level("one", backend="memory", mode=Level.CLIENT) as one,
        Level("two", backend="memory", mode=Level.CLIENT) as two,
    ):
        await one.put("c", 1)
        await two.put("c", 2)
        await one.sync(remote)
        report = await two.sync(remote)
        await one.sync(remote)
        assert [conflict.key for conflict in report.conflicts] == ["c"]
        assert await one.query() == await two.query() == await server.query()
        assert one.cid == two.cid == server.cid


async def test_an_exchange_answers_as_the_level_does(served: Served) -> None:
    await served.levels["notes"].put("a", {"x": [1, None, "é"]})
    message = request(changes=[["b", 2]])
    response = await served.client.post("/v1/notes/exchange", json=message)
    assert response.status_code == 200
    repeated, _ = answer(served.levels["notes"]._store, message, Access("root"))
    # The repeat finds the push in the log, with its commit.
    page = {"page": [[1, ["a", {"x": [1, None, "é"]}]]], "count": 1, "cid": 2}
    expected = {**repeated.to_dict(), **page}
    del expected["commits"]
    assert response.json() == expected


async def test_a_page_comes_as_ndjson_on_request(served: Served) -> None:
    for key in ("a", "b"):
        await served.levels["notes"].put(key, "line\nbreak")
    response = await served.client.post("/v1/notes/exchange", json=request(), headers=LINES)
    header, *page = lines(response)
    plain = (await served.client.post("/v1/notes/exchange", json=request())).json()
    assert page == plain.pop("page")
    assert header == plain


async def test_a_reset_and_a_fork_are_replies_with_409(served: Served) -> None:
    reset = await served.client.post("/v1/notes/exchange", json=request(cid=5, hi=5))
    assert (reset.status_code, reset.json()["kind"]) == (409, "reset")
    await served.client.post("/v1/notes/exchange", json=request(seq=2, changes=[["a", 1]]))
    forked = await served.client.post("/v1/notes/exchange", json=request(seq=1, push="2" * 32, changes=[["a", 2]]))
    assert (forked.status_code, forked.json()["kind"]) == (409, "forked")


async def test_values_and_entries_come_as_ndjson_on_request(served: Served) -> None:
    for number in range(1500):
        await served.levels["notes"].put(f"f/{number:04}", {"x": [number, "line\nbreak"]})
    asked = request(cid=1498, partial=[""], complete=[], fill=["f/", ""], read=["f/0001", "none"], limit=1200)
    plain = (await served.client.post("/v1/notes/exchange", json=asked)).json()
    assert (plain["count"], plain["value_count"], plain["fill"]["count"]) == (2, 2, 1198)
    header, *rows = lines(await served.client.post("/v1/notes/exchange", json=asked, headers=LINES))
    assert rows == [*plain.pop("page"), *plain.pop("values"), *plain.pop("entries")]
    assert header == plain


async def test_an_exchange_for_another_store_is_409(served: Served) -> None:
    response = await served.client.post("/v1/notes/exchange", json=request(server="f" * 32))
    assert (response.status_code, response.json()["code"]) == (409, "LEVEL_STORE_MISMATCH")


@pytest.mark.parametrize("path", ["/v1/notes/exchange?wait=60", "/v1/notes/changes?wait=60&since=0"])
async def test_a_long_poll_is_answered_at_a_commit(served: Served, path: str) -> None:
    method, body = ("POST", request()) if "exchange" in path else ("GET", None)
    poll = asyncio.ensure_future(served.client.request(method, path, json=body))
    async with asyncio_timeout(30):
        await served.wait_for_long_poll()
        await served.levels["notes"].put("a", 1)
        answer = (await poll).json()
    assert answer["cid"] == 1


@pytest.mark.parametrize("path", ["/v1/notes/exchange?wait=0.05", "/v1/notes/changes?wait=0.05&since=0"])
async def test_a_long_poll_ends_without_a_commit(served: Served, path: str) -> None:
    method, body = ("POST", request()) if "exchange" in path else ("GET", None)
    assert (await served.client.request(method, path, json=body)).json()["cid"] == 0


@pytest.mark.parametrize("path", ["/v1/notes/exchange?wait=60", "/v1/notes/changes?wait=60&since=0"])
async def test_a_long_poll_is_answered_when_the_server_stops(served: Served, path: str) -> None:
    method, body = ("POST", request()) if "exchange" in path else ("GET", None)
    poll = asyncio.ensure_future(served.client.request(method, path, json=body))
    async with asyncio_timeout(30):
        await served.wait_for_long_poll()
        served.hub.stop()
        response = await poll
    assert (response.status_code, response.json()["cid"]) == (200, 0)
    refused = await served.client.get("/v1/notes")
    assert (refused.status_code, refused.json()["code"]) == (503, "LEVEL_CLOSING")
    assert int(refused.headers["retry-after"]) > 0


# ------------------------------------------------------------------------------------ manual sync


async def test_a_manual_pull_is_paginated(served: Served) -> None:
    for number in range(3):
        await served.levels["notes"].put(f"k{number}", number)
    await served.levels["notes"].delete("k0")
    first = (await served.client.get("/v1/notes/changes?since=0&limit=3")).json()
    assert first == {"cid": 3, "has_more": True, "commits": [], "changes": [["k0", 0], ["k1", 1], ["k2", 2]]}
    second = (await served.client.get("/v1/notes/changes?since=3")).json()
    assert second == {"cid": 4, "has_more": False, "commits": [], "changes": [["k0"]]}


async def test_a_manual_pull_as_ndjson_has_the_cids(served: Served) -> None:
    await served.levels["notes"].put("a", 1)
    response = await served.client.get("/v1/notes/changes", headers=LINES)
    assert lines(response) == [{"cid": 1, "has_more": False, "commits": [], "count": 1}, [1, ["a", 1]]]


async def test_a_manual_push_returns_the_new_cid(served: Served) -> None:
    response = await served.client.post("/v1/notes/change", json={"cid": 0, "changes": [["a", 1], ["b"]]})
    assert response.json() == {"cid": 2}
    assert await served.levels["notes"].query() == [("a", 1)]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/notes/change", {"cid": 7, "changes": [["a", 1]]}, {"expected": 0, "got": 7}),
        ("GET", "/v1/notes/changes?since=7", None, {"expected": 0, "got": 7}),
        ("GET", "/v1/notes/watch?since=7", None, {"expected": 0, "got": 7}),
    ],
)
async def test_a_mismatched_cid_is_409_with_both_cids(
    served: Served, method: str, path: str, body: Any, expected: Any
) -> None:
    response = await served.client.request(method, path, json=body)
    answer = response.json()
    assert (response.status_code, answer.pop("code")) == (409, "LEVEL_CID_MISMATCH")
    assert answer.pop("message")
    assert answer.pop("request_id") == response.headers["x-request-id"]
    assert answer == expected


# ---------------------------------------------------------------------------------------- entries


@pytest.mark.parametrize("key", ["a", "a/b", "a//b", "ü 😀", "a?b#c", "100%", "%2F", "!x"[1:]])
async def test_a_key_of_any_characters_is_stored_read_and_deleted(served: Served, key: str) -> None:
    path = f"/v1/notes/entries/{quote(key, safe='')}"
    assert (await served.client.put(path, json={"v": [1]})).status_code == 204
    assert await served.levels["notes"].query() == [(key, {"v": [1]})]
    read = await served.client.get(path)
    assert (read.json(), read.headers["content-type"]) == ({"v": [1]}, "application/json")
    assert (await served.client.delete(path)).status_code == 204
    gone = await served.client.get(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "LEVEL_NOT_FOUND")
    assert (await served.client.delete(path)).status_code == 204


async def test_entries_are_paginated_in_key_order(served: Served) -> None:
    for key in "abcd":
        await served.levels["notes"].put(key, key.upper())
    first = (await served.client.get("/v1/notes/entries?gt=a&limit=2")).json()
    assert first == {"cid": 4, "has_more": True, "entries": [["b", "B"], ["c", "C"]]}
    second = (await served.client.get("/v1/notes/entries?gt=c")).json()
    assert second == {"cid": 4, "has_more": False, "entries": [["d", "D"]]}
    assert (await served.client.get("/v1/notes/entries?gt=c&limit=1")).json()["has_more"] is False


async def test_entries_come_as_ndjson_on_request(served: Served) -> None:
    await served.levels["notes"].put("a", 1)
    response = await served.client.get("/v1/notes/entries?prefix=a", headers=LINES)
    assert lines(response) == [{"cid": 1, "has_more": False}, ["a", 1]]


@pytest.mark.parametrize("key", ["!", "!!store", "!1", "%21%21client%2Fx", ""])
async def test_metadata_cannot_be_read_or_written_over_http(served: Served, key: str) -> None:
    await served.levels["notes"].put("a", 1)
    before = served.raw()
    for method in ("GET", "PUT", "DELETE"):
        response = await served.client.request(method, f"/v1/notes/entries/{key}", json=1)
        assert (response.status_code, response.json()["code"]) == (400, "LEVEL_INVALID_KEY")
    assert (await served.client.get("/v1/notes/entries?gte=!")).json()["entries"] == [["a", 1]]
    assert served.raw() == before


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=65537",
        "limit=x",
        "limit=1&limit=2",
        "gt=a&gte=b",
        "lt=a&lte=b",
        "gt=%ff",
        "prefx=a",
        "limit=+1",
    ],
)
async def test_an_invalid_parameter_is_refused(served: Served, query: str) -> None:
    response = await served.client.get(f"/v1/notes/entries?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "LEVEL_PROTOCOL")


@pytest.mark.parametrize("wait", ["61", "-1", "nan", "1e1", "x", ""])
async def test_an_invalid_wait_is_refused(served: Served, wait: str) -> None:
    assert (await served.client.get(f"/v1/notes/changes?wait={wait}")).status_code == 400


async def test_a_key_that_is_not_utf8_is_refused(served: Served) -> None:
    response = await served.client.put("/v1/notes/entries/%ff", json=1)
    assert (response.status_code, response.json()["code"]) == (400, "LEVEL_PROTOCOL")


# ------------------------------------------------------------------------------ form of responses


async def large(served: Served) -> bytes:
    """Return the body of a response of several chunks."""
    for number in range(300):
        await served.levels["notes"].put(f"k{number}", f"{number} " * 400)
    return (await served.client.get("/v1/notes/changes?limit=1000", headers={"accept-encoding": "identity"})).content


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, zstd;q=0.5", "zstd"),
        ("zstd;q=0, gzip;q=0.1", "gzip"),
        ("zstd;q=0.0", None),
        ("br", None),
        ("identity", None),
    ],
)
async def test_a_response_is_compressed_as_accepted(served: Served, accepted: str, coding: str | None) -> None:
    plain = await large(served)
    for path in ("/v1/notes/changes?limit=1000", "/v1/notes/entries?limit=5"):
        async with served.client.stream("GET", path, headers={"accept-encoding": accepted}) as response:
            body = b"".join([chunk async for chunk in response.aiter_raw()])
        assert response.headers.get("content-encoding") == coding
        decoded = DECODERS[coding](body)
        assert json.loads(decoded)
        assert path.startswith("/v1/notes/entries") or decoded == plain


async def test_a_small_response_has_a_length_and_is_not_compressed(served: Served) -> None:
    response = await served.client.get("/v1/notes", headers={"accept-encoding": "gzip, zstd"})
    assert "content-encoding" not in response.headers
    assert int(response.headers["content-length"]) == len(response.content)


async def test_a_page_of_large_values_ends_at_the_size_limit(served: Served) -> None:
    for number in range(4):
        await served.levels["notes"].put(f"k{number}", "x" * (3 << 20))
    assert len((await served.client.get("/v1/notes/changes")).json()["changes"]) == 2
    answer = (await served.client.get("/v1/notes/entries")).json()
    assert (len(answer["entries"]), answer["has_more"]) == (2, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2", 404),
        ("GET", "/v1/notes/", 404),
        ("GET", "/v1/notes/nothing", 404),
        ("POST", "/v1/notes", 405),
        ("OPTIONS", "/v1/notes", 405),
        ("PATCH", "/v1/notes/entries/a", 405),
    ],
)
async def test_an_unknown_path_or_method_is_refused_in_json(
    served: Served, method: str, path: str, status: int
) -> None:
    response = await served.client.request(method, path)
    assert response.status_code == status
    assert response.json()["code"] == {404: "LEVEL_ROUTE_NOT_FOUND", 405: "LEVEL_METHOD"}[status]
    assert (await served.client.head("/v1/notes")).status_code == 405


# ------------------------------------------------------------------------------------- the path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/%6eotes",
        "/v1/%6eotes/entries/a",
        "/v1/%6eotes/changes",
        "/%761/notes",
        "/v1/notes%2Fentries%2Fa",
        "/v1/notes/entries%2Fa",
        "/v1/notes/%65ntries/a",
        "/v1/notes%0a",
        "/%68ealthz",
        "/healthz%0a",
    ],
)
async def test_only_the_key_of_a_path_may_be_percent_encoded(served: Served, path: str) -> None:
    assert (await served.client.put("/v1/notes/entries/a", json=1)).status_code == 204
    assert (await served.client.get(path)).status_code == 404


async def test_a_key_may_have_encoded_and_plain_slashes(served: Served) -> None:
    assert (await served.client.put("/v1/notes/entries/%61%2F%62", json=1)).status_code == 204
    assert (await served.client.get("/v1/notes/entries/a/b")).json() == 1
    assert (await served.client.put("/v1/notes/entries/%252F", json=2)).status_code == 204
    assert (await served.client.get("/v1/notes/entries?gte=%252F&limit=1")).json()["entries"] == [["%2F", 2]]
