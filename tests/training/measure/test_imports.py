from __future__ import annotations

import subprocess
import sys


def test_measuring_needs_no_torch() -> None:
    """Arrays in, numbers out: whatever gave the answers can be measured."""
    code = "import training.measure.report, sys; print('torch' in sys.modules or 'onnx' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
