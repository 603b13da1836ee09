"""Against a plain FastAPI service with two workers that runs the same graphs and decoders per request.

    python -m benchmarks.plain [--models DIR] [--seconds S] [--connections C]

Closed loop, all modalities in every request, every answer checked, both servers in turns on this
machine beside the client; only the ratio means something.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.bundle.sample import RawInputs
from benchmarks.batching import golden_rows
from benchmarks.load import Load, run_load
from tests.server import free_port, serving

_TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    rows = full_rows(given.models)
    ours, plain = [], []
    for _ in range(_TURNS):
        with serving(given.models, workers=None, log_level="warning") as server:
            ours.append(_load(server.port, rows, given))
        with _plain(given.models) as port:
            plain.append(_load(port, rows, given))
    print("service   rows/s   p50 ms   p99 ms   mean batch   wrong")
    for name, loads in (("trichord", ours), ("plain", plain)):
        middle = sorted(loads, key=lambda load: load.rows_per_second)[len(loads) // 2]
        print(
            f"{name:9} {middle.rows_per_second:6.0f} {middle.latency_s(0.5) * 1000:8.1f} "
            f"{middle.latency_s(0.99) * 1000:8.1f} {middle.mean_batch_size:12.1f} "
            f"{sum(load.wrong for load in loads):7}"
        )
    ratio = statistics.median(a.rows_per_second / b.rows_per_second for a, b in zip(ours, plain, strict=True))
    print(f"trichord answers {ratio:.2f} times the rows of the plain service (median of {_TURNS} pairs)")


def full_rows(models: Path) -> list[RawInputs]:
    """The golden media of the first bundle, put together to rows with all three modalities."""
    golden = golden_rows(models)
    images = [raw.image for raw in golden if raw.image]
    texts = [raw.text for raw in golden if raw.text]
    audios = [raw.audio for raw in golden if raw.audio]
    return [
        RawInputs(image=images[i % len(images)], text=texts[i % len(texts)], audio=audios[i % len(audios)])
        for i in range(24)
    ]


def _load(port: int, rows: list[RawInputs], given: argparse.Namespace) -> Load:
    return asyncio.run(run_load(port, rows, connections=given.connections, seconds=given.seconds))


@contextmanager
def _plain(models: Path) -> Iterator[int]:
    port = free_port()
    folder = next(path.parent for path in sorted(models.glob("*/*/manifest.json")))
    command = [
        "uvicorn",
        "benchmarks.plain_service:app",
        f"--port={port}",
        "--workers=2",
        "--log-level=warning",
    ]
    environment = os.environ | {"PLAIN_BUNDLE": str(folder)}  # noqa: TID251 - handed to a child
    process = subprocess.Popen([sys.executable, "-m", *command], env=environment)
    try:
        _wait_ready(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_ready(port: int) -> None:
    give_up_s = time.monotonic() + 30
    while time.monotonic() < give_up_s:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError("the plain service is not ready after 30 s")


if __name__ == "__main__":
    main()
