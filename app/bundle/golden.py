"""Golden cases: inputs as raw bytes and the answers that this very bundle gave when it was exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.bundle.errors import BundleCorrupt
from app.bundle.manifest import FilePath, Manifest
from app.bundle.sample import RawInputs

# Graph optimisations and thread counts differ between machines; a wrong resize or spectrogram moves
# probabilities by a hundred times as much.
TOLERANCE: Final = 1e-4


class GoldenCase(BaseModel):
    """One row. A modality without a file is absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)]
    image: FilePath | None = None
    text: FilePath | None = None
    audio: FilePath | None = None
    probabilities: tuple[float, ...] = Field(description="Of all labels, in the manifest's order.")
    logits: tuple[float, ...] | None = Field(None, description="Likewise; `trichord verify` compares them.")

    def raw(self, files: Mapping[str, bytes]) -> RawInputs:
        return RawInputs(
            image=files[self.image] if self.image else None,
            text=files[self.text] if self.text else None,
            audio=files[self.audio] if self.audio else None,
        )


_CASES = TypeAdapter(tuple[GoldenCase, ...])


def dump_golden(cases: tuple[GoldenCase, ...]) -> bytes:
    return _CASES.dump_json(cases, indent=1, exclude_none=True)


def load_golden(manifest: Manifest, files: Mapping[str, bytes]) -> tuple[GoldenCase, ...]:
    """Raises BundleCorrupt: unreadable, empty, or about files and labels that the bundle has not."""
    file = manifest.golden
    try:
        cases = _CASES.validate_json(files[file])
    except ValidationError as error:
        raise BundleCorrupt(
            "it is not a list of golden cases. Export the bundle again.", file=file
        ) from error
    if not cases:
        raise BundleCorrupt("it lists no golden case, so nothing can be verified.", file=file)
    for case in cases:
        named = [path for path in (case.image, case.text, case.audio) if path]
        answers = (case.probabilities, case.probabilities if case.logits is None else case.logits)
        is_of_all_labels = all(len(numbers) == len(manifest.labels) for numbers in answers)
        if not named or not files.keys() >= set(named) or not is_of_all_labels:
            raise BundleCorrupt(f"case '{case.name}' does not fit the bundle. Export it again.", file=file)
    return cases
