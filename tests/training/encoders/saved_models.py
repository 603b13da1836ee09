"""Tiny models with random weights, saved as the Hugging Face hub saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ASTConfig,
    ASTModel,
    BertConfig,
    BertModel,
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from app.bundle.manifest import AudioInput, ImageInput, TextInput
from tests.training.encoders.tiny_encoders import AUDIO, IMAGE, TEXT

PIXELS: Final = IMAGE.model_copy(update={"resize": 16, "height": 16, "width": 16})
TOKENS: Final = TEXT.model_copy(update={"max_tokens": 24})
SAMPLES: Final = AUDIO.model_copy(update={"sample_rate": 16_000, "min_samples": 800})
NORMALISATION: Final = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}

_SIZES: Final[dict[str, Any]] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_WAVES: Final[dict[str, Any]] = {
    **_SIZES,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.5,
}
KINDS: Final[dict[str, ImageInput | TextInput | AudioInput]] = {
    "vit": PIXELS,
    "resnet": PIXELS,
    "bert": TOKENS,
    "wav2vec2": SAMPLES,
    "hubert": SAMPLES,
    "ast": SAMPLES,
}


def save_model(folder: Path, kind: str) -> str:
    """One of KINDS; returns what a spec calls its source."""
    torch.manual_seed(1)
    model = _model(kind)
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh model's tokens and biases are all zeros
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if kind in ("vit", "resnet"):
        _write(folder, {"do_normalize": True, "rescale_factor": 1 / 255, **NORMALISATION})
    if kind in ("wav2vec2", "hubert"):
        _write(folder, {"do_normalize": True, "sampling_rate": 16_000})
    if kind == "ast":
        _write(folder, {"do_normalize": True, "sampling_rate": 16_000, "mean": -4.27, "std": 4.57})
    if kind == "bert":
        _tokenizer().save_pretrained(folder)
    return str(folder)


def _model(kind: str) -> PreTrainedModel:
    match kind:
        case "vit":
            return ViTModel(ViTConfig(**_SIZES, image_size=16, patch_size=4))
        case "resnet":
            sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1]}
            return ResNetModel(ResNetConfig(**sizes, layer_type="basic"))
        case "bert":
            return BertModel(BertConfig(**_SIZES, vocab_size=60, max_position_embeddings=24))
        case "wav2vec2":
            return Wav2Vec2Model(Wav2Vec2Config(**_WAVES, feat_extract_norm="group"))
        case "hubert":
            norm: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
            return HubertModel(HubertConfig(**_WAVES, **norm))
        case "ast":
            picture: dict[str, Any] = {"max_length": 40, "num_mel_bins": 32, "patch_size": 16}
            return ASTModel(ASTConfig(**_SIZES, **picture, frequency_stride=8, time_stride=8))
    raise AssertionError(kind)


def _write(folder: Path, preprocessor: dict[str, Any]) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def _tokenizer() -> PreTrainedTokenizerFast:
    """It adds [CLS] and [SEP], and cuts and pads as its authors had it in training."""
    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three"])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(pad_id=0, length=16)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
