"""What a picture shows, from the picture, its name in one of fifteen languages, and a person who says it."""

from __future__ import annotations

from typing import Final

from app.bundle.manifest import AudioInput, ImageInput, Inputs, TextInput
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.data.picturewords import LABELS, PictureWords, load_picturewords
from training.encoders.specs import KernelAudio, KernelImage, KernelText
from training.fusion.contract import FusionSpec
from training.recipe import About, Recipe, Schedule

INPUTS: Final = Inputs(
    image=ImageInput(
        encoder="encoders/image.onnx",
        features=len(LABELS),
        max_bytes=8 * 2**20,
        height=64,
        width=64,
        # In cross-validation over concepts of training and validation 56.5 % of pictures are read so, 55 % by
        # a crop of the centre, and 55.5 % padded.
        fit="stretch",
        resample="lanczos",
        max_pixels=25_000_000,  # a phone's photograph; 75 MB once decoded
    ),
    text=TextInput(
        encoder="encoders/text.onnx",
        features=len(LABELS),
        max_bytes=16 * 2**10,
        tokenizer="tokenizer.json",
        pad_id=0,
        max_tokens=96,  # of the names of the set, 99 in 100 are shorter
        max_characters=1_000,
    ),
    audio=AudioInput(
        encoder="encoders/audio.onnx",
        features=len(LABELS),
        max_bytes=8 * 2**20,
        sample_rate=8_000,  # how a voice sounds; more cost time and told no more
        min_samples=2_000,
        max_seconds=20,
    ),
)


def picturewords() -> Recipe:
    return Recipe(
        name="picturewords",
        task="classification",
        labels=LABELS,
        inputs=INPUTS,
        load=_load,
        encoders={
            "image": KernelImage(width=len(LABELS)),
            "text": KernelText(buckets=2**17, width=len(LABELS)),
            "audio": KernelAudio(bands=48, width=len(LABELS)),
        },
        fusion=FusionSpec(level="prediction", method="log_linear", width=64, embedding=64),
        schedule=Schedule(
            epochs=3,  # of 33 numbers: all else is solved by equations before
            batch_size=128,
            learning_rate=2e-2,
            weight_decay=0.0,
            drop_modality=0.0,  # each expert learns alone, so it need not learn to do without the others
            threads=2,
        ),
        about=About(
            title="PictureWords: picture, name and voice",
            rows=(
                "A picture, its name in one of fifteen languages and a recording of that name. Rows of one "
                "concept are not independent, and no concept is in two splits."
            ),
            data=(
                "Real triples of three children's programs: Tux Paint stamps (GPL-2.0-or-later), Art4Apps by "
                "way of Abecedarium (CC BY-SA 3.0) and GCompris voices (GPL-3.0 and others)."
            ),
            licence="other",  # of all that it keeps of pictures and names: see `data`
            limits=(
                "Two answers of five are wrong on concepts that it never saw.",
                "A voice adds little to a picture and its name.",
                "Drawings and icons for children only, not photographs.",
            ),
        ),
    )


def _load(home: Home, cache: Cache) -> Dataset:
    return load_picturewords(home, INPUTS, cache, PictureWords(other_names=True))
