"""Counts of a server, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """How a metric is described to Prometheus."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    "uno_requests_total": Metric("counter", "requests by endpoint and HTTP status", ("endpoint", "status")),
    "uno_request_seconds_total": Metric("counter", "seconds from request to end of the reply", ("endpoint",)),
    "uno_waiting": Metric("gauge", "pictures and answers that wait"),
    "uno_running": Metric("gauge", "pictures and answers in the batch that runs"),
    "uno_batches_total": Metric("counter", "batches that have run", ("work",)),
    "uno_batch_jobs_total": Metric("counter", "pictures and answers of these batches", ("work",)),
    "uno_batch_seconds_total": Metric("counter", "seconds that batches ran", ("work",)),
    "uno_tokens_written_total": Metric("counter", "tokens of complete answers"),
}
"""Name -> description of every metric."""


class Counts:
    """Values of the metrics. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[tuple[str, tuple[str, ...]]] = Counter()

    def add(self, name: str, value: float = 1, *labels: str) -> None:
        """Adds to a metric, which may go down if it is a gauge. `labels` are the values of its labels in order."""
        with self._lock:
            self._values[name, labels] += value  # type: ignore[assignment]

    def text(self, waiting: int) -> str:
        """Returns all metrics in Prometheus's text format; `waiting` is the value of `uno_waiting`."""
        with self._lock:
            values = {**self._values, ("uno_waiting", ()): waiting}
        lines = []
        for name, metric in METRICS.items():
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
            own = {labels: value for (owner, labels), value in values.items() if owner == name}
            for labels, value in sorted((own or ({} if metric.labels else {(): 0})).items()):
                pairs = ",".join(f'{key}="{text}"' for key, text in zip(metric.labels, labels, strict=True))
                lines.append(f"{name}{'{' + pairs + '}' if pairs else ''} {value:g}")
        return "\n".join([*lines, ""])
