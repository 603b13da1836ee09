"""What batching is worth: the same load on two servers, one that batches and one that may not.

    python -m benchmarks.batching [--models DIR] [--seconds S] [--connections C]

Both servers run in turns on this machine, beside the client, so only the ratio means something.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
from pathlib import Path

from app.bundle.folder import read_bundle
from app.bundle.golden import load_golden
from app.bundle.sample import RawInputs
from benchmarks.load import Load, run_load
from tests.server import serving

_TURNS = 3


def main() -> None:
    """Print a table and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    rows = golden_rows(given.models)
    loads: dict[int, list[Load]] = {1: [], 32: []}
    for _, max_batch_size in itertools.product(range(_TURNS), loads):
        with serving(given.models, max_batch_size=max_batch_size, log_level="warning") as server:
            load = run_load(server.port, rows, connections=given.connections, seconds=given.seconds)
            loads[max_batch_size].append(asyncio.run(load))
    print("max batch   rows/s   p50 ms   p99 ms   mean batch   wrong")
    for size, turns in loads.items():
        best = max(turns, key=lambda load: load.rows_per_second)
        print(
            f"{size:9} {best.rows_per_second:8.0f} {best.latency_s(0.5) * 1000:8.1f} "
            f"{best.latency_s(0.99) * 1000:8.1f} {best.mean_batch_size:12.1f} {sum(t.wrong for t in turns):7}"
        )
    pairs = zip(loads[32], loads[1], strict=True)
    ratio = statistics.median(a.rows_per_second / b.rows_per_second for a, b in pairs)
    print(f"batching answers {ratio:.2f} times the rows (median of {_TURNS} pairs)")


def golden_rows(models: Path) -> list[RawInputs]:
    """The golden inputs of the first bundle: all its subsets, and nobody's data."""
    folder = next(path.parent for path in sorted(models.glob("*/*/manifest.json")))
    bundle = read_bundle(folder)
    return [case.raw(bundle.files) for case in load_golden(bundle.manifest, bundle.files)]


if __name__ == "__main__":
    main()
