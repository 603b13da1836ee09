from __future__ import annotations

import numpy as np
import pytest
import torch

from training.calibrate.temperature import fit_label_temperature, fit_temperature
from training.checkpoint import Checkpoint
from training.measure.scores import score
from training.subsets import SUBSETS, mask_number, mask_of


def drawn(temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are too sure by this factor, and labels drawn from what they should have said."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(5_000, 10, generator=generator)
    labels = torch.multinomial(honest.softmax(dim=1), 1, generator=generator).squeeze(1)
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels, units=len(labels)) == pytest.approx(temperature, rel=0.06)


def test_calibration_lowers_the_calibration_error() -> None:
    logits, labels = drawn(2.5)
    found = fit_temperature(logits, labels, units=len(labels))
    before, after = (
        score((logits / t).softmax(dim=1).double().numpy(), labels.numpy(), np.arange(len(labels)), draws=2)
        for t in (1.0, found)
    )
    assert after.ece.value < 0.02 < before.ece.value
    assert after.accuracy.value == before.accuracy.value


def test_rows_without_an_error_do_not_make_a_model_certain() -> None:
    labels = torch.arange(10).repeat(20)
    logits = 5.0 * torch.nn.functional.one_hot(labels, 10)
    sure = (logits / fit_temperature(logits, labels, units=50)).softmax(dim=1).max(dim=1).values
    assert sure[0].item() == pytest.approx(51 / 52, abs=1e-4)


def test_errors_that_were_seen_are_not_doubted_once_more() -> None:
    """Few independent rows, of which many are wrong: what they say of trust stands."""
    logits, labels = drawn(1.0)
    wrong = float((logits.argmax(dim=1) != labels).float().mean())
    assert 0.2 < wrong < 0.5
    assert fit_temperature(logits, labels, units=20) == pytest.approx(1.0, rel=0.08)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_labels_on_their_own_have_a_temperature_too(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(2_000, 6, generator=generator)
    targets = torch.bernoulli(honest.sigmoid(), generator=generator)
    found = fit_label_temperature(honest * temperature, targets, units=len(targets))
    assert found == pytest.approx(temperature, rel=0.06)


def test_labels_without_an_error_do_not_make_a_model_certain() -> None:
    targets = torch.eye(10)[torch.arange(10).repeat(20)]
    logits = 10.0 * targets - 5
    sure = (logits / fit_label_temperature(logits, targets, units=50)).sigmoid().max(dim=1).values
    assert sure[0].item() == pytest.approx(51 / 52, abs=1e-4)


def test_each_subset_has_the_temperature_that_the_manifest_lists(checkpoint: Checkpoint) -> None:
    temperatures = checkpoint.calibrated.temperatures
    assert set(temperatures) == set(SUBSETS)
    for subset, temperature in temperatures.items():
        number = int(mask_number(torch.tensor([mask_of(subset)])))
        assert checkpoint.model.temperatures[number].item() == pytest.approx(temperature)
