"""Score a table with Spark: each task runs a bundle over its partition. See docs/cluster.md.

    spark-submit deploy/spark_score.py --input rows.parquet --output answers.parquet --bundle models/digits/2

The input has the columns of docs/scoring.md: an id, and image, text and audio, as bytes or names of files.
The bundle and those files must be there on the machine of every executor, and trichord[cpu] in its Python.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.bundle.folder import read_bundle
from app.rows.records import Names, Record, to_row
from app.rows.row import Row
from app.runtime.session import find_device
from app.score.engine import Failed, Outcome
from app.score.local import LocalEngine, Running

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = "id string, label string, probability float, modalities array<string>, code string, reason string"
_FRAME_ROWS = 1000  # of what is handed back to Spark at once


def scorer(
    bundle: Path, *, base: Path, threads: int = 1
) -> Callable[[Iterator[DataFrame]], Iterator[DataFrame]]:
    """For DataFrame.mapInPandas: a partition's frames to frames of SCHEMA, a row for each.

    Names of files are relative to `base`. A row that cannot be answered has a code and a reason instead.
    """

    def score(frames: Iterator[DataFrame]) -> Iterator[DataFrame]:
        import pandas

        engine = LocalEngine.open(read_bundle(bundle), Running(threads=threads), device=find_device("cpu"))
        outcomes = engine.score(_rows(frames, base))
        while some := list(itertools.islice(outcomes, _FRAME_ROWS)):
            yield pandas.DataFrame([_answer(outcome) for outcome in some])

    return score


def _rows(frames: Iterable[DataFrame], base: Path) -> Iterator[Row]:
    records = (record for frame in frames for record in frame.to_dict("records"))
    names = Names()
    for position, record in enumerate(records):
        cells = {name: _plain(record[name]) for name in names.all if name in record}
        there = {name: cell for name, cell in cells.items() if cell is not None}
        yield to_row(Record(there, base, share=0), names, position=position)


def _plain(cell: Any) -> Any:
    """Without pandas' own: NaN where nothing is, bytearrays, and structs with those in them."""
    match cell:
        case dict():
            parts = {name: _plain(part) for name, part in cell.items()}
            return {name: part for name, part in parts.items() if part is not None}
        case bytearray():
            return bytes(cell)
        case float() if math.isnan(cell):
            return None
    return cell


def _answer(outcome: Outcome) -> dict[str, Any]:
    names = ("label", "probability", "modalities")
    if isinstance(outcome, Failed):
        return {"id": outcome.row.id, **dict.fromkeys(names), "code": outcome.code, "reason": outcome.reason}
    return {
        "id": outcome.row.id,
        **{name: outcome.answer[name] for name in names},
        "code": None,
        "reason": None,
    }


def main() -> None:
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("input", "output", "bundle"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    spark = SparkSession.builder.appName("trichord").getOrCreate()
    rows = spark.read.parquet(str(given.input))
    base = given.input.resolve().parent
    rows.mapInPandas(scorer(given.bundle.resolve(), base=base), SCHEMA).write.parquet(str(given.output))
    spark.stop()


if __name__ == "__main__":
    main()
