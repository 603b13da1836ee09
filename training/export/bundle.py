"""A checkpoint to a published bundle, or to nothing: what differs from torch is never published."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from app.bundle.folder import Bundle, file_records, read_bundle, staged, write_bundle
from app.bundle.golden import GoldenCase, dump_golden
from app.bundle.manifest import FORMAT, MODALITIES, Calibration, Fusion, Manifest, Modality
from app.bundle.prepare import TextPreparer
from app.bundle.sample import Sample
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from training.card import model_card
from training.checkpoint import Checkpoint
from training.data.corpus import Split
from training.data.pairs import draw_pairs
from training.golden import GoldenInput, golden_inputs
from training.onnx_graphs import FUSED_FILE, FUSION_FILE
from training.parity import Parity, check_parity
from training.recipe import Recipe
from training.rows import as_rgb

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
) -> Published:
    """Compare the exported graphs with torch, write aside, read back as the server does, then publish.

    Raises ParityBroken, GoldenMismatch, or FileExistsError: a version is published once.
    """
    assembled = _assemble(checkpoint, recipe, graphs, test, number=number)
    with staged(destination) as folder:
        write_bundle(folder, assembled.bundle.manifest, assembled.bundle.files)
        bundle = read_bundle(folder)
        replay(bundle, Predictor.open(bundle, device=_CPU, threads=1))
    size = sum(record.size for record in bundle.manifest.files.values())
    return Published(destination, size, bundle.manifest.digest, assembled.parity)


@dataclass(frozen=True, slots=True)
class _Assembled:
    bundle: Bundle
    parity: Parity


def _assemble(
    checkpoint: Checkpoint, recipe: Recipe, graphs: dict[str, bytes], test: Split, *, number: int
) -> _Assembled:
    """The whole bundle in memory: graphs, then what they answer, then the card that tells of it."""
    files = {**graphs, "tokenizer.json": checkpoint.tokenizer_json}
    golden = golden_inputs()
    for case in golden:
        files |= {f"golden/{name}": body for name, body in case.files.items()}
    unanswered = dump_golden(tuple(_case(g, [0.0] * len(recipe.labels)) for g in golden))
    draft = _bundle(checkpoint, recipe, {**files, GOLDEN_FILE: unanswered}, checkpoint.run, number=number)
    parity = check_parity(checkpoint.model, draft, parity_samples(test, draft))
    files[GOLDEN_FILE] = _answered(golden, draft)
    run = {**checkpoint.run, "libraries": _libraries(), "parity": asdict(parity)}
    described = _bundle(checkpoint, recipe, files, run, number=number).manifest
    files["README.md"] = model_card(described, recipe).encode()
    return _Assembled(_bundle(checkpoint, recipe, files, run, number=number, like=described), parity)


def parity_samples(test: Split, bundle: Bundle) -> list[Sample]:
    """Real test rows with all modalities, prepared for this bundle, spread over the split."""
    spec = bundle.manifest.inputs.text
    assert spec is not None
    tokenize = TextPreparer(bundle.files[spec.tokenizer], spec)
    pairs = draw_pairs(test, seed=1)
    rows = torch.linspace(0, len(pairs.labels) - 1, min(PARITY_ROWS, len(pairs.labels))).long().tolist()
    images = as_rgb(torch.from_numpy(test.images.pixels)).numpy()
    return [
        Sample(
            image=images[pairs.image[row]],
            text=tokenize(test.texts.strings[pairs.text[row]])[0],
            audio=test.clips.samples[pairs.audio[row]],
        )
        for row in rows
    ]


def _bundle(
    checkpoint: Checkpoint,
    recipe: Recipe,
    files: dict[str, bytes],
    run: dict[str, Any],
    *,
    number: int,
    like: Manifest | None = None,
) -> Bundle:
    manifest = Manifest(
        format=FORMAT,
        name=recipe.name,
        version=number,
        created=like.created if like else datetime.now(UTC).replace(microsecond=0),
        task="classification",
        labels=recipe.labels,
        inputs=recipe.inputs,
        fusion=Fusion(
            graph=FUSION_FILE, fused=FUSED_FILE, method="concat", embedding=recipe.widths.embedding
        ),
        calibration=Calibration(temperature=checkpoint.temperatures),
        golden=GOLDEN_FILE,
        training=run,
        metrics=checkpoint.metrics,
        files=file_records(files),
        digest=_NO_DIGEST,
    )
    return Bundle(manifest=manifest, files=dict(files))


def _answered(golden: tuple[GoldenInput, ...], draft: Bundle) -> bytes:
    predictor = Predictor.open(draft, device=_CPU, threads=1)
    cases = []
    for case in golden:
        [outputs] = predictor.run([predictor.prepare(case.raw)])
        cases.append(_case(case, outputs.probabilities.tolist()))
    return dump_golden(tuple(cases))


def _case(golden: GoldenInput, probabilities: list[float]) -> GoldenCase:
    def path(modality: Modality) -> str | None:
        part: tuple[str, bytes] | None = getattr(golden, modality)
        return f"golden/{part[0]}" if part else None

    paths = {modality: path(modality) for modality in MODALITIES}
    return GoldenCase(name=golden.name, probabilities=tuple(probabilities), **paths)


def _libraries() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
