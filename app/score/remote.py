"""The engine behind a URL: rows packed into batch requests, as many at once as the server bears.

What harms a request may be anything on the way, so nothing is a row's fault until it failed alone: a request
that is refused as a whole, or breaks off again and again, is split in halves. Being sent away (429, 503), as
a whole or row by row, or finding nobody counts against no row; it is tried again until `patience_s` have
passed without any answer. Being late (504) counts only where no other request was on the way. What is too
much even then is split as well, and requests are smaller for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app import client
from app.bundle.manifest import MODALITIES
from app.client import RowAnswer, TrichordError
from app.rows.errors import Unreadable
from app.rows.letters import Stage
from app.rows.row import Row
from app.score.asker import BUSY, LATE, TOO_LARGE, Asked, Asker, GaveUp
from app.score.columns import answer
from app.score.engine import Failed, Load, Model, Outcome, Scored
from app.score.errors import EngineLost, NotAsked
from app.score.http import Fault, RowClient
from app.score.pace import Rate, Size, pause_s

_PACK_BYTES: Final = 4 * 2**20  # of one request, an eighth of what a server takes; a larger row goes alone
_HELD_BYTES: Final = 12 * 2**20  # of packs without an answer; each is in memory two or three times over
_START_S: Final = 10.0  # how long to look for a server that has not answered yet
_FOR_NOW: Final = (*BUSY, LATE)  # said of a row or of all: there is too much


@dataclass(frozen=True, slots=True)
class Asking:
    """How a server is asked."""

    batch_rows: int = 64
    most_at_once: int = 32
    retries: int = 5
    patience_s: float = 300.0
    per_second: float | None = None  # rows
    top_k: int = 5
    embeddings: bool = False
    explanations: bool = False
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class _Loaded:
    row: Row
    asked: client.Row
    size: int  # bytes


async def find_model(server: RowClient, name: str | None) -> Model:
    """What the server serves under this name, or the only one that it serves; then the client is closed.

    Raises NotAsked or EngineLost.
    """
    try:
        models = await _first_answer(server)
    finally:
        await server.close()
    fitting = [model for model in models if name in (None, model.name)]
    served = ", ".join(sorted({model.name for model in models})) or "none"
    if len({model.name for model in fitting}) != 1:
        raise NotAsked(f"Name one model with --model; the server has: {served}.")
    newest = max(fitting, key=lambda model: model.version)
    return Model(
        name=newest.name,
        version=newest.version,
        digest=newest.digest,
        labels=len(newest.labels),
        is_multilabel=newest.task == "multilabel",
        has_sets=newest.prediction_set_level is not None,
        most_bytes={name: newest.limits[name]["max_bytes"] for name in MODALITIES if name in newest.limits},
    )


async def _first_answer(server: RowClient) -> tuple[client.Model, ...]:
    give_up_s = time.monotonic() + _START_S
    attempt = 0
    while True:
        attempt += 1
        try:
            return await server.models()
        except TrichordError as error:
            fault, is_over = Fault.of(error), time.monotonic() > give_up_s
            if fault.status is None and is_over:
                raise EngineLost(f"{fault.detail} Is the URL right, and the server up?") from error
            if fault.status is not None and (is_over or fault.status not in BUSY):
                raise EngineLost(f"The server does not say what it serves: {fault.detail}") from error
        await asyncio.sleep(pause_s(min(attempt, 4)))


class RemoteEngine:
    """Rows through POST /v1/predict/batch. `connect` makes a client for the engine's own event loop."""

    def __init__(
        self,
        connect: Callable[[], RowClient],
        model: Model,
        asking: Asking,
        *,
        pause_s: Callable[..., float] = pause_s,
    ) -> None:
        self.model = model
        self._connect = connect
        self._asking = asking
        self._asker = Asker(
            most_at_once=asking.most_at_once,
            retries=asking.retries,
            patience_s=asking.patience_s,
            pause_s=pause_s,
        )
        self._size = Size(asking.batch_rows)
        self._rate = Rate(asking.per_second) if asking.per_second else None

    @property
    def load(self) -> Load:
        return Load(concurrency=self._asker.at_once, retries=self._asker.retries)

    def score(self, rows: Iterable[Row]) -> Generator[Outcome, None, None]:
        """See Engine. The event loop runs in a thread of its own, and waits for its outcomes to be taken."""
        outcomes: queue.Queue[list[Outcome] | BaseException | None] = queue.Queue(maxsize=16)
        stop = threading.Event()
        thread = threading.Thread(target=self._live, args=(iter(rows), outcomes, stop), name="asking")
        thread.start()
        try:
            while (several := outcomes.get()) is not None:
                if isinstance(several, BaseException):
                    raise several
                yield from several
        finally:
            stop.set()
            while thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    outcomes.get(timeout=0.05)
            thread.join()

    def _live(self, rows: Iterator[Row], outcomes: queue.Queue[Any], stop: threading.Event) -> None:
        try:
            asyncio.run(self._pump(rows, outcomes, stop))
        except BaseException as error:  # noqa: BLE001 - the thread that takes the outcomes raises it
            outcomes.put(error)
        else:
            outcomes.put(None)

    async def _pump(self, rows: Iterator[Row], outcomes: queue.Queue[Any], stop: threading.Event) -> None:
        """Read packs, keep as many on the way as the limit lets in and one more ready, hand outcomes over."""
        asking: deque[asyncio.Task[list[Outcome]]] = deque()
        sizes: dict[asyncio.Task[list[Outcome]], int] = {}  # of those without an answer
        self._client = self._connect()
        try:
            while not stop.is_set():
                pack, failed = await asyncio.to_thread(self._next_pack, rows, stop)
                if not pack and not failed:
                    break
                task = asyncio.create_task(self._answer_all(pack, failed))
                asking.append(task)
                sizes[task] = sum(one.size for one in pack)
                task.add_done_callback(sizes.pop)
                while (len(asking) > self._room or sum(sizes.values()) > _HELD_BYTES) and not stop.is_set():
                    await self._hand_over(asking, outcomes, stop)
            while asking and not stop.is_set():
                await self._hand_over(asking, outcomes, stop)
        finally:
            stop.set()  # whoever waits to read a row
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await self._client.close()

    @property
    def _room(self) -> int:
        """Packs in memory: in order, some may be answered and wait for the first."""
        return self._asker.at_once * (4 if self._asking.ordered else 1)

    async def _hand_over(
        self, asking: deque[asyncio.Task[list[Outcome]]], outcomes: queue.Queue[Any], stop: threading.Event
    ) -> None:
        if self._asking.ordered:
            await asyncio.wait([asking[0]], timeout=1)
            done = [asking[0]] if asking[0].done() else []
        else:
            done = list((await asyncio.wait(asking, timeout=1, return_when=asyncio.FIRST_COMPLETED))[0])
        for task in done:
            asking.remove(task)
            several = task.result()
            while not stop.is_set():
                try:
                    outcomes.put_nowait(several)
                    break
                except queue.Full:
                    await asyncio.sleep(0.005)

    # --- packs ----------------------------------------------------------------------------------

    def _next_pack(self, rows: Iterator[Row], stop: threading.Event) -> tuple[list[_Loaded], list[Failed]]:
        """Rows with their bytes, as many as fit into one request."""
        pack: list[_Loaded] = []
        failed: list[Failed] = []
        size = 0
        while len(pack) + len(failed) < self._size.now and size < _PACK_BYTES and not stop.is_set():
            row = next(rows, None)
            if row is None or stop.wait(self._rate.wait_s() if self._rate else 0):
                break
            try:
                raw = row.load(self.model.most_bytes)
            except Unreadable as error:
                failed.append(Failed(row, "read", error.code, error.reason))
                continue
            text = None if raw.text is None else raw.text.decode(errors="surrogateescape")
            bodies = (raw.image, raw.text, raw.audio)
            asked = client.Row(image=raw.image, text=text, audio=raw.audio)
            pack.append(_Loaded(row, asked, sum(len(body) for body in bodies if body is not None)))
            size += pack[-1].size
        return pack, failed

    async def _answer_all(self, pack: list[_Loaded], failed: list[Failed]) -> list[Outcome]:
        answered = await self._answer(pack) if pack else []
        if not failed:
            return answered
        return sorted([*answered, *failed], key=lambda outcome: outcome.row.position)

    async def _answer(self, pack: list[_Loaded]) -> list[Outcome]:
        """Outcomes in the pack's order. Raises EngineLost."""
        try:
            asked = await self._asker.ask(lambda: self._predict(pack), is_divisible=len(pack) > 1)
        except GaveUp as gave_up:
            return await self._split(pack, gave_up)
        pairs = list(zip(pack, asked.said, strict=True))
        again = [one for one, said in pairs if _is_refused(said)]
        final = [(one, said) for one, said in pairs if not _is_refused(said)]
        if again:
            self._asker.refused(began_s=asked.began_s)
        else:
            self._asker.answered(asked.seconds)
            self._size.answered(len(pack))
        vectors = await self._vectors(final)
        outcomes = [
            self._outcome(one, said, asked, vector)
            for (one, said), vector in zip(final, vectors, strict=True)
        ]
        if again:
            await self._asker.pause(1, retry_after_s=1.0)
            outcomes += await self._answer(again)
            outcomes.sort(key=lambda outcome: outcome.row.position)
        return outcomes

    async def _predict(self, pack: list[_Loaded]) -> tuple[RowAnswer, ...]:
        """Raises TrichordError, also where every row of the pack was refused for now, or EngineLost."""
        answers = await self._client.predict_batch(
            [one.asked for one in pack],
            model=self.model.name,
            version=self.model.version,
            top_k=min(self._asking.top_k, self.model.labels),
            explain=self._asking.explanations,
            priority="batch",
        )
        if any(said.digest != self.model.digest for said in answers):
            raise EngineLost("The server answers with another model than the one that this run began with.")
        refused = [said.error for said in answers if said.error is not None and _is_refused(said)]
        if len(refused) == len(pack):
            raise max(refused, key=lambda error: error.status in BUSY)
        return answers

    def _outcome(
        self,
        one: _Loaded,
        said: RowAnswer,
        asked: Asked[tuple[RowAnswer, ...]],
        vector: list[float] | GaveUp | None,
    ) -> Outcome:
        if said.error is not None:
            return _failed(one.row, Fault.of(said.error), asked.attempts, seconds=asked.seconds)
        if isinstance(vector, GaveUp):
            return _failed(one.row, vector.fault, vector.attempts)
        prediction = said.result()
        return Scored(one.row, answer(prediction, prediction.warnings, vector), asked.seconds)

    async def _vectors(
        self, answered: list[tuple[_Loaded, RowAnswer]]
    ) -> Sequence[list[float] | GaveUp | None]:
        """The embeddings of rows that have an answer, if they are asked for."""
        if not self._asking.embeddings:
            return [None] * len(answered)
        return await asyncio.gather(*(self._vector(one, said) for one, said in answered))

    async def _vector(self, one: _Loaded, said: RowAnswer) -> list[float] | GaveUp | None:
        if said.error is not None:
            return None
        try:
            return (await self._asker.ask(lambda: self._embed(one.asked), is_divisible=False)).said
        except GaveUp as gave_up:
            return gave_up

    async def _embed(self, row: client.Row) -> list[float]:
        found = await self._client.embed(
            image=row.image,
            text=row.text,
            audio=row.audio,
            model=self.model.name,
            version=self.model.version,
            priority="batch",
        )
        return found.vector.tolist()

    async def _split(self, pack: list[_Loaded], gave_up: GaveUp) -> list[Outcome]:
        """Ask again in halves; a row alone has failed."""
        fault = gave_up.fault
        if len(pack) == 1:
            if not self._asker.has_answered and fault.status in (400, 415, 422):
                raise EngineLost(f"The server does not understand what it is asked. {fault.detail}")
            return [_failed(pack[0].row, fault, gave_up.attempts)]
        half = len(pack) // 2
        if fault.status in (413, 422):  # the server takes fewer rows at once
            self._size.bound(half)
        elif fault.status in TOO_LARGE:
            self._size.lower(half)
        return await self._answer(pack[:half]) + await self._answer(pack[half:])


def _is_refused(said: RowAnswer) -> bool:
    """Whether a row has no answer only because there is too much."""
    return said.error is not None and said.error.status in _FOR_NOW


def _failed(row: Row, fault: Fault, attempts: int, *, seconds: float = 0.0) -> Failed:
    stage: Stage = "decode" if fault.is_rows_own else "predict"
    return Failed(row, stage, fault.code, fault.detail, attempts=attempts, seconds=seconds)
