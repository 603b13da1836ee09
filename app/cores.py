"""How many processors there are for us, which is not how many there are."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores(*, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: a container sees all of the machine's, however few it is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota_cores(cgroup))))


def _quota_cores(cgroup: Path) -> float:
    """The share of processor time that the kernel grants, in cores; infinity without a limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # of cgroup v2, of v1
        try:
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and period.isdecimal():  # not so: "max" in v2, -1 in v1
            return int(quota) / int(period)
    return math.inf
