"""What an operator sees: models, probes, metrics, logs, docs, and an orderly end."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.bundle.folder import Bundle
from app.bundle.sample import RawInputs
from tests import tiny
from tests.server import Server, form, serving


def test_models_are_listed_with_what_they_accept(server: Server, bundle: Bundle) -> None:
    listed = httpx.get(f"{server.url}/v1/models").json()
    [model] = listed["models"]
    assert listed["refused"] == []
    assert (model["name"], model["version"], model["device"]) == ("tiny", 1, "cpu")
    assert model["digest"] == tiny.digest(bundle)
    assert model["labels"] == ["red", "green", "blue"]
    assert model["limits"]["image"]["max_pixels"] == 25_000_000
    assert model["limits"]["audio"]["max_seconds"] == 10
    assert model["limits"]["text"]["max_characters"] == 1000


def test_a_bundle_that_does_not_serve_is_listed_without_its_reason(tmp_path: Path) -> None:
    """The reason may name files; it is for the log. A good one that the plan does not want is not refused."""
    tiny.write(tmp_path, version=1)
    tiny.write(tmp_path, version=2)
    (tiny.write(tmp_path, version=3) / "fusion.onnx").write_bytes(b"changed")
    with serving(tmp_path) as server:
        listed = httpx.get(f"{server.url}/v1/models").json()
        assert listed["refused"] == [{"name": "tiny", "version": 3}]
        assert any("fusion.onnx" in line["event"] for line in server.log_lines())
        assert server.predict(tiny.row(1)).json()["model"]["version"] == 2


def test_probes_answer(server: Server) -> None:
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}


def test_metrics_count_what_happened(server: Server) -> None:
    before = server.metrics()
    server.predict(tiny.row(5, ("image", "audio")))
    server.predict(tiny.row(5, ("text",)), top_k="99")
    after = server.metrics()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    model = 'model="tiny",version="1"'
    assert grown('trichord_requests_total{method="POST",route="/v1/predict",status="200"}') == 1
    assert grown('trichord_rejected_total{code="invalid_parameter"}') == 1
    assert grown(f'trichord_rows_total{{modalities="image+audio",{model}}}') == 1
    for stage in ("decode", "queue", "run"):
        assert grown(f"trichord_{stage}_seconds_count{{{model}}}") == 1
    for modality in ("image", "audio"):
        assert grown(f'trichord_prepare_seconds_count{{modality="{modality}",{model}}}') == 1
    for part, runs in (("image", 1), ("audio", 1), ("fusion", 1)):
        assert grown(f'trichord_part_seconds_count{{model="tiny",part="{part}",version="1"}}') == runs
    assert after['trichord_waiting{priority="interactive"}'] == 0
    assert after["trichord_open_rows"] == 0
    assert after["trichord_open_bytes"] == 0


def test_no_request_can_add_a_series(server: Server) -> None:
    def strange(client: httpx.Client, index: int) -> None:
        client.get(f"/nothing/{index}")
        client.request(f"BREW{index}", "/v1/predict")
        client.post("/v1/predict", files=form(tiny.row(1, ("text",)), model=f"model{index}"))

    with httpx.Client(base_url=server.url) as client:
        strange(client, 0)  # the first of each kind makes the series of its status and code
        before = set(server.metrics())
        for index in range(1, 50):
            strange(client, index)
        assert set(server.metrics()) == before


def test_request_ids_go_in_and_out(server: Server) -> None:
    given = httpx.get(f"{server.url}/healthz", headers={"x-request-id": "my-id.7"})
    assert given.headers["x-request-id"] == "my-id.7"
    forged = httpx.get(f"{server.url}/healthz", headers={"x-request-id": "a b\tc"})
    assert re.fullmatch(r"[0-9a-f]{32}", forged.headers["x-request-id"])


def logged(server: Server, request_id: str) -> dict[str, Any]:
    """The request's log line, which is written after its answer."""
    give_up_s = time.monotonic() + 10
    while time.monotonic() < give_up_s:
        for line in server.log_lines():
            if line.get("request_id") == request_id:
                return line
    raise TimeoutError(request_id)


def test_log_lines_are_json_without_user_data(server: Server) -> None:
    secret = b"my diagnosis is private"
    response = server.predict(RawInputs(text=secret))
    line = logged(server, response.json()["request_id"])
    assert (line["event"], line["route"], line["status"]) == ("request", "/v1/predict", 200)
    assert b"diagnosis" not in server.log.read_bytes()


@pytest.mark.parametrize(("method", "path", "status", "code"), [
    ("GET", "/nothing", 404, "not_found"),
    ("GET", "/v1/predict", 405, "method_not_allowed"),
    ("DELETE", "/healthz", 405, "method_not_allowed"),
])  # fmt: skip
def test_wrong_paths_and_methods_are_problems(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    response = httpx.request(method, server.url + path)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_wrong_method_learns_all_right_ones(server: Server) -> None:
    def allowed(path: str) -> str:
        return httpx.request("PATCH", server.url + path).headers["allow"]

    assert allowed("/v1/admin/models/tiny") == "GET, HEAD, PUT"
    assert allowed("/v1/predict") == "POST"
    assert allowed("/openapi.json") == "GET, HEAD"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/metrics", "/docs", "/openapi.json"])
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    head, get = httpx.head(server.url + path), httpx.get(server.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    wrong = httpx.head(f"{server.url}/v1/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_no_path_leads_to_the_host_that_a_header_names(server: Server) -> None:
    answer = httpx.post(f"{server.url}/v1/predict/", headers={"host": "elsewhere"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_docs_page_needs_no_other_host(server: Server) -> None:
    page = httpx.get(f"{server.url}/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith("/"), f"{source} would be fetched from elsewhere"
        assert httpx.get(server.url + source).status_code == 200


def test_openapi_describes_the_form_and_its_refusals(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    operation = document["paths"]["/v1/predict"]["post"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(schema["properties"]) == {
        "image",
        "text",
        "audio",
        "model",
        "version",
        "top_k",
        "explain",
        "cache",
    }
    assert "no_modality" in operation["responses"]["422"]["description"]
    assert set(operation["responses"]) >= {"200", "400", "404", "413", "415", "422", "500", "503"}


def test_every_reference_of_openapi_leads_somewhere(server: Server) -> None:
    page = httpx.get(f"{server.url}/openapi.json")
    references = set(re.findall(r'"\$ref": ?"([^"]+)"', page.text))
    assert references
    for reference in references:
        entry = page.json()
        for step in reference.removeprefix("#/").split("/"):
            entry = entry[step]
