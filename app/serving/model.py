"""A live model: one bundle, open on its device, and what its runs cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from app.bundle.manifest import Manifest, Modality
from app.bundle.sample import RawInputs, Sample
from app.runtime.predictor import Predictor, Ran
from app.serving.cost import CostModel

_WARM_UP_ROUNDS = 3  # the first pays for allocations, and is forgotten


class LiveModel:
    """What the batcher runs rows by. Rows of one live model share batches, so an answer has one version."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.costs = CostModel()
        self._encodings = {name: self.manifest.encoding_digest(name) for name in self.manifest.inputs.names}

    @property
    def manifest(self) -> Manifest:
        return self.predictor.manifest

    @property
    def device(self) -> str:
        return str(self.predictor.device)

    def execute(self, samples: list[Sample]) -> Ran:
        return self.predictor.execute(samples)

    def encoding_keys(self, raw: RawInputs) -> dict[Modality, bytes]:
        """For each input that the model reads, what its features depend on and nothing else."""
        return {
            name: digest + hashlib.sha256(getattr(raw, name)).digest()
            for name, digest in self._encodings.items()
            if name in raw.present
        }

    def cost_s(self, sample: Sample) -> float:
        """What this row adds to a batch, in seconds."""
        lengths: dict[str, int] = {name: sample.length(name) for name in self.manifest.inputs.names}
        return self.costs.row_s(lengths, fused=sample.answers)

    def warm_up(self, samples: Sequence[Sample]) -> None:
        """Run rows alone and together, so that the first request is not the slow one and costs are known."""
        for round_ in range(_WARM_UP_ROUNDS):
            for batch in ([sample] for sample in samples):
                self._measure(batch, is_counted=round_ > 0)
            self._measure(list(samples) * 2, is_counted=round_ > 0)

    def _measure(self, batch: list[Sample], *, is_counted: bool) -> None:
        started_s = time.perf_counter()
        ran = self.execute(batch)
        if is_counted:
            self.costs.observe(ran.parts, rows=len(batch), total_s=time.perf_counter() - started_s)
