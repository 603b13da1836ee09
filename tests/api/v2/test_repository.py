"""Index, load and unload by the real client, on a server of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests import tiny
from tests.api.v2.requests import error, media, post
from tests.server import Server, serving

Client = triton.InferenceServerClient


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    tiny.write(folder)
    tiny.write(folder, name="spare")
    (tiny.write(folder, name="broken") / "fusion.onnx").write_bytes(b"changed")
    with serving(folder) as server:
        yield server


@pytest.fixture(scope="module")
def client(own: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{own.port}") as connected:
        yield connected


def states(client: Client) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}


def test_unload_and_load(client: Client) -> None:
    assert states(client) == {"tiny": "READY", "spare": "READY", "broken": "UNAVAILABLE"}
    client.unload_model("spare")
    assert states(client)["spare"] in ("UNAVAILABLE", "UNLOADING")
    assert not client.is_model_ready("spare")
    with pytest.raises(InferenceServerException, match="No model of that name"):
        client.infer("spare", media([tiny.row(1)]))
    assert client.is_model_ready("tiny")
    client.load_model("spare")
    assert states(client)["spare"] == "READY"
    assert client.infer("spare", media([tiny.row(1)])).as_numpy("logits").shape == (1, 3)


def test_the_index_says_why_and_can_leave_out_what_is_not_ready(own: Server) -> None:
    index = post(own, b"", "/v2/repository/index").json()
    [broken] = [entry for entry in index if entry["name"] == "broken"]
    assert broken["version"] == "1"
    assert "fusion.onnx" in broken["reason"]
    ready = post(own, {"ready": True}, "/v2/repository/index").json()
    assert {entry["name"] for entry in ready} == {"tiny", "spare"}


def test_what_cannot_be_loaded_is_refused(client: Client) -> None:
    for action in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException) as unknown:
            action("other")
        assert unknown.value.status() == "404"
    with pytest.raises(InferenceServerException, match="No version of the model") as bad:
        client.load_model("broken")
    assert bad.value.status() == "409"


def test_no_request_brings_code_weights_or_settings(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="Files in a request"):
        client.load_model("spare", config="{}", files={"file:1/model.onnx": b"weights"})
    with pytest.raises(InferenceServerException, match="configuration in a request"):
        client.load_model("spare", config='{"backend": "python"}')
    client.load_model("spare", config="{}")


MALFORMED = [b"{", b"[]", b"[" * 100_000, b" " * 70_000, b"\xff", b"NaN", b"null"]


@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        ("index", [*MALFORMED, b'{"ready": 1}']),
        ("models/tiny/load", [*MALFORMED, b'{"parameters": []}']),
        ("models/tiny/unload", [*MALFORMED, b'{"parameters": {"unload_dependents": []}}']),
    ],
)
def test_malformed_bodies_change_nothing(own: Server, client: Client, path: str, bodies: list[bytes]) -> None:
    for body in bodies:
        response = post(own, body, f"/v2/repository/{path}")
        assert response.status_code in (400, 413), body
        assert error(response)
    assert client.is_model_ready("tiny")
