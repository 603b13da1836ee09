from __future__ import annotations

import torch

from training.batch import Batch
from training.fit.draw import Draw
from training.fit.objective import loss_of
from training.fusion.contract import Fused
from training.recipe import Schedule

SCHEDULE = Schedule(epochs=1, batch_size=4, learning_rate=0.1, weight_decay=0.0, auxiliary_weight=0.5)
PRESENT = torch.tensor([[True, False, True], [True, True, True], [False, True, False], [False, False, True]])


def drawn(targets: torch.Tensor, rows: slice = slice(None)) -> Draw:
    weights = torch.ones(len(targets))
    return Draw(
        batch=Batch({}, PRESENT[rows]),
        targets=targets[rows],
        weights=weights[rows],
        rows=float(weights.sum()),
        heard=float(PRESENT.sum()),
    )


def fused(rows: slice = slice(None)) -> Fused:
    generator = torch.Generator().manual_seed(1)
    logits, said = torch.randn(4, 5, generator=generator), torch.randn(4, 3, 5, generator=generator)
    return Fused(logits=logits[rows], embedding=torch.zeros(4, 2)[rows], modality_logits=said[rows])


def test_what_an_absent_modality_says_costs_nothing() -> None:
    draw, said = drawn(torch.tensor([0, 1, 2, 3])), fused()
    before = loss_of(said, draw, SCHEDULE, "classification", auxiliary_alone=False)
    louder = torch.where(PRESENT.unsqueeze(2), said.modality_logits, float("nan"))
    changed = Fused(said.logits, said.embedding, louder)
    assert torch.equal(before, loss_of(changed, draw, SCHEDULE, "classification", auxiliary_alone=False))


def test_shares_of_a_batch_add_up_to_its_loss() -> None:
    targets = torch.tensor([0, 1, 2, 3])
    whole = loss_of(fused(), drawn(targets), SCHEDULE, "classification", auxiliary_alone=False)
    parts = [
        loss_of(fused(rows), drawn(targets, rows), SCHEDULE, "classification", auxiliary_alone=False)
        for rows in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_several_labels_are_judged_one_by_one() -> None:
    targets = (torch.rand(4, 5, generator=torch.Generator().manual_seed(2)) < 0.4).float()
    said = fused()
    found = loss_of(said, drawn(targets), SCHEDULE, "multilabel", auxiliary_alone=False)
    each = torch.nn.functional.binary_cross_entropy_with_logits
    joint = each(said.logits, targets)
    alone = torch.stack(
        [each(said.modality_logits[row, at], targets[row]) for row, at in PRESENT.nonzero().tolist()]
    )
    torch.testing.assert_close(found, joint + 0.5 * alone.mean())
