"""Spans of OpenTelemetry for syncs and exchanges, in applications that use OpenTelemetry.

The package ``opentelemetry-api`` (extra ``otel``) is never imported before the application has
imported it. Without a configured SDK no span is made, and no header is sent. Spans hold numbers,
names of classes and ids: no keys, no values, and no messages of exceptions, which may quote them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from .redaction import redact_url
from .types import SyncReport

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

#: The name of the instrumentation.
_NAME: Final = "treehub_level"


def _tracer() -> Tracer | None:
    """Return the tracer; ``None`` unless the application has configured an SDK."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return trace.get_tracer(_NAME)


@contextmanager
def sync_span(exchange: Callable[..., object], report: SyncReport) -> Iterator[None]:
    """Trace a sync of a client: the current span for the length of the block.

    Args:
        exchange: Sends requests to the server. If it is the method of an object with a ``url``,
            that is an attribute of the span.
        report: The report of the sync, read at the end of the block.
    """
    tracer = _tracer()
    if tracer is None:
        yield
        return
    from opentelemetry.trace import SpanKind

    url = getattr(getattr(exchange, "__self__", None), "url", None)
    attributes = {"url.full": redact_url(url)} if isinstance(url, str) else {}
    with _span(tracer, "treehub_level.sync", kind=SpanKind.CLIENT, attributes=attributes) as span:
        try:
            yield
        finally:
            _set(
                span,
                pulled=report.pulled,
                pushed=report.pushed,
                conflicts=len(report.conflicts),
                refused=len(report.refused),
                rounds=report.rounds,
                cid=report.cid,
                reset=report.reset,
            )


def inject_context(headers: MutableMapping[str, str]) -> None:
    """Add the headers that tell a server of the current span, if there is one: ``traceparent``."""
    if _tracer() is None:
        return
    from opentelemetry import propagate, trace

    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(headers)


class ExchangeSpan:
    """The span of an exchange on a server, or none.

    Args:
        span: The span; ``None`` without one.

    Attributes:
        trace_id: The id of the trace, 32 hex digits; ``None`` without a span.
    """

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self.trace_id = None if span is None else f"{span.get_span_context().trace_id:032x}"

    def set(self, **attributes: Any) -> None:
        """Set attributes, whose names get the prefix ``treehub_level.``."""
        if self._span is not None:
            _set(self._span, **attributes)


@contextmanager
def exchange_span(route: str, headers: Mapping[str, str], **attributes: Any) -> Iterator[ExchangeSpan]:
    """Trace an exchange on a server.

    The parent is the current span, of another instrumentation of the server; without one, the span
    of the client that the headers tell.

    Args:
        route: The method and the path template.
        headers: The headers of the request.
        **attributes: Attributes, whose names get the prefix ``treehub_level.``.
    """
    tracer = _tracer()
    if tracer is None:
        yield ExchangeSpan(None)
        return
    from opentelemetry import propagate, trace

    is_inner = trace.get_current_span().get_span_context().is_valid
    method, _, path = route.partition(" ")
    with _span(
        tracer,
        route,
        context=None if is_inner else propagate.extract(headers),
        kind=trace.SpanKind.INTERNAL if is_inner else trace.SpanKind.SERVER,
        attributes={"http.request.method": method, "http.route": path},
    ) as span:
        _set(span, **attributes)
        yield ExchangeSpan(span)


@contextmanager
def _span(tracer: Tracer, name: str, **options: Any) -> Iterator[Span]:
    """Run a block in a span, which ends as failed with the class of an exception of the block."""
    from opentelemetry.trace import StatusCode

    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False, **options) as span:
        try:
            yield span
        except Exception as error:
            span.set_attribute("error.type", str(getattr(error, "code", type(error).__name__)))
            span.set_status(StatusCode.ERROR)
            raise


def _set(span: Span, **attributes: Any) -> None:
    for name, value in attributes.items():
        span.set_attribute(f"{_NAME}.{name}", value)
