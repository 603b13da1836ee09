"""Every kind of input through a bundle into every kind of output, and back."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import pyarrow.parquet
import pytest

from app.runtime.predictor import Predictor
from tests import tiny
from tests.score.running import answers, score
from tests.score.test_readers import WRITERS, wanted


def read_jsonl(output: Path) -> list[dict[str, Any]]:
    return answers(output)


def read_csv(output: Path) -> list[dict[str, Any]]:
    found = []
    for part in sorted(output.glob("part-*.csv")):
        with part.open(encoding="utf-8", newline="") as file:
            found += map(of_cells, csv.DictReader(file))
    return found


def read_parquet(output: Path) -> list[dict[str, Any]]:
    tables = map(pyarrow.parquet.read_table, sorted(output.glob("part-*.parquet")))
    return [without_none(row) for table in tables for row in table.to_pylist()]


def read_duckdb(output: Path) -> list[dict[str, Any]]:
    """Without the time, for which DuckDB wants one more library in Python."""
    with duckdb.connect() as database:
        found = database.execute(
            "SELECT * EXCLUDE (scored_at) FROM read_parquet(?) ORDER BY id", [f"{output}/part-*.parquet"]
        )
        names = [column[0] for column in found.description or ()]
        return [without_none(dict(zip(names, row, strict=True))) for row in found.fetchall()]


READERS: dict[str, list[Callable[[Path], list[dict[str, Any]]]]] = {
    "jsonl": [read_jsonl],
    "csv": [read_csv],
    "parquet": [read_parquet, read_duckdb],
}


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("write", WRITERS)
def test_every_input_goes_through_into_every_output(
    folder: Path,
    tmp_path: Path,
    predictor: Predictor,
    write: Callable[[Path], Path],
    format: str,  # noqa: A002
) -> None:
    given = tmp_path / "in"
    given.mkdir()
    done = score(
        "--input", write(given), "--output", tmp_path / "out", "--bundle", folder, "--format", format
    )
    assert (done.code, done.summary["scored"]) == (0, 3)
    for read in READERS[format]:
        rows = read(tmp_path / "out")
        assert [row["id"] for row in rows] == [row_id for row_id, _ in wanted()]
        for row, (_, raw) in zip(rows, wanted(), strict=True):
            alone = predictor.predict(raw)
            assert (row["label"], row["modalities"]) == (alone.best.label, list(alone.used))
            top = [(one["label"], one["probability"]) for one in row["top"]]
            assert top == [(one.label, pytest.approx(one.probability, abs=1e-5)) for one in alone.top]
            assert row["by_modality"].keys() == set(alone.used)


def made(kind: Callable[[], Any], tmp_path: Path) -> Path:
    bundle = kind()
    return tiny.write_files(tmp_path / "models", bundle, bundle.files)


@pytest.mark.parametrize("kind", [tiny.make, tiny.with_sets, tiny.multilabel])
def test_formats_hold_the_same(manifest: Path, tmp_path: Path, kind: Callable[[], Any]) -> None:
    folder = made(kind, tmp_path)
    for name in ("jsonl", "csv", "parquet"):
        given = ("--input", manifest, "--output", tmp_path / name, "--bundle", folder, "--part-rows", 100)
        assert score(*given, "--format", name, "--include-embeddings", "--explain").code == 3
    wanted = [without_time(row) for row in answers(tmp_path / "jsonl")]
    assert len(list((tmp_path / "parquet").glob("part-*.parquet"))) == 3
    assert [without_time(row) for row in read_parquet(tmp_path / "parquet")] == wanted
    assert [without_time(row) for row in read_csv(tmp_path / "csv")] == wanted


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "scored_at"}


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_none(entry) for name, entry in value.items() if entry is not None}
    return [without_none(entry) for entry in value] if isinstance(value, list) else value


def of_cells(row: dict[str, str]) -> dict[str, Any]:
    texts = ("id", "label", "model", "digest", "scored_at", "modalities")
    read = {name: cell if name in texts else json.loads(cell) for name, cell in row.items() if cell}
    return read | {"modalities": row["modalities"].split("+")}


OPINION = "struct<label: string, probability: float"
LABELS = "list<element: struct<label: string, probability: float>>"
SCHEMA = {
    "id": "string", "label": "string", "probability": "float", "top": LABELS,
    "modalities": "list<element: string>",
    "warnings": "list<element: struct<part: string, code: string, message: string>>",
    "embedding": "list<element: float>",
    "contribution_image": "double", "contribution_text": "double", "contribution_audio": "double",
    "model": "string", "version": "int64", "digest": "string",
    "scored_at": "timestamp[ms, tz=UTC]",
}  # fmt: skip
IN_DUCKDB = {
    "string": "VARCHAR", "float": "FLOAT", "double": "DOUBLE", "int64": "BIGINT",
    "timestamp[ms, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
    "list<element: string>": "VARCHAR[]", "list<element: float>": "FLOAT[]",
    LABELS: "STRUCT(\"label\" VARCHAR, probability FLOAT)[]",
    SCHEMA["warnings"]: "STRUCT(part VARCHAR, code VARCHAR, message VARCHAR)[]",
}  # fmt: skip


def opinions(of_each: str) -> str:
    return f"struct<image: {of_each}, text: {of_each}, audio: {of_each}>"


SCHEMAS: list[tuple[Callable[[], Any], dict[str, str]]] = [
    (tiny.make, SCHEMA | {"by_modality": opinions(f"{OPINION}>")}),
    (
        tiny.with_sets,
        SCHEMA | {"prediction_set": "list<element: string>", "by_modality": opinions(f"{OPINION}>")},
    ),
    (
        tiny.multilabel,
        SCHEMA | {"labels": LABELS, "by_modality": opinions(f"{OPINION}, labels: {LABELS}>")},
    ),
]


@pytest.mark.parametrize(("kind", "stated"), SCHEMAS)
def test_parquet_has_the_stated_schema_for_others(
    manifest: Path, tmp_path: Path, kind: Callable[[], Any], stated: dict[str, str]
) -> None:
    folder = made(kind, tmp_path)
    given = ("--input", manifest, "--output", tmp_path / "out", "--bundle", folder, "--format", "parquet")
    assert score(*given, "--include-embeddings", "--explain").code == 3
    [part] = (tmp_path / "out").glob("part-*.parquet")
    schema = pyarrow.parquet.read_schema(part)
    assert {name: str(schema.field(name).type) for name in schema.names} == stated
    assert [name for name in schema.names if not schema.field(name).nullable] == ["id"]
    assert pyarrow.parquet.ParquetFile(part).metadata.row_group(0).column(0).compression == "ZSTD"
    files = [f"{tmp_path}/out/part-*.parquet"]
    with duckdb.connect() as database:
        described = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", files).fetchall()
        query = "SELECT count(*), count(DISTINCT id), sum(len(modalities)), min(by_modality.text.probability) FROM read_parquet(?)"  # noqa: E501
        counted = database.execute(query, files).fetchone()
    in_duckdb = {name: IN_DUCKDB[said] for name, said in stated.items() if name != "by_modality"}
    assert {name: said for name, said, *_ in described if name != "by_modality"} == in_duckdb
    rows = pyarrow.parquet.read_table(part).to_pylist()
    assert counted is not None
    assert counted[:3] == (len(rows), len(rows), sum(len(row["modalities"]) for row in rows))
    assert counted[3] == min(
        row["by_modality"]["text"]["probability"] for row in rows if row["by_modality"]["text"]
    )


@pytest.mark.parametrize("format", READERS)
def test_ids_come_back_as_they_were(folder: Path, tmp_path: Path, format: str) -> None:  # noqa: A002
    ids = [
        'comma, "quoted"',
        "two\nlines",
        "\u0645\u0631\u062d\u0628\u0627 \U0001f600",
        "=1+1",
        " spaces ",
        "null",
        "12",
    ]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": one, "text": "uno"}) + "\n" for one in ids))
    given = ("--input", rows, "--output", tmp_path / "out", "--bundle", folder)
    assert score(*given, "--format", format).code == 0
    for read in READERS[format]:
        assert sorted(row["id"] for row in read(tmp_path / "out")) == sorted(ids)
