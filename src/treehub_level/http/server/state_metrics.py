"""Metrics that are collected at a scrape: of databases, of what expires, and of the build."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from ... import __version__, _core
from ...errors import StorageError
from .certificate import Certificate
from .client_positions import ClientLag, ClientPositions
from .collectors import ScrapedCollector
from .database_statistics import DatabaseStatistics, StatisticsReader
from .tokens import Tokens

#: The label that the databases without a label of their own share. No database can have this name.
OTHER: Final = "(other)"
#: The most tokens whose expiry is reported: those that expire next.
_MAX_TOKENS: Final = 20


class DatabaseFigures(NamedTuple):
    """The figures of one database at a scrape.

    Attributes:
        statistics: The sizes and counts.
        lag: The clients; ``None`` if the CID of the database is not known yet.
    """

    statistics: DatabaseStatistics
    lag: ClientLag | None


class _DatabaseMetric(NamedTuple):
    """A metric with one sample for each database.

    Attributes:
        name: The name of the metric, after ``treehub_level_``.
        documentation: The help text.
        value: Returns the value for a database; ``None`` for no sample.
        combine: Makes one value of those of the databases without a label of their own; ``None``
            for no sample of them.
    """

    name: str
    documentation: str
    value: Callable[[DatabaseFigures], float | None]
    combine: Callable[[Iterable[float]], float] | None = sum


def _of_count(attribute: str) -> Callable[[DatabaseFigures], float | None]:
    return lambda figures: getattr(figures.statistics.count, attribute, None)


def _of_position(attribute: str) -> Callable[[DatabaseFigures], float | None]:
    return lambda figures: getattr(figures.statistics.position, attribute, None)


def _of_lag(attribute: str) -> Callable[[DatabaseFigures], float | None]:
    return lambda figures: getattr(figures.lag, attribute, None)


_DATABASE_METRICS: Final = (
    _DatabaseMetric(
        "database_open", "1 if the server has the database open.", lambda figures: int(figures.statistics.is_open)
    ),
    _DatabaseMetric("database_size_bytes", "Bytes on disk.", lambda figures: figures.statistics.size),
    _DatabaseMetric("database_entries", "Entries, as counted last.", _of_count("entries")),
    _DatabaseMetric(
        "database_log_records", "Records of the change log.", lambda figures: figures.statistics.log_records
    ),
    _DatabaseMetric(
        "database_counted_timestamp_seconds",
        "Time of the last count of entries, in seconds since 1970.",
        _of_count("ended_at"),
        min,
    ),
    _DatabaseMetric("database_cid", "CID of the last change.", _of_position("cid"), None),
    _DatabaseMetric(
        "database_floor", "Highest CID of a delete that was dropped from the log.", _of_position("floor"), None
    ),
    _DatabaseMetric("clients_active", "Clients that have synchronised in the last 24 hours.", _of_lag("clients")),
    _DatabaseMetric("clients_behind", "Clients of these that lack the latest change.", _of_lag("behind")),
    _DatabaseMetric(
        "clients_behind_max_changes",
        "Changes after the position of the client that is furthest behind.",
        _of_lag("max_changes"),
        max,
    ),
)


class DatabaseCollector(ScrapedCollector):
    """Collects the metrics of databases from their last known figures.

    Args:
        statistics: The statistics, refreshed before the scrape.
        clients: The positions of the clients.
        labels: Returns the label of each database: its name, or `OTHER`.
    """

    def __init__(
        self,
        statistics: StatisticsReader,
        clients: ClientPositions,
        labels: Callable[[list[str]], Mapping[str, str]],
    ) -> None:
        self._statistics = statistics
        self._clients = clients
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        known = self._statistics.known()
        self._clients.forget({*known})
        labels = self._labels([*known])
        databases = {name: self._figures(name, found) for name, found in known.items()}
        yield GaugeMetricFamily("treehub_level_databases", "Databases, open or not.", value=len(databases))
        for metric in _DATABASE_METRICS:
            yield _family(metric, databases, labels)

    def _figures(self, name: str, statistics: DatabaseStatistics) -> DatabaseFigures:
        position = statistics.position
        return DatabaseFigures(statistics, None if position is None else self._clients.lag(name, position.cid))


def _family(
    metric: _DatabaseMetric, databases: Mapping[str, DatabaseFigures], labels: Mapping[str, str]
) -> GaugeMetricFamily:
    """Return a metric with its samples."""
    family = GaugeMetricFamily(f"treehub_level_{metric.name}", metric.documentation, labels=["database"])
    others: list[float] = []
    for name, figures in databases.items():
        value = metric.value(figures)
        if value is None:
            continue
        if labels[name] == OTHER:
            others.append(value)
        else:
            family.add_metric([name], value)
    if others and metric.combine is not None:
        family.add_metric([OTHER], metric.combine(others))
    return family


class ExpiryCollector(ScrapedCollector):
    """Collects the times at which tokens and the certificate expire.

    Args:
        tokens: The tokens of the server; ``None`` if it has none.
        certificate: Returns the certificate of the server; ``None`` if it has none.
    """

    def __init__(self, tokens: Tokens | None, certificate: Callable[[], Certificate | None]) -> None:
        self._tokens = tokens
        self._certificate = certificate

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        family = GaugeMetricFamily(
            "treehub_level_certificate_expiry_timestamp_seconds",
            "Time at which the TLS certificate expires, in seconds since 1970.",
        )
        certificate = self._certificate()
        if certificate is not None and certificate.expires is not None:
            family.add_metric([], certificate.expires)
        yield family
        yield from self._token_metrics()

    def _token_metrics(self) -> Iterator[Metric]:
        valid = GaugeMetricFamily("treehub_level_tokens", "Tokens that have not expired.")
        expiry = GaugeMetricFamily(
            "treehub_level_token_expiry_timestamp_seconds",
            "Time at which a token expires, in seconds since 1970: of the 20 valid tokens that expire next.",
            labels=["token"],
        )
        readable = GaugeMetricFamily("treehub_level_token_file_readable", "1 if the file of tokens can be read.")
        if self._tokens is not None:
            try:
                tokens = [token for token in self._tokens.all() if not token.is_expired()]
            except StorageError:
                readable.add_metric([], 0)
            else:
                readable.add_metric([], 1)
                valid.add_metric([], len(tokens))
                times = [(token.expires, token.id) for token in tokens if token.expires is not None]
                for expires, id in sorted(times)[:_MAX_TOKENS]:
                    expiry.add_metric([id], expires)
        yield from (readable, valid, expiry)


class BuildCollector(ScrapedCollector):
    """Tells the version of the package, its core, and the version of Python."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        build = {"version": __version__, "core": _core.CORE, "python": platform.python_version()}
        yield InfoMetricFamily("treehub_level_build", "The version of the server.", value=build)
