"""The `check` of a hub: for all writes by tokens, with the reason in the response."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from replication.helpers import ask

from treehub_level import MISSING, Level, Refused
from treehub_level.http import Hub, Tokens, create_app
from treehub_level.replication import rules

calls: list[tuple[Any, list[Any]]] = []


def check(call: Any, changes: list[Any], read: Any) -> None:
    """Refuse values that are no numbers."""
    calls.append((call, changes))
    for change in changes:
        if change.after == "fault":
            raise ZeroDivisionError("a secret value")
        if change.after == "slow":
            time.sleep(0.01)
        elif change.after is not MISSING and not isinstance(change.after, int):
            raise Refused("only numbers", keys=[change.key])


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a hub whose database ``numbers`` has a check, and ``free`` has none."""
    calls.clear()
    hub = Hub(tmp_path / "stores", create=["numbers", "free"], backend="sqlite", check={"numbers": check})
    tokens = Tokens(tmp_path / "tokens")
    headers = {"authorization": f"Bearer {tokens.add(databases=['*'], write=True, name='alice')}"}
    async with hub:
        transport = httpx.ASGITransport(create_app(hub, tokens=tokens))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as made:
            yield made


async def stored(client: httpx.AsyncClient, database: str = "numbers") -> Any:
    return (await client.get(f"/v1/{database}/entries")).json()["entries"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "entries/a", "text"),
        ("POST", "change", {"cid": 0, "changes": [["b", 1], ["a", "text"]]}),
    ],
)
async def test_a_refused_write_is_422_with_the_reason(
    client: httpx.AsyncClient, method: str, path: str, body: Any
) -> None:
    response = await client.request(method, f"/v1/numbers/{path}", json=body)
    refusal = response.json()
    assert (response.status_code, refusal["code"]) == (422, "LEVEL_REFUSED")
    assert (refusal["reason"], refusal["keys"]) == ("only numbers", ["a"])
    assert await stored(client) == []


async def test_allowed_writes_and_other_databases_go_on(client: httpx.AsyncClient) -> None:
    assert (await client.put("/v1/numbers/entries/a", json=1)).status_code == 204
    assert (await client.delete("/v1/numbers/entries/a")).status_code == 204
    assert (await client.put("/v1/free/entries/a", json="text")).status_code == 204
    assert [(tuple(call), change.key, change.before, change.after) for call, (change,) in calls] == [
        (("alice", None), "a", MISSING, 1),
        (("alice", None), "a", 1, MISSING),
    ]


async def test_an_exchange_tells_the_refusal(client: httpx.AsyncClient) -> None:
    reply = (await client.post("/v1/numbers/exchange", json=ask(changes=[["a", "text"], ["b", 1]]))).json()
    assert (reply["refused"], reply["values"]) == ([["only numbers", ["a"]]], [["a"]])
    assert await stored(client) == [["b", 1]]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "entries/a", "fault"),
        ("POST", "change", {"cid": 0, "changes": [["b", 1], ["a", "fault"]]}),
        ("POST", "exchange", ask(changes=[["b", 1], ["a", "fault"]])),
    ],
)
async def test_a_check_that_fails_is_500_and_names_no_value(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, method: str, path: str, body: Any
) -> None:
    with caplog.at_level(logging.ERROR, "treehub_level.http"):
        response = await client.request(method, f"/v1/numbers/{path}", json=body)
    assert (response.status_code, response.json()["code"]) == (500, "LEVEL_CHECK")
    assert "ZeroDivisionError" in caplog.text
    assert "test_checks.py" in caplog.text, "the place of the fault is not logged"
    assert "secret" not in caplog.text + response.text
    assert await stored(client) == []


async def test_a_slow_check_is_counted_in_the_metrics(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "SLOW_SECONDS", 0.001)
    await client.put("/v1/numbers/entries/a", json="slow")
    metrics = (await client.get("/metrics")).text
    line = next(line for line in metrics.splitlines() if line.startswith("treehub_level_slow_checks "))
    assert float(line.split()[1]) >= 1


def test_a_check_for_a_level_of_the_program_is_refused(tmp_path: Path) -> None:
    level = Level("own", backend="memory", mode=Level.SERVER)
    with pytest.raises(ValueError, match="'own', which is not the name of a store in root"):
        Hub(tmp_path, levels={"own": level}, check={"own": check})
    with pytest.raises(TypeError, match="function"):
        Hub(tmp_path, check="module:check")  # type: ignore[arg-type]
