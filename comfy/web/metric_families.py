"""Metric families of one scrape, in prometheus_client's types; the package is imported when they are first wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy.errors import PackageMissing

GPU = ["gpu"]  #: the label that names a lane: gpu="0"


def prometheus() -> Any:
    """The package. Raises PackageMissing."""
    try:
        import prometheus_client
        import prometheus_client.core
    except ImportError as error:
        raise PackageMissing(package="prometheus-client") from error
    return prometheus_client


class Families:
    """Makes metric families of one scrape, in prometheus_client's types."""

    def __init__(self) -> None:
        self._core = prometheus().core

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Any:
        """A value that goes up and down."""
        return self._core.GaugeMetricFamily(name, text, labels=labels)

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Any:
        """A sum since the start; `name` without its `_total`."""
        return self._core.CounterMetricFamily(name, text, labels=labels)

    def histogram(self, name: str, text: str) -> Any:
        """Times by lane."""
        return self._core.HistogramMetricFamily(name, text, labels=GPU)

    def summary(self, name: str, text: str, labels: Sequence[str]) -> Any:
        """A count and a sum."""
        return self._core.SummaryMetricFamily(name, text, labels=labels)
