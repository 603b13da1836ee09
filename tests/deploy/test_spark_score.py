"""deploy/spark_score.py by a Spark of this machine."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pyarrow.parquet
import pytest

from app.bundle.manifest import MODALITIES, subsets
from app.runtime.predictor import Predictor
from deploy.spark_score import scorer
from tests import tiny

ROOT = Path(__file__).parents[2]


def test_a_frame_may_have_more_than_inputs(models_dir: Path) -> None:
    """Arrays beside them, structs as Hugging Face has them, and NaN where nothing is; without a Spark."""
    frame = pandas.DataFrame(
        {
            "id": ["a", "b", "c"],
            "image": [{"bytes": bytearray(tiny.png((250, 0, 0))), "path": None}, None, math.nan],
            "text": [None, "due", math.nan],
            "embedding": [numpy.zeros(3)] * 3,
        }
    )
    [answers] = scorer(models_dir / "tiny" / "1", base=Path("/"))(iter([frame]))
    said = answers.astype(object).where(answers.notna(), None).to_dict("records")
    assert [(row["id"], row["modalities"], row["code"]) for row in said] == [
        ("a", ["image"], None), ("b", ["text"], None), ("c", None, "no_modality")
    ]  # fmt: skip
    assert said[0]["label"] == "red"


@pytest.mark.thorough
def test_a_table_is_answered_row_by_row(models_dir: Path, tmp_path: Path, predictor: Predictor) -> None:
    raws = [tiny.row(number, tuple(subsets(MODALITIES)[number % 7].split("+"))) for number in range(100)]
    rows = [
        {
            "id": f"r{number}",
            "image": raw.image,
            "text": None if raw.text is None else raw.text.decode(),
            "audio": raw.audio,
        }
        for number, raw in enumerate(raws)
    ]
    rows += [
        {"id": "junk", "image": b"no picture", "text": None, "audio": None},
        {"id": "none", "image": None, "text": None, "audio": None},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    command = [
        sys.executable, str(ROOT / "deploy" / "spark_score.py"), "--input", str(tmp_path / "rows.parquet"),
        "--output", str(tmp_path / "out"), "--bundle", str(models_dir / "tiny" / "1"),
    ]  # fmt: skip
    environment = {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {row["id"]: row for row in pyarrow.parquet.read_table(tmp_path / "out").to_pylist()}
    assert found.keys() == {row["id"] for row in rows}
    assert found["junk"]["code"] == "unsupported_media_type"
    assert found["none"]["code"] == "no_modality"
    for number, raw in enumerate(raws):
        alone, row = predictor.predict(raw), found[f"r{number}"]
        assert (row["label"], row["modalities"]) == (alone.best.label, list(alone.used))
        assert abs(row["probability"] - alone.best.probability) < 1e-5
        assert (row["code"], row["reason"]) == (None, None)
