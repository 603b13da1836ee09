"""What a connection may send, and how slowly, before the application hears of it.

A subclass of uvicorn's connection; no other file knows its insides, and a test fails when they change.
uvicorn itself sets no limit to headers and no time to a request that is still being sent, so a few silent
connections would hold all of its files. Time between requests stays on uvicorn's own keep-alive timer.

    HEAD      its headers arrive         limits.header_s, MAX_HEADERS, MAX_HEADER_BYTES
    BODY      its body arrives           limits.body_s, longer by a second for every BODY_BYTES_PER_S received
    ANSWERING it is complete             the application's deadlines
    REST      answered before its end    LINGER_S to send the rest, which nobody reads
    IDLE      the next has not begun     uvicorn's keep-alive
    CLOSING   refused                    LINGER_S to read why
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.framing import MAX_HEADER_BYTES, MAX_HEADERS, answer, is_sound
from app.api.stopping import Stopping

BODY_BYTES_PER_S = 50_000  # a poor mobile uplink
LINGER_S = 2.0  # closing at once while bytes arrive would reset the connection before its answer is read
SLOW_READER_S = 60.0  # for a client that does not take its answer; a stream goes at its reader's pace
LAST_WORDS_S = 0.2  # when stopping, for a request that is on its way already
_SPARE_CONNECTIONS = 64  # beyond the cap, connections are still told why before they close


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    header_s: float
    body_s: float
    max_connections: int


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    REST = auto()
    IDLE = auto()
    CLOSING = auto()


class _Refused(Exception):
    """Leaves a callback of the parser, which ends the request."""


class Guarded(HttpToolsProtocol):
    """One connection. `refused` is told the code of every request that the application never hears of."""

    def __init__(
        self, *, limits: ConnectionLimits, stopping: Stopping, refused: Callable[[str], None], **given: Any
    ) -> None:
        super().__init__(**given)
        self.logger = logging.getLogger(__name__)  # apart from uvicorn's, whose life is worth a line
        self._limits = limits
        self._stopping = stopping
        self._refused = refused
        self._fault = "bad_request"
        self._phase = _Phase.HEAD
        self._stage = 0  # counts phases, so that a timer knows whether it still means the present one
        self._timed_stage = -1
        self._timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._body_since_s = 0.0

    # --- events of the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        excess = len(self.connections) - self._limits.max_connections
        if excess > _SPARE_CONNECTIONS:
            transport.abort()
        elif excess > 0:
            self._refuse("overloaded")
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.CLOSING:
            return
        if self._phase is _Phase.IDLE:
            self._enter(_Phase.HEAD)
        stage, head_bytes = self._stage, self._head_bytes
        super().data_received(data)
        if self._phase is _Phase.HEAD and self._stage == stage:
            self._head_bytes = head_bytes + len(data)  # the parser keeps an unfinished header to itself
            if self._head_bytes > MAX_HEADER_BYTES:
                self._refuse("headers_too_large")
        self._set_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_waiting_for_reader()
        self._reader_timer = self.loop.call_later(SLOW_READER_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_waiting_for_reader()
        super().resume_writing()

    # --- events of the parser -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._phase is not _Phase.HEAD:
            self._enter(_Phase.HEAD)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._phase is not _Phase.HEAD:
            return  # a trailer: it comes after the headers were judged, so nobody may see it
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._fault = "headers_too_large"
            raise _Refused

    def on_headers_complete(self) -> None:
        parser = self.parser
        is_upgrade = parser.should_upgrade() or parser.get_method() == b"CONNECT"
        if not is_sound(self.headers, version=parser.get_http_version(), is_upgrade=is_upgrade):
            raise _Refused
        self._enter(_Phase.BODY)
        self._body_bytes, self._body_since_s = 0, self.loop.time()
        super().on_headers_complete()
        if self._stopping.begun or is_upgrade:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._enter(_Phase.ANSWERING)
        if self.cycle.response_complete:  # an early refusal, whose sender went on to the end
            self._enter(_Phase.IDLE)
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # --- events of the server -----------------------------------------------------------------

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if self._phase is _Phase.CLOSING and is_last:
            self.transport.close()
        if not self.cycle.response_complete or self.transport.is_closing():
            return
        if self._phase is _Phase.ANSWERING:
            self._enter(_Phase.IDLE)
        elif self._phase is _Phase.BODY:
            self._unset_keepalive_if_required()
            self._enter(_Phase.REST)
            self._set_timer()

    def shutdown(self) -> None:
        """Told to stop: an unfinished head is not waited for, a request that has been let in is."""
        if self._phase in (_Phase.BODY, _Phase.ANSWERING):
            super().shutdown()
        else:
            self.loop.call_later(LAST_WORDS_S, super().shutdown)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the words are uvicorn's, the answer ours
        self._refuse(self._fault)

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn would log two warnings; to answer in HTTP/1.1 is all that the standard asks."""

    # --- inside -------------------------------------------------------------------------------

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._stage += 1
        self._head_bytes = 0

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEADER_BYTES:
            self._fault = "headers_too_large"
            raise _Refused

    def _set_timer(self) -> None:
        """One timer, set only for a request whose parts did not arrive together."""
        if self._stage == self._timed_stage:
            return
        self._cancel_timer()
        waits = {
            _Phase.HEAD: self._limits.header_s,
            _Phase.BODY: self._limits.body_s,
            _Phase.REST: LINGER_S,
            _Phase.CLOSING: LINGER_S,
        }
        if self._phase in waits:
            self._timed_stage = self._stage
            self._timer = self.loop.call_later(waits[self._phase], self._expire)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timed_stage = -1

    def _stop_waiting_for_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _expire(self) -> None:
        self._cancel_timer()
        if self._phase in (_Phase.REST, _Phase.CLOSING) or self._is_silent():
            self.transport.close()
            return
        more_s = self._more_body_s() if self._phase is _Phase.BODY else 0.0
        if more_s > 0:
            self._timed_stage = self._stage
            self._timer = self.loop.call_later(more_s, self._expire)
        else:
            self._refuse("request_timeout")
            self._set_timer()

    def _is_silent(self) -> bool:
        """Nothing was ever asked here, so nothing is answered: browsers connect ahead of need."""
        return self._phase is _Phase.HEAD and not self._head_bytes and self.cycle is None

    def _more_body_s(self) -> float:
        """Seconds that the body's sender has left. Time that we did not read in is not theirs."""
        is_conversation = self.cycle.response_started and self._body_bytes > 0
        if self.flow.read_paused or is_conversation:
            self._body_bytes, self._body_since_s = 0, self.loop.time()
            return self._limits.body_s
        earned_s = self._limits.body_s + self._body_bytes / BODY_BYTES_PER_S
        return self._body_since_s + earned_s - self.loop.time()

    def _refuse(self, code: str) -> None:
        """Answer, unless an answer is already on its way, and close."""
        if self.transport.is_closing():
            return
        was = self._phase
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's own type leaves out that it may be None
        self._unset_keepalive_if_required()
        self._enter(_Phase.CLOSING)
        if cycle is None or cycle.response_complete:
            self._refused(code)
            self._say(code, is_answered=was is _Phase.REST)
        elif was is _Phase.BODY and not self.pipeline:  # the application has begun on it, and counts it
            cycle.scope["state"]["refused"] = code
            cycle.disconnected = True
            cycle.message_event.set()
            self._say(code, is_answered=cycle.response_started)
        else:  # those before it are complete and get their answers; on_response_complete will close
            self._refused(code)
            self._cancel_timer()
            self._timed_stage = self._stage
            if was is _Phase.BODY:
                self.pipeline.popleft()

    def _say(self, code: str, *, is_answered: bool) -> None:
        if is_answered:
            self.transport.close()
        else:
            self.transport.write(answer(code, self.server_state.default_headers))
            self.transport.write_eof()
