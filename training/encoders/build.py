"""A spec and what it will read, to an encoder with its weights."""

from __future__ import annotations

from app.bundle.manifest import AudioInput, ImageInput, TextInput
from training.encoders.audio import MelAudioEncoder
from training.encoders.contract import Encoder
from training.encoders.descriptors import DescribedImageEncoder
from training.encoders.given import GivenEncoder
from training.encoders.image import PlainImageEncoder, ResidualImageEncoder
from training.encoders.kernel_audio import KernelAudioEncoder
from training.encoders.kernel_image import KernelImageEncoder
from training.encoders.kernel_text import KernelTextEncoder
from training.encoders.ngrams import NgramTextEncoder
from training.encoders.recall import RecallTextEncoder
from training.encoders.specs import (
    ConvText,
    DescribedImage,
    EncoderSpec,
    Given,
    KernelAudio,
    KernelImage,
    KernelText,
    MelAudio,
    NgramText,
    PlainImage,
    PretrainedAudio,
    PretrainedImage,
    PretrainedText,
    RecallText,
    ResidualImage,
    StatisticAudio,
    TransformerText,
)
from training.encoders.statistics import StatisticAudioEncoder
from training.encoders.text import ConvTextEncoder, TransformerTextEncoder


def build_encoder(
    spec: EncoderSpec, input_spec: ImageInput | TextInput | AudioInput, *, vocabulary: int | None
) -> Encoder:
    """`vocabulary` is the number of token ids, and None for what is no text.

    Raises EncoderUnfit where the encoder cannot read what the manifest promises, or its pretrained weights
    are not to be had.
    """
    if isinstance(spec, Given):
        return GivenEncoder(spec)
    match input_spec:
        case ImageInput():
            return _image(spec, input_spec)
        case TextInput():
            assert vocabulary is not None, "a text encoder needs the size of its vocabulary"
            return _text(spec, input_spec, vocabulary=vocabulary)
        case AudioInput():
            return _audio(spec, input_spec)


def _image(spec: EncoderSpec, image: ImageInput) -> Encoder:
    match spec:
        case PlainImage():
            return PlainImageEncoder(spec)
        case ResidualImage():
            return ResidualImageEncoder(spec)
        case DescribedImage():
            return DescribedImageEncoder(spec, image)
        case KernelImage():
            return KernelImageEncoder(spec, image)
        case PretrainedImage():
            # Importing transformers takes seconds, and most recipes need none of it.
            from training.encoders.pretrained import PretrainedImageEncoder

            return PretrainedImageEncoder(spec, image)
    raise TypeError(f"{type(spec).__name__} does not read images")


def _text(spec: EncoderSpec, text: TextInput, *, vocabulary: int) -> Encoder:
    match spec:
        case ConvText():
            return ConvTextEncoder(spec, vocabulary=vocabulary, pad_id=text.pad_id)
        case TransformerText():
            return TransformerTextEncoder(
                spec, vocabulary=vocabulary, pad_id=text.pad_id, most_tokens=text.max_tokens
            )
        case NgramText():
            return NgramTextEncoder(spec, pad_id=text.pad_id)
        case KernelText():
            return KernelTextEncoder(spec, pad_id=text.pad_id, most_tokens=text.max_tokens)
        case RecallText():
            return RecallTextEncoder(spec, vocabulary=vocabulary, pad_id=text.pad_id)
        case PretrainedText():
            from training.encoders.pretrained import PretrainedTextEncoder

            return PretrainedTextEncoder(spec, text, vocabulary=vocabulary)
    raise TypeError(f"{type(spec).__name__} does not read texts")


def _audio(spec: EncoderSpec, audio: AudioInput) -> Encoder:
    match spec:
        case MelAudio():
            return MelAudioEncoder(spec, audio)
        case StatisticAudio():
            return StatisticAudioEncoder(spec, audio)
        case KernelAudio():
            return KernelAudioEncoder(spec, audio)
        case PretrainedAudio():
            from training.encoders.pretrained_audio import pretrained_audio

            return pretrained_audio(spec, audio)
    raise TypeError(f"{type(spec).__name__} does not read recordings")
