"""Spans reach a collector, in their caller's trace, and say where time went; without one, none is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import tiny
from tests.server import form, serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = b"my diagnosis is private"


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Where to send, and the bodies that came to /v1/traces."""
    bodies: list[bytes] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Collect)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def spans(bodies: list[bytes]) -> dict[str, Any]:
    """Those of our trace, by name."""
    found = {}
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                found |= {span.name: span for span in scope.spans if span.trace_id.hex() == TRACE}
    return found


def test_a_request_is_a_span_in_its_callers_trace(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (endpoint, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        with serving(models_dir) as server:
            raw = tiny.row(1)
            files = [*form(raw)[:1], ("text", (None, SECRET)), form(raw)[2]]
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            httpx.post(f"{server.url}/v1/predict", files=files, headers=headers).raise_for_status()
        found = spans(bodies)  # what was not sent before is sent when the server stops
    request = found["POST /v1/predict"]
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    said = {one.key: one.value for span in found.values() for one in span.attributes}
    assert said["http.response.status_code"].int_value == 200
    assert said["trichord.model"].string_value == "tiny"
    assert said["trichord.batch_size"].int_value == 1
    for stage in ("decode", "queue", "run"):
        assert said[f"trichord.{stage}_ms"].double_value > 0
    assert SECRET not in b"".join(bodies)
