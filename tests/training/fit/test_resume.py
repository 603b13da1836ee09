"""A run that is killed goes on as if it had not been: the same weights, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.fake_sets import write_sets
from tests.training.fit.test_draw import drawer
from training.batch import Stock
from training.checkpoint import vocabulary_size
from training.data.dataset import Dataset
from training.encoders.specs import NgramText
from training.encodings import encode, presence_of
from training.fit.loop import fit
from training.fit.objective import mean_loss
from training.fit.state import STATE_FILE
from training.model import Model
from training.progress import silent
from training.recipe import Recipe
from training.run import Where, evaluation_rows, preparer_of, tokenizer_of, train
from training.subsets import SUBSETS

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("train_slowly.py")


def start(sets: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.training.fit.train_slowly", sets, out], cwd=ROOT)


def test_a_run_killed_in_mid_epoch_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    write_sets(sets)
    assert start(sets, tmp_path / "whole").wait(timeout=120) == 0
    kills = 0
    while not (tmp_path / "killed/weights.safetensors").exists():
        process = start(sets, tmp_path / "killed")
        state = tmp_path / "killed/state/state" / STATE_FILE
        before = state.stat().st_mtime_ns if state.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and kills < 2 and time.monotonic() < deadline:
            if state.exists() and state.stat().st_mtime_ns > before:  # it has got further than the last one
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait(timeout=120)
    assert kills == 2
    whole, killed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    for name, weights in whole.items():
        assert torch.equal(weights, killed[name]), name


@pytest.mark.parametrize("change", ["seed", "recipe"])
def test_a_state_of_another_run_is_not_gone_on_from(
    recipe: Recipe, dataset: Dataset, tmp_path: Path, change: str
) -> None:
    where = Where(state_folder=tmp_path)
    train(recipe, dataset, seed=3, stage=silent, where=where)
    again = train(recipe, dataset, seed=3, stage=silent, where=where)
    assert again.history.resumed_at == 6  # two epochs of 120 rows, 40 a step: it was over
    other = (
        train(recipe, dataset, seed=4, stage=silent, where=where)
        if change == "seed"
        else train(
            replace(recipe, schedule=replace(recipe.schedule, learning_rate=1e-3)),
            dataset,
            seed=3,
            stage=silent,
            where=where,
        )
    )
    assert other.history.resumed_at == 0


def test_averaged_and_patient_runs_resume_too(recipe: Recipe, dataset: Dataset, tmp_path: Path) -> None:
    patient = replace(recipe, schedule=replace(recipe.schedule, average=0.9, patience=5, epochs=3))
    whole = train(patient, dataset, seed=1, stage=silent)
    assert len(whole.history.validation) == 3

    class Cut(Exception):
        pass

    def cutting(name: str):  # type: ignore[no-untyped-def]
        from contextlib import contextmanager

        @contextmanager
        def stage():  # type: ignore[no-untyped-def]
            def report(step):  # type: ignore[no-untyped-def]
                if step.done == 8:
                    raise Cut(name)

            yield report

        return stage()

    epochs: list[int] = []

    def watch(epoch: int, _: float) -> None:
        epochs.append(epoch)

    own = Where(state_folder=tmp_path, save_every_s=0)
    with pytest.raises(Cut):
        train(patient, dataset, seed=1, stage=cutting, where=own, watch=watch)
    resumed = train(patient, dataset, seed=1, stage=silent, where=own, watch=watch)
    assert epochs == [1, 2, 3]
    assert resumed.history.resumed_at == 7
    assert resumed.history.validation == whole.history.validation
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_validation_looks_at_the_very_average_that_is_kept(recipe: Recipe, dataset: Dataset) -> None:
    """The factors of its hashes are whole numbers of 31 bits: as floats they would be others."""
    hashed = recipe.encoders | {"text": NgramText(buckets=4_099, channels=8, hidden=8, width=8)}
    schedule = replace(recipe.schedule, average=0.9, patience=5)
    one = replace(recipe, encoders=hashed, schedule=schedule).with_fusion("feature", "concat")
    trained = train(one, dataset, seed=1, stage=silent)
    split, rows = dataset.validation, evaluation_rows(dataset.validation)
    stock = Stock(split.items, one.inputs, preparer_of(one, trained.tokenizer_json))
    encodings = encode(trained.model, stock, split.items.counts)
    losses = []
    for subset in SUBSETS:
        raw = encodings.raw(rows, presence_of(trained.model.names, subset, len(rows)))
        losses.append(mean_loss(raw.logits, torch.from_numpy(rows.targets), one.task))
    assert sum(losses) / len(losses) == pytest.approx(trained.history.best, rel=1e-6)


@pytest.mark.parametrize("patience", [1, 2])
def test_a_run_ends_after_as_many_epochs_without_a_better_one_as_it_has_patience(
    recipe: Recipe, dataset: Dataset, patience: int
) -> None:
    schedule = replace(recipe.schedule, epochs=6, patience=patience, learning_rate=1e-9)
    one = replace(recipe, schedule=schedule)
    model = Model(one, vocabulary=vocabulary_size(tokenizer_of(one, dataset)))
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.3, 2.2])
    history = fit(
        model,
        drawer(one, dataset),
        one,
        seed=0,
        device=torch.device("cpu"),
        report=lambda _: None,
        validate=lambda _, __: next(losses),
    )
    assert (history.best_epoch, history.epochs) == (2, 2 + patience)


def test_a_damaged_state_is_told_and_the_run_starts_again(
    recipe: Recipe, dataset: Dataset, tmp_path: Path
) -> None:
    where = Where(state_folder=tmp_path)
    train(recipe, dataset, seed=3, stage=silent, where=where)
    path = tmp_path / "state" / STATE_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="is damaged"):
        again = train(recipe, dataset, seed=3, stage=silent, where=where)
    assert again.history.resumed_at == 0
    assert train(recipe, dataset, seed=3, stage=silent, where=where).history.resumed_at == 6
