"""Prometheus metrics: those that requests update, and all others that a scrape collects.

``prometheus_client`` writes the format, has the histograms, and reads the figures of the process.
Each application has a registry of its own, so that two in one process do not mix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ...replication.messages import LogPage, Reply, Request, Reset
from ...replication.rules import SLOW_CHECKS
from .certificate import Certificate
from .client_positions import ClientPositions
from .database_statistics import StatisticsReader
from .hub import Hub
from .state_metrics import OTHER, BuildCollector, DatabaseCollector, ExpiryCollector
from .tokens import Tokens

#: The most databases with a label of their own. Further ones share one label.
MAX_LABELS = 100

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The metrics of one application.

    Args:
        hub: The databases.
        tokens: The access tokens, whose expiry is reported; ``None`` if there are none.
        collectors: Collectors of further metrics.

    Attributes:
        requests: A counter of responses, by route and status.
        seconds: A histogram of request durations in seconds, by route.
        refused: A counter of refusals, by error code.
        received: A counter of the bytes of request bodies, by route.
        sent: A counter of the bytes of response bodies, by route.
        waits: A gauge of the long polls and watches in progress.
        certificate: The certificate whose expiry is reported; ``None`` if there is none.
    """

    def __init__(self, hub: Hub, tokens: Tokens | None = None, collectors: Iterable[Collector] = ()) -> None:
        self._hub = hub
        self._registry = registry = CollectorRegistry()
        self._databases: set[str] = set()
        self._statistics = StatisticsReader(hub)
        self._clients = ClientPositions()
        self.certificate: Certificate | None = None
        self.requests = Counter(
            "treehub_level_http_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "treehub_level_http_request_seconds",
            "Seconds from a request's headers to the end of its response, waiting included.",
            ["route"],
            registry=registry,
        )
        self.refused = Counter("treehub_level_http_refused", "Requests refused.", ["reason"], registry=registry)
        self.received = Counter(
            "treehub_level_http_received_bytes", "Bytes of request bodies.", ["route"], registry=registry
        )
        self.sent = Counter("treehub_level_http_sent_bytes", "Bytes of response bodies.", ["route"], registry=registry)
        self.waits = Gauge(
            "treehub_level_http_waits", "Requests that wait for a change: long polls, watches.", registry=registry
        )
        self._pulled = self._by_database("treehub_level_changes_pulled", "Changes sent.")
        self._pushed = self._by_database("treehub_level_changes_pushed", "Changes received.")
        self._conflicts = self._by_database(
            "treehub_level_changes_rejected", "Changes of pushes that lost a conflict with another client's change."
        )
        self._refusals = self._by_database(
            "treehub_level_changes_refused", "Changes of pushes that a check or the rights of the client have refused."
        )
        self._resets = self._by_database("treehub_level_resets", "Replies that make a client start over.")
        Gauge("treehub_level_open_databases", "Open databases.", registry=registry).set_function(lambda: hub.open_count)
        Gauge(
            "treehub_level_slow_checks", "Checks of this process that took more than a second.", registry=registry
        ).set_function(SLOW_CHECKS.total)
        registry.register(DatabaseCollector(self._statistics, self._clients, self._labels))
        registry.register(ExpiryCollector(tokens, lambda: self.certificate))
        registry.register(BuildCollector())
        ProcessCollector(registry=registry)
        for collector in collectors:
            registry.register(collector)

    def _by_database(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, ["database"], registry=self._registry)

    def count_pulled(self, database: str, count: int) -> None:
        """Count changes that were sent to a client."""
        self._pulled.labels(self._label(database)).inc(count)

    def count_pushed(self, database: str, count: int) -> None:
        """Count changes that were received from a client and stored."""
        self._pushed.labels(self._label(database)).inc(count)

    def see_client(self, database: str, request: Request) -> None:
        """Note that a client asks for the changes after the CID of its request."""
        self._clients.record(database, request.client, request.cid)

    def count_exchange(self, database: str, request: Request, reply: Reply) -> dict[str, int]:
        """Count the changes that an exchange sent, received, rejected and refused.

        Returns:
            The counts by name, for a trace: ``pulled``, ``pushed``, ``rejected`` and ``refused``.
        """
        if isinstance(reply, Reset):
            self._resets.labels(self._label(database)).inc()
        if not isinstance(reply, LogPage):
            return {}
        self._clients.record(database, request.client, reply.cid)
        pulled, pushed = len(reply.records), 0
        self.count_pulled(database, pulled)
        if reply.ack is not None:
            pushed = reply.ack.after - reply.ack.before
            self.count_pushed(database, pushed)
        refused = len(reply.refused) if request.changes else 0
        rejected = len(reply.rejected) - refused if request.changes else 0
        # Also by 0: the increase from a first sample of 1 could not be seen.
        for counter, count in ((self._conflicts, rejected), (self._refusals, refused)):
            counter.labels(self._label(database)).inc(count)
        return {"pulled": pulled, "pushed": pushed, "rejected": rejected, "refused": refused}

    async def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        await self._statistics.refresh()
        return await asyncio.to_thread(generate_latest, self._registry)

    def _label(self, database: str) -> str:
        """Return the label of a database: its name, or ``(other)`` beyond the first 100 databases.

        Callers pass names of existing databases only, so clients cannot create labels.
        """
        if database not in self._databases:
            if len(self._databases) >= MAX_LABELS:
                return OTHER
            self._databases.add(database)
        return database

    def _labels(self, databases: list[str]) -> dict[str, str]:
        """Return the label of each database.

        Databases with an authorized request come first, and keep their labels.
        """
        known = self._databases & {*databases}
        unused = [name for name in databases if name not in known]
        labelled = known.union(unused[: max(0, MAX_LABELS - len(self._databases))])
        return {name: name if name in labelled else OTHER for name in databases}
