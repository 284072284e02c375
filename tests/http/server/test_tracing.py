"""Spans of OpenTelemetry: of a sync, and of its exchanges on the server."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from served import Served
from server_process import ServerProcess

import treehub_level
from treehub_level import Level, TransportError
from treehub_level.http import RemoteServer
from treehub_level.http.blocking import RemoteServer as BlockingRemoteServer
from treehub_level.http.server.access_log import AccessLogMiddleware
from treehub_level.http.server.logs import ACCESS_LOGGER, JSONFormatter

pytestmark = pytest.mark.once

EXCHANGE = "POST /v1/{db}/exchange"
SECRET = "s3cr3t"


@pytest.fixture(name="exporter")
def _exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Configure an SDK for the length of a test. OpenTelemetry allows one for each process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def remote(served: Served, token: str | None = None) -> RemoteServer:
    """Return the server ``notes``, called in this process."""
    token = token or served.tokens.add(databases=["notes"], write=True)
    return RemoteServer("http://localhost/v1/notes", token=token, transport=served.client._transport)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def by_name(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Return the finished spans of a name."""
    return [span for span in exporter.get_finished_spans() if span.name == name]


async def test_a_sync_is_a_span_and_its_exchanges_are_its_children(
    served: Served, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, ACCESS_LOGGER)
    await served.levels["notes"].put("theirs", SECRET)
    async with Level("c", backend="memory", mode=Level.CLIENT) as client, remote(served) as server:
        await client.put(SECRET, 1)
        report = await client.sync(server)
    (sync,) = by_name(exporter, "treehub_level.sync")
    assert sync.kind is SpanKind.CLIENT
    found = attributes(sync)
    assert found["url.full"] == "http://localhost/v1/notes"
    counts = {name.removeprefix("treehub_level."): value for name, value in found.items() if "treehub" in name}
    assert counts.items() >= {"pulled": 1, "pushed": 1, "conflicts": 0, "rounds": report.rounds, "cid": 2}.items()
    exchanges = by_name(exporter, EXCHANGE)
    assert len(exchanges) == report.rounds
    for span in exchanges:
        assert span.kind is SpanKind.INTERNAL, "in one process, the span of the client is the current one"
        assert span.context.trace_id == sync.context.trace_id
    assert sum(attributes(span)["treehub_level.pushed"] for span in exchanges) == 1
    assert {attributes(span)["treehub_level.database"] for span in exchanges} == {"notes"}
    text = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert SECRET not in text
    lines = [json.loads(JSONFormatter().format(record)) for record in caplog.records if record.name == ACCESS_LOGGER]
    ids = {line["trace_id"] for line in lines if line["route"] == EXCHANGE}
    assert ids == {f"{sync.context.trace_id:032x}"}


async def test_conflicts_are_counted(served: Served, exporter: InMemorySpanExporter) -> None:
    async with Level("c", backend="memory", mode=Level.CLIENT) as client, remote(served) as server:
        await client.put("a", 1)
        await served.levels["notes"].put("a", 2)
        await client.sync(server)
    (sync,) = by_name(exporter, "treehub_level.sync")
    assert attributes(sync)["treehub_level.conflicts"] == 1


async def test_a_failed_sync_names_the_error_and_no_message(served: Served, exporter: InMemorySpanExporter) -> None:
    async with Level("c", backend="memory", mode=Level.CLIENT) as client, remote(served, f"x.{SECRET}") as server:
        with pytest.raises(TransportError):
            await client.sync(server)
    (sync,) = by_name(exporter, "treehub_level.sync")
    assert sync.status.status_code is StatusCode.ERROR
    assert attributes(sync)["error.type"] == TransportError.code
    assert sync.events == ()
    assert SECRET not in sync.to_json()


async def test_a_live_session_traces_its_syncs(served: Served, exporter: InMemorySpanExporter) -> None:
    async with Level("c", backend="memory", mode=Level.CLIENT) as client, remote(served) as server:
        await client.put("a", 1)
        async with client.live(server) as session:
            await session.pushed()
    assert sum(attributes(span)["treehub_level.pushed"] for span in by_name(exporter, "treehub_level.sync")) == 1


def test_the_header_crosses_the_network_and_names_the_parent(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    """The server prints its spans; the client is the blocking one."""
    process = ServerProcess(tmp_path, prelude=PRINTING.format(file=str(tmp_path / "spans")))
    level = treehub_level.blocking.Level("c", backend="memory", mode=Level.CLIENT)
    with level as client, BlockingRemoteServer(process.url) as server:
        client["a"] = 1
        client.sync(server)
    process.stop()
    (sync,) = by_name(exporter, "treehub_level.sync")
    spans = [json.loads(line) for line in (tmp_path / "spans").read_text().splitlines()]
    assert spans
    for span in spans:
        assert (span["name"], span["kind"]) == (EXCHANGE, "SpanKind.SERVER")
        assert span["context"]["trace_id"] == f"0x{sync.context.trace_id:032x}"
        assert span["parent_id"] == f"0x{sync.context.span_id:016x}"


#: Statements that configure an SDK, which appends each span to a file.
PRINTING = (
    "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider; "
    "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor; "
    "provider = TracerProvider(); provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter("
    "out=open({file!r}, 'w', buffering=1), formatter=lambda span: span.to_json(indent=None) + chr(10)))); "
    "trace.set_tracer_provider(provider); "
)


async def test_a_span_of_another_instrumentation_is_the_parent(served: Served, exporter: InMemorySpanExporter) -> None:
    call = AccessLogMiddleware.__call__
    tracer = trace.get_tracer_provider().get_tracer("asgi")

    async def instrumented(self: Any, scope: Any, receive: Any, send: Any) -> None:
        with tracer.start_as_current_span("asgi", context=trace.set_span_in_context(trace.INVALID_SPAN)):
            await call(self, scope, receive, send)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AccessLogMiddleware, "__call__", instrumented)
        async with Level("c", backend="memory", mode=Level.CLIENT) as client, remote(served) as server:
            await client.sync(server)
    outer = {span.context.span_id for span in by_name(exporter, "asgi")}
    for span in by_name(exporter, EXCHANGE):
        assert span.kind is SpanKind.INTERNAL
        assert span.parent is not None
        assert span.parent.span_id in outer


# ------------------------------------------------------------------------------------ without it


def headers_sent(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Record the names of the headers of each request to the server."""
    sent: list[set[str]] = []
    call = AccessLogMiddleware.__call__

    async def record(self: Any, scope: Any, receive: Any, send: Any) -> None:
        sent.append({name.decode() for name, _ in scope["headers"]})
        await call(self, scope, receive, send)

    monkeypatch.setattr(AccessLogMiddleware, "__call__", record)
    return sent


async def test_without_a_configured_sdk_no_header_is_sent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = headers_sent(served, monkeypatch)
    async with Level("c", backend="memory", mode=Level.CLIENT) as client, remote(served) as server:
        await client.sync(server)
    assert sent
    assert not any("traceparent" in names for names in sent)


async def test_control_with_an_sdk_the_header_is_sent(
    served: Served, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = headers_sent(served, monkeypatch)
    async with Level("c", backend="memory", mode=Level.CLIENT) as client, remote(served) as server:
        await client.sync(server)
    assert all("traceparent" in names for names in sent)


def test_the_package_is_not_imported_for_an_application_without_it() -> None:
    program = """
import sys
from treehub_level.blocking import Level
with Level("s", backend="memory", mode=Level.SERVER) as server:
    with Level("c", backend="memory", mode=Level.CLIENT) as client:
        client["a"] = 1
        client.sync(server)
import treehub_level.http.server.app
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
