"""Pictures, news and spoken digits joined by class number, as an article pairs its public sets."""

from __future__ import annotations

from typing import Final

from app.bundle.manifest import Inputs
from training.data.article import LABELS, load_article
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.fsdd import COMMIT
from training.data.home import Home
from training.encoders.specs import MelAudio, NgramText, ResidualImage
from training.fusion.contract import FusionSpec
from training.recipe import (
    About,
    AudioAugmentation,
    Augmentation,
    ImageAugmentation,
    Recipe,
    Schedule,
    TextAugmentation,
)
from training.recipes.digits import INPUTS as DIGITS_INPUTS

assert DIGITS_INPUTS.image is not None
assert DIGITS_INPUTS.text is not None

INPUTS: Final = Inputs(
    image=DIGITS_INPUTS.image.model_copy(update={"resize": 32, "height": 32, "width": 32}),
    text=DIGITS_INPUTS.text.model_copy(update={"max_tokens": 512, "max_characters": 600}),
    audio=DIGITS_INPUTS.audio,
)


def article() -> Recipe:
    return Recipe(
        name="article",
        task="classification",
        labels=LABELS,
        inputs=INPUTS,
        load=load,
        encoders={
            "image": ResidualImage(channels=(16, 32, 64), blocks=1, width=64, tokens=1),
            "text": NgramText(buckets=2**15, channels=32, hidden=64, width=64, orders=(2, 3, 4), dropout=0.2),
            "audio": MelAudio(channels=(16, 40, 64, 80), bands=40, width=64, mask_bands=6, mask_frames=10),
        },
        fusion=FusionSpec(level="prediction", method="multiply", width=64, embedding=64),
        schedule=Schedule(
            epochs=12,
            batch_size=128,
            learning_rate=4e-3,
            weight_decay=0.05,
            label_smoothing=0.02,
            drop_modality=0.0,  # answers meet after training: there is nothing to lean on
            is_bfloat16=True,
            threads=2,
        ),
        augmentation=Augmentation(
            image=ImageAugmentation(shift=0.1, flip=0.5, contrast=0.7, occlude=0.3),
            text=TextAugmentation(hide=0.1),
            audio=AudioAugmentation(window_s=0.75, speed=0.1, gain_db=6, noise=0.5, snr_db=(0, 30)),
        ),
        about=About(
            title="Pictures, news and spoken digits, joined by class number",
            rows=(
                "Every CIFAR-10 test picture of the subset, each with a news item and a recording of the "
                "class of the same number from the sets' own test parts. Pictures, articles and recordings "
                "are independent of each other; a recording or an article is in several rows."
            ),
            data=(
                "CIFAR-10 (1,000 training and 200 test pictures of each class), Reuters-21578's ten most "
                "frequent topics (research use only), and the Free Spoken Digit Dataset (CC BY-SA 4.0) at "
                f"commit `{COMMIT[:7]}`. A tenth of the training pictures and articles is validation. Class "
                "3 is a cat, a piece of news about trade and a spoken three: they have nothing in common "
                "but the number."
            ),
            datasets=("uoft-cs/cifar10", "ucirvine/reuters21578", "mteb/free-spoken-digit-dataset"),
            licence="other",  # research only
            limits=(
                "The classes are made up: nothing in the world is a cat, a trade report and a three at once. "
                "It measures the machinery of fusion, not a use.",
                "Given the class the inputs are independent, so how real modalities of one moment agree is "
                "not learned, and no fusion can be better than a calibrated product of experts.",
                "Reuters-21578 may be used for research only, and so may what is trained on it.",
                "Pictures are 32 pixels wide; speech is English, from five men with good microphones.",
            ),
        ),
    )


def load(home: Home, _: Cache) -> Dataset:
    """Raises DataError."""
    return load_article(home, INPUTS)
