"""The recipe `xor` with few rows and narrow encoders: all of it runs, nothing is learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.data.xor import Xor, load_xor
from training.encoders.specs import ConvText, KernelAudio, KernelImage, KernelText, MelAudio, PlainImage
from training.recipe import Recipe
from training.recipes.digits import INPUTS
from training.recipes.xor import xor

ROWS: Final = Xor(train=64, validation=16, test=32)


def tiny_xor() -> Recipe:
    full = xor()
    return replace(
        full,
        load=_load,
        encoders={
            "image": PlainImage(channels=(4, 6, 8, 8), width=8, tokens=4),
            "text": ConvText(channels=8, width=8),
            "audio": MelAudio(channels=(4, 8), bands=16, width=8, tokens=2),
        },
        fusion=replace(full.fusion, width=8, embedding=8, tensor_width=4),
        schedule=replace(full.schedule, epochs=1, batch_size=32, threads=1),
    )


def tiny_xor_that_keeps_pictures() -> Recipe:
    """The pictures larger, and read by a kernel machine; weights are averaged."""
    tiny = tiny_xor()
    assert tiny.inputs.image is not None
    larger = tiny.inputs.image.model_copy(update={"resize": 32, "height": 32, "width": 32})
    inputs = tiny.inputs.model_copy(update={"image": larger})
    return replace(
        tiny,
        inputs=inputs,
        load=lambda _, __: load_xor(inputs, ROWS),
        encoders={**tiny.encoders, "image": KernelImage(width=len(tiny.labels))},
        schedule=replace(tiny.schedule, average=0.9),
    )


def tiny_xor_by_likeness() -> Recipe:
    """Every modality is read by a kernel machine, and their answers are multiplied."""
    kept = tiny_xor_that_keeps_pictures()
    labels = len(kept.labels)
    read = {**kept.encoders, "text": KernelText(buckets=997, width=labels, orders=(1, 2))}
    read |= {"audio": KernelAudio(bands=16, width=labels)}
    return replace(kept, encoders=read).with_fusion("prediction", "multiply")


def _load(_: Home, __: Cache) -> Dataset:
    return load_xor(INPUTS, ROWS)
