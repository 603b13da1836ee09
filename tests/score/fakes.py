"""A server that is not there: answers by a rule, refuses by a plan."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.bundle.sample import RawInputs
from app.score.engine import Model
from app.score.http import BatchAnswer
from app.score.row import Row

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
        fault: Callable[[int, Sequence[RawInputs]], None] = lambda _number, _rows: None,
        of_row: Callable[[RawInputs], dict[str, Any] | None] = lambda _raw: None,
        digest: str = "d",
        models: list[dict[str, Any]] | None = None,
    ) -> None:
        self.requests = 0
        self.inside = self.most_inside = 0
        self.sizes: list[int] = []
        self.answered: Counter[str] = Counter()
        self.is_closed = False
        self._fault, self._of_row, self._digest, self._models = fault, of_row, digest, models or []

    async def describe(self) -> list[dict[str, Any]]:
        return self._models

    async def predict_batch(
        self, rows: Sequence[RawInputs], model: Model, *, top_k: int, explain: bool
    ) -> BatchAnswer:
        assert (model, top_k, explain) == (MODEL, 3, False), "the model has three labels of the five asked"
        self.requests += 1
        self.sizes.append(len(rows))
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        try:
            await asyncio.sleep(0)
            self._fault(self.requests, rows)
            return BatchAnswer(self._digest, [self._answer(raw) for raw in rows])
        finally:
            self.inside -= 1

    async def embed(self, row: RawInputs, model: Model) -> list[float]:
        assert model == MODEL
        return [float(len(row.text or b""))]

    async def close(self) -> None:
        self.is_closed = True

    def _answer(self, raw: RawInputs) -> dict[str, Any]:
        error = self._of_row(raw)
        if error is not None:
            return error
        text = (raw.text or b"").decode()
        self.answered[text] += 1
        return {
            "status": 200, "label": text, "probability": 0.5, "top": [], "by_modality": {}, "warnings": [],
            "modalities": {"used": ["text"], "missing": []},
        }  # fmt: skip


def row_error(status: int, code: str) -> dict[str, Any]:
    return {"status": status, "error": {"code": code, "detail": "As the plan has it."}}
