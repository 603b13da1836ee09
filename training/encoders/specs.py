"""What an encoder is made of, as frozen values that a recipe holds and a manifest can tell (plain JSON).

`width` is of the vectors that an encoder gives, `tokens` how many of them besides the pooled one. What an
encoder reads (sizes, rates, the id that pads) is not here but in `app.bundle.manifest`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

# --- image: `tokens` are the cells of a square grid, row by row: 1, 4, 9, 16 … -------------------


@dataclass(frozen=True, slots=True)
class PlainImage:
    """Four convolutions over the grey image, its contrast evened out: for drawn or printed shapes."""

    channels: tuple[int, int, int, int]
    width: int
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class ResidualImage:
    """Residual network (He et al., Deep Residual Learning, 2016): a stem, then one stage per channel count.

    Every stage but the first halves the sides; a stem of stride 2 does, too.
    """

    channels: tuple[int, ...]
    blocks: int  # in each stage
    width: int
    tokens: int = 16
    stem_stride: int = 1
    is_grey: bool = False  # grey with its contrast evened out; else colour by `mean` and `deviation`
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of red, green, blue in 0..1
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class DescribedImage:
    """Gradients and colours counted, then one dense layer: for sets of about a thousand pictures."""

    tokens: ClassVar[int] = 1  # the whole
    width: int
    dropout: float = 0.5
    hide: float = 0.3  # share of descriptors that are not heard in training


@dataclass(frozen=True, slots=True)
class KernelImage:
    """Kernel ridge regression on the same descriptors: for sets of up to a few thousand pictures.

    It keeps all training pictures, as their descriptors, and is fitted by one linear equation. `width` is the
    number of labels, here and in the other two: it gives a logit for each, and there is no head.
    """

    tokens: ClassVar[int] = 1  # the whole
    width: int
    reach: float = 0.7  # how fast likeness falls with the distance, which is about 2 between any two
    ridge: float = 0.3  # the larger, the less a single picture counts


@dataclass(frozen=True, slots=True)
class PretrainedImage:
    """A vision model of the Hugging Face hub, or of a local folder that was saved like one."""

    source: str
    width: int
    tokens: int = 16
    revision: str | None = None  # a commit, for a run that can be repeated
    is_frozen: bool = True


# --- text: `tokens` are equal parts of the text, in order ----------------------------------------


@dataclass(frozen=True, slots=True)
class ConvText:
    """Three residual convolutions over token embeddings: for short texts, spelling above all."""

    channels: int
    width: int
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class TransformerText:
    """Transformer (Vaswani et al., 2017), positions learned, normalisation first (Xiong et al., 2020)."""

    channels: int
    layers: int
    heads: int
    width: int
    tokens: int = 8
    dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class NgramText:
    """Mean of hashed n-gram embeddings (Joulin et al., Bag of Tricks for Text Classification, 2017)."""

    buckets: int  # rows of the table that all orders share
    channels: int
    hidden: int  # 0: no layer between the mean and what is said
    width: int
    tokens: int = 1
    orders: tuple[int, ...] = (1, 2, 3)  # lengths of n-grams, in tokens
    dropout: float = 0.1
    has_ends: bool = False  # a mark stands before the first token and after the last: what words begin with
    is_rooted: bool = False  # the sum is divided by the root of the count: it learns faster from short texts


@dataclass(frozen=True, slots=True)
class KernelText:
    """Kernel ridge regression on the n-grams that texts share: for sets of up to a few thousand texts.

    It keeps weights of n-grams, no texts. `width` is the number of labels.
    """

    tokens: ClassVar[int] = 1  # the whole
    buckets: int  # of n-grams, shared by all orders; where many share one, it tells less
    width: int
    orders: tuple[int, ...] = (1, 2, 3, 4, 5)
    ridge: float = 0.5


@dataclass(frozen=True, slots=True)
class RecallText:
    """What the training texts that a text is like mean; for a few hundred words of many languages.

    Needs a tokenizer by sound. `width` is the number of labels: it gives the log of a share for each.
    """

    tokens: ClassVar[int] = 1  # the whole
    texts: int  # room for so many to be remembered
    buckets: int  # of n-grams, for each of the two readings
    width: int
    orders: tuple[int, ...] = (1, 2, 3, 4)
    sharpness: float = 14.0  # before training: how much more the likest count
    doubt: float = -9.0  # before training: log of what speaks for every label before anything is read


@dataclass(frozen=True, slots=True)
class PretrainedText:
    """A text encoder of the Hugging Face hub or of a local folder; see `pretrained_tokenizer`."""

    source: str
    width: int
    tokens: int = 8
    revision: str | None = None
    is_frozen: bool = True


# --- audio: `tokens` are equal parts of the recording, in order ----------------------------------


@dataclass(frozen=True, slots=True)
class MelAudio:
    """Convolutions over a log-mel spectrogram. Each of `channels` but the last halves bands and frames."""

    channels: tuple[int, ...]
    bands: int
    width: int
    tokens: int = 1
    blocks: int = 0  # residual blocks after each convolution
    window_s: float = 0.025
    hop_s: float = 0.010
    is_relative: bool = True  # to the row's loudest point, so that a quiet recording looks as a loud one
    mask_bands: int = 0  # widest stripe hidden in training (Park et al., SpecAugment, 2019)
    mask_frames: int = 0


@dataclass(frozen=True, slots=True)
class StatisticAudio:
    """Moments of a log-mel spectrogram, then one dense layer: for sets of few speakers."""

    tokens: ClassVar[int] = 1  # the whole
    bands: int
    width: int
    hop_s: float = 0.020
    parts: int = 4  # of the recording, equal, whose means and peaks are told apart
    dropout: float = 0.5
    hide: float = 0.2  # share of statistics that are not heard in training


@dataclass(frozen=True, slots=True)
class KernelAudio:
    """Kernel ridge regression on the same moments: for sets of up to a few thousand recordings.

    It keeps all training recordings, as their moments. `width` is the number of labels.
    """

    tokens: ClassVar[int] = 1  # the whole
    bands: int
    width: int
    hop_s: float = 0.020
    parts: int = 4
    reach: float = 1.4
    ridge: float = 1.0


@dataclass(frozen=True, slots=True)
class PretrainedAudio:
    """wav2vec 2.0, HuBERT or AST of the Hugging Face hub or of a local folder."""

    source: str
    width: int
    tokens: int = 8
    revision: str | None = None
    is_frozen: bool = True


# --- any modality ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Given:
    """No encoder of its own: what another one said is read instead, to train fusions on it. Not exported."""

    width: int
    tokens: int


ImageSpec = PlainImage | ResidualImage | DescribedImage | KernelImage | PretrainedImage
TextSpec = ConvText | TransformerText | NgramText | KernelText | RecallText | PretrainedText
AudioSpec = MelAudio | StatisticAudio | KernelAudio | PretrainedAudio
EncoderSpec = ImageSpec | TextSpec | AudioSpec | Given
