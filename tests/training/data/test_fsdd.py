from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.fake_sets import CLIPS_PER_DIGIT, SPEAKERS, FakeSets, archive, write_sets
from training.data.errors import DataCorrupt
from training.data.fsdd import FINGERPRINTS, Recordings, archive_source, load_fsdd
from training.data.home import Home
from training.recipes.digits import INPUTS, DigitsData

assert INPUTS.audio is not None
SPEC = INPUTS.audio


def load(folder: Path, data: DigitsData) -> Recordings:
    return load_fsdd(Home(folder), SPEC, data.recordings, speakers=data.speakers)


def test_both_layouts_give_identical_recordings(fake_sets: FakeSets, tmp_path: Path) -> None:
    packed = write_sets(tmp_path / "wav", kind="wav")
    ours, theirs = load(fake_sets.folder, fake_sets.data), load(packed.folder, packed.data)
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.speakers, theirs.speakers)
    np.testing.assert_array_equal(ours.clips.samples, theirs.clips.samples)
    np.testing.assert_array_equal(ours.clips.bounds, theirs.clips.bounds)


def test_only_listed_speakers_are_read(fake_sets: FakeSets) -> None:
    found = load(fake_sets.folder, fake_sets.data)
    assert set(found.speakers.tolist()) == set(SPEAKERS)  # the archive holds theo too
    assert len(found.indices) == len(SPEAKERS) * 10 * CLIPS_PER_DIGIT
    assert found.clips.samples.dtype == np.float32


def test_other_recordings_under_the_same_names_are_refused(fake_sets: FakeSets) -> None:
    data = replace(fake_sets.data, speakers={**fake_sets.data.speakers, "bob": FINGERPRINTS["lucas"]})
    with pytest.raises(DataCorrupt, match="the recordings of bob are not the published ones"):
        load(fake_sets.folder, data)


def test_a_speaker_who_is_not_there_is_refused(fake_sets: FakeSets) -> None:
    with pytest.raises(DataCorrupt, match="george"):
        load_fsdd(Home(fake_sets.folder), SPEC, archive_source(), speakers=FINGERPRINTS)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fsdd").mkdir()
    (tmp_path / "fsdd/fsdd_flac.zip").write_bytes(archive("flac")[:5_000])
    with pytest.raises(DataCorrupt, match=r"fsdd_flac\.zip is not a complete archive"):
        load_fsdd(Home(tmp_path), SPEC, archive_source(), speakers=FINGERPRINTS)
