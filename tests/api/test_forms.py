"""The form reader against malformed bodies, on raw sockets."""

from __future__ import annotations

import json
import socket
from http.client import HTTPResponse

import httpx
import pytest

from tests import tiny
from tests.server import Server

BOUNDARY = "x-boundary-x"
GOOD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\nsept\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="d.png"\r\n\r\n'
).encode() + tiny.png((1, 2, 3)) + f"\r\n--{BOUNDARY}--\r\n".encode()  # fmt: skip
CLOSED = GOOD.rindex(b"--") + 2  # all that follows is an epilogue, which a form may have or not


def post(server: Server, body: bytes, content_type: str | None = None, **headers: str) -> httpx.Response:
    kind = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    return httpx.post(f"{server.url}/v1/predict", content=body, headers={"content-type": kind, **headers})


def part(name: str, body: str = "1", extra: str = "") -> str:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n{body}\r\n'


def form(*parts: str) -> bytes:
    return ("".join(parts) + f"--{BOUNDARY}--\r\n").encode()


def test_the_good_form_is_good(server: Server) -> None:
    assert post(server, GOOD).json()["modalities"]["used"] == ["image", "text"]


def test_a_form_cut_anywhere_is_never_answered(server: Server) -> None:
    """A lost last part would be a missing modality: another question than the one asked."""
    with httpx.Client(base_url=server.url) as client:
        for length in range(CLOSED):
            response = client.post(
                "/v1/predict",
                content=GOOD[:length],
                headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
            )
            assert response.status_code == 400, length
            assert response.json()["code"] in ("truncated_body", "bad_multipart")
    assert post(server, GOOD[: CLOSED - 2]).json()["code"] == "truncated_body"


def test_a_connection_cut_in_the_body_leaves_the_server_well(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(GOOD)}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        )
        raw.sendall(head.encode() + GOOD[:50])
    assert post(server, GOOD).status_code == 200


def test_chunks_of_one_byte_are_read(server: Server) -> None:
    response = httpx.post(
        f"{server.url}/v1/predict",
        content=(bytes([byte]) for byte in GOOD),
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "truncated_body"),
        (form(), 422, "no_modality"),
        (b"garbage", 400, "bad_multipart"),
        (form(part("text"), part("text")), 400, "bad_multipart"),
        (form(part("video")), 422, "invalid_parameter"),
        (form(part("")), 400, "bad_multipart"),
        (form(f"--{BOUNDARY}\r\nContent-Disposition: attachment\r\n\r\nx\r\n"), 400, "bad_multipart"),
        (form(f"--{BOUNDARY}\r\n\r\nno headers\r\n"), 400, "bad_multipart"),
        (form(part("text", extra='"\r\nContent-Transfer-Encoding: base64')), 400, "bad_multipart"),
        (form(part("text", extra="\r\nContent-Disposition: form-data; name=image")), 400, "bad_multipart"),
        (form(part("text", extra="\r\nA: 1" * 9)), 400, "bad_multipart"),
        (form(part("text", extra="\r\nA: " + "1" * 2000)), 400, "bad_multipart"),
        (form(part("model", "m" * 65), part("text")), 413, "part_too_large"),
    ],
)
def test_malformed_forms_have_their_codes(server: Server, body: bytes, status: int, code: str) -> None:
    response = post(server, body)
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/embed", "/v1/predict/batch"])
def test_parameters_in_the_query_are_not_passed_over(server: Server, path: str) -> None:
    refused = httpx.post(f"{server.url}{path}?model=nobody", files={"text": (None, "sept")})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    assert "Leave the query out" in refused.json()["detail"]


def test_a_file_field_left_alone_in_a_browser_is_absent(server: Server) -> None:
    body = form(part("image", "", extra='; filename=""'), part("text", "sept"))
    assert post(server, body).json()["modalities"]["used"] == ["text"]


@pytest.mark.parametrize(
    ("content_type", "headers", "status", "code"),
    [
        ("application/json", {}, 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", {}, 415, "unsupported_media_type"),
        ("multipart/mixed; boundary=x", {}, 415, "unsupported_media_type"),
        ("multipart/form-data", {}, 400, "bad_multipart"),
        (f"multipart/form-data; boundary={'b' * 71}", {}, 400, "bad_multipart"),
        (None, {"content-encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
def test_other_bodies_are_refused(
    server: Server, content_type: str | None, headers: dict[str, str], status: int, code: str
) -> None:
    response = post(server, GOOD, content_type, **headers)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_body_announced_too_large_is_refused_unread(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        head = (
            "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        )
        raw.sendall(head.encode())
        answer = HTTPResponse(raw)
        answer.begin()
        assert answer.status == 413
        assert json.load(answer)["code"] == "body_too_large"


def test_a_body_that_turns_out_too_large_is_refused(server: Server) -> None:
    endless = (bytes(65536) for _ in range(64))
    head = form(part("text", "x"))[:-4].replace(b"--\r\n", b"")
    response = httpx.post(
        f"{server.url}/v1/predict",
        content=(chunk for source in ((head,), endless) for chunk in source),
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    assert response.status_code in (400, 413)
