"""What a training run is made of. A recipe is a frozen value; training/recipes holds one function per run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.bundle.manifest import Inputs
from training.data.corpus import Corpus
from training.data.home import Home


@dataclass(frozen=True, slots=True)
class Widths:
    """Sizes inside the model; the features that encoders give to fusion are in `Recipe.inputs`."""

    image_channels: tuple[int, int, int, int]
    text_channels: int
    audio_channels: tuple[int, int, int, int]
    mel_bands: int
    joint: int  # each modality's share of what fusion joins
    embedding: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """One-cycle AdamW. The same seed gives the same weights with the same `threads` on the same CPU."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    clip_norm: float
    drop_modality: float  # chance that a row loses a modality, each on its own
    auxiliary_weight: float  # of the heads that see one modality each
    threads: int


@dataclass(frozen=True, slots=True)
class ImageAugmentation:
    degrees: float
    shift: float  # of the side
    scale: float  # 0.1 is 0.9 to 1.1 times the size
    invert: float  # share of images shown black on white
    contrast: float  # lowest remaining share of the range
    noise: float  # largest standard deviation, of the full range
    occlude: float  # share of images with a blank square


@dataclass(frozen=True, slots=True)
class AudioAugmentation:
    window_s: float  # clips are placed at random in a row of this length
    speed: float  # 0.1 is 0.9 to 1.1 times as fast, and as high
    gain_db: float
    noise: float  # share of clips with noise
    snr_db: tuple[float, float]
    mask_bands: int  # widest hidden stripe of the spectrogram (Park et al., SpecAugment, 2019)
    mask_frames: int


@dataclass(frozen=True, slots=True)
class Degradation:
    """How evaluation spoils inputs, to see what fusion is worth when no single modality suffices."""

    image_noise: float  # standard deviation, of the full range
    image_square: int  # side of the square that is blanked, in pixels
    audio_snr_db: float  # white noise against the clip's own power
    text_rate: float  # share of characters that are damaged


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    title: str  # opens the model card
    labels: tuple[str, ...]
    inputs: Inputs  # the very limits and sizes that the server will use
    load: Callable[[Home], Corpus]
    widths: Widths
    schedule: Schedule
    image_augmentation: ImageAugmentation
    audio_augmentation: AudioAugmentation
    degradation: Degradation
    speaker_epochs: int  # passes over the recordings when one speaker is left out
    data: str  # where the rows come from, as the card says it
    datasets: tuple[str, ...]  # their names on the Hugging Face hub
    limits: tuple[str, ...]  # what the model is not for, as the card says it
