"""Metrics of a server, parsed from Prometheus' text format."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Family:
    """A metric.

    Attributes:
        kind: Its type.
        help: Its help text.
        labels: The names of the labels of each sample.
    """

    kind: str
    help: str
    labels: list[set[str]]


def families(text: str) -> dict[str, Family]:
    """Return the metrics by name, counters with ``_total``, without the times of their creation."""
    found = {}
    for metric in text_string_to_metric_families(text):
        name = metric.name + ("_total" if metric.type == "counter" else "")
        if not name.endswith("_created"):
            labels = [set(sample.labels) for sample in metric.samples]
            found[name] = Family(metric.type, metric.documentation, labels)
    return found


def samples(text: str) -> dict[str, float]:
    """Return the samples by name and labels, as the text writes them."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
