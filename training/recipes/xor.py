"""A set in which no modality says anything alone: what tells a fusion that multiplies from one that adds."""

from __future__ import annotations

from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.data.xor import LABELS, load_xor
from training.encoders.specs import ConvText, MelAudio, PlainImage
from training.fusion.contract import FusionSpec
from training.recipe import About, Recipe, Schedule
from training.recipes.digits import INPUTS


def xor() -> Recipe:
    return Recipe(
        name="xor",
        task="classification",
        labels=LABELS,
        inputs=INPUTS,
        load=load,
        encoders={
            "image": PlainImage(channels=(12, 16, 24, 32), width=32),
            "text": ConvText(channels=32, width=32),
            "audio": MelAudio(channels=(8, 16, 24, 32), bands=24, width=32),
        },
        fusion=FusionSpec(level="feature", method="tensor", width=32, embedding=32),
        schedule=Schedule(
            epochs=12,
            batch_size=128,
            learning_rate=4e-3,
            weight_decay=0.02,
            # Only rows with all three tell how they belong together, and a head of one alone learns nothing.
            drop_modality=0.1,
            auxiliary_weight=0.1,
            threads=2,
        ),
        about=About(
            title="XOR: a class that no single input tells",
            rows=(
                "Every test row is drawn by itself: a ring or a cross, a text that names a bird or a metal, "
                "a low or a high tone. The class says whether image and text agree, and whether text and "
                "audio do."
            ),
            data=(
                "Synthetic, made from one seed, with no files to download. The most that can be reached is "
                "25 % from one input, 50 % from any two and 100 % from all three; a product of experts "
                "stays at 25 %."
            ),
            licence="apache-2.0",
            limits=(
                "A test of fusion methods and nothing else: the pictures, words and tones are made up, and "
                "real modalities are never without any meaning of their own.",
                "Fusions of predictions cannot learn it: that is what it shows, not a fault of theirs.",
            ),
        ),
    )


def load(_: Home, __: Cache) -> Dataset:
    """Made here: no folder is read."""
    return load_xor(INPUTS)
