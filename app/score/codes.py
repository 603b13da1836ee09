"""What an engine in this process calls an error of a row: the same as the server, see docs/http.md."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from app.bundle import errors as bundle

INPUT_CODES: Final[Mapping[type[bundle.InputError], str]] = MappingProxyType(
    {
        bundle.NoModality: "no_modality",
        bundle.UnreadModality: "invalid_parameter",
        bundle.UnsupportedMedia: "unsupported_media_type",
        bundle.PartTooLarge: "part_too_large",
        bundle.ImageTooLarge: "image_too_large",
        bundle.AudioTooLong: "audio_too_long",
        bundle.TextTooLong: "text_too_long",
        bundle.InvalidImage: "invalid_image",
        bundle.InvalidAudio: "invalid_audio",
        bundle.InvalidText: "invalid_text",
    }
)
