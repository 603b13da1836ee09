"""`trichord score`: options to a run, and how it ended to an exit code.

0 every row was answered · 1 the engine is lost · 2 options, input or output do not fit · 3 finished, with
dead letters · 4 more dead letters than --max-errors · 130 interrupted. After 1, 4 and 130 the same command
goes on.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TextIO

import typer

from app.score.engines import Asked, EngineKind, open_engine

if TYPE_CHECKING:
    from app.score.inputs import Input
    from app.score.run import MostErrors, Shard

DEAD_LETTERS: Final = 3
INTERRUPTED: Final = 130


class Format(StrEnum):
    """Of the output's parts."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


def score(
    *,
    given: Annotated[
        list[str],
        typer.Option(
            "--input", help="Manifest (.jsonl, .csv, .parquet), folder or tar shards; may be repeated."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for part-00000.jsonl … and errors.jsonl.")],
    bundle: Annotated[Path | None, typer.Option(help="Score by this bundle, on this machine.")] = None,
    engine: Annotated[
        EngineKind, typer.Option(help="For --bundle: on this machine, or spread over a Ray cluster.")
    ] = EngineKind.local,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="For --bundle: processes that hold it, or Ray's actors; as many as there are cores for.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS", help="The cluster's head; a Ray of its own if left out.", show_envvar=True
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Score by the server at this address.")] = None,
    model: Annotated[str | None, typer.Option(help="Which model of the server.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="TRICHORD_API_KEY", help="The server's key.", show_envvar=True)
    ] = None,
    format: Annotated[Format, typer.Option(help="Of the parts.")] = Format.jsonl,  # noqa: A002
    columns: Annotated[
        str | None, typer.Option(help="Columns of the output, by commas; all if left out.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Classes in the column `top`.")] = 5,
    include_embeddings: Annotated[
        bool,
        typer.Option("--include-embeddings", help="The column `embedding`; by a URL a request a row more."),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Columns `contribution_image` … : what each modality adds.")
    ] = False,
    part_rows: Annotated[
        int, typer.Option(min=1, help="Rows of a part; a kill loses at most one part's.")
    ] = 10_000,
    id_column: Annotated[str, typer.Option(help="What the input calls the id.")] = "id",
    image_column: Annotated[str, typer.Option(help="Likewise the image.")] = "image",
    text_column: Annotated[str, typer.Option(help="Likewise the text.")] = "text",
    audio_column: Annotated[str, typer.Option(help="Likewise the sound.")] = "audio",
    shard: Annotated[str, typer.Option(help="i/n: every n-th row from the i-th on, i from 0.")] = "0/1",
    limit: Annotated[
        int | None, typer.Option(min=0, help="Only so many rows, the first of the shard.")
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Rows of the output in the input's order.")
    ] = False,
    max_errors: Annotated[
        str | None, typer.Option(help="Stop when more rows fail: a number, or a share such as 1%.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Most rows per second.")] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Rows of one run or request.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests at once.")] = 32,
    retries: Annotated[int, typer.Option(min=0, help="How often a request may break off.")] = 5,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds for a request.")] = 30,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds without any answer, after which a run by a URL ends.")
    ] = 300,
    device: Annotated[str, typer.Option(help="For --bundle: auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="For --bundle: threads of each worker; 1, with a GPU the cores.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Replace what the output folder holds.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the input, ask nobody, say what is there.")
    ] = False,
) -> None:
    """Score many rows: each once in a part or among the dead letters, also when killed and run again."""
    from app.bundle.errors import BundleError
    from app.rows.records import Names
    from app.runtime.errors import RuntimeFault
    from app.score.errors import ScoreError
    from app.score.inputs import open_input
    from app.score.stopping import Stopped

    names = Names(id_column, image_column, text_column, audio_column)
    asked = Asked(
        kind=engine, bundle=bundle, workers=workers, ray_address=ray_address, device=device,
        threads=threads, url=url, api_key=api_key, model=model,
        concurrency=concurrency, retries=retries, timeout_s=timeout, patience_s=patience, rate=rate,
        batch_rows=batch_rows or (64 if url else 32), top_k=top_k, embeddings=include_embeddings,
        explanations=explain, ordered=ordered,
    )  # fmt: skip
    try:
        rows = open_input(given, names)
        _check_apart(rows, output.resolve())
        if dry_run:
            raise typer.Exit(_survey(rows))
        shape = _Shape(
            format.value,
            columns.split(",") if columns else None,
            _shard(shard),
            limit,
            part_rows,
            _most(max_errors),
        )
        code = _score(rows, asked, shape, output, restart=restart)
    except ScoreError as error:
        _fail(str(error), code=_exit_code(error))
    except (BundleError, RuntimeFault) as error:
        _fail(str(error), code=1)
    except OSError as error:
        _fail(f"{error.strerror or 'A file cannot be read or written'}: {error.filename or output}.", code=1)
    except Stopped:
        _fail("Interrupted. What is finished is kept: run it again to go on.", code=INTERRUPTED)
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class _Shape:
    """The options that shape the output."""

    format: Any
    columns: list[str] | None
    shard: Shard
    limit: int | None
    part_rows: int
    most_errors: MostErrors


def _score(rows: Input, asked: Asked, shape: _Shape, folder: Path, *, restart: bool) -> int:
    """The exit code of a run that came to its end."""
    from dataclasses import asdict

    from app.score.columns import columns_for
    from app.score.ledger import Ledger
    from app.score.parts import part_opener
    from app.score.progress import Meter, shown
    from app.score.run import Output, Unfinished, score
    from app.score.stopping import Stopping

    ours = sys.stdout  # an engine may keep it from its library's words
    stopping = Stopping()
    with stopping.listening(), open_engine(asked) as engine:
        columns = columns_for(
            engine.model, shape.columns, embeddings=asked.embeddings, explanations=asked.explanations
        )
        opener = part_opener(shape.format, columns, is_multilabel=engine.model.is_multilabel)
        identity = {
            "input": {"files": rows.fingerprint(), "names": asdict(rows.names), "shard": asdict(shape.shard)},
            "model": engine.model.identity,
            "shape": {"format": shape.format, "columns": columns, "top_k": asked.top_k},
        }
        with Ledger(folder, identity, restart=restart) as ledger:
            meter = Meter(load=lambda: engine.load, before=len(ledger.finished))
            out = Output(ledger, opener, shape.format, engine.model, columns, shape.part_rows)
            todo = Unfinished(
                rows,
                ledger.finished,
                shard=shape.shard,
                limit=shape.limit,
                per_second=None
                if asked.url
                else asked.rate,  # where it waits for a server, it can be stopped
            )
            try:
                with shown(meter):
                    score(
                        todo, engine, out, most_errors=shape.most_errors, seen=meter.count, held=stopping.held
                    )
            finally:
                _say(
                    {
                        "scored": ledger.scored,
                        "dead_letters": ledger.dead,
                        "model": engine.model.identity,
                        "this_time": meter.snapshot(),
                    },
                    ours,
                )
            return DEAD_LETTERS if ledger.dead else 0


def _check_apart(rows: Input, output: Path) -> None:
    """Or what a run writes would change its input. Raises NotAsked."""
    from app.score.errors import NotAsked

    if any(output == file.parent for file in rows.files):
        raise NotAsked("The input lies in the output folder. Choose another --output.")
    if any(file.is_dir() and output.is_relative_to(file) for file in rows.files):
        raise NotAsked("The output folder lies in an input folder. Choose another --output.")


def _survey(rows: Input) -> int:
    from app.score.dry import survey

    found = survey(rows)
    _say(found.summary(), sys.stdout)
    return 2 if found.duplicates else DEAD_LETTERS if found.unreadable else 0


def _shard(said: str) -> Shard:
    from app.score.errors import NotAsked
    from app.score.run import Shard

    match = re.fullmatch(r"(\d+)/(\d+)", said)
    if match is None or int(match[1]) >= int(match[2]):
        raise NotAsked("--shard is i/n with i from 0 to n-1, such as 0/4.")
    return Shard(int(match[1]), int(match[2]))


def _most(said: str | None) -> MostErrors:
    from app.score.errors import NotAsked
    from app.score.run import MostErrors

    if said is None:
        return MostErrors()
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", said)
    if match is None:
        raise NotAsked("--max-errors is a number of rows, or a share such as 1%.")
    return MostErrors(rows=int(match[1])) if match[1] else MostErrors(share=float(match[2]) / 100)


def _exit_code(error: Exception) -> int:
    from app.score.errors import EngineLost, TooManyErrors

    match error:
        case TooManyErrors():
            return 4
        case EngineLost():
            return 1
    return 2


def _say(summary: dict[str, Any], file: TextIO) -> None:
    typer.echo(json.dumps(summary), file=file)


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(f"trichord: {message}", err=True)
    raise typer.Exit(code)
