"""What the remote engine asks of a server, and httpx2 behind it. Nothing else here knows HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import httpx2 as httpx

from app.bundle.manifest import MODALITIES, Modality
from app.bundle.sample import RawInputs
from app.score.engine import Model

_JSON_ROW_BYTES: Final = 8 * 1024  # in larger rows base64 costs more than the headers of a form's parts


class AskError(Exception):
    """A request was not answered as it should be."""


class Refused(AskError):
    """The server answered with an error for the request as a whole."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s


class Unreached(AskError):
    """There was no answer. `is_sent` says whether the server may have seen the request."""

    def __init__(self, code: str, detail: str, *, is_sent: bool) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.is_sent = is_sent


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """Of whom it is, and for each row, in order, what POST /v1/predict/batch has in docs/http.md."""

    digest: str
    rows: list[dict[str, Any]]


class RowClient(Protocol):
    """One server and one of its models. Everything raises Refused or Unreached."""

    async def describe(self) -> list[dict[str, Any]]:
        """The entries of GET /v1/models."""
        ...

    async def predict_batch(
        self, rows: Sequence[RawInputs], model: Model, *, top_k: int, explain: bool
    ) -> BatchAnswer: ...

    async def embed(self, row: RawInputs, model: Model) -> list[float]: ...

    async def close(self) -> None: ...


class HttpxClient:
    """RowClient over httpx2."""

    def __init__(self, url: str, *, key: str | None, timeout_s: float, connections: int) -> None:
        headers = {"X-Request-Priority": "batch", "X-Request-Deadline-Ms": str(int(timeout_s * 1000))}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(timeout_s + 5, connect=10),  # the server's own word comes first
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=4
            ),
        )

    async def describe(self) -> list[dict[str, Any]]:
        answer = await self._ask("GET", "/v1/models")
        models: list[dict[str, Any]] = answer["models"]
        return models

    async def predict_batch(
        self, rows: Sequence[RawInputs], model: Model, *, top_k: int, explain: bool
    ) -> BatchAnswer:
        fields: dict[str, Any] = {"model": model.name, "version": model.version, "top_k": top_k}
        if sum(map(_size, rows)) > _JSON_ROW_BYTES * len(rows):
            explained = {"explain": "true"} if explain else {}
            body: dict[str, Any] = {"files": _form(rows, fields | explained)}
        else:
            said = json.dumps({**fields, "explain": explain, "rows": [_json_row(row) for row in rows]})
            body = {"content": said.encode(), "headers": {"Content-Type": "application/json"}}
        answer = await self._ask("POST", "/v1/predict/batch", **body)
        return BatchAnswer(digest=answer["model"]["digest"], rows=answer["rows"])

    async def embed(self, row: RawInputs, model: Model) -> list[float]:
        fields = {"model": model.name, "version": model.version}
        parts = [(name.partition(".")[2] or name, value) for name, value in _form([row], fields)]
        answer = await self._ask("POST", "/v1/embed", files=parts)
        vector: list[float] = answer["embedding"]
        return vector

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, path: str, **body: Any) -> Any:
        try:
            request = self._client.build_request(method, path, **body)
            request.read()  # a form as one piece, else every header of a part is a write of its own
            response = await self._client.send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreached("unreachable", "The server cannot be reached.", is_sent=False) from error
        except httpx.TimeoutException as error:
            raise Unreached("timeout", "The server took too long to answer.", is_sent=True) from error
        except httpx.TransportError as error:
            raise Unreached(
                "connection_lost", "The connection broke before the answer.", is_sent=True
            ) from error
        if response.status_code == httpx.codes.OK:
            return json.loads(response.content)
        raise _refused(response)


def _refused(response: httpx.Response) -> Refused:
    """Also from what stands between, which speaks no problem JSON."""
    try:
        problem = json.loads(response.content)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = f"http_{response.status_code}", "The answer is not one of a Trichord server."
    return Refused(response.status_code, code, detail, retry_after_s=_retry_after_s(response.headers))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds, or the time of day when to come back."""
    said = headers.get("Retry-After", "")
    if said.isdecimal():
        return float(said)
    try:
        when = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds()) if when.tzinfo else None


def _size(row: RawInputs) -> int:
    return sum(len(body) for body in (row.image, row.text, row.audio) if body is not None)


def _json_row(row: RawInputs) -> dict[str, str]:
    said: dict[str, str] = {}
    if row.image is not None:
        said["image"] = base64.b64encode(row.image).decode()
    if row.text is not None:
        said["text"] = row.text.decode(errors="surrogateescape")
    if row.audio is not None:
        said["audio"] = base64.b64encode(row.audio).decode()
    return said


def _form(rows: Sequence[RawInputs], fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Parts as httpx takes them; a file name of None makes a plain field."""
    parts: list[tuple[str, Any]] = [(name, (None, str(value))) for name, value in fields.items()]
    for index, row in enumerate(rows):
        media: list[tuple[Modality, bytes | None]] = [(name, getattr(row, name)) for name in MODALITIES]
        for name, body in media:
            if body is not None:
                parts.append((f"rows[{index}].{name}", (None if name == "text" else name, body)))
    return parts
