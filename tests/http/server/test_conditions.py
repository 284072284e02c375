"""Conditional requests, batches, and entries in reverse order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from served import Served

from treehub_level import Delete, Put, Refused
from treehub_level.http.server import conditions

ENTRY = "/v1/notes/entries/a"


async def etag_of(served: Served, path: str = ENTRY, **headers: str) -> str:
    """The entity tag of an entry."""
    response = await served.client.get(path, headers=headers)
    tag: str = response.headers["etag"]
    return tag


async def put(served: Served, value: Any, **headers: str) -> int:
    """Put a value under a condition, and return the status."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return (await served.client.put(ENTRY, json=value, headers=named)).status_code


# --------------------------------------------------------------------------------------------- ETag


async def test_an_entry_has_a_strong_tag_of_its_value(served: Served) -> None:
    level = served.levels["notes"]
    await level.put("a", {"x": 1})
    tag = await etag_of(served)
    assert tag.startswith('"')
    assert tag == await etag_of(served)
    await level.put("a", {"x": 2})
    assert await etag_of(served) != tag
    await level.put("a", {"x": 1})
    assert await etag_of(served) == tag


async def test_a_client_that_has_the_value_gets_304_without_a_body(served: Served) -> None:
    await served.levels["notes"].put("a", 1)
    tag = await etag_of(served)
    for named in (tag, f"W/{tag}", f'"other", {tag}', "*", f'"x",, ,{tag} '):
        response = await served.client.get(ENTRY, headers={"if-none-match": named})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in response.headers
    for named in ('"other"', '""', 'W/"other"'):
        assert (await served.client.get(ENTRY, headers={"if-none-match": named})).json() == 1
    assert (await served.client.get("/v1/notes/entries/b", headers={"if-none-match": "*"})).status_code == 404


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_compressed_value_has_a_tag_of_its_own_that_names_the_same_value(served: Served, coding: str) -> None:
    await served.levels["notes"].put("a", "x" * 5000)
    plain, coded = [await etag_of(served, **{"accept-encoding": name}) for name in ("identity", coding)]
    assert plain != coded
    for tag in (plain, coded):
        assert (await served.client.get(ENTRY, headers={"if-none-match": tag})).status_code == 304
    assert await put(served, "new", if_match=coded) == 204


async def test_a_large_value_is_hashed_beside_the_event_loop(served: Served) -> None:
    await served.levels["notes"].put("a", "x" * (1 << 20))
    assert len({*await asyncio.gather(*(etag_of(served) for _ in range(3)))}) == 1


# ------------------------------------------------------------------------------------------- writes


async def test_a_put_needs_the_value_that_if_match_names(served: Served) -> None:
    level = served.levels["notes"]
    await level.put("a", 1)
    tag = await etag_of(served)
    assert await put(served, 2, if_match=tag) == 204
    cid = level.cid
    response = await served.client.put(ENTRY, json=3, headers={"if-match": tag})
    assert (response.status_code, response.json()["code"]) == (412, "LEVEL_CONDITION")
    assert response.headers["etag"] == response.json()["etag"] == await etag_of(served)
    assert (level.cid, await level.get("a")) == (cid, 2)
    assert await put(served, 3, if_match=f'"no", {await etag_of(served)}') == 204
    assert await put(served, 4, if_match=f"W/{await etag_of(served)}") == 412  # weak tags never match
    assert await put(served, 4, if_match="*") == 204


async def test_if_none_match_creates_a_key_once(served: Served) -> None:
    assert await put(served, 0, if_match="*") == 412
    assert await put(served, 1, if_none_match="*") == 204
    response = await served.client.put(ENTRY, json=2, headers={"if-none-match": "*"})
    assert response.status_code == 412
    tag = await etag_of(served)
    assert await put(served, 2, if_none_match=tag) == 412
    assert await put(served, 2, if_none_match='"other"') == 204
    assert await put(served, 3, if_match="*", if_none_match=await etag_of(served)) == 412
    assert await served.levels["notes"].get("a") == 2


async def test_a_delete_needs_the_value_that_if_match_names(served: Served) -> None:
    level = served.levels["notes"]
    assert (await served.client.delete(ENTRY, headers={"if-match": "*"})).status_code == 412
    await level.put("a", 1)
    tag = await etag_of(served)
    await level.put("a", 2)
    cid = level.cid
    assert (await served.client.delete(ENTRY, headers={"if-match": tag})).status_code == 412
    assert level.cid == cid
    assert (await served.client.delete(ENTRY, headers={"if-match": await etag_of(served)})).status_code == 204
    assert not await level.has("a")


async def test_one_of_many_clients_creates_a_key(served: Served) -> None:
    found = await asyncio.gather(*(put(served, n, if_none_match="*") for n in range(20)))
    assert sorted(found) == [204, *[412] * 19]


async def test_clients_that_retry_lose_no_increment(served: Served) -> None:
    await served.levels["notes"].put("a", 0)

    async def increment() -> None:
        status = 0
        while status != 204:
            response = await served.client.get(ENTRY)
            status = await put(served, response.json() + 1, if_match=response.headers["etag"])

    await asyncio.gather(*(increment() for _ in range(10)))
    assert await served.levels["notes"].get("a") == 10


@pytest.mark.parametrize(
    "header",
    [
        *("", "abc", '"abc', 'W/abc"', '"a" "b"', '"a",*', '*,"a"', "**", '"a\tb"', 'w/"a"', ","),
        *('"' + "x" * 9000 + '"', ",".join(['"a"'] * 500)),
    ],
)
@pytest.mark.parametrize("name", ["if-match", "if-none-match"])
async def test_a_malformed_condition_is_refused_and_writes_nothing(served: Served, name: str, header: str) -> None:
    for method, body in (("PUT", 1), ("DELETE", None), ("GET", None)):
        response = await served.client.request(method, ENTRY, json=body, headers={name: header})
        assert (response.status_code, response.json()["code"]) == (400, "LEVEL_PROTOCOL"), method
        assert name in response.json()["message"]
    assert served.levels["notes"].cid == 0


async def test_rights_come_before_conditions(served: Served) -> None:
    await served.levels["notes"].put("secret", 1)
    token = served.tokens.add(databases=["notes"], write=True, prefix="own/")
    client = await served.client_with(token)
    for headers in ({"if-match": "*"}, {"if-none-match": "*"}, {"if-match": '"x"'}):
        response = await client.put("/v1/notes/entries/secret", json=2, headers=headers)
        assert (response.status_code, "etag" in response.headers) == (403, False)
        assert (await client.get("/v1/notes/entries/secret", headers=headers)).status_code == 403
        assert (await client.delete("/v1/notes/entries/secret", headers=headers)).status_code == 403


def test_two_lines_of_a_condition_are_one_list() -> None:
    parsed = conditions._parse("if-match", ['"a"', 'W/"b-gzip"'])
    assert parsed == (("a", False), ("b", True))


# -------------------------------------------------------------------------------------------- batch


def ops(*given: Any) -> dict[str, Any]:
    """The body of a batch."""
    made = [
        {"type": "del", "key": op[0]} if len(op) == 1 else {"type": "put", "key": op[0], "value": op[1]} for op in given
    ]
    return {"ops": made}


async def test_a_batch_is_one_commit(served: Served) -> None:
    level = served.levels["notes"]
    await level.put("gone", 1)
    body = ops(("a", {"x": [1, None]}), ("gone",), ("b", 1), ("b", 2), ('"\\é😀', "ü"))
    assert (await served.client.post("/v1/notes/batch", json=body)).status_code == 204
    assert await level.query() == [('"\\é😀', "ü"), ("a", {"x": [1, None]}), ("b", 2)]
    changes = (await level.changes(1)).changes
    assert [change.key for change in changes] == ["a", "gone", "b", '"\\é😀']
    assert {change.by for change in changes} == {"root"}
    assert (await served.client.post("/v1/notes/batch", json=ops())).status_code == 204
    assert level.cid == 5
    alone = await served.client.post("/v1/notes/batch", json={**ops(("c", 1), ("d", 2)), "together": False})
    assert alone.status_code == 204


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"ops": {}}',
        b'{"ops": [], "more": 1}',
        b'{"ops": [], "together": 1}',
        b'{"ops": [], "ops": []}',
        b'{"ops": [1]}',
        b'{"ops": [{"type": "put", "key": "a"}]}',
        b'{"ops": [{"type": "del", "key": "a", "value": 1}]}',
        b'{"ops": [{"type": "put", "key": "a", "value": 1, "more": 1}]}',
        b'{"ops": [{"type": "get", "key": "a"}]}',
        b'{"ops": [{"type": "put", "key": 1, "value": 1}]}',
        b'{"ops": [{"type": "put", "key": "a", "key": "b", "value": 1}]}',
        b'{"ops": [{"type": "put", "key": "a", "value": 1}',
        b'{"ops": [{"type": "put", "key": "a", "value": NaN}]}',
        b'{"ops": [{"type": "put", "key": "a", "value": 123456789012345678901}]}',
        b'{"ops": [{"type": "put", "key": "a", "value": ' + b"[" * 70 + b"]" * 70 + b"}]}",
        b'{"ops": [{"type": "put", "key": "a", "value": {"x": 1, "x": 2}}]}',
        b'{"ops": [{"type": "put", "key": "a", "value": 1}, {"type": "put", "key": "!a", "value": 1}]}',
        b'{"ops": [{"type": "put", "key": "a", "value": 1}, {"type": "put", "key": "", "value": 1}]}',
        b'{"ops": [{"type": "put", "key": "a", "value": 1}, {"type": "put", "key": "\\ud800", "value": 1}]}',
        b'{"ops": [{"type": "put", "key": "' + b"k" * 9000 + b'", "value": 1}]}',
        b'{"ops": [' + b'{"type":"del","key":"a"},' * 16_384 + b'{"type":"del","key":"a"}]}',
        b'{"ops": [' + b"0," * 1_000_000 + b"0]}",
        b'{"ops": [' + b"[]," * 1_000_000 + b"[]]}",
        b"\xff",
        b"",
    ],
    ids=range(27),
)
async def test_a_malformed_batch_is_refused_and_writes_nothing(served: Served, body: bytes) -> None:
    response = await served.client.post("/v1/notes/batch", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["code"] in ("LEVEL_PROTOCOL", "LEVEL_INVALID_KEY", "LEVEL_INVALID_VALUE")
    assert served.levels["notes"].cid == 0


async def test_the_largest_batch_is_written(served: Served) -> None:
    body = ops(*((f"k{n}", n) for n in range(16_384)))
    assert (await served.client.post("/v1/notes/batch", json=body)).status_code == 204
    assert await served.levels["notes"].count() == 16_384
    large = ops(*((f"k{n}", "x" * (3 << 20)) for n in range(3)))
    response = await served.client.post("/v1/notes/batch", json=large)
    assert (response.status_code, "send at most" in response.json()["message"]) == (400, True)
    assert served.levels["notes"].cid == 16_384


async def test_a_batch_needs_the_right_to_write_each_key(served: Served) -> None:
    reader = await served.client_with(served.tokens.add(databases=["notes"]))
    assert (await reader.post("/v1/notes/batch", json=ops(("a", 1)))).status_code == 403
    writer = await served.client_with(served.tokens.add(databases=["notes"], write=True, prefix="own/"))
    response = await writer.post("/v1/notes/batch", json=ops(("own/a", 1), ("b", 2)))
    assert (response.status_code, response.json()["code"]) == (403, "LEVEL_FORBIDDEN")
    assert served.levels["notes"].cid == 0
    assert (await writer.post("/v1/notes/batch", json=ops(("own/a", 1), ("own/b",)))).status_code == 204


async def test_the_rules_of_a_server_see_a_batch_as_a_whole(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def check(call: Any, changes: Any, read: Any) -> None:
        seen.append([change.key for change in changes])
        if any(change.after == "bad" for change in changes):
            raise Refused("bad value", keys=["b"])

    monkeypatch.setattr(served.levels["notes"]._store.strategy, "check", check)
    response = await served.client.post("/v1/notes/batch", json=ops(("a", 1), ("b", "bad")))
    assert (response.status_code, response.json()["keys"]) == (422, ["b"])
    assert served.levels["notes"].cid == 0
    assert (await served.client.post("/v1/notes/batch", json=ops(("a", 1), ("a", 2), ("b", 1)))).status_code == 204
    assert seen == [["a", "b"], ["a", "b"]]
    assert await put(served, "bad", if_match=await etag_of(served)) == 422
    assert await put(served, "bad", if_match='"other"') == 412


# ------------------------------------------------------------------------------------------ reverse


async def test_entries_come_in_reverse_order_page_by_page(served: Served) -> None:
    await served.levels["notes"].batch([*(Put(key, key) for key in "abcde"), Delete("x")])
    path = "/v1/notes/entries"
    page = (await served.client.get(path, params={"reverse": "true", "limit": 2})).json()
    assert page == {"cid": 6, "has_more": True, "entries": [["e", "e"], ["d", "d"]]}
    page = (await served.client.get(path, params={"reverse": "true", "limit": 2, "lt": "d", "gte": "b"})).json()
    assert page == {"cid": 6, "has_more": False, "entries": [["c", "c"], ["b", "b"]]}
    assert (await served.client.get(path, params={"reverse": "false", "limit": 1})).json()["entries"] == [["a", "a"]]
    assert (await served.client.get(path, params={"reverse": "yes"})).status_code == 400
    client = await served.client_with(served.tokens.add(databases=["notes"], prefix="b"))
    assert (await client.get(path, params={"reverse": "true"})).json()["entries"] == [["b", "b"]]


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("path", ["batch", "change"])
async def test_a_condition_of_several_keys_is_refused_and_not_ignored(served: Served, path: str, header: str) -> None:
    await served.levels["notes"].put("a", 1)
    before = served.raw()
    body = {"batch": {"ops": [{"type": "put", "key": "a", "value": 2}]}, "change": {"cid": 1, "changes": [["a", 2]]}}
    response = await served.client.post(f"/v1/notes/{path}", json=body[path], headers={header: '"other"'})
    assert (response.status_code, response.json()["code"]) == (400, "LEVEL_PROTOCOL")
    assert "is for one key" in response.json()["message"]
    assert served.raw() == before
