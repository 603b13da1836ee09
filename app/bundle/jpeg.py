"""How many scans a JPEG holds, told from its markers: what bounds the time that its decoder takes.

A progressive JPEG refines all of its pixels with every scan, and a scan that refines nothing is 42 bytes
long: without a bound, a small file keeps a decoder busy for minutes.
"""

from __future__ import annotations

import re
from typing import Final

from app.bundle.errors import InvalidImage

MOST_SCANS: Final = 100  # encoders write about ten
_MOST_SEGMENTS: Final = 10_000  # real files have under a hundred; so that the walk itself is short
_SCAN, _END = b"\xda", b"\xd9"

# What a decoder passes over without a length (stuffed bytes, restarts, reserved codes) is no segment here
# either: to skip a length that the decoder does not skip would hide scans from us.
_SEGMENT: Final = re.compile(rb"\xff+([\xc0-\xcf\xd8-\xfe])")


def check_scans(body: bytes) -> None:
    """Raises InvalidImage if decoding would take more scans than pictures have."""
    if body.count(b"\xff" + _SCAN) <= MOST_SCANS:  # wherever they stand: nearly every picture is through here
        return
    at, scans = 2, 0
    for _ in range(_MOST_SEGMENTS):
        found = _SEGMENT.search(body, at)
        if found is None or found[1] == _END:
            return
        scans += found[1] == _SCAN
        if scans > MOST_SCANS:
            break
        at = found.end() + int.from_bytes(body[found.end() : found.end() + 2], "big")
    raise InvalidImage(
        f"The JPEG has more than {MOST_SCANS} scans or {_MOST_SEGMENTS} segments. Save it again, as PNG.",
        part="image",
    )
