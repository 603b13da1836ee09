from __future__ import annotations

import numpy as np
import torch
from training.augment import augment_images, augment_sounds
from training.data.corpus import Corpus
from training.rows import Sounds

from tests.training.conftest import silent
from training.checkpoint import Checkpoint
from training.degrade import degrade_images, degrade_sounds, degrade_texts
from training.recipe import Recipe
from training.run import train


def test_one_seed_gives_one_result(recipe: Recipe, corpus: Corpus, checkpoint: Checkpoint) -> None:
    again = train(recipe, corpus, seed=3, stage=silent)
    assert again.tokenizer_json == checkpoint.tokenizer_json
    assert again.metrics == checkpoint.metrics
    for name, weights in checkpoint.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name]), name


def test_another_seed_gives_another_result(recipe: Recipe, corpus: Corpus, checkpoint: Checkpoint) -> None:
    other = train(recipe, corpus, seed=4, stage=silent)
    assert not torch.equal(other.model.fusion.missing, checkpoint.model.fusion.missing)


def test_each_speaker_is_left_out_once(corpus: Corpus, checkpoint: Checkpoint) -> None:
    found = checkpoint.metrics["unseen_speakers"]
    assert set(found) == set(corpus.train.clips.speakers.tolist())
    assert all(0 <= share <= 1 for share in found.values())


def test_augmented_images_keep_their_shape_and_come_in_both_polarities(
    recipe: Recipe, corpus: Corpus
) -> None:
    grey = torch.from_numpy(corpus.train.images.pixels)
    generator = torch.Generator().manual_seed(0)
    changed = augment_images(grey, recipe.image_augmentation, generator)
    assert changed.shape == grey.shape
    assert changed.dtype == torch.uint8
    corners = changed[:, :3, :3].float().mean(dim=(1, 2))
    assert 0.2 < (corners > 127).float().mean() < 0.8


def test_augmented_clips_keep_their_sound_and_are_silent_after_their_end(
    recipe: Recipe, corpus: Corpus
) -> None:
    sounds = Sounds.of(corpus.train.clips)
    generator = torch.Generator().manual_seed(0)
    changed = augment_sounds(sounds, recipe.audio_augmentation, generator, rate_hz=8_000)
    window = round(recipe.audio_augmentation.window_s * 8_000)
    assert changed.samples.shape == (len(sounds.length), window)
    assert changed.samples.isfinite().all()
    assert (changed.length <= window).all()
    beyond = torch.arange(window) >= changed.length.unsqueeze(1)
    assert changed.samples[beyond].abs().max() == 0
    assert (changed.samples.abs().amax(dim=1) > 0).all()


def test_degradation_is_the_stated_one_and_repeatable(recipe: Recipe, corpus: Corpus) -> None:
    how, sounds = recipe.degradation, Sounds.of(corpus.test.clips)
    noisy = degrade_sounds(sounds, how, seed=1)
    inside = torch.arange(noisy.samples.shape[1]) < sounds.length.unsqueeze(1)
    noise = (noisy.samples - sounds.samples)[inside].square().mean()
    speech = sounds.samples[inside].square().mean()
    ratio_db = 10 * torch.log10(speech / noise)
    assert how.audio_snr_db < ratio_db < how.audio_snr_db + 4  # clipping at full scale takes noise away
    grey = torch.from_numpy(corpus.test.images.pixels)
    assert torch.equal(degrade_images(grey, how, seed=1), degrade_images(grey, how, seed=1))
    assert not torch.equal(degrade_images(grey, how, seed=1), degrade_images(grey, how, seed=2))
    strings = corpus.test.texts.strings
    assert degrade_texts(strings, how, seed=1) == degrade_texts(strings, how, seed=1)
    assert degrade_texts(strings, how, seed=1) != strings


def test_the_tables_cover_every_subset_clean_and_degraded(checkpoint: Checkpoint) -> None:
    metrics = checkpoint.metrics
    assert len(metrics["clean"]) == len(metrics["degraded"]) == 7
    shares = [scored["accuracy"] for table in ("clean", "degraded") for scored in metrics[table].values()]
    assert np.isfinite(shares).all()
    assert metrics["clean"]["audio"]["units"] < metrics["rows"]  # distinct clips, not rows
