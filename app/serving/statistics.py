"""What each model did since the process started: rows, runs and where the time of requests went.

Runs are counted by the executor, whoever asked; requests by whom they were asked of, with `request`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.runtime.predictor import PartRun
from app.serving.engine import Answer
from app.serving.model import LiveModel
from app.serving.schedule import Priority


@dataclass(slots=True)
class Total:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += round(seconds * 1e9)


@dataclass(slots=True)
class Runs:
    """Runs of one batch size."""

    collate: Total = field(default_factory=Total)  # and handing over to the executor and back
    compute: Total = field(default_factory=Total)  # in the graphs


@dataclass(slots=True)
class ModelStatistics:
    last_run_ms: int = 0  # since the epoch
    rows: int = 0
    batches: defaultdict[int, Runs] = field(default_factory=lambda: defaultdict(Runs))  # by size
    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    prepare: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    run: Total = field(default_factory=Total)
    encode: Total = field(default_factory=Total)

    @property
    def runs(self) -> int:
        return sum(runs.compute.count for runs in self.batches.values())


@dataclass(slots=True)
class Spent:
    """Where a request's time went, told by whom it is answered by. Rows are averaged."""

    answers: Sequence[Answer] = ()
    encode_s: float = 0.0


class Statistics:
    """Observes batches, and is told of requests. Survives a model's unloading."""

    def __init__(self) -> None:
        self._models: defaultdict[tuple[str, int], ModelStatistics] = defaultdict(ModelStatistics)

    def of(self, model: LiveModel) -> ModelStatistics:
        return self._models[model.manifest.name, model.manifest.version]

    def ran(self, work: object, parts: Sequence[PartRun], *, rows: int, seconds: float) -> None:
        assert isinstance(work, LiveModel), "the engine runs live models"
        model = self.of(work)
        model.last_run_ms = time.time_ns() // 1_000_000
        model.rows += rows
        compute_s = sum(part.seconds for part in parts)
        model.batches[rows].compute.add(compute_s)
        model.batches[rows].collate.add(max(0.0, seconds - compute_s))

    def abandoned(self, priority: Priority) -> None:
        """A row whose caller left was asked of no model yet."""

    @contextmanager
    def request(self, model: LiveModel) -> Iterator[Spent]:
        """Counts one request: a success if the block ends, a failure if it raises."""
        started_s = time.perf_counter()
        statistics, spent = self.of(model), Spent()
        try:
            yield spent
        except BaseException:
            statistics.fail.add(time.perf_counter() - started_s)
            raise
        statistics.success.add(time.perf_counter() - started_s)
        rows = len(spent.answers)
        assert rows, "a request that was answered has rows"
        statistics.prepare.add(sum(answer.timings.decode_s for answer in spent.answers) / rows)
        statistics.queue.add(sum(answer.timings.queue_s for answer in spent.answers) / rows)
        statistics.run.add(sum(answer.timings.run_s for answer in spent.answers) / rows)
        statistics.encode.add(spent.encode_s)
