"""Each code of the catalogue raises its class, with the id of the request."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import client as api
from app.api.errors import CATALOGUE
from app.client import AsyncClient, Client, Retries
from tests import openapi, tiny
from tests.api.test_keys import write
from tests.api.test_versions import until
from tests.client.scripted import PREDICTED, Say, refusal, scripted
from tests.server import Server, serving

ONCE = Retries(most=0)


def camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


def test_there_is_one_class_for_each_code() -> None:
    assert {code: kind.__name__ for code, kind in api.ERRORS.items()} == {
        code: camel(code) for code in CATALOGUE
    }
    for code, entry in CATALOGUE.items():
        base = api.RequestError if entry.status < 500 else api.ServiceError
        assert issubclass(api.ERRORS[code], base), code
        assert api.ERRORS[code].__doc__, code


def test_the_document_in_the_repository_has_no_other_codes() -> None:
    named = set(re.findall(r"`([a-z_]+)`", " ".join(_descriptions(json.loads(openapi.PAGE.read_text())))))
    assert {"overloaded", "no_modality"} <= named & set(CATALOGUE) <= set(api.ERRORS)


def _descriptions(document: object) -> Iterator[str]:
    match document:
        case dict():
            for name, value in document.items():
                if name == "description" and isinstance(value, str):
                    yield value
                yield from _descriptions(value)
        case list():
            for value in document:
                yield from _descriptions(value)


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_code_raises_its_class_and_keeps_all_that_was_said(code: str) -> None:
    with (
        scripted(refusal(code, retry_after="7")) as server,
        Client(server.url, retries=ONCE) as client,
        pytest.raises(api.TrichordError) as raised,
    ):
        client.predict(text="a")
    error = raised.value
    assert type(error) is api.ERRORS[code]
    assert (error.code, error.status, error.part) == (code, CATALOGUE[code].status, "text")
    assert (error.title, error.detail) == (CATALOGUE[code].title, "So it is.")
    assert (error.request_id, error.retry_after_s) == ("from-the-server", 7.0)
    assert "from-the-server" in str(error)


Call = Callable[[Client], object]

BROKEN_PNG = tiny.png((1, 2, 3), size=(64, 64))[:-30]

REAL: dict[str, Call] = {
    "model_not_found": lambda client: client.predict(model="none", text="a"),
    "invalid_parameter": lambda client: client.predict(top_k=4, text="a"),
    "no_modality": lambda client: client.predict(),
    "unsupported_media_type": lambda client: client.predict(image=b"GIF89a"),
    "invalid_image": lambda client: client.predict(image=BROKEN_PNG),
    "invalid_audio": lambda client: client.predict(audio=tiny.tone(440)[:40]),
    "invalid_text": lambda client: client.embed(text="\ud800"),
    "image_too_large": lambda client: client.predict(image=tiny.png((1, 2, 3), size=(5001, 5000))),
    "audio_too_long": lambda client: client.predict(audio=tiny.tone(440, seconds=10.5)),
    "text_too_long": lambda client: client.predict(text="a" * 1001),
    "part_too_large": lambda client: client.predict(image=bytes(2**20 + 1)),
    "body_too_large": lambda client: client.predict(image=bytes(2**22)),
}


@pytest.mark.parametrize("code", REAL)
def test_a_real_server_raises_it(server: Server, code: str) -> None:
    with Client(server.url, retries=ONCE) as client, pytest.raises(api.ERRORS[code]) as raised:
        REAL[code](client)
    assert type(raised.value) is api.ERRORS[code]
    assert_logged(server, raised.value)


def assert_logged(server: Server, error: api.TrichordError) -> None:
    """The server's log has the request under the id that the error names; it is written after the answer."""
    until(lambda: f'"{error.request_id}"' in server.log.read_text())


def test_a_real_server_that_wants_keys(models_dir: Path, tmp_path: Path) -> None:
    """Without one, with one for something else, with one used too often, and with one that is too long."""
    keys = write(tmp_path / "keys", app="predict", scrape="metrics")
    with serving(models_dir, api_keys_file=tmp_path / "keys", requests_per_second=0.5) as server:
        tries = [("", "unauthorized"), (keys["scrape"], "forbidden"), (keys["app"], "rate_limited")]
        for key, code in [*tries, ("k" * 33_000, "headers_too_large")]:
            with Client(server.url, api_key=key or None, retries=ONCE) as client:
                if code == "rate_limited":
                    assert client.predict(text="a").label
                with pytest.raises(api.ERRORS[code]) as raised:
                    client.predict(text="a")
                assert_logged(server, raised.value)
        with Client(server.url) as client:
            assert client.ready(), "probes need no key"


def test_a_real_server_that_has_no_time_left(server: Server) -> None:
    with Client(server.url, retries=ONCE, grace_s=10) as client:
        with pytest.raises(api.DeadlineExceeded) as raised:
            client.predict(image=tiny.png((1, 2, 3), size=(1000, 1000)), deadline_s=0.001)
        assert_logged(server, raised.value)


class Slow(io.BytesIO):
    """A file of which the second byte comes late."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() == 1:
            time.sleep(2.5)
        return super().read(1 if self.tell() == 0 else size)


def test_a_real_server_that_waits_no_longer(models_dir: Path) -> None:
    """For a body that does not come: its answer is there before the request is sent to its end."""
    with serving(models_dir, body_seconds=1) as server, Client(server.url, retries=ONCE) as client:
        with pytest.raises(api.RequestTimeout) as raised:
            client.predict(image=Slow(tiny.png((1, 2, 3))))
        assert_logged(server, raised.value)


def test_a_real_server_that_has_no_such_path(server: Server) -> None:
    with Client(f"{server.url}/elsewhere") as client, pytest.raises(api.NotFound) as raised:
        client.models()
    assert_logged(server, raised.value)


def test_a_real_server_that_is_full(models_dir: Path) -> None:
    """The connections that are allowed are taken: what the guard says before the application hears of it."""
    with serving(models_dir, max_connections=1) as server, Client(server.url, retries=ONCE) as first:
        assert first.predict(text="a").label
        with Client(server.url, retries=ONCE) as second, pytest.raises(api.Overloaded) as raised:
            second.predict(text="a")
        assert raised.value.retry_after_s == 1.0
        assert_logged(server, raised.value)


def test_the_asynchronous_client_raises_the_same(server: Server) -> None:
    async def ask() -> None:
        async with AsyncClient(server.url) as client:
            await client.predict(top_k=4, text="a")

    with pytest.raises(api.InvalidParameter) as raised:
        asyncio.run(ask())
    assert_logged(server, raised.value)


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        (Say(502, b"<html>"), api.ServiceError, "unknown"),
        (Say(418, b"[]"), api.RequestError, "unknown"),
        (Say(503, b'{"code": "asleep"}'), api.ServiceError, "asleep"),
        (Say(200, b"<html>"), api.UnreadableAnswer, ""),
        (Say(200, b'{"label": "red"}'), api.UnreadableAnswer, ""),
        (Say(200, b"[]"), api.UnreadableAnswer, ""),
        (Say(307, b"", {"location": "/"}), api.UnreadableAnswer, ""),
    ],
)
def test_what_is_in_no_catalogue_is_known_by_its_status(
    said: Say, kind: type[api.TrichordError], code: str
) -> None:
    with scripted(said) as server, Client(server.url, retries=ONCE) as client:
        with pytest.raises(api.TrichordError) as raised:
            client.predict(text="a")
        [asked] = server.asked
    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.status) == (code, said.status)
    assert raised.value.request_id == asked.headers["x-request-id"]


def test_an_error_survives_its_way_to_another_process() -> None:
    error = api.Overloaded("busy", status=503, request_id="abc", retry_after_s=2.0)
    same = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(same), str(same), vars(same)) == (api.Overloaded, "busy", vars(error))


def test_what_is_wrong_about_a_client_is_said_when_it_is_made() -> None:
    for url in ("localhost:8000", "http://", "http://localhost:port", "http://[::1"):
        with pytest.raises(ValueError, match="begins with http"):
            Client(url)
    with pytest.raises(ValueError, match="printable ASCII") as raised:
        AsyncClient("http://x", api_key="secret\n")
    assert "secret" not in str(raised.value)


def test_a_later_server_may_say_more() -> None:
    said = json.loads(PREDICTED.body)
    said |= {"mood": "good"}
    said["model"] |= {"colour": "blue"}
    said["top"][0] |= {"rank": 1}
    with scripted(Say(200, json.dumps(said).encode())) as newer, Client(newer.url) as client:
        assert client.predict(text="a").top == (api.ClassProbability("red", 0.75),)
