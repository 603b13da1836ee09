"""A bundle small enough to compute by head, for every test that needs one but not a trained one.

Its features are plain statistics (mean colour; share of bytes by kind; loudness), so an answer that reached
the wrong row, or a padded row that leaked, shows in the probabilities. Graphs are written in ONNX's own
textual form; torch is not involved.
"""

from __future__ import annotations

import dataclasses
import io
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.compose
import onnx.parser
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from app.bundle.folder import Bundle, file_records, write_bundle
from app.bundle.golden import GoldenCase, dump_golden
from app.bundle.manifest import (
    MODALITIES,
    AudioInput,
    Calibration,
    Conformal,
    ConformalMethod,
    Fusion,
    ImageInput,
    Inputs,
    Manifest,
    Modality,
    Task,
    TextInput,
    parse_manifest,
    sealed,
    subsets,
)
from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from app.runtime.session import Device

LABELS = ("red", "green", "blue")
RATE_HZ = 8_000

_HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'

IMAGE_GRAPH = """
g (uint8[rows,8,8,3] image) => (float[rows,3] features)
<int64[2] axes = {1, 2}, float scale = {255.0}> {
    pixels = Cast <to = 1> (image)
    mean = ReduceMean <keepdims = 0> (pixels, axes)
    features = Div (mean, scale)
}"""

# Token t counts for label t modulo 3; the pad id 0 counts for nobody.
_TEXT = """
g (int32[rows,tokens] text) => (float[rows,3] features)
<int32 pad = {0}, int64 three = {3}, int64 depth = {3}, float[2] off_on = {0.0, 1.0},
 int64[1] tokens_axis = {1}, int64[1] last = {2}, float one = {1.0}> {
    is_pad = Equal (text, pad)
    is_token = Not (is_pad)
    weight = Cast <to = 1> (is_token)
    weight3 = Unsqueeze (weight, last)
    id = Cast <to = 7> (text)
    kind = Mod (id, three)
    hot = OneHot <axis = -1> (kind, depth, off_on)
    counted = Mul (hot, weight3)
    sums = ReduceSum <keepdims = 0> (counted, tokens_axis)
    count = ReduceSum <keepdims = 1> (weight, tokens_axis)
    features = Div (sums, count)
}"""

# Mean, mean of absolute values and mean of squares over the samples before the padding.
_AUDIO = """
g (float[rows,samples] audio, int32[rows] audio_length) => (float[rows,3] features)
<int64[1] axis = {1}, int64 zero = {0}, int64 one = {1}, float silence = {0.0}> {
    shape = Shape <start = 1, end = 2> (audio)
    samples = Squeeze (shape)
    positions = Range (zero, samples, one)
    length = Cast <to = 7> (audio_length)
    lengths = Unsqueeze (length, axis)
    inside = Less (positions, lengths)
    sound = Where (inside, audio, silence)
    divisor = Cast <to = 1> (lengths)
    total = ReduceSum <keepdims = 1> (sound, axis)
    mean = Div (total, divisor)
    loud = Abs (sound)
    loud_total = ReduceSum <keepdims = 1> (loud, axis)
    loudness = Div (loud_total, divisor)
    square = Mul (sound, sound)
    square_total = ReduceSum <keepdims = 1> (square, axis)
    energy = Div (square_total, divisor)
    features = Concat <axis = 1> (mean, loudness, energy)
}"""

_ENCODERS: dict[Modality, str] = {"image": IMAGE_GRAPH, "text": _TEXT, "audio": _AUDIO}

_SIGNATURE = """
g ({features}, bool[rows,{count}] present)
=> (float[rows,3] logits, float[rows,3] probabilities, float[rows,3] embedding,
    float[rows,{count},3] modality_probabilities{more})
<int64[1] middle = {{1}}, int64[1] last = {{2}}, float absent = {{0.0}}, float sharpness = {{4.0}},
 float even = {{0.5}}, float half_way = {{2.0}}, float all = {{1.0}},
 int64[{count}] place_values = {{{place_values}}}, float[{subsets}] thresholds = {{{thresholds}}}> {{"""

_ONE_LABEL = """
    logits = Mul (embedding, sharpness)
    probabilities = Softmax <axis = -1> (logits)
    alone = Mul (masked, sharpness)
    modality_probabilities = Softmax <axis = -1> (alone)"""

_ANY_LABELS = """
    scaled = Mul (embedding, sharpness)
    logits = Sub (scaled, half_way)
    probabilities = Sigmoid (logits)
    scaled_alone = Mul (masked, sharpness)
    alone = Sub (scaled_alone, half_way)
    said_alone = Sigmoid (alone)
    modality_probabilities = Where (mask, said_alone, even)"""

_SCORES = {
    "lac": """
    scores = Sub (all, probabilities)""",
    "aps": """
    others = Unsqueeze (probabilities, middle)
    own = Unsqueeze (probabilities, last)
    is_above = GreaterOrEqual (others, own)
    mass = Where (is_above, others, absent)
    down_to_own = ReduceSum <keepdims = 0> (mass, last)
    half_own = Mul (probabilities, even)
    scores = Sub (down_to_own, half_own)""",
}

# A subset is the binary number of its presence mask, image first; 0 is nobody's.
_SET = """
    bits = Cast <to = 7> (present)
    valued = Mul (bits, place_values)
    subset = ReduceSum <keepdims = 1> (valued, middle)
    threshold = Gather (thresholds, subset)
    is_inside = LessOrEqual (scores, threshold)
    highest = ReduceMax <keepdims = 1> (probabilities, middle)
    is_best = GreaterOrEqual (probabilities, highest)
    prediction_set = Or (is_inside, is_best)"""


def fusion_graph(
    modalities: tuple[Modality, ...],
    *,
    task: Task = "classification",
    conformal: Conformal | None = None,
) -> str:
    """Logits are four times the sum of the features that are present, less 2 if labels are independent."""
    count = len(modalities)
    head = _SIGNATURE.format(
        features=", ".join(f"float[rows,3] {name}_features" for name in modalities),
        count=count,
        more=", bool[rows,3] prediction_set" if conformal else "",
        place_values=", ".join(str(2**place) for place in range(count)),
        subsets=2**count,
        thresholds=", ".join(f"{value:.7f}" for value in _by_mask(modalities, conformal)),
    )
    unsqueezed = "".join(f"\n    {name}3 = Unsqueeze ({name}_features, middle)" for name in modalities)
    joined = f"""
    stacked = Concat <axis = 1> ({", ".join(f"{name}3" for name in modalities)})
    mask = Unsqueeze (present, last)
    masked = Where (mask, stacked, absent)
    embedding = ReduceSum <keepdims = 0> (masked, middle)"""
    answers = _ONE_LABEL if task == "classification" else _ANY_LABELS
    sets = _SCORES[conformal.method] + _SET if conformal else ""
    return head + unsqueezed + joined + answers + sets + "\n}"


def _by_mask(modalities: tuple[Modality, ...], conformal: Conformal | None) -> list[float]:
    """The applied threshold of every presence mask, read as a binary number with the first bit lowest."""
    found = [0.0] * 2 ** len(modalities)
    for subset, threshold in conformal.thresholds.items() if conformal else ():
        found[sum(2 ** modalities.index(name) for name in modalities if name in subset.split("+"))] = (
            threshold
        )
    return found


def conformal_sets(method: ConformalMethod, modalities: tuple[Modality, ...] = MODALITIES) -> Conformal:
    """Thresholds that differ from subset to subset, so that a set of the wrong one shows."""
    names = subsets(modalities)
    return Conformal(
        level=0.9,
        method=method,
        lac={name: 0.45 + 0.06 * place for place, name in enumerate(names)},
        aps={name: 0.95 - 0.07 * place for place, name in enumerate(names)},
        note="made up for tests",
    )


def png(rgb: tuple[int, int, int], *, size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:  # noqa: A002
    """A picture of one colour; `size` is (width, height)."""
    body = io.BytesIO()
    Image.new("RGB", size, rgb).save(body, format)
    return body.getvalue()


def wav(samples: np.ndarray, *, rate_hz: int = RATE_HZ) -> bytes:
    """Mono PCM16 from float samples in -1..1."""
    data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    chunks = b"WAVEfmt " + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def tone(hertz: float, *, seconds: float = 0.1, loudness: float = 0.5) -> bytes:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return wav(loudness * np.sin(2 * np.pi * hertz * time_s))


def row(seed: int, subset: tuple[str, ...] = ("image", "text", "audio")) -> RawInputs:
    """Inputs that differ from those of every other seed, in every modality."""
    rng = np.random.default_rng(seed)
    text = " ".join(rng.choice(["uno", "due", "tre", "quattro"], size=rng.integers(1, 9))) + f" {seed}"
    everything = {
        "image": png((int(rng.integers(256)), int(rng.integers(256)), int(rng.integers(256)))),
        "text": text.encode(),
        "audio": tone(rng.uniform(50, 900), seconds=rng.uniform(0.02, 0.3), loudness=rng.uniform(0.1, 0.9)),
    }
    return RawInputs(**{name: everything[name] for name in subset})


def tokenizer_json() -> bytes:
    """One token per byte, ids from 1; 0 is the pad id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0} | {symbol: index for index, symbol in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>"])
    return tokenizer.to_str().encode()


def graph(text: str) -> bytes:
    model = onnx.parser.parse_model(_HEAD + text)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def fused_graph(modalities: tuple[Modality, ...], fusion: bytes) -> bytes:
    """Encoders and fusion as one graph."""
    joined = onnx.compose.add_prefix(
        onnx.load_from_string(fusion), "fusion/", rename_inputs=False, rename_outputs=False
    )
    for name in modalities:
        encoder = onnx.load_from_string(graph(_ENCODERS[name]))
        own = onnx.compose.add_prefix(encoder, f"{name}/", rename_inputs=False)
        joined = onnx.compose.merge_models(own, joined, io_map=[(f"{name}/features", f"{name}_features")])
    onnx.checker.check_model(joined)
    return bytes(joined.SerializeToString())


def inputs(modalities: tuple[Modality, ...] = MODALITIES) -> Inputs:
    specs: dict[Modality, ImageInput | TextInput | AudioInput] = {
        "image": ImageInput(
            encoder="encoders/image.onnx",
            features=3,
            max_bytes=2**20,
            resize=8,
            height=8,
            width=8,
            max_pixels=25_000_000,
        ),
        "text": TextInput(
            encoder="encoders/text.onnx",
            features=3,
            max_bytes=4096,
            tokenizer="tokenizer.json",
            pad_id=0,
            max_tokens=64,
            max_characters=1000,
        ),
        "audio": AudioInput(
            encoder="encoders/audio.onnx",
            features=3,
            max_bytes=2**20,
            sample_rate=RATE_HZ,
            min_samples=16,
            max_seconds=10,
        ),
    }
    return Inputs(**{name: specs[name] for name in modalities})


def make(
    *,
    name: str = "tiny",
    version: int = 1,
    modalities: tuple[Modality, ...] = MODALITIES,
    task: Task = "classification",
    calibration: Calibration | None = None,
) -> Bundle:
    """The bundle in memory, with golden answers of its own. Its graph applies the calibration's sets."""
    calibration = calibration or calibrated(modalities)
    fusion = graph(fusion_graph(modalities, task=task, conformal=calibration.conformal))
    files = {
        **{f"encoders/{name}.onnx": graph(text) for name, text in _ENCODERS.items()},
        "fusion.onnx": fusion,
        "fused.onnx": fused_graph(modalities, fusion),
        "tokenizer.json": tokenizer_json(),
        "golden/cases.json": b"[]",
        "golden/red.png": png((250, 20, 30)),
        "golden/tone.wav": tone(440),
        "golden/hello.txt": "ciao, três".encode(),
    }
    draft = Manifest(
        format=1,
        name=name,
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        task=task,
        labels=LABELS,
        inputs=inputs(modalities),
        fusion=Fusion(graph="fusion.onnx", fused="fused.onnx", method="sum", level="feature", embedding=3),
        calibration=calibration,
        golden="golden/cases.json",
        training={"made by": "tests"},
        metrics={},
        files=file_records(files),
        digest="0" * 64,
    )
    predictor = Predictor.open(Bundle(draft, files), device=Device("cpu"), threads=1)
    paths = {"image": "golden/red.png", "text": "golden/hello.txt", "audio": "golden/tone.wav"}
    cases = []
    for subset in subsets(modalities):
        case = GoldenCase(name=subset, probabilities=(), **{part: paths[part] for part in subset.split("+")})
        [outputs] = predictor.run([predictor.prepare(case.raw(files))])
        answers = {
            "probabilities": tuple(float(value) for value in outputs.probabilities),
            "logits": tuple(float(value) for value in outputs.logits),
        }
        cases.append(case.model_copy(update=answers))
    files["golden/cases.json"] = dump_golden(tuple(cases))
    return dataclasses.replace(
        Bundle(draft, files), manifest=draft.model_copy(update={"files": file_records(files)})
    )


def calibrated(
    modalities: tuple[Modality, ...] = MODALITIES,
    *,
    conformal: ConformalMethod | None = None,
    thresholds: tuple[float, ...] | None = None,
) -> Calibration:
    return Calibration(
        temperature=dict.fromkeys(subsets(modalities), 0.25),
        conformal=conformal and conformal_sets(conformal, modalities),
        thresholds=thresholds,
    )


def with_sets(method: ConformalMethod = "lac", *, name: str = "sets") -> Bundle:
    """One label a row, and a conformal set of labels."""
    return make(name=name, calibration=calibrated(conformal=method))


def multilabel(*, name: str = "many") -> Bundle:
    """Any number of labels a row. No two of them have the same threshold."""
    return make(name=name, task="multilabel", calibration=calibrated(thresholds=(0.5, 0.6, 0.7)))


def digest(bundle: Bundle) -> str:
    """What identifies it once it is written."""
    return parse_manifest(sealed(bundle.manifest)).digest


def write(
    models_dir: Path,
    *,
    name: str = "tiny",
    version: int = 1,
    modalities: tuple[Modality, ...] = MODALITIES,
) -> Path:
    """`models_dir/<name>/<version>`, as export would publish it."""
    bundle = make(name=name, version=version, modalities=modalities)
    return write_files(models_dir, bundle, bundle.files)


def write_files(models_dir: Path, bundle: Bundle, files: dict[str, bytes]) -> Path:
    """The bundle with these files, and a manifest that fits them."""
    folder = models_dir / bundle.manifest.name / str(bundle.manifest.version)
    folder.mkdir(parents=True)
    write_bundle(folder, bundle.manifest.model_copy(update={"files": file_records(files)}), files)
    return folder
