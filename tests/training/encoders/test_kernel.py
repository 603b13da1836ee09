"""What every kernel machine does, whatever it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
import torch
from torch import Tensor

from tests.training.encoders.tiny_encoders import AUDIO, IMAGE, TEXT, images, recordings, texts
from training.encoders.build import build_encoder
from training.encoders.contract import EncoderUnfit
from training.encoders.kernel import KernelEncoder
from training.encoders.specs import KernelAudio, KernelImage, KernelText

Spec = KernelImage | KernelText | KernelAudio
Items = tuple[Tensor, ...]

IMAGES: Final = KernelImage(width=3)
TEXTS: Final = KernelText(buckets=997, width=3, orders=(1, 2))
SOUNDS: Final = KernelAudio(bands=12, width=3, parts=2)
SPECS: Final[dict[str, Spec]] = {"image": IMAGES, "text": TEXTS, "audio": SOUNDS}
READ: Final = {"image": IMAGE, "text": TEXT, "audio": AUDIO}
GROUPS: Final = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
TARGETS: Final = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 2, 1, 1, 0, 2, 1]), 3)

each_kind = pytest.mark.parametrize("kind", SPECS)


def made(spec: Spec) -> KernelEncoder:
    kind = next(name for name, one in SPECS.items() if type(one) is type(spec))
    built = build_encoder(spec, READ[kind], vocabulary=60)
    assert isinstance(built, KernelEncoder)
    return built.eval()


def items(kind: str, rows: int = len(GROUPS), *, seed: int = 3) -> Items:
    torch.manual_seed(seed)
    match READ[kind]:
        case image if image is IMAGE:
            found = images(rows, IMAGE)
        case text if text is TEXT:
            found = texts(rows, TEXT)
        case _:
            found = recordings(rows, AUDIO)
    return tuple(found.values())


def some(found: Items, chosen: Tensor | slice) -> Items:
    return tuple(values[chosen] for values in found)


def fitted(spec: Spec, found: Items, order: Tensor | slice = slice(None)) -> KernelEncoder:
    """In two batches."""
    encoder, seen = made(spec), some(found, order)
    encoder.study([some(seen, slice(4)), some(seen, slice(4, None))], TARGETS[order], GROUPS[order])
    return encoder


@each_kind
@torch.inference_mode()
def test_with_hardly_any_ridge_it_answers_what_it_was_told(kind: str) -> None:
    found = items(kind)
    answers = fitted(replace(SPECS[kind], ridge=1e-6), found).answers(*found)
    torch.testing.assert_close(answers, TARGETS.float(), atol=1e-3, rtol=0)


@each_kind
@torch.inference_mode()
def test_with_much_ridge_it_answers_how_common_each_label_is(kind: str) -> None:
    found = items(kind)
    answers = fitted(replace(SPECS[kind], ridge=1e6), found).answers(*found)
    torch.testing.assert_close(answers, TARGETS.float().mean(dim=0).expand_as(answers), atol=1e-4, rtol=0)


@each_kind
@pytest.mark.parametrize("group", [0, 1, 2])
@torch.inference_mode()
def test_in_training_an_item_is_answered_as_if_its_group_had_not_been_seen(kind: str, group: int) -> None:
    """With what is usual and how common labels are left as they were."""
    found = items(kind)
    encoder = fitted(SPECS[kind], found).train()
    alike, kept = encoder.compare([found]), GROUPS.ne(group)
    # The equation without the group, solved anew: leaving out does not do it, and must find the same.
    ridge = encoder.ridge * torch.eye(int(kept.sum()), dtype=torch.float64)
    weights = torch.linalg.solve(alike[kept][:, kept] + ridge, (TARGETS - encoder.offset)[kept].double())
    answers = encoder.offset + (alike[~kept][:, kept] @ weights).float()
    asked = some(found, ~kept)
    expected = answers * encoder.sharpness.exp() + encoder.bias
    torch.testing.assert_close(encoder(*asked).pooled, expected, atol=1e-4, rtol=0)
    assert (encoder(*asked).pooled - encoder.eval()(*asked).pooled).abs().max() > 1e-2


@each_kind
@torch.inference_mode()
def test_in_training_an_item_that_is_new_to_it_is_answered_as_ever(kind: str) -> None:
    found = items(kind)
    encoder, new = fitted(SPECS[kind], found), items(kind, seed=5)
    known = torch.arange(len(GROUPS)) == 4
    mixed = tuple(
        torch.where(known.view(-1, *[1] * (old.ndim - 1)), old, other)
        for old, other in zip(found, new, strict=True)
    )
    ever = encoder(*mixed).pooled
    moved = (encoder.train()(*mixed).pooled - ever).abs().amax(dim=1)
    assert moved[known] > 1e-2
    assert moved[~known].max() < 1e-5


@each_kind
@torch.inference_mode()
def test_an_item_of_two_groups_is_answered_by_the_mean_of_leaving_out_each(kind: str) -> None:
    found = items(kind)
    twice = some(found, torch.tensor([0, 1, 2, 0, 4, 5, 6, 7, 8]))  # of the groups 0 and 2
    encoder = fitted(SPECS[kind], twice).train()
    said = encoder(*some(twice, slice(1))).pooled
    mean = encoder.left_out[[0, 3]].mean(dim=0, keepdim=True)
    torch.testing.assert_close(said, mean * encoder.sharpness.exp() + encoder.bias)


@each_kind
@torch.inference_mode()
def test_the_order_of_items_does_not_matter(kind: str) -> None:
    found, order = items(kind), torch.tensor([8, 3, 0, 5, 1, 7, 2, 6, 4])
    one, other = fitted(SPECS[kind], found), fitted(SPECS[kind], found, order)
    asked = items(kind, 4, seed=5)
    torch.testing.assert_close(other.answers(*asked), one.answers(*asked), atol=1e-5, rtol=0)
    torch.testing.assert_close(other.train()(*found), one.train()(*found), atol=1e-5, rtol=0)


@each_kind
@torch.inference_mode()
def test_studying_again_finds_the_same_to_the_bit(kind: str) -> None:
    """A resumed run does."""
    found = items(kind)
    one, other = fitted(SPECS[kind], found), fitted(SPECS[kind], found)
    other.study([found], TARGETS.flip(0), GROUPS)
    other.study([some(found, slice(4)), some(found, slice(4, None))], TARGETS, GROUPS)
    torch.testing.assert_close(other.state_dict(), one.state_dict(), atol=0, rtol=0)
    assert torch.equal(other.left_out, one.left_out)


@pytest.mark.parametrize("kind", ["text", "audio"])
@torch.inference_mode()
def test_a_padded_item_is_known_again(kind: str) -> None:
    found = items(kind)
    encoder = fitted(SPECS[kind], found).train()
    padded = (torch.nn.functional.pad(found[0], (0, 3)), *found[1:])
    torch.testing.assert_close(encoder(*padded).pooled, encoder(*found).pooled, atol=0, rtol=0)


@each_kind
@torch.inference_mode()
def test_its_weights_fit_an_encoder_that_has_seen_nothing(kind: str) -> None:
    found = items(kind)
    encoder, other = fitted(SPECS[kind], found), made(SPECS[kind])
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(*found), encoder(*found), atol=0, rtol=0)


@torch.inference_mode()
def test_a_mirrored_picture_is_answered_as_the_picture() -> None:
    encoder = fitted(IMAGES, items("image"))
    [other] = items("image", 4, seed=5)
    torch.testing.assert_close(encoder(other.flip(2)), encoder(other), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_how_often_a_text_repeats_itself_hardly_matters_and_what_it_repeats_does() -> None:
    encoder = made(TEXTS)
    rows = torch.tensor([[7, 8, 7, 8, 0, 0], [7, 8, 7, 8, 7, 8], [7, 9, 7, 9, 7, 9]])
    alike = encoder.compare([(rows.int(),)])
    torch.testing.assert_close(alike.diagonal(), torch.ones(3, dtype=torch.float64))
    assert alike[0, 1] > 0.9
    assert alike[1, 2] < 0.5


@each_kind
def test_another_number_of_labels_is_refused(kind: str) -> None:
    with pytest.raises(EncoderUnfit, match=r"made for 3 labels, and rows have 2\. Set 'width'"):
        made(SPECS[kind]).study([items(kind)], TARGETS[:, :2], GROUPS)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("image", "every picture .* such as DescribedImage"),
        ("text", "every text .* such as NgramText"),
        ("audio", "every recording .* such as StatisticAudio"),
    ],
)
def test_more_items_than_it_can_compare_are_refused(kind: str, told: str) -> None:
    many = 10_000
    with pytest.raises(EncoderUnfit, match=f"{told}") as refused:
        made(SPECS[kind]).study([items(kind)], TARGETS.new_zeros(many, 3), GROUPS.new_zeros(many))
    assert "8192 at most, and there are 10000" in str(refused.value)
