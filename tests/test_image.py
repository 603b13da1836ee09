"""The container: what its files promise, and, where buildah is installed, the built image at work.

Not covered: CUDA inside the gpu image, and Docker Compose itself; both need an engine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.bundle.folder import Bundle, read_bundle
from app.bundle.golden import TOLERANCE, load_golden
from app.settings import Settings
from tests.server import Server, free_port, wait_ready

REPOSITORY = Path(__file__).parents[1]
VERSION = version("trichord")
USER = 10001

# --- the Dockerfile ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next. Instructions are (name, rest of the line)."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        return [value for instruction, value in self.instructions if instruction == name]


def dockerfile() -> dict[str, Stage]:
    text = (REPOSITORY / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages = {}
    for part in re.split(r"^FROM ", joined, flags=re.MULTILINE)[1:]:
        head, *body = part.splitlines()
        base, name = head.split(" AS ")
        instructions = tuple((line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in body)
        stages[name] = Stage(name, base, instructions)
    return stages


def test_the_last_stage_is_the_cpu_target() -> None:
    stages = dockerfile()
    assert list(stages)[-1] == "cpu"
    assert "gpu" in stages


def test_every_base_is_one_pinned_python() -> None:
    stages = dockerfile()
    assert {stage.base for stage in stages.values()} <= {"${PYTHON_IMAGE}", *stages}
    text = (REPOSITORY / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=docker\.io/library/python:3\.\d+-slim-\w+$", text, re.MULTILINE)


def test_what_ships_is_copied_not_run() -> None:
    """No RUN: no compiler, installer or cache can enter the layers that ship."""
    stages = dockerfile()
    for target in ("cpu", "gpu"):
        shipped = [stages["runtime"], stages[target]]
        assert [stage.base for stage in shipped] == ["${PYTHON_IMAGE}", "runtime"]
        assert not any(stage.all("RUN") or stage.all("ADD") for stage in shipped)
        assert [copy for stage in shipped for copy in stage.all("COPY")] == [
            f"--from=dependencies-{target} /opt/trichord /opt/trichord",
            "--from=project /out/ /",
            "--chmod=0755 models /models",
        ]


def test_it_starts_as_a_numeric_user_in_exec_form() -> None:
    stages = dockerfile()
    runtime = stages["runtime"]
    assert runtime.all("USER") == [f"{USER}:{USER}"]
    assert not stages["cpu"].all("USER") + stages["gpu"].all("USER")
    [entrypoint], [command] = runtime.all("ENTRYPOINT"), runtime.all("CMD")
    assert json.loads(entrypoint) + json.loads(command) == ["trichord", "serve"]
    [check] = runtime.all("HEALTHCHECK")
    assert json.loads(check.split("CMD ")[1]) == ["trichord", "healthcheck"]


def test_the_context_is_an_allow_list() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    first, *rest = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    allowed = {line.removeprefix("!") for line in rest if line.startswith("!")}
    assert allowed == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "app", "models"}


# --- docker-compose.yml -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    return services


def test_compose_up_starts_the_cpu_alone(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "profiles" not in service] == ["trichord"]
    assert services["trichord"]["build"]["target"] == "cpu"


@pytest.mark.parametrize("name", ["trichord", "trichord-gpu"])
def test_compose_locks_the_server_down(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["image"] == f"trichord:{service['build']['target']}"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    [models] = service["volumes"]
    assert (models["source"], models["target"], models["read_only"]) == ("./models", "/models", True)


def test_compose_waits_longer_than_the_server_drains(services: dict[str, Any]) -> None:
    drains_s = Settings.model_fields["shutdown_seconds"].default
    for service in services.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > drains_s


def test_the_gpu_profile_reserves_a_device_and_its_own_port(services: dict[str, Any]) -> None:
    gpu = services["trichord-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["environment"]["TRICHORD_DEVICE"] == "cuda"
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert gpu["ports"] == ["${TRICHORD_HOST:-127.0.0.1}:${TRICHORD_GPU_PORT:-8001}:8000"]
    assert services["trichord"]["ports"] == ["${TRICHORD_HOST:-127.0.0.1}:${TRICHORD_PORT:-8000}:8000"]


# --- deploy/image.sh with an engine: a docker that writes down what it was asked ---------------

ENGINE = """#!/usr/bin/env bash
case $1 in
    build)
        printf '%s\\n' "$@" >"$ASKED/arguments"
        for argument in "$@"; do
            if [[ $argument == id=pip-env.conf,src=* ]]; then cp "${argument#*src=}" "$ASKED/pip-env.conf"; fi
        done ;;
    image) echo 123456789 ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def path_with(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_docker_builds_where_it_answers(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "docker", ENGINE)
    environment = path_with(tmp_path / "bin") | {"ASKED": str(tmp_path), "PYTHON_IMAGE": "python:mine"}
    index = {"PIP_INDEX_URL": "file:///my/secret/packages", "PIP_RETRIES": "9"}
    done = subprocess.run(
        [REPOSITORY / "deploy" / "image.sh", "gpu"],
        env=os.environ | environment | index,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"trichord:gpu (trichord:{VERSION}-gpu): 123 MB\n"
    asked = (tmp_path / "arguments").read_text()
    for argument in ("gpu", "trichord:gpu", f"trichord:{VERSION}-gpu", "PYTHON_IMAGE=python:mine"):
        assert f"\n{argument}\n" in asked
    assert "secret/packages" not in asked
    settings = (tmp_path / "pip-env.conf").read_text().splitlines()
    assert settings[0] == "[global]"
    assert {"index-url = file:///my/secret/packages", "retries = 9"} <= set(settings)


def test_an_unknown_target_is_refused() -> None:
    done = subprocess.run(
        [REPOSITORY / "deploy" / "image.sh", "tpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "image.sh cpu|gpu" in done.stderr


# --- the built image ----------------------------------------------------------------------------


def buildah(*arguments: object) -> str:
    command = [REPOSITORY / "deploy" / "buildah.sh", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def is_stored(image: str) -> bool:
    return bool(buildah("images", "--quiet", "--filter", f"reference={image}"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The cpu target, built by buildah on the base image or, without a registry, on its stand-in."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed: no image is built here")
    if os.geteuid() != 0:
        pytest.skip("not root: buildah cannot build in a chroot and mount the result")
    base = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)[0]
    if not is_stored(base) and shutil.which("debootstrap") is not None:
        subprocess.run([REPOSITORY / "deploy" / "base.sh"], check=True)
    no_docker = executable(tmp_path_factory.mktemp("path") / "bin" / "docker", "#!/bin/sh\nexit 1\n")
    environment = os.environ | path_with(no_docker.parent)
    environment.pop("PYTHON_IMAGE", None)
    subprocess.run([REPOSITORY / "deploy" / "image.sh", "cpu"], env=environment, check=True)
    return "trichord:cpu"


@pytest.fixture(scope="module")
def image_config(image: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    return config


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    name = buildah("from", image)
    yield name
    buildah("rm", name)


def leaf(pid: int) -> int:
    """The process at the end of a chain of single children: what buildah's helpers started."""
    while children := [
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    ]:
        [pid] = children
    return pid


@contextmanager
def container_serving(
    container: str, config: dict[str, Any], tmp_path: Path, *volumes: str
) -> Iterator[tuple[Server, int]]:
    """The image's own command as its own user, on a free port; and the process id of the server."""
    port = free_port()
    alone = ["--env", "TRICHORD_WORKERS=1"]  # so that the process at the end of the chain is the server
    options = ["--env", f"TRICHORD_PORT={port}", *alone, *(f"--volume={volume}" for volume in volumes)]
    command = [REPOSITORY / "deploy" / "buildah.sh", "run", *options, container, "--"]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *config["Entrypoint"], *config["Cmd"]], stderr=stderr, start_new_session=True
        )
    server = Server(port=port, process=process, log=log)
    try:
        wait_ready(server, seconds=60)
        pid = leaf(process.pid)
        try:
            yield server, pid
        finally:
            os.kill(pid, getattr(signal, config["StopSignal"]))
            process.wait(30)
        assert "Application shutdown complete." in log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def assert_golden_answers(server: Server, bundle: Bundle) -> None:
    for case in load_golden(bundle.manifest, bundle.files):
        answer = server.predict(case.raw(bundle.files), model=bundle.manifest.name).raise_for_status().json()
        assert answer["probability"] == pytest.approx(max(case.probabilities), abs=TOLERANCE)
        assert bundle.manifest.labels.index(answer["label"]) == case.probabilities.index(
            max(case.probabilities)
        )


@pytest.mark.timeout(900)  # the first time, debootstrap fetches a Debian
def test_the_image_keeps_what_the_dockerfile_says(image_config: dict[str, Any]) -> None:
    assert image_config["User"] == f"{USER}:{USER}"
    assert image_config["Entrypoint"] + image_config["Cmd"] == ["trichord", "serve"]
    assert image_config["Healthcheck"]["Test"] == ["CMD", "trichord", "healthcheck"]
    assert image_config["StopSignal"] == "SIGTERM"
    assert image_config["Labels"]["org.opencontainers.image.version"] == VERSION


@pytest.mark.timeout(900)
def test_the_image_answers_as_its_user(
    container: str, image_config: dict[str, Any], models_dir: Path, tmp_path: Path
) -> None:
    """With a folder mounted over /models, as docker-compose.yml does."""
    mounted = shutil.copytree(models_dir, tmp_path / "models", copy_function=shutil.copyfile)
    mounted.chmod(0o755)  # pytest's own folders are closed to other users
    bundle = read_bundle(mounted / "tiny" / "1")
    with container_serving(container, image_config, tmp_path, f"{mounted}:/models:ro") as (server, pid):
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n" in status
        assert f"Gid:\t{USER}\t{USER}\t{USER}\t{USER}\n" in status
        assert_golden_answers(server, bundle)
        check = image_config["Healthcheck"]["Test"][1:]
        buildah("run", "--env", f"TRICHORD_PORT={server.port}", container, "--", *check)
        httpx.get(f"{server.url}/docs").raise_for_status()
    assert_nothing_was_written(container)


def assert_nothing_was_written(container: str) -> None:
    """So a read-only root is enough."""
    root = buildah("mount", container)
    find = ["find", root, "-xdev", "(", "-uid", str(USER), "-o", "-gid", str(USER), ")"]
    written = subprocess.run(find, capture_output=True, text=True, check=True).stdout
    buildah("umount", container)
    assert written == ""


@pytest.mark.timeout(900)
def test_the_image_alone_answers_with_the_committed_models(
    container: str, image_config: dict[str, Any], tmp_path: Path
) -> None:
    committed = sorted((REPOSITORY / "models").glob("[!.]*/[0-9]*"))
    if not committed:
        pytest.skip("models/ holds no bundle yet")
    with container_serving(container, image_config, tmp_path) as (server, _):
        newest = {folder.parent.name: folder for folder in sorted(committed, key=lambda path: int(path.name))}
        for folder in newest.values():
            assert_golden_answers(server, read_bundle(folder))


@pytest.mark.timeout(900)
def test_the_image_holds_no_torch_installer_or_training(container: str) -> None:
    names = ("app", "onnxruntime", "torch", "onnx", "training", "tests", "pip", "setuptools")
    ask = f"from importlib.util import find_spec; print([n for n in {names} if find_spec(n)])"
    assert buildah("run", container, "--", "python", "-c", ask) == "['app', 'onnxruntime']"
    done = buildah("run", container, "--", "sh", "-c", "command -v gcc cc make curl git || echo none")
    assert done == "none"


@pytest.mark.timeout(900)
def test_the_image_is_small(container: str) -> None:
    """Without its base, which others share: ONNX Runtime is 78 MB of it, numpy 73."""
    root = Path(buildah("mount", container))
    disk_usage = ["du", "--summarize", "--block-size=1", root / "opt", root / "models"]
    added = subprocess.run(disk_usage, capture_output=True, text=True, check=True).stdout
    buildah("umount", container)
    assert sum(int(line.split("\t")[0]) for line in added.splitlines()) < 450e6, added
