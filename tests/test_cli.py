"""The command: verify, inspect, healthcheck, and the one sentence when it cannot."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.bundle.folder import Bundle
from app.bundle.manifest import Variant
from app.cli import app
from tests import tiny
from tests.server import Server, free_port


def trichord(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def told(*arguments: object) -> Result:
    """The command in this process: starting one takes ten times what most commands do."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def copy(models_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models_dir / "tiny" / "1", tmp_path / "copy")


def test_verify_passes_a_sound_bundle(copy: Path) -> None:
    done = trichord("verify", copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tiny/1: 10 files intact, 7 golden cases answered as at export")


@pytest.mark.parametrize(
    "file", ["encoders/audio.onnx", "fusion.onnx", "golden/tone.wav", "tokenizer.json", "manifest.json"]
)
def test_verify_names_the_file_with_a_flipped_byte(copy: Path, file: str) -> None:
    body = bytearray((copy / file).read_bytes())
    body[len(body) // 2] ^= 0x10
    (copy / file).write_bytes(body)
    done = told("verify", copy)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"trichord: {file}: ")
    assert done.stderr.count("\n") == 1


def without_labels(copy: Path) -> None:
    manifest = copy / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["labels"]
    manifest.write_text(json.dumps(content))


def with_format_2(copy: Path) -> None:
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))


def with_a_symlink(copy: Path) -> None:
    (copy / "fusion.onnx").unlink()
    (copy / "fusion.onnx").symlink_to(copy / "fused.onnx")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without_labels, "manifest.json: entry 'labels': Field required."),
        (with_format_2, "manifest.json: format 2 is not the format 1 that this version of trichord reads."),
        (with_a_symlink, "fusion.onnx: it is a link or a device."),
    ],
)
def test_verify_refuses_in_one_sentence(copy: Path, spoil: object, sentence: str) -> None:
    assert callable(spoil)
    spoil(copy)
    done = told("verify", copy)
    assert (done.exit_code, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_verify_says_in_one_sentence_what_no_file_shows(tmp_path: Path) -> None:
    """Every byte as recorded, and still it cannot be read or run."""
    bundle = tiny.make()
    narrow = tiny.graph(tiny.IMAGE_GRAPH.replace("[rows,8,8,3]", "[rows,9,9,3]"))
    for name, file, body, sentence in (
        ("words", "tokenizer.json", b"{}", "tokenizer.json: it is no tokenizer"),
        ("pixels", "encoders/image.onnx", narrow, "encoders/image.onnx: ONNX Runtime cannot run this graph"),
        ("case", "golden/red.png", b"\x89PNG\r\n\x1a\n", "golden case 'image' could be read at export"),
    ):
        done = told("verify", tiny.write_files(tmp_path / name, bundle, bundle.files | {file: body}))
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith(f"trichord: {sentence}")
        assert done.stderr.count("\n") == 1


def test_verify_replays_the_golden_cases(tmp_path: Path) -> None:
    """Every byte as recorded, and still another model than the one that was exported."""
    bundle = tiny.make()
    other = tiny.graph(tiny.IMAGE_GRAPH.replace("{255.0}", "{250.0}"))
    folder = tiny.write_files(tmp_path, bundle, bundle.files | {"encoders/image.onnx": other})
    done = told("verify", folder)
    assert done.exit_code == 1
    assert "golden case 'image' differs from export" in done.stderr


def test_inspect_says_what_a_bundle_reads(copy: Path, bundle: Bundle) -> None:
    done = told("inspect", copy)
    assert done.exit_code == 0
    assert f"tiny/1  {tiny.digest(bundle)}" in done.stdout
    for said in ("red, green, blue", "sample_rate 8000", "max_pixels 25000000", "fusion.onnx"):
        assert said in done.stdout
    for said in ("task     classification", "fusion   sum, feature level"):
        assert said in done.stdout.splitlines()
    assert not any(name in done.stdout for name in ("sets  ", "variant"))


def test_inspect_says_how_a_bundle_answers_and_computes(tmp_path: Path) -> None:
    made = tiny.with_sets("aps")
    variant = Variant(precision="int8", of="a" * 64)
    folder = tiny.write_files(
        tmp_path,
        dataclasses.replace(made, manifest=made.manifest.model_copy(update={"variant": variant})),
        made.files,
    )
    said = told("inspect", folder).stdout.splitlines()
    assert "sets     aps, level 0.9" in said
    assert f"variant  int8 of {'a' * 64}" in said
    many = tiny.multilabel()
    assert "task     multilabel" in told("inspect", tiny.write_files(tmp_path, many, many.files)).stdout


@pytest.mark.parametrize("made", [tiny.with_sets, tiny.multilabel])
def test_verify_replays_bundles_of_every_kind(tmp_path: Path, made: Callable[[], Bundle]) -> None:
    bundle = made()
    done = told("verify", tiny.write_files(tmp_path, bundle, bundle.files))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "7 golden cases answered as at export" in done.stdout


def test_healthcheck_asks_the_server(server: Server) -> None:
    assert trichord("healthcheck", TRICHORD_PORT=str(server.port)).returncode == 0
    nobody = trichord("healthcheck", TRICHORD_PORT=str(free_port()))
    assert nobody.returncode == 1
    assert "Nothing answers" in nobody.stderr


@pytest.mark.parametrize(
    ("setting", "value"), [("TRICHORD_PORT", "http"), ("TRICHORD_CORS_ORIGINS", "https://x.org")]
)
def test_healthcheck_says_in_one_sentence_which_setting_is_wrong(setting: str, value: str) -> None:
    done = trichord("healthcheck", **{setting: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"trichord: {setting}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "code", "sentence"),
    [
        ({"TRICHORD_DEVICE": "tpu"}, 4, "'tpu' is not a device."),
        ({"TRICHORD_MODELS_DIR": "/nowhere"}, 4, "no bundle at <name>/<version> can be served."),
        ({"TRICHORD_DEFAULT_MODEL": "huge"}, 4, "The default model 'huge' is not live."),
        ({"TRICHORD_PORT": "http"}, 2, "TRICHORD_PORT: Input should be a valid integer"),
        ({"TRICHORD_MAX_ROWS": "0"}, 2, "TRICHORD_MAX_ROWS: Input should be greater than"),
        ({"TRICHORD_CORS_ORIGINS": "https://x.org"}, 2, "TRICHORD_CORS_ORIGINS: "),
        ({"TRICHORD_CORS_ORIGINS": '["https://x.org/y"]'}, 2, "TRICHORD_CORS_ORIGINS_0: String should match"),
    ],
)
def test_serve_says_in_one_sentence_why_it_cannot_start(
    models_dir: Path, environment: dict[str, str], code: int, sentence: str
) -> None:
    done = trichord("serve", **({"TRICHORD_MODELS_DIR": str(models_dir)} | environment))
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_cuda_that_is_not_there_is_a_start_up_error(models_dir: Path) -> None:
    from app.runtime.session import find_device

    if find_device("auto").kind == "cuda":
        pytest.skip("this machine has CUDA, so asking for it is no error")
    done = trichord("serve", "--device", "cuda", "--models", models_dir)
    assert done.returncode == 4
    assert "this ONNX Runtime has no CUDA" in done.stderr
