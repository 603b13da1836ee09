"""What the protocol's routes stand on, and a request's way over it: admitted, read, admitted again, run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from fastapi import Request

from app.api.bodies import announced_bytes
from app.api.deadline import Patience
from app.api.engine_metrics import count_answer
from app.api.leaving import unless_gone
from app.api.v2.bodies import read_body
from app.api.v2.rows import Row, answer_rows
from app.metrics import Metrics
from app.serving.engine import Answer, Engine
from app.serving.errors import DeadlineExceeded
from app.serving.model import LiveModel
from app.serving.repository import Repository
from app.serving.schedule import Priority
from app.serving.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request."""

    rows: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants to be treated: its class, and its patience if it says so."""

    priority: Priority = Priority.INTERACTIVE
    timeout_s: float | None = None


_ANY_WISH = Wish()


@dataclass(frozen=True, slots=True)
class Service:
    engine: Engine
    repository: Repository
    metrics: Metrics
    statistics: Statistics
    patience: Patience
    limits: Limits

    async def read(self, request: Request, model: LiveModel, held: ExitStack) -> bytes:
        """The body, if there is a place for a row of it; `held` keeps the place, as large as the body is."""
        most = self.limits.body_bytes
        place = held.enter_context(
            self.engine.admit(
                model.costs,
                priority=Priority.INTERACTIVE,
                timeout_s=self.patience.of(request),
                size_bytes=announced_bytes(request, most=most),
            )
        )
        return await read_body(request, most=most, hold=place.grow)

    async def answer(
        self, request: Request, model: LiveModel, rows: Sequence[Row], held: ExitStack,
        *, body_bytes: int, wish: Wish = _ANY_WISH,
    ) -> list[Answer]:  # fmt: skip
        """Answers in the order of the rows, or the first failure.

        What class the request is of, and how much it holds, stands in its body. So the place that the body
        was read in is given back, and as many as it needs are asked for, between two turns of the loop.
        """
        timeout_s = self._left_s(request, wish)
        held.close()
        place = held.enter_context(
            self.engine.admit(model.costs, priority=wish.priority, timeout_s=timeout_s, size_bytes=body_bytes)
        )
        places = held.enter_context(place.with_more(len(rows)))
        answers = await unless_gone(request, answer_rows(places, model, rows))
        for answer in answers:
            count_answer(self.metrics, model, answer)
        return answers

    def _left_s(self, request: Request, wish: Wish) -> float:
        said_s = wish.timeout_s
        patience_s = self.patience.of(request) if said_s is None else min(said_s, self.patience.most_s)
        started_s: float = request.state.started_s
        left_s = patience_s - (time.perf_counter() - started_s)
        if left_s <= 0:
            raise DeadlineExceeded("There was no time left to answer. Allow more, or send less at once.")
        return left_s
