"""`ScrapedCollector`: the base of the collectors that read figures at each scrape."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class ScrapedCollector(Collector):
    """A collector that is registered without collecting: there is nothing to read yet."""

    def describe(self) -> list[Metric]:
        """Return nothing: without it, the registration would collect."""
        return []
