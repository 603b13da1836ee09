"""Run one bundle: encoders on the rows that have the modality, then fusion on all rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.bundle.budget import Hold, unbounded
from app.bundle.folder import Bundle
from app.bundle.interpret import Prediction, RowOutputs, interpret
from app.bundle.manifest import Modality, subset_name, subsets
from app.bundle.prepare import Preparer
from app.bundle.sample import Arrays, EncoderRun, RawInputs, Sample, collate
from app.runtime.errors import GraphInvalid, NonFiniteOutput
from app.runtime.session import Device, Session, open_session

_OUTPUTS = ("logits", "probabilities", "embedding", "modality_probabilities")
_SET = "prediction_set"  # of a bundle with conformal sets


@dataclass(frozen=True, slots=True)
class PartRun:
    """One run of one graph: what it was given and what it took."""

    part: str  # a modality's encoder by its name, or "fusion"
    rows: int
    length: int  # of each padded row: tokens, samples, 1
    padding: int  # elements that no row brought
    seconds: float


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch's outputs row by row, in order, and the runs that gave them."""

    rows: list[RowOutputs]
    parts: tuple[PartRun, ...]


@dataclass(frozen=True, slots=True)
class _Less:
    """A row of the batch, asked once more with fewer of its modalities."""

    row: int
    subset: str


class Predictor:
    """A bundle on a device. `execute` is for one thread at a time; `prepare` for any number."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        encoders: dict[Modality, Session],
        fusion: Session,
        device: Device,
        hold: Hold = unbounded,
    ) -> None:
        self.manifest = bundle.manifest
        self.device = device
        self.prepare = Preparer(bundle.manifest.inputs, bundle.files, hold=hold)
        self._encoders = encoders
        self._fusion = fusion

    @classmethod
    def open(cls, bundle: Bundle, *, device: Device, threads: int, hold: Hold = unbounded) -> Self:
        """Load the graphs of a verified bundle; `hold` bounds the pixels decoded at once.

        Raises GraphInvalid or DeviceUnavailable.
        """

        def session(path: str) -> Session:
            return open_session(bundle.files[path], name=path, device=device, threads=threads)

        inputs = bundle.manifest.inputs
        encoders = {name: session(inputs.encoder(name).encoder) for name in inputs.names}
        fusion = session(bundle.manifest.fusion.graph)
        return cls(bundle, encoders=encoders, fusion=fusion, device=device, hold=hold)

    def execute(self, samples: list[Sample]) -> Ran:
        """Each modality costs only the rows that bring it, and those of like length run together.

        For rows that are explained the fusion is asked again, in the same run, of fewer modalities.
        """
        batch = collate(samples, self.manifest.inputs)
        features = self._features(samples)
        parts = [self._encode(run, features) for run in batch.runs]
        again = list(_less(samples))
        started_s = time.perf_counter()
        fused = self._fusion.run(self._questions(features, batch.present, again))
        fusion_s = time.perf_counter() - started_s
        asked = batch.size + len(again)
        parts.append(PartRun("fusion", rows=asked, length=1, padding=0, seconds=fusion_s))
        self._check(fused, asked)
        encoded = list(zip(*features.values(), strict=True))
        rows = self._rows({name: values[: batch.size] for name, values in fused.items()}, encoded)
        return Ran(_explained(rows, samples, again, fused["probabilities"]), tuple(parts))

    def run(self, samples: list[Sample]) -> list[RowOutputs]:
        """Outputs row by row, in order."""
        return self.execute(samples).rows

    def predict(self, raw: RawInputs, *, top_k: int | None = None) -> Prediction:
        """All four steps for one row. Raises InputError or NonFiniteOutput."""
        sample = self.prepare(raw)
        [outputs] = self.run([sample])
        return self.interpret(outputs, sample, top_k=top_k or len(self.manifest.labels))

    def interpret(self, outputs: RowOutputs, sample: Sample, *, top_k: int) -> Prediction:
        if not outputs.is_finite:
            raise NonFiniteOutput
        return interpret(outputs, sample.present, self.manifest, top_k=top_k)

    def _features(self, samples: list[Sample]) -> dict[Modality, NDArray[np.float32]]:
        """For every row and modality: what came with the row, else zeros, which fusion masks."""
        inputs = self.manifest.inputs
        features = {
            name: np.zeros((len(samples), inputs.encoder(name).features), np.float32) for name in inputs.names
        }
        for row, sample in enumerate(samples):
            for name, vector in sample.features.items():
                features[name][row] = vector
        return features

    def _questions(
        self, features: dict[Modality, NDArray[np.float32]], present: NDArray[np.bool_], again: list[_Less]
    ) -> Arrays:
        """What the fusion graph reads: the rows as they came, and below them those that are asked again."""
        if again:
            names = self.manifest.inputs.names
            masks = [[name in one.subset.split("+") for name in names] for one in again]
            present = np.concatenate([present, masks])
            rows = [*range(len(present) - len(again)), *(one.row for one in again)]
            features = {name: vectors[rows] for name, vectors in features.items()}
        return {f"{name}_features": vectors for name, vectors in features.items()} | {"present": present}

    @property
    def _outputs(self) -> tuple[str, ...]:
        has_sets = self.manifest.calibration.conformal is not None
        return (*_OUTPUTS, _SET) if has_sets else _OUTPUTS

    def _check(self, fused: Arrays, rows: int) -> None:
        """Raises GraphInvalid."""
        names, graph = self._outputs, self.manifest.fusion.graph
        lost = [name for name in names if name not in fused]
        if lost:
            raise GraphInvalid(
                f"{graph}: the graph has no output '{lost[0]}', which the manifest promises. "
                "Export the bundle again."
            )
        if _SET in names and fused[_SET].dtype != np.bool_:
            raise GraphInvalid(f"{graph}: the output '{_SET}' is not bool. Export the bundle again.")
        labels = len(self.manifest.labels)
        shapes = {
            "logits": (rows, labels),
            "probabilities": (rows, labels),
            "embedding": (rows, self.manifest.fusion.embedding),
            "modality_probabilities": (rows, len(self.manifest.inputs.names), labels),
            _SET: (rows, labels),
        }
        for name in names:
            _check_shape(fused[name], shapes[name], output=name, graph=graph)

    def _rows(self, fused: Arrays, encoded: list[tuple[NDArray[np.float32], ...]]) -> list[RowOutputs]:
        """What the fusion graph put out, row by row, each with its features."""
        sets = fused[_SET] if _SET in self._outputs else (None,) * len(encoded)
        each = zip(*(fused[name] for name in _OUTPUTS), encoded, sets, strict=True)
        return [RowOutputs(*row) for row in each]

    def _encode(self, run: EncoderRun, features: dict[Modality, NDArray[np.float32]]) -> PartRun:
        """Write the run's features into the rows that brought its modality."""
        started_s = time.perf_counter()
        ran = self._encoders[run.modality].run(run.inputs)
        seconds = time.perf_counter() - started_s
        encoder = self.manifest.inputs.encoder(run.modality)
        if "features" not in ran:
            raise GraphInvalid(f"{encoder.encoder}: the graph has no output 'features'. Export it again.")
        encoded = ran["features"]
        _check_shape(encoded, (len(run.rows), encoder.features), output="features", graph=encoder.encoder)
        features[run.modality][run.rows] = encoded
        return PartRun(run.modality, len(run.rows), run.length, run.padding, seconds)


def _check_shape(values: NDArray[np.generic], shape: tuple[int, ...], *, output: str, graph: str) -> None:
    if values.shape != shape:
        raise GraphInvalid(
            f"{graph}: the output '{output}' has the shape {list(values.shape)}, and the manifest says "
            f"{list(shape)}. Export the bundle again."
        )


def _less(samples: list[Sample]) -> Iterator[_Less]:
    """Of each explained row, every non-empty subset of its modalities but the whole."""
    for row, sample in enumerate(samples):
        if sample.is_explained:
            yield from (_Less(row, subset) for subset in subsets(sample.present)[:-1])


def _explained(
    rows: list[RowOutputs], samples: list[Sample], again: list[_Less], probabilities: NDArray[np.generic]
) -> list[RowOutputs]:
    """The rows, each explained one with its answers by subset, the whole one last."""
    by_row: dict[int, dict[str, NDArray[np.float32]]] = {
        row: {} for row, sample in enumerate(samples) if sample.is_explained
    }
    for one, said in zip(again, probabilities[len(rows) :], strict=True):
        by_row[one.row][one.subset] = said
    for row, by_subset in by_row.items():
        by_subset[subset_name(samples[row].present)] = rows[row].probabilities
        rows[row] = replace(rows[row], by_subset=by_subset)
    return rows
