"""A handwritten digit, a spoken digit and the number as text: MNIST, FSDD and words in 44 languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from app.bundle.manifest import AudioInput, ImageInput, Inputs, TextInput
from training.data.cache import Cache
from training.data.dataset import Dataset, PairedByClass, Split
from training.data.download import Source
from training.data.fsdd import COMMIT, FINGERPRINTS, Recordings, archive_source, load_fsdd
from training.data.home import Home
from training.data.items import Items, Labelled
from training.data.mnist import Handwritten, load_mnist, sources
from training.data.number_texts import TextMix, draw_texts
from training.encoders.specs import ConvText, MelAudio, PlainImage
from training.fusion.contract import FusionSpec
from training.recipe import (
    About,
    AudioAugmentation,
    Augmentation,
    Degradation,
    ImageAugmentation,
    Recipe,
    Schedule,
    Strangers,
)

_TEXT_SEED: Final = 20_240_502
_TRAIN_MIX: Final = TextMix(signs=0.12, carriers=0.2, misspelt=0.3, garbled=0.18, garble_rate=0.25)
_CLEAN_MIX: Final = TextMix(signs=0.1, carriers=0.3, misspelt=0.1)

INPUTS: Final = Inputs(
    image=ImageInput(
        encoder="encoders/image.onnx",
        features=96,
        max_bytes=8 * 2**20,
        resize=28,
        height=28,
        width=28,
        max_pixels=25_000_000,  # a phone's photograph; 75 MB once decoded
    ),
    text=TextInput(
        encoder="encoders/text.onnx",
        features=96,
        max_bytes=16 * 2**10,
        tokenizer="tokenizer.json",
        pad_id=0,
        max_tokens=64,
        max_characters=1_000,
    ),
    audio=AudioInput(
        encoder="encoders/audio.onnx",
        features=96,
        max_bytes=8 * 2**20,
        sample_rate=8_000,
        min_samples=1_000,  # eleven frames of the spectrogram
        max_seconds=10,
    ),
)


def digits() -> Recipe:
    return Recipe(
        name="digits",
        task="classification",
        labels=tuple("0123456789"),
        inputs=INPUTS,
        load=partial(load_digits, data=DigitsData()),
        encoders={
            "image": PlainImage(channels=(24, 48, 64, 96), width=96),
            "text": ConvText(channels=64, width=96),
            "audio": MelAudio(channels=(16, 40, 64, 80), bands=40, width=96, mask_bands=6, mask_frames=10),
        },
        # Chosen on validation rows: `python -m training choose digits --among
        # prediction/multiply,feature/concat,feature/low_rank` gives 0.0198, 0.0267 and 0.0284 nats.
        fusion=FusionSpec(level="prediction", method="multiply", width=64, embedding=64),
        schedule=Schedule(
            epochs=3,
            batch_size=256,
            learning_rate=4e-3,
            weight_decay=0.02,
            label_smoothing=0.02,
            drop_modality=0.3,
            auxiliary_weight=0.5,
            threads=2,
        ),
        augmentation=Augmentation(
            image=ImageAugmentation(
                degrees=10, shift=0.1, scale=0.15, invert=0.5, contrast=0.5, noise=0.3, occlude=0.2
            ),
            audio=AudioAugmentation(window_s=0.75, speed=0.15, gain_db=12, noise=0.6, snr_db=(-6, 30)),
        ),
        degradation=Degradation(image_noise=0.5, image_square=10, audio_snr_db=-6, text_rate=0.35),
        strangers=Strangers(modality="audio", column="speaker", epochs=10),
        about=About(
            title="Digits: image, text and speech",
            rows=(
                "Every MNIST test image, each with a recording of FSDD's own test split and a text of its "
                "digit. One text in ten is a misspelling that training has not seen; correctly spelt words "
                "are a closed list that training and test share (there is no other word for seven)."
            ),
            data=(
                "MNIST (LeCun, Cortes, Burges), 5,000 of its training images as validation; Free Spoken "
                f"Digit Dataset (CC BY-SA 4.0) at commit `{COMMIT[:7]}`, five speakers, recordings 0-4 as "
                "test (the set's own), 5-9 as validation; number words by num2words in over forty "
                "languages. Rows are paired by digit inside a split, never across."
            ),
            datasets=("ylecun/mnist", "mteb/free-spoken-digit-dataset"),
            licence="apache-2.0",
            limits=(
                "Single digits only: not numbers of several digits, not arithmetic, not other symbols.",
                "Speech is English, from five men with good microphones; other voices are heard worse, as "
                "the table of unseen speakers shows.",
                "Rows are made by pairing an image, a text and a recording of the same digit. Given the "
                "digit they are independent, so how real modalities of one moment agree is not learned.",
                "An input that is no digit still gets one of ten answers.",
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class DigitsData:
    """Which files are read and how they are split; the defaults are the published sets."""

    images: dict[str, Source] = field(default_factory=sources)
    recordings: Source = field(default_factory=archive_source)
    speakers: dict[str, str] = field(default_factory=lambda: dict(FINGERPRINTS))  # name to fingerprint
    validation_images: int = 5_000  # of the 60,000 for training
    texts_per_digit: int = 4_000  # for training; a tenth for validation and test each


def load_digits(home: Home, _: Cache, *, data: DigitsData) -> Dataset:
    """MNIST's and FSDD's own test sets; validation is cut from their training sets. Raises DataError."""
    image_spec, audio_spec = INPUTS.image, INPUTS.audio
    assert image_spec is not None
    assert audio_spec is not None
    images = load_mnist(home, image_spec, data.images, part="train")
    test_images = load_mnist(home, image_spec, data.images, part="t10k")
    spoken = load_fsdd(home, audio_spec, data.recordings, speakers=data.speakers)
    learnt, held_out = images.split(held_out=data.validation_images)
    index, texts = spoken.indices, data.texts_per_digit
    heard = {"train": index >= 10, "validation": (index >= 5) & (index < 10), "test": index < 5}
    clips = {name: spoken.where(chosen) for name, chosen in heard.items()}
    return Dataset(
        train=_split("train", learnt, clips["train"], texts_per_digit=texts),
        validation=_split("validation", held_out, clips["validation"], texts_per_digit=texts // 10),
        test=_split("test", test_images, clips["test"], texts_per_digit=texts // 10),
        provenance=_provenance(data),
    )


def _split(name: str, written: Handwritten, spoken: Recordings, *, texts_per_digit: int) -> Split:
    mix = _TRAIN_MIX if name == "train" else _CLEAN_MIX
    drawn = draw_texts(mix, split=name, per_class=texts_per_digit, seed=_TEXT_SEED)
    spelling = np.where(drawn.is_misspelt, "misspelt as never in training", "correct")
    _, string_numbers = np.unique(drawn.texts.strings, return_inverse=True)
    return Split(
        items=Items(images=written.images, texts=drawn.texts, clips=spoken.clips),
        pairing=PairedByClass(
            {
                "image": Labelled(written.labels, groups=written.groups),
                "text": Labelled(drawn.labels, groups=string_numbers, columns={"spelling": spelling}),
                "audio": Labelled(
                    spoken.labels, groups=np.arange(len(spoken.labels)), columns={"speaker": spoken.speakers}
                ),
            }
        ),
    )


def _provenance(data: DigitsData) -> dict[str, Any]:
    return {
        "images": {
            "name": "MNIST",
            "sha256": {name: source.sha256 for name, source in data.images.items()},
        },
        "recordings": {
            "name": "Free Spoken Digit Dataset",
            "commit": COMMIT,
            "licence": "CC-BY-SA-4.0",
            "speakers": data.speakers,
        },
        "texts": {"name": "number words by num2words and training/data/number_words.py", "seed": _TEXT_SEED},
    }
