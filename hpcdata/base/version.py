"""Which code this is, for records: the version, and the commit when it runs from a checkout."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from hpcdata import __version__


@cache
def code_version() -> str:
    """Such as `0.1.0` for an installed wheel, `0.1.0+1a2b3c4` or `0.1.0+1a2b3c4-dirty` for a checkout."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return __version__
    return f"{__version__}+{result.stdout.strip()}" if result.returncode == 0 else __version__


def is_installed() -> bool:
    """Whether Python finds hpcdata from any folder (`python -P`), not only in the current one."""
    folders = [folder for folder in sys.path if folder not in ("", os.getcwd())]
    return any((Path(folder) / "hpcdata" / "__init__.py").exists() for folder in folders) or any(
        metadata.distributions(name="hpcdata", path=folders)
    )


LIBRARIES = ("gigatoken", "numpy", "orjson", "pillow", "pyarrow", "sentencepiece", "tokenizers", "torch", "zstandard")
"""Whose versions can show in ids and codes."""


@cache
def library_versions() -> dict[str, str]:
    """Name -> installed version, without importing any of them."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions
