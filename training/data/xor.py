"""XOR: three inputs that say nothing alone; only together do they name the class. Made here, from one seed.

An image shows a ring or a cross, a text names a bird or a metal, a recording holds a low or a high tone. The
class says whether image and text agree (both first, or both second) and whether text and audio agree: four
classes, each as frequent, whatever any one input shows. So the best that can be reached is

| inputs | accuracy | why |
|---|---|---|
| one alone | 25 % | every class is as likely after it as before |
| a product of experts, of any number | 25 % | its factors, each fitted alone, are uniform |
| any two together | 50 % | they settle one of the two questions, or whether the answers are equal |
| all three | 100 % | both questions |

Everything is a function of two modalities at a time: a fusion that multiplies features can see it, one that
adds predictions cannot.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.bundle.decode import decode_audio, decode_image, decode_text
from app.bundle.manifest import AudioInput, ImageInput, Inputs, TextInput
from app.bundle.prepare import prepare_audio, prepare_image
from training.data.checksum import with_checksum
from training.data.dataset import Dataset, FixedRows, Rows, Split
from training.data.items import Clips, Images, Items, Texts

LABELS: Final = ("same/same", "same/other", "other/same", "other/other")  # image and text / text and audio
ATTAINABLE: Final = {
    "image": 0.25,
    "text": 0.25,
    "audio": 0.25,
    "image+text": 0.5,
    "image+audio": 0.5,
    "text+audio": 0.5,
    "image+text+audio": 1.0,
}

_FAMILIES: Final = (
    ("robin", "heron", "finch", "raven", "stork", "eagle", "swallow", "magpie"),
    ("copper", "silver", "nickel", "cobalt", "chromium", "zinc", "iron", "tin"),
)
_PHRASES: Final = ("{}", "a {}", "the {}", "look, {}", "one {} here", "it says {}", "{}, I think", "{}!")
_TONES_HZ: Final = ((250, 400), (800, 1_200))
_SIDE: Final = 28  # pixels of a picture
_RATE_HZ: Final = 8_000


@dataclass(frozen=True, slots=True)
class Xor:
    """Rows of each split, multiples of the eight combinations, so that all are as frequent."""

    train: int = 4_000
    validation: int = 1_000
    test: int = 2_000
    seed: int = 20_240_609


def load_xor(inputs: Inputs, data: Xor | None = None) -> Dataset:
    """Drawn, encoded as files, and read back as serving reads them."""
    made = data or Xor()
    train, validation, test = (
        _split(inputs, rows, np.random.default_rng([made.seed, at]))
        for at, rows in enumerate((made.train, made.validation, made.test))
    )
    provenance: dict[str, Any] = {
        "name": "XOR, synthetic",
        "rows": {"train": made.train, "validation": made.validation, "test": made.test},
        "attainable_accuracy": ATTAINABLE,
        "seed": made.seed,
    }
    return with_checksum(Dataset(train=train, validation=validation, test=test, provenance=provenance))


def _split(inputs: Inputs, rows: int, rng: np.random.Generator) -> Split:
    assert rows % 8 == 0, "every combination is as frequent as every other"
    assert inputs.image is not None
    assert inputs.text is not None
    assert inputs.audio is not None
    combination = rng.permutation(rows) % 8
    bits = combination[:, None] >> np.arange(3) & 1  # [rows, modalities]
    strings = [_said(bit, inputs.text, rng) for bit in bits[:, 1].tolist()]
    distinct = {string: number for number, string in enumerate(dict.fromkeys(strings))}
    every = np.arange(rows)
    items = np.stack([every, np.array([distinct[string] for string in strings]), every], axis=1)
    return Split(
        items=Items(
            images=Images(np.stack([_drawn(bit, inputs.image, rng) for bit in bits[:, 0].tolist()])[..., :1]),
            texts=Texts(tuple(distinct)),
            clips=Clips.of(_sounded(bit, inputs.audio, rng) for bit in bits[:, 2].tolist()),
        ),
        pairing=FixedRows(Rows(items=items, targets=label_of(bits), groups=items)),
    )


def label_of(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Int [rows, 3] of image, text, audio to the class of each row."""
    image, text, audio = bits.T
    labels: NDArray[np.int64] = 2 * (image ^ text) + (text ^ audio)
    return labels


def _drawn(bit: int, spec: ImageInput, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A ring or a cross of any size and place, bright on dark, with noise; grey [height, width, 3]."""
    size = int(rng.integers(_SIDE // 3, 2 * _SIDE // 3))
    left, top = (int(at) for at in rng.integers(2, _SIDE - size - 2, size=2))
    right, bottom = left + size, top + size
    picture = Image.new("L", (_SIDE, _SIDE), int(rng.integers(0, 60)))
    pen, ink = ImageDraw.Draw(picture), int(rng.integers(180, 256))
    if bit:
        pen.line((left, top, right, bottom), fill=ink, width=2)
        pen.line((left, bottom, right, top), fill=ink, width=2)
    else:
        pen.ellipse((left, top, right, bottom), outline=ink, width=2)
    noisy = np.asarray(picture) + rng.normal(0, 12, (_SIDE, _SIDE))
    file = io.BytesIO()
    Image.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return prepare_image(decode_image(file.getvalue(), spec), spec)


def _said(bit: int, spec: TextInput, rng: np.random.Generator) -> str:
    family = _FAMILIES[bit]
    phrase = _PHRASES[int(rng.integers(len(_PHRASES)))]
    text = phrase.format(family[int(rng.integers(len(family)))])
    return decode_text((text, text.upper(), text.title())[int(rng.integers(3))].encode(), spec)


def _sounded(bit: int, spec: AudioInput, rng: np.random.Generator) -> NDArray[np.float32]:
    """A tone of 0.25 to 0.4 s, with noise of a tenth of its power."""
    at_s = np.arange(int(rng.integers(_RATE_HZ // 4, 2 * _RATE_HZ // 5))) / _RATE_HZ
    tone = np.sin(2 * np.pi * (rng.uniform(*_TONES_HZ[bit]) * at_s + rng.random()))
    sound = rng.uniform(0.1, 0.5) * (tone + rng.normal(0, np.sqrt(0.5 / 10), len(at_s)))
    file = io.BytesIO()
    soundfile.write(file, sound.clip(-1, 1), _RATE_HZ, format="WAV", subtype="PCM_16")
    return prepare_audio(decode_audio(file.getvalue(), spec), spec)
