"""A bundle on disk: nothing missing, nothing extra, nothing changed, nothing linked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.bundle.errors import BundleCorrupt, BundleError, ManifestInvalid
from app.bundle.folder import Bundle, file_records, read_bundle, staged, write_bundle
from tests import tiny


@pytest.fixture
def copy(models_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models_dir / "tiny" / "1", tmp_path / "copy")


def test_reading_gives_back_what_was_written(models_dir: Path) -> None:
    written, read = tiny.make(), read_bundle(models_dir / "tiny" / "1")
    assert read.files == written.files
    assert read.manifest.files == file_records(written.files)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_one_flipped_byte_anywhere_is_found_and_its_file_named(copy: Path, data: st.DataObject) -> None:
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    body = file.read_bytes()
    position = data.draw(st.integers(0, len(body) - 1))
    flipped = bytearray(body)
    flipped[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(flipped)
    try:
        with pytest.raises(BundleError) as caught:
            read_bundle(copy)
    finally:
        file.write_bytes(body)
    assert str(caught.value).startswith(file.relative_to(copy).as_posix())


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "fusion.onnx").unlink()
    with pytest.raises(BundleCorrupt, match=r"fusion\.onnx: it is in the manifest but not in the folder"):
        read_bundle(copy)


def test_a_stray_file_is_named(copy: Path) -> None:
    (copy / "golden" / "notes.txt").write_text("hello")
    with pytest.raises(BundleCorrupt, match=r"golden/notes\.txt: it is not in the manifest"):
        read_bundle(copy)


def test_a_longer_file_is_refused_without_reading_it_all(copy: Path) -> None:
    with (copy / "fusion.onnx").open("ab") as file:
        file.truncate(2**33)
    with pytest.raises(BundleCorrupt, match=r"fusion\.onnx"):
        read_bundle(copy)


def test_links_are_refused(copy: Path, tmp_path: Path) -> None:
    graph, outside = copy / "fusion.onnx", tmp_path / "outside.onnx"
    graph.rename(outside)
    graph.symlink_to(outside)
    with pytest.raises(BundleCorrupt, match=r"fusion\.onnx: it is a link"):
        read_bundle(copy)
    graph.unlink()
    os.link(outside, graph)
    with pytest.raises(BundleCorrupt, match=r"fusion\.onnx: it is a hard link"):
        read_bundle(copy)


def test_a_linked_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "golden").rename(tmp_path / "golden")
    (copy / "golden").symlink_to(tmp_path / "golden")
    with pytest.raises(BundleCorrupt, match="golden: it is a link"):
        read_bundle(copy)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="not a bundle"):
        read_bundle(tmp_path)


def test_an_edited_manifest_is_refused(copy: Path) -> None:
    manifest = copy / "manifest.json"
    content = json.loads(manifest.read_text())
    content["labels"][0] = "rot"
    manifest.write_text(json.dumps(content))
    with pytest.raises(ManifestInvalid, match=r"manifest\.json: .* changed after export"):
        read_bundle(copy)


def publish(destination: Path, bundle: Bundle) -> None:
    with staged(destination) as folder:
        assert not destination.exists(), "it is published when it is whole, not before"
        write_bundle(folder, bundle.manifest, bundle.files)


def test_a_bundle_is_published_by_rename(tmp_path: Path) -> None:
    publish(tmp_path / "tiny" / "7", tiny.make(version=7))
    assert read_bundle(tmp_path / "tiny" / "7").manifest.version == 7
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["7"]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    def export() -> None:
        with staged(tmp_path / "tiny" / "1") as folder:
            (folder / "half").write_text("written")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        export()
    assert list((tmp_path / "tiny").iterdir()) == []


def test_a_published_bundle_never_changes(tmp_path: Path) -> None:
    publish(tmp_path / "1", tiny.make())
    with pytest.raises(FileExistsError, match="choose another version"):
        publish(tmp_path / "1", tiny.make())
