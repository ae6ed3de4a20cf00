"""Folder trees as values, to compare what two runs wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sha256_tree(folder: Path) -> str:
    """One sha256 over all names and contents."""
    hasher = hashlib.sha256()
    for name, content in sorted(tree(folder).items()):
        hasher.update(f"{name}\0{len(content)}\0".encode())
        hasher.update(content)
    return hasher.hexdigest()
