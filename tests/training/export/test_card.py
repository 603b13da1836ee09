from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.bundle.folder import read_bundle
from app.bundle.manifest import Manifest
from tests.training.recipes.own_rows import write_rows
from training.export.card import model_card
from training.recipes.digits import digits
from training.recipes.finetune import FINETUNE, OwnRows, finetune
from training.recipes.registry import RECIPES

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of a model that is committed here."""
    return read_bundle(MODELS / "digits/2").manifest


def trained(manifest: Manifest, **run: Any) -> Manifest:
    return manifest.model_copy(update={"training": {**manifest.training, **run}})


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("digits", "apache-2.0"),
        ("xor", "apache-2.0"),
        ("article", "other"),  # Reuters-21578 is for research only
        ("picturewords", "other"),
        ("avt_digits", "other"),
    ],
)
def test_the_licence_is_the_recipe_s_own(manifest: Manifest, name: str, licence: str) -> None:
    assert f"---\nlicense: {licence}\nlibrary_name: onnx\n" in model_card(manifest, RECIPES[name]())


def test_nobody_s_own_model_is_licensed_for_them(manifest: Manifest, tmp_path: Path) -> None:
    recipe = finetune(OwnRows(manifest=str(write_rows(tmp_path)), encoders={"image": "plain"}, name="pets"))
    assert model_card(manifest, recipe).startswith("---\nlibrary_name: onnx\n")
    assert (recipe.name, recipe.settings()["recipe"]) == ("pets", FINETUNE)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"device": "cpu", "epochs": 3}, ("seed 1: 3 epochs of AdamW", "7 s for training on 2 CPU threads.")),
        ({"device": "cuda", "epochs": 2}, ("seed 1: 2 of 3 epochs of AdamW", "7 s for training on `cuda`.")),
        ({"epochs": 3}, ("7 s for training on 2 CPU threads.",)),  # of a run from before it was kept
    ],
)
def test_the_card_tells_what_the_run_was_and_not_what_was_planned(
    manifest: Manifest, run: dict[str, Any], told: tuple[str, ...]
) -> None:
    card = model_card(trained(manifest, seed=1, train_s=7.2, **run), digits())
    for words in told:
        assert words in card


def test_a_value_of_one_s_own_column_stays_in_its_cell(manifest: Manifest) -> None:
    [some, *_] = manifest.metrics["slices"]["speaker"].values()
    slices = {"we|ather": {"rain|snow": some, "sun\nand fog": some}}
    told = manifest.model_copy(update={"metrics": {**manifest.metrics, "slices": slices}})
    lines = model_card(told, replace(digits(), strangers=None)).splitlines()
    [header] = (line for line in lines if line.startswith(r"| we\|ather | accuracy |"))
    for start in (r"| rain\|snow | ", "| sun and fog | "):
        [row] = (line for line in lines if line.startswith(start))
        assert row.replace(r"\|", "").count("|") == header.replace(r"\|", "").count("|")
