"""Metrics in Prometheus' text format: counts of messages, refusals and restarts, never of rows.

What may be counted stands in `METRICS`; there is no way to make another while a process runs. Labels are short words
of the code's own, and their number is bounded: what comes after that is counted as "other".
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from coterie.privacy.errors import CoterieError, Fault
from coterie.processes.supervise import State
from coterie.processes.tally import Count

__all__ = ["CONTENT_TYPE", "METRICS", "ChildMetrics", "Metric", "Metrics"]

# Version 0.0.4 of the exposition format; `generate_latest` writes that one.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MOST = 100  # label values of a metric


@dataclass(frozen=True)
class Metric:
    """Something that may be counted.

    Args:
        kind: A counter only grows; a gauge is set.
        told: What it says, in one sentence.
        labels: Names of its labels.
    """

    kind: Literal["counter", "gauge"]
    told: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "coterie_up": Metric("gauge", "Whether a process runs.", ("process",)),
        "coterie_restarts": Metric("counter", "Starts of a process after its first.", ("process",)),
        "coterie_messages": Metric("counter", "Messages answered.", ("kind",)),
        "coterie_refusals": Metric("counter", "Messages refused, by the word that left.", ("code",)),
        "coterie_requests": Metric("counter", "Requests at the gateway, by what became of them.", ("outcome",)),
        "coterie_bytes": Metric("counter", "Bytes of messages, received and sent.", ("direction",)),
        "coterie_last_round": Metric("gauge", "The last round that was published or answered."),
        "coterie_nodes": Metric("gauge", "Partners' nodes that are connected."),
        "coterie_certificate_expiry_seconds": Metric(
            "gauge", "When a certificate ends, in Unix time.", ("certificate",)
        ),
    }
)


class Metrics:
    """The metrics of one process; safe to use from several threads."""

    def __init__(self) -> None:
        # Else each counter has a second sample, with the time of its first use.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types the rest
        self._registry = CollectorRegistry(auto_describe=True)
        self._made: dict[str, Counter | Gauge] = {}
        self._seen: dict[str, set[tuple[str, ...]]] = {}
        self._totals: dict[tuple[str, tuple[str, ...]], float] = {}
        self._counting = threading.Lock()
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                self._made[name] = Counter(name, metric.told, metric.labels, registry=self._registry)
            elif metric.labels:
                self._made[name] = Gauge(name, metric.told, metric.labels, registry=self._registry)

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter.

        Args:
            name: One of `METRICS`.
            amount: Not negative.
            labels: Its labels, each a short word.

        Raises:
            CoterieError: There is no such counter, or its labels are others.
        """
        self._counter(name, self._values(name, "counter", labels)).inc(amount)

    def total(self, name: str, value: float, **labels: str) -> None:
        """Bring a counter up to a total that another process keeps; one that starts again from 0 is added on.

        Raises:
            CoterieError: As `count`.
        """
        values = self._values(name, "counter", labels)
        with self._counting:
            before = self._totals.get((name, values), 0.0)
            self._totals[name, values] = value
            self._counter(name, values).inc(value - before if value >= before else value)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge.

        Raises:
            CoterieError: There is no such gauge, or its labels are others.
        """
        values = self._values(name, "gauge", labels)
        with self._counting:
            made = self._made.get(name)
            if made is None:  # a gauge without labels would say 0 before anybody set it
                made = self._made[name] = Gauge(name, METRICS[name].told, registry=self._registry)
        if isinstance(made, Gauge):
            (made.labels(*values) if values else made).set(value)

    def watch(self, states: Mapping[str, State]) -> None:
        """Take over what a supervisor knows of its children."""
        for name, state in states.items():
            self.set("coterie_up", float(state.running), process=name)
            self.total("coterie_restarts", state.restarts, process=name)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

    def _counter(self, name: str, values: tuple[str, ...]) -> Counter:
        made = self._made[name]
        if not isinstance(made, Counter):
            raise CoterieError(_no_such(name, "counter"))
        return made.labels(*values) if values else made

    def _values(self, name: str, kind: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        metric = METRICS.get(name)
        if metric is None or metric.kind != kind or set(labels) != set(metric.labels):
            raise CoterieError(_no_such(name, kind))
        values = tuple(labels[label] if _WORD.fullmatch(labels[label]) else "other" for label in metric.labels)
        seen = self._seen.setdefault(name, set())
        if values not in seen and len(seen) >= _MOST:
            return ("other",) * len(values)
        seen.add(values)
        return values


class ChildMetrics(Metrics):
    """The metrics of a supervisor: what it knows of its children is looked up whenever they are asked for.

    Args:
        states: Returns what is known of each child.
        tallies: Returns what each child counts, by its name; see `tally.py`.
    """

    def __init__(
        self,
        states: Callable[[], Mapping[str, State]],
        tallies: Callable[[str], Iterable[Count]] = lambda _: (),
    ) -> None:
        super().__init__()
        self._states, self._tallies = states, tallies

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        states = self._states()
        self.watch(states)
        for child in states:
            for count in self._tallies(child):
                with contextlib.suppress(CoterieError):  # a file that was altered names no counter
                    self.total(count.name, count.total, **count.labels)
        return super().text()


def _no_such(name: str, kind: str) -> Fault:
    return Fault(name, f"is no {kind} with these labels", "use what METRICS lists")
