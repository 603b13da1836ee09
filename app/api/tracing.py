"""OpenTelemetry: FastAPI makes the span of a request and sends it where the standard variables say.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` nothing is made or sent; with it, trichord[otel] must be installed. Each
worker starts its own exporter when it starts serving. Metrics and logs stay Prometheus' and ours.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import trace

from app.serving.engine import Answer
from app.serving.model import LiveModel

TELEMETRY: Final[Any] = {"auto_configure": True, "metrics": False, "logs": False}


def note_answer(model: LiveModel, answer: Answer) -> None:
    """Add to the request's span, if there is one, where its time went. No user data."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(
            {
                "trichord.model": model.manifest.name,
                "trichord.version": model.manifest.version,
                "trichord.modalities": answer.prediction.used,
                "trichord.batch_size": answer.batch_size,
                "trichord.decode_ms": answer.timings.decode_s * 1000,
                "trichord.queue_ms": answer.timings.queue_s * 1000,
                "trichord.run_ms": answer.timings.run_s * 1000,
            }
        )
