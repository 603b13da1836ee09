"""API keys: who may ask what, before the body is read, and how keys change while the server runs."""

from __future__ import annotations

import asyncio
import hmac
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.api import keys
from app.api.authorize import needed
from app.api.keys import KeysInvalid, Scope, new_key
from tests import raw, tiny
from tests.server import Server, form, serving
from tests.test_cli import trichord


@dataclass(frozen=True)
class Guarded:
    """A server with a key file, and the keys in it."""

    server: Server
    path: Path
    keys: dict[str, str]

    def ask(self, method: str, path: str, key: str = "", **headers: str) -> httpx.Response:
        given = {"x-api-key": self.keys.get(key, key)} if key else {}
        return httpx.request(method, self.server.url + path, headers=given | headers)


def write(path: Path, **named: str) -> dict[str, str]:
    """A key file with a key of each name and these scopes; the keys."""
    made = {name: new_key(name, frozenset(map(Scope, scopes.split(",")))) for name, scopes in named.items()}
    path.write_text("# who may ask\n\n" + "".join(f"{line}\n" for _, line in made.values()))
    return {name: key for name, (key, _) in made.items()}


@pytest.fixture(scope="module")
def guarded(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    path = tmp_path_factory.mktemp("keys") / "keys"
    made = write(path, app="predict", ops="admin,metrics", all="predict,admin,metrics")
    with serving(models_dir, api_keys_file=path) as server:
        yield Guarded(server, path, made)


ROUTES = [
    ("GET", "/healthz", None), ("GET", "/readyz", None), ("GET", "/v2/health/live", None),
    ("GET", "/v2/health/ready", None), ("GET", "/v2/models/tiny/ready", None), ("GET", "/docs", None),
    ("GET", "/openapi.json", None), ("GET", "/metrics", "metrics"), ("GET", "/v1/admin/models", "admin"),
    ("POST", "/v2/repository/index", "admin"), ("GET", "/v1/models", "predict"),
    ("POST", "/v1/predict", "predict"), ("GET", "/v2/models/tiny", "predict"),
    ("POST", "/v2/models/tiny/infer", "predict"), ("GET", "/v1/nothing", "predict"),
    ("GET", "/nothing", "admin"), ("GET", "//healthz", "admin"),
]  # fmt: skip
SCOPES: dict[str, set[str]] = {"": set(), "tri_wrong": set(), "app": {"predict"}, "ops": {"admin", "metrics"}}


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_path_is_for_the_keys_of_its_scope(
    guarded: Guarded, method: str, path: str, scope: str | None
) -> None:
    for key, scopes in SCOPES.items():
        status = guarded.ask(method, path, key).status_code
        if scope is None or scope in scopes:
            assert status not in (401, 403), key
        else:
            assert status == (403 if scopes else 401), key
    assert guarded.ask(method, path, "all").status_code not in (401, 403)


TRICKS: dict[str, Callable[[str], str]] = {
    "a line feed": lambda path: f"{path}%0A",
    "a NUL": lambda path: f"{path}%00",
    "a slash at the end": lambda path: f"{path}/",
    "two slashes": lambda path: f"/{path}",
    "two slashes inside": lambda path: path.replace("/", "//"),
    "encoded slashes": lambda path: path[0] + path[1:].replace("/", "%2F"),
    "encoded letters": lambda path: "".join(one if one == "/" else f"%{ord(one):02X}" for one in path),
    "capitals": str.upper,
    "dots": lambda path: f"/healthz/..{path}",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_spelling_of_a_path_gets_a_key_past_a_scope_that_it_lacks(guarded: Guarded, trick: str) -> None:
    paths = httpx.get(f"{guarded.server.url}/openapi.json").json()["paths"]
    asked = [(method, path, needed(path)) for path, methods in paths.items() for method in methods]
    with httpx.Client(base_url=guarded.server.url) as http:
        for method, path, scope in asked:
            spelled = TRICKS[trick](path.format(name="tiny", version=1, job_id="job_1"))
            for key, scopes in SCOPES.items():
                if scope is None or scope in scopes:
                    continue
                answer = http.request(method, spelled, headers={"x-api-key": guarded.keys.get(key, key)})
                assert answer.status_code in (401, 403, 404), (method, spelled, key)


def test_every_route_of_the_server_is_in_a_scope_on_purpose(server: Server) -> None:
    open_paths = {
        path for path in httpx.get(f"{server.url}/openapi.json").json()["paths"] if not needed(path)
    }
    assert open_paths == {
        "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/{name}/ready",
        "/v2/models/{name}/versions/{version}/ready",
    }  # fmt: skip


def test_a_key_is_given_as_bearer_or_as_a_header_of_its_own(guarded: Guarded) -> None:
    key = guarded.keys["app"]
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"x-api-key": key},
    ):
        assert guarded.ask("GET", "/v1/models", **headers).status_code == 200
    for headers in ({"authorization": key}, {"authorization": f"Basic {key}"}, {"authorization": "Bearer"}):
        response = guarded.ask("GET", "/v1/models", **headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        assert guarded.ask("GET", "/v1/models", "app", **headers).status_code == 401, (
            "a wrong one is not passed over"
        )


def test_a_body_without_a_key_is_not_asked_for(guarded: Guarded) -> None:
    """The answer comes before the body; who waits for 100 Continue never gets it."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"
    with raw.connection(guarded.server.port) as connection:
        connection.sendall(head)
        [reply] = raw.replies(raw.received(connection))
    assert (reply.status, reply.code) == (401, "unauthorized")


def test_the_log_names_the_key_and_never_holds_it(guarded: Guarded) -> None:
    request_id = guarded.ask("GET", "/v1/models", "app").headers["x-request-id"]
    guarded.ask("GET", "/v1/models", "tri_wrong")
    time.sleep(0.1)
    [line] = [one for one in guarded.server.log_lines() if one.get("request_id") == request_id]
    assert line["key"] == "app"
    log = guarded.server.log.read_text()
    assert not any(key in log for key in (*guarded.keys.values(), "tri_wrong"))


def test_a_traceback_in_the_log_holds_no_variables() -> None:
    """They would be requests, with their keys."""
    code = """
import logging
from app.logs import configure
configure(style="json", level="info")
authorization = "tri_" + "secret"
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("app").exception("request failed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ZeroDivisionError" in done.stderr
    assert "tri_secret" not in done.stderr


def test_keys_are_rotated_while_requests_flow(models_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    old = write(path, old="predict")["old"]
    with serving(models_dir, api_keys_file=path) as server:

        async def client(key: list[str], done: asyncio.Event) -> set[int]:
            statuses = set()
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
                while not done.is_set():
                    files, headers = form(tiny.row(1)), {"x-api-key": key[0]}
                    statuses.add((await http.post("/v1/predict", files=files, headers=headers)).status_code)
            return statuses

        async def told(key: str, status: int) -> None:
            """The server has read the file."""
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
                while (await http.get("/v1/models", headers={"x-api-key": key})).status_code != status:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)

        async def rotation() -> list[set[int]]:
            used, done = [old], asyncio.Event()
            clients = [asyncio.create_task(client(used, done)) for _ in range(4)]
            line_of_old = path.read_text()
            new = write(path, new="predict")["new"]
            line_of_new = path.read_text()
            path.write_text(line_of_old + line_of_new)
            await told(new, 200)
            used[0] = new
            await asyncio.sleep(0.5)
            path.write_text(line_of_new)
            await told(old, 401)
            path.write_text("nonsense")
            while not any("the keys stay" in line["event"] for line in server.log_lines()):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
            done.set()
            return await asyncio.gather(*clients)

        assert asyncio.run(rotation()) == [{200}] * 4
        assert httpx.get(f"{server.url}/v1/models", headers={"x-api-key": old}).status_code == 401


def test_a_key_that_asks_too_often_is_told_when_to_come_back(models_dir: Path, tmp_path: Path) -> None:
    made = write(tmp_path / "keys", busy="predict", calm="predict")
    with serving(models_dir, api_keys_file=tmp_path / "keys", requests_per_second=0.5) as server:

        def ask(name: str) -> httpx.Response:
            return httpx.get(f"{server.url}/v1/models", headers={"x-api-key": made[name]})

        assert ask("busy").status_code == 200
        refused = ask("busy")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert ask("calm").status_code == 200
        time.sleep(int(refused.headers["retry-after"]))
        assert ask("busy").status_code == 200


def test_all_keys_are_compared_in_constant_time(tmp_path: Path) -> None:
    """Whichever of them it is, and also when it is the first."""
    path = tmp_path / "keys"
    made = [new_key(str(index), frozenset({Scope.PREDICT})) for index in range(5)]
    path.write_text("\n".join(line for _, line in made))
    known, compared = keys.KeyFile(path).keys, []

    def equal(one: str, other: str) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    assert keys.find(known, made[0][0].encode(), equal=equal) == known[0]
    assert compared == [key.digest for key in known]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("app predict", "line 1: not NAME SCOPES SHA256."),
        ("\napp write " + "0" * 64, "line 2: scopes are predict, admin, metrics."),
        ("app predict hunter2", "line 1: the digest is not 64 hexadecimal digits."),
        ("a/b predict " + "0" * 64, "line 1: a name has"),
        (
            "a predict " + "0" * 64 + "\nb predict " + "0" * 64,
            "two lines have the same digest.",
        ),
        (
            "a predict " + "0" * 64 + "\na admin " + "1" * 64,
            "two lines of one name have not the same scopes.",
        ),
    ],
)
def test_a_wrong_key_file_is_one_sentence_without_its_content(
    models_dir: Path, tmp_path: Path, content: str, sentence: str
) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    done = trichord("serve", "--models", models_dir, "--port", 0, TRICHORD_API_KEYS_FILE=str(path))
    assert done.returncode == 4
    [line] = [one for one in done.stderr.splitlines() if one.startswith("trichord: ")]
    assert sentence in line
    assert "hunter2" not in done.stderr


def test_the_command_makes_a_key_and_its_line(tmp_path: Path) -> None:
    done = trichord("key", "mobile-app", "--scope", "predict", "--scope", "metrics")
    key, line = done.stdout.splitlines()
    (tmp_path / "keys").write_text(line)
    found = keys.find(keys.KeyFile(tmp_path / "keys").keys, key.encode())
    assert found is not None
    assert (found.name, found.scopes) == ("mobile-app", {Scope.PREDICT, Scope.METRICS})
    assert trichord("key", "mobile app", "--scope", "predict").returncode == 2
    with pytest.raises(KeysInvalid):
        new_key("", frozenset())


def header_parameters(server: Server) -> set[str]:
    """What the routes say they read of a request's head."""
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"].values()
    parameters = [
        one for path in paths for operation in path.values() for one in operation.get("parameters", [])
    ]
    found = {one["name"] for one in parameters if one["in"] == "header"}
    assert "Idempotency-Key" in found
    return found


def test_browsers_of_other_pages_are_refused_unless_their_origin_is_named(
    server: Server, models_dir: Path, tmp_path: Path
) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx.get(f"{server.url}/v1/models", headers=asked).headers
    write(tmp_path / "keys", app="predict")
    with serving(
        models_dir, api_keys_file=tmp_path / "keys", cors_origins='["https://shop.example"]'
    ) as open_to:
        preflight = httpx.options(f"{open_to.url}/v1/predict", headers=asked)
        assert preflight.status_code == 200, "a browser asks this without a key"
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        for name in {"Inference-Header-Content-Length", "traceparent", *header_parameters(server)}:
            wish = asked | {"access-control-request-headers": name.lower()}
            assert httpx.options(f"{open_to.url}/v1/predict", headers=wish).status_code == 200, name
        answer = httpx.get(f"{open_to.url}/healthz", headers={"origin": "https://shop.example"})
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"Location", "Inference-Header-Content-Length", "Retry-After"} <= set(exposed)
        other = httpx.get(f"{open_to.url}/healthz", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
