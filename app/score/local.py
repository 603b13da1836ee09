"""The engine in one process: decode, prepare and run, in one thread or with threads that decode ahead.

Rows that share a run are a pack. What the graphs answer depends, in its last bits, on how many rows share a
run and how they are padded; so whoever wants these very answers forms packs by `packs` and has them answered
by `answer`.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, Self

from app.bundle.budget import PixelBudget
from app.bundle.errors import InputError
from app.bundle.folder import Bundle
from app.bundle.interpret import RowOutputs
from app.bundle.manifest import Manifest
from app.bundle.sample import Sample
from app.rows.errors import Unreadable
from app.rows.row import Row
from app.runtime.errors import GraphInvalid, NonFiniteOutput
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from app.score.columns import answer
from app.score.engine import Failed, Load, Model, Outcome, Scored
from app.score.errors import EngineLost

log = logging.getLogger(__name__)

AHEAD: Final = 3  # packs read and decoded before they are run
_MAX_PIXELS: Final = 100_000_000  # decoded at once, as a server's, see TRICHORD_MAX_MEGAPIXELS

_Prepared = tuple[Row, Sample | Failed]


def chunk_rows(batch_rows: int, threads: int) -> int:
    """Rows that a thread is given to decode: handing over one alone costs as much as a small image."""
    return max(1, batch_rows // (2 * threads))


@dataclass(frozen=True, slots=True)
class Running:
    """How a bundle is run. Of several threads, all decode and all run the graphs."""

    threads: int
    batch_rows: int = 32
    top_k: int = 5
    embeddings: bool = False
    explanations: bool = False


def packs(rows: Iterable[Row], batch_rows: int) -> Iterator[list[Row]]:
    """The rows of each run, in order."""
    todo = iter(rows)
    while pack := list(itertools.islice(todo, batch_rows)):
        yield pack


def model_of(manifest: Manifest) -> Model:
    return Model(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        labels=len(manifest.labels),
        is_multilabel=manifest.is_multilabel,
        has_sets=manifest.calibration.conformal is not None,
        most_bytes={name: manifest.inputs.encoder(name).max_bytes for name in manifest.inputs.names},
    )


class LocalEngine:
    """Rows through one bundle, in order."""

    def __init__(self, predictor: Predictor, running: Running) -> None:
        self._predictor = predictor
        self._running = running
        self._top_k = min(running.top_k, len(predictor.manifest.labels))
        self.model = model_of(predictor.manifest)

    @classmethod
    def open(cls, bundle: Bundle, running: Running, *, device: Device) -> Self:
        """Load the graphs. Raises GraphInvalid or DeviceUnavailable."""
        hold = PixelBudget(_MAX_PIXELS).hold
        return cls(Predictor.open(bundle, device=device, threads=running.threads, hold=hold), running)

    @property
    def load(self) -> Load:
        return Load(concurrency=self._running.threads)

    def score(self, rows: Iterable[Row]) -> Generator[Outcome, None, None]:
        """See Engine."""
        with closing(self.answer(packs(rows, self._running.batch_rows))) as answered:
            for outcomes in answered:
                yield from outcomes

    def answer(self, several: Iterable[list[Row]]) -> Generator[list[Outcome], None, None]:
        """Outcomes pack by pack; each pack is a run of its own. Raises EngineLost."""
        if self._running.threads == 1:
            return (self._run(self._prepare(pack)) for pack in several)
        return self._answer_ahead(several)

    def _answer_ahead(self, several: Iterable[list[Row]]) -> Generator[list[Outcome], None, None]:
        threads = self._running.threads
        step = chunk_rows(self._running.batch_rows, threads)
        running: deque[Future[list[Outcome]]] = deque()
        with ThreadPoolExecutor(threads) as decoders, ThreadPoolExecutor(1) as runner:
            try:
                for pack in several:
                    chunks = [
                        decoders.submit(self._prepare, pack[start : start + step])
                        for start in range(0, len(pack), step)
                    ]
                    running.append(runner.submit(self._run_chunks, chunks))
                    if len(running) > AHEAD:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def _prepare(self, rows: list[Row]) -> list[_Prepared]:
        return [(row, self._prepare_one(row)) for row in rows]

    def _prepare_one(self, row: Row) -> Sample | Failed:
        try:
            raw = row.load(self.model.most_bytes)
        except Unreadable as error:
            return Failed(row, "read", error.code, error.reason)
        try:
            return replace(self._predictor.prepare(raw), is_explained=self._running.explanations)
        except InputError as error:
            return Failed(row, "decode", error.code, error.message)

    def _run_chunks(self, chunks: list[Future[list[_Prepared]]]) -> list[Outcome]:
        return self._run([one for chunk in chunks for one in chunk.result()])

    def _run(self, prepared: list[_Prepared]) -> list[Outcome]:
        started_s = time.perf_counter()
        samples = [one for _, one in prepared if isinstance(one, Sample)]
        outputs = iter(self._outputs(samples) if samples else ())
        seconds = time.perf_counter() - started_s
        return [
            one if isinstance(one, Failed) else self._outcome(row, one, next(outputs), seconds)
            for row, one in prepared
        ]

    def _outputs(self, samples: list[Sample]) -> list[RowOutputs | None]:
        """None for a row that the graphs cannot run. One bad row must not cost its neighbours."""
        try:
            return list(self._predictor.run(samples))
        except GraphInvalid as error:  # no row would fare better
            raise EngineLost(str(error)) from error
        except Exception:
            if len(samples) == 1:
                log.exception("a row cannot be run")
                return [None]
        return [self._outputs([sample])[0] for sample in samples]

    def _outcome(self, row: Row, sample: Sample, outputs: RowOutputs | None, seconds: float) -> Outcome:
        if outputs is None:
            return Failed(row, "predict", "internal", "The model cannot run this row.", seconds=seconds)
        try:
            prediction = self._predictor.interpret(outputs, sample, top_k=self._top_k)
        except NonFiniteOutput:
            reason = "The inputs are valid, but the model cannot rate them."
            return Failed(row, "predict", "model_nonfinite", reason, seconds=seconds)
        embedding = [float(number) for number in outputs.embedding] if self._running.embeddings else None
        return Scored(row, answer(prediction, sample.warnings, embedding), seconds)
