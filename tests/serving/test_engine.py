"""A row's way through the engine ends at its deadline, wherever the row is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from app.api.v2 import rows as v2
from app.bundle.folder import Bundle
from app.runtime.predictor import PartRun, Predictor
from app.runtime.session import Device
from app.serving.cost import CostModel
from app.serving.engine import Answer, Engine, Limits, Place
from app.serving.errors import DeadlineExceeded, Overloaded
from app.serving.model import LiveModel
from app.serving.pack import Pack
from app.serving.schedule import Priority
from tests import tiny
from tests.serving.test_batcher import Told

PICTURE = tiny.row(1, ("image",))


def play(scenario: Callable[[Engine], Awaitable[None]]) -> None:
    async def entered() -> None:
        limits = Limits(max_batch_size=8, max_rows=100, max_bytes=2**20, hang_s=10)
        async with Engine(limits, decode_threads=1, observer=Told()) as engine:
            await scenario(engine)

    asyncio.run(entered())


@contextmanager
def admitted(engine: Engine, costs: CostModel, *, timeout_s: float) -> Iterator[Place]:
    with engine.admit(costs, priority=Priority.INTERACTIVE, timeout_s=timeout_s, size_bytes=1) as place:
        yield place


async def answered_alone(_engine: Engine, place: Place, model: LiveModel) -> list[Answer | Exception]:
    return [await place.answer(model, PICTURE, top_k=1)]


async def answered_in_a_pack(engine: Engine, place: Place, model: LiveModel) -> list[Answer | Exception]:
    def tell(_index: int, answer: Answer | Exception) -> Answer | Exception:
        return answer

    with place.with_more(3) as places:
        pack = Pack(engine, model, top_k=1, explained=False, tell=tell)
        return await pack.answers([(one, PICTURE) for one in places])


async def answered_by_protocol(_engine: Engine, place: Place, model: LiveModel) -> list[Answer | Exception]:
    with place.with_more(3) as places:
        return [*await v2.answer_rows(places, model, [v2.Row(PICTURE)] * 3)]


@pytest.mark.parametrize("answered", [answered_alone, answered_in_a_pack, answered_by_protocol])
def test_nobody_waits_beyond_their_deadline_also_when_decoding_takes_long(
    bundle: Bundle, answered: Callable[[Engine, Place, LiveModel], Awaitable[list[Answer | Exception]]]
) -> None:
    gate = threading.Event()

    @contextmanager
    def hold(_pixels: int) -> Iterator[None]:
        gate.wait(20)
        yield

    model = LiveModel(Predictor.open(bundle, device=Device("cpu"), threads=1, hold=hold))

    async def late(engine: Engine) -> list[Answer | Exception]:
        with admitted(engine, model.costs, timeout_s=0.1) as place:
            try:
                return await answered(engine, place, model)
            except DeadlineExceeded as error:
                return [error]

    async def scenario(engine: Engine) -> None:
        started_s = time.monotonic()
        told = await late(engine)
        assert time.monotonic() - started_s < 10, "decoding itself would have lasted 20 s"
        assert {type(one) for one in told} == {DeadlineExceeded}
        gate.set()
        with admitted(engine, model.costs, timeout_s=20) as place:
            assert not any(isinstance(one, Exception) for one in await answered(engine, place, model))

    play(scenario)


def dear() -> CostModel:
    """A second for each row."""
    costs = CostModel()
    for rows in (1, 2, 4):
        run = PartRun("fusion", rows=rows, length=1, padding=0, seconds=float(rows))
        costs.observe([run], rows=rows, total_s=float(rows))
    return costs


def test_a_request_that_is_too_much_by_itself_is_told_to_send_less() -> None:
    async def scenario(engine: Engine) -> None:
        costs = dear()
        with admitted(engine, costs, timeout_s=5) as place:
            with pytest.raises(DeadlineExceeded, match="send less at once"), place.with_more(50):
                pass
            with admitted(engine, costs, timeout_s=30), pytest.raises(Overloaded), place.with_more(50):
                pass
        assert engine.batcher.open_rows == 0

    play(scenario)
