"""A job of 10,000 rows beside interactive traffic, and through a kill -9.

    python -m benchmarks.jobs [--rows N] [--seconds S] [--turns T] [--workers W] [--models DIR]

1. The server's capacity in a closed loop; then half of it in an open loop (Poisson arrivals), in turns
   without a job and with one running, and the ratio of the 99th percentiles.
2. The last job is left to run alone, every process of the server is killed in its middle and the server
   started anew. Fails unless the job completes and every id is in its results or errors exactly once, each
   poisoned row (2 %) with its stage and code.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx

from app.bundle.manifest import MODALITIES, subsets
from app.bundle.sample import RawInputs
from benchmarks.batching import golden_rows
from benchmarks.load import run_load
from benchmarks.open_loop import Offered, offer
from tests.server import Server, free_port, serving
from tests.test_workers import children, wait_for

_POISON = ("decode", "unsupported_media_type")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=None)
    given = parser.parse_args()
    golden = golden_rows(given.models)
    lines, poisoned = _lines(golden, given.rows)
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "workers": given.workers,
            "jobs_dir": Path(scratch, "jobs"),
            "port": free_port(),
            "log_level": "warning",
        }
        with serving(given.models, **settings) as server:
            job = _measure(server, golden, lines, given.seconds, given.turns)
            before = _kill_in_the_middle(server, job)
        with serving(given.models, **settings) as server:
            seconds = _check(server, job, given.rows, poisoned)
    print(
        f"killed with {before} of {given.rows} rows done; after the restart the rest took {seconds:.0f} s, "
        "every id once"
    )


def _measure(server: Server, golden: Sequence[RawInputs], lines: bytes, seconds: float, turns: int) -> str:
    """Prints the table; the job that was made last, unfinished."""
    capacity = asyncio.run(run_load(server.port, golden, connections=32, seconds=seconds / 2)).rows_per_second
    print(f"capacity {capacity:.0f} rows/s in a closed loop; offered: {capacity / 2:.0f} requests/s")
    print("job       p50       p99   answered   refused, late, wrong, other   job's rows/s")
    ratios, job = [], ""
    for turn in range(turns):
        alone = asyncio.run(_offer(server, golden, capacity / 2, seconds, seed=turn))
        _show("without", alone, "")
        job = _submit(server, lines)
        done, started_s = _done(server, job), time.perf_counter()
        beside = asyncio.run(_offer(server, golden, capacity / 2, seconds, seed=turn))
        state = _state(server, job)
        rate = (state["rows"]["scored"] + state["rows"]["failed"] - done) / (time.perf_counter() - started_s)
        _show("with", beside, f"{rate:.0f}" + ("" if state["state"] == "running" else ", and ended"))
        ratios.append(beside.accepted_s(0.99) / alone.accepted_s(0.99))
        httpx.post(f"{server.url}/v1/jobs/{job}/cancel").raise_for_status()
    print(f"p99 with a job / without: {statistics.median(ratios):.2f} (median of {turns} pairs: "
          f"{', '.join(f'{ratio:.2f}' for ratio in ratios)})")  # fmt: skip
    return _submit(server, lines)


def _lines(golden: Sequence[RawInputs], count: int) -> tuple[bytes, set[str]]:
    """Rows of all subsets as JSONL, every fiftieth with bytes that are no picture; the ids of those."""
    media = {
        name: itertools.cycle([body for raw in golden if (body := getattr(raw, name))]) for name in MODALITIES
    }
    lines, poisoned = [], set()
    for number, subset in zip(range(count), itertools.cycle(subsets(MODALITIES)), strict=False):
        row = {"id": f"r{number}"}
        for name in subset.split("+"):
            body = next(media[name])  # type: ignore[index]
            row[name] = body.decode() if name == "text" else base64.b64encode(body).decode()
        if number % 50 == 7:
            row["image"] = base64.b64encode(b"no picture").decode()
            poisoned.add(row["id"])
        lines.append(json.dumps(row))
    return "\n".join(lines).encode(), poisoned


async def _offer(
    server: Server, golden: Sequence[RawInputs], rate: float, seconds: float, *, seed: int
) -> Offered:
    return await offer(server.port, golden, rate=rate, seconds=seconds, deadline_ms=5000, seed=seed)


def _show(name: str, offered: Offered, rate: str) -> None:
    bad = f"{offered.refused}, {offered.late}, {offered.wrong}, {offered.other}"
    print(
        f"{name:7} {offered.accepted_s(0.5) * 1000:6.1f} ms {offered.accepted_s(0.99) * 1000:6.1f} ms "
        f"{len(offered.answered_s):10} {bad:>29} {rate:>14}"
    )


def _submit(server: Server, lines: bytes) -> str:
    headers = {"Content-Type": "application/x-ndjson"}
    made = httpx.post(f"{server.url}/v1/jobs?model=digits", content=lines, headers=headers, timeout=60)
    job: str = made.raise_for_status().json()["id"]
    return job


def _state(server: Server, job: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = (
        httpx.get(f"{server.url}/v1/jobs/{job}", timeout=30).raise_for_status().json()
    )
    return found


def _text(server: Server, path: str) -> str:
    return httpx.get(f"{server.url}/v1/jobs/{path}", timeout=60).raise_for_status().text


def _done(server: Server, job: str) -> int:
    rows = _state(server, job)["rows"]
    return rows["scored"] + rows["failed"]


def _kill_in_the_middle(server: Server, job: str) -> int:
    total = _state(server, job)["rows"]["total"]
    wait_for(lambda: _done(server, job) > total / 3, seconds=600)
    processes = [server.process.pid, *children(server)]
    before = _done(server, job)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    server.process.wait()
    assert before < total, "it was over before it was killed"
    return before


def _check(server: Server, job: str, count: int, poisoned: set[str]) -> float:
    """Seconds until the job ended."""
    started_s = time.perf_counter()
    wait_for(lambda: _state(server, job)["state"] != "running", seconds=600)
    seconds = time.perf_counter() - started_s
    assert str(_state(server, job)["state"]) == "completed"
    results, letters = (
        [json.loads(line) for line in _text(server, f"{job}/{what}").splitlines()]
        for what in ("results", "errors")
    )
    ids = Counter(row["id"] for row in (*results, *letters))
    assert ids == Counter(f"r{number}" for number in range(count)), "an id is missing, or comes twice"
    assert {letter["id"] for letter in letters} == poisoned
    assert {(letter["stage"], letter["code"]) for letter in letters} == {_POISON}
    return seconds


if __name__ == "__main__":
    main()
