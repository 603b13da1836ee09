"""The server as the remote engine sees it: app.client without its retries, and what errors mean to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from app import client
from app.client import AsyncClient, Retries, RowAnswer, TrichordError
from app.score.errors import NotAsked

_GRACE_S: Final = 5.0  # the server's own word comes first: of a batch that is late some rows are answered
_TIMING: Final = (408, 429)
_NOT_OURS: Final = "The answer is not one of a Trichord server."


class RowClient(Protocol):
    """What an engine asks of a server: a part of AsyncClient. Everything raises TrichordError."""

    async def models(self) -> tuple[client.Model, ...]: ...

    async def predict_batch(
        self,
        rows: Sequence[client.Row],
        *,
        model: str,
        version: int,
        top_k: int,
        explain: bool,
        priority: client.Priority,
    ) -> tuple[RowAnswer, ...]: ...

    async def embed(
        self,
        *,
        image: client.ImageInput | None,
        text: str | None,
        audio: client.AudioInput | None,
        model: str,
        version: int,
        priority: client.Priority,
    ) -> client.Embedding: ...

    async def close(self) -> None: ...


def connect(url: str, *, key: str | None, timeout_s: float, connections: int) -> AsyncClient:
    """A client for one event loop, that asks once. Raises NotAsked for a URL or key that cannot be one."""
    try:
        return AsyncClient(
            url,
            api_key=key,
            deadline_s=timeout_s,
            retries=Retries(most=0),
            connections=connections,
            grace_s=_GRACE_S,
        )
    except ValueError as error:
        raise NotAsked(str(error)) from error


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request has no answer. Holds nothing of the request, as its error does."""

    status: int | None  # None: nobody answered
    code: str
    detail: str
    is_sent: bool = True  # the server may have seen it
    retry_after_s: float | None = None

    @property
    def is_rows_own(self) -> bool:
        """Whether the rows are refused for what they hold."""
        return self.status is not None and 400 <= self.status < 500 and self.status not in _TIMING

    @classmethod
    def of(cls, error: TrichordError) -> Self:
        match error:
            case client.DeadlinePassed():
                return cls(None, "timeout", "The server took too long to answer.", error.is_sent)
            case client.ConnectionFailed() if error.is_sent:
                return cls(None, "connection_lost", "The connection broke before the answer.")
            case client.ConnectionFailed():
                return cls(None, "unreachable", "The server cannot be reached.", is_sent=False)
        if error.code in ("", "unknown"):  # of something that stands between, and speaks no problem JSON
            code, detail = f"http_{error.status}", _NOT_OURS
        else:
            code, detail = error.code, error.detail
        return cls(error.status, code, detail, retry_after_s=error.retry_after_s)
