"""Prometheus metrics of the periodic tasks of a hub, and of its retention."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from .collectors import ScrapedCollector
from .hub import Hub
from .metrics import MAX_LABELS


class TaskCollector(ScrapedCollector):
    """Reads the records of the tasks at each scrape: the first 100 databases of each task.

    Args:
        hub: The hub.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._tasks()
        if self._hub.retention is not None:
            yield from self._retention()

    def _tasks(self) -> Iterator[Metric]:
        labels = ["task", "database"]
        runs = CounterMetricFamily("treehub_level_task_runs", "Runs of periodic tasks that ended.", labels=labels)
        failures = CounterMetricFamily("treehub_level_task_failures", "Runs that failed.", labels=labels)
        seconds = GaugeMetricFamily("treehub_level_task_seconds", "Duration of the last run.", labels=labels)
        succeeded = GaugeMetricFamily(
            "treehub_level_task_succeeded_timestamp_seconds", "End of the last successful run.", labels=labels
        )
        for task in self._hub.tasks:
            for database, record in islice(tuple(task.records.items()), MAX_LABELS):
                names = [task.name, database]
                runs.add_metric(names, record.runs)
                failures.add_metric(names, record.failures)
                if record.seconds is not None:
                    seconds.add_metric(names, record.seconds)
                if record.succeeded_at is not None:
                    succeeded.add_metric(names, record.succeeded_at)
        yield from (runs, failures, seconds, succeeded)

    def _retention(self) -> Iterator[Metric]:
        labels = ["database"]
        dropped = CounterMetricFamily(
            "treehub_level_compaction_dropped_changes", "Changes that retention has dropped.", labels=labels
        )
        forgotten = CounterMetricFamily(
            "treehub_level_clients_forgotten", "Clients that were not seen for too long.", labels=labels
        )
        clients = GaugeMetricFamily("treehub_level_clients", "Clients that are remembered.", labels=labels)
        assert self._hub.retention is not None, "the caller looked"
        for database, totals in islice(tuple(self._hub.retention.totals.items()), MAX_LABELS):
            dropped.add_metric([database], totals.dropped)
            forgotten.add_metric([database], totals.forgotten)
            clients.add_metric([database], totals.clients)
        yield from (dropped, forgotten, clients)
