"""Several workers on one port: they share the work, are replaced when they die, and their metrics add up."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.workers import Pulses
from tests import raw, tiny
from tests.api.test_stopping import UPLOAD
from tests.server import Server, form, serving
from tests.test_cli import trichord

WORKERS = 3


@pytest.fixture
def several(models_dir: Path) -> Iterator[Server]:
    with serving(models_dir, workers=WORKERS) as running:
        wait_for(lambda: listening(running.port) == WORKERS)
        yield running


def wait_for(condition: object, *, seconds: float = 20) -> None:
    assert callable(condition)
    give_up_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_s, "it never came true"
        time.sleep(0.05)


def children(server: Server) -> list[int]:
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listening(port: int) -> int:
    """Sockets that take connections at this port of the loopback."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(line[1] == f"0100007F:{port:04X}" and line[3] == "0A" for line in lines[1:])


def ask(server: Server, count: int) -> Counter[str]:
    """So many predictions, each on a connection of its own, eight at a time: statuses, or how it failed."""

    async def one(gate: asyncio.Semaphore, index: int) -> str:
        async with gate, httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            try:
                return str((await http.post("/v1/predict", files=form(tiny.row(index % 50)))).status_code)
            except httpx.TransportError as error:
                return type(error).__name__

    async def everyone() -> list[str]:
        gate = asyncio.Semaphore(8)
        return await asyncio.gather(*(one(gate, index) for index in range(count)))

    return Counter(asyncio.run(everyone()))


ANSWERED = 'trichord_requests_total{method="POST",route="/v1/predict",status="200"}'


def test_metrics_of_all_workers_add_up_also_after_one_was_killed(several: Server) -> None:
    """Whoever is asked says the same, a replacement goes on counting, and no file is left or added."""
    folders = metric_folders(several)
    assert ask(several, 120) == {"200": 120}
    assert {several.metrics()[ANSWERED] for _ in range(10)} == {120}
    files = sorted(path.name for folder in folders for path in folder.iterdir())
    before = children(several)
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(set(children(several)) - set(before)) == 1)
    wait_for(lambda: listening(several.port) == WORKERS)
    assert ask(several, 60) == {"200": 60}
    seen = several.metrics()
    assert seen[ANSWERED] == 180
    assert seen['trichord_rows_total{modalities="image+text+audio",model="tiny",version="1"}'] == 180
    [info] = [value for name, value in seen.items() if name.startswith("trichord_model_info")]
    assert info == 1, "not once for each worker"
    wait_for(lambda: sorted(path.name for folder in folders for path in folder.iterdir()) == files)
    several.process.send_signal(signal.SIGTERM)
    assert several.process.wait(20) == 0
    assert not any(folder.exists() for folder in folders)


def test_connections_that_stay_are_shared_out(several: Server) -> None:
    async def stay() -> None:
        async with httpx.AsyncClient(base_url=several.url, timeout=30) as http:
            for index in range(5):
                assert (await http.post("/v1/predict", files=form(tiny.row(index)))).status_code == 200

    async def together() -> None:
        await asyncio.gather(*(stay() for _ in range(30)))

    asyncio.run(together())
    [folder] = metric_folders(several)
    counted = [folder.joinpath(f"counter_{slot}.db").read_bytes() for slot in range(WORKERS)]
    assert all(b"/v1/predict" in file for file in counted), "chance alone leaves one out once in 60,000 runs"


def metric_folders(server: Server) -> set[Path]:
    """Where the workers count: the folder that a worker has files of open."""
    descriptors = Path(f"/proc/{children(server)[0]}/fd").iterdir()
    targets = [descriptor.readlink() for descriptor in descriptors if descriptor.is_symlink()]
    folders = {target.parent for target in targets if target.suffix == ".db"}
    assert folders
    return folders


def test_a_client_that_tries_again_sees_no_worker_die(several: Server) -> None:
    async def client(done: asyncio.Event, seed: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        while not done.is_set():
            async with httpx.AsyncClient(base_url=several.url, timeout=30) as http:
                for _ in range(20):
                    try:
                        response = await http.post("/v1/predict", files=form(tiny.row(seed)))
                    except httpx.TransportError:
                        seen["again"] += 1
                        await asyncio.sleep(
                            0.05
                        )  # the killed one's socket closes when its memory is given back
                        break
                    seen[str(response.status_code)] += 1
        return seen

    async def scenario() -> list[Counter[str]]:
        done = asyncio.Event()
        clients = [asyncio.create_task(client(done, seed)) for seed in range(6)]
        for _ in range(3):
            await asyncio.sleep(1)
            os.kill(children(several)[0], signal.SIGKILL)
            await asyncio.to_thread(wait_for, lambda: listening(several.port) < WORKERS)
            await asyncio.to_thread(wait_for, lambda: listening(several.port) == WORKERS)
        await asyncio.sleep(1)
        done.set()
        return await asyncio.gather(*clients)

    seen = sum(asyncio.run(scenario()), Counter[str]())
    assert set(seen) <= {"200", "again"}
    assert seen["200"] > 50
    assert seen["again"] <= 2 * 3 * 6, "what the killed worker had at hand, or the kernel in line for it"
    assert sum("replaced" in line["event"] for line in several.log_lines()) == 3


def test_a_stop_reaches_every_worker_and_ends_with_code_0(several: Server) -> None:
    workers = children(several)
    several.process.send_signal(signal.SIGTERM)
    assert several.process.wait(20) == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not any("replaced" in line["event"] for line in several.log_lines())


def test_asked_twice_all_end_at_once(several: Server) -> None:
    workers, folders = children(several), metric_folders(several)
    with raw.connection(several.port) as upload:
        upload.sendall(UPLOAD)
        several.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        several.process.send_signal(signal.SIGINT)
        assert several.process.wait(5) == 130
    wait_for(lambda: not any(is_alive(worker) for worker in workers), seconds=5)
    assert not any(folder.exists() for folder in folders)


def test_workers_do_not_outlive_their_parent(several: Server) -> None:
    workers = children(several)
    several.process.kill()
    several.process.wait()
    wait_for(lambda: not any(is_alive(worker) for worker in workers), seconds=10)


def test_a_worker_whose_event_loop_is_blocked_is_replaced(models_dir: Path, tmp_path: Path) -> None:
    """The key file becomes a pipe that nobody writes to, so the next look at it does not come back."""
    keys = tmp_path / "keys"
    keys.write_text("")
    with serving(models_dir, workers=2, worker_timeout_seconds=4, api_keys_file=keys) as server:
        wait_for(lambda: listening(server.port) == 2)
        before = children(server)
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(keys)
        with raw.connection(server.port) as blocked, reader_of(keys, meanwhile=lambda: ask_again(blocked)):
            (tmp_path / "keys.new").write_text("")
            (tmp_path / "keys.new").replace(keys)
            wait_for(lambda: len(set(children(server)) - set(before)) == 1)
        wait_for(lambda: listening(server.port) == 2)
        assert len(set(before) & set(children(server))) == 1, "the other one was only idle"
        assert {httpx.get(f"{server.url}/v1/models").status_code for _ in range(10)} == {401}
        [killed] = [line for line in server.log_lines() if "event loop is blocked" in line["event"]]
        assert killed["silent_s"] >= 4
        [replaced] = [line for line in server.log_lines() if "replaced" in line["event"]]
        assert (replaced["slot"], replaced["code"]) == (killed["slot"], -signal.SIGKILL)


def test_a_child_that_is_none_of_the_workers_harms_nobody(tmp_path: Path) -> None:
    """The first process of a container is handed what others leave behind when they end."""
    said = tmp_path / "said"
    done = subprocess.run(
        [sys.executable, "-c", INHERITS, str(said)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert said.read_text() == "done"


INHERITS = """
import os, pathlib, sys, time
from app.workers import Workers

if os.fork() == 0:
    time.sleep(0.5)
    os._exit(3)

def work(slot, beat):
    time.sleep(2)
    pathlib.Path(sys.argv[1]).write_text("done")
    os.kill(os.getppid(), 15)
    time.sleep(0.2)
    return 0

code = Workers(1, work, lost=lambda slot: None, timeout_s=0).run()
sys.exit(code)
"""


def ask_again(one_worker: socket.socket) -> None:
    one_worker.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")


@contextmanager
def reader_of(pipe: Path, *, meanwhile: Callable[[], None]) -> Iterator[None]:
    """Waits until somebody has the pipe open to read, and keeps them reading until the block ends."""
    found: list[int] = []

    def is_read() -> bool:
        meanwhile()
        try:
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as nobody:
            assert nobody.errno == errno.ENXIO
        return bool(found)

    wait_for(is_read)
    try:
        yield
    finally:
        os.close(found[0])


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_only_a_worker_that_beat_before_can_be_silent() -> None:
    clock = Clock()
    pulses = Pulses(3, clock=clock)
    pulses.beat(0)
    pulses.beat(1)
    pulses.look()
    for second in range(1, 300):
        clock.now_s += 1
        pulses.beat(1)
        assert pulses.look() == [second, 0, 0], "the first is silent, the third has not begun"
    pulses.begin(0)
    clock.now_s += 1
    assert pulses.look() == [0, 1, 0]


def test_a_machine_that_slept_finds_its_workers_alive() -> None:
    clock = Clock()
    pulses = Pulses(1, clock=clock)
    pulses.beat(0)
    pulses.look()
    clock.now_s += 3600
    assert pulses.look() == [2]
    pulses.beat(0)
    assert pulses.look() == [0]


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_workers_that_cannot_start_end_the_server(tmp_path: Path) -> None:
    done = trichord("serve", "--workers", 2, "--models", tmp_path / "nothing", "--port", 0)
    assert done.returncode == 4
    assert "trichord: " in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.settings import Settings

    alone = Settings(workers=1)
    monkeypatch.setenv("TRICHORD_WORKERS", "2")
    assert Settings().threads == max(1, alone.threads // 2)
    assert Settings(threads=7).threads == 7
