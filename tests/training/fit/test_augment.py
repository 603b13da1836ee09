from __future__ import annotations

import numpy as np
import torch

from training.batch import padded
from training.data.dataset import Dataset
from training.degrade import degraded
from training.fit.augment import augment_images, augment_sounds, augment_texts
from training.recipe import ImageAugmentation, Recipe, TextAugmentation
from training.run import evaluation_rows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_augmented_images_keep_their_shape_and_come_in_both_polarities(
    recipe: Recipe, dataset: Dataset
) -> None:
    assert dataset.train.items.images is not None
    assert recipe.augmentation.image is not None
    pixels = torch.from_numpy(dataset.train.items.images.pixels)
    (changed,) = augment_images((pixels,), recipe.augmentation.image, generator())
    assert changed.shape == pixels.shape
    assert changed.dtype == torch.uint8
    corners = changed[:, :3, :3].float().mean(dim=(1, 2, 3))
    assert 0.2 < (corners > 127).float().mean() < 0.8


def test_images_without_any_augmentation_stay_as_they_are() -> None:
    pixels = torch.randint(256, (4, 9, 7, 3), generator=generator(), dtype=torch.uint8)
    (changed,) = augment_images((pixels,), ImageAugmentation(), generator())
    assert (changed.int() - pixels.int()).abs().max() <= 1  # resampled on their own grid


def test_mirrored_images_are_mirrored() -> None:
    pixels = torch.randint(256, (4, 8, 8, 3), generator=generator(), dtype=torch.uint8)
    (changed,) = augment_images((pixels,), ImageAugmentation(flip=1.0), generator())
    assert (changed.int() - pixels.flip(2).int()).abs().max() <= 1


def test_hidden_tokens_are_read_as_padding_and_never_all_of_a_row() -> None:
    tokens = torch.randint(1, 9, (200, 6), generator=generator(), dtype=torch.int32)
    (changed,) = augment_texts((tokens,), TextAugmentation(hide=0.7), generator(), pad_id=0)
    kept = changed != 0
    assert torch.equal(changed[kept], tokens[kept])
    assert kept.any(dim=1).all()
    assert 0.2 < kept.float().mean() < 0.5


def test_augmented_clips_keep_their_sound_and_are_silent_after_their_end(
    recipe: Recipe, dataset: Dataset
) -> None:
    clips, how = dataset.train.items.clips, recipe.augmentation.audio
    assert clips is not None
    assert how is not None
    window = round(how.window_s * 8_000)
    samples, length = augment_sounds(
        padded(clips, np.arange(len(clips)), np.arange(len(clips)), least=1), how, generator(), rate_hz=8_000
    )
    assert samples.shape == (len(clips), window)
    assert samples.isfinite().all()
    assert (length <= window).all()
    beyond = torch.arange(window) >= length.unsqueeze(1)
    assert samples[beyond].abs().max() == 0
    assert (samples.abs().amax(dim=1) > 0).all()


def test_degradation_is_the_stated_one_repeatable_and_drawn_for_every_row(
    recipe: Recipe, dataset: Dataset
) -> None:
    rows, items, how = evaluation_rows(dataset.test), dataset.test.items, recipe.degradation
    assert how is not None
    own, spoiled = degraded(rows, items, how, seed=1)
    again = degraded(rows, items, how, seed=1)[1]
    other = degraded(rows, items, how, seed=2)[1]
    assert spoiled.counts == dict.fromkeys(spoiled.counts, len(rows))
    assert spoiled.images is not None
    assert again.images is not None
    assert other.images is not None
    np.testing.assert_array_equal(spoiled.images.pixels, again.images.pixels)
    assert (spoiled.images.pixels != other.images.pixels).any()
    assert spoiled.texts is not None
    assert items.texts is not None
    assert again.texts is not None
    assert spoiled.texts.strings == again.texts.strings
    assert spoiled.texts.strings != tuple(items.texts.strings[item] for item in rows.items[:, 1])
    assert items.clips is not None
    assert spoiled.clips is not None
    speech = np.concatenate([items.clips[item] for item in rows.items[:, 2].tolist()])
    noise = np.concatenate([spoiled.clips[item] for item in own.items[:, 2].tolist()]) - speech
    ratio_db = 10 * np.log10(np.square(speech).mean() / np.square(noise).mean())
    assert how.audio_snr_db < ratio_db < how.audio_snr_db + 4  # clipping at full scale takes noise away
