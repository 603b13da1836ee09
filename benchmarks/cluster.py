"""What `trichord score --engine ray` costs beside the same work in one process.

    python -m benchmarks.cluster [--bundle DIR] [--rows N] [--turns T]

The same rows (all seven subsets, equally often, in files) two ways, in turns: `trichord score --bundle` with
a thread for each core, and `--engine ray` on a Ray of its own with an actor of one thread for each. Rows per
second are those between the first row written and the last, so that starting Ray, whose seconds stand beside,
counts for nobody; only the ratio means something.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.scoring import write_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("models/digits/2"))
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    ways = {
        "local": ("--threads", str(cores)),
        "ray": ("--engine", "ray", "--threads", "1", "--workers", str(cores)),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as scratch:
        manifest = write_rows(Path(scratch), given.bundle.parents[1], given.rows)
        for turn in range(given.turns):
            for name, engine in ways.items():
                output = Path(scratch, f"{name}-{turn}")
                found[name].append(run(manifest, output, "--bundle", str(given.bundle), *engine))
    for name, turns in found.items():
        rate, start_s = (statistics.median(values) for values in zip(*turns, strict=True))
        print(f"{name:6} {rate:7.0f} rows/s, the first after {start_s:.1f} s")
    ratios = [ray[0] / local[0] for ray, local in zip(found["ray"], found["local"], strict=True)]
    print(f"--engine ray reaches {statistics.median(ratios):.0%} of --bundle alone")


def run(manifest: Path, output: Path, *engine: str) -> tuple[float, float]:
    """Rows per second once rows come, and seconds until they do."""
    command = [sys.executable, "-m", "app", "score", "--input", str(manifest), "--output", str(output)]
    began_s = time.time()
    subprocess.run([*command, *engine, "--columns", "scored_at"], capture_output=True, check=True)
    times_s = [
        datetime.fromisoformat(json.loads(line)["scored_at"]).timestamp()
        for part in output.glob("part-*.jsonl")
        for line in part.read_text().splitlines()
    ]
    first_s, last_s = min(times_s), max(times_s)
    later = sum(moment_s > first_s + 0.05 for moment_s in times_s)  # what came with the first is not counted
    return later / (last_s - first_s), first_s - began_s


if __name__ == "__main__":
    main()
