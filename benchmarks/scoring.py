"""What `trichord score` costs beside the work itself.

    python -m benchmarks.scoring [--bundle DIR] [--rows N] [--turns T]

The same rows (all seven subsets, equally often, in files) three ways, in turns: a bare loop that reads the
files, decodes and prepares in threads, runs batches and writes nothing; `trichord score --bundle`; and
`trichord score --url` against a server that shares the cores. The bare loop has a thread for each core,
decodes some batches ahead and gives the graphs all cores; --bundle has a process for each core
(app.score.processes). Time is from the first row to the last, so that starting Python and opening the bundle
count for nobody; only the ratios mean something.

Beside rows per second stands the processor time that all processes together take for a row: on a busy machine
three processes get more of it than one, which flatters --url, and this shows by how much.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.bundle.folder import read_bundle
from app.bundle.manifest import MODALITIES, subsets
from app.bundle.sample import Sample
from app.rows.records import Names
from app.rows.row import Row
from app.runtime.predictor import Predictor
from app.runtime.session import find_device
from app.score.inputs import open_input
from app.score.local import AHEAD, chunk_rows
from benchmarks.batching import golden_rows
from tests.server import serving

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Turn:
    """What one run gave. `cpu_s` is of all processes, for a row."""

    rows_per_s: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("models/digits/2"))
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    models = given.bundle.parents[1]
    found: dict[str, list[Turn]] = {"bare": [], "bundle": [], "url": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = write_rows(folder, models, given.rows)
        few = folder / "few.jsonl"  # the same, of seven rows: what is to be taken off
        few.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:7]))
        ways: list[tuple[str, Callable[[Path, Path], float]]] = [
            ("bare", lambda rows, _: bare(given.bundle, rows)),
            ("bundle", lambda rows, out: command(rows, out, "--bundle", str(given.bundle))),
            ("url", lambda rows, out: by_url(models, rows, out)),
        ]
        for turn in range(given.turns):
            for name, way in ways[turn % 3 :] + ways[: turn % 3]:  # each is first, and last, as often
                beside_s = _cpu_s(lambda: way(few, folder / f"{name}-{turn}-few"))[1]  # noqa: B023
                rate, cpu_s = _cpu_s(lambda: way(manifest, folder / f"{name}-{turn}"))  # noqa: B023
                found[name].append(Turn(rate, (cpu_s - beside_s) / given.rows))
    for name, turns in found.items():
        rate, cpu_s = (statistics.median(values) for values in zip(*map(_both, turns), strict=True))
        print(f"{name:7} {rate:7.0f} rows/s   {cpu_s * 1e6:6.0f} us of processor time a row")
    _compare("--bundle", found["bundle"], "the bare loop", found["bare"])
    _compare("--url", found["url"], "--bundle", found["bundle"])


def _both(turn: Turn) -> tuple[float, float]:
    return turn.rows_per_s, turn.cpu_s


def _compare(ours: str, our_turns: Sequence[Turn], theirs: str, their_turns: Sequence[Turn]) -> None:
    pairs = list(zip(our_turns, their_turns, strict=True))
    rates = sorted(a.rows_per_s / b.rows_per_s for a, b in pairs)
    costs = sorted(b.cpu_s / a.cpu_s for a, b in pairs)
    print(
        f"{ours:8} reaches {statistics.median(rates):.0%} of {theirs} in rows/s (turns: {rates[0]:.0%} to "
        f"{rates[-1]:.0%}), {statistics.median(costs):.0%} by processor time ({costs[0]:.0%} to "
        f"{costs[-1]:.0%})"
    )


def _cpu_s(work: Callable[[], float]) -> tuple[float, float]:
    """What it returns, and its processor time, here and in the processes that it waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before = [resource.getrusage(kind) for kind in kinds]
    result = work()
    after = [resource.getrusage(kind) for kind in kinds]
    spent_s = [
        now.ru_utime + now.ru_stime - then.ru_utime - then.ru_stime
        for now, then in zip(after, before, strict=True)
    ]
    return result, sum(spent_s)


def write_rows(folder: Path, models: Path, count: int) -> Path:
    """A manifest of rows in all subsets, made from the golden media of the first bundle."""
    golden = golden_rows(models)
    media = {
        name: itertools.cycle([body for raw in golden if (body := getattr(raw, name))]) for name in MODALITIES
    }
    manifest = folder / "rows.jsonl"
    with manifest.open("w") as file:
        for number, subset in zip(range(count), itertools.cycle(subsets(MODALITIES)), strict=False):
            row: dict[str, str] = {"id": f"row-{number}"}
            for name in subset.split("+"):
                body = next(media[name])  # type: ignore[index]
                row[name] = body.decode() if name == "text" else f"{number}.{name}"
                if name != "text":
                    (folder / row[name]).write_bytes(body)
            file.write(json.dumps(row) + "\n")
    return manifest


def bare(bundle: Path, manifest: Path) -> float:
    """Rows per second of the work alone."""
    threads = len(os.sched_getaffinity(0))
    predictor = Predictor.open(read_bundle(bundle), device=find_device("cpu"), threads=threads)
    inputs = predictor.manifest.inputs
    most = {name: inputs.encoder(name).max_bytes for name in inputs.names}
    rows = list(open_input([str(manifest)], Names()))
    step = chunk_rows(_BATCH, threads)

    def samples(chunk: list[Row]) -> list[Sample]:
        return [predictor.prepare(row.load(most)) for row in chunk]

    ahead: deque[list[Future[list[Sample]]]] = deque()

    def run() -> None:
        predictor.run([sample for chunk in ahead.popleft() for sample in chunk.result()])

    started_s = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(rows), _BATCH):
            batch = rows[first : first + _BATCH]
            chunks = [batch[start : start + step] for start in range(0, len(batch), step)]
            ahead.append([pool.submit(samples, chunk) for chunk in chunks])
            if len(ahead) > AHEAD:
                run()
        while ahead:
            run()
    return len(rows) / (time.perf_counter() - started_s)


def by_url(models: Path, manifest: Path, output: Path) -> float:
    with serving(models, workers=None, log_level="warning") as server:
        return command(manifest, output, "--url", server.url)


def command(manifest: Path, output: Path, *engine: str) -> float:
    """Rows per second as the command itself counts them."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "score", "--input", str(manifest), "--output", str(output), *engine],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)["this_time"]
    rows: float = said["rows"]
    return rows / max(float(said["elapsed_s"]), 0.1)  # which is rounded


if __name__ == "__main__":
    main()
