"""A model whose encoders are exported graphs: measured and calibrated as any other, by the same code."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from app.bundle.manifest import Inputs
from app.runtime.session import Device, Session, open_session
from training.encoders.contract import Encoded, Encoder
from training.export.precision import INPUTS
from training.model import Model

_CPU: Final = Device("cpu")


class GraphEncoder(Encoder):
    """Runs by the class that the server runs graphs with. Has no parameters and no gradient."""

    def __init__(self, session: Session, names: tuple[str, ...], *, width: int, tokens: int) -> None:
        super().__init__(width=width, tokens=tokens)
        self._session, self._names = session, names

    def forward(self, *inputs: Tensor) -> Encoded:
        arrays = {name: values.numpy() for name, values in zip(self._names, inputs, strict=True)}
        features = torch.from_numpy(self._session.run(arrays)["features"])
        pooled, rest = features[:, : self.width], features[:, self.width :]
        tokens = rest.reshape(len(features), -1, self.width) if rest.numel() else pooled.unsqueeze(1)
        return Encoded(tokens=tokens, pooled=pooled)


def with_graphs(model: Model, files: Mapping[str, bytes], inputs: Inputs) -> Model:
    """A copy of the model that encodes by a bundle's files. Raises GraphInvalid."""
    changed = copy.deepcopy(model).eval()
    for name in model.names:
        path = inputs.encoder(name).encoder
        session = open_session(files[path], name=path, device=_CPU, threads=1)
        own = model.encoder(name)
        changed.encoders[name] = GraphEncoder(session, INPUTS[name], width=own.width, tokens=own.tokens)
    return changed
