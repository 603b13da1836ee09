"""Options of `trichord score` to the engine that they ask for; each brings its library along."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.cores import usable_cores

if TYPE_CHECKING:
    from app.client import AsyncClient
    from app.score.engine import Engine
    from app.score.local import Running


_FEEDERS: Final = 4  # threads that decode for one GPU


class EngineKind(StrEnum):
    """Where a bundle runs."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that choose and shape the engine."""

    kind: EngineKind
    bundle: Path | None
    workers: int | None
    ray_address: str | None
    device: str
    threads: int | None
    url: str | None
    api_key: str | None
    model: str | None
    concurrency: int
    retries: int
    timeout_s: float
    patience_s: float
    rate: float | None
    batch_rows: int
    top_k: int
    embeddings: bool
    explanations: bool
    ordered: bool


def open_engine(asked: Asked) -> AbstractContextManager[Engine]:
    """Raises NotAsked, EngineLost, BundleError or RuntimeFault."""
    from app.score.errors import NotAsked

    if (asked.bundle is None) == (asked.url is None):
        raise NotAsked("Say who answers: either --bundle or --url.")
    if asked.bundle is None:
        if asked.kind is EngineKind.ray:
            raise NotAsked("--engine ray runs a bundle: give --bundle instead of --url.")
        return nullcontext(_remote(asked))
    return _spread(asked.bundle, asked) if asked.kind is EngineKind.ray else _local(asked.bundle, asked)


def _running(asked: Asked, device: str) -> Running:
    """A core for each bundle that runs on processors; a GPU is fed by more."""
    from app.score.local import Running

    return Running(
        threads=asked.threads or (1 if device == "cpu" else min(usable_cores(), _FEEDERS)),
        batch_rows=asked.batch_rows,
        top_k=asked.top_k,
        embeddings=asked.embeddings,
        explanations=asked.explanations,
    )


def _local(folder: Path, asked: Asked) -> AbstractContextManager[Engine]:
    """In this process, or in as many as there are cores for."""
    from app.bundle.folder import read_bundle
    from app.runtime.session import find_device
    from app.score.local import LocalEngine
    from app.score.processes import several_processes

    bundle, device = read_bundle(folder), find_device(asked.device)
    running = _running(asked, device.kind)
    workers = asked.workers or (max(1, usable_cores() // running.threads) if device.kind == "cpu" else 1)
    if workers == 1:
        return nullcontext(LocalEngine.open(bundle, running, device=device))
    return several_processes(folder, bundle, running, device=device, workers=workers)


def _spread(bundle: Path, asked: Asked) -> AbstractContextManager[Engine]:
    from app.bundle.folder import read_bundle
    from app.score.errors import NotAsked

    address = None if asked.ray_address in (None, "", "local") else asked.ray_address
    _tell_ray(is_ours=address is None)
    try:
        from app.score.cluster import Spread, ray_engine
    except ImportError as error:
        raise NotAsked("--engine ray needs Ray: pip install 'trichord[score,ray]'.") from error
    spread = Spread(address, asked.workers, asked.device, asked.ordered)
    return ray_engine(read_bundle(bundle), partial(_running, asked), spread)


def _tell_ray(*, is_ours: bool) -> None:
    """What Ray reads when it loads, unless the user has said otherwise.

    It sends nothing home, and its C++ keeps false alarms to itself. A Ray of our own listens on every address
    of this machine and would run what anybody sends, so nobody else gets its token. Its workers do the work,
    so they do not stand behind everything else here.
    """
    said = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    if is_ours:
        said |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_worker_niceness": "0",
        }
    for name, value in said.items():
        os.environ.setdefault(name, value)  # noqa: TID251 - said to a library, not read


def _remote(asked: Asked) -> Engine:
    from app.score.http import connect
    from app.score.remote import Asking, RemoteEngine, find_model

    assert asked.url is not None, "or there would be a bundle"

    def client() -> AsyncClient:
        """One for each event loop."""
        assert asked.url is not None, "as above"
        return connect(
            asked.url.rstrip("/"), key=asked.api_key, timeout_s=asked.timeout_s, connections=asked.concurrency
        )

    return RemoteEngine(
        client,
        asyncio.run(find_model(client(), asked.model)),
        Asking(
            batch_rows=asked.batch_rows
            if asked.rate is None
            else max(1, min(asked.batch_rows, int(asked.rate / 2))),
            most_at_once=asked.concurrency,
            retries=asked.retries,
            patience_s=asked.patience_s,
            per_second=asked.rate,
            top_k=asked.top_k,
            embeddings=asked.embeddings,
            explanations=asked.explanations,
            ordered=asked.ordered,
        ),
    )
