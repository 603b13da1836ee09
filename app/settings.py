"""The only reader of the environment. Read once, at start; every other file gets plain values."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.cores import usable_cores


def _fitting_workers(given: dict[str, Any]) -> int:
    """One for each of a few cores, then one for four; a GPU belongs to one process.

    Python runs one thread at a time, so a single process leaves a second core half idle.
    """
    device, cores = given.get("device", "auto"), usable_cores()
    is_cpu = device == "cpu" or (device == "auto" and not _has_gpu_runtime())
    return max(min(cores, 4), cores // 4) if is_cpu else 1


def _has_gpu_runtime() -> bool:
    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def _share_of_cores(given: dict[str, Any]) -> int:
    workers: int = given.get("workers", 1)
    return max(1, usable_cores() // workers)


def share_metrics_in(folder: Path) -> None:
    """Tell the metrics library, which listens to the environment only, where workers count."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # noqa: TID251 - this is that file


def _decoders(given: dict[str, Any]) -> int:
    """One more than this process has cores: between native steps a decoder waits for the interpreter."""
    return _share_of_cores(given) + 1


def _parsed(value: object) -> object:
    """JSON, as the environment holds it; what is none is a wrong value, and no other error."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("Input should be a JSON list") from None


_Origin = Annotated[str, Field(pattern=r"^https?://[^/*]+$")]


class Settings(BaseSettings):
    """Each field is the environment variable TRICHORD_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="TRICHORD_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port to listen on.")
    admin_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None,
        description="Port for /metrics, /v1/admin, /v2/repository and probes; only probes are then on both.",
    )
    models_dir: Path = Field(Path("models"), description="Folder of bundles, as <name>/<version>.")
    default_model: str | None = Field(None, description="Answers requests that name no model.")
    versions: Literal["latest", "all"] = Field(
        "latest", description="Versions served of a model that has no serving.json: latest or all."
    )
    poll_seconds: Annotated[float, Field(ge=0)] = Field(
        1.0, description="How often the models folder is looked at for changes; 0 for never."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=_fitting_workers,
        description="Processes that share the port: one for a core up to four, or one alone beside a GPU.",
    )
    worker_timeout_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0,
        description="One of several workers whose event loop is blocked so long is replaced; 0 for never.",
    )
    threads: Annotated[int, Field(ge=1)] = Field(
        default_factory=_share_of_cores, description="CPU threads that run one operator of a graph."
    )
    decode_threads: Annotated[int, Field(ge=1)] = Field(
        default_factory=_decoders, description="Threads that decode images, sounds and texts."
    )
    max_batch_size: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="Most rows in one run.")
    max_rows: Annotated[int, Field(ge=1)] = Field(
        512, description="Most rows let in and not yet answered, of each worker; more are refused with 503."
    )
    max_megabytes: Annotated[int, Field(ge=1)] = Field(
        256, description="Most memory for the bodies of those rows, of each worker, in MiB."
    )
    cache_megabytes: Annotated[int, Field(ge=0)] = Field(
        0, description="Memory for features of inputs seen before, of each worker, in MiB; 0 keeps none."
    )
    jobs_dir: Path | None = Field(
        None, description="Folder in which jobs are kept; without it /v1/jobs takes none."
    )
    manifests_dir: Path | None = Field(
        None, description="Folder of manifests that jobs may name, and of the files that those name."
    )
    jobs_keep_hours: Annotated[float, Field(gt=0)] = Field(
        72.0, description="How long a job that has ended is kept with its results."
    )
    jobs_max_megabytes: Annotated[int, Field(ge=1)] = Field(
        1024, description="Most bytes of one job's rows, in MiB."
    )
    jobs_max_rows: Annotated[int, Field(ge=1)] = Field(1_000_000, description="Most rows of one job.")
    jobs_max_unfinished: Annotated[int, Field(ge=1)] = Field(
        100, description="Most jobs that wait or run; more are refused with 503."
    )
    max_megapixels: Annotated[int, Field(ge=1)] = Field(
        100, description="Most pixels decoded at once, of each worker, in millions; further images wait."
    )
    deadline_seconds: Annotated[float, Field(gt=0)] = Field(
        5.0, description="Time to answer for a caller who sends no X-Request-Deadline-Ms."
    )
    max_deadline_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Longest time that a caller may ask for."
    )
    hang_seconds: Annotated[float, Field(gt=0)] = Field(
        10.0, description="A run of more makes the server unready until it ends."
    )
    header_seconds: Annotated[float, Field(gt=0)] = Field(
        5.0, description="Longest time for a request's headers to arrive."
    )
    body_seconds: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Likewise for its body, and 1 s more for every 50 kB received."
    )
    keep_alive_seconds: Annotated[int, Field(ge=1)] = Field(
        5, description="How long a connection may idle; behind a load balancer, longer than it keeps one."
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        1000, description="Most open connections of each worker; more are refused with 503."
    )
    drain_seconds: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Time to go on accepting when told to stop; load balancers need some."
    )
    shutdown_seconds: Annotated[int, Field(ge=1)] = Field(
        25, description="Longest wait for requests in progress when told to stop."
    )
    api_keys_file: Path | None = Field(
        None, description="Lines of NAME SCOPES SHA256; without it everybody may ask everything."
    )
    requests_per_second: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Most requests of each key, of all workers together, with bursts of two seconds' worth.",
    )
    cors_origins: Annotated[tuple[_Origin, ...], NoDecode, BeforeValidator(_parsed)] = Field(
        (), description="Web pages of other hosts that may ask, as a JSON list of origins."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto is console on a terminal and JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
