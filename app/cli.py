"""The `trichord` command: the only place where a process starts.

Imports of the upper floors stand inside the commands, because the extras follow the floors: `verify` runs
where only trichord[cpu] is installed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from app.api.keys import Scope
from app.bundle.errors import BundleError
from app.bundle.folder import Bundle, read_bundle
from app.memory_folder import memory_folder
from app.runtime.errors import RuntimeFault
from app.score.command import score

app = typer.Typer(
    name="trichord",
    help="One prediction from an image, a text and a sound, also when one is missing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.command()(score)

BundleFolder = Annotated[Path, typer.Argument(help="A bundle: models/<name>/<version>.")]

_CANNOT_START = 4  # distinct from usage errors (2) and crashes (1)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [env: TRICHORD_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [env: TRICHORD_PORT]")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of bundles [env: TRICHORD_MODELS_DIR]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N [env: TRICHORD_DEVICE]")] = None,
    workers: Annotated[int | None, typer.Option(help="Serving processes [env: TRICHORD_WORKERS]")] = None,
) -> None:
    """Serve every bundle in a folder over HTTP. Options win over the environment (see docs/settings.md)."""
    from app import logs
    from app.jobs.errors import FolderTaken, StoreFailed
    from app.jobs.folder import owned

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "models_dir": models,
        "device": device,
        "workers": workers,
    }
    settings = _settings(**{name: value for name, value in given.items() if value is not None})
    logs.configure(style=settings.log_format, level=settings.log_level)
    ports = [settings.port] if settings.admin_port is None else [settings.port, settings.admin_port]
    listeners = [_listen(settings.host, port) for port in ports]
    live = _work if settings.workers == 1 else _workers
    try:
        with owned(settings.jobs_dir) if settings.jobs_dir else nullcontext():
            code = live(settings, listeners)
    except (FolderTaken, StoreFailed) as error:
        _fail(str(error), code=_CANNOT_START)
    raise typer.Exit(code)


def _workers(settings: Any, listeners: list[socket.socket]) -> int:
    """Each worker listens for itself, so that the kernel shares connections out evenly among them."""
    from app.metrics import forget
    from app.workers import Workers

    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:  # they have shown that the ports are free
        listener.close()
    reserved = [_listen(settings.host, port, is_shared=True) for port in ports]

    def work(slot: int, beat: Callable[[], None]) -> int:
        own = [_listen(settings.host, port, is_shared=True) for port in ports]
        return _work(settings, own, shared=folder, slot=slot, beat=beat)

    with memory_folder() as folder, ExitStack() as closing:
        for listener in reserved:
            closing.enter_context(listener)
        return Workers(
            settings.workers,
            work,
            lost=lambda slot: forget(folder, slot),
            timeout_s=settings.worker_timeout_seconds,
        ).run()


def _is_first_to_say(shared: Path) -> bool:
    """Workers that cannot start have the same reason, and one of them is enough to tell it."""
    try:
        (shared / "said").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _work(
    settings: Any,
    listeners: list[socket.socket],
    *,
    shared: Path | None = None,
    slot: int = 0,
    beat: Callable[[], None] = lambda: None,
) -> int:
    """The life of one serving process: its exit code."""
    from app.metrics import Metrics, share
    from app.settings import share_metrics_in

    if shared is not None:
        share_metrics_in(shared)
        share(slot)

    from app.api.keys import KeysInvalid
    from app.api.process import serve
    from app.api.repository import started_repository
    from app.serving.errors import NoLiveModel

    try:
        repository = started_repository(settings)
        serve(repository, settings, *listeners, metrics=Metrics(shared=shared), beat=beat)
    except (RuntimeFault, NoLiveModel, KeysInvalid) as error:
        if shared is None or _is_first_to_say(shared):
            typer.echo(f"trichord: {error}", err=True)
        return _CANNOT_START
    return 0


@app.command()
def verify(
    folder: BundleFolder, device: Annotated[str, typer.Option(help="Where to replay.")] = "cpu"
) -> None:
    """Check every byte of a bundle, replay its golden inputs, and hold its graphs to one another.

    One sentence and exit code 1 if it is unsound.
    """
    from app.runtime.agreement import SIZES, check_agreement
    from app.runtime.golden import replay
    from app.runtime.predictor import Predictor
    from app.runtime.session import find_device

    try:
        bundle = read_bundle(folder)
        predictor = Predictor.open(bundle, device=find_device(device), threads=1)
        replayed = replay(bundle, predictor)
        agreed = check_agreement(bundle, predictor) if bundle.manifest.is_float32 else None
    except (BundleError, RuntimeFault) as error:
        _fail(str(error), code=1)
    typer.echo(
        f"{_title(bundle)}: {len(bundle.files)} files intact, {replayed.cases} golden cases answered "
        f"as at export (largest difference {replayed.largest_difference:.1e})"
    )
    if agreed is None:
        typer.echo(f"{_title(bundle)}: graphs of reduced precision, so batches are not held to each other")
        return
    typer.echo(
        f"{_title(bundle)}: {len(agreed.subsets)} subsets of modalities in batches of "
        f"{', '.join(map(str, SIZES))}: {agreed.answers:,} answers agree, none with another label (largest "
        f"difference of a logit {agreed.split_difference:.1e}, by the fused graph "
        f"{agreed.fused_difference:.1e})"
    )


@app.command()
def inspect(folder: BundleFolder) -> None:
    """Say what a bundle reads and answers, without running it."""
    try:
        bundle = read_bundle(folder)
    except BundleError as error:
        _fail(str(error), code=1)
    manifest = bundle.manifest
    typer.echo(f"{_title(bundle)}  {manifest.digest}")
    typer.echo(f"task     {manifest.task}")
    typer.echo(f"labels   {', '.join(manifest.labels)}")
    level = manifest.fusion.level
    typer.echo(f"fusion   {manifest.fusion.method}{f', {level} level' if level else ''}")
    if conformal := manifest.calibration.conformal:
        typer.echo(f"sets     {conformal.method}, level {conformal.level:g}")
    if variant := manifest.variant:
        typer.echo(f"variant  {variant.precision}{f' of {variant.of}' if variant.of else ''}")
    for name in manifest.inputs.names:
        numbers = manifest.inputs.encoder(name).model_dump(exclude={"encoder", "tokenizer"})
        typer.echo(f"{name:8} {', '.join(f'{key} {value}' for key, value in numbers.items())}")
    for path, record in sorted(manifest.files.items()):
        typer.echo(f"{record.size:>10,}  {path}")


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Who will use it; it stands in the log.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be given again.")],
) -> None:
    """Make an API key: the key on the first line, shown only now, and on the second its line for the file."""
    from app.api.keys import KeysInvalid, new_key

    try:
        secret, line = new_key(name, frozenset(scope))
    except KeysInvalid as error:
        _fail(str(error), code=2)
    typer.echo(secret)
    typer.echo(line)


@app.command()
def healthcheck() -> None:
    """Ask the server that runs here whether it is ready: exit code 0 or 1. For containers, without curl."""
    from http.client import HTTPConnection, HTTPException

    settings = _settings()
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104 - compared, not bound
    connection = HTTPConnection(host, settings.port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, HTTPException):
        _fail(f"Nothing answers at {host}:{settings.port}.", code=1)
    finally:
        connection.close()
    if status != 200:
        _fail(f"The server at {host}:{settings.port} is not ready.", code=1)


def _settings(**given: Any) -> Any:
    """The environment's, but for what is given; one sentence and exit code 2 if one is wrong."""
    from pydantic import ValidationError

    from app.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        _fail(f"TRICHORD_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}.", code=2)


def _listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A socket that has its port, but takes no connection before the models are open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        _fail(
            f"Cannot listen at {host}:{port}. Choose another TRICHORD_HOST or TRICHORD_PORT.",
            code=_CANNOT_START,
        )
    return listener


def _title(bundle: Bundle) -> str:
    return f"{bundle.manifest.name}/{bundle.manifest.version}"


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(f"trichord: {message}", err=True)
    raise typer.Exit(code)
