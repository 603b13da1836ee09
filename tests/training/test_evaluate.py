from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from app.bundle.manifest import MODALITIES
from training.checkpoint import Checkpoint
from training.data.dataset import Dataset, FixedRows, Rows, Split
from training.evaluate import Evaluation, evaluate
from training.fit.loop import History
from training.measure.robustness import AUDIO_SNR_DB, IMAGE_NOISE, TEXT_DAMAGE
from training.progress import silent
from training.recipe import Recipe
from training.run import Trained, evaluation_rows

ROWS = 30
LEVELS = {"image": len(IMAGE_NOISE), "text": len(TEXT_DAMAGE), "audio": len(AUDIO_SNR_DB)}


@pytest.fixture(scope="module")
def few(dataset: Dataset) -> Rows:
    """Far fewer rows than there are items."""
    return evaluation_rows(dataset.test).take(np.arange(ROWS))


def evaluated(checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset, test: Split) -> Evaluation:
    fields = (checkpoint.model, checkpoint.tokenizer_json, checkpoint.calibrated)
    trained = Trained(*fields, History(), checkpoint.run, 0.0)
    plain = replace(recipe, strangers=None, degradation=None)
    _, found = evaluate(trained, plain, replace(dataset, test=test), seed=0, stage=silent)
    return found


def test_curves_encode_the_items_of_their_rows_and_no_others(
    checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset, few: Rows
) -> None:
    seen = dict.fromkeys(MODALITIES, 0)

    def counting(name: str) -> object:
        def count(_: nn.Module, inputs: tuple[object, ...], __: object) -> None:
            seen[name] += len(inputs[0])  # type: ignore[arg-type,index]

        return count

    hooks = [
        checkpoint.model.encoder(name).register_forward_hook(counting(name))  # type: ignore[arg-type]
        for name in MODALITIES
    ]
    evaluated(checkpoint, recipe, dataset, Split(dataset.test.items, FixedRows(few)))
    for hook in hooks:
        hook.remove()
    counts = dataset.test.items.counts
    assert min(counts.values()) > 2 * ROWS
    distinct = {name: len(np.unique(few.items[:, at])) for at, name in enumerate(MODALITIES)}
    assert seen == {name: counts[name] + LEVELS[name] * distinct[name] for name in MODALITIES}


def test_items_of_other_rows_change_no_curve(
    checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset, few: Rows
) -> None:
    among = evaluated(checkpoint, recipe, dataset, Split(dataset.test.items, FixedRows(few)))
    used = [np.unique(few.items[:, at]) for at in range(len(MODALITIES))]
    items = dataset.test.items
    assert items.images is not None
    assert items.texts is not None
    assert items.clips is not None
    own = replace(
        items,
        images=items.images.take(used[0]),
        texts=items.texts.take(used[1]),
        clips=items.clips.take(used[2]),
    )
    numbers = np.stack([np.searchsorted(used[at], few.items[:, at]) for at in range(3)], axis=1)
    alone = evaluated(checkpoint, recipe, dataset, Split(own, FixedRows(replace(few, items=numbers))))
    assert alone.curves == among.curves
