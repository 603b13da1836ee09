"""A published float32 bundle to a smaller, faster one: a model of its own, past its gates or not at all.

Encoders compute with smaller numbers; the fusion computes with float32 and only its weights are stored in
fewer bytes, so that what is fitted on validation rows is fitted on the very computation that is exported.
Temperatures, the prior and conformal thresholds are fitted again on the variant's own answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import onnx
import torch
from torch import nn

from app.bundle.folder import Bundle, read_bundle
from app.bundle.manifest import Modality, Variant, subsets
from app.bundle.sample import Arrays
from app.runtime.errors import DeviceUnavailable
from app.runtime.predictor import Predictor
from app.runtime.session import find_device
from training.batch import Stock
from training.calibrate.model import calibrate
from training.checkpoint import Checkpoint, CheckpointInvalid
from training.data.dataset import Dataset
from training.encodings import encode, rows_with
from training.evaluate import measure_answers
from training.export.bundle import Published, bundle_folder, parity_samples, publish
from training.export.gates import Verdict, agreement_of, quality_gates, size_gate, speed_gates
from training.export.graph_encoder import with_graphs
from training.export.graphs import FUSED_FILE, FUSION_FILE, fused_graph, fusion_graph
from training.export.packing import LEAST, LOSSLESS, Stored, pack, rounded
from training.export.precision import batches_of, float16_encoder, int8_encoder
from training.export.race import BATCHES, Race, race
from training.recipe import Recipe
from training.run import evaluation_rows, preparer_of

Smaller = Literal["int8", "float16"]
Convert = Callable[[onnx.ModelProto, Modality, list[Arrays]], onnx.ModelProto]
"""A float32 encoder's graph, what it reads, and batches of training items, to the variant's graph."""

_CONVERT: Final[dict[Smaller, Convert]] = {"int8": int8_encoder, "float16": float16_encoder}
_DEVICE: Final[dict[Smaller, str]] = {"int8": "cpu", "float16": "cuda"}  # what each is for


class GatesFailed(Exception):
    """A variant is not worth publishing."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        failed = verdict.failed
        names = ", ".join(f"{gate.name} ({_told(gate.measured)})" for gate in failed)
        super().__init__(
            f"{len(failed)} of {len(verdict.gates)} gates failed: {names}. Nothing was published."
        )


@dataclass(frozen=True, slots=True)
class Made:
    published: Published
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Origin:
    """The float32 bundle and what it was exported from."""

    bundle: Bundle
    checkpoint: Checkpoint
    recipe: Recipe


def origin_of(out: Path, checkpoint: Checkpoint, recipe: Recipe, *, number: int) -> Origin:
    """Raises CheckpointInvalid where the bundle is not this checkpoint's, ManifestInvalid where none is."""
    bundle = read_bundle(bundle_folder(out, recipe, number=number))
    if bundle.manifest.calibration.temperature != checkpoint.calibrated.temperatures:
        raise CheckpointInvalid(
            f"version {number} of {recipe.name} was not exported from the checkpoint in {out}. "
            "Export that under another version first."
        )
    return Origin(bundle, checkpoint, recipe)


def variant_name(recipe: Recipe, precision: Smaller) -> str:
    return f"{recipe.name}-{precision}"


def make_variant(
    origin: Origin,
    dataset: Dataset,
    out: Path,
    *,
    precision: Smaller,
    is_untimed_allowed: bool = False,
    measure_speed: Race = race,
    convert: Convert | None = None,
) -> Made:
    """`convert` makes the encoders' graphs, by default as the precision says.

    Raises GatesFailed, FileExistsError, ParityBroken or GoldenMismatch: then nothing is published."""
    recipe = replace(origin.recipe, name=variant_name(origin.recipe, precision))
    number = origin.bundle.manifest.version
    destination = bundle_folder(out, recipe, number=number)
    if destination.exists():
        raise FileExistsError(f"{destination} exists. A published bundle never changes.")
    built = _build(origin, dataset, precision=precision, convert=convert or _CONVERT[precision])
    verdict, metrics = _judge(origin, built, dataset, precision, measure_speed)
    verdict = replace(verdict, is_untimed_allowed=is_untimed_allowed)
    if verdict.failed:
        raise GatesFailed(verdict)
    checkpoint = replace(built.checkpoint, metrics={**metrics, "gates": verdict.as_json()})
    variant = Variant(precision=precision, of=origin.bundle.manifest.digest)
    published = publish(
        checkpoint, recipe, built.graphs, dataset.test, destination, number=number, variant=variant
    )
    return Made(published, verdict)


@dataclass(frozen=True, slots=True)
class _Built:
    """`checkpoint` has the variant's own calibration, and a model that encodes by the variant's graphs."""

    checkpoint: Checkpoint
    graphs: dict[str, bytes]


def _build(origin: Origin, dataset: Dataset, *, precision: Smaller, convert: Convert) -> _Built:
    checkpoint, recipe = origin.checkpoint, origin.recipe
    inputs = origin.bundle.manifest.inputs
    encoders = _encoders(origin, dataset, convert)
    files = {inputs.encoder(name).encoder: graph.SerializeToString() for name, graph in encoders.items()}
    model = with_graphs(checkpoint.model, files, inputs)
    round_fusion(model.fusion, stored=precision, labels=len(recipe.labels))
    stock = Stock(dataset.validation.items, recipe.inputs, preparer_of(recipe, checkpoint.tokenizer_json))
    encodings = encode(model, stock, dataset.validation.items.counts)
    calibrated = calibrate(encodings, evaluation_rows(dataset.validation))
    fusion = fusion_graph(model)
    pack(fusion, stored=precision, most_loss=LOSSLESS)
    graphs = {
        **files,
        FUSION_FILE: fusion.SerializeToString(),
        FUSED_FILE: fused_graph(encoders, fusion).SerializeToString(),
    }
    run = {**checkpoint.run, "modality_temperatures": calibrated.modality_temperatures}
    return _Built(replace(checkpoint, model=model, calibrated=calibrated, run=run), graphs)


def _encoders(origin: Origin, dataset: Dataset, convert: Convert) -> dict[Modality, onnx.ModelProto]:
    recipe, inputs = origin.recipe, origin.bundle.manifest.inputs
    items = dataset.train.items
    stock = Stock(items, recipe.inputs, preparer_of(recipe, origin.checkpoint.tokenizer_json))
    return {
        name: convert(
            onnx.load_from_string(origin.bundle.files[inputs.encoder(name).encoder]),
            name,
            batches_of(stock, name, items.counts[name]),
        )
        for name in inputs.names
    }


@torch.no_grad()
def round_fusion(fusion: nn.Module, *, stored: Stored, labels: int) -> None:
    """Large dense weights to numbers that can be stored, in place; heads, which give labels, stay exact."""
    for module in fusion.modules():
        if isinstance(module, nn.Linear) and module.out_features != labels and module.weight.numel() >= LEAST:
            module.weight.copy_(torch.from_numpy(rounded(module.weight.numpy(), axis=0, stored=stored)))


def _judge(
    origin: Origin, built: _Built, dataset: Dataset, precision: Smaller, measure_speed: Race
) -> tuple[Verdict, dict[str, Any]]:
    """The verdict, and the metrics of the variant."""
    recipe, bundle = origin.recipe, origin.bundle
    tokenizer_json = origin.checkpoint.tokenizer_json
    exact = with_graphs(origin.checkpoint.model, bundle.files, bundle.manifest.inputs)
    measure = partial(measure_answers, split=dataset.test, tokenizer_json=tokenizer_json)
    expected, before = measure(exact, recipe=replace(recipe, degradation=None), conformal=None)
    calibrated = built.checkpoint.calibrated
    found, after = measure(built.checkpoint.model, recipe=recipe, conformal=calibrated.conformal)
    rows = evaluation_rows(dataset.test)
    agreement = {
        subset: agreement_of(expected, found, rows, subset)
        for subset in subsets(exact.names)
        if len(rows_with(rows, subset))
    }
    draft = replace(bundle, files={**bundle.files, **built.graphs})
    samples = parity_samples(origin.checkpoint, recipe, dataset.test)
    racers = _racers(bundle, draft, precision)
    ratios = measure_speed(*racers, samples) if racers else None
    gates = (
        *quality_gates(before.test, after.test, agreement),
        size_gate(precision, size_bytes=_size(draft), of_bytes=_size(bundle)),
        *speed_gates(ratios, BATCHES),
    )
    return Verdict(gates), after.summary()


def _racers(float32: Bundle, variant: Bundle, precision: Smaller) -> tuple[Predictor, Predictor] | None:
    """Both on one device, the one that the variant is for; None if it is not here."""
    try:
        device = find_device(_DEVICE[precision])
        champion, challenger = (Predictor.open(one, device=device, threads=1) for one in (float32, variant))
    except DeviceUnavailable:
        return None
    return champion, challenger


def _size(bundle: Bundle) -> int:
    return sum(len(body) for body in bundle.files.values())


def _told(measured: float | None) -> str:
    return "not measured" if measured is None else f"{measured:.4g}"
