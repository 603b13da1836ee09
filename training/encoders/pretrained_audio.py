"""Audio encoders of the Hugging Face hub: over the waveform (wav2vec 2.0, HuBERT) or a spectrogram (AST)."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from app.bundle.manifest import AudioInput
from training.encoders.contract import Encoded, EncoderUnfit
from training.encoders.fbank import KaldiFbank
from training.encoders.pretrained import PretrainedEncoder, load_backbone, on_some_rows, read_preprocessor
from training.encoders.readout import MeanReadout, masked_mean, regions, with_summary
from training.encoders.specs import PretrainedAudio

_OVER_WAVES: Final = ("wav2vec2", "hubert")
_OVER_SPECTROGRAMS: Final = ("audio-spectrogram-transformer",)


def pretrained_audio(spec: PretrainedAudio, audio: AudioInput) -> PretrainedEncoder:
    """Raises EncoderUnfit for another kind of model, or one of another sampling rate."""
    backbone = load_backbone(spec.source, spec.revision, tower="audio_model")
    preprocessor = read_preprocessor(spec.source, spec.revision)
    rate_hz = preprocessor["sampling_rate"]
    if rate_hz != audio.sample_rate:
        raise EncoderUnfit(
            f"{spec.source} hears {rate_hz} Hz, the manifest says {audio.sample_rate}. Set 'sample_rate' to "
            f"{rate_hz}."
        )
    kind = backbone.config.model_type  # type: ignore[union-attr]
    if kind in _OVER_WAVES:
        return WaveEncoder(spec, audio, backbone, preprocessor)
    if kind in _OVER_SPECTROGRAMS:
        return SpectrogramEncoder(spec, audio, backbone, preprocessor)
    known = ", ".join(_OVER_WAVES + _OVER_SPECTROGRAMS)
    raise EncoderUnfit(f"{spec.source} is a model of type {kind}. Of audio models these are read: {known}.")


class WaveEncoder(PretrainedEncoder):
    """The model's own steps, with what pads a row masked in all of them.

    Its own forward pass lets padding into the normalisation over time (`feat_extract_norm` of "group") and
    draws masks of its own in training, which fail for short rows; neither happens here.
    """

    def __init__(
        self, spec: PretrainedAudio, audio: AudioInput, backbone: nn.Module, preprocessor: dict[str, Any]
    ) -> None:
        super().__init__(spec, backbone)
        config: Any = backbone.config
        config.layerdrop = 0.0  # a layer left out on one process only would stop the others
        self.normalises: bool = preprocessor.get("do_normalize", True)
        self.steps = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.readout = MeanReadout(config.hidden_size, spec.width, tokens=spec.tokens)
        shortest = torch.tensor([audio.min_samples], dtype=torch.int32)
        for size, stride in self.steps:
            shortest = _frames(shortest, size, stride)
        if not shortest.any():
            raise EncoderUnfit(
                f"a recording of 'min_samples', {audio.min_samples}, is shorter than one frame of "
                f"{spec.source}. Raise it to {_receptive_field(self.steps)}."
            )
        example = torch.linspace(-1, 1, audio.min_samples).unsqueeze(0)
        self._freeze_unused(example, torch.tensor([audio.min_samples], dtype=torch.int32))

    def forward(self, audio: Tensor, audio_length: Tensor) -> Encoded:
        return self.read(self.see(audio, audio_length))

    def see(self, *inputs: Tensor) -> Tensor:
        return on_some_rows(self._seen, *inputs)

    def _seen(self, audio: Tensor, audio_length: Tensor) -> Tensor:
        here = _up_to(audio_length, audio.shape[1])
        backbone: Any = self.backbone
        x = torch.where(here, audio, 0.0)
        if self.normalises:
            x = torch.where(here, _normalised(x, here, epsilon=1e-7), 0.0)
        x, length = x.unsqueeze(1), audio_length
        for layer, (size, stride) in zip(backbone.feature_extractor.conv_layers, self.steps, strict=True):
            length = _frames(length, size, stride)
            x = _convolved(layer, x, length)
        valid = _up_to(length, x.shape[2])
        projected = backbone.feature_projection(x.transpose(1, 2))
        states = projected if isinstance(projected, Tensor) else projected[0]
        states = torch.where(valid.unsqueeze(2), states, 0.0)
        # Attention to nothing is not a number: a row without frames looks at its first place.
        keys = valid | (torch.arange(valid.shape[1], device=valid.device) == 0)
        states = backbone.encoder(states, attention_mask=keys).last_hidden_state
        return masked_mean(states, regions(valid, self.tokens))


class SpectrogramEncoder(PretrainedEncoder):
    """AST (Gong et al., Audio Spectrogram Transformer, 2021) over a filterbank of a fixed number of frames.

    What is longer is cut. The summary is the mean of its two class tokens, as its authors read it.
    """

    def __init__(
        self, spec: PretrainedAudio, audio: AudioInput, backbone: nn.Module, preprocessor: dict[str, Any]
    ) -> None:
        super().__init__(spec, backbone)
        config: Any = backbone.config
        self.fbank = KaldiFbank(rate_hz=audio.sample_rate, bands=config.num_mel_bins)
        if audio.min_samples < self.fbank.window:
            raise EncoderUnfit(
                f"a recording of 'min_samples', {audio.min_samples}, is shorter than one frame. Raise it to "
                f"{self.fbank.window}."
            )
        self.most_frames: int = config.max_length
        self.time_stride: int = config.time_stride
        self.bands_out = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        normalises = preprocessor.get("do_normalize", True)
        self.mean: float = preprocessor["mean"] if normalises else 0.0
        self.scale: float = 2 * preprocessor["std"] if normalises else 1.0
        self.readout = MeanReadout(config.hidden_size, spec.width, tokens=spec.tokens, has_summary=True)
        example = torch.linspace(-1, 1, audio.min_samples).unsqueeze(0)
        self._freeze_unused(example, torch.tensor([audio.min_samples], dtype=torch.int32))

    def forward(self, audio: Tensor, audio_length: Tensor) -> Encoded:
        return self.read(self.see(audio, audio_length))

    def see(self, *inputs: Tensor) -> Tensor:
        return on_some_rows(self._seen, *inputs)

    def spectrogram(self, audio: Tensor, audio_length: Tensor) -> Tensor:
        """What the model reads: [rows, most_frames, bands], as its ASTFeatureExtractor makes it."""
        loudness = self.fbank(audio)
        valid = _up_to(self.fbank.frames(audio_length), loudness.shape[1])
        heard = torch.where(valid.unsqueeze(2), loudness, 0.0)  # it pads before it normalises
        fixed = nn.functional.pad(heard, (0, 0, 0, self.most_frames))[:, : self.most_frames]
        return (fixed - self.mean) / self.scale

    def _seen(self, audio: Tensor, audio_length: Tensor) -> Tensor:
        states = self.backbone(input_values=self.spectrogram(audio, audio_length)).last_hidden_state
        patches = states[:, 2:].unflatten(1, (self.bands_out, -1)).mean(dim=1)
        starts = torch.arange(patches.shape[1], device=audio.device) * self.time_stride
        valid = starts.unsqueeze(0) < self.fbank.frames(audio_length).unsqueeze(1)
        return with_summary(masked_mean(patches, regions(valid, self.tokens)), states[:, :2].mean(dim=1))


def _convolved(layer: Any, x: Tensor, length: Tensor) -> Tensor:
    """One layer of a waveform model; `length` [rows] is in frames of its output."""
    norm = getattr(layer, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return layer(x)  # type: ignore[no-any-return]
    x = layer.conv(x)
    here = _up_to(length, x.shape[2]).unsqueeze(1)
    x = _normalised(x, here, epsilon=norm.eps)
    return layer.activation(x * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1))  # type: ignore[no-any-return]


def _normalised(x: Tensor, here: Tensor, *, epsilon: float) -> Tensor:
    """To mean 0 and deviation 1 over the last dimension, where `here`."""
    count = here.sum(dim=-1, keepdim=True).clamp(min=1)
    centred = x - torch.where(here, x, 0.0).sum(dim=-1, keepdim=True) / count
    variance = torch.where(here, centred, 0.0).square().sum(dim=-1, keepdim=True) / count
    return centred * torch.rsqrt(variance + epsilon)


def _up_to(length: Tensor, positions: int) -> Tensor:
    """Bool [rows, positions]."""
    return torch.arange(positions, device=length.device).unsqueeze(0) < length.unsqueeze(1)


def _frames(samples: Tensor, size: int, stride: int) -> Tensor:
    return (torch.div(samples - size, stride, rounding_mode="floor") + 1).clamp(min=0)


def _receptive_field(steps: tuple[tuple[int, int], ...]) -> int:
    samples = 1
    for size, stride in reversed(steps):
        samples = (samples - 1) * stride + size
    return samples
