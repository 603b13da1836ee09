"""What can be wrong with an input or with a bundle.

* InputError: the caller must act. Carries the form part it is about and a message that says what to do.
  + NoModality            nothing to predict from
  + UnreadModality        a modality that this model was not made for
  + UnsupportedMedia      bytes of a kind that is never decoded
  + PartTooLarge          more bytes than the bundle reads
  + ImageTooLarge         more pixels
  + AudioTooLong          more seconds
  + TextTooLong           more characters
  + InvalidImage          the right kind, but broken
  + InvalidAudio
  + InvalidText
* BundleError: the operator must act. Carries the file it is about.
  + ManifestInvalid       manifest.json is missing, unreadable, newer than this reader, or contradicts itself
  + BundleCorrupt         a file is missing, changed, extra, or not a plain file

Messages never quote the payload, a decoder's own words or an address: those words end up in answers.
"""

from __future__ import annotations

from typing import ClassVar


class InputError(Exception):
    """Something about one row of inputs that its sender must change.

    `code` is its stable name in answers and dead letters, see docs/http.md.
    """

    code: ClassVar[str]

    def __init__(self, message: str, *, part: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.part = part


class NoModality(InputError):
    """The row carries none of the modalities that the model reads."""

    code = "no_modality"


class UnreadModality(InputError):
    """The row carries a modality that the model does not read."""

    code = "invalid_parameter"


class UnsupportedMedia(InputError):
    """The bytes are of a kind that is not decoded here."""

    code = "unsupported_media_type"


class PartTooLarge(InputError):
    """A part holds more bytes than the model's limit."""

    code = "part_too_large"


class ImageTooLarge(InputError):
    """The image's header announces more pixels than the model's limit."""

    code = "image_too_large"


class AudioTooLong(InputError):
    """The recording lasts longer than the model's limit."""

    code = "audio_too_long"


class TextTooLong(InputError):
    """The text has more characters than the model's limit."""

    code = "text_too_long"


class InvalidImage(InputError):
    """The image announces a supported format but cannot be decoded."""

    code = "invalid_image"


class InvalidAudio(InputError):
    """The recording announces a supported format but cannot be decoded."""

    code = "invalid_audio"


class InvalidText(InputError):
    """The text is not UTF-8, is empty, or holds characters that are not text."""

    code = "invalid_text"


class BundleError(Exception):
    """A bundle on disk that must not be used."""

    def __init__(self, message: str, *, file: str) -> None:
        super().__init__(f"{file}: {message}")
        self.file = file


class ManifestInvalid(BundleError):
    """The manifest cannot be read as a manifest of this format."""


class BundleCorrupt(BundleError):
    """The folder's content differs from what its manifest says."""
