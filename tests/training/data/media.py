"""Small files made here: pictures and recordings that differ by a number."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from app.bundle.manifest import AudioInput, ImageInput, Inputs, TextInput

IMAGE = ImageInput(
    encoder="image.onnx", features=8, max_bytes=2**20, resize=8, height=8, width=8, max_pixels=10**6
)
TEXT = TextInput(
    encoder="text.onnx",
    features=8,
    max_bytes=2**10,
    tokenizer="tokenizer.json",
    pad_id=0,
    max_tokens=8,
    max_characters=100,
)
AUDIO = AudioInput(
    encoder="audio.onnx", features=8, max_bytes=2**20, sample_rate=8_000, min_samples=100, max_seconds=2
)
INPUTS = Inputs(image=IMAGE, text=TEXT, audio=AUDIO)


def png(number: int, *, grey: bool = False, side: int = 12, mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    if grey:
        pixels[:] = pixels[..., :1]
    return encoded(Image.fromarray(pixels).convert(mode), "PNG")


def encoded(image: Image.Image, kind: str) -> bytes:
    body = io.BytesIO()
    image.save(body, kind)
    return body.getvalue()


def sound(number: int, *, seconds: float = 0.1, rate_hz: int = 8_000, kind: str = "WAV") -> bytes:
    samples = np.random.default_rng(number).uniform(-0.5, 0.5, round(seconds * rate_hz))
    return recorded(samples.astype(np.float32), rate_hz=rate_hz, kind=kind)


def recorded(samples: NDArray[np.float32], *, rate_hz: int, kind: str = "WAV") -> bytes:
    body = io.BytesIO()
    soundfile.write(body, samples, rate_hz, format=kind)
    return body.getvalue()
