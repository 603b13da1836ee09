"""Options are few, frozen and documented."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from app.cores import usable_cores
from app.settings import Settings

PAGE = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()


def test_the_list_of_options_is_frozen() -> None:
    """An option needs a second user. Add it here, and to docs/settings.md, when it has one."""
    assert set(Settings.model_fields) == {
        "host", "port", "admin_port", "models_dir", "default_model", "versions", "poll_seconds", "device",
        "workers", "worker_timeout_seconds", "threads", "decode_threads", "max_batch_size", "max_rows",
        "max_megabytes", "max_megapixels", "cache_megabytes", "deadline_seconds", "max_deadline_seconds",
        "hang_seconds", "header_seconds", "body_seconds", "keep_alive_seconds", "max_connections",
        "drain_seconds", "shutdown_seconds", "jobs_dir", "manifests_dir", "jobs_keep_hours",
        "jobs_max_megabytes", "jobs_max_rows", "jobs_max_unfinished", "api_keys_file",
        "requests_per_second", "cors_origins", "log_format", "log_level",
    }  # fmt: skip


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_option_is_documented_as_the_code_describes_it(name: str) -> None:
    field = Settings.model_fields[name]
    default = (
        "cores" if field.default_factory else f"`{field.default}`" if field.default is not None else "none"
    )
    assert f"| `TRICHORD_{name.upper()}` | {default} | {field.description} |" in PAGE


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "max 100000"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ({"cpu.max": ""}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_container_has_the_cores_that_it_is_given(
    tmp_path: Path, files: dict[str, str], cores: float
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    everything = usable_cores(cgroup=tmp_path / "nothing")
    assert usable_cores(cgroup=tmp_path) == min(everything, cores)


def test_origins_are_a_json_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICHORD_CORS_ORIGINS", '["https://x.org", "http://localhost:3000"]')
    assert Settings().cors_origins == ("https://x.org", "http://localhost:3000")
