"""AVT-Digits: a blurred picture, a word in a language never seen, a digit spoken in noise; none is enough."""

from __future__ import annotations

from training.data.avt_digits import LABELS, load_avt_digits
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.fsdd import COMMIT
from training.data.home import Home
from training.encoders.specs import MelAudio, PlainImage, RecallText
from training.fusion.contract import FusionSpec
from training.recipe import About, Alone, AudioAugmentation, Augmentation, Recipe, Schedule
from training.recipes.digits import INPUTS


def avt_digits() -> Recipe:
    return Recipe(
        name="avt_digits",
        task="classification",
        labels=LABELS,
        inputs=INPUTS,
        load=load,
        encoders={
            "image": PlainImage(channels=(12, 24, 32, 48), width=64),
            "text": RecallText(texts=400, buckets=1024, width=len(LABELS)),
            "audio": MelAudio(channels=(16, 40, 64, 80), bands=40, width=96, mask_bands=6, mask_frames=10),
        },
        # Rows are paired by digit: given the digit the modalities are independent, and nothing can be better
        # than the product of calibrated experts.
        fusion=FusionSpec(level="prediction", method="multiply", width=64, embedding=64),
        schedule=Schedule(
            epochs=6,
            batch_size=256,
            learning_rate=4e-3,
            weight_decay=0.05,
            label_smoothing=0.02,
            drop_modality=0.3,
            threads=2,
            is_bfloat16=True,
        ),
        augmentation=Augmentation(
            audio=AudioAugmentation(window_s=0.75, speed=0.1, gain_db=6),
        ),
        is_by_sound=True,
        alone=Alone(
            modality="text", epochs=30, batch_size=400, learning_rate=0.03, weight_decay=0.0, folds=8
        ),
        about=About(
            title="AVT-Digits: a blurred picture, a foreign word and speech in noise",
            rows=(
                "Every MNIST test image, redrawn from four numbers, with a word of its digit in one of "
                "twenty languages that training never saw, and a recording of FSDD's own test split in noise "
                "of ESC-10's fifth fold, 0 to 12 dB louder than the speech. A text counts for its language: "
                "209 words in 20 languages are 20 independent groups, so figures of text are rough."
            ),
            data=(
                "MNIST (LeCun, Cortes, Burges) by 4 principal components fitted on its training images; Free "
                f"Spoken Digit Dataset (CC BY-SA 4.0) at commit `{COMMIT[:7]}` in noise of ESC-10 (CC BY "
                "3.0); number words that people wrote for Tux Paint (GPL 2 or later). Rows are paired by "
                "digit inside a split, and noise, recordings and languages are in one split only. It stands "
                "for the set called AV-MNIST, of which there is no build that can be repeated."
            ),
            datasets=("ylecun/mnist", "mteb/free-spoken-digit-dataset", "ashraq/esc50"),
            licence="other",  # it keeps words under the GPL
            limits=(
                "A test of fusion under hard inputs, not a reader of digits: pictures keep four numbers of "
                "784, and speech is drowned.",
                "Speech is English, from the five men who are in training too; the noise is of ten kinds.",
                "Words of a script and family that training does not know are guessed: letters are compared "
                "by their sounds, and Chinese has none.",
                "Rows are made by pairing an image, a text and a recording of the same digit. Given the "
                "digit they are independent, so how real modalities of one moment agree is not learned.",
            ),
        ),
    )


def load(home: Home, _: Cache) -> Dataset:
    """Raises DataError."""
    return load_avt_digits(home, INPUTS)
