"""What a training run is made of. A recipe is a frozen value; training/recipes holds one function per run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app.bundle.manifest import MODALITIES, Inputs, Modality, Task
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.encoders.specs import EncoderSpec
from training.fusion.contract import OUT_OF_FOLD, FusionSpec, Level, Method


@dataclass(frozen=True, slots=True)
class Schedule:
    """One-cycle AdamW. The same seed gives the same weights with the same `threads` on the same CPU."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float = 0.0
    clip_norm: float = 1.0
    drop_modality: float = 0.3  # chance that a row loses a modality, each on its own
    auxiliary_weight: float = 0.5  # of the heads that hear one modality each, beside the joint answer
    average: float = 0.0  # share of the running average of weights that each step keeps; 0 averages nothing
    patience: int | None = (
        None  # epochs without a better validation before the best one is taken; None: never
    )
    pretrained_rate: float = 0.1  # learning rate of pretrained weights, as a share of the others'
    tower_epochs: int = 0  # first epochs in which every encoder learns on its own head alone
    modulation: float = 0.0  # how far OGM slows a dominant encoder (Peng et al. 2022); 0 leaves it out
    is_balanced: bool = False  # weigh classes by the inverse of their share
    is_bfloat16: bool = False  # autocast, where the processor multiplies bfloat16
    threads: int = 2

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.modulation and not self.auxiliary_weight:
            raise ValueError(
                "modulation goes by what each modality's own head says, and with auxiliary_weight 0 none "
                "learns. Raise it, or leave modulation out."
            )


@dataclass(frozen=True, slots=True)
class ImageAugmentation:
    degrees: float = 0.0
    shift: float = 0.0  # of the side
    scale: float = 0.0  # 0.1 is 0.9 to 1.1 times the size
    flip: float = 0.0  # share of images mirrored left to right
    invert: float = 0.0  # share of images with light and dark exchanged
    contrast: float = 1.0  # lowest remaining share of the range
    colour: float = 0.0  # largest change of each channel's strength
    noise: float = 0.0  # largest standard deviation, of the full range
    occlude: float = 0.0  # share of images with a blank square


@dataclass(frozen=True, slots=True)
class TextAugmentation:
    hide: float = 0.0  # share of tokens that are read as padding


@dataclass(frozen=True, slots=True)
class AudioAugmentation:
    """SpecAugment (Park et al. 2019) is the audio encoder's own, see training/encoders."""

    window_s: float  # clips are placed at random in a row of this length
    speed: float = 0.0  # 0.1 is 0.9 to 1.1 times as fast, and as high
    gain_db: float = 0.0
    noise: float = 0.0  # share of clips with noise
    snr_db: tuple[float, float] = (0.0, 30.0)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Changes of training inputs that leave their meaning alone; None changes nothing."""

    image: ImageAugmentation | None = None
    text: TextAugmentation | None = None
    audio: AudioAugmentation | None = None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Whose inputs are changed."""
        told = {"image": self.image, "text": self.text, "audio": self.audio}
        return tuple(name for name in MODALITIES if told[name] is not None)


@dataclass(frozen=True, slots=True)
class Degradation:
    """How evaluation spoils inputs, to see what fusion is worth when no single modality suffices."""

    image_noise: float  # standard deviation, of the full range
    image_square: int  # side of the square that is blanked, in pixels
    audio_snr_db: float  # white noise against the clip's own power
    text_rate: float  # share of characters that are damaged


@dataclass(frozen=True, slots=True)
class Strangers:
    """Measure one modality's encoder on sources that it never met, by training it without each in turn."""

    modality: Modality
    column: str  # of the rows: whose values are left out, such as the speaker
    epochs: int


@dataclass(frozen=True, slots=True)
class Alone:
    """A modality that learns by itself, before the others, and then stays as it is; see training/alone.py.

    For one whose items are far fewer than rows: each is seen once an epoch. Only where answers are joined.
    """

    modality: Modality
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    # Calibrate on all groups but those of test: on validation, and on training groups by as many models, of
    # which each was trained without a share of them; for rows paired by class. 0: on validation alone.
    folds: int = 0


@dataclass(frozen=True, slots=True)
class About:
    """What the model card says beside the figures."""

    title: str
    data: str  # where the rows come from
    rows: str  # what a test row is, and what in it is independent
    datasets: tuple[str, ...] = ()  # their names on the Hugging Face hub
    licence: str | None = None  # of the bundle, by the hub's word for it; None leaves it to whoever publishes
    limits: tuple[str, ...] = ()  # what the model is not for


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    about: About
    task: Task
    labels: tuple[str, ...]
    inputs: Inputs  # the very limits and sizes that the server will use
    load: Callable[[Home, Cache], Dataset]
    encoders: dict[Modality, EncoderSpec]
    fusion: FusionSpec
    schedule: Schedule
    augmentation: Augmentation = field(default_factory=Augmentation)
    degradation: Degradation | None = None
    strangers: Strangers | None = None
    alone: Alone | None = None
    most_tokens: int = 2_048  # of a tokenizer that is trained on the texts
    is_by_sound: bool = False  # texts are read by the sounds of their letters, see training/sounds.py
    called: str | None = None  # on the command line, where the bundle has another name

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.schedule.modulation and self.task == "multilabel":
            raise ValueError("modulation compares how sure each modality is of one true class: leave it out.")

    def with_fusion(self, level: Level, method: Method) -> Recipe:
        """The same run with another way to join modalities."""
        names, own = self.inputs.names, self.fusion
        embedding = own.width if level == "prediction" else own.embedding
        conditioner = own.conditioner if own.conditioner in names else names[0]
        fusion = replace(own, level=level, method=method, embedding=embedding, conditioner=conditioner)
        # What meets before it answers has to learn together.
        alone = self.alone if level == "prediction" and method not in OUT_OF_FOLD else None
        return replace(self, fusion=fusion, alone=alone)

    def settings(self) -> dict[str, Any]:
        """All that decides what is learnt, but for data and seed: JSON-able, as the manifest keeps it."""
        return {
            "recipe": self.called or self.name,
            "task": self.task,
            "inputs": self.inputs.model_dump(mode="json"),
            "encoders": {name: _told(spec) for name, spec in self.encoders.items()},
            "fusion": asdict(self.fusion),
            "schedule": asdict(self.schedule),
            "augmentation": asdict(self.augmentation),
            "degradation": asdict(self.degradation) if self.degradation else None,
            "alone": asdict(self.alone) if self.alone else None,
            "most_tokens": self.most_tokens,
            "is_by_sound": self.is_by_sound,
        }


def _told(spec: EncoderSpec) -> dict[str, Any]:
    """Of a local folder only its name: where it lies is nobody else's business."""
    told = {"kind": type(spec).__name__, **asdict(spec)}
    if "source" in told and Path(told["source"]).is_dir():
        told["source"] = Path(told["source"]).name
    return told
