"""A long run by a server, though its client is killed five times and the server restarted three times.

    python -m benchmarks.killed [--rows N] [--bundle DIR]

Rows of all subsets, 2 % of them poisoned (bytes that are no picture, files that are not there). Fails unless
every id is in the output or among the dead letters exactly once, each poisoned row with its stage and code,
and no client grew by 100 MB after its first rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from benchmarks.scoring import write_rows
from tests.server import free_port

_MEDIA = 700  # different rows; the others are these again, under ids of their own
_KILLS = 5
_RESTARTS = 3
_POISON = (
    ({"image": "junk.png"}, ("decode", "unsupported_media_type")),
    ({"audio": "nowhere.wav"}, ("read", "file_not_found")),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--bundle", type=Path, default=Path("models/digits/2"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        poison = _write(folder, given.bundle.parents[1], given.rows)
        started_s = time.perf_counter()
        growth_mb = _run(folder, given.bundle.parents[1], given.rows)
        seconds = time.perf_counter() - started_s
        _check(folder / "out", given.rows, poison)
    print(
        f"{given.rows} rows, {len(poison)} poisoned, {_KILLS} kills, {_RESTARTS} restarts of the server, "
        f"{seconds:.0f} s: every id once; a client grew by at most {growth_mb:.0f} MB"
    )
    assert growth_mb < 100


def _write(folder: Path, models: Path, count: int) -> dict[str, tuple[str, str]]:
    """rows.jsonl; what is to become of each poisoned row."""
    manifest = write_rows(folder, models, _MEDIA)
    media = itertools.cycle([json.loads(line) for line in manifest.read_text().splitlines()])
    (folder / "junk.png").write_bytes(b"no picture")
    poison = {}
    with manifest.open("w") as file:
        for number, row in zip(range(count), media, strict=False):
            if number % 50 == 7:
                row, poison[f"r{number}"] = _POISON[number // 50 % len(_POISON)]
            file.write(json.dumps(row | {"id": f"r{number}"}) + "\n")
    return poison


def _run(folder: Path, models: Path, count: int) -> float:
    """Kill clients and servers in turns, then let the last client end; the most that one grew, in MB."""
    port = free_port()
    chance = random.Random(3)  # noqa: S311 - repeatable, not secret
    server, growth_mb = _serve(models, port), 0.0
    for kill in range(_KILLS):
        client = _score(folder, port)
        if kill < _RESTARTS:
            growth_mb = max(
                growth_mb, _watch(client, folder / "out", until=_finished(folder / "out") + count // 30)
            )
            server.kill()
            server.wait()
            server = _serve(models, port)
        more = chance.randint(count // 30, count // 10)
        growth_mb = max(growth_mb, _watch(client, folder / "out", until=_finished(folder / "out") + more))
        client.kill()
        client.wait()
    client = _score(folder, port)
    growth_mb = max(growth_mb, _watch(client, folder / "out", until=None))
    assert client.returncode == 3, "finished, with dead letters"
    server.terminate()
    server.wait()
    return growth_mb


def _watch(client: subprocess.Popen[bytes], output: Path, *, until: int | None) -> float:
    """Until so many rows are finished, or the client ends; by how many MB it grew meanwhile."""
    sizes, before = [], _finished(output)
    while client.poll() is None and (until is None or _finished(output) < until):
        status = Path(f"/proc/{client.pid}/statm").read_text().split()
        size = int(status[1]) if status else 0  # 0 of a process that is ending: no size to grow from
        if size and _finished(output) > before:
            sizes.append(size * os.sysconf("SC_PAGE_SIZE") / 2**20)
        time.sleep(0.05)
    assert until is None or client.poll() is None, "it ended before it was killed"
    return max(sizes, default=0.0) - min(sizes, default=0.0)


def _finished(output: Path) -> int:
    log, errors = output / "_state" / "parts.jsonl", output / "errors.jsonl"
    parts = sum(json.loads(line)["count"] for line in _lines(log))
    return parts + len(_lines(errors))


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()[:-1] if path.exists() else []


def _score(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = ["score", "--input", folder / "rows.jsonl", "--output", folder / "out", "--part-rows", "1000"]
    url = ["--url", f"http://127.0.0.1:{port}"]
    return subprocess.Popen(
        [sys.executable, "-m", "app", *map(str, command), *url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _serve(models: Path, port: int) -> subprocess.Popen[bytes]:
    said = {"TRICHORD_PORT": str(port), "TRICHORD_MODELS_DIR": str(models), "TRICHORD_WORKERS": "1"}
    environment = os.environ | said  # noqa: TID251 - handed to a child
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve"], env=environment, stderr=subprocess.DEVNULL
    )
    while True:
        assert process.poll() is None, "the server ended"
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return process
        except httpx.TransportError:
            time.sleep(0.05)


def _check(output: Path, count: int, poison: dict[str, tuple[str, str]]) -> None:
    answered = Counter(
        json.loads(line)["id"]
        for part in output.glob("part-*.jsonl")
        for line in part.read_bytes().splitlines()
    )
    letters = [json.loads(line) for line in (output / "errors.jsonl").read_bytes().splitlines()]
    assert answered + Counter(letter["id"] for letter in letters) == Counter(f"r{n}" for n in range(count))
    assert {letter["id"]: (letter["stage"], letter["code"]) for letter in letters} == poison
    assert all(letter["reason"] for letter in letters)


if __name__ == "__main__":
    main()
