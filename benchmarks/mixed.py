"""Mixed traffic: all seven subsets of image, text and audio, equally often.

    python -m benchmarks.mixed [--models DIR] [--seconds S]

1. A stand-in executor that costs what a GPU does (5 ms a launch, then 0.6 / 0.1 / 0.3 ms a row for image /
   text / audio), under our scheduler and under a batcher that, as Triton does with optional inputs, batches
   only rows with the same set of inputs, in strict order.
2. The bundle's real graphs on the CPU: encoders on the rows that have the modality, then fusion, against
   the fused graph with zeros for what is absent.

Both in turns within one run; only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.bundle.folder import read_bundle
from app.bundle.golden import load_golden
from app.bundle.manifest import MODALITIES, Modality, subsets
from app.bundle.sample import RawInputs, Sample
from app.runtime.predictor import PartRun, Predictor
from app.runtime.session import find_device, open_session
from app.serving.batcher import Batcher
from app.serving.cost import CostModel
from app.serving.schedule import Priority, Schedule

SUBSETS: list[tuple[Modality, ...]] = [tuple(name.split("+")) for name in subsets(MODALITIES)]  # type: ignore[misc]
_ROW_S: dict[Modality, float] = {"image": 0.0006, "text": 0.0001, "audio": 0.0003}
_LAUNCH_S = 0.005
_MAX_BATCH = 32
_WAITING = 256  # closed loop: as many rows are always waiting
_TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    ours, triton = [], []
    for _ in range(_TURNS):
        ours.append(asyncio.run(_rows_per_second(_our_scheduler, given.seconds)))
        triton.append(asyncio.run(_rows_per_second(_identical_sets, given.seconds)))
    _report("stand-in GPU", "our scheduler", ours, "identical sets in order", triton)
    split, fused = _real_graphs(given.models, given.seconds)
    _report("real graphs on CPU", "encoders on rows that have them", split, "fused, zeros for absent", fused)


def _report(what: str, name: str, ours: Sequence[float], other: str, theirs: Sequence[float]) -> None:
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{what}: {name} {statistics.median(ours):.0f} rows/s, "
        f"{other} {statistics.median(theirs):.0f} rows/s, ratio {ratio:.2f} (median of {len(ours)} pairs)"
    )


# --- 1: the stand-in ------------------------------------------------------------------------------

Ask = Callable[[tuple[Modality, ...]], Awaitable[object]]


@dataclass
class _Results:
    rows: Sequence[int]
    parts: Sequence[PartRun] = ()


@dataclass(eq=False)
class _StandIn:
    """Takes as long as a GPU would."""

    costs: CostModel = field(default_factory=CostModel)

    def execute(self, values: list[tuple[Modality, ...]]) -> _Results:
        time.sleep(_LAUNCH_S + sum(_ROW_S[name] for row in values for name in row))
        return _Results(range(len(values)))


class _Unobserved:
    def ran(self, *_: object, **__: object) -> None: ...

    def abandoned(self, *_: object) -> None: ...


async def _our_scheduler(body: Callable[[Ask], Awaitable[float]]) -> float:
    places: Schedule[object] = Schedule(max_batch_size=_MAX_BATCH, max_rows=10_000, max_bytes=10**9)
    work = _StandIn()
    async with Batcher(places, observer=_Unobserved(), hang_s=60) as queue:  # type: ignore[arg-type]

        async def ask(row: tuple[Modality, ...]) -> object:
            with queue.admit(work.costs, priority=Priority.INTERACTIVE, timeout_s=60, size_bytes=0) as ticket:
                return await queue.submit(ticket, work, row, cost_s=0.0)  # type: ignore[arg-type]

        return await body(ask)


async def _identical_sets(body: Callable[[Ask], Awaitable[float]]) -> float:
    """First in, first out; a batch is the longest run of rows at the front with one set of inputs."""
    waiting: deque[tuple[tuple[Modality, ...], asyncio.Future[int]]] = deque()
    arrival, work = asyncio.Event(), _StandIn()

    async def ask(row: tuple[Modality, ...]) -> object:
        reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting.append((row, reply))
        arrival.set()
        return await reply

    async def serve() -> None:
        while True:
            await arrival.wait()
            batch = [waiting.popleft()]
            while waiting and waiting[0][0] == batch[0][0] and len(batch) < _MAX_BATCH:
                batch.append(waiting.popleft())
            if not waiting:
                arrival.clear()
            await asyncio.to_thread(work.execute, [row for row, _ in batch])
            for _, reply in batch:
                reply.set_result(0)

    task = asyncio.create_task(serve())
    try:
        return await body(ask)
    finally:
        task.cancel()


async def _rows_per_second(
    system: Callable[[Callable[[Ask], Awaitable[float]]], Awaitable[float]], seconds: float
) -> float:
    async def body(ask: Ask) -> float:
        chance = random.Random(0)  # noqa: S311 - a schedule, not a secret
        answered = 0
        started_s = time.perf_counter()

        async def client() -> None:
            nonlocal answered
            while time.perf_counter() - started_s < seconds:
                await ask(chance.choice(SUBSETS))
                answered += 1

        await asyncio.gather(*(client() for _ in range(_WAITING)))
        return answered / (time.perf_counter() - started_s)

    return await system(body)


# --- 2: the real graphs ---------------------------------------------------------------------------


def _real_graphs(models: Path, seconds: float) -> tuple[list[float], list[float]]:
    """Rows/s of both ways over the same batches, in turns."""
    folder = next(path.parent for path in sorted(models.glob("*/*/manifest.json")))
    bundle = read_bundle(folder)
    device = find_device("cpu")
    predictor = Predictor.open(bundle, device=device, threads=2)
    path = bundle.manifest.fusion.fused
    fused = open_session(bundle.files[path], name=path, device=device, threads=2)
    golden = [case.raw(bundle.files) for case in load_golden(bundle.manifest, bundle.files)]
    batches = _batches(predictor, golden)

    def run_fused(batch: list[Sample]) -> None:
        fused.run(_zero_filled(predictor, batch))

    split_rates, fused_rates = [], []
    for _ in range(_TURNS):
        split_rates.append(_rate(lambda batch: predictor.run(batch), batches, seconds))
        fused_rates.append(_rate(run_fused, batches, seconds))
    _assert_same(predictor, fused, batches[0])
    return split_rates, fused_rates


def _batches(predictor: Predictor, golden: list[RawInputs]) -> list[list[Sample]]:
    """Eight full batches: the golden media of the bundle, put together to every subset in turn."""
    media = {name: [getattr(raw, name) for raw in golden if getattr(raw, name)] for name in MODALITIES}
    chance = random.Random(0)  # noqa: S311 - a schedule, not a secret
    rows = [
        predictor.prepare(RawInputs(**{name: chance.choice(media[name]) for name in subset}))
        for subset in itertools.islice(itertools.cycle(SUBSETS), 8 * _MAX_BATCH)
    ]
    chance.shuffle(rows)
    return [rows[start : start + _MAX_BATCH] for start in range(0, len(rows), _MAX_BATCH)]


def _zero_filled(predictor: Predictor, batch: list[Sample]) -> dict[str, np.ndarray]:
    """What the fused graph reads: every modality of every row."""
    image, text = predictor.manifest.inputs.image, predictor.manifest.inputs.text
    assert image is not None
    assert text is not None
    rows = len(batch)
    inputs: dict[str, np.ndarray] = {
        "image": np.zeros((rows, image.height, image.width, 3), np.uint8),
        "text": np.full((rows, max(1, *(s.length("text") for s in batch))), text.pad_id, np.int32),
        "audio": np.zeros((rows, max(1000, *(s.length("audio") for s in batch))), np.float32),
        "audio_length": np.full(rows, 1000, np.int32),
        "present": np.array([[s.length(name) > 0 for name in MODALITIES] for s in batch]),
    }
    for row, sample in enumerate(batch):
        if sample.image is not None:
            inputs["image"][row] = sample.image
        if sample.text is not None:
            inputs["text"][row, : len(sample.text)] = sample.text
        if sample.audio is not None:
            inputs["audio"][row, : len(sample.audio)] = sample.audio
            inputs["audio_length"][row] = len(sample.audio)
    return inputs


def _rate(run: Callable[[list[Sample]], object], batches: list[list[Sample]], seconds: float) -> float:
    for batch in batches:
        run(batch)
    rows = 0
    started_s = time.perf_counter()
    for batch in itertools.cycle(batches):
        run(batch)
        rows += len(batch)
        if time.perf_counter() - started_s > seconds:
            break
    return rows / (time.perf_counter() - started_s)


def _assert_same(predictor: Predictor, fused: object, batch: list[Sample]) -> None:
    """Both ways answer alike, or the comparison means nothing."""
    theirs = fused.run(_zero_filled(predictor, batch))["probabilities"]  # type: ignore[attr-defined]
    ours = np.stack([row.probabilities for row in predictor.run(batch)])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


if __name__ == "__main__":
    main()
