from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.bundle.folder import read_bundle
from tests.training.recipes.own_rows import write_rows
from tests.training.recipes.test_finetune import run
from training.seeds import over_seeds, scores_over_seeds


def test_an_interval_over_seeds_is_students() -> None:
    found = over_seeds([0.7, 0.8, 0.9])
    assert found.mean == pytest.approx(0.8)
    assert found.margin == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert over_seeds([0.5]).margin is None
    assert over_seeds([0.5] * 20).margin == pytest.approx(0)


def test_every_subset_has_its_scores_over_the_seeds() -> None:
    def run_with(accuracy: float) -> dict[str, Any]:
        scored = {"accuracy": {"value": accuracy}, "nll": {"value": 1 - accuracy}, "aurc": {"value": 0.0}}
        return {"test": {"image": scored, "image+text": scored}}

    found = scores_over_seeds([run_with(0.7), run_with(0.9)])
    assert {subset: set(scores) for subset, scores in found.items()} == {
        "image": {"accuracy", "nll"},
        "image+text": {"accuracy", "nll"},
    }
    assert found["image+text"]["accuracy"].mean == pytest.approx(0.8)


def test_several_seeds_are_told_and_the_best_on_validation_rows_is_published(tmp_path: Path) -> None:
    told = ("--manifest", write_rows(tmp_path), "--encoder=image=plain")
    code, output = run(
        "train", "finetune", "--out", tmp_path / "out", *told, "--seeds=2", "--tensorboard", "--epochs=1",
        "--device=cpu", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert code == 0, output
    scores = json.loads((tmp_path / "out/seeds.json").read_text())
    assert set(scores) == {"image"}
    assert scores["image"]["accuracy"]["margin"] >= 0
    run_of = read_bundle(tmp_path / "out/bundle/finetune/1").manifest.training
    assert f"Seed {run_of['seed']} is published" in output
    assert f"{run_of['validation_nll']:.4f}" in output
    events = sorted((tmp_path / "out/tensorboard").rglob("events*"))
    assert [path.parent.name for path in events] == ["seed0", "seed1"]
    assert all(path.stat().st_size > 200 for path in events)
