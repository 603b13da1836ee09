"""The contract between training and serving: what `manifest.json` may say.

Every number that decoding, preparing and interpreting need is here; there is no second place for a
size, a rate or a threshold. Scaling, spectrograms and padding masks are not: they are inside the graphs.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from itertools import combinations
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.bundle.errors import ManifestInvalid

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"

Modality = Literal["image", "text", "audio"]
MODALITIES: Final[tuple[Modality, ...]] = ("image", "text", "audio")

_UNSEALED: Final = "0" * 64  # stands for the digest while it is computed

# Plain relative paths only: no dot segment, no hidden file, no character that any system reads oddly.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
FilePath = Annotated[str, Field(pattern=rf"^{_SEGMENT}(/{_SEGMENT}){{0,3}}$")]
BundleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(gt=0)]
Label = Annotated[str, Field(min_length=1, max_length=256)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Task = Literal["classification", "multilabel"]
Level = Literal["feature", "model", "prediction"]
ConformalMethod = Literal["lac", "aps"]
Precision = Literal["float32", "float16", "int8"]
Fit = Literal["crop", "pad", "stretch"]
Resample = Literal["bilinear", "bicubic", "lanczos"]
_EVEN: Final = 0.5  # the threshold of a label that has none of its own
_PRIOR_ROUNDING: Final = 1e-3  # of many float32 shares added up


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Encoder(_Frozen):
    """One modality's graph: prepared arrays in, `features` float32 [rows, features] out."""

    encoder: FilePath
    features: Positive = Field(description="Width of the feature vector that fusion reads.")
    max_bytes: Positive = Field(description="Most bytes that one part may hold.")


class ImageInput(_Encoder):
    """Graph input `image`: uint8 [rows, height, width, 3], RGB, upright."""

    height: Positive
    width: Positive
    fit: Fit = Field(
        default="crop",
        description="How an image of another shape gets this one. crop: its centre, the rest is not seen. "
        "pad: all of it, with 'background' beside it. stretch: all of it, out of proportion.",
    )
    resize: Positive | None = Field(
        default=None, description="For crop: length of the shorter side, in pixels, before the centre is cut."
    )
    resample: Resample = Field(default="bilinear", description="The filter that images are resized with.")
    background: int = Field(
        default=255,
        ge=0,
        le=255,
        description="Grey value beside a padded image, and under a transparent one.",
    )
    max_pixels: Positive = Field(description="Most pixels that an image may have, read from its header.")

    @model_validator(mode="after")
    def _says_how_to_resize(self) -> Self:
        if (self.fit == "crop") is (self.resize is None):
            raise ValueError("'resize' is for the fit 'crop', and needed there")
        if self.resize is not None and max(self.height, self.width) > self.resize:
            raise ValueError("the crop is larger than 'resize'; raise 'resize'")
        return self

    def scale_of(self, *, height: int, width: int) -> float:
        """What the sides of an image of so many pixels are multiplied by, at most."""
        across, down = self.width / width, self.height / height
        match self.fit:
            case "crop":
                assert self.resize is not None, "see the validator"
                return self.resize / min(height, width)
            case "pad":
                return min(across, down)
            case "stretch":
                return max(across, down)


class TextInput(_Encoder):
    """Graph input `text`: int32 [rows, tokens], rows padded at the end with `pad_id`."""

    tokenizer: FilePath
    pad_id: Annotated[int, Field(ge=0)]
    max_tokens: Positive = Field(description="Tokens beyond these are not read; the answer says so.")
    max_characters: Positive


class AudioInput(_Encoder):
    """Graph inputs `audio`: float32 [rows, samples] in -1..1, mono; `audio_length`: int32 [rows], samples."""

    sample_rate: Annotated[int, Field(ge=4_000, le=192_000)]
    min_samples: Positive = Field(description="A shorter recording is padded with silence to these.")
    max_seconds: Annotated[float, Field(gt=0)]


class Inputs(_Frozen):
    """The modalities a bundle reads. Their order, image, text, audio, is the order of the presence mask."""

    image: ImageInput | None = None
    text: TextInput | None = None
    audio: AudioInput | None = None

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if not self.names:
            raise ValueError("a bundle reads at least one modality")
        return self

    @property
    def names(self) -> tuple[Modality, ...]:
        return tuple(name for name in MODALITIES if getattr(self, name) is not None)

    def encoder(self, modality: Modality) -> ImageInput | TextInput | AudioInput:
        spec = getattr(self, modality)
        assert isinstance(spec, ImageInput | TextInput | AudioInput), "asked for a modality not in names"
        return spec


class Fusion(_Frozen):
    """The graph that joins features, and its twin that holds the encoders too.

    Inputs: `<modality>_features` float32 [rows, features] each and `present` bool [rows, modalities].
    Outputs: `logits` and `probabilities` float32 [rows, labels], `embedding` float32 [rows, embedding],
    `modality_probabilities` float32 [rows, modalities, labels], what each modality says on its own; and
    `prediction_set` bool [rows, labels], if the calibration has conformal sets.
    """

    graph: FilePath
    fused: FilePath = Field(description="The same computation from prepared inputs as one graph.")
    method: str = Field(description="How features are joined, by its name in the literature.")
    level: Level | None = Field(None, description="What is joined: features, models' tokens, predictions.")
    embedding: Positive


class Conformal(_Frozen):
    """Sets of labels that hold the right one in a stated share of cases, see conformal.py."""

    level: Annotated[float, Field(gt=0, lt=1)] = Field(description="Share of rows whose set is right.")
    method: ConformalMethod = Field(description="Whose thresholds the fusion graph applies.")
    lac: dict[str, Score] = Field(description="Largest LAC score of a set's labels, for each subset.")
    aps: dict[str, Score] = Field(description="Largest APS score of a set's labels, for each subset.")
    note: str | None = Field(None, description="What the share was counted over, for the model card.")

    @property
    def thresholds(self) -> dict[str, float]:
        """Of the method that is applied, by subset."""
        return self.lac if self.method == "lac" else self.aps


class Calibration(_Frozen):
    """Fitted on validation rows, per subset of modalities, and applied inside the fusion graph.

    Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """

    temperature: dict[str, Temperature] = Field(
        description="Divisor of the logits for each subset, named like 'image+audio'."
    )
    prior: tuple[Share, ...] | None = Field(
        None, description="Share of each label among the rows, in the order of the labels."
    )
    conformal: Conformal | None = None
    thresholds: tuple[Share, ...] | None = Field(
        None, description="For multilabel: the least probability of each label that holds; 0.5 if left out."
    )


class Variant(_Frozen):
    """Which numbers the graphs compute with."""

    precision: Precision
    of: Sha256 | None = Field(None, description="Digest of the bundle that this one was made from.")


class FileRecord(_Frozen):
    sha256: Sha256
    size: Annotated[int, Field(ge=0)] = Field(description="Bytes.")


class Manifest(_Frozen):
    format: Literal[1]
    name: BundleName
    version: Positive
    created: datetime
    task: Task = Field(description="One label a row, or any number of labels, each on its own.")
    labels: Annotated[tuple[Label, ...], Field(min_length=2)]
    inputs: Inputs
    fusion: Fusion
    calibration: Calibration
    variant: Variant | None = None
    golden: FilePath = Field(description="The list of golden cases, see golden.py.")
    training: dict[str, Any] = Field(description="Where the weights come from: recipe, seed, data, versions.")
    metrics: dict[str, Any] = Field(description="What evaluation measured, as the model card prints it.")
    files: dict[FilePath, FileRecord] = Field(description="Every file of the bundle but this one.")
    digest: Sha256 = Field(
        description="Of this file's bytes, with the digest itself read as 64 zeros. It identifies the bundle."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("'labels' names a class twice")
        missing = sorted(self.named_files() - self.files.keys())
        if missing:
            raise ValueError(f"'files' does not list {missing[0]}")
        return self

    @model_validator(mode="after")
    def _calibration_fits(self) -> Self:
        calibration, wanted = self.calibration, set(subsets(self.inputs.names))
        if set(calibration.temperature) != wanted:
            raise ValueError("'calibration' needs one temperature for each subset of the modalities")
        conformal = calibration.conformal
        if conformal is not None and not set(conformal.lac) == set(conformal.aps) == wanted:
            raise ValueError("'calibration.conformal' needs one threshold for each subset of the modalities")
        for name in ("prior", "thresholds"):
            numbers = getattr(calibration, name)
            if numbers is not None and len(numbers) != len(self.labels):
                raise ValueError(f"'calibration.{name}' needs one number for each label")
        return self

    @model_validator(mode="after")
    def _calibration_is_the_tasks(self) -> Self:
        calibration, is_multilabel = self.calibration, self.is_multilabel
        if is_multilabel and calibration.conformal is not None:
            raise ValueError("'calibration.conformal' is for one label a row, not for multilabel")
        if not is_multilabel and calibration.thresholds is not None:
            raise ValueError("'calibration.thresholds' is for multilabel")
        prior = calibration.prior
        if prior is not None and not is_multilabel and abs(sum(prior) - 1) > _PRIOR_ROUNDING:
            raise ValueError("'calibration.prior' does not sum to 1")
        return self

    @property
    def is_multilabel(self) -> bool:
        return self.task == "multilabel"

    @property
    def is_float32(self) -> bool:
        """Else a row's answer may depend, within what its gates allowed, on what it is batched with."""
        return self.variant is None or self.variant.precision == "float32"

    @property
    def label_thresholds(self) -> tuple[float, ...]:
        """For multilabel: the least probability of each label that holds."""
        return self.calibration.thresholds or (_EVEN,) * len(self.labels)

    def encoding_digest(self, modality: Modality) -> bytes:
        """Of the numbers and files that turn a modality's bytes into features.

        Bundles that share an encoder and its preparation share this digest.
        """
        spec = self.inputs.encoder(modality).model_dump(mode="json")
        paths = [name for name in ("encoder", "tokenizer") if name in spec]
        told = spec | {name: self.files[spec[name]].sha256 for name in paths} | {"modality": modality}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()

    def named_files(self) -> set[str]:
        """Paths that the manifest refers to by role."""
        named = {self.fusion.graph, self.fusion.fused, self.golden}
        named |= {self.inputs.encoder(name).encoder for name in self.inputs.names}
        if self.inputs.text is not None:
            named.add(self.inputs.text.tokenizer)
        return named


def subset_name(modalities: tuple[Modality, ...]) -> str:
    """`('image', 'audio')` -> `'image+audio'`."""
    return "+".join(modalities)


def subsets(modalities: tuple[Modality, ...]) -> tuple[str, ...]:
    """Names of all non-empty subsets, smallest first, in mask order."""
    sizes = range(1, len(modalities) + 1)
    return tuple(subset_name(chosen) for size in sizes for chosen in combinations(modalities, size))


def sealed(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`, with the digest that makes any later change of them visible."""
    body = manifest.model_copy(update={"digest": _UNSEALED}).model_dump_json(indent=1).encode()
    return body.replace(_UNSEALED.encode(), hashlib.sha256(body).hexdigest().encode())


def _seal_holds(body: bytes, digest: str) -> bool:
    unsealed = body.replace(digest.encode(), _UNSEALED.encode())
    return hashlib.sha256(unsealed).hexdigest() == digest


def parse_manifest(body: bytes, *, file: str = MANIFEST_FILE) -> Manifest:
    """Read a manifest of this format.

    Raises ManifestInvalid, in one sentence: not JSON, another format, a missing or a wrong entry, or
    bytes that changed after export.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid("it is not JSON. Export the bundle again.", file=file) from error
    if not isinstance(content, dict) or "format" not in content:
        raise ManifestInvalid("it has no 'format' entry. Export the bundle again.", file=file)
    if content["format"] != FORMAT:
        raise ManifestInvalid(
            f"format {content['format']!r} is not the format {FORMAT} that this version of trichord reads. "
            "Update trichord, or export the bundle again.",
            file=file,
        )
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        what = first["msg"].removeprefix("Value error, ").rstrip(".")
        entry = f"entry '{where}': " if where else ""
        raise ManifestInvalid(f"{entry}{what}. Export the bundle again.", file=file) from error
    if not _seal_holds(body, manifest.digest):
        raise ManifestInvalid(
            "its content differs from its digest: it was changed after export. Copy the bundle again.",
            file=file,
        )
    return manifest
