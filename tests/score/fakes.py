"""A server that is not there: answers by a rule, refuses by a plan."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app import client
from app.rows.row import Row
from app.score.engine import Model

MODEL = Model("fake", 1, "d", labels=3, is_multilabel=False, has_sets=False, most_bytes={"text": 1000})


def text_row(position: int, text: str | None = None) -> Row:
    said = f"text {position}" if text is None else text
    return Row(
        position, f"r{position}", {"id": f"r{position}", "text": said}, Path(), {"text": said.encode()}
    )


class FakeClient:
    """RowClient. `fault` may raise for a batch; `of_row` may give an error for a row."""

    def __init__(
        self,
        *,
        fault: Callable[[int, Sequence[client.Row]], None] = lambda _number, _rows: None,
        of_row: Callable[[client.Row], client.TrichordError | None] = lambda _row: None,
        digest: str = "d",
        models: Sequence[client.Model] = (),
    ) -> None:
        self.requests = 0
        self.inside = self.most_inside = 0
        self.sizes: list[int] = []
        self.answered: Counter[str] = Counter()
        self.is_closed = False
        self._fault, self._of_row, self._digest, self._models = fault, of_row, digest, tuple(models)

    async def models(self) -> tuple[client.Model, ...]:
        return self._models

    async def predict_batch(
        self,
        rows: Sequence[client.Row],
        *,
        model: str,
        version: int,
        top_k: int,
        explain: bool,
        priority: client.Priority,
    ) -> tuple[client.RowAnswer, ...]:
        assert (model, version, explain, priority) == (MODEL.name, MODEL.version, False, "batch")
        assert top_k == MODEL.labels, "the model has three labels of the five asked"
        self.requests += 1
        self.sizes.append(len(rows))
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        try:
            await asyncio.sleep(0)
            self._fault(self.requests, rows)
            return tuple(self._answer(place, row) for place, row in enumerate(rows))
        finally:
            self.inside -= 1

    async def embed(
        self,
        *,
        image: client.ImageInput | None,
        text: str | None,
        audio: client.AudioInput | None,
        model: str,
        version: int,
        priority: client.Priority,
    ) -> client.Embedding:
        assert (image, audio, model, version, priority) == (None, None, MODEL.name, MODEL.version, "batch")
        return client.Embedding(**self._provenance(), vector=array("f", [len(text or "")]), by_modality={})

    async def close(self) -> None:
        self.is_closed = True

    def _provenance(self) -> dict[str, Any]:
        return {
            "model": MODEL.name, "version": MODEL.version, "digest": self._digest, "request_id": "",
            "used": ("text",), "missing": (), "warnings": (), "timings": client.Timings(0, 0, 0, 0),
            "batch_size": 1, "retries": 0,
        }  # fmt: skip

    def _answer(self, place: int, row: client.Row) -> client.RowAnswer:
        error = self._of_row(row)
        if error is not None:
            return client.RowAnswer(place, error=error, digest=self._digest)
        text = row.text or ""
        self.answered[text] += 1
        said = client.Prediction(
            **self._provenance(),
            label=text,
            probability=0.5,
            top=(client.ClassProbability(text, 0.5),),
            by_modality={},
        )
        return client.RowAnswer(place, prediction=said, digest=self._digest)


def error_of(status: int, code: str, detail: str = "As the plan has it.") -> client.TrichordError:
    """What the client raises for a server's error, or gives to a row."""
    return client.ERRORS[code](detail, status=status, detail=detail)
