"""What the routes that answer rows share: sizes that may be sent, a place in the engine, the model asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from app.api.deadline import Patience
from app.api.engine_metrics import count_answer
from app.api.errors import Refusal
from app.api.parameters import Parameters, read_priority
from app.api.tracing import note_answer
from app.bundle.manifest import MODALITIES
from app.bundle.sample import RawInputs
from app.metrics import Metrics
from app.serving.engine import Answer, Engine, Place
from app.serving.model import LiveModel
from app.serving.pack import Pack
from app.serving.repository import Repository
from app.serving.schedule import Priority

T = TypeVar("T")

_DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What to answer of rows, and by which model."""

    model: LiveModel
    top_k: int
    cached: bool
    explained: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """The engine and its models, as routes ask them."""

    engine: Engine
    repository: Repository
    metrics: Metrics
    patience: Patience

    @property
    def media_bytes(self) -> dict[str, int]:
        """Most bytes of each modality's input: as many as the most generous live model reads of it."""
        inputs = [model.manifest.inputs for model in self.repository]
        return {
            name: max(read.encoder(name).max_bytes for read in inputs if name in read.names)
            for name in MODALITIES
            if any(name in read.names for read in inputs)
        }

    def admit(
        self, *, priority: Priority, timeout_s: float, size_bytes: int
    ) -> AbstractContextManager[Place]:
        """A place for one row, before its body is read. Raises Overloaded, Draining or NotReady."""
        costs = self.repository.expected_costs()
        return self.engine.admit(costs, priority=priority, timeout_s=timeout_s, size_bytes=size_bytes)

    def admit_request(self, request: Request, *, size_bytes: int) -> AbstractContextManager[Place]:
        """The same with the priority and the deadline of the request's headers."""
        priority, timeout_s = read_priority(request), self.patience.of(request)
        return self.admit(priority=priority, timeout_s=timeout_s, size_bytes=size_bytes)

    def question(self, parameters: Parameters) -> Question:
        """Raises ModelNotFound, ModelAmbiguous, or Refusal if the model has fewer classes than asked for."""
        model = self.repository.find(parameters.model, parameters.version)
        labels = len(model.manifest.labels)
        top_k = parameters.top_k or min(_DEFAULT_TOP_K, labels)
        if top_k > labels:
            raise Refusal(
                "invalid_parameter", f"top_k must be a whole number from 1 to {labels}.", part="top_k"
            )
        return Question(model, top_k, parameters.cache, parameters.explain)

    async def answer(self, place: Place, question: Question, raw: RawInputs) -> Answer:
        """The answer to one row, counted. Raises what Place.answer raises."""
        answer = await place.answer(
            question.model,
            raw,
            top_k=question.top_k,
            cached=question.cached,
            explained=question.explained,
        )
        count_answer(self.metrics, question.model, answer)
        note_answer(question.model, answer)
        return answer

    async def answers(
        self,
        question: Question,
        rows: Sequence[tuple[Place, RawInputs]],
        tell: Callable[[int, Answer | Exception], T],
    ) -> list[T]:
        """The same for rows that are asked together, see Pack: what `tell` makes of each, in order."""
        last: Answer | None = None

        def told(index: int, answer: Answer | Exception) -> T:
            nonlocal last
            if isinstance(answer, Answer):
                count_answer(self.metrics, question.model, answer)
                last = answer
            return tell(index, answer)

        pack = Pack(
            self.engine, question.model, top_k=question.top_k, explained=question.explained, tell=told
        )
        answered = await pack.answers(rows)
        if last is not None:
            note_answer(question.model, last)
        return answered
