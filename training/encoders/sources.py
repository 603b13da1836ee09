"""An encoder by what people call it: one of the hub's ids, a local folder, or a small one from scratch.

What it reads is taken from its own files (the size of images, the number of tokens, the rate of recordings),
so that nobody has to repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.bundle.manifest import AudioInput, Fit, ImageInput, Modality, Resample, TextInput
from training.encoders.contract import EncoderUnfit
from training.encoders.specs import (
    ConvText,
    EncoderSpec,
    MelAudio,
    NgramText,
    PlainImage,
    PretrainedAudio,
    PretrainedImage,
    PretrainedText,
    ResidualImage,
    TransformerText,
)

FROM_SCRATCH: Final[Mapping[Modality, Mapping[str, EncoderSpec]]] = {
    "image": {
        "residual": ResidualImage(channels=(32, 64, 128), blocks=1, width=128),
        "plain": PlainImage(channels=(24, 48, 64, 96), width=96),
    },
    "text": {
        "ngrams": NgramText(buckets=50_021, channels=64, hidden=128, width=128),
        "convolution": ConvText(channels=64, width=96),
        "transformer": TransformerText(channels=128, layers=2, heads=4, width=128),
    },
    "audio": {"mel": MelAudio(channels=(16, 32, 64, 96), bands=64, width=128, mask_bands=8, mask_frames=20)},
}

_WIDTH: Final = 128  # of what is read out of a pretrained model
_RESAMPLES: Final[Mapping[Any, Resample]] = {
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}  # as Pillow numbers them
_SIDE: Final = 64  # pixels, for encoders from scratch
_SCRATCH_TOKENS: Final = 256  # of about a character each
_MOST_TOKENS: Final = 512  # of a model that would read thousands: each costs time in every batch
_RATE_HZ: Final = 16_000
_LEAST_S: Final = 0.1  # longer than one frame of every known audio model
_MOST_S: Final = 30


@dataclass(frozen=True, slots=True)
class Source:
    """An encoder, and what it reads."""

    spec: EncoderSpec
    reads: ImageInput | TextInput | AudioInput


def source_of(modality: Modality, name: str, *, is_frozen: bool, fit: Fit | None = None) -> Source:
    """`name` is one of FROM_SCRATCH, an id of the Hugging Face hub (`ID@COMMIT` for one commit), or a folder.

    `fit` is for images, instead of what the encoder's files say. Raises EncoderUnfit where `name` is none of
    them, or is for something else.
    """
    small = FROM_SCRATCH[modality].get(name)
    if small is not None:
        return Source(small, _read_from_scratch(modality, fit))
    place, said = _pinned(name)
    with _refusing(modality, place):
        revision = _commit_of(place, said)
        match modality:
            case "image":
                image = PretrainedImage(place, _WIDTH, revision=revision, is_frozen=is_frozen)
                return Source(image, _fitted(_image_input(place, revision), fit))
            case "text":
                text = PretrainedText(place, _WIDTH, revision=revision, is_frozen=is_frozen)
                return Source(text, _text_input(place, revision))
            case "audio":
                audio = PretrainedAudio(place, _WIDTH, revision=revision, is_frozen=is_frozen)
                return Source(audio, _audio_input(place, revision))


def _pinned(name: str) -> tuple[str, str | None]:
    if Path(name).is_dir():
        return str(Path(name).resolve()), None
    place, _, revision = name.partition("@")
    return place, revision or None


def _commit_of(place: str, said: str | None) -> str | None:
    """So that the manifest can say which weights these were; None of a folder."""
    if Path(place).is_dir():
        return None
    from training.encoders.pretrained import commit_of

    return commit_of(place, said) or said


@contextmanager
def _refusing(modality: Modality, place: str) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError) as error:  # not there, or a file without what is read from it
        known = ", ".join(FROM_SCRATCH[modality])
        why = f"its preprocessor names no {error}." if isinstance(error, KeyError) else str(error)
        raise EncoderUnfit(
            f"'{place}' is no pretrained {modality} encoder: {why.splitlines()[0]} Name a folder, an "
            f"id of the Hugging Face hub, or one from scratch: {known}."
        ) from error


def _read_from_scratch(modality: Modality, fit: Fit | None) -> ImageInput | TextInput | AudioInput:
    match modality:
        case "image":
            return _fitted(_image(_SIDE, _SIDE, resize=_SIDE), fit)
        case "text":
            return _text(pad_id=0, max_tokens=_SCRATCH_TOKENS)
        case "audio":
            return _audio(rate_hz=_RATE_HZ)


def _image_input(place: str, revision: str | None) -> ImageInput:
    """The size, fit and filter that its preprocessor says; without a size, what it was built for.

    A preprocessor with a height and a width stretches pictures to them unless it crops or pads; one that
    stretches them first and then crops is followed by a crop of the picture as it is.
    """
    from training.encoders.pretrained import read_config, read_preprocessor

    said, config = read_preprocessor(place, revision), read_config(place, revision)
    built_for = getattr(getattr(config, "vision_config", config), "image_size", None)
    size = said.get("size", built_for)
    if size is None:
        raise ValueError("its files say no image size.")
    resample = _RESAMPLES.get(said.get("resample"), "bilinear")
    height, width = _sides(size)
    if said.get("do_center_crop") and said.get("crop_size") is not None:
        resize = max(height, width)
        height, width = _sides(said["crop_size"])
        return _image(height, width, resize=max(resize, height, width), resample=resample)
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return _image(height, width, resize=int(height / said.get("crop_pct", 1)), resample=resample)
    return _image(height, width, fit="pad" if said.get("do_pad") else "stretch", resample=resample)


def _fitted(image: ImageInput, fit: Fit | None) -> ImageInput:
    """The same size, and the fit that was asked for, if any was."""
    if fit in (None, image.fit):
        return image
    resize = max(image.height, image.width) if fit == "crop" else None
    return ImageInput.model_validate(image.model_dump() | {"fit": fit, "resize": resize})


def _sides(size: Any) -> tuple[int, int]:
    """Height and width of all the forms that preprocessors write. Raises KeyError."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        if "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
        return int(size["height"]), int(size["width"])
    height, width = size
    return int(height), int(width)


def _text_input(place: str, revision: str | None) -> TextInput:
    """As many tokens as its tokenizer and its positions allow, and no more than `_MOST_TOKENS`."""
    from training.encoders.pretrained import pretrained_tokenizer, read_config, tokens_of_tokenizer

    _, pad_id = pretrained_tokenizer(place, revision=revision)
    config = read_config(place, revision)
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", _MOST_TOKENS)
    most = min(positions, tokens_of_tokenizer(place, revision), _MOST_TOKENS)
    return _text(pad_id=pad_id, max_tokens=most)


def _audio_input(place: str, revision: str | None) -> AudioInput:
    from training.encoders.pretrained import read_preprocessor

    return _audio(rate_hz=int(read_preprocessor(place, revision)["sampling_rate"]))


def _image(
    height: int, width: int, *, fit: Fit = "crop", resize: int | None = None, resample: Resample = "bilinear"
) -> ImageInput:
    return ImageInput(
        encoder="encoders/image.onnx",
        features=_WIDTH,
        max_bytes=8 * 2**20,
        height=height,
        width=width,
        fit=fit,
        resize=resize,
        resample=resample,
        max_pixels=25_000_000,  # a phone's photograph; 75 MB once decoded
    )


def _text(*, pad_id: int, max_tokens: int) -> TextInput:
    return TextInput(
        encoder="encoders/text.onnx",
        features=_WIDTH,
        max_bytes=64 * 2**10,
        tokenizer="tokenizer.json",
        pad_id=pad_id,
        max_tokens=max_tokens,
        max_characters=16_000,
    )


def _audio(*, rate_hz: int) -> AudioInput:
    return AudioInput(
        encoder="encoders/audio.onnx",
        features=_WIDTH,
        max_bytes=16 * 2**20,
        sample_rate=rate_hz,
        min_samples=round(_LEAST_S * rate_hz),
        max_seconds=_MOST_S,
    )
