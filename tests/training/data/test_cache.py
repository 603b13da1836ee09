from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from app.bundle.decode import decode_audio, decode_image
from app.bundle.prepare import prepare_audio, prepare_image
from tests.training.data.media import AUDIO, IMAGE, png, sound
from training.data.cache import Cache, Undecodable, digest_of
from training.data.manifest import Body


def found(*bodies: bytes) -> dict[str, Body]:
    return {digest_of(body): body for body in bodies}


@dataclass
class Told:
    """What a progress display would be told."""

    done: list[tuple[str, int, int]] = field(default_factory=list)

    def __call__(self, modality: str, *, done: int, total: int) -> None:
        self.done.append((modality, done, total))


def test_pictures_are_what_serving_would_read(tmp_path: Path) -> None:
    bodies = [png(1), png(2, side=30), png(3, mode="RGBA")]
    images = Cache(tmp_path).images(found(*bodies), IMAGE)
    assert images.pixels.shape == (3, 8, 8, 3)
    for body, pixels in zip(bodies, images.pixels, strict=True):
        np.testing.assert_array_equal(pixels, prepare_image(decode_image(body, IMAGE), IMAGE))


def test_grey_pictures_keep_one_channel(tmp_path: Path) -> None:
    images = Cache(tmp_path).images(found(png(1, grey=True), png(2, grey=True)), IMAGE)
    assert images.pixels.shape == (2, 8, 8, 1)


def test_recordings_are_what_serving_would_read(tmp_path: Path) -> None:
    bodies = [sound(1), sound(2, rate_hz=16_000), sound(3, seconds=0.001, kind="FLAC")]
    clips = Cache(tmp_path).clips(found(*bodies), AUDIO)
    assert clips.lengths.tolist() == [800, 800, 100]  # the last is padded to the least that is read
    for item, body in enumerate(bodies):
        np.testing.assert_array_equal(clips[item], prepare_audio(decode_audio(body, AUDIO), AUDIO))


def test_the_second_use_decodes_nothing(tmp_path: Path) -> None:
    first, second = Told(), Told()
    inputs, sounds = found(png(1), png(2)), found(sound(1))
    once = Cache(tmp_path, first).images(inputs, IMAGE), Cache(tmp_path, first).clips(sounds, AUDIO)
    again = Cache(tmp_path, second).images(inputs, IMAGE), Cache(tmp_path, second).clips(sounds, AUDIO)
    assert first.done == [("image", 1, 2), ("image", 2, 2), ("audio", 1, 1)]
    assert second.done == []
    np.testing.assert_array_equal(once[0].pixels, again[0].pixels)
    np.testing.assert_array_equal(once[1].samples, again[1].samples)
    assert isinstance(again[0].pixels, np.memmap)
    assert isinstance(again[1].samples, np.memmap)


def test_other_inputs_order_or_preparation_is_another_cache(tmp_path: Path) -> None:
    told = Told()
    cache = Cache(tmp_path, told)
    cache.images(found(png(1), png(2)), IMAGE)
    for inputs, spec in (
        (found(png(2), png(1)), IMAGE),
        (found(png(1)), IMAGE),
        (found(png(1), png(2)), IMAGE.model_copy(update={"height": 6})),
    ):
        before = len(told.done)
        cache.images(inputs, spec)
        assert len(told.done) == before + len(inputs)


def test_a_wider_encoder_reads_the_same_cache(tmp_path: Path) -> None:
    told = Told()
    Cache(tmp_path, told).images(found(png(1)), IMAGE)
    Cache(tmp_path, told).images(found(png(1)), IMAGE.model_copy(update={"features": 99}))
    assert len(told.done) == 1


def test_all_that_cannot_be_decoded_is_told_and_nothing_is_kept(tmp_path: Path) -> None:
    broken = [png(2)[:40], b"no picture"]
    with pytest.raises(Undecodable) as caught:
        Cache(tmp_path).images(found(png(1), *broken, png(3)), IMAGE)
    assert caught.value.reasons == {
        digest_of(broken[0]): "The image cannot be decoded. Send a complete JPEG, PNG or WebP file.",
        digest_of(broken[1]): "The image is not JPEG, PNG or WebP. Send one of these.",
    }
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_no_cache(tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for read in (
        lambda: Cache(tmp_path, interrupt).images(found(png(1)), IMAGE),
        lambda: Cache(tmp_path, interrupt).clips(found(sound(1)), AUDIO),
    ):
        with pytest.raises(KeyboardInterrupt):
            read()
    assert list(tmp_path.iterdir()) == []


def test_half_a_cache_from_a_killed_run_is_not_read(tmp_path: Path) -> None:
    """A killed run cannot tidy up; what it leaves has another name than a cache."""
    whole = np.array(Cache(tmp_path).images(found(png(1)), IMAGE).pixels)
    [place] = tmp_path.iterdir()
    place.rename(tmp_path / f".{place.name}-killed")
    (tmp_path / f".{place.name}-killed" / "pixels.npy").write_bytes(b"half")
    np.testing.assert_array_equal(Cache(tmp_path).images(found(png(1)), IMAGE).pixels, whole)


def test_a_run_that_was_faster_wins(tmp_path: Path) -> None:
    def meanwhile(*_: object, **__: object) -> None:
        Cache(tmp_path).images(found(png(1)), IMAGE)

    images = Cache(tmp_path, meanwhile).images(found(png(1)), IMAGE)
    assert len(images) == 1
    assert len(list(tmp_path.iterdir())) == 1
