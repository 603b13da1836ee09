"""The engine on a Ray cluster: Ray Data reads the rows and spreads them over actors that hold a bundle each.

    this process        Ray, this machine             Ray, any machine
    ------------        -----------------             ----------------
    ledger, parts,      one task reads rows           each actor decodes and runs
    dead letters        and packs them                whole packs, as LocalEngine does
          ^                     |                               |
          |                     +----------- parcels ---------->|
          +---------------------- outcomes ---------------------+

One task reads, because a row's position is how many came before it, and because which rows share a run
decides the last bits of their answers. Reading again gives the same parcels, which is what Ray does where a
machine was lost. What waits is in Ray's object store, and when that fills, the reader pauses. A parcel that
comes twice counts once, and one that never comes ends the run.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Final

import pyarrow
import ray
import ray.data
import ray.exceptions

from app.bundle.folder import Bundle
from app.cores import usable_cores
from app.rows.row import Row
from app.runtime.errors import RuntimeFault
from app.runtime.session import find_device
from app.score.engine import Load, Outcome
from app.score.errors import EngineLost, NotAsked
from app.score.local import LocalEngine, Running, model_of, packs
from app.score.positions import Positions
from app.score.wire import Answered, Parcel, answered_in, parcels, parcels_in

_STORE_BYTES: Final = 256 * 2**20  # of an object store of our own, beside what the bundle takes
_REFUSED: Final = (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError)  # by ray.init
_KNOCK_S: Final = 10.0
_TRIES: Final = 4  # of a parcel under which actors die
_GO_ON: Final = "What is finished is kept: run it again to go on."


@dataclass(frozen=True, slots=True)
class Spread:
    """Where a bundle is run."""

    address: str | None = None  # of a cluster's head; None: a Ray of our own, on this machine
    workers: int | None = None  # actors that hold the bundle; None: as many as there is room for
    device: str = "auto"
    ordered: bool = False


class RayEngine:
    """See Engine. Iterating its rows again, on another machine, must give the same ones."""

    def __init__(self, bundle: Bundle, running: Running, spread: Spread, *, device: str, actors: int) -> None:
        self._bundle = bundle
        self._running = running
        self._device = device
        self._actors = actors
        self._is_ordered = spread.ordered
        self.model = model_of(bundle.manifest)

    @property
    def load(self) -> Load:
        return Load(concurrency=self._actors)

    def score(self, rows: Iterable[Row]) -> Generator[Outcome, None, None]:
        """See Engine."""
        seen = Positions()
        last: int | None = None
        try:
            with closing(self._answers(rows)) as answers:
                for answered in answers:
                    if answered.number in seen:
                        continue
                    seen.add(answered.number)
                    last = answered.number if answered.is_last else last
                    yield from answered.outcomes
        except ray.exceptions.RayError as error:
            raise EngineLost(_told(error)) from error
        if last is None or len(seen) != last + 1:
            raise EngineLost(f"Ray has lost rows. {_GO_ON}")

    def _answers(self, rows: Iterable[Row]) -> Generator[Answered, None, None]:
        """Each parcel as it comes back. Raises NotAsked, EngineLost or RayError.

        A parcel is a row of a Dataset, which Ray never divides, whatever it makes of the blocks.
        """
        _configure(ordered=self._is_ordered)
        read = {"rows": ray.put(rows), "batch_rows": self._running.batch_rows}
        this_machine = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        tries = ray.remote(_Tries).options(num_cpus=0, label_selector=this_machine).remote()
        opened = {
            "bundle": ray.put(self._bundle),
            "running": self._running,
            "device": self._device,
            "tries": tries,
        }
        dataset = (
            ray.data.from_items([0])
            .map_batches(
                _read, batch_format="pyarrow", fn_kwargs=read, num_cpus=0, label_selector=this_machine
            )
            .map_batches(
                _Actor,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_kwargs=opened,
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=self._actors, initial_size=self._actors
                ),
                num_cpus=self._running.threads,
                num_gpus=1 if self._device == "cuda" else 0,
            )
        )
        with closing(iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))) as tables:
            for table in tables:
                for answered in answered_in(table):
                    if answered.unread is not None:
                        raise NotAsked(answered.unread)
                    if answered.lost is not None:
                        raise EngineLost(answered.lost)
                    yield answered


@contextmanager
def ray_engine(bundle: Bundle, running_on: Callable[[str], Running], spread: Spread) -> Iterator[RayEngine]:
    """Connected to a cluster, or to a Ray of our own, until the block ends; `running_on` is told the device.

    Standard output is kept from Ray, which tells there of workers that died, now or a little later. Raises
    NotAsked or EngineLost.
    """
    with redirect_stdout(sys.stderr), _connected(bundle, running_on, spread) as engine:
        yield engine


@contextmanager
def _connected(bundle: Bundle, running_on: Callable[[str], Running], spread: Spread) -> Iterator[RayEngine]:
    if spread.address is None:
        _start(bundle, running_on("cpu").threads, spread)
    else:
        _connect(spread.address)
    try:
        device = _device(spread)
        running = running_on(device)
        room = _room(running.threads, on_gpus=device == "cuda")
        yield RayEngine(bundle, running, spread, device=device, actors=spread.workers or room)
    finally:
        ray.shutdown()


# --- on the workers ---------------------------------------------------------------------------------


def _read(_: pyarrow.Table, *, rows: Any, batch_rows: int) -> Iterator[pyarrow.Table]:
    """All parcels, in order, or why there are no more."""
    try:
        for parcel in parcels(packs(ray.get(rows), batch_rows)):
            yield parcel.table()
    except NotAsked as error:
        yield Parcel(0, unread=str(error)).table()


class _Tries:
    """Counts how often a parcel was begun, beyond the life of the actors that begin it."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self._begun[number] += 1
        return self._begun[number]

    def end(self, number: int) -> None:
        del self._begun[number]


class _Actor:
    """A bundle that answers parcels. When it dies, Ray puts another in its place and gives it the parcel.

    What it cannot do for any row it says, because Ray would wrap what it raises.
    """

    def __init__(self, *, bundle: Any, running: Running, device: str, tries: Any) -> None:
        self._tries = tries
        self._engine: LocalEngine | None = None
        self._why = ""
        try:
            self._engine = LocalEngine.open(ray.get(bundle), running, device=find_device(device))
        except RuntimeFault as error:
            self._why = str(error)

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """A parcel to what became of it."""
        [number] = table["number"].to_pylist()
        tries = ray.get(self._tries.begin.remote(number))  # before anything that may be what kills
        [parcel] = parcels_in(table)
        answered = self._answer(parcel) if tries <= _TRIES or parcel.is_last else _deadly(parcel)
        self._tries.end.remote(number)
        return answered.table()

    def _answer(self, parcel: Parcel) -> Answered:
        if parcel.is_last:
            return Answered(parcel.number, is_last=True, unread=parcel.unread)
        if self._engine is None:
            return Answered(parcel.number, lost=self._why)
        try:
            outcomes = [one for pack in self._engine.answer(parcel.packs) for one in pack]
        except EngineLost as error:
            return Answered(parcel.number, lost=str(error))
        return Answered(parcel.number, tuple(outcomes))


def _deadly(parcel: Parcel) -> Answered:
    first, last = parcel.packs[0][0], parcel.packs[-1][-1]
    return Answered(
        parcel.number,
        lost=f"{_TRIES} actors died under the rows from '{first.id}' to '{last.id}', so one of these "
        "kills whoever runs it. Take it out, or look for the reason in Ray's logs.",
    )


# --- Ray itself ---------------------------------------------------------------------------------------


def _start(bundle: Bundle, threads: int, spread: Spread) -> None:
    """On this machine. Raises EngineLost."""
    size = sum(map(len, bundle.files.values()))
    try:
        _init(
            address="local",
            num_cpus=max(usable_cores(), threads * (spread.workers or 1)),
            object_store_memory=_STORE_BYTES + 2 * size,
            include_dashboard=False,
        )
    except _REFUSED as error:
        raise EngineLost("Ray does not start on this machine. Its logs, in /tmp/ray, say why.") from error


def _connect(address: str) -> None:
    """Raises NotAsked or EngineLost."""
    if "://" in address:
        raise NotAsked(
            "Run this on a machine of the cluster, with the address of its head such as 10.0.0.1:6379; "
            "`ray job submit` does that from elsewhere."
        )
    try:
        _knock(address)
        _init(address=address)
    except (OSError, *_REFUSED) as error:
        raise EngineLost(
            f"No Ray cluster at {address} lets us in. Start it, correct RAY_ADDRESS, or give its "
            "RAY_AUTH_TOKEN."
        ) from error


def _knock(address: str) -> None:
    """Ray itself would try for minutes where nobody listens. Raises OSError or ValueError."""
    if address == "auto":  # of a cluster that runs here: Ray knows where
        return
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_KNOCK_S):
        pass


def _init(**options: Any) -> None:
    """Ray takes SIGTERM for itself; it is given back to whoever had it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _configure(*, ordered: bool) -> None:
    """One row a block, as soon as it is there: each is a parcel, and a task of its own."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # our screen; its file keeps everything
            handler.setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.execution_options.preserve_order = ordered


def _device(spread: Spread) -> str:
    """`cpu` or `cuda`, of which Ray then gives each actor one. Raises NotAsked or RuntimeFault."""
    if spread.device not in ("auto", "cpu", "cuda"):
        raise NotAsked("With --engine ray, --device is auto, cpu or cuda: Ray says which GPU an actor has.")
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    if spread.device == "cuda" and not has_gpus:
        raise NotAsked("cuda was asked for, but the Ray cluster has no GPU.")
    if spread.device == "auto" and spread.address is None:
        return find_device("auto").kind if has_gpus else "cpu"
    return "cuda" if has_gpus and spread.device != "cpu" else "cpu"


def _room(threads: int, *, on_gpus: bool) -> int:
    """How many actors fit into the cluster. Raises NotAsked if none does."""
    room = 0
    for node in ray.nodes():
        there = node["Resources"] if node["Alive"] else {}
        fits = int(there.get("CPU", 0) // threads)
        room += min(fits, int(there.get("GPU", 0))) if on_gpus else fits
    if not room:
        raise NotAsked(
            f"No machine of the Ray cluster has {threads} processors for an actor. Lower --threads."
        )
    return room


def _told(error: ray.exceptions.RayError) -> str:
    """One sentence for what Ray raises with pages."""
    if "No module named" in str(error):
        return (
            "The cluster's workers cannot import Trichord. Install it there, or send it with a runtime "
            "environment, see docs/cluster.md."
        )
    return f"Ray ended the run ({type(error).__name__}); its logs say why. {_GO_ON}"
