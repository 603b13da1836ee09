"""Bytes to samples: our WAV reader against libsndfile, compressed formats, and headers that lie."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bundle.decode import Waveform, decode_audio
from app.bundle.errors import AudioTooLong, InputError, InvalidAudio, PartTooLarge, UnsupportedMedia
from app.bundle.manifest import AudioInput
from app.bundle.prepare import prepare_audio
from tests import tiny

AUDIO = tiny.inputs().audio
assert isinstance(AUDIO, AudioInput)

SOUND = 0.6 * np.sin(np.arange(1600) / 7, dtype=np.float64)


def written(samples: np.ndarray, *, rate_hz: int = 8000, **kind: str) -> bytes:
    body = io.BytesIO()
    soundfile.write(body, samples, rate_hz, **kind)
    return body.getvalue()


def header(
    *,
    tag: int = 1,
    channels: int = 1,
    rate_hz: int = 8000,
    bits: int = 16,
    data: bytes = bytes(64),
    **lies: int,
) -> bytes:
    """A WAV file field by field; `lies` override `data_size` and `block_align`."""
    block = lies.get("block_align", channels * bits // 8)
    form = struct.pack("<IHHIIHH", 16, tag, channels, rate_hz, rate_hz * block % 2**32, block, bits)
    size = lies.get("data_size", len(data))
    return b"RIFF" + struct.pack("<I", 0) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size) + data


@given(
    subtype=st.sampled_from(["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]),
    container=st.sampled_from(["WAV", "WAVEX"]),
    channels=st.integers(1, 8),
    frames=st.integers(1, 300),
    rate_hz=st.sampled_from([4000, 8000, 44_100, 192_000]),
    seed=st.integers(0, 2**31),
)
def test_wav_reads_as_libsndfile_reads_it(
    subtype: str, container: str, channels: int, frames: int, rate_hz: int, seed: int
) -> None:
    samples = np.random.default_rng(seed).uniform(-0.99, 0.99, (frames, channels))
    body = written(samples, rate_hz=rate_hz, subtype=subtype, format=container)
    theirs, _ = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=True)
    ours = decode_audio(body, AUDIO)
    assert ours.rate_hz == rate_hz
    np.testing.assert_allclose(ours.samples, theirs, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_a_compressed_recording_is_mixed_as_a_plain_one(channels: int) -> None:
    """To the bit, and over more than one block."""
    samples = np.random.default_rng(channels).uniform(-0.2, 0.2, (70_000, channels))
    body = written(samples, format="FLAC")
    theirs, rate_hz = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=True)
    wave = decode_audio(body, AUDIO)
    assert wave.samples.shape == (70_000, 1)
    plain = prepare_audio(Waveform(np.clip(theirs, -1, 1), rate_hz), AUDIO)
    np.testing.assert_array_equal(prepare_audio(wave, AUDIO), plain)


def test_many_channels_of_silence_cost_the_memory_of_one() -> None:
    silence = np.zeros((192_000, 8), np.int16)
    body = written(silence, rate_hz=192_000, format="FLAC")
    decode_audio(body, AUDIO)  # what is loaded at first use is not what is measured
    tracemalloc.start()
    try:
        wave = decode_audio(body, AUDIO)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert wave.samples.nbytes == 4 * 192_000
    assert peak < 2 * silence.nbytes, "as floats alone, all channels have as much"


@pytest.mark.parametrize(("kind", "tolerance"), [("FLAC", 1e-4), ("OGG", 0.1), ("MP3", 0.1)])
def test_compressed_formats_decode(kind: str, tolerance: float) -> None:
    wave = decode_audio(written(SOUND, rate_hz=16_000, format=kind), AUDIO)
    assert wave.rate_hz == 16_000
    assert np.abs(wave.samples[: len(SOUND), 0] - SOUND).max() < tolerance


def test_odd_chunks_before_the_samples_are_skipped() -> None:
    plain = tiny.wav(SOUND)
    noted = plain[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + plain[12:]
    assert np.array_equal(decode_audio(noted, AUDIO).samples, decode_audio(plain, AUDIO).samples)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFF00, 0xFFFFFFFF])
def test_a_streamed_header_without_a_size_means_the_rest(size: int) -> None:
    assert len(decode_audio(header(data_size=size), AUDIO).samples) == 32


def test_notes_behind_no_samples_are_no_samples() -> None:
    note = b"LIST" + struct.pack("<I", 14) + b"INFOISFT\x02\x00\x00\x00\x39\x00"
    odd = b"note" + struct.pack("<I", 3) + b"abc\0"
    for notes in (note, odd, odd + note, note + odd[:-1]):
        with pytest.raises(InvalidAudio, match="no samples"):
            decode_audio(header(data=notes, data_size=0), AUDIO)
    assert len(decode_audio(header(data=note + bytes(2), data_size=0), AUDIO).samples) == 12


def tagged(body: bytes, *, padding: int = 300, footer: bool = False) -> bytes:
    """Behind an ID3 tag."""
    flags = b"\x10" if footer else b"\x00"
    size = bytes([0, 0, padding >> 7, padding & 0x7F])
    return b"ID3\x04\x00" + flags + size + bytes(padding) + (b"3DI" + bytes(7) if footer else b"") + body


@pytest.mark.parametrize("kind", ["FLAC", "MP3"])
@pytest.mark.parametrize("footer", [False, True])
def test_a_tag_in_front_changes_nothing(kind: str, *, footer: bool) -> None:
    body = written(SOUND, rate_hz=16_000, format=kind)
    plain, behind = decode_audio(body, AUDIO), decode_audio(tagged(body, footer=footer), AUDIO)
    assert np.array_equal(plain.samples, behind.samples)


@pytest.mark.parametrize(
    "kind",
    [{"format": "WAV", "subtype": "MS_ADPCM"}, {"format": "WAV", "subtype": "GSM610"}, {"format": "WAV"},
     {"format": "AIFF"}, {"format": "AU"}],
    ids=lambda kind: "-".join(kind.values()),
)  # fmt: skip
def test_a_tag_in_front_hides_no_other_format(kind: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        decode_audio(tagged(written(SOUND, **kind)), AUDIO)
    assert caught.value.__cause__ is None, "it never came to a decoder"


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_half_a_recording_is_refused(kind: str) -> None:
    body = written(np.tile(SOUND, 10), rate_hz=16_000, format=kind)
    with pytest.raises(InvalidAudio):
        decode_audio(body[: len(body) // 2], AUDIO)


def test_an_mp3_without_a_count_is_as_long_as_it_is() -> None:
    """Its length is guessed from its first frame, which says nothing about the others."""
    samples = np.concatenate([np.zeros(16_000), np.random.default_rng(1).uniform(-0.9, 0.9, 16_000)])
    body = io.BytesIO()
    with soundfile.SoundFile(
        body, "w", 16_000, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5
    ) as sound:
        sound.write(samples)
    whole = body.getvalue()
    first = whole.index(b"\xff\xf3", 4)  # behind the frame that counts
    assert b"Xing" in whole[:first] or b"Info" in whole[:first]
    with soundfile.SoundFile(io.BytesIO(whole[first:])) as guessed:
        assert guessed.frames > 2 * len(samples)
    assert len(decode_audio(whole[first:], AUDIO).samples) == pytest.approx(len(samples), rel=0.1)


def test_a_flac_that_does_not_say_how_long_it_is_is_told_so() -> None:
    body = bytearray(written(SOUND, format="FLAC"))
    body[21] &= 0xF0  # the last bits of STREAMINFO before its checksum: how many samples there are
    body[22:26] = bytes(4)
    with pytest.raises(InvalidAudio, match="does not say how long it is"):
        decode_audio(bytes(body), AUDIO)


def test_samples_beyond_full_scale_are_clipped() -> None:
    data = np.array([2, -3, 0.5], "<f4").tobytes()
    assert decode_audio(header(tag=3, bits=32, data=data), AUDIO).samples[:, 0].tolist() == [1, -1, 0.5]


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"", InvalidAudio, "empty"),
        (b"RIFF\0\0\0\0WAVE", InvalidAudio, "no samples"),
        (header(data=b""), InvalidAudio, "no samples"),
        (header(data=b"x"), InvalidAudio, "no samples"),
        (header(data_size=65), InvalidAudio, "ends before"),
        (header(rate_hz=0), InvalidAudio, "sample rate"),
        (header(rate_hz=2**31 - 1), InvalidAudio, "sample rate"),
        (header(channels=0), InvalidAudio, "contradicts"),
        (header(channels=9), InvalidAudio, "channels"),
        (header(channels=1024), InvalidAudio, "channels"),
        (header(block_align=3), InvalidAudio, "contradicts"),
        (header(tag=2), UnsupportedMedia, "encoding"),
        (header(tag=0x11), UnsupportedMedia, "encoding"),
        (header(bits=12), UnsupportedMedia, "encoding"),
        (header(tag=3, bits=16), UnsupportedMedia, "encoding"),
        (header(tag=3, bits=32, data=struct.pack("<f", float("nan"))), InvalidAudio, "not numbers"),
        (header(tag=3, bits=64, data=struct.pack("<d", 1e300)), InvalidAudio, "not numbers"),
        (b"FORM\0\0\0\0AIFF", UnsupportedMedia, "not WAV"),
        (b"caff" + bytes(40), UnsupportedMedia, "not WAV"),
        (b"hello, hello", UnsupportedMedia, "not WAV"),
        (b"fLaC" + bytes(40), InvalidAudio, "cannot be decoded"),
        (b"OggS" + bytes(40), InvalidAudio, "cannot be decoded"),
    ],
)
def test_bad_recordings_say_what_is_wrong(body: bytes, error: type[InputError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        decode_audio(body, AUDIO)
    assert caught.value.part == "audio"


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_too_long_is_refused_from_the_header(kind: str) -> None:
    body = written(np.zeros(11 * 8000), format=kind)
    with pytest.raises(AudioTooLong, match="10 s"):
        decode_audio(body, AUDIO)


def test_a_bomb_of_silence_costs_no_memory() -> None:
    """An hour of zeros is small as FLAC and 115 MB as samples."""
    body = written(np.zeros(3600 * 8000, np.int16), format="FLAC")
    with pytest.raises(AudioTooLong):
        decode_audio(body, AUDIO.model_copy(update={"max_bytes": 2**24}))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(PartTooLarge):
        decode_audio(b"RIFF" + bytes(AUDIO.max_bytes), AUDIO)


@settings(max_examples=300)
@given(
    cut=st.integers(0, 300),
    position=st.integers(0, 2**16),
    flip=st.integers(0, 255),
    kind=st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]),
)
def test_broken_recordings_raise_our_errors_only(cut: int, position: int, flip: int, kind: str) -> None:
    body = bytearray(written(SOUND, rate_hz=16_000, format=kind))
    body[position % len(body)] ^= flip
    try:
        wave = decode_audio(bytes(body[: len(body) - cut]), AUDIO)
    except InputError as error:
        assert "0x" not in error.message
    else:
        assert np.isfinite(wave.samples).all()
        assert np.abs(wave.samples).max() <= 1
