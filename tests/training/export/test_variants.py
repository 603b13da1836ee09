from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import training.__main__ as cli
from app.bundle.folder import Bundle, read_bundle
from app.bundle.sample import Sample
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device, open_session
from training.checkpoint import Checkpoint, CheckpointInvalid, load_checkpoint, save_checkpoint
from training.data.dataset import Dataset
from training.encoders.spectrogram import LogMel
from training.export.bundle import bundle_folder, parity_samples, publish
from training.export.gates import Gate, Verdict, quality_gates, size_gate, speed_gates
from training.export.graphs import export_graphs
from training.export.packing import ancestors, pack, rounded, spell_out_waves
from training.export.parity import check_rounded_parity
from training.export.race import BATCHES, Ratio, race
from training.export.variants import GatesFailed, Made, Origin, make_variant, origin_of
from training.recipe import Recipe
from training.report import gate_rows
from training.subsets import SUBSETS

CPU = Device("cpu")
RNG = np.random.default_rng(5)


def raced(value: float) -> tuple[Ratio, ...]:
    """What a race says whose outcome is known: a test's machine has other work to do."""
    return tuple(Ratio(rows, 30, 0.001, 0.001 * value, value, (value - 0.1, value + 0.1)) for rows in BATCHES)


def faster(champion: Predictor, challenger: Predictor, samples: list[Sample]) -> tuple[Ratio, ...]:
    assert champion is not challenger
    assert samples
    return raced(0.7)


def slower(champion: Predictor, challenger: Predictor, samples: list[Sample]) -> tuple[Ratio, ...]:
    del champion, challenger, samples
    return raced(1.0)


@pytest.fixture(scope="module")
def out(
    checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a checkpoint and its float32 bundle, version 4."""
    folder = tmp_path_factory.mktemp("out")
    save_checkpoint(folder, checkpoint)
    loaded = load_checkpoint(folder, recipe)
    graphs = export_graphs(loaded.model, recipe.inputs)
    publish(loaded, recipe, graphs, dataset.test, bundle_folder(folder, recipe, number=4), number=4)
    return folder


@pytest.fixture(scope="module")
def origin(out: Path, recipe: Recipe) -> Origin:
    return origin_of(out, load_checkpoint(out, recipe), recipe, number=4)


@pytest.fixture(scope="module")
def made(origin: Origin, dataset: Dataset, out: Path) -> Made:
    return make_variant(origin, dataset, out, precision="int8", measure_speed=faster)


@pytest.fixture(scope="module")
def bundle(made: Made) -> Bundle:
    return read_bundle(made.published.folder)


def test_x(made: Made) -> None:
    print(json.dumps(made.verdict.as_json(), indent=1))
