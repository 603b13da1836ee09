"""A report of a simulated model: three experts of different worth, which say independent things."""

from __future__ import annotations

import numpy as np

from app.bundle.manifest import MODALITIES, Modality, subsets
from tests.training.simulated import Floats, Numbers, softmax
from training.calibrate.conformal import KnownRows, fit_conformal
from training.measure.report import Report, Training
from training.measure.robustness import AUDIO_SNR_DB, IMAGE_NOISE, TEXT_DAMAGE, Curve, robustness
from training.measure.scores import confusion
from training.measure.sets import measure_sets
from training.measure.subsets import measure_slices, measure_subsets

SUBSETS = subsets(MODALITIES)
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "<nine>")
WORTH: dict[Modality, float] = {"image": 2.6, "text": 2.0, "audio": 1.5}


class World:
    """Evidence is normal around the truth, so that its sum is calibrated: naive Bayes."""

    def __init__(self, rows: int, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.groups: Numbers = np.arange(rows) // 5
        self.targets: Numbers = rng.integers(len(LABELS), size=rows)
        truth = np.eye(len(LABELS))[self.targets]
        of_group = np.arange(rows) // 5
        self.logits = {
            name: worth * (worth * truth + 0.8 * rng.normal(size=truth.shape) + 0.6 * shared[of_group])
            for name, worth in WORTH.items()
            for shared in [rng.normal(size=(rows // 5 + 1, len(LABELS)))]
        }
        self.noise = rng.normal(size=truth.shape)

    def logits_of(self, subset: str) -> Floats:
        total: Floats = np.sum([self.logits[name] for name in _names(subset)], axis=0)
        return total

    def known(self) -> dict[str, KnownRows]:
        return {name: KnownRows(self.logits_of(name), self.targets, self.groups) for name in SUBSETS}

    def curve(self, spoiled: Modality, subset: str, levels: tuple[float, ...]) -> Curve:
        def answer(level: float) -> Floats:
            strength = 10 ** (-level / 20) if spoiled == "audio" else 8 * level
            return softmax(self.logits_of(subset) + strength * self.noise)

        return robustness(
            answer, levels, self.targets, self.groups, spoiled=spoiled, subset=subset, draws=100
        )


def example_report(*, rows: int = 2_000) -> Report:
    fitted, world = World(rows, seed=1), World(rows, seed=2)

    def answer(subset: str) -> Floats:
        return softmax(world.logits_of(subset))

    present = np.ones((rows, len(MODALITIES)), bool)
    measured = measure_subsets(answer, world.targets, present, world.groups, draws=200)
    everything = answer(SUBSETS[-1])
    speakers = np.array(["george", "jackson", "lucas"])[world.groups % 3]
    steps = np.arange(900)
    return Report(
        title="Example digits, version 3",
        summary="Ten classes from an image, a text and a recording, or any one or two of them.",
        labels=LABELS,
        provenance={"recipe": "example", "seed": 3, "rows in training": 12_345, "trained in": "211 s"},
        by_subset=measured.by_subset,
        counter_intuitive=measured.counter_intuitive,
        confusion=confusion(everything, world.targets),
        sets=measure_sets(fit_conformal(fitted.known()), world.known()),
        robustness=(
            world.curve("image", "image", IMAGE_NOISE),
            world.curve("image", "image+text+audio", IMAGE_NOISE),
            world.curve("text", "text", TEXT_DAMAGE),
            world.curve("text", "image+text+audio", TEXT_DAMAGE),
            world.curve("audio", "audio", AUDIO_SNR_DB),
            world.curve("audio", "image+text+audio", AUDIO_SNR_DB),
        ),
        slices={"speaker": measure_slices(everything, world.targets, world.groups, speakers, draws=100)},
        training=Training(tuple((2.3 * np.exp(-steps / 150) + 0.1 + 0.1 * np.sin(steps) ** 2).tolist())),
    )


def _names(subset: str) -> list[Modality]:
    return [name for name in MODALITIES if name in subset.split("+")]
