"""Pretrained encoders on one's own rows: trained, exported, verified and served."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.bundle.folder import read_bundle
from tests.server import serving
from tests.test_cli import trichord
from tests.training.encoders.saved_models import save_model
from tests.training.recipes.own_rows import LABELS, row, write_rows
from training.__main__ import app
from training.data.cache import Cache
from training.data.home import Home
from training.progress import silent
from training.recipes.finetune import OwnRows, finetune
from training.recipes.wanted import load_wanted
from training.run import Where, train

KINDS = {"image": "vit", "text": "bert", "audio": "ast"}


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_a_pretrained_trio_is_trained_verified_and_served(tmp_path: Path) -> None:
    table, out = write_rows(tmp_path), tmp_path / "out[v2]"
    encoders = [f"--encoder={name}={save_model(tmp_path / kind, kind)}" for name, kind in KINDS.items()]
    told = ("--manifest", table, *encoders, "--tune=image,text", "--name=trio", "--cache", tmp_path / "cache")
    code, output = run(
        "train", "finetune", "--out", out, *told, "--epochs=1", "--batch-size=8", "--device=cpu"
    )
    assert code == 0, output
    folder = out / "bundle/trio/1"
    assert f"Published {folder} (" in output
    manifest = read_bundle(folder).manifest
    assert manifest.labels == LABELS
    assert manifest.inputs.image is not None
    assert manifest.inputs.text is not None
    assert manifest.inputs.audio is not None
    assert (manifest.inputs.image.height, manifest.inputs.image.width) == (16, 16)
    assert manifest.inputs.text.max_tokens == 24
    assert manifest.inputs.audio.sample_rate == 16_000
    assert manifest.training["epochs"] == 1
    assert {name: told["is_frozen"] for name, told in manifest.training["encoders"].items()} == {
        "image": False,
        "text": False,
        "audio": True,
    }
    assert str(tmp_path) not in manifest.model_dump_json()  # nobody else's business
    assert manifest.training["data"]["pretrained"]["image"]["folder"] == "vit"
    verified = trichord("verify", folder)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "7 subsets of modalities in batches of 1, 2, 5, 64: " in verified.stdout
    with serving(out / "bundle") as server:
        answer = server.predict(row("low", seed=99))
    assert answer.status_code == 200
    assert answer.json()["modalities"]["used"] == ["image", "text", "audio"]


@pytest.mark.thorough
def test_any_number_of_labels_from_small_encoders_is_served_too(tmp_path: Path) -> None:
    table, out = write_rows(tmp_path, task="multilabel"), tmp_path / "out"
    encoders = ("--encoder=image=plain", "--encoder=text=ngrams", "--encoder=audio=mel")
    told = ("--manifest", table, *encoders, "--task=multilabel", "--fusion=prediction/multiply")
    code, output = run(
        "train", "finetune", "--out", out, *told, "--epochs=1", "--batch-size=8", "--device=cpu",
        "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert code == 0, output
    assert read_bundle(out / "bundle/finetune/1").manifest.is_multilabel
    with serving(out / "bundle") as server:
        answer = server.predict(row("high", seed=98))
    assert answer.status_code == 200
    assert {one["label"] for one in answer.json()["labels"]} <= set(LABELS)
    assert load_wanted(out, "finetune").fusion == "prediction/multiply"
    code, output = run("export", "finetune", "--out", out, "--version=2", "--cache", tmp_path / "cache")
    assert code == 0, output
    first, again = (read_bundle(out / "bundle/finetune" / number) for number in ("1", "2"))
    assert again.files["fused.onnx"] == first.files["fused.onnx"]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        ((), 2, "--manifest and --encoder are needed by finetune"),
        (("--encoder=image=plain",), 2, "finetune needs --manifest"),
        (("--manifest=ROWS",), 2, "--encoder for each modality"),
        (("--manifest=ROWS", "--encoder=smell=plain"), 2, "'smell' is no modality"),
        (("--manifest=ROWS", "--encoder=image"), 2, "is not MODALITY=ENCODER"),
        (("--manifest=ROWS", "--encoder=image=plain", "--encoder=image=residual"), 2, "two encoders are"),
        (("--manifest=ROWS", "--encoder=image=plain", "--tune=text"), 2, "'text' is to be tuned"),
        (("--manifest=ROWS", "--encoder=text=ngrams", "--fit=pad"), 2, "the fit 'pad' is for images"),
        (("--manifest=ROWS", "--encoder=image=plain", "--name=Big"), 2, "'Big' is no name"),
        (("--manifest=ROWS", "--encoder=image=EMPTY"), 1, "is no pretrained image encoder"),
        (("--manifest=none.csv", "--encoder=image=plain"), 1, "none.csv is not there"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(
    tmp_path: Path, options: tuple[str, ...], code: int, sentence: str
) -> None:
    table, empty = write_rows(tmp_path), tmp_path / "empty"
    empty.mkdir()
    told = [one.replace("ROWS", str(table)).replace("EMPTY", str(empty)) for one in options]
    found, output = run("train", "finetune", "--out", tmp_path / "out", *told)
    assert found == code
    assert sentence in output.replace("│ ", "").replace(" │", "")
    assert "Traceback" not in output


def test_a_state_of_other_pictures_under_the_same_names_is_not_gone_on_from(tmp_path: Path) -> None:
    recipe = finetune(OwnRows(manifest=str(write_rows(tmp_path)), encoders={"image": "plain"}))
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=1, batch_size=8, threads=1))
    resumed = []
    for seed in (0, 0, 1):
        for name in (f"train{number}.png" for number in range(16) if seed):
            (tmp_path / name).write_bytes(row("low", seed=100 + int(name[5:-4])).image or b"")
        rows = recipe.load(Home(tmp_path), Cache(tmp_path / "cache"))
        where = Where(state_folder=tmp_path / "state")
        resumed.append(train(recipe, rows, seed=0, stage=silent, where=where).history.resumed_at)
    assert resumed == [0, 2, 0]


def test_own_rows_are_for_no_other_recipe(tmp_path: Path) -> None:
    told = ("--manifest", write_rows(tmp_path), "--encoder=image=plain")
    assert run("train", "digits", "--out", tmp_path, *told)[0] == 2


def test_rows_that_never_hold_all_that_is_read_are_refused(tmp_path: Path) -> None:
    table = write_rows(tmp_path)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for one in rows:
        if one["split"] == "validation":
            one["text" if one["id"].endswith("1") else "image"] = None
    table.write_text("".join(json.dumps(one) + "\n" for one in rows))
    told = ("--manifest", table, "--encoder=image=plain", "--encoder=text=ngrams", "--cache", tmp_path / "c")
    code, output = run("train", "finetune", "--out", tmp_path / "out", *told)
    assert code == 1
    assert "no row of the split 'validation' holds image and text together" in output
