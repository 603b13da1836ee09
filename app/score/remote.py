"""The engine behind a URL: rows packed into batch requests, as many at once as the server bears.

What harms a request may be anything on the way, so nothing is a row's fault until it failed alone: a request
that is refused as a whole, or breaks off again and again, is split in halves. Being sent away (429, 503) or
finding nobody counts against no row; it is tried again until `patience_s` have passed without any answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from app.bundle.sample import RawInputs
from app.score.columns import answer_of_wire
from app.score.engine import Failed, Load, Model, Outcome, Scored, Stage
from app.score.errors import EngineLost, NotAsked, Unreadable
from app.score.http import BatchAnswer, Refused, RowClient, Unreached
from app.score.pace import Gate, Limit, pause_s
from app.score.row import Row

_PACK_BYTES: Final = 4 * 2**20  # of one request, an eighth of what a server takes; a larger row goes alone
_START_S: Final = 10.0  # how long to look for a server that has not answered yet
_DECODING: Final = frozenset(
    {
        "no_modality", "invalid_parameter", "unsupported_media_type", "part_too_large", "image_too_large",
        "audio_too_long", "text_too_long", "invalid_image", "invalid_audio", "invalid_text", "body_too_large",
    }
)  # fmt: skip
_BUSY: Final = (429, 503)
_UNLUCKY: Final = (408, 500, 502, 504)  # may go better another time
_TRANSIENT: Final = ("overloaded", "draining", "not_ready", "deadline_exceeded")  # of a row among others
_NOBODY_ASKED: Final = (401, 403, 404)


@dataclass(frozen=True, slots=True)
class Asking:
    """How a server is asked."""

    batch_rows: int = 64
    most_at_once: int = 32
    retries: int = 5
    patience_s: float = 300.0
    top_k: int = 5
    embeddings: bool = False
    explanations: bool = False
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class _Loaded:
    row: Row
    raw: RawInputs


_Said = TypeVar("_Said")


@dataclass(frozen=True, slots=True)
class _Asked(Generic[_Said]):
    said: _Said
    seconds: float
    attempts: int


class _GaveUp(Exception):
    """A request that has no answer and will get none as it is."""

    def __init__(self, fault: Refused | Unreached, attempts: int) -> None:
        super().__init__(fault.detail)
        self.fault = fault
        self.attempts = attempts


async def find_model(client: RowClient, name: str | None) -> Model:
    """What the server serves under this name, or the only one that it serves; then the client is closed.

    Raises NotAsked or EngineLost.
    """
    try:
        entries = await _first_answer(client)
    finally:
        await client.close()
    fitting = [entry for entry in entries if name in (None, entry["name"])]
    served = ", ".join(sorted({entry["name"] for entry in entries})) or "none"
    if len({entry["name"] for entry in fitting}) != 1:
        raise NotAsked(f"Name one model with --model; the server has: {served}.")
    entry = max(fitting, key=lambda entry: int(entry["version"]))
    return Model(
        name=entry["name"],
        version=entry["version"],
        digest=entry["digest"],
        labels=len(entry["labels"]),
        is_multilabel=entry["task"] == "multilabel",
        has_sets=entry.get("prediction_set_level") is not None,
        most_bytes={part: limits["max_bytes"] for part, limits in entry["limits"].items()},
    )


async def _first_answer(client: RowClient) -> list[dict[str, Any]]:
    give_up_s = time.monotonic() + _START_S
    attempt = 0
    while True:
        attempt += 1
        try:
            return await client.describe()
        except Refused as error:
            if error.status not in _BUSY or time.monotonic() > give_up_s:
                raise EngineLost(f"The server does not say what it serves: {error.detail}") from error
        except Unreached as error:
            if time.monotonic() > give_up_s:
                raise EngineLost(f"{error.detail} Is the URL right, and the server up?") from error
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
        self._pause_s = pause_s
        self._connect = connect
        self._asking = asking
        self._limit = Limit(asking.most_at_once)
        self._batch_rows = asking.batch_rows
        self._retries = 0
        self._has_answered = False
        self._alive_s = time.monotonic()

    @property
    def load(self) -> Load:
        return Load(concurrency=self._limit.now, retries=self._retries)

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
        gate = Gate(self._limit)
        self._client = self._connect()
        self._alive_s = time.monotonic()
        try:
            while not stop.is_set():
                pack, failed = await asyncio.to_thread(self._next_pack, rows, stop)
                if not pack and not failed:
                    break
                asking.append(asyncio.create_task(self._answer_all(pack, failed, gate)))
                while len(asking) > self._room and not stop.is_set():
                    await self._hand_over(asking, outcomes, stop)
            while asking and not stop.is_set():
                await self._hand_over(asking, outcomes, stop)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await self._client.close()

    @property
    def _room(self) -> int:
        """Packs in memory: in order, some may be answered and wait for the first."""
        return self._limit.now * (4 if self._asking.ordered else 1)

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
        while len(pack) + len(failed) < self._batch_rows and size < _PACK_BYTES and not stop.is_set():
            row = next(rows, None)
            if row is None:
                break
            try:
                raw = row.load(self.model.most_bytes)
            except Unreadable as error:
                failed.append(Failed(row, "read", error.code, error.reason))
                continue
            pack.append(_Loaded(row, raw))
            size += sum(len(body) for body in (raw.image, raw.text, raw.audio) if body is not None)
        return pack, failed

    async def _answer_all(self, pack: list[_Loaded], failed: list[Failed], gate: Gate) -> list[Outcome]:
        answered = await self._answer(pack, gate) if pack else []
        if not failed:
            return answered
        return sorted([*answered, *failed], key=lambda outcome: outcome.row.position)

    async def _answer(self, pack: list[_Loaded], gate: Gate, *, unlucky: int = 0) -> list[Outcome]:
        """Outcomes in the pack's order. Raises EngineLost."""
        raws = [one.raw for one in pack]
        top_k = min(self._asking.top_k, self.model.labels)
        try:
            asked = await self._ask(
                lambda: self._client.predict_batch(
                    raws, self.model, top_k=top_k, explain=self._asking.explanations
                ),
                gate,
                unlucky=unlucky,
            )
        except _GaveUp as gave_up:
            return await self._split(pack, gate, gave_up)
        if asked.said.digest != self.model.digest:
            raise EngineLost("The server answers with another model than the one that this run began with.")
        self._limit.answered(asked.seconds)
        pairs = list(zip(pack, asked.said.rows, strict=True))
        may_ask = unlucky < self._asking.retries
        again = [one for one, said in pairs if may_ask and _is_transient(said)]
        final = [
            self._outcome(one, said, asked, gate)
            for one, said in pairs
            if not (may_ask and _is_transient(said))
        ]
        outcomes = list(await asyncio.gather(*final))
        if again:
            await asyncio.sleep(self._pause_s(unlucky + 1, retry_after_s=1.0))
            outcomes += await self._answer(again, gate, unlucky=unlucky + 1)
            outcomes.sort(key=lambda outcome: outcome.row.position)
        return outcomes

    async def _outcome(
        self, one: _Loaded, said: dict[str, Any], asked: _Asked[BatchAnswer], gate: Gate
    ) -> Outcome:
        if said["status"] != 200:
            error = said["error"]
            return _failed(one.row, error["code"], error["detail"], asked.attempts, seconds=asked.seconds)
        embedding = None
        if self._asking.embeddings:
            try:
                embedding = (await self._ask(lambda: self._client.embed(one.raw, self.model), gate)).said
            except _GaveUp as gave_up:
                return _failed(one.row, gave_up.fault.code, gave_up.fault.detail, gave_up.attempts)
        return Scored(one.row, answer_of_wire(said, embedding), asked.seconds)

    async def _split(self, pack: list[_Loaded], gate: Gate, gave_up: _GaveUp) -> list[Outcome]:
        """Ask again in halves; a row alone has failed."""
        fault = gave_up.fault
        if len(pack) == 1:
            if not self._has_answered and isinstance(fault, Refused) and fault.status in (400, 415, 422):
                raise EngineLost(f"The server does not understand what it is asked. {fault.detail}")
            return [_failed(pack[0].row, fault.code, fault.detail, gave_up.attempts)]
        half = len(pack) // 2
        if isinstance(fault, Refused) and fault.status in (413, 422):  # the server takes fewer rows at once
            self._batch_rows = max(1, min(self._batch_rows, half))
        return await self._answer(pack[:half], gate) + await self._answer(pack[half:], gate)

    # --- one request ------------------------------------------------------------------------------

    async def _ask(
        self, call: Callable[[], Awaitable[_Said]], gate: Gate, *, unlucky: int = 0
    ) -> _Asked[_Said]:
        """Ask until there is an answer. Raises _GaveUp, or EngineLost where no row can be answered."""
        attempt = 0
        while True:
            attempt += 1
            async with gate.enter():
                began_s = time.monotonic()
                try:
                    said = await call()
                except (Refused, Unreached) as error:
                    fault = error.with_traceback(None)  # whose frames hold the request's body
                    fault.__cause__ = fault.__context__ = None
                else:
                    self._alive_s = time.monotonic()
                    self._has_answered = True
                    return _Asked(said, self._alive_s - began_s, attempt)
            if _is_too_much(fault):
                self._limit.refused(began_s=began_s)
            unlucky += _may_be_its_fault(fault)
            if not _may_go_better(fault) or unlucky > self._asking.retries:
                raise _GaveUp(fault, attempt)
            self._check_patience(fault)
            self._retries += 1
            await asyncio.sleep(self._pause_s(attempt, retry_after_s=getattr(fault, "retry_after_s", None)))

    def _check_patience(self, fault: Refused | Unreached) -> None:
        silent_s = time.monotonic() - self._alive_s
        if silent_s > self._asking.patience_s:
            raise EngineLost(
                f"No answer for {silent_s:.0f} s. {fault.detail} "
                "What is finished is kept: run it again to go on."
            )


def _is_transient(said: dict[str, Any]) -> bool:
    """Whether a row among others may have an answer when it is asked again."""
    return said["status"] != 200 and said["error"]["code"] in _TRANSIENT


def _is_too_much(fault: Refused | Unreached) -> bool:
    return fault.status in _BUSY if isinstance(fault, Refused) else fault.code == "timeout"


def _may_be_its_fault(fault: Refused | Unreached) -> bool:
    """Whether the rows themselves may be what breaks the server."""
    return fault.status not in _BUSY if isinstance(fault, Refused) else fault.is_sent


def _may_go_better(fault: Refused | Unreached) -> bool:
    """Raises EngineLost where it never will, for any row."""
    if isinstance(fault, Unreached):
        return True
    if fault.status in _NOBODY_ASKED:
        raise EngineLost(f"The server refuses every row. {fault.detail}")
    return fault.status in _BUSY or fault.status in _UNLUCKY


def _failed(row: Row, code: str, reason: str, attempts: int, *, seconds: float = 0.0) -> Failed:
    stage: Stage = "decode" if code in _DECODING else "predict"
    return Failed(row, stage, code, reason, attempts=attempts, seconds=seconds)
