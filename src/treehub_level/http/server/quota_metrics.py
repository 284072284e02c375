"""Prometheus metrics of the quotas of databases."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from .collectors import ScrapedCollector
from .metrics import MAX_LABELS
from .quotas import Quotas


class QuotaCollector(ScrapedCollector):
    """Reads the sizes of the databases with a quota, the first 100 of them, at each scrape.

    Args:
        quotas: The quotas.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. A size is that of the last count, and of the writes since, at most."""
        labels = ["database", "unit"]
        limits = GaugeMetricFamily("treehub_level_quota_limit", "The quota.", labels=labels)
        used = GaugeMetricFamily("treehub_level_quota_used", "The size, at most.", labels=labels)
        for database, (quota, usage) in islice(self._quotas.usages().items(), MAX_LABELS):
            for unit, limit, size in (("bytes", quota.bytes, usage.bytes), ("keys", quota.keys, usage.keys)):
                if limit is not None:
                    limits.add_metric([database, unit], limit)
                    used.add_metric([database, unit], size)
        yield from (limits, used)
