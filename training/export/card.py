"""The model card: README.md of a bundle, every figure taken from the manifest beside it."""

from __future__ import annotations

from typing import Any, Final

from app.bundle.manifest import Fit, Manifest
from training.recipe import Recipe, Schedule
from training.report import (
    GATES_HEADER,
    SETS_HEADER,
    Rows,
    coverage_rows,
    gain,
    gate_rows,
    score_header,
    stranger_rows,
    subset_rows,
    tells_noise,
)

_FITTED: Final[dict[Fit, str]] = {
    "crop": "resized and cropped to",
    "pad": "resized and padded to",
    "stretch": "stretched to",
}


def model_card(manifest: Manifest, recipe: Recipe) -> str:
    """Markdown with the YAML header that the Hugging Face hub reads."""
    about = recipe.about
    parts = [
        _header(manifest, recipe),
        f"# {about.title}\n\n{_summary(manifest)}",
        _inputs(manifest),
        f"## Figures\n\n{_figures(manifest, recipe)}",
        f"## Training\n\n{_training(manifest, recipe)}",
        f"## Files\n\n{_FILES}",
    ]
    if manifest.variant is not None:
        parts.insert(-2, f"## Variant\n\n{_variant(manifest)}")
    if about.limits:
        parts.insert(-1, "## What it is not for\n\n" + "\n".join(f"- {limit}" for limit in about.limits))
    return "\n\n".join(parts) + "\n"


def _header(manifest: Manifest, recipe: Recipe) -> str:
    licence = [f"license: {recipe.about.licence}"] if recipe.about.licence else []
    datasets = [f"datasets: [{', '.join(recipe.about.datasets)}]"] if recipe.about.datasets else []
    return "\n".join(
        (
            "---",
            *licence,
            "library_name: onnx",
            f"tags: [multimodal, fusion, onnx, {', '.join(manifest.inputs.names)}]",
            *datasets,
            f"metrics: [{_metric(manifest)}]",
            "model-index:",
            f"- name: {manifest.name}",
            "  results:",
            *_results(manifest),
            "---",
        )
    )


def _metric(manifest: Manifest) -> str:
    return "accuracy" if manifest.task == "classification" else "f1"


def _results(manifest: Manifest) -> list[str]:
    lines: list[str] = []
    for condition in ("test", "degraded"):
        if manifest.metrics[condition] is None:
            continue
        lines += [
            "  - task: {type: multimodal-classification}",
            f"    dataset: {{name: 'test rows{', degraded' * (condition == 'degraded')}', "
            f"type: {manifest.name}}}",
            "    metrics:",
        ]
        for subset, scored in manifest.metrics[condition].items():
            value = scored["accuracy" if manifest.task == "classification" else "micro_f1"]["value"]
            lines.append(f"    - {{type: {_metric(manifest)}, name: '{subset}', value: {value:.4f}}}")
    return lines


def _summary(manifest: Manifest) -> str:
    fusion, names = manifest.fusion, manifest.inputs.names
    answer = "one of" if manifest.task == "classification" else "any of"
    return (
        f"Version {manifest.version} of `{manifest.name}`: from {_listed(names)}, or any of them alone, to "
        f"{answer} {len(manifest.labels)} classes. {manifest.training['parameters']:,} parameters; an "
        f"encoder for each modality, joined by `{fusion.method}` at {fusion.level} level with a presence "
        "mask. ONNX, single files, everything numeric inside the graphs."
    )


def _listed(names: tuple[str, ...]) -> str:
    said = [{"image": "an image", "text": "a text", "audio": "a recording"}[name] for name in names]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _inputs(manifest: Manifest) -> str:
    image, text, audio = manifest.inputs.image, manifest.inputs.text, manifest.inputs.audio
    lines = ["## Inputs and outputs\n"]
    if image is not None:
        lines.append(f"- **image**: JPEG, PNG or WebP, {_FITTED[image.fit]} {image.width} x {image.height}.")
    if text is not None:
        lines.append(
            f"- **text**: UTF-8, up to {text.max_characters} characters, of which {text.max_tokens} tokens "
            "are read."
        )
    if audio is not None:
        lines.append(
            f"- **audio**: WAV, FLAC, OGG or MP3, up to {audio.max_seconds:g} s, resampled to "
            f"{audio.sample_rate} Hz mono."
        )
    lines.append(
        "- Out: `probabilities`, calibrated for the subset that was sent; `logits`, already divided by the "
        "subset's temperature; `embedding`; and `modality_probabilities`, what each modality's own head says "
        "alone, calibrated by a temperature of its own, even odds where the modality is absent."
    )
    if (sets := manifest.calibration.conformal) is not None:
        lines.append(
            f"- `prediction_set`: classes that hold the right one in {100 * sets.level:g} % of cases, and "
            "always the most probable one."
        )
    return "\n".join(lines)


def _figures(manifest: Manifest, recipe: Recipe) -> str:
    metrics, how = manifest.metrics, recipe.degradation
    header = ("modalities", *score_header(metrics))
    parts = [
        f"{metrics['rows']:,} test rows. {recipe.about.rows} Intervals (bootstrap, 95 %) count what is "
        f"independent in a subset, not its rows.{_NOISE if tells_noise(metrics) else ''}",
        _table(header, subset_rows(metrics["test"])),
    ]
    if metrics["degraded"] is not None and how is not None:
        parts += [
            f"Degraded: images with a black square of {how.image_square} x {how.image_square} pixels and "
            f"then Gaussian noise of {how.image_noise:g} of the range; recordings in white noise at "
            f"{how.audio_snr_db:g} dB; each character of a text damaged with probability {how.text_rate:g}. "
            "All modalities together beat the best single one by "
            f"**{gain(metrics['degraded']):.1f} points**.",
            _table(header, subset_rows(metrics["degraded"])),
        ]
    if metrics["coverage"] is not None:
        parts += _coverage(metrics)
    for column, values in metrics["slices"].items():
        parts += [
            f"All modalities, by {column}:",
            _table((column, *score_header(metrics)), subset_rows(values)),
        ]
    if metrics["strangers"] is not None and recipe.strangers is not None:
        name = recipe.strangers
        parts += [
            f"Trained again without each {name.column}, on a shorter schedule, the {name.modality} encoder "
            "alone is right on this share of what that one brings:",
            _table((f"{name.column} left out", "accuracy"), stranger_rows(metrics["strangers"])),
        ]
    return "\n\n".join(parts)


def _variant(manifest: Manifest) -> str:
    variant = manifest.variant
    assert variant is not None
    computed = {
        "int8": "Convolutions compute with 8-bit numbers; other large weights are stored as such and "
        "computed with as float32.",
        "float16": "Encoders compute with 16-bit numbers; the fusion's weights are stored as such.",
    }
    return "\n\n".join(
        (
            f"Made from the float32 bundle with the digest `{variant.of}`. {computed[variant.precision]} "
            "Temperatures and the thresholds of conformal sets were fitted again on its own answers. Against "
            "that bundle:",
            _table(GATES_HEADER, gate_rows(manifest.metrics["gates"])),
        )
    )


def _coverage(metrics: dict[str, object]) -> list[str]:
    coverage = metrics["coverage"]
    assert isinstance(coverage, dict)
    return [
        f"Conformal sets at {100 * coverage['level']:g} % (LAC, a threshold for each subset, fitted on "
        f"validation rows) cover {100 * coverage['mean']['lac']:.1f} % on average over the subsets. Where "
        "the model is right more often than that, a set may be empty; what is answered holds the most "
        "probable class too, and covers more (last column). The error is one standard error, counted over "
        "groups, in points.",
        _table(("modalities", *SETS_HEADER), coverage_rows(coverage, "lac")),
    ]


def _training(manifest: Manifest, recipe: Recipe) -> str:
    run, schedule = manifest.training, recipe.schedule
    temperatures = ", ".join(
        f"{name} {value:.3f}" for name, value in manifest.calibration.temperature.items()
    )
    parity = run["parity"]
    return "\n\n".join(
        (
            f"Recipe `{run['recipe']}`, seed {run['seed']}: {_epochs(run, schedule)} of AdamW, one cycle, "
            f"batches of {schedule.batch_size}; each row loses each modality with probability "
            f"{schedule.drop_modality:g}; every modality has a head of its own (weight "
            f"{schedule.auxiliary_weight:g}). {run['train_s']:.0f} s for training on "
            f"{_device(run, schedule)}.",
            f"Data: {recipe.about.data}",
            f"Temperatures, fitted on validation rows: {temperatures}.",
            f"Exported graphs against torch on {parity['rows']} test rows and every subset: largest "
            f"difference of a logit {parity['split_difference']:.1e} (encoders and fusion) and "
            f"{parity['fused_difference']:.1e} (one graph), {parity['flips']} labels differ.",
        )
    )


def _epochs(run: dict[str, Any], schedule: Schedule) -> str:
    stopped = run["epochs"] < schedule.epochs
    return f"{run['epochs']} of {schedule.epochs} epochs" if stopped else f"{run['epochs']} epochs"


def _device(run: dict[str, Any], schedule: Schedule) -> str:
    device = run.get("device", "cpu")  # bundles from before it was kept are of CPUs
    return f"{schedule.threads} CPU threads" if device == "cpu" else f"`{device}`"


_NOISE: Final = (
    " ECE has 15 bins of equal width; beside it is what is left when noise is taken off (Kumar, Liang & Ma "
    "2019, over what is independent), and what noise alone would show."
)
_FILES: Final = (
    "`encoders/*.onnx` and `fusion.onnx` are what Trichord serves; `fused.onnx` is the same computation as "
    "one graph, in which an absent modality still needs an array of a valid shape whose content does not "
    "matter; `golden/` holds drawn pictures, synthesised sounds and texts with the answers that this bundle "
    "gives them; `manifest.json` says everything else and seals the rest."
)


def _table(header: tuple[str, ...], rows: Rows) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(said: str) -> str:
    """Columns and values of one's own rows may hold what ends a cell or a row."""
    return " ".join(said.split()).replace("|", r"\|")
