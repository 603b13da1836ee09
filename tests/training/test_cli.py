from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.recipes.own_rows import write_rows
from training.__main__ import app
from training.recipes.registry import RECIPES


def run(*arguments: str) -> tuple[int, str]:
    """Exit code, and what is said without frames and line ends."""
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def test_an_unknown_recipe_is_refused_with_those_that_exist() -> None:
    code, output = run("train", "numbers", "--out", "out")
    assert code == 2
    assert "'numbers' is not a recipe" in output
    assert all(name in output for name in RECIPES)


@pytest.mark.parametrize("verb", [("choose", "--among=feature/concat"), ("tune", "--trials=1")])
def test_rows_of_ones_own_are_for_training_alone(tmp_path: Path, verb: tuple[str, str]) -> None:
    code, output = run(verb[0], "finetune", "--out", str(tmp_path), verb[1])
    assert code == 2
    assert "finetune is only trained." in output
    assert "finetune" not in run(verb[0], "--help")[1]


def test_missing_data_are_named_in_one_sentence(tmp_path: Path) -> None:
    code, output = run("train", "digits", "--out", str(tmp_path / "out"), "--data", str(tmp_path))
    assert code == 1
    assert "mnist/train-images-idx3-ubyte.gz is not in" in output
    assert "Traceback" not in output


def test_a_path_is_told_as_it_is_called(tmp_path: Path) -> None:
    data, out = tmp_path / "data[old]", tmp_path / "out[v2]"
    (out / "bundle/digits/1").mkdir(parents=True)
    code, output = run("train", "digits", "--out", str(tmp_path / "out"), "--data", str(data))
    assert (code, f"is not in {data}" in output) == (1, True)
    code, output = run("train", "digits", "--out", str(out), "--data", str(data))
    assert (code, output.startswith(f"error: {out}/bundle/digits/1 exists.")) == (1, True)


@pytest.mark.parametrize("verb", ["train", "export", "variant", "choose", "tune"])
def test_an_out_that_is_a_file_is_refused(tmp_path: Path, verb: str) -> None:
    (tmp_path / "out").write_text("")
    needed = {"choose": ["--among", "feature/sum"], "tune": ["--trials", "1"]}.get(verb, [])
    code, output = run(verb, "xor", "--out", str(tmp_path / "out"), *needed)
    assert code == 2
    assert "is a file." in output
    assert "Traceback" not in output


@pytest.mark.parametrize("verb", ["train", "choose", "tune"])
def test_an_out_below_a_file_is_refused_before_training(tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").write_text("")
    needed = {"choose": ["--among", "feature/sum"], "tune": ["--trials", "1"]}.get(verb, [])
    code, output = run(verb, "xor", "--out", str(tmp_path / "file/out"), *needed)
    assert (code, "Not a directory" in output) == (1, True)


def test_a_published_version_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "bundle/digits/1").mkdir(parents=True)
    code, output = run("train", "digits", "--out", str(tmp_path), "--data", str(tmp_path))
    assert code == 1
    assert "Choose another --version or --out." in output


def test_a_run_that_diverges_ends_at_once_and_says_what_to_lower(tmp_path: Path) -> None:
    table = write_rows(tmp_path)
    told = ("--manifest", str(table), "--encoder=image=plain", "--encoder=text=ngrams", "--device=cpu")
    cache = ("--cache", str(tmp_path / "cache"))
    code, output = run(
        "train", "finetune", "--out", str(tmp_path / "out"), *told, *cache, "--learning-rate=1e30"
    )
    assert code == 1
    assert re.search(r"no numbers? (at|after) step [1-9]\. Lower --learning-rate\.", output), output
    assert "Traceback" not in output


@pytest.mark.parametrize("option", ["--task=multilabel", "--tune=image", "--fit=pad", "--name=pets"])
def test_what_only_own_rows_have_is_refused_elsewhere(tmp_path: Path, option: str) -> None:
    code, output = run("train", "xor", "--out", str(tmp_path / "out"), option)
    assert (code, "are for it alone" in output) == (2, True)


def test_a_recipe_has_the_name_it_is_called_by() -> None:
    assert {name: make().name for name, make in RECIPES.items()} == {name: name for name in RECIPES}
