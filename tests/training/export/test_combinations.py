"""Every fusion at every level as a real bundle, held to what `trichord verify` holds it to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest
import torch

from app.bundle.folder import read_bundle
from app.bundle.manifest import Modality, subsets
from app.runtime.agreement import MOST_DIFFERENCE, check_agreement
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from tests.test_cli import trichord
from training.checkpoint import Checkpoint, vocabulary_size
from training.data.dataset import Dataset
from training.encoders.specs import ConvText, MelAudio, PlainImage
from training.export.bundle import Published, bundle_folder, publish
from training.export.graphs import encoder_graphs, fusion_graph, joined_graphs
from training.fusion.contract import COMBINATIONS, Level, Method
from training.model import Model
from training.recipe import Recipe
from training.subsets import SUBSETS

pytestmark = pytest.mark.thorough  # ten seconds each; one is verified in ../recipes/test_finetune.py


@dataclass(frozen=True)
class Encoders:
    """Weights and graphs that combinations share: of what fusion reads, tokens or not."""

    weights: dict[str, torch.Tensor]
    graphs: dict[Modality, onnx.ModelProto]


@pytest.fixture(scope="module")
def wide(recipe: Recipe) -> Recipe:
    """The tiny recipe with encoders that give several tokens."""
    encoders = {
        "image": PlainImage(channels=(4, 6, 8, 8), width=8, tokens=4),
        "text": ConvText(channels=8, width=8, tokens=3),
        "audio": MelAudio(channels=(4, 6, 8, 8), bands=40, width=8, tokens=2),
    }
    return replace(recipe, encoders=encoders, fusion=replace(recipe.fusion, tensor_width=3))


@pytest.fixture(scope="module")
def shared() -> dict[bool, Encoders]:
    """By whether the fusion reads tokens; filled as they are met."""
    return {}


def published(
    recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint, shared: dict[bool, Encoders], out: Path
) -> Published:
    """Untrained, which is as good to compare graphs by; its calibration differs from subset to subset."""
    torch.manual_seed(5)
    model = Model(recipe, vocabulary=vocabulary(checkpoint)).eval()
    model.temperatures.copy_(torch.linspace(0.5, 2.0, len(model.temperatures)))
    reads = model.fusion.reads_tokens
    if reads not in shared:
        weights = {name: values.clone() for name, values in model.encoders.state_dict().items()}
        shared[reads] = Encoders(weights, encoder_graphs(model, recipe.inputs))
    model.encoders.load_state_dict(shared[reads].weights)
    graphs = joined_graphs(shared[reads].graphs, fusion_graph(model), recipe.inputs)
    calibrated = replace(checkpoint.calibrated, conformal=None)
    untrained = replace(checkpoint, model=model, calibrated=calibrated)
    destination = bundle_folder(out, recipe, number=1)
    return publish(untrained, recipe, graphs, dataset.test, destination, number=1)


def vocabulary(checkpoint: Checkpoint) -> int:
    found = vocabulary_size(checkpoint.tokenizer_json)
    assert found is not None
    return found


@pytest.mark.parametrize(("level", "method"), COMBINATIONS, ids=map("/".join, COMBINATIONS))
def test_a_combination_exports_and_verifies(
    level: Level,
    method: Method,
    wide: Recipe,
    dataset: Dataset,
    checkpoint: Checkpoint,
    shared: dict[bool, Encoders],
    tmp_path: Path,
) -> None:
    folder = published(wide.with_fusion(level, method), dataset, checkpoint, shared, tmp_path).folder
    bundle = read_bundle(folder)
    assert (bundle.manifest.fusion.level, bundle.manifest.fusion.method) == (level, method)
    predictor = Predictor.open(bundle, device=Device("cpu"), threads=1)
    assert replay(bundle, predictor).cases == 10
    found = check_agreement(bundle, predictor)
    assert set(found.subsets) == set(SUBSETS) == set(subsets(bundle.manifest.inputs.names))
    assert max(found.split_difference, found.fused_difference) <= MOST_DIFFERENCE


def test_the_command_says_what_it_held_to_one_another(
    wide: Recipe, dataset: Dataset, checkpoint: Checkpoint, shared: dict[bool, Encoders], tmp_path: Path
) -> None:
    recipe = wide.with_fusion("feature", "attention")
    done = trichord("verify", published(recipe, dataset, checkpoint, shared, tmp_path).folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 subsets of modalities in batches of 1, 2, 5, 64: " in done.stdout
    assert "none with another label" in done.stdout
