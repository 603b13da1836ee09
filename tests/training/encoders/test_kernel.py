from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.training.encoders.tiny_encoders import IMAGE, images
from training.encoders.build import build_encoder
from training.encoders.contract import EncoderUnfit
from training.encoders.kernel import KernelImageEncoder
from training.encoders.specs import KernelImage

SPEC = KernelImage(labels=3, width=6)
GROUPS = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
TARGETS = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 2, 1, 1, 0, 2, 1]), 3)


@pytest.fixture
def pictures() -> Tensor:
    torch.manual_seed(3)
    return images(len(GROUPS), IMAGE)["image"]


def made(spec: KernelImage = SPEC) -> KernelImageEncoder:
    built = build_encoder(spec, IMAGE, vocabulary=None)
    assert isinstance(built, KernelImageEncoder)
    return built.eval()


def fitted(pictures: Tensor, spec: KernelImage = SPEC) -> KernelImageEncoder:
    """In two batches."""
    encoder = made(spec)
    encoder.study([(pictures[:4],), (pictures[4:],)], TARGETS, GROUPS)
    return encoder


@torch.inference_mode()
def test_with_hardly_any_ridge_it_answers_what_it_was_told(pictures: Tensor) -> None:
    answers = fitted(pictures, replace(SPEC, ridge=1e-6)).answers(pictures)
    torch.testing.assert_close(answers, TARGETS.float(), atol=1e-3, rtol=0)


@torch.inference_mode()
def test_with_much_ridge_it_answers_how_common_each_label_is(pictures: Tensor) -> None:
    answers = fitted(pictures, replace(SPEC, ridge=1e6)).answers(pictures)
    torch.testing.assert_close(answers, TARGETS.float().mean(dim=0).expand_as(answers), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_mirrored_picture_is_answered_as_the_picture(pictures: Tensor) -> None:
    encoder = fitted(pictures)
    other = images(4, IMAGE)["image"]
    torch.testing.assert_close(encoder(other.flip(2)), encoder(other), atol=1e-5, rtol=0)


@pytest.mark.parametrize("group", [0, 1, 2])
@torch.inference_mode()
def test_in_training_a_picture_is_answered_as_if_its_group_had_not_been_seen(
    pictures: Tensor, group: int
) -> None:
    """With how descriptors are spread and how common labels are left as they were."""
    whole, rest = fitted(pictures).train(), fitted(pictures)
    kept = GROUPS.ne(group)
    asked = pictures[~kept]
    # The equation without the group, solved anew: leaving out does not do it, and must find the same.
    rest.anchors = whole.anchors[kept.repeat(2)]
    rest.weights = torch.eye(int(kept.sum())).repeat(2, 1)  # so that answers are likenesses
    rest.offset = torch.zeros(int(kept.sum()))
    ridge = SPEC.ridge * torch.eye(int(kept.sum()))
    weights = torch.linalg.solve(rest.answers(pictures[kept]) + ridge, TARGETS[kept] - whole.offset)
    expected = whole.out(whole.offset + rest.answers(asked) @ weights)
    torch.testing.assert_close(whole(asked).pooled, expected, atol=1e-4, rtol=0)
    assert (whole(asked).pooled - whole.eval()(asked).pooled).abs().max() > 1e-2


@torch.inference_mode()
def test_in_training_a_picture_that_is_new_to_it_is_answered_as_ever(pictures: Tensor) -> None:
    encoder = fitted(pictures)
    mixed = torch.cat([images(2, IMAGE)["image"], pictures[:1]])
    ever = encoder(mixed).pooled
    in_training = encoder.train()(mixed).pooled
    torch.testing.assert_close(in_training[:2], ever[:2], atol=1e-5, rtol=0)
    assert (in_training[2] - ever[2]).abs().max() > 1e-2


@torch.inference_mode()
def test_its_weights_fit_an_encoder_that_has_seen_nothing(pictures: Tensor) -> None:
    encoder, other = fitted(pictures), made()
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(pictures), encoder(pictures), atol=0, rtol=0)


def test_another_number_of_labels_is_refused(pictures: Tensor) -> None:
    with pytest.raises(EncoderUnfit, match="made for 3 labels, and rows have 2"):
        made().study([(pictures,)], TARGETS[:, :2], GROUPS)


def test_more_pictures_than_it_can_keep_are_refused(pictures: Tensor) -> None:
    many = 10_000
    with pytest.raises(EncoderUnfit, match=r"8192 at most, and there are 10000\. Use an encoder that learns"):
        made().study([(pictures,)], TARGETS.new_zeros(many, 3), GROUPS.new_zeros(many))
