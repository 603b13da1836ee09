"""A manifest of one's own with small generated media: a picture, a text and a tone say the same."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from PIL import Image

from app.bundle.manifest import Task
from app.bundle.sample import RawInputs

LABELS: Final = ("high", "low", "middle")
_HZ: Final = {"low": 200, "middle": 600, "high": 1_800}
_GREY: Final = {"low": 40, "middle": 130, "high": 220}
_WORDS: Final = {"low": "one", "middle": "two", "high": "three"}
_ROWS: Final = {"train": 16, "validation": 12, "test": 12}


def write_rows(folder: Path, *, task: Task = "classification") -> Path:
    """The table of rows. Every fourth training row lacks its recording."""
    rows = []
    for split, count in _ROWS.items():
        for number in range(count):
            label, name = LABELS[number % 3], f"{split}{number}"
            raw = row(label, seed=len(rows))
            (folder / f"{name}.png").write_bytes(raw.image or b"")
            (folder / f"{name}.wav").write_bytes(raw.audio or b"")
            rows.append(
                {
                    "id": name,
                    "split": split,
                    "image": f"{name}.png",
                    "text": (raw.text or b"").decode(),
                    "audio": None if split == "train" and number % 4 == 3 else f"{name}.wav",
                    "label": label if task == "classification" else _labels(number),
                }
            )
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return table


def row(label: str, *, seed: int) -> RawInputs:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(_GREY[label], 25, (24, 20, 3)).clip(0, 255).astype(np.uint8)
    picture, recording = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    time = np.arange(3_200 + 160 * (seed % 5)) / 16_000
    sound = 0.4 * np.sin(2 * np.pi * _HZ[label] * time) + rng.normal(0, 0.02, len(time))
    soundfile.write(recording, sound.astype(np.float32), 16_000, format="WAV", subtype="PCM_16")
    text = " ".join([_WORDS[label]] * (1 + seed % 4))
    return RawInputs(image=picture.getvalue(), text=text.encode(), audio=recording.getvalue())


def _labels(number: int) -> list[str]:
    """One label, two of them, or none."""
    return [[LABELS[number % 3]], [LABELS[number % 3], "low"], []][number // 3 % 3]
