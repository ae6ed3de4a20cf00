"""The names of the raw path, imported when they are used.   pytest tests/multimodal/test_names.py"""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcdata import multimodal


def test_every_public_name_is_there() -> None:
    for name in multimodal.__all__:
        assert getattr(multimodal, name).__name__ == name
        assert name in dir(multimodal)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = multimodal.Nothing


def test_the_room_alone_imports_no_heavy_library() -> None:
    code = (
        "import sys, hpcdata.multimodal; print([m for m in ('torch', 'numpy', 'datasets', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
