"""An answer that grows while its request is still coming in: rows as lines, both ways.

At most `most_rows` are between their arrival and the sending of their answer. A client that does not read
its answers, or an engine with no place, thereby stops the reading of more, and memory stays flat whatever
the length of the stream.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api import answers, schemas
from app.api.errors import Refusal
from app.api.leaving import left
from app.api.lines import lines
from app.api.parameters import Parameters
from app.api.rows import Row, answer_row, fail_row, json_row
from app.api.service import Service
from app.api.strict_json import parse_json
from app.serving.errors import Draining, ServingError
from app.serving.schedule import Priority

NDJSON: Final = "application/x-ndjson"
_STALL_S: Final = 60.0  # a client that takes none of its answers for so long is taken for gone

_Answered = schemas.RowPrediction | schemas.RowFailure


class RowStream(Response):
    """Reads rows from the request while it answers them. Nothing of the request may have been read."""

    def __init__(
        self, service: Service, parameters: Parameters, *, timeout_s: float, most_rows: int, line_bytes: int
    ) -> None:
        self.status_code = 200
        self.media_type = NDJSON
        self.background = None
        self.init_headers()
        self._service = service
        self._parameters = parameters
        self._timeout_s = timeout_s
        self._most_rows = most_rows
        self._line_bytes = line_bytes
        self._free = asyncio.Semaphore(most_rows)
        self._is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        out = _Out(send, self)
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._read(request, out, tasks)
                leaving = tasks.create_task(_leave(request))
                for _ in range(self._most_rows):
                    await self._free.acquire()  # all of them are free when every answer is sent
                await out.end()
                leaving.cancel()
        except* (ClientDisconnect, TimeoutError):
            request.state.problem = "truncated_body"

    async def _read(self, request: Request, out: _Out, tasks: asyncio.TaskGroup) -> None:
        """Start a task for each line, the next when this one has its place. Raises ClientDisconnect."""
        index = 0
        async for line in lines(request.stream(), most=self._line_bytes):
            await self._free.acquire()
            placed = asyncio.Event()
            tasks.create_task(self._row(line, out, index=index, placed=placed))
            await placed.wait()
            if self._is_draining:
                return
            index += 1

    async def _row(self, line: bytes | None, out: _Out, *, index: int, placed: asyncio.Event) -> None:
        try:
            answered = await self._answer(line, index=index, placed=placed)
        finally:
            placed.set()
        await out.write(answered)
        self._free.release()

    async def _answer(self, line: bytes | None, *, index: int, placed: asyncio.Event) -> _Answered:
        started_s = time.perf_counter()
        row = await self._service.engine.in_thread(self._parsed, (index, line), priority=Priority.BATCH)
        try:
            if row.refused is not None:
                raise row.refused
            service = self._service
            async with service.engine.place(
                service.repository.expected_costs,
                priority=Priority.BATCH,
                timeout_s=self._timeout_s,
                size_bytes=len(line or b""),
            ) as place:
                placed.set()
                question = service.question(self._parameters)  # anew: a stream may outlive a version
                model = answers.model_ref(question.model)
                return await answer_row(service, place, question, row, started_s=started_s, model=model)
        except (Refusal, ServingError) as error:
            self._is_draining |= isinstance(error, Draining)
            return fail_row(self._service, error, index=index, row_id=row.id)

    def _parsed(self, numbered: tuple[int, bytes | None]) -> Row:
        index, line = numbered
        if line is None:
            detail = f"The line has more than {self._line_bytes} bytes. Send a smaller row."
            return Row(index, refused=Refusal("body_too_large", detail))
        try:
            return json_row(parse_json(line), index=index)
        except Refusal as refused:
            return Row(index, refused=refused)


class _Out:
    """The way back: one line at a time, and no faster than the client reads."""

    def __init__(self, send: Send, response: Response) -> None:
        self._send = send
        self._response = response
        self._turn = asyncio.Lock()
        self._has_begun = False

    async def write(self, answered: _Answered) -> None:
        """Raises TimeoutError if the client does not read."""
        await self._put(answered.model_dump_json(exclude_none=True).encode() + b"\n", is_last=False)

    async def end(self) -> None:
        await self._put(b"", is_last=True)

    async def _put(self, body: bytes, *, is_last: bool) -> None:
        async with self._turn, asyncio.timeout(_STALL_S):
            if not self._has_begun:
                self._has_begun = True
                headers = self._response.raw_headers
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})


async def _leave(request: Request) -> None:
    await left(request)
    raise ClientDisconnect
