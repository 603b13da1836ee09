from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.recipes.own_rows import LABELS, write_rows
from training.__main__ import app
from training.calibrate.model import Calibrated
from training.checkpoint import RUN_FILE, Checkpoint, CheckpointInvalid, load_checkpoint, save_checkpoint
from training.model import Model
from training.recipes.finetune import FINETUNE, OwnRows
from training.recipes.wanted import Wanted, save_wanted


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder as `train finetune` leaves it for export, of a model that has not learnt anything."""
    folder, table = tmp_path / "out", write_rows(tmp_path)
    wanted = Wanted(recipe=FINETUNE, own_rows=OwnRows(manifest=str(table), encoders={"image": "plain"}))
    recipe = wanted.make()
    untrained = Checkpoint(
        model=Model(recipe, vocabulary=None),
        labels=recipe.labels,
        tokenizer_json=None,
        calibrated=Calibrated({"image": 1.0}, {"image": 1.0}, (1 / 3, 1 / 3, 1 / 3), None),
        run={},
        metrics={},
    )
    save_checkpoint(folder, untrained)
    save_wanted(folder, wanted)
    return folder


def rename(out: Path, label: str, renamed: str) -> None:
    table = out.parent / "rows.jsonl"
    table.write_text(table.read_text().replace(f'"label": "{label}"', f'"label": "{renamed}"'))


@pytest.mark.parametrize("verb", ["export", "variant"])
def test_nothing_is_published_under_labels_that_were_not_trained(out: Path, verb: str) -> None:
    rename(out, "low", "quiet")
    result = CliRunner().invoke(app, [verb, FINETUNE, "--out", str(out), "--cache", str(out / "cache")])
    assert result.exit_code == 1
    assert f"{out} was trained for the labels high, low, middle;" in result.output
    assert "now have high, middle, quiet. Restore them, or train again." in result.output
    assert not (out / "bundle").exists()


def test_a_checkpoint_from_before_labels_were_kept_is_taken_at_the_recipe_s_word(out: Path) -> None:
    own = OwnRows(manifest=str(out.parent / "rows.jsonl"), encoders={"image": "plain"})
    recipe = Wanted(recipe=FINETUNE, own_rows=own).make()
    told = json.loads((out / RUN_FILE).read_bytes())
    assert tuple(told.pop("labels")) == LABELS
    (out / RUN_FILE).write_text(json.dumps(told))
    assert load_checkpoint(out, recipe).labels == LABELS


def test_another_number_of_labels_is_told_as_such(out: Path) -> None:
    own = OwnRows(manifest=str(out.parent / "rows.jsonl"), encoders={"image": "plain"})
    recipe = replace(Wanted(recipe=FINETUNE, own_rows=own).make(), labels=("high", "low"))
    with pytest.raises(CheckpointInvalid, match="now have high, low"):
        load_checkpoint(out, recipe)
