"""The committed bundle answers a row alike by every engine, in any order, among any others."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bundle.manifest import MODALITIES, subsets
from tests.ray_head import Head, ray_head
from tests.score.running import answers, ended, score, started
from tests.server import Server, serving

MODELS = Path(__file__).parents[2] / "models"
BUNDLE = MODELS / "digits" / "2"
ROWS = 280
TOLERANCE = 1e-5

Said = dict[str, dict[str, float]]  # of each row, the probability of every label


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """All subsets of drawings, recordings and words, so that lengths in a run differ."""
    chance = random.Random(2)  # noqa: S311
    golden = BUNDLE / "golden"
    pictures = sorted(file for file in golden.iterdir() if file.suffix in (".png", ".jpeg", ".webp"))
    sounds = sorted(file for file in golden.iterdir() if file.suffix in (".wav", ".flac"))
    words = ["zero", "sept", "acht", "nine", "quattro", "cinco", "trois", "six", "dwa", "eins"]
    made = []
    for number, subset in zip(range(ROWS), itertools.cycle(subsets(MODALITIES)), strict=False):
        every = {
            "image": str(chance.choice(pictures)),
            "text": " ".join(chance.choices(words, k=chance.randint(1, 5))),
            "audio": str(chance.choice(sounds)),
        }
        made.append({"id": f"r{number}", **{name: every[name] for name in subset.split("+")}})
    return made


@pytest.fixture(scope="module")
def wanted(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Said:
    """Each row in a run of its own."""
    given = written(rows, tmp_path_factory.mktemp("alone"))
    assert score(*given, "--bundle", BUNDLE, "--batch-rows", 1).code == 0
    return said(given[3])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as found:
        yield found


def written(rows: list[dict[str, Any]], folder: Path) -> tuple[Any, ...]:
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("--input", manifest, "--output", folder / "out", "--columns", "label,top", "--top-k", 10)


def said(output: Path) -> Said:
    found = {row["id"]: row for row in answers(output)}
    assert len(found) == ROWS
    assert all(row["label"] == row["top"][0]["label"] for row in found.values())
    return {name: {one["label"]: one["probability"] for one in row["top"]} for name, row in found.items()}


def check(found: Said, wanted: Said) -> None:
    """The same label, and every probability within the tolerance."""
    for name, ours in found.items():
        assert ours == pytest.approx(wanted[name], abs=TOLERANCE), name
        assert max(ours, key=ours.__getitem__) == max(wanted[name], key=wanted[name].__getitem__), name


@pytest.mark.parametrize(("seed", "batch_rows"), [(1, 3), (2, 32), (3, 64), (4, 250)])
def test_a_bundle_answers_alike_in_any_order_and_company(
    rows: list[dict[str, Any]], wanted: Said, tmp_path: Path, seed: int, batch_rows: int
) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311
    given = written(shuffled, tmp_path)
    assert score(*given, "--bundle", BUNDLE, "--batch-rows", batch_rows).code == 0
    check(said(tmp_path / "out"), wanted)


@pytest.mark.parametrize(("seed", "batch_rows"), [(5, 1), (6, 17), (7, 64)])
def test_a_server_answers_alike_in_any_order_and_company(
    server: Server, rows: list[dict[str, Any]], wanted: Said, tmp_path: Path, seed: int, batch_rows: int
) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311
    given = written(shuffled, tmp_path)
    assert score(*given, "--url", server.url, "--batch-rows", batch_rows).code == 0
    check(said(tmp_path / "out"), wanted)


@pytest.mark.thorough
@pytest.mark.parametrize(("seed", "batch_rows"), [(8, 5), (9, 48)])
def test_a_cluster_answers_alike_in_any_order_and_company(
    head: Head, rows: list[dict[str, Any]], wanted: Said, tmp_path: Path, seed: int, batch_rows: int
) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311
    given = (*written(shuffled, tmp_path), "--bundle", BUNDLE, "--engine", "ray", "--threads", 1)
    done = ended(started(*given, "--batch-rows", batch_rows, **head.environment), within_s=240)
    assert done.code == 0, done.stderr
    check(said(tmp_path / "out"), wanted)
