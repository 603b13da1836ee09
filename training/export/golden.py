"""Inputs that a bundle carries to be verified with: drawn and synthesised here, nothing from a data set.

A digit is drawn with a few round strokes; a recording is a chirp with two formant-like tones. The drawings
and the texts mean their digit; the sounds mean nothing and only have to be answered the same everywhere.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.bundle.manifest import MODALITIES, Modality
from app.bundle.sample import RawInputs

_SIDE: Final = 280  # ten times what the model sees
_WIDE: Final = 26
_Point = tuple[float, float]

# Points in a box of 0..1, joined by a round pen.
_Stroke = tuple[_Point, ...]


def _arc(left: float, top: float, right: float, bottom: float, start: float, end: float) -> _Stroke:
    """Points on an ellipse; degrees clockwise from three o'clock."""
    turn = np.radians(np.linspace(start, end, 40))
    x = (left + right) / 2 + (right - left) / 2 * np.cos(turn)
    y = (top + bottom) / 2 + (bottom - top) / 2 * np.sin(turn)
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


_STROKES: Final[dict[int, tuple[_Stroke, ...]]] = {
    0: (_arc(0.18, 0.0, 0.82, 1.0, 0, 360),),
    1: (((0.5, 0.0), (0.5, 1.0)),),
    2: ((*_arc(0.18, 0.0, 0.8, 0.55, 190, 390), (0.15, 1.0), (0.88, 1.0)),),
    3: (_arc(0.2, 0.0, 0.78, 0.5, 200, 450), _arc(0.18, 0.48, 0.84, 1.0, 270, 520)),
    4: (((0.3, 0.0), (0.15, 0.58), (0.85, 0.58)), ((0.7, 0.1), (0.66, 1.0))),
    5: (((0.82, 0.0), (0.28, 0.0), (0.24, 0.46)), _arc(0.1, 0.4, 0.84, 1.0, 235, 510)),
    6: ((*_arc(0.2, 0.0, 1.1, 1.2, 270, 180), *_arc(0.2, 0.5, 0.8, 1.0, 180, 540)),),
    7: (((0.15, 0.03), (0.85, 0.03), (0.42, 1.0)),),
    8: (_arc(0.24, 0.0, 0.76, 0.46, 0, 360), _arc(0.18, 0.46, 0.82, 1.0, 0, 360)),
    9: (_arc(0.2, 0.0, 0.76, 0.5, 0, 360), ((0.76, 0.25), (0.7, 1.0))),
}


@dataclass(frozen=True, slots=True)
class GoldenInput:
    """One case before it has answers. `digit` is None where only a sound is there."""

    name: str
    digit: int | None
    image: tuple[str, bytes] | None = None  # file name, content
    text: tuple[str, bytes] | None = None
    audio: tuple[str, bytes] | None = None

    @property
    def raw(self) -> RawInputs:
        return RawInputs(
            image=self.image[1] if self.image else None,
            text=self.text[1] if self.text else None,
            audio=self.audio[1] if self.audio else None,
        )

    @property
    def files(self) -> dict[str, bytes]:
        return dict(part for part in (self.image, self.text, self.audio) if part)


def golden_inputs(names: tuple[Modality, ...] = MODALITIES) -> tuple[GoldenInput, ...]:
    """For a model of these modalities: every subset, several formats and languages, odd rates and sizes."""
    kept = (_only(case, names) for case in _cases())
    return tuple(case for case in kept if case.files)


def _only(case: GoldenInput, names: tuple[Modality, ...]) -> GoldenInput:
    return replace(
        case,
        image=case.image if "image" in names else None,
        text=case.text if "text" in names else None,
        audio=case.audio if "audio" in names else None,
    )


def _cases() -> tuple[GoldenInput, ...]:
    return (
        GoldenInput("image alone, PNG", 7, image=_picture(7, "PNG")),
        GoldenInput("image alone, JPEG, black on white", 3, image=_picture(3, "JPEG", on_white=True)),
        GoldenInput("text alone, French", 7, text=_text("sept.txt", "Sept")),
        GoldenInput("text alone, Japanese", 4, text=_text("shi.txt", "四")),
        GoldenInput("audio alone, WAV 8 kHz", None, audio=_sound("low", 8_000, "WAV")),
        GoldenInput("audio alone, FLAC 44.1 kHz", None, audio=_sound("high", 44_100, "FLAC", base_hz=260.0)),
        GoldenInput(
            "image and text, WebP, Russian",
            2,
            image=_picture(2, "WEBP"),
            text=_text("dva.txt", "число два"),
        ),
        GoldenInput(
            "image and audio, WAV 16 kHz",
            0,
            image=_picture(0, "PNG", on_white=True),
            audio=_sound("middle", 16_000, "WAV", base_hz=170.0),
        ),
        GoldenInput(
            "text and audio, Arabic", 6, text=_text("sitta.txt", "ستة"), audio=_sound("low", 8_000, "WAV")
        ),
        GoldenInput(
            "all three, Spanish, misspelt",
            9,
            image=_picture(9, "PNG"),
            text=_text("nuebe.txt", "¡Nuebe!"),
            audio=_sound("high", 44_100, "FLAC", base_hz=260.0),
        ),
    )


def draw_digit(digit: int, *, on_white: bool = False) -> Image.Image:
    """Light on dark as in MNIST, or dark on light as on paper: RGB, 280 x 280."""
    paper, ink = ("white", (25, 25, 60)) if on_white else ("black", (245, 245, 245))
    large = Image.new("RGB", (4 * _SIDE, 4 * _SIDE), paper)
    pen, radius = ImageDraw.Draw(large), 2 * _WIDE
    for stroke in _STROKES[digit]:
        points = [(4 * _SIDE * (0.25 + 0.5 * x), 4 * _SIDE * (0.17 + 0.66 * y)) for x, y in stroke]
        pen.line(points, fill=ink, width=2 * radius, joint="curve")
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    return large.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def synthesise(*, rate_hz: int, base_hz: float = 120.0, seconds: float = 0.45) -> NDArray[np.float32]:
    """A falling voice-like buzz whose two resonances glide, with a soft start and end: float32 [samples]."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    way = time / seconds
    pitch = 2 * np.pi * np.cumsum(base_hz * (1.15 - 0.3 * way)) / rate_hz
    sound = np.zeros_like(time)
    for overtone in range(1, int(3_500 / base_hz)):
        hz = overtone * base_hz
        gain = sum(np.exp(-(((hz - formant) / 180) ** 2)) for formant in (350 + 350 * way, 2_200 - 900 * way))
        sound += (0.03 + gain) * np.sin(overtone * pitch) / overtone**0.5
    shaped = sound * np.sin(np.pi * way) ** 0.5
    return np.asarray(0.5 * shaped / np.abs(shaped).max(), dtype=np.float32)


def _picture(digit: int, kind: str, *, on_white: bool = False) -> tuple[str, bytes]:
    body = io.BytesIO()
    draw_digit(digit, on_white=on_white).save(body, kind, quality=90)
    return f"{digit}{'_paper' if on_white else ''}.{kind.lower()}", body.getvalue()


def _text(name: str, text: str) -> tuple[str, bytes]:
    return name, text.encode()


def _sound(name: str, rate_hz: int, kind: str, *, base_hz: float = 120.0) -> tuple[str, bytes]:
    body = io.BytesIO()
    samples = synthesise(rate_hz=rate_hz, base_hz=base_hz)
    soundfile.write(body, samples, rate_hz, format=kind, subtype="PCM_16")
    return f"{name}.{kind.lower()}", body.getvalue()
