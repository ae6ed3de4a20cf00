"""python -m pytest tests/loading/test_scale.py

10^9 samples in 10^4 parts, as sparse files: what opening and the first batch cost does not depend on the samples.
The figures are those of tests/benchmarks/opening.py; here, only what cannot be noise is asserted.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_a_billion_samples_in_ten_thousand_parts(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "tests" / "benchmarks" / "opening.py"),
        "--folder",
        str(tmp_path),
        "--runs",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| first")]
    first_ms, memory_mib, _, open_parts, state_bytes = (float(cell) for cell in line.split("|")[2:7])
    assert open_parts <= 256
    assert memory_mib < 50
    assert first_ms < 2000  # 50 ms on a quiet machine
    assert state_bytes < 1024
