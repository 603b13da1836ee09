"""A checkpoint to a published bundle, or to nothing: what differs from torch is never published."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.folder import Bundle, file_records, read_bundle, staged, write_bundle
from app.bundle.golden import GoldenCase, dump_golden
from app.bundle.manifest import (
    FORMAT,
    MODALITIES,
    Calibration,
    Conformal,
    Fusion,
    Inputs,
    Manifest,
    Modality,
    Variant,
)
from app.bundle.sample import Sample
from app.runtime.agreement import check_agreement
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from training.batch import Stock
from training.calibrate.model import METHOD, Calibrated
from training.checkpoint import Checkpoint
from training.data.dataset import Split
from training.encodings import rows_with
from training.export.card import model_card
from training.export.golden import GoldenInput, golden_inputs
from training.export.graphs import FUSED_FILE, FUSION_FILE
from training.export.parity import Parity, check_parity, check_rounded_parity
from training.model import Model
from training.recipe import Recipe
from training.run import evaluation_rows, preparer_of

GOLDEN_FILE: Final = "golden/cases.json"
PARITY_ROWS: Final = 328  # batches of 1, 2, 5 and five of 64
_NO_DIGEST: Final = "0" * 64  # written by the seal
_CPU: Final = Device("cpu")
_LIBRARIES: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "tokenizers", "num2words", "numpy")


@dataclass(frozen=True, slots=True)
class Published:
    folder: Path
    size_bytes: int
    digest: str
    parity: Parity


def bundle_folder(out: Path, recipe: Recipe, *, number: int) -> Path:
    """OUT/bundle is a folder of models that can be served as it is."""
    return out / "bundle" / recipe.name / str(number)


def publish(
    checkpoint: Checkpoint,
    recipe: Recipe,
    graphs: dict[str, bytes],
    test: Split,
    destination: Path,
    *,
    number: int,
    variant: Variant | None = None,
) -> Published:
    """Compare the exported graphs with torch, write aside, read back as the server does, then publish.

    Raises ParityBroken, GoldenMismatch, GraphsDisagree, or FileExistsError: a version is published once.
    """
    assembled = _assemble(checkpoint, recipe, graphs, test, number=number, variant=variant)
    with staged(destination) as folder:
        write_bundle(folder, assembled.bundle.manifest, assembled.bundle.files)
        bundle = read_bundle(folder)
        predictor = Predictor.open(bundle, device=_CPU, threads=1)
        replay(bundle, predictor)
        if bundle.manifest.is_float32:
            check_agreement(bundle, predictor)
    size = sum(record.size for record in bundle.manifest.files.values())
    return Published(destination, size, bundle.manifest.digest, assembled.parity)


@dataclass(frozen=True, slots=True)
class _Assembled:
    bundle: Bundle
    parity: Parity


def _assemble(
    checkpoint: Checkpoint,
    recipe: Recipe,
    graphs: dict[str, bytes],
    test: Split,
    *,
    number: int,
    variant: Variant | None,
) -> _Assembled:
    """The whole bundle in memory: graphs, then what they answer, then the card that tells of it."""
    bundle_of = partial(_bundle, checkpoint, recipe, number=number, variant=variant)
    files = dict(graphs)
    if recipe.inputs.text is not None:
        assert checkpoint.tokenizer_json is not None
        files[recipe.inputs.text.tokenizer] = checkpoint.tokenizer_json
    golden = golden_inputs(recipe.inputs.names)
    for case in golden:
        files |= {f"golden/{name}": body for name, body in case.files.items()}
    blank = [0.0] * len(recipe.labels)
    unanswered = dump_golden(tuple(_case(one, blank, blank) for one in golden))
    draft = bundle_of({**files, GOLDEN_FILE: unanswered}, checkpoint.run)
    compare = check_parity if variant is None else check_rounded_parity
    parity = compare(checkpoint.model, draft, parity_samples(checkpoint, recipe, test))
    files[GOLDEN_FILE] = _answered(golden, draft)
    run = {**checkpoint.run, "libraries": _libraries(), "parity": asdict(parity)}
    described = bundle_of(files, run).manifest
    files["README.md"] = model_card(described, recipe).encode()
    return _Assembled(bundle_of(files, run, like=described), parity)


def parity_samples(checkpoint: Checkpoint, recipe: Recipe, test: Split) -> list[Sample]:
    """Real test rows with all modalities, prepared as for training, spread over the split."""
    names = recipe.inputs.names
    whole = rows_with(evaluation_rows(test), "+".join(names))
    chosen = whole.take(np.linspace(0, len(whole) - 1, min(PARITY_ROWS, len(whole))).astype(np.int64))
    stock = Stock(test.items, recipe.inputs, preparer_of(recipe, checkpoint.tokenizer_json))
    return [_sample(stock, row) for row in chosen.items]


def _sample(stock: Stock, row: NDArray[np.int64]) -> Sample:
    parts: dict[str, Any] = {}
    for name in stock.names:
        item = row[[MODALITIES.index(name)]]
        parts[name] = stock.gather(name, item)[0].numpy()[0]
    return Sample(**parts)


def inputs_of(recipe: Recipe, model: Model) -> Inputs:
    """As the manifest tells them: with the width of what each encoder gives."""
    specs = {
        name: recipe.inputs.encoder(name).model_copy(update={"features": model.feature_width(name)})
        for name in model.names
    }
    return Inputs(**specs)


def _bundle(
    checkpoint: Checkpoint,
    recipe: Recipe,
    files: dict[str, bytes],
    run: dict[str, Any],
    *,
    number: int,
    variant: Variant | None,
    like: Manifest | None = None,
) -> Bundle:
    spec = recipe.fusion
    manifest = Manifest(
        format=FORMAT,
        name=recipe.name,
        version=number,
        created=like.created if like else datetime.now(UTC).replace(microsecond=0),
        task=recipe.task,
        labels=recipe.labels,
        inputs=inputs_of(recipe, checkpoint.model),
        fusion=Fusion(
            graph=FUSION_FILE,
            fused=FUSED_FILE,
            level=spec.level,
            method=spec.method,
            embedding=spec.embedding,
        ),
        calibration=_calibration(checkpoint.calibrated),
        variant=variant,
        golden=GOLDEN_FILE,
        training=run,
        metrics=checkpoint.metrics,
        files=file_records(files),
        digest=_NO_DIGEST,
    )
    return Bundle(manifest=manifest, files=dict(files))


def _calibration(found: Calibrated) -> Calibration:
    sets = found.conformal
    conformal = None
    if sets is not None:
        fewest = min(sets.groups.values())
        conformal = Conformal(
            level=sets.level,
            method=METHOD,
            lac=sets.shares("lac"),
            aps=sets.shares("aps"),
            note=f"Thresholds are from validation rows of {fewest} or more independent groups.",
        )
    return Calibration(temperature=found.temperatures, prior=found.prior, conformal=conformal)


def _answered(golden: tuple[GoldenInput, ...], draft: Bundle) -> bytes:
    predictor = Predictor.open(draft, device=_CPU, threads=1)
    cases = []
    for case in golden:
        [outputs] = predictor.run([predictor.prepare(case.raw)])
        cases.append(_case(case, outputs.probabilities.tolist(), outputs.logits.tolist()))
    return dump_golden(tuple(cases))


def _case(golden: GoldenInput, probabilities: list[float], logits: list[float]) -> GoldenCase:
    def path(modality: Modality) -> str | None:
        part: tuple[str, bytes] | None = getattr(golden, modality)
        return f"golden/{part[0]}" if part else None

    paths = {modality: path(modality) for modality in MODALITIES}
    return GoldenCase(name=golden.name, probabilities=tuple(probabilities), logits=tuple(logits), **paths)


def _libraries() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
