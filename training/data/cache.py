"""Decoded inputs on disk: each distinct one decoded and prepared once, as in serving, then memory-mapped.

A cache is named by everything that decides what is in it: the inputs' bytes, the preparation, the decoders'
versions. So it is never out of date, and a second run opens it without decoding. It is written aside and
renamed: one that is there is whole. What a killed run leaves begins with a dot and may be removed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import PIL
import soundfile
import soxr
from numpy.typing import NDArray

from app.bundle.decode import decode_audio, decode_image
from app.bundle.errors import InputError
from app.bundle.manifest import AudioInput, ImageInput
from app.bundle.prepare import prepare_audio, prepare_image
from training.data.items import Clips, Images
from training.data.manifest import Body, read_body

_FORMAT: Final = 1  # of the files below; raised when they change
_DECODERS: Final = {
    "pillow": PIL.__version__,
    "soundfile": soundfile.__version__,
    "libsndfile": soundfile.__libsndfile_version__,
    "soxr": soxr.__version__,
}
_NOT_PREPARATION: Final = {"encoder", "features", "tokenizer"}

_Array = TypeVar("_Array", NDArray[np.uint8], NDArray[np.float32])


class Advance(Protocol):
    """Told after every input how many of a modality are done."""

    def __call__(self, modality: str, *, done: int, total: int) -> None: ...


def silent(modality: str, *, done: int, total: int) -> None:
    """Shows nothing."""


class Undecodable(Exception):
    """Inputs, by digest, and why each cannot be decoded."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(f"{len(reasons)} inputs cannot be decoded")
        self.reasons = dict(reasons)


@dataclass(frozen=True, slots=True)
class Cache:
    """`found` is always one input for each digest of its bytes, in the order of the items that come back."""

    folder: Path
    advance: Advance = silent

    def images(self, found: Mapping[str, Body], spec: ImageInput) -> Images:
        """One channel if the three are equal in every picture. Raises Undecodable, after trying all."""

        def make(body: bytes) -> NDArray[np.uint8]:
            return prepare_image(decode_image(body, spec), spec)

        place = self.folder / _name("image", found, spec)
        if not place.exists():
            with _written_aside(place) as folder:
                shape = (len(found), spec.height, spec.width, 3)
                pixels = np.lib.format.open_memmap(folder / "rgb.npy", "w+", np.uint8, shape)
                for item, prepared in enumerate(self._prepared("image", found, make)):
                    pixels[item] = prepared
                is_grey = all(_is_grey(picture) for picture in pixels)
                np.save(folder / "pixels.npy", pixels[..., :1] if is_grey else pixels)
                (folder / "rgb.npy").unlink()
        return Images(pixels=np.load(place / "pixels.npy", mmap_mode="r"))

    def clips(self, found: Mapping[str, Body], spec: AudioInput) -> Clips:
        """Raises Undecodable, after trying all."""

        def make(body: bytes) -> NDArray[np.float32]:
            return prepare_audio(decode_audio(body, spec), spec)

        place = self.folder / _name("audio", found, spec)
        if not place.exists():
            with _written_aside(place) as folder:
                lengths = []
                with (folder / "samples.f32").open("wb") as raw:  # how many there will be is not known yet
                    for samples in self._prepared("audio", found, make):
                        lengths.append(len(samples))
                        raw.write(samples.tobytes())
                np.save(folder / "samples.npy", np.memmap(folder / "samples.f32", np.float32, "r"))
                (folder / "samples.f32").unlink()
                np.save(folder / "bounds.npy", np.cumsum([0, *lengths], dtype=np.int64))
        return Clips(
            samples=np.load(place / "samples.npy", mmap_mode="r"), bounds=np.load(place / "bounds.npy")
        )

    def _prepared(
        self, modality: str, found: Mapping[str, Body], make: Callable[[bytes], _Array]
    ) -> Iterator[_Array]:
        reasons: dict[str, str] = {}
        for done, (digest, body) in enumerate(found.items(), start=1):
            try:
                yield make(read_body(body))
            except InputError as error:
                reasons[digest] = error.message
            self.advance(modality, done=done, total=len(found))
        if reasons:
            raise Undecodable(reasons)


def digest_of(body: Body) -> str:
    """sha256 of the content. Raises OSError where a file cannot be read."""
    if isinstance(body, bytes):
        return hashlib.sha256(body).hexdigest()
    with body.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_grey(picture: NDArray[np.uint8]) -> bool:
    return bool((picture == picture[..., :1]).all())


def _name(modality: str, found: Mapping[str, Body], spec: ImageInput | AudioInput) -> str:
    assert found, "a modality without inputs has nothing to cache"
    told: dict[str, Any] = {
        "format": _FORMAT,
        "decoders": _DECODERS,
        "preparation": spec.model_dump(mode="json", exclude=_NOT_PREPARATION),
        "inputs": list(found),
    }
    return f"{modality}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]}"


@contextmanager
def _written_aside(place: Path) -> Iterator[Path]:
    """A folder that becomes `place` if the block ends well, and vanishes if not."""
    folder = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    folder.mkdir(parents=True)
    try:
        yield folder
        try:
            folder.rename(place)
        except OSError:
            if not place.exists():  # if it does, another run was faster, with the same content
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
