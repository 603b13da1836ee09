"""Spoken digits: Free Spoken Digit Dataset, Z. Jackson and others, CC BY-SA 4.0; 8 kHz, mono, English.

Read from the archive that GitHub packs (WAV) or from a smaller one (FLAC): the samples are the same, and
are checked speaker by speaker, because an archive's own bytes change whenever the host packs it anew.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.decode import Waveform, decode_audio
from app.bundle.errors import InputError
from app.bundle.manifest import AudioInput
from app.bundle.prepare import prepare_audio
from training.data.download import Source
from training.data.errors import DataCorrupt
from training.data.home import Home
from training.data.items import Clips

COMMIT: Final = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
_ARCHIVE: Final = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{COMMIT}.zip"
FLAC_FILE: Final = "fsdd/fsdd_flac.zip"
_NAME: Final = re.compile(r"(?:^|/)recordings/((\d)_([a-z]+)_(\d+))\.(?:wav|flac)$")

# sha256 over the lines "<name> <sha256 of the samples as little-endian int16>\n" of a speaker's recordings,
# sorted. A speaker who is not listed is not read: the set's sixth, theo, so that everyone who follows the
# recipe trains on the same 2,500 recordings.
FINGERPRINTS: Final = {
    "george": "512da0cba722aef1033a4c5c8b534549a1afeba5ec1129e3ed45091e7a240d4b",
    "jackson": "7ba18664d22e54cdca15120d8759e8736470685560ed7819d68a1ac06cdeeff9",
    "lucas": "9d49257244ee9dec019c7c833a88b5121a7aa12e6c0dcf7dc399eefd997aa803",
    "nicolas": "24f0fd58172d1701aef494d210518744a2a44b88ebe9fc12e212f2ed70359c3b",
    "yweweler": "5f69374e69e62fab687bd8f8c7da2b3d99eec266fc1233952209fb01539494bb",
}


@dataclass(frozen=True, slots=True, eq=False)
class Recordings:
    """`indices` number a speaker's recordings of one digit: 0-4 are the set's test."""

    clips: Clips
    labels: NDArray[np.int64]  # [items]
    speakers: NDArray[np.str_]  # [items]
    indices: NDArray[np.int64]  # [items]

    def where(self, chosen: NDArray[np.bool_]) -> Recordings:
        return Recordings(
            clips=self.clips.take(np.flatnonzero(chosen)),
            labels=self.labels[chosen],
            speakers=self.speakers[chosen],
            indices=self.indices[chosen],
        )


def archive_source(mirrors: tuple[str, ...] = (_ARCHIVE,)) -> Source:
    return Source(path=f"fsdd/free-spoken-digit-dataset-{COMMIT[:7]}.zip", mirrors=mirrors, check=_is_archive)


def load_fsdd(home: Home, spec: AudioInput, source: Source, *, speakers: dict[str, str]) -> Recordings:
    """Recordings of these speakers (name to fingerprint), sorted by name.

    Raises DataError: also when a recording differs from the published one.
    """
    path = home.file(source, or_else=FLAC_FILE)
    waves = _read_archive(path, spec, speakers=frozenset(speakers))
    _check_fingerprints(waves, speakers, archive=path.name)
    names = sorted(waves)
    parts = [name.split("_") for name in names]
    return Recordings(
        clips=Clips.of(prepare_audio(waves[name], spec) for name in names),
        labels=np.array([int(digit) for digit, _, _ in parts], np.int64),
        speakers=np.array([speaker for _, speaker, _ in parts]),
        indices=np.array([int(index) for _, _, index in parts], np.int64),
    )


def fingerprint(waves: dict[str, Waveform]) -> str:
    """Of the recordings of one speaker; see FINGERPRINTS."""
    lines = [f"{name} {_sha256_of_samples(wave)}\n" for name, wave in sorted(waves.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256_of_samples(wave: Waveform) -> str:
    return hashlib.sha256(np.rint(wave.samples * 2**15).astype("<i2").tobytes()).hexdigest()


def _read_archive(path: Path, spec: AudioInput, *, speakers: frozenset[str]) -> dict[str, Waveform]:
    waves: dict[str, Waveform] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                match = _NAME.search(entry)
                if match and match[3] in speakers:
                    waves[match[1]] = decode_audio(archive.read(entry), spec)
    except (zipfile.BadZipFile, InputError) as error:
        raise DataCorrupt(
            f"{path.name} is not a complete archive of recordings. Remove it and fetch it again."
        ) from error
    return waves


def _check_fingerprints(waves: dict[str, Waveform], speakers: dict[str, str], *, archive: str) -> None:
    by_speaker: dict[str, dict[str, Waveform]] = defaultdict(dict)
    for name, wave in waves.items():
        by_speaker[name.split("_")[1]][name] = wave
    for speaker, expected in speakers.items():
        if fingerprint(by_speaker[speaker]) != expected:
            raise DataCorrupt(
                f"{archive}: the recordings of {speaker} are not the published ones. "
                "Remove it and fetch it again."
            )


def _is_archive(path: Path) -> None:
    """Complete, with every entry's own checksum right; whose recordings they are is seen when read."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        raise DataCorrupt(f"{path.name} is not a zip archive. Fetch it again.") from error
    if broken is not None:
        raise DataCorrupt(f"{path.name}: {broken} is damaged. Fetch it again.")
