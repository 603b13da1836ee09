"""Run one bundle: encoders on the rows that have the modality, then fusion on all rows."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.bundle.folder import Bundle
from app.bundle.interpret import Prediction, RowOutputs, interpret
from app.bundle.manifest import Modality
from app.bundle.prepare import Preparer
from app.bundle.sample import Batch, RawInputs, Sample, collate
from app.runtime.errors import GraphInvalid, NonFiniteOutput
from app.runtime.session import Device, Session, open_session

_OUTPUTS = ("logits", "probabilities", "embedding", "modality_probabilities")


class Predictor:
    """A bundle on a device. `run` is for one thread at a time; `prepare` for any number."""

    def __init__(
        self, bundle: Bundle, *, encoders: dict[Modality, Session], fusion: Session, device: Device
    ) -> None:
        self.manifest = bundle.manifest
        self.device = device
        self.prepare = Preparer(bundle.manifest.inputs, bundle.files)
        self._encoders = encoders
        self._fusion = fusion

    @classmethod
    def open(cls, bundle: Bundle, *, device: Device, threads: int) -> Self:
        """Load the graphs of a verified bundle. Raises GraphInvalid or DeviceUnavailable."""

        def session(path: str) -> Session:
            return open_session(bundle.files[path], name=path, device=device, threads=threads)

        inputs = bundle.manifest.inputs
        encoders = {name: session(inputs.encoder(name).encoder) for name in inputs.names}
        return cls(bundle, encoders=encoders, fusion=session(bundle.manifest.fusion.graph), device=device)

    def run(self, samples: list[Sample]) -> list[RowOutputs]:
        """Outputs row by row, in order. Each modality costs only the rows that bring it."""
        batch = collate(samples, self.manifest.inputs)
        fused = self._fusion.run({**self._encode(batch), "present": batch.present})
        rows = zip(*(fused[name] for name in _OUTPUTS), strict=True)
        outputs = [RowOutputs(*row) for row in rows]
        if len(outputs) != len(samples):
            raise GraphInvalid(
                f"{self.manifest.fusion.graph}: {len(samples)} rows went in, {len(outputs)} came out."
            )
        return outputs

    def predict(self, raw: RawInputs, *, top_k: int | None = None) -> Prediction:
        """All four steps for one row. Raises InputError or NonFiniteOutput."""
        sample = self.prepare(raw)
        [outputs] = self.run([sample])
        return self.interpret(outputs, sample, top_k=top_k or len(self.manifest.labels))

    def interpret(self, outputs: RowOutputs, sample: Sample, *, top_k: int) -> Prediction:
        if not outputs.is_finite:
            raise NonFiniteOutput
        return interpret(outputs, sample.present, self.manifest, top_k=top_k)

    def _encode(self, batch: Batch) -> dict[str, NDArray[np.float32]]:
        """Features of every modality for every row: zeros, which fusion masks, where a row has none."""
        features: dict[str, NDArray[np.float32]] = {}
        for modality in self.manifest.inputs.names:
            width = self.manifest.inputs.encoder(modality).features
            if modality not in batch.rows:
                features[f"{modality}_features"] = np.zeros((batch.size, width), np.float32)
                continue
            encoded = (
                self._encoders[modality].run(batch.encoder_inputs[modality])["features"].astype(np.float32)
            )
            if len(batch.rows[modality]) < batch.size:
                spread = np.zeros((batch.size, width), np.float32)
                spread[batch.rows[modality]] = encoded
                encoded = spread
            features[f"{modality}_features"] = encoded
        return features
