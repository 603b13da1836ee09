"""What `trichord score` costs beside the work itself.

    python -m benchmarks.scoring [--bundle DIR] [--rows N] [--turns T]

The same rows (all seven subsets, equally often, in files) three ways, in turns: a bare loop that decodes and
prepares in a thread pool, runs batches and writes nothing; `trichord score --bundle` with as many threads;
and `trichord score --url` against a server that shares the cores. Time is from the first row to the last, so
that starting Python and opening the bundle count for nobody; only the ratios mean something.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.bundle.folder import read_bundle
from app.bundle.manifest import MODALITIES, subsets
from app.bundle.sample import Sample
from app.rows.records import Names
from app.rows.row import Row
from app.runtime.predictor import Predictor
from app.runtime.session import find_device
from app.score.inputs import open_input
from benchmarks.batching import golden_rows
from tests.server import serving

_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("models/digits/2"))
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {"bare": [], "bundle": [], "url": []}
    with tempfile.TemporaryDirectory() as scratch:
        manifest = write_rows(Path(scratch), given.bundle.parents[1], given.rows)
        for turn in range(given.turns):
            found["bare"].append(bare(given.bundle, manifest))
            found["bundle"].append(
                command(manifest, Path(scratch, f"local-{turn}"), "--bundle", str(given.bundle))
            )
            with serving(given.bundle.parents[1], workers=None, log_level="warning") as server:
                found["url"].append(command(manifest, Path(scratch, f"url-{turn}"), "--url", server.url))
    for name, rates in found.items():
        print(f"{name:7} {statistics.median(rates):7.0f} rows/s")
    print(f"--bundle reaches {_ratio(found['bundle'], found['bare']):.0%} of the bare loop")
    print(f"--url    reaches {_ratio(found['url'], found['bundle']):.0%} of --bundle")


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

    def sample(row: Row) -> Sample:
        return predictor.prepare(row.load(most))

    started_s = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        samples = pool.map(sample, rows)
        while batch := list(itertools.islice(samples, _BATCH)):
            predictor.run(batch)
    return len(rows) / (time.perf_counter() - started_s)


def command(manifest: Path, output: Path, *engine: str) -> float:
    """Rows per second as the command itself counts them."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "score", "--input", str(manifest), "--output", str(output), *engine],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)["this_time"]
    rows: float = said["rows"]
    return rows / float(said["elapsed_s"])


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
