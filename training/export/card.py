"""The model card: README.md of a bundle, every figure taken from the manifest beside it."""

from __future__ import annotations

from app.bundle.manifest import Manifest
from training.recipe import Recipe
from training.report import SUBSET_HEADER, further_rows, gain, speaker_rows, subset_rows


def model_card(manifest: Manifest, recipe: Recipe) -> str:
    """Markdown with the YAML header that the Hugging Face hub reads."""
    parts = (
        _header(manifest, recipe),
        f"# {recipe.title}\n\n{_summary(manifest)}",
        _inputs(manifest),
        f"## Figures\n\n{_figures(manifest, recipe)}",
        f"## Training\n\n{_training(manifest, recipe)}",
        "## What it is not for\n\n" + "\n".join(f"- {limit}" for limit in recipe.limits),
        f"## Files\n\n{_files(manifest)}",
    )
    return "\n\n".join(parts) + "\n"


def _header(manifest: Manifest, recipe: Recipe) -> str:
    return "\n".join(
        (
            "---",
            "license: apache-2.0",
            "library_name: onnx",
            f"tags: [multimodal, fusion, onnx, {', '.join(manifest.inputs.names)}]",
            f"datasets: [{', '.join(recipe.datasets)}]",
            "metrics: [accuracy]",
            "model-index:",
            f"- name: {manifest.name}",
            "  results:",
            *_results(manifest),
            "---",
        )
    )


def _results(manifest: Manifest) -> list[str]:
    lines: list[str] = []
    for condition in ("clean", "degraded"):
        lines += [
            "  - task: {type: multimodal-classification}",
            f"    dataset: {{name: 'test rows, {condition}', type: {manifest.name}}}",
            "    metrics:",
        ]
        for subset, scored in manifest.metrics[condition].items():
            lines.append(f"    - {{type: accuracy, name: '{subset}', value: {scored['accuracy']:.4f}}}")
    return lines


def _summary(manifest: Manifest) -> str:
    return (
        f"Version {manifest.version} of `{manifest.name}`: from an image, a text and a recording, or any one "
        f"or two of them, to one of {len(manifest.labels)} classes. {manifest.training['parameters']:,} "
        "parameters; three small encoders, joined by concatenation with a presence mask. ONNX, single files, "
        "everything numeric inside the graphs."
    )


def _inputs(manifest: Manifest) -> str:
    image, text, audio = manifest.inputs.image, manifest.inputs.text, manifest.inputs.audio
    assert image is not None
    assert text is not None
    assert audio is not None
    return "\n".join(
        (
            "## Inputs and outputs\n",
            f"- **image**: JPEG, PNG or WebP, resized and cropped to {image.width} x {image.height}; light "
            "on dark or dark on light.",
            f"- **text**: UTF-8, up to {text.max_characters} characters, of which {text.max_tokens} tokens "
            "are read.",
            f"- **audio**: WAV, FLAC, OGG or MP3, up to {audio.max_seconds:g} s, resampled to "
            f"{audio.sample_rate} Hz mono.",
            "- Out: `probabilities`, calibrated for the subset that was sent; `logits`, already divided by "
            "the subset's temperature; `embedding`; and `modality_probabilities`, what each modality's own "
            "head says alone, calibrated by a temperature of its own, even odds where the modality is "
            "absent.",
        )
    )


def _figures(manifest: Manifest, recipe: Recipe) -> str:
    metrics, how = manifest.metrics, recipe.degradation
    return "\n\n".join(
        (
            f"{metrics['rows']:,} test rows: every MNIST test image, each with a recording of FSDD's own "
            "test split and a text of its digit. The same recordings and texts are in many rows, so "
            "intervals (Wilson, 95 %) count the distinct images, strings or recordings, whichever are fewest "
            f"in the subset: {metrics['clean']['audio']['units']} recordings wherever audio takes part. One "
            "text in ten is a misspelling that training has not seen.",
            _table(SUBSET_HEADER, subset_rows(metrics)),
            f"Degraded: images with a black square of {how.image_square} x {how.image_square} pixels and "
            f"then Gaussian noise of {how.image_noise:g} of the range; recordings in white noise at "
            f"{how.audio_snr_db:g} dB; each character of a text damaged with probability {how.text_rate:g}. "
            f"All modalities together beat the best single one by **{gain(metrics):.1f} points**.",
            _table(("on its own", "accuracy", "95 % interval", "NLL", "ECE"), further_rows(metrics)),
            "Correctly spelt words are a closed list that training and test share (there is no other word "
            "for seven); no misspelt test string is ever in training.",
            "The test split shares its speakers with training. Trained again without each speaker, on a "
            "shorter schedule, the audio encoder alone is right on this share of the stranger's recordings:",
            _table(("speaker left out", "accuracy"), speaker_rows(metrics)),
        )
    )


def _training(manifest: Manifest, recipe: Recipe) -> str:
    run, schedule = manifest.training, recipe.schedule
    temperatures = ", ".join(
        f"{name} {value:.3f}" for name, value in manifest.calibration.temperature.items()
    )
    return "\n\n".join(
        (
            f"Recipe `{run['recipe']}`, seed {run['seed']}: {schedule.epochs} epochs of AdamW, one cycle, "
            f"batches of {schedule.batch_size}; each row loses each modality with probability "
            f"{schedule.drop_modality:g}; every modality has a head of its own (weight "
            f"{schedule.auxiliary_weight:g}). {run['train_s']:.0f} s for training on {schedule.threads} CPU "
            "threads.",
            f"Data: {recipe.data}",
            f"Temperatures, fitted on validation rows: {temperatures}.",
            f"Exported graphs against torch on {run['parity']['rows']} test rows and every subset: largest "
            f"difference of a logit {run['parity']['split_difference']:.1e} (encoders and fusion) and "
            f"{run['parity']['fused_difference']:.1e} (one graph), {run['parity']['flips']} labels differ.",
        )
    )


def _files(manifest: Manifest) -> str:
    audio = manifest.inputs.audio
    assert audio is not None
    return (
        "`encoders/*.onnx` and `fusion.onnx` are what Trichord serves; `fused.onnx` is the same computation "
        "as one graph, in which an absent modality still needs an array of a valid shape (one token, "
        f"{audio.min_samples} samples) whose content does not matter; `golden/` holds drawn digits, "
        "synthesised sounds and texts with the answers that this bundle gives them; `manifest.json` says "
        "everything else and seals the rest."
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]] | list[tuple[str, str]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
