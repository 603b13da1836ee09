"""Data sets in the published layouts, small and made here: drawn digits and synthesised clips."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from app.bundle.decode import decode_audio
from training.data.fsdd import fingerprint
from training.data.mnist import sources
from training.encoders.specs import ConvText, MelAudio, PlainImage
from training.export.golden import draw_digit, synthesise
from training.recipe import Recipe
from training.recipes.digits import INPUTS, DigitsData, digits, load_digits

TRAIN_IMAGES, TEST_IMAGES, VALIDATION_IMAGES = 160, 120, 40
SPEAKERS = ("ann", "bob")
CLIPS_PER_DIGIT = 12  # of each speaker: 0-4 test, 5-9 validation, 10-11 train


@dataclass(frozen=True, slots=True)
class FakeSets:
    """A folder in the layout of --data, and what a recipe must know to accept it."""

    folder: Path
    data: DigitsData


def write_sets(folder: Path, *, kind: str = "flac") -> FakeSets:
    """`kind` is "flac" (our small archive) or "wav" (as GitHub packs it)."""
    files = {**_idx_pair("train", TRAIN_IMAGES), **_idx_pair("t10k", TEST_IMAGES)}
    (folder / "mnist").mkdir(parents=True)
    for name, body in files.items():
        (folder / "mnist" / name).write_bytes(body)
    (folder / "fsdd").mkdir()
    data = fake_data(folder)
    path = folder / ("fsdd/fsdd_flac.zip" if kind == "flac" else data.recordings.path)
    path.write_bytes(archive(kind))
    return FakeSets(folder, data)


def fake_data(folder: Path) -> DigitsData:
    """What a recipe must know of the sets in this folder."""
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "mnist").iterdir()
    }
    return DigitsData(
        images=sources(digests),
        speakers={name: _fingerprint_of(name) for name in SPEAKERS},
        validation_images=VALIDATION_IMAGES,
        texts_per_digit=100,
    )


def tiny_recipe(data: DigitsData) -> Recipe:
    """The recipe's own model, narrow and hardly trained."""
    full = digits()
    assert full.strangers is not None
    return replace(
        full,
        load=partial(load_digits, data=data),
        encoders={
            "image": PlainImage(channels=(4, 6, 8, 8), width=8),
            "text": ConvText(channels=8, width=8),
            "audio": MelAudio(channels=(4, 6, 8, 8), bands=40, width=8, mask_bands=6, mask_frames=10),
        },
        fusion=replace(full.fusion, width=8, embedding=8),
        schedule=replace(full.schedule, epochs=2, batch_size=40, threads=1),
        strangers=replace(full.strangers, epochs=1),
    )


def archive(kind: str) -> bytes:
    """Recordings of all speakers as one zip, with what the published archives hold beside them."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as target:
        prefix = "" if kind == "flac" else "free-spoken-digit-dataset-26eb9aa/"
        target.writestr(f"{prefix}README.md", "not a recording")
        for name, samples in _clips((*SPEAKERS, "theo")):
            target.writestr(f"{prefix}recordings/{name}.{kind}", _encoded(samples, kind))
    return body.getvalue()


def _clips(speakers: tuple[str, ...]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for voice, speaker in enumerate(speakers):
        for digit in range(10):
            for index in range(CLIPS_PER_DIGIT):
                seconds = 0.2 + 0.02 * digit + 0.002 * index
                samples = synthesise(rate_hz=8_000, base_hz=110 + 60 * voice + 9 * digit, seconds=seconds)
                yield f"{digit}_{speaker}_{index}", samples


def _encoded(samples: NDArray[np.float32], kind: str) -> bytes:
    body = io.BytesIO()
    whole = np.rint(samples * 32_767).astype(np.int16)  # writers of WAV and FLAC round differently
    soundfile.write(body, whole, 8_000, format=kind.upper(), subtype="PCM_16")
    return body.getvalue()


def _fingerprint_of(speaker: str) -> str:
    assert INPUTS.audio is not None
    voice = SPEAKERS.index(speaker)
    chosen = dict(list(_clips(SPEAKERS))[voice * 10 * CLIPS_PER_DIGIT :][: 10 * CLIPS_PER_DIGIT])
    return fingerprint(
        {name: decode_audio(_encoded(samples, "wav"), INPUTS.audio) for name, samples in chosen.items()}
    )


def _idx_pair(part: str, count: int) -> dict[str, bytes]:
    rng = np.random.default_rng(count)
    labels = np.arange(count, dtype=np.uint8) % 10
    drawn = {
        digit: np.asarray(draw_digit(digit).convert("L").resize((28, 28), Image.Resampling.BOX))
        for digit in range(10)
    }
    pixels = np.stack([np.roll(drawn[int(label)], rng.integers(-2, 3), axis=1) for label in labels])
    return {
        f"{part}-images-idx3-ubyte.gz": idx(pixels),
        f"{part}-labels-idx1-ubyte.gz": idx(labels),
    }


def idx(values: NDArray[np.uint8]) -> bytes:
    """A gzipped IDX file."""
    shape = np.array(values.shape, ">u4").tobytes()
    return gzip.compress(bytes((0, 0, 8, values.ndim)) + shape + values.tobytes(), mtime=0)
