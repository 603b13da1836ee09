"""A plain FastAPI service over the same bundle, as FastAPI's documentation writes one: for comparison only.

`UploadFile` and `Form` parameters, a plain `def` route that FastAPI runs in its thread pool, models opened
once in the lifespan. Same graphs, same decoders, one request at a time through them. Started by
`python -m benchmarks.plain` with uvicorn and two workers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, HTTPException, UploadFile
from pydantic import BaseModel

from app.bundle.errors import InputError
from app.bundle.folder import read_bundle
from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from app.runtime.session import Device

_loaded: dict[str, Predictor] = {}


class Prediction(BaseModel):
    label: str
    probability: float


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    bundle = read_bundle(Path(os.environ["PLAIN_BUNDLE"]))  # noqa: TID251 - uvicorn's workers get nothing else
    _loaded["model"] = Predictor.open(bundle, device=Device("cpu"), threads=1)
    yield
    _loaded.clear()


app = FastAPI(lifespan=lifespan)


@app.get("/readyz")
def readyz() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/v1/predict")
def predict(
    image: UploadFile | None = None,
    audio: UploadFile | None = None,
    text: Annotated[str | None, Form()] = None,
) -> Prediction:
    raw = RawInputs(
        image=image.file.read() if image else None,
        text=text.encode() if text is not None else None,
        audio=audio.file.read() if audio else None,
    )
    try:
        prediction = _loaded["model"].predict(raw)
    except InputError as error:
        raise HTTPException(422, error.message) from error
    return Prediction(label=prediction.best.label, probability=prediction.best.probability)
