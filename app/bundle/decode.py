"""Raw bytes to pixels, samples and characters. Limits are checked from headers, before anything is decoded.

Formats are an allow-list: JPEG, PNG, WebP; WAV, FLAC, OGG, MP3; UTF-8. Names and content types that a
sender writes beside the bytes are not looked at. Resizing, resampling and tokenizing are in prepare.py.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.bundle.budget import Hold, unbounded
from app.bundle.errors import (
    AudioTooLong,
    ImageTooLarge,
    InvalidAudio,
    InvalidImage,
    InvalidText,
    PartTooLarge,
    TextTooLong,
    UnsupportedMedia,
)
from app.bundle.jpeg import check_scans
from app.bundle.manifest import AudioInput, ImageInput, Modality, TextInput
from app.bundle.wav import is_wav, parse_wav

log = logging.getLogger(__name__)

_MAX_SIDE: Final = 16_384  # a strip of one pixel by a million passes any pixel count
_RATES_HZ: Final = range(4_000, 192_001)
_MAX_CHANNELS: Final = 8
_BLOCK_FRAMES: Final = 65_536  # decoded at a time, so that a lying header costs one block
_UNTOLD_FRAMES: Final = 2**63 - 1  # what libsndfile says where a header does not tell
_LEAST_PART: Final = 0.9  # of the frames that a header promises; encoders count their own delay or do not
_BROKEN_IMAGE: Final = "The image cannot be decoded. Send a complete JPEG, PNG or WebP file."
_BROKEN_AUDIO: Final = "The recording cannot be decoded. Send a complete WAV, FLAC, OGG or MP3 file."


@dataclass(frozen=True, slots=True)
class Waveform:
    """Decoded sound: float32 [frames, channels], finite, in -1..1; of what was compressed, mixed to one."""

    samples: NDArray[np.float32]
    rate_hz: int


def decode_image(body: bytes, spec: ImageInput, *, hold: Hold = unbounded) -> NDArray[np.uint8]:
    """Upright RGB pixels, uint8 [height, width, 3]; the first frame of an animation.

    What is transparent shows the background of `spec`. A large JPEG is decoded at a fraction of its size, at
    least twice what `spec` resizes it to. `hold` is entered with the number of pixels while they are decoded.
    Raises UnsupportedMedia, PartTooLarge, ImageTooLarge or InvalidImage.
    """
    _check_bytes(body, limit=spec.max_bytes, part="image", empty=InvalidImage)
    kind = _image_kind(body)
    if kind is None:
        raise UnsupportedMedia("The image is not JPEG, PNG or WebP. Send one of these.", part="image")
    if kind == "JPEG":
        check_scans(body)
    try:
        with Image.open(BytesIO(body), formats=(kind,)) as image:
            _check_pixels(image.size, spec)
            _shrink_on_load(image, spec)
            with hold(image.width * image.height):
                return np.asarray(_to_rgb(_upright(image), background=spec.background))
    except ImageTooLarge:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _image_too_large(spec) from error
    except Exception as error:  # a decoder may raise anything on hostile bytes; its words stay here
        raise InvalidImage(_BROKEN_IMAGE, part="image") from error


def decode_audio(body: bytes, spec: AudioInput) -> Waveform:
    """Samples at their own rate and channels.

    Raises UnsupportedMedia, PartTooLarge, AudioTooLong or InvalidAudio.
    """
    _check_bytes(body, limit=spec.max_bytes, part="audio", empty=InvalidAudio)
    if is_wav(body):
        wave = _decode_wav(body, spec)
    elif _is_compressed(stream := _behind_tag(body)):
        wave = _decode_compressed(stream, spec)
    else:
        raise UnsupportedMedia("The recording is not WAV, FLAC, OGG or MP3. Send one of these.", part="audio")
    if not len(wave.samples):
        raise InvalidAudio("The recording holds no samples. Send one with sound in it.", part="audio")
    return Waveform(samples=_clipped(wave.samples), rate_hz=wave.rate_hz)


def decode_text(body: bytes, spec: TextInput) -> str:
    """Characters of strict UTF-8, a leading byte order mark removed.

    Raises PartTooLarge, TextTooLong or InvalidText.
    """
    _check_bytes(body, limit=spec.max_bytes, part="text", empty=InvalidText)
    try:
        text = body.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidText("The text is not UTF-8. Encode it as UTF-8.", part="text") from error
    if len(text) > spec.max_characters:
        raise TextTooLong(
            f"The text has {len(text)} characters; this model reads {spec.max_characters} at most. "
            "Shorten it.",
            part="text",
        )
    if "\0" in text:
        raise InvalidText("The text holds a NUL character. Remove it.", part="text")
    if not text.strip():
        raise InvalidText("The text is blank. Write something, or leave the part out.", part="text")
    return text


def _check_bytes(
    body: bytes,
    *,
    limit: int,
    part: Modality,
    empty: type[InvalidImage | InvalidAudio | InvalidText],
) -> None:
    if not body:
        raise empty(f"The {part} part is empty. Send content, or leave the part out.", part=part)
    if len(body) > limit:
        raise PartTooLarge(
            f"The {part} part has {len(body)} bytes; this model reads at most {limit}. Send a smaller one.",
            part=part,
        )


# --- image ------------------------------------------------------------------------------------


def _image_kind(body: bytes) -> str | None:
    if body[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if body[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    return None


def _check_pixels(size: tuple[int, int], spec: ImageInput) -> None:
    if size[0] * size[1] > spec.max_pixels or max(size) > _MAX_SIDE:
        raise _image_too_large(spec)


def _image_too_large(spec: ImageInput) -> ImageTooLarge:
    return ImageTooLarge(
        f"The image has too many pixels; this model reads at most {spec.max_pixels}, "
        f"and {_MAX_SIDE} along one side. Send a smaller one.",
        part="image",
    )


def _shrink_on_load(image: Image.Image, spec: ImageInput) -> None:
    """Let the JPEG decoder drop to 1/2, 1/4 or 1/8 while both sides stay twice what they are resized to."""
    scale = 2 * spec.scale_of(height=image.height, width=image.width)
    if scale < 1:
        image.draft(None, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # broken EXIF says nothing about which way is up; the pixels are fine
        log.debug("an image's EXIF cannot be read")
    return image


def _to_rgb(image: Image.Image, *, background: int) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (background,) * 3)
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


# --- audio ------------------------------------------------------------------------------------


def _decode_wav(body: bytes, spec: AudioInput) -> Waveform:
    wav = parse_wav(body)
    _check_sound(frames=wav.frames, rate_hz=wav.format.rate_hz, channels=wav.format.channels, spec=spec)
    return Waveform(samples=wav.samples(), rate_hz=wav.format.rate_hz)


def _decode_compressed(body: bytes, spec: AudioInput) -> Waveform:
    try:
        with soundfile.SoundFile(BytesIO(body)) as sound:
            if sound.format not in ("FLAC", "OGG", "MP3"):
                raise UnsupportedMedia(
                    "The recording is not WAV, FLAC, OGG or MP3. Send one of these.", part="audio"
                )
            if sound.frames == _UNTOLD_FRAMES:
                raise InvalidAudio(
                    "The recording does not say how long it is. Write it to a file that can be rewound.",
                    part="audio",
                )
            _check_sound(frames=sound.frames, rate_hz=sound.samplerate, channels=sound.channels, spec=spec)
            samples = _read_mixed(sound, spec)
            if len(samples) < _LEAST_PART * sound.frames and _tells_length(sound.format, body):
                raise InvalidAudio(
                    "The recording ends before its header says. Send the complete recording.", part="audio"
                )
            return Waveform(samples=samples, rate_hz=sound.samplerate)
    except (UnsupportedMedia, AudioTooLong, InvalidAudio):
        raise
    except Exception as error:  # a decoder may raise anything on hostile bytes; its words stay here
        raise InvalidAudio(_BROKEN_AUDIO, part="audio") from error


def _read_mixed(sound: soundfile.SoundFile, spec: AudioInput) -> NDArray[np.float32]:
    """float32 [frames, 1]. Mixed block by block: channels of silence are small only while compressed."""
    blocks: list[NDArray[np.float32]] = []
    frames = 0
    while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        _check_seconds(frames, sound.samplerate, spec)
        blocks.append(_clipped(block).mean(axis=1, dtype=np.float32, keepdims=True))
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)


def _clipped(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(samples).all():
        raise InvalidAudio("The recording holds samples that are not numbers. Export it again.", part="audio")
    return np.clip(samples, -1, 1)


def _check_sound(*, frames: int, rate_hz: int, channels: int, spec: AudioInput) -> None:
    if rate_hz not in _RATES_HZ:
        raise InvalidAudio(
            "The sample rate is outside 4,000 to 192,000 Hz. Convert the recording.", part="audio"
        )
    if channels > _MAX_CHANNELS:
        raise InvalidAudio(
            f"The recording has more than {_MAX_CHANNELS} channels. Mix it down.", part="audio"
        )
    _check_seconds(frames, rate_hz, spec)


def _check_seconds(frames: int, rate_hz: int, spec: AudioInput) -> None:
    if frames > spec.max_seconds * rate_hz:
        raise AudioTooLong(
            f"The recording lasts longer than the {spec.max_seconds:g} s that this model reads. "
            "Send a shorter one.",
            part="audio",
        )


def _behind_tag(body: bytes) -> bytes:
    """Without the ID3 tag in front: behind one, the decoder would look for any of its many formats."""
    if body[:3] != b"ID3" or len(body) < 10:
        return body
    size = 0
    for byte in body[6:10]:  # seven bits in each
        size = size << 7 | byte & 0x7F
    has_footer = bool(body[5] & 0x10)
    return body[10 + size + 10 * has_footer :]


def _is_compressed(body: bytes) -> bool:
    return body[:4] in (b"fLaC", b"OggS") or _is_mpeg_frame(body)


def _tells_length(kind: str, body: bytes) -> bool:
    """An MP3 with none of these notes in its first frame does not: its length is guessed from the frame."""
    return kind != "MP3" or any(note in body[:64] for note in (b"Xing", b"Info", b"VBRI"))


def _is_mpeg_frame(body: bytes) -> bool:
    return len(body) > 1 and body[0] == 0xFF and body[1] & 0xE0 == 0xE0
