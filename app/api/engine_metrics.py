"""What the engine tells, as metrics."""

from __future__ import annotations

from collections.abc import Sequence

from app.metrics import Metrics
from app.runtime.predictor import PartRun
from app.serving.engine import Answer, Engine
from app.serving.model import LiveModel
from app.serving.repository import Repository
from app.serving.schedule import Priority


def model_labels(model: LiveModel) -> tuple[str, str]:
    """The labels model and version."""
    return model.manifest.name, str(model.manifest.version)


def show_live(metrics: Metrics, repository: Repository) -> None:
    """Let the info series be those of the live bundles."""
    metrics.show_models(
        {(*model_labels(model), model.manifest.digest, str(model.device)) for model in repository}
    )


def show_engine(metrics: Metrics, engine: Engine) -> None:
    """Let the gauges be what is true now."""
    for priority in Priority:
        metrics.waiting.labels(priority.value).set(engine.batcher.waiting(priority))
    metrics.open_rows.set(engine.batcher.open_rows)
    metrics.open_bytes.set(engine.batcher.open_bytes)
    metrics.cache_entries.set(len(engine.encodings.cache))
    metrics.cache_bytes.set(engine.encodings.cache.size_bytes)
    metrics.running_seconds.set(engine.batcher.running_s)


class EngineMetrics:
    """Observes batches; the routes add what they know of single rows."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def ran(self, work: object, parts: Sequence[PartRun], *, rows: int, seconds: float) -> None:
        assert isinstance(work, LiveModel), "the engine runs live models"
        labels = model_labels(work)
        self._metrics.batch_size.labels(*labels).observe(rows)
        self._metrics.run_seconds.labels(*labels).observe(seconds)
        for part in parts:
            self._metrics.part_seconds.labels(*labels, part.part).observe(part.seconds)
            self._metrics.elements.labels(*labels, part.part).inc(part.rows * part.length)
            self._metrics.padding.labels(*labels, part.part).inc(part.padding)

    def abandoned(self, priority: Priority) -> None:
        self._metrics.abandoned.labels(priority.value).inc()


def count_answer(metrics: Metrics, model: LiveModel, answer: Answer) -> None:
    """One row was answered."""
    labels = model_labels(model)
    metrics.rows.labels(*labels, "+".join(answer.prediction.used)).inc()
    metrics.decode_seconds.labels(*labels).observe(answer.timings.decode_s)
    metrics.queue_seconds.labels(*labels).observe(answer.timings.queue_s)
    for modality, seconds in answer.timings.prepare_s.items():
        metrics.prepare_seconds.labels(*labels, modality).observe(seconds)
    for modality, lookup in answer.lookups.items():
        metrics.cache_lookups.labels(*labels, modality, lookup.value).inc()
