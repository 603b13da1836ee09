"""A stream against an engine that stops, fails or has no place: cases that a healthy server does not show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from app.api.deadline import Patience
from app.api.parameters import Parameters
from app.api.row_stream import RowStream
from app.api.service import Service
from app.bundle.sample import Sample
from app.metrics import Metrics
from app.runtime.predictor import Ran
from app.runtime.session import Device
from app.serving.engine import Engine, Limits
from app.serving.loading import loader
from app.serving.plan import Plan
from app.serving.repository import Repository
from app.serving.schedule import Priority
from tests.serving.test_batcher import Told


@pytest.fixture
def repository(models_dir: Path) -> Repository:
    made = Repository(models_dir, loader(device=Device("cpu"), threads=1), plan=Plan(), default=None)
    made.start()
    return made


class Client:
    """Sends lines, then waits; keeps what it is sent."""

    def __init__(self, *lines: dict[str, str], is_complete: bool = True) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self._messages: list[Message] = [
            {"type": "http.request", "body": json.dumps(line).encode() + b"\n", "more_body": True}
            for line in lines
        ]
        if is_complete:
            self._messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(message["body"]) for message in self.sent[1:] if message["body"]]

    @property
    def has_end(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)


def play(
    repository: Repository,
    scenario: Callable[[Engine, Callable[[Client], Awaitable[None]]], Awaitable[None]],
    *,
    timeout_s: float = 10.0,
    max_rows: int = 8,
) -> None:
    async def entered() -> None:
        limits = Limits(max_batch_size=4, max_rows=max_rows, max_bytes=2**20, hang_s=10)
        async with asyncio.timeout(30), Engine(limits, decode_threads=1, observer=Told()) as engine:
            patience = Patience(default_s=5, most_s=60)
            service = Service(engine, repository, Metrics(), patience)

            async def stream(client: Client) -> None:
                response = RowStream(
                    service, Parameters(), timeout_s=timeout_s, most_rows=4, line_bytes=10_000
                )
                await response({"type": "http", "state": {}}, client.receive, client.send)

            await scenario(engine, stream)
            assert engine.batcher.open_rows == 0

    asyncio.run(entered())


def test_an_engine_that_stops_ends_the_stream_after_one_refusal(repository: Repository) -> None:
    async def scenario(engine: Engine, stream: Callable[[Client], Awaitable[None]]) -> None:
        engine.batcher.drain()
        client = Client(*({"text": "a"} for _ in range(9)))
        await stream(client)
        [answer] = client.answers
        assert (answer["status"], answer["error"]["code"]) == (503, "draining")
        assert client.has_end

    play(repository, scenario)


def test_a_row_without_a_place_in_its_time_is_told_so(repository: Repository) -> None:
    async def scenario(engine: Engine, stream: Callable[[Client], Awaitable[None]]) -> None:
        costs = repository.expected_costs()
        with engine.admit(costs, priority=Priority.INTERACTIVE, timeout_s=30, size_bytes=1):
            client = Client({"id": "late", "text": "a"})
            await stream(client)
        [answer] = client.answers
        assert (answer["id"], answer["error"]["code"]) == ("late", "overloaded")
        assert client.has_end

    play(repository, scenario, timeout_s=0.3, max_rows=1)


def test_a_row_that_makes_the_model_fail_fails_alone(repository: Repository) -> None:
    model = repository.find()
    execute = model.predictor.execute

    def failing(samples: list[Sample]) -> Ran:
        if any(sample.text is not None and len(sample.text) == 3 for sample in samples):
            raise ValueError("three")
        return execute(samples)

    model.predictor.execute = failing  # type: ignore[method-assign]

    async def scenario(_: Engine, stream: Callable[[Client], Awaitable[None]]) -> None:
        client = Client(*({"text": "a" * length} for length in range(1, 7)))
        await stream(client)
        statuses = {answer["index"]: answer["status"] for answer in client.answers}
        assert statuses == {0: 200, 1: 200, 2: 500, 3: 200, 4: 200, 5: 200}
        assert "three" not in str(client.answers)

    play(repository, scenario)


def test_who_leaves_in_the_middle_is_forgotten(repository: Repository) -> None:
    async def scenario(_: Engine, stream: Callable[[Client], Awaitable[None]]) -> None:
        for is_complete in (True, False):
            client = Client(*({"text": "a"} for _ in range(9)), is_complete=is_complete)
            client.gone.set()
            await stream(client)
            assert len(client.answers) <= 9

    play(repository, scenario)
