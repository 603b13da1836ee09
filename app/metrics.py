"""Every Prometheus series, declared once.

Label values come from closed sets (route templates, live models, catalogue codes), so that no request
can add a series. One registry per server, not the library's global one: two servers in one process do
not count into each other.

Several workers of one server count into files, which whoever is scraped adds up. A file belongs to a slot,
not to a process: a replacement goes on counting where the dead one stopped, and no file is ever left over.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_POWERS_OF_TWO = (1, 2, 4, 8, 16, 32, 64, 128)


def share(slot: int) -> None:
    """Let this process count into the files of its slot. Before any Metrics are made."""
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def forget(folder: Path, slot: int) -> None:
    """A worker is gone, and with it what was true of its present; what it counted stays."""
    for file in folder.glob(f"gauge_live*_{slot}.db"):
        file.unlink()


class Metrics:
    """The series of one server. `shared` is the folder of its workers' files, if there are several."""

    def __init__(self, *, shared: Path | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a timestamp beside every series
        self._shared = shared
        self._registry = CollectorRegistry()
        self._live: set[tuple[str, ...]] = set()
        if shared is None:
            ProcessCollector(registry=self._registry)
        model = ("model", "version")
        self.requests = Counter(
            "trichord_requests",
            "Answered requests.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "trichord_request_seconds",
            "From the request's headers to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.rejected = Counter(
            "trichord_rejected", "Requests refused, by catalogue code.", ("code",), registry=self._registry
        )
        self.row_failures = Counter(
            "trichord_row_failures", "Rows of batches and streams refused, by catalogue code.", ("code",),
            registry=self._registry,
        )  # fmt: skip
        self.rows = Counter(
            "trichord_rows", "Rows answered, by the modalities they brought.", (*model, "modalities"),
            registry=self._registry,
        )  # fmt: skip
        self.decode_seconds = Histogram(
            "trichord_decode_seconds",
            "From a row's bytes to its arrays, with the wait for a decoding thread.",
            model,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.prepare_seconds = Histogram(
            "trichord_prepare_seconds",
            "From one modality's bytes to its array, once a decoding thread has it.",
            (*model, "modality"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queue_seconds = Histogram(
            "trichord_queue_seconds",
            "From prepared row to the start of its batch.",
            model,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.run_seconds = Histogram(
            "trichord_run_seconds",
            "One run of a batch, encoders and fusion together.",
            model,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.part_seconds = Histogram(
            "trichord_part_seconds",
            "One run of one graph: a modality's encoder, or fusion.",
            (*model, "part"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.elements = Counter(
            "trichord_elements",
            "Elements that encoders read (tokens, samples, images), padding included.",
            (*model, "part"),
            registry=self._registry,
        )
        self.padding = Counter(
            "trichord_padding",
            "Those of them that no row brought.",
            (*model, "part"),
            registry=self._registry,
        )
        self.batch_size = Histogram(
            "trichord_batch_size",
            "Rows answered by one run.",
            model,
            buckets=_POWERS_OF_TWO,
            registry=self._registry,
        )
        self.abandoned = Counter(
            "trichord_abandoned", "Rows whose client left before the answer.", ("priority",),
            registry=self._registry,
        )  # fmt: skip
        self.cache_lookups = Counter(
            "trichord_cache_lookups",
            "Inputs of answered rows that asked for the cache: hit, joined (being encoded) or miss.",
            (*model, "part", "outcome"),
            registry=self._registry,
        )
        self.cache_evictions = Counter(
            "trichord_cache_evictions", "Vectors that left the cache for want of room.",
            registry=self._registry,
        )  # fmt: skip
        self.jobs = Counter(
            "trichord_jobs", "Jobs that were made (submitted) or ended.", ("state",), registry=self._registry
        )
        self.job_rows = Counter(
            "trichord_job_rows", "Rows of jobs that are done: scored, or failed.", ("outcome",),
            registry=self._registry,
        )  # fmt: skip
        self.jobs_unfinished = Gauge(
            "trichord_jobs_unfinished",
            "Jobs that wait or run.",
            multiprocess_mode="livemostrecent",
            registry=self._registry,
        )
        self.job_rows_waiting = Gauge(
            "trichord_job_rows_waiting",
            "Rows of those that are not done.",
            multiprocess_mode="livemostrecent",
            registry=self._registry,
        )
        # The following are read from the engine when they are scraped.
        self.waiting = Gauge(
            "trichord_waiting",
            "Decoded rows that wait for their run.",
            ("priority",),
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self.open_rows = Gauge(
            "trichord_open_rows",
            "Rows let in and not yet answered.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self.open_bytes = Gauge(
            "trichord_open_bytes",
            "Bytes of their bodies.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self.cache_entries = Gauge(
            "trichord_cache_entries",
            "Vectors in the cache.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self.cache_bytes = Gauge(
            "trichord_cache_bytes",
            "Bytes of the cache.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self.running_seconds = Gauge(
            "trichord_running_seconds",
            "For how long the present run has been going.",
            multiprocess_mode="livemax",
            registry=self._registry,
        )
        self.model_info = Gauge(
            "trichord_model_info",
            "1 for each live bundle.",
            (*model, "digest", "device"),
            multiprocess_mode="livemax",
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        if self._shared is None:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(merged)

    def show_models(self, live: set[tuple[str, ...]]) -> None:
        """Let the info series be those of the live bundles, given by their labels."""
        for gone in self._live - live:
            if self._shared is None:
                self.model_info.remove(*gone)
            else:  # a shared file forgets nothing
                self.model_info.labels(*gone).set(0)
        for labels in live:
            self.model_info.labels(*labels).set(1)
        self._live = live
