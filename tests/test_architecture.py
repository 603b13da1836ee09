"""The floors hold, and the checks that say so do fail when they should."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code in which a violation can be planted."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("app", "training"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_contracts_hold(checkout: Path) -> None:
    done = lint_imports(checkout)
    assert done.returncode == 0, done.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("Imports point down, floor by floor", "app/bundle/decode.py", "import app.runtime.session"),
        ("Imports point down, floor by floor", "app/runtime/golden.py", "import app.serving.batcher"),
        ("Imports point down, floor by floor", "app/serving/model.py", "import app.api.errors"),
        ("The server never sees torch, onnx or training", "app/cli.py", "import torch"),
        ("The server never sees torch, onnx or training", "app/api/app.py", "import training"),
        ("The server never sees torch, onnx or training", "app/runtime/session.py", "import onnx"),
        ("Training sees the bundle and the runtime, nothing above", "training/__init__.py", "import app.api"),
        (
            "Scoring sees the bundle, the runtime and the client, nothing of the server",
            "app/score/local.py",
            "import app.serving.engine",
        ),
        (
            "Scoring sees the bundle, the runtime and the client, nothing of the server",
            "app/score/remote.py",
            "import app.api.answers",
        ),
        ("Imports point down, floor by floor", "app/api/batch.py", "import app.score.run"),
        ("Imports point down, floor by floor", "app/serving/engine.py", "import app.jobs.worker"),
        ("Imports point down, floor by floor", "app/jobs/worker.py", "import app.api.errors"),
        ("Only app.jobs.sqlite knows the database", "app/api/jobs.py", "import sqlite3"),
        ("Only app.score.cluster knows Ray", "app/score/engines.py", "import ray.data"),
        ("The bundle floor is light", "app/bundle/folder.py", "import onnxruntime"),
        ("Only app.runtime.session touches onnxruntime", "app/runtime/predictor.py", "import onnxruntime"),
        (
            "Only app.api knows fastapi, starlette and the form parser",
            "app/serving/model.py",
            "import fastapi",
        ),
        ("The client is one file that can be copied away", "app/client.py", "import app.api.errors"),
        ("The client is one file that can be copied away", "app/client.py", "import numpy"),
    ],
)
def test_a_planted_violation_breaks_its_contract(
    checkout: Path, contract: str, module: str, line: str
) -> None:
    """Also when it hides inside a function."""
    file = checkout / module
    honest = file.read_text()
    file.write_text(f"{honest}\n\ndef _hidden() -> None:\n    {line}\n")
    try:
        done = lint_imports(checkout)
    finally:
        file.write_text(honest)
    assert done.returncode != 0
    assert re.search(rf"{re.escape(contract)}\s+BROKEN", done.stdout)


def test_every_contract_has_its_planted_violation() -> None:
    [marker] = test_a_planted_violation_breaks_its_contract.pytestmark  # type: ignore[attr-defined]
    assert {planted[0] for planted in marker.args[1]} == {contract["name"] for contract in CONTRACTS}


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in a fresh process after a statement."""
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_serving_imports_no_torch() -> None:
    loaded = loaded_by("import app.api.app, app.cli")
    assert "fastapi" in loaded
    assert not loaded & {"torch", "onnx", "onnxscript", "training", "transformers"}


def test_the_bundle_floor_imports_no_onnxruntime() -> None:
    loaded = loaded_by("import app.bundle.folder, app.bundle.prepare, app.bundle.golden")
    assert not loaded & {"onnxruntime", "fastapi", "torch"}


def test_the_command_line_opens_without_the_upper_floors() -> None:
    """`trichord verify` runs where only trichord[cpu] is installed."""
    upper = {"fastapi", "uvicorn", "prometheus_client", "structlog", "httpx2", "pyarrow", "ray"}
    assert not loaded_by("import app.cli") & upper
    assert "ray" not in loaded_by("import app.score.local, app.score.remote, app.score.wire")


def test_the_client_imports_its_library_and_the_standard_one() -> None:
    """Anywhere in the file, and nothing else."""
    nodes = list(ast.walk(ast.parse((ROOT / "app" / "client.py").read_text())))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in named} - sys.stdlib_module_names == {"httpx2"}


PACKAGES = [file for top in ("app", "training") for file in sorted(ROOT.glob(f"{top}/**/__init__.py"))]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda file: file.parent.name)
def test_packages_are_docstrings(package: Path) -> None:
    """A re-export would drag its imports along."""
    [only] = ast.parse(package.read_text()).body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


def test_nothing_is_pickled() -> None:
    for file in [*ROOT.glob("app/**/*.py"), *ROOT.glob("training/**/*.py")]:
        assert not re.search(r"\bimport pickle|torch\.load\(", file.read_text()), file
