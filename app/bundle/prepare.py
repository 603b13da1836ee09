"""Decoded media to the arrays that the encoder graphs read, from the manifest's numbers alone.

Deterministic: the same bytes give the same arrays in training and in serving. Scaling to floats,
spectrograms and masks are not here but inside the graphs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from app.bundle.budget import Hold, unbounded
from app.bundle.decode import Waveform, decode_audio, decode_image, decode_text
from app.bundle.errors import BundleCorrupt, InvalidText, NoModality, UnreadModality
from app.bundle.manifest import AudioInput, ImageInput, Inputs, Modality, Resample, TextInput
from app.bundle.sample import InputWarning, RawInputs, Sample

_FILTERS: Final[dict[Resample, Image.Resampling]] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def prepare_image(pixels: NDArray[np.uint8], spec: ImageInput) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of any size to [height, width, 3], by the fit of `spec`."""
    image = Image.fromarray(pixels)
    match spec.fit:
        case "crop":
            return _resized(image, spec, box=_centre(image, spec))
        case "stretch":
            return _resized(image, spec, box=None)
        case "pad":
            return _padded(image, spec)


def prepare_audio(wave: Waveform, spec: AudioInput) -> NDArray[np.float32]:
    """Mix to mono, resample, pad a very short recording with silence: float32 [samples]."""
    mono = wave.samples.mean(axis=1, dtype=np.float32)
    if wave.rate_hz != spec.sample_rate:
        mono = soxr.resample(mono, wave.rate_hz, spec.sample_rate, quality="HQ").astype(
            np.float32, copy=False
        )
    return np.pad(mono, (0, max(0, spec.min_samples - len(mono))))


class TextPreparer:
    """Tokenize as one bundle does. Safe to share between threads: nothing is configured after opening."""

    def __init__(self, tokenizer_json: bytes, spec: TextInput) -> None:
        """Raises BundleCorrupt."""
        self._spec = spec
        self._tokenizer = _tokenizer(tokenizer_json, spec)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # truncation is ours, and reported
        self._tokenizer.encode_special_tokens = True  # a "[PAD]" that someone types is five characters
        self.vocabulary = 1 + max(self._tokenizer.get_vocab().values())  # ids are below this

    def __call__(self, text: str) -> tuple[NDArray[np.int32], tuple[InputWarning, ...]]:
        """Token ids int32 [tokens], and a warning where the model reads only the beginning."""
        try:  # encode_batch and not encode: only the former lets other threads run.
            [encoding] = self._tokenizer.encode_batch([text])
        except Exception as error:  # all that the library raises, as for a word it knows no token for
            raise BundleCorrupt(
                "it fails to tokenize a text. Export the bundle again.", file=self._spec.tokenizer
            ) from error
        ids = np.array(encoding.ids[: self._spec.max_tokens], dtype=np.int32)
        if not len(ids):
            raise InvalidText("The text holds nothing that this model reads. Write words.", part="text")
        if len(encoding.ids) <= self._spec.max_tokens:
            return ids, ()
        message = f"Only the first {len(ids)} of {len(encoding.ids)} tokens were read."
        return ids, (InputWarning(part="text", code="truncated", message=message),)


def _tokenizer(body: bytes, spec: TextInput) -> Tokenizer:
    """Raises BundleCorrupt."""
    try:
        tokenizer = Tokenizer.from_buffer(body)
    except ValueError as error:
        raise BundleCorrupt(
            "it is no tokenizer that this version of the tokenizers library reads. Export the bundle again.",
            file=spec.tokenizer,
        ) from error
    if not tokenizer.get_vocab_size():
        raise BundleCorrupt("its vocabulary is empty. Export the bundle again.", file=spec.tokenizer)
    return tokenizer


class Preparer:
    """Raw bytes to one Sample for one bundle: decode, then prepare, each modality that is there."""

    def __init__(self, inputs: Inputs, files: Mapping[str, bytes], *, hold: Hold = unbounded) -> None:
        self._inputs = inputs
        self._hold = hold
        self._text = TextPreparer(files[inputs.text.tokenizer], inputs.text) if inputs.text else None
        self.vocabulary = self._text.vocabulary if self._text else 0

    def __call__(self, raw: RawInputs) -> Sample:
        """Raises InputError: the first part that is wrong, in the order image, text, audio."""
        self._check_present(raw)
        spent_s: dict[Modality, float] = {}
        image = text = audio = None
        warnings: tuple[InputWarning, ...] = ()
        if raw.image is not None and self._inputs.image is not None:
            with _timed(spent_s, "image"):
                pixels = decode_image(raw.image, self._inputs.image, hold=self._hold)
                image = prepare_image(pixels, self._inputs.image)
        if raw.text is not None and self._inputs.text is not None and self._text is not None:
            with _timed(spent_s, "text"):
                text, warnings = self._text(decode_text(raw.text, self._inputs.text))
        if raw.audio is not None and self._inputs.audio is not None:
            with _timed(spent_s, "audio"):
                audio = prepare_audio(decode_audio(raw.audio, self._inputs.audio), self._inputs.audio)
        return Sample(image=image, text=text, audio=audio, warnings=warnings, prepare_s=spent_s)

    def _check_present(self, raw: RawInputs) -> None:
        readable = self._inputs.names
        for modality in raw.present:
            if modality not in readable:
                raise UnreadModality(
                    f"This model reads {_listed(readable)}, not {modality}. Leave the {modality} part out.",
                    part=modality,
                )
        if not raw.present:
            raise NoModality(f"There is nothing to predict from. Send at least one of {_listed(readable)}.")


def _centre(image: Image.Image, spec: ImageInput) -> tuple[float, float, float, float]:
    """What the crop shows: resampled once from there, instead of resizing all and throwing away."""
    assert spec.resize is not None, "the manifest says it for a crop"
    scale = spec.scale_of(height=image.height, width=image.width)
    width, height = (max(spec.resize, round(side * scale)) for side in image.size)
    left, top = (width - spec.width) // 2, (height - spec.height) // 2
    return (
        left * image.width / width,
        top * image.height / height,
        (left + spec.width) * image.width / width,
        (top + spec.height) * image.height / height,
    )


def _padded(image: Image.Image, spec: ImageInput) -> NDArray[np.uint8]:
    scale = spec.scale_of(height=image.height, width=image.width)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    whole = np.full((spec.height, spec.width, 3), spec.background, np.uint8)
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    inner = image.resize((width, height), _FILTERS[spec.resample])
    whole[top : top + height, left : left + width] = np.asarray(inner)
    return whole


def _resized(
    image: Image.Image, spec: ImageInput, *, box: tuple[float, float, float, float] | None
) -> NDArray[np.uint8]:
    return np.asarray(image.resize((spec.width, spec.height), _FILTERS[spec.resample], box=box))


@contextmanager
def _timed(spent_s: dict[Modality, float], modality: Modality) -> Iterator[None]:
    started_s = time.perf_counter()
    yield
    spent_s[modality] = time.perf_counter() - started_s


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
