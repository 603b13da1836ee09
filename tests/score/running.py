"""Runs of `trichord score` for tests: a manifest with poisons, the command, what must have become of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.bundle.manifest import MODALITIES, subsets
from app.cli import app
from app.runtime.predictor import Predictor
from tests import tiny

ROWS = 300


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.stdout)
        return said


def score(*arguments: object) -> Ended:
    """The command in this process, also its bundle: starting workers takes longer than most runs here."""
    alone = ("--workers", "1") if "--bundle" in arguments and "--workers" not in arguments else ()
    done = CliRunner().invoke(app, ["score", *map(str, (*arguments, *alone))])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Ended(done.exit_code, done.stdout, done.stderr)


def started(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "app", "score", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def ended(process: subprocess.Popen[str], *, within_s: float = 120) -> Ended:
    out, err = process.communicate(timeout=within_s)
    return Ended(process.returncode, out, err)


def write_manifest(base: Path) -> Path:
    """All seven subsets, and of every 50 rows one of each poison."""
    lines = []
    for number in range(ROWS):
        subset = tuple(subsets(MODALITIES)[number % 7].split("+"))
        raw = tiny.row(number, subset)
        entry: dict[str, Any] = {"id": f"r{number}", "label": "of no interest"}
        for name, body in (("image", raw.image), ("audio", raw.audio)):
            if body is not None:
                (base / f"{number}.{name}").write_bytes(body)
                entry[name] = f"{number}.{name}"
        if raw.text is not None:
            entry["text"] = raw.text.decode()
        lines.append(json.dumps(poisoned(number, entry, base)))
    lines[42] = '{"id": "broken'
    file = base / "rows.jsonl"
    file.write_text("\n".join(lines))
    return file


def poisoned(number: int, entry: dict[str, Any], base: Path) -> dict[str, Any]:
    match number % 50:
        case 10:
            (base / f"{number}.junk").write_bytes(b"no picture")
            return {"id": entry["id"], "image": f"{number}.junk"}
        case 20:
            return {"id": entry["id"], "audio": "nowhere.wav"}
        case 30:
            return {"id": entry["id"], "text": "x" * 5000}
        case 40:
            return {"id": entry["id"]}
    return entry


POISON = {
    10: ("decode", "unsupported_media_type"),
    20: ("read", "file_not_found"),
    30: ("decode", "part_too_large"),
    40: ("read", "no_modality"),
}


def ids(output: Path) -> Counter[str]:
    """How often each id is in a part or among the dead letters."""
    return Counter(row["id"] for row in [*answers(output), *letters(output)])


def answers(output: Path) -> list[dict[str, Any]]:
    parts = sorted(output.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def letters(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]


def every_id() -> Counter[str]:
    return Counter([f"r{number}" for number in range(ROWS) if number != 42] + ["row-42"])


def check(output: Path, predictor: Predictor) -> None:
    """Each id once, each poison with its reason, each answer that of the row asked alone."""
    assert ids(output) == every_id()
    found = {letter["id"]: (letter["stage"], letter["code"]) for letter in letters(output)}
    assert found == {"row-42": ("read", "invalid_json")} | {
        f"r{number}": POISON[number % 50] for number in range(ROWS) if number % 50 in POISON
    }
    for row in answers(output):
        number = int(row["id"][1:])
        alone = predictor.predict(tiny.row(number, tuple(subsets(MODALITIES)[number % 7].split("+"))))
        assert abs(row["probability"] - alone.best.probability) < 1e-5
        assert {one["label"]: one["probability"] for one in row["top"]} == pytest.approx(
            {one.label: one.probability for one in alone.top}, abs=1e-5
        )
        assert row["modalities"] == list(alone.used)


def finished(output: Path) -> int:
    """Rows that a look from outside finds finished."""
    state, errors = output / "_state" / "parts.jsonl", output / "errors.jsonl"
    lines = [file.read_bytes().count(b"\n") for file in (state, errors) if file.exists()]
    return sum(lines)


def wait_for(output: Path, more: int, process: subprocess.Popen[str]) -> bool:
    """Until so many parts and dead letters have come; False if the process ended before."""
    target = finished(output) + more
    while finished(output) < target:
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def small(tmp_path: Path, count: int = 20, *, name: str = "small.jsonl") -> Path:
    file = tmp_path / name
    file.write_text("".join(json.dumps({"id": f"r{n}", "text": f"uno {n}"}) + "\n" for n in range(count)))
    return file
