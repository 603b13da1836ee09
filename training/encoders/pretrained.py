"""Encoders of the Hugging Face hub: image and text. Their scaling is read from their files, into the graph.

Weights are read as safetensors only, never unpickled, and code that comes with a model is never run.
What audio needs is in pretrained_audio.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file, extract_commit_hash

from app.bundle.manifest import ImageInput, TextInput
from training.encoders.contract import Encoded, Encoder, EncoderUnfit
from training.encoders.readout import (
    MeanReadout,
    cells,
    grid_side,
    masked_mean,
    regions,
    with_summary,
)
from training.encoders.specs import PretrainedAudio, PretrainedImage, PretrainedText

PREPROCESSOR_FILE: Final = "preprocessor_config.json"
_MOST_PREFIXES: Final = 8  # states before the patches: [CLS], a distillation token, registers


class PretrainedEncoder(Encoder):
    """A backbone that came trained, and a readout of our own.

    Frozen, the backbone is always in evaluation mode and nothing of it is trained. Tuned, its batch norms
    keep the moments they came with, which took more images than any tuning sees; and those of its parameters
    that no output depends on (an unused pooler, the token of a masked patch) are frozen all the same: an
    optimiser and distributed training would wait for their gradients in vain.
    """

    readout: MeanReadout

    def __init__(self, spec: PretrainedImage | PretrainedText | PretrainedAudio, backbone: nn.Module) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        self.is_frozen = spec.is_frozen
        self.backbone = backbone.requires_grad_(not spec.is_frozen)

    def train(self, mode: bool = True) -> PretrainedEncoder:  # noqa: FBT001, FBT002  # torch's own signature
        super().train(mode)
        for module in self.backbone.modules():
            if self.is_frozen or isinstance(module, _BatchNorm):
                module.training = False
        return self

    @property
    def is_constant(self) -> bool:
        return self.is_frozen

    def read(self, seen: Tensor) -> Encoded:
        return self.readout.read(seen)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.backbone.parameters() if parameter.requires_grad)

    def _freeze_unused(self, *example: Tensor) -> None:
        """The end of building, with one row of inputs. Raises EncoderUnfit if the model refuses it."""
        self.eval()
        tuned = list(self.pretrained_parameters())
        try:
            pooled = self(*example).pooled
        except (IndexError, RuntimeError, ValueError) as error:
            shapes = " and ".join(str(list(values.shape)) for values in example)
            raise EncoderUnfit(
                f"the pretrained encoder cannot read what the manifest promises, {shapes}: {error}"
            ) from error
        if tuned:
            gradients = torch.autograd.grad(pooled.sum(), tuned, allow_unused=True)
            for parameter, gradient in zip(tuned, gradients, strict=True):
                parameter.requires_grad_(gradient is not None)
        self.train()


class PretrainedImageEncoder(PretrainedEncoder):
    """Models that give patches (ViT and its like) or maps (CNNs); tokens are cells of their grid."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: PretrainedImage, image: ImageInput) -> None:
        super().__init__(spec, load_backbone(spec.source, spec.revision, tower="vision_model"))
        self.height, self.width_px = image.height, image.width
        self.side = grid_side(spec.tokens)
        mean, deviation = _scaling(read_preprocessor(spec.source, spec.revision))
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", deviation.view(3, 1, 1), persistent=False)
        blank = torch.zeros(1, image.height, image.width, 3, dtype=torch.uint8)
        with torch.no_grad():
            try:
                patches, summary = self._states(blank)
            except (RuntimeError, ValueError) as error:
                raise EncoderUnfit(f"{spec.source} cannot read images of this size: {error}") from error
        self.readout = MeanReadout(
            patches.shape[1], spec.width, tokens=spec.tokens, has_summary=summary is not None
        )
        self._freeze_unused(blank)

    def forward(self, image: Tensor) -> Encoded:
        return self.read(self.see(image))

    def see(self, *inputs: Tensor) -> Tensor:
        return on_some_rows(self._seen, *inputs)

    def _seen(self, image: Tensor) -> Tensor:
        patches, summary = self._states(image)
        means = [cell.mean(dim=(2, 3)) for cell in cells(patches, self.side)]
        return with_summary(torch.stack(means, dim=1), summary)

    def _states(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patches [rows, channels, height, width], and the state before them, if there is one."""
        scaled = (image.permute(0, 3, 1, 2).float() - self.mean) / self.deviation
        seen: Tensor = self.backbone(pixel_values=scaled).last_hidden_state
        if seen.dim() == 4:
            return seen, None
        prefixes, down, across = _patch_grid(seen.shape[1], height=self.height, width=self.width_px)
        patches = seen[:, prefixes:].transpose(1, 2).reshape(seen.shape[0], seen.shape[2], down, across)
        return patches, seen[:, 0] if prefixes else None


class PretrainedTextEncoder(PretrainedEncoder):
    """Models over token ids, such as BERT; the first token's state is read besides the mean of all."""

    def __init__(self, spec: PretrainedText, text: TextInput, *, vocabulary: int) -> None:
        super().__init__(spec, load_backbone(spec.source, spec.revision, tower="text_model"))
        self.pad_id = text.pad_id
        entries = self.backbone.get_input_embeddings().num_embeddings  # type: ignore[operator]
        if vocabulary > entries:
            raise EncoderUnfit(
                f"the tokenizer has {vocabulary} ids, {spec.source} knows {entries}. Use the model's own "
                "tokenizer, see pretrained_tokenizer."
            )
        channels: int = self.backbone.config.hidden_size  # type: ignore[assignment,union-attr]
        self.readout = MeanReadout(channels, spec.width, tokens=spec.tokens, has_summary=True)
        other = 0 if text.pad_id else 1
        self._freeze_unused(torch.full((1, text.max_tokens), other, dtype=torch.int32))

    def forward(self, text: Tensor) -> Encoded:
        return self.read(self.see(text))

    def see(self, *inputs: Tensor) -> Tensor:
        return on_some_rows(self._seen, *inputs)

    def _seen(self, text: Tensor) -> Tensor:
        valid = text != self.pad_id
        # Attention to nothing is not a number: a row without tokens looks at its first place.
        keys = valid | (torch.arange(text.shape[1], device=text.device) == 0)
        x = self.backbone(input_ids=text.long(), attention_mask=keys.long()).last_hidden_state
        return with_summary(masked_mean(x, regions(valid, self.tokens)), x[:, 0])


def pretrained_tokenizer(source: str, *, revision: str | None = None) -> tuple[bytes, int]:
    """The model's own tokenizer as `tokenizer.json`, and the id that pads.

    It adds its special tokens itself; padding and truncation are the server's business and taken out.
    Raises EncoderUnfit for a model without a fast tokenizer or without padding.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **_where(source))
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise EncoderUnfit(f"{source} has no fast tokenizer that pads, so a bundle cannot hold it.")
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend.to_str().encode(), int(tokenizer.pad_token_id)


def load_backbone(source: str, revision: str | None, *, tower: str) -> nn.Module:
    """`tower` names the part of a model with several, such as CLIP's `vision_model`. Raises EncoderUnfit."""
    try:
        model = AutoModel.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True, **_where(source)
        )
    except (OSError, SafetensorError) as error:
        raise EncoderUnfit(
            f"the weights of {source} cannot be read: {str(error).splitlines()[0]} They are wanted as "
            "safetensors, where they were when it was trained."
        ) from error
    backbone = getattr(model, tower, model)
    assert isinstance(backbone, nn.Module)
    return backbone


def read_preprocessor(source: str, revision: str | None) -> dict[str, Any]:
    """What the model's authors say about its inputs. Raises OSError if they do not."""
    path = cached_file(source, PREPROCESSOR_FILE, revision=revision, **_where(source))
    assert isinstance(path, str)
    content: dict[str, Any] = json.loads(Path(path).read_bytes())
    return content


def commit_of(source: str, revision: str | None) -> str | None:
    """What a name of the hub, or its branch, stands for today. Raises OSError where there is none."""
    path = cached_file(source, CONFIG_NAME, revision=revision, **_where(source))
    commit: str | None = extract_commit_hash(path, None)
    return commit


def read_config(source: str, revision: str | None) -> Any:
    """What the model is built of. Raises OSError or ValueError where there is none."""
    return AutoConfig.from_pretrained(source, revision=revision, **_where(source))


def tokens_of_tokenizer(source: str, revision: str | None) -> int:
    """The most that its authors allow; a number beyond all texts where they say none."""
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **_where(source))
    return int(tokenizer.model_max_length)


def on_some_rows(see: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`see`, also for no rows at all, at which most of these models fail: one row is run and dropped."""
    if inputs[0].shape[0]:
        return see(*inputs)
    return see(*(values.new_ones(1, *values.shape[1:]) for values in inputs))[:0]


def _scaling(preprocessor: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean and deviation [3] of pixels in 0..255. A model that does not normalise is only rescaled."""
    scale = preprocessor.get("rescale_factor", 1 / 255) if preprocessor.get("do_rescale", True) else 1.0
    normalises = preprocessor.get("do_normalize", True)
    mean = preprocessor["image_mean"] if normalises else [0.0] * 3
    deviation = preprocessor["image_std"] if normalises else [1.0] * 3
    return torch.tensor(mean) / scale, torch.tensor(deviation) / scale


def _patch_grid(states: int, *, height: int, width: int) -> tuple[int, int, int]:
    """How many states come before the patches, and the patches' rows and columns, shaped as the image."""
    for prefixes in range(_MOST_PREFIXES):
        patches = states - prefixes
        down = round((patches * height / width) ** 0.5)
        if down > 0 and down * (patches // down) == patches and down * width == patches // down * height:
            return prefixes, down, patches // down
    raise EncoderUnfit(f"{states} states are no grid of patches of an image of {height} x {width}")


def _where(source: str) -> dict[str, Any]:
    return {"local_files_only": Path(source).is_dir()}
