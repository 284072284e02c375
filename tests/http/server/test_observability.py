"""The access log and the metrics, and the data that must not appear in them."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from replication.helpers import ask as request
from served import Served

from treehub_level.http.server import access_log
from treehub_level.http.server import metrics as metrics_module
from treehub_level.http.server.logs import OneLineFormatter

pytestmark = pytest.mark.once

SECRET = "s3cr3t-value"
NEWLINES = "a%0d%0aFAKE 200 line%0a"


async def hostile_requests(served: Served, token: str) -> None:
    """Send requests with values, tokens, line breaks and long texts in every part of a request."""
    client = await served.client_with(token)
    long = "x" * 20_000
    for path in (
        f"/v1/notes/entries/{SECRET}{NEWLINES}",
        f"/{NEWLINES}",
        f"/v1/{long}",
        f"/v1/notes/entries/{long}",
        f"/v1/{SECRET}",
    ):
        await client.put(path, json=SECRET)
        await client.get(path)
    await client.get(f"/v1/notes/changes?since={long}", headers={"x-header": long, "user-agent": SECRET + "\x0b"})
    await client.get("/v1/notes", headers={"authorization": f"Bearer {long}"})
    await client.request("X" * 10_000, "/v1/notes")
    await client.post("/v1/notes/exchange", json=request(changes=[[SECRET, {"a": SECRET}]]))
    await client.post("/v1/notes/exchange", json=request(changes=[[SECRET, {"a": SECRET}] * 9]))


def leaks(lines: list[str], token: str) -> list[str]:
    """Return the log lines with secrets or line breaks, and those that are too long."""
    secrets = [SECRET, "FAKE", token, token.partition(".")[2]]
    return [line for line in lines if len(line) > 200 or "\n" in line or any(secret in line for secret in secrets)]


async def test_no_log_line_has_a_value_a_token_or_text_of_the_client(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "treehub_level")
    token = served.tokens.add(databases=["notes"], write=True)
    await hostile_requests(served, token)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("treehub_level")]
    assert len(lines) >= 13
    assert leaks(lines, token) == []
    assert any(f"token={token.partition('.')[0]}" in line for line in lines), "the token id is missing"


async def test_a_log_line_with_a_path_is_detected(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "treehub_level")
    call = access_log.AccessLogMiddleware.__call__

    async def log_path(self: Any, scope: Any, receive: Any, send: Any) -> None:
        access_log.logger.info("%s", scope["path"])
        await call(self, scope, receive, send)

    monkeypatch.setattr(access_log.AccessLogMiddleware, "__call__", log_path)
    token = served.tokens.add(databases=["notes"], write=True)
    await hostile_requests(served, token)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("treehub_level")]
    assert leaks(lines, token) != []


async def test_a_damaged_record_is_logged_without_its_content(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    await served.levels["notes"].put("a", 1)
    served.memories["notes"].write([(b"a", SECRET.encode()), (b"!1", SECRET.encode())])
    mine = await served.client_with(served.tokens.add(databases=["notes"], prefix="mine/"))
    caplog.clear()
    response = await mine.get("/v1/notes/changes")
    assert (response.status_code, response.json()["code"]) == (500, "LEVEL_CORRUPTION")
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert re.search(r"GET /v1/\{db\}/changes failed: CorruptionError in database notes at .*records\.py:\d+", line)
    assert SECRET not in line + response.text


def test_a_record_of_another_logger_becomes_one_line_of_bounded_length() -> None:
    record = logging.LogRecord(
        "asyncio", logging.ERROR, "", 0, "a\r\nb\x1b[2J\u2028\x9b\u202e\u200b" + "x" * 5000, None, None
    )
    line = OneLineFormatter("%(levelname)s %(message)s").format(record)
    assert line.startswith("ERROR a\\u000d\\u000ab\\u001b[2J\\u2028\\u009b\\u202e\\u200bxxx")
    assert len(line) == 1001


# ---------------------------------------------------------------------------------------- metrics


async def samples(served: Served) -> dict[str, float]:
    response = await served.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_requests_changes_and_refusals_are_counted(served: Served) -> None:
    await served.client.put("/v1/notes/entries/a", json=1)
    await served.client.post("/v1/notes/exchange", json=request(cid=1, changes=[["b", 1], ["c", 2]]))
    await served.client.post("/v1/notes/exchange", json=request(nonce="1" * 32))
    await served.client.get("/v1/notes/changes")
    await served.anonymous.get("/v1/notes")
    await served.client.get("/v1/absent")
    found = await samples(served)
    assert found['treehub_level_http_requests_total{route="POST /v1/{db}/exchange",status="200"}'] == 2
    assert found['treehub_level_http_request_seconds_count{route="GET /v1/{db}"}'] == 2
    assert found['treehub_level_http_refused_total{reason="LEVEL_UNAUTHORIZED"}'] == 1
    assert found['treehub_level_http_refused_total{reason="LEVEL_DATABASE_NOT_FOUND"}'] == 1
    assert found['treehub_level_changes_pushed_total{database="notes"}'] == 3
    assert found['treehub_level_changes_pulled_total{database="notes"}'] == 6
    assert found["treehub_level_open_databases"] == 2
    assert found["treehub_level_http_waits"] == 0


async def test_unauthorized_requests_create_no_labels(served: Served) -> None:
    await served.client.get("/metrics")
    await samples(served)
    before = (await samples(served)).keys()
    for number in range(50):
        await served.anonymous.get(f"/v1/stranger{number}")
        await served.client.get(f"/v1/absent{number}")
        await served.client.get(f"/nothing/{number}")
        await served.client.request(f"VERB{number}", "/v1/notes")
    new = (await samples(served)).keys() - before
    assert len(new) < 100, "more samples than the histograms of the routes have"
    assert not [name for name in new if "stranger" in name or "absent" in name or "VERB" in name]


async def test_the_number_of_database_labels_is_limited(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_LABELS", 1)
    for name in ("notes", "other"):
        await served.client.put(f"/v1/{name}/entries/a", json=1)
    found = await samples(served)
    assert found['treehub_level_changes_pushed_total{database="notes"}'] == 1
    assert found['treehub_level_changes_pushed_total{database="(other)"}'] == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_checks_report_the_shutdown(served: Served, path: str) -> None:
    running = await served.anonymous.get(path)
    assert (running.status_code, running.json()) == (200, {"status": "ok"})
    served.hub.stop()
    stopping = await served.anonymous.get(path)
    assert (stopping.status_code, stopping.json()) == (503, {"status": "closing"})
