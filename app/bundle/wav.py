"""A bounded reader of WAV: PCM of 8, 16, 24 and 32 bits and IEEE float of 32 and 64.

Sizes come from the bytes at hand, never from what the header claims. Compressed WAV (ADPCM, GSM, …) is
refused: a C library's decoders for those have overflowed while merely opening a file (CVE-2026-37555).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.bundle.errors import InvalidAudio, UnsupportedMedia

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # after the tag, the same in every GUID
_STREAMED_FROM = 0x7FFF0000  # a writer that could not seek back leaves 0 or about 2 or 4 GiB as data size
_MAX_CHUNKS = 64  # real files have under ten; a header of thousands is an attack on patience


@dataclass(frozen=True, slots=True)
class WavFormat:
    """What the `fmt ` chunk says, checked against itself."""

    is_float: bool
    bits: int
    channels: int
    rate_hz: int

    @property
    def frame_bytes(self) -> int:
        return self.bits // 8 * self.channels


@dataclass(frozen=True, slots=True)
class Wav:
    """A parsed header and the sample bytes that belong to it; nothing is decoded yet."""

    format: WavFormat
    data: memoryview

    @property
    def frames(self) -> int:
        return len(self.data) // self.format.frame_bytes

    def samples(self) -> NDArray[np.float32]:
        """Decode to float32 [frames, channels]; integers scale to -1..1."""
        whole = self.data[: self.frames * self.format.frame_bytes]
        return _DECODERS[self.format.is_float, self.format.bits](whole).reshape(-1, self.format.channels)


def is_wav(body: bytes) -> bool:
    return body[:4] == b"RIFF" and body[8:12] == b"WAVE"


def parse_wav(body: bytes) -> Wav:
    """Find format and samples.

    Raises InvalidAudio (broken or cut short) or UnsupportedMedia (an encoding that is not read here).
    """
    view = memoryview(body)
    form: WavFormat | None = None
    offset = 12
    for _ in range(_MAX_CHUNKS):
        if offset + 8 > len(view):
            break
        name, size = struct.unpack_from("<4sI", view, offset)
        offset += 8
        if name == b"fmt ":
            form = _parse_format(bytes(view[offset : offset + min(size, 40)]))
        elif name == b"data":
            return _parse_data(view[offset:], size, form)
        offset += size + size % 2  # chunks are padded to even length
    raise InvalidAudio("The WAV file has no samples. Send a complete recording.", part="audio")


def _parse_data(rest: memoryview, size: int, form: WavFormat | None) -> Wav:
    if form is None:
        raise InvalidAudio(
            "The WAV header does not say how samples are stored. Send a complete recording.",
            part="audio",
        )
    is_streamed = size >= _STREAMED_FROM or (size == 0 and not _is_chunks(rest))
    if size > len(rest) and not is_streamed:
        raise InvalidAudio(
            "The WAV file ends before its header says. Send the complete recording.", part="audio"
        )
    return Wav(format=form, data=rest if is_streamed else rest[:size])


def _is_chunks(rest: memoryview) -> bool:
    """Whether this is notes behind no samples: whole chunks with names in letters, up to the end."""
    offset = 0
    for _ in range(_MAX_CHUNKS):
        if offset + 8 > len(rest):
            break
        name, size = struct.unpack_from("<4sI", rest, offset)
        if not (name.isascii() and name.decode().isprintable()):
            break
        offset += 8 + size
        if offset in (len(rest), len(rest) - size % 2):
            return True
        offset += size % 2
    return False


def _parse_format(chunk: bytes) -> WavFormat:
    if len(chunk) < 16:
        raise InvalidAudio("The WAV format header is cut short. Send a complete recording.", part="audio")
    tag, channels, rate_hz, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _SUBFORMAT_TAIL:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    if tag not in (_PCM, _FLOAT) or (tag == _FLOAT, bits) not in _DECODERS:
        raise UnsupportedMedia(
            "This WAV encoding is not read. Send PCM of 8, 16, 24 or 32 bits or float samples.",
            part="audio",
        )
    form = WavFormat(is_float=tag == _FLOAT, bits=bits, channels=channels, rate_hz=rate_hz)
    if channels == 0 or frame_bytes != form.frame_bytes:
        raise InvalidAudio("The WAV format header contradicts itself. Send a valid recording.", part="audio")
    return form


def _unsigned_8(data: memoryview) -> NDArray[np.float32]:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)


def _signed_16(data: memoryview) -> NDArray[np.float32]:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)


def _signed_24(data: memoryview) -> NDArray[np.float32]:
    words = np.zeros((len(data) // 3, 4), np.uint8)  # three bytes on top of a zero: the sign comes for free
    words[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return words.view("<i4").ravel().astype(np.float32) / np.float32(2**31)


def _signed_32(data: memoryview) -> NDArray[np.float32]:
    return (np.frombuffer(data, "<i4").astype(np.float64) / 2**31).astype(np.float32)


def _float_32(data: memoryview) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _float_64(data: memoryview) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and infinite samples are refused
        return np.frombuffer(data, "<f8").astype(np.float32)


_DECODERS = {
    (False, 8): _unsigned_8,
    (False, 16): _signed_16,
    (False, 24): _signed_24,
    (False, 32): _signed_32,
    (True, 32): _float_32,
    (True, 64): _float_64,
}
