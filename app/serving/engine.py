"""From a raw row to its answer: admitted, decoded, batched, interpreted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from app.bundle.interpret import Prediction, RowOutputs
from app.bundle.manifest import Modality
from app.bundle.sample import InputWarning, RawInputs, Sample
from app.serving.batcher import Batched, Batcher, Job, Observer, deadline_exceeded
from app.serving.cache import Encodings, FeatureCache, Lookup
from app.serving.cost import CostModel
from app.serving.decoders import Decoders
from app.serving.errors import Overloaded
from app.serving.model import LiveModel
from app.serving.schedule import Priority, Schedule, Ticket

_LEAST_WAIT_S, _MOST_WAIT_S = 0.005, 0.1  # between two tries to get a place

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine takes on."""

    max_batch_size: int
    max_rows: int  # let in and not yet answered
    max_bytes: int  # of the bodies of those rows
    hang_s: float  # a run of more is taken for one that never ends


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a row's time went, in seconds."""

    decode_s: float
    queue_s: float
    run_s: float
    prepare_s: Mapping[Modality, float] = field(default_factory=dict)  # of `decode_s`, by modality


@dataclass(frozen=True, slots=True)
class Answer:
    prediction: Prediction
    outputs: RowOutputs
    warnings: tuple[InputWarning, ...]
    timings: Timings
    batch_size: int
    lookups: Mapping[Modality, Lookup] = field(
        default_factory=dict
    )  # of the inputs that were looked for in the cache


class Engine:
    """One executor, and threads that decode for it. An async context manager: leaving answers who is in.

    With a cache, rows that ask for it are spared what was encoded before.
    """

    def __init__(
        self, limits: Limits, *, decode_threads: int, observer: Observer, cache: FeatureCache | None = None
    ) -> None:
        schedule: Schedule[Job[Sample, RowOutputs]] = Schedule(
            max_batch_size=limits.max_batch_size, max_rows=limits.max_rows, max_bytes=limits.max_bytes
        )
        self.batcher: Batcher[Sample, RowOutputs] = Batcher(schedule, observer=observer, hang_s=limits.hang_s)
        self.max_batch_size = limits.max_batch_size
        self.has_cache = cache is not None
        self.encodings = Encodings(FeatureCache(max_bytes=0) if cache is None else cache)
        self.decoders = Decoders(decode_threads)

    async def __aenter__(self) -> Self:
        await self.batcher.__aenter__()
        return self

    async def __aexit__(self, *exit_info: object) -> None:
        await self.batcher.__aexit__(*exit_info)
        self.decoders.close()

    @contextmanager
    def admit(
        self, costs: CostModel, *, priority: Priority, timeout_s: float, size_bytes: int
    ) -> Iterator[Place]:
        """A place for one row, before its body is read. `costs` are of the model that it will probably ask.

        Raises Overloaded, Draining or NotReady.
        """
        with self.batcher.admit(
            costs, priority=priority, timeout_s=timeout_s, size_bytes=size_bytes
        ) as ticket:
            yield Place(self, ticket, costs)

    @asynccontextmanager
    async def place(
        self,
        costs: Callable[[], CostModel],
        *,
        priority: Priority,
        timeout_s: float,
        size_bytes: int,
    ) -> AsyncIterator[Place]:
        """Wait for a place for one row. The time that this takes is part of its `timeout_s`.

        Raises Overloaded if there is none in all that time, Draining or NotReady.
        """
        give_up_s = time.monotonic() + timeout_s
        with ExitStack() as stack:
            while True:
                left_s = give_up_s - time.monotonic()
                try:
                    place = stack.enter_context(
                        self.admit(costs(), priority=priority, timeout_s=left_s, size_bytes=size_bytes)
                    )
                    break
                except Overloaded as refused:
                    if left_s < _MOST_WAIT_S:
                        raise
                    wait_s = min(max(refused.retry_after_s, _LEAST_WAIT_S), _MOST_WAIT_S)
                await asyncio.sleep(wait_s)
            yield place

    async def in_thread(self, function: Callable[[T], U], argument: T, *, priority: Priority) -> U:
        """Wait for `function(argument)` in a thread that decodes, or raise what it raised."""
        return await self.decoders.call(function, argument, priority=priority)

    async def run_all(
        self, model: LiveModel, rows: Sequence[tuple[Place, Sample]]
    ) -> list[Batched[RowOutputs] | Exception]:
        """Run rows that are prepared, together where there is room; what became of each, in order."""
        return await self.batcher.submit_all(
            model, [(place.ticket, sample, model.cost_s(sample)) for place, sample in rows]
        )


class Place:
    """One row's way through the engine."""

    def __init__(self, engine: Engine, ticket: Ticket[Job[Sample, RowOutputs]], costs: CostModel) -> None:
        self._engine = engine
        self.ticket = ticket
        self._costs = costs

    @property
    def priority(self) -> Priority:
        return self.ticket.priority

    def arrived(self) -> None:
        """The row's body is in; from now on its wait is ours."""
        self._engine.batcher.arrived(self.ticket)

    def grow(self, size_bytes: int) -> None:
        """The row's body takes so many bytes at least. Raises Overloaded if there is no room for them."""
        self._engine.batcher.grow(self.ticket, size_bytes)

    @contextmanager
    def with_more(self, rows: int) -> Iterator[list[Place]]:
        """This place and others for a request that turned out to hold `rows`, by the same deadline.

        All or none: raises Overloaded, Draining or NotReady, or DeadlineExceeded if nobody else is in, so
        that to try again would not help. Their bytes are counted with the first.
        """
        with ExitStack() as stack:
            places = [self]
            try:
                while len(places) < rows:
                    places.append(stack.enter_context(self._another()))
            except Overloaded:
                if self._engine.batcher.open_rows > len(places):
                    raise
                raise deadline_exceeded() from None
            yield places

    @contextmanager
    def _another(self) -> Iterator[Place]:
        batcher, first = self._engine.batcher, self.ticket
        with batcher.admit(
            self._costs, priority=first.priority, timeout_s=batcher.left_s(first), size_bytes=0
        ) as ticket:
            yield Place(self._engine, ticket, self._costs)

    async def answer(
        self, model: LiveModel, raw: RawInputs, *, top_k: int, cached: bool = False, explained: bool = False
    ) -> Answer:
        """Decode, run, interpret. Raises InputError, DeadlineExceeded or NonFiniteOutput.

        A row that is `cached` uses and feeds the engine's cache, if there is one. One that is `explained` is
        fused for each subset of its modalities, in the one run, and costs so much more.
        """
        engine, ticket = self._engine, self.ticket
        self.arrived()
        started_s = time.perf_counter()
        keys = {}
        if cached and engine.has_cache:
            async with self.in_time():
                keys = await engine.in_thread(model.encoding_keys, raw, priority=ticket.priority)
        with engine.encodings.claim(keys, lane=ticket.priority) as claim:
            await claim.join(timeout_s=engine.batcher.left_s(ticket))
            rest = claim.rest(raw)
            is_known = claim.ready and not rest.present
            sample = claim.complete(Sample() if is_known else await self.prepare(model, rest))
            sample = replace(sample, is_explained=explained)
            decode_s = time.perf_counter() - started_s
            batched = await self.run(model, sample)
            engine.encodings.keep(claim, sample, batched.value.named_features(model.manifest))
        prediction = model.predictor.interpret(batched.value, sample, top_k=top_k)
        timings = Timings(decode_s, batched.queue_s, batched.run_s, prepare_s=sample.prepare_s)
        return Answer(prediction, batched.value, sample.warnings, timings, batched.batch_size, claim.lookups)

    async def prepare(self, model: LiveModel, raw: RawInputs) -> Sample:
        """Decode in a thread, so that neither the event loop nor the executor waits for it.

        Raises InputError or DeadlineExceeded.
        """
        async with self.in_time():
            return await self._engine.in_thread(model.predictor.prepare, raw, priority=self.priority)

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """Leave the block at the row's deadline. Raises DeadlineExceeded."""
        return self._engine.batcher.in_time(self.ticket)

    async def run(self, model: LiveModel, sample: Sample) -> Batched[RowOutputs]:
        """Run a row that is prepared. Raises DeadlineExceeded, or what the model raised for it."""
        return await self._engine.batcher.submit(self.ticket, model, sample, cost_s=model.cost_s(sample))
